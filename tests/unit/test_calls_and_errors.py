"""What happens around a call, seen from its caller: every error as a status, unexpected ones as a fixed text.

The stub and channel are pytest-grpc's, on a real socket; the server is ours, with a servicer that raises at will.
"""

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from prometheus_client import CollectorRegistry

from holdfast.v1 import blob_store_pb2 as pb
from holdfast.v1 import blob_store_pb2_grpc, types_pb2
from holdfast_server import calls, errors
from holdfast_server.errors import HoldfastError, Reason
from holdfast_server.rpc.server import RpcServer, ServerOptions
from holdfast_server.rpc.status import CODES

SERVICE = "holdfast.v1.BlobStore"


class Servicer(blob_store_pb2_grpc.BlobStoreServicer):
    """Does what the test says."""

    def __init__(self) -> None:
        self.behave: Callable[[], Any] = lambda: None

    def StatBlob(self, _request: pb.StatBlobRequest, _context: grpc.ServicerContext) -> pb.StatBlobResponse:
        self.behave()
        return pb.StatBlobResponse()

    def GetBlob(self, _request: pb.GetBlobRequest, _context: grpc.ServicerContext) -> Iterator[pb.GetBlobResponse]:
        yield pb.GetBlobResponse(info=pb.BlobInfo(key="k"))
        self.behave()

    def PutBlob(self, request_iterator: Iterator[pb.PutBlobRequest], _context: grpc.ServicerContext) -> Any:
        for _ in request_iterator:
            pass
        self.behave()
        return pb.PutBlobResponse()


@pytest.fixture(scope="module")
def grpc_servicer() -> Servicer:
    return Servicer()  # type: ignore[abstract]  # what it leaves out is not called


@pytest.fixture(scope="module")
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture(scope="module")
def grpc_server(grpc_servicer: Servicer, registry: CollectorRegistry) -> Iterator[RpcServer]:
    def register(server: grpc.Server) -> None:
        blob_store_pb2_grpc.add_BlobStoreServicer_to_server(grpc_servicer, server)

    options = ServerOptions(listen=("127.0.0.1:0",), max_concurrent_calls=4)
    server = RpcServer(options, {SERVICE: register}, registry)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def grpc_addr(grpc_server: RpcServer) -> str:
    return grpc_server.addresses[0]


@pytest.fixture(scope="module")
def grpc_stub_cls() -> type[blob_store_pb2_grpc.BlobStoreStub]:
    return blob_store_pb2_grpc.BlobStoreStub


EVERY_ERROR = [
    *(
        errors.InvalidArgument(reason, "a.field", "rule", extra="x")
        for reason in Reason
        if reason.startswith("INVALID_")
    ),
    errors.InvalidArgument(Reason.TOO_LARGE, "chunk.data", "too large"),
    errors.InvalidArgument(Reason.BATCH_FULL, "address", "no room", size_bytes="20"),
    errors.BrokenUpload(Reason.UPLOAD_INCOMPLETE, "trailer", "ended"),
    errors.BrokenUpload(Reason.SIZE_MISMATCH, "size_bytes", "size"),
    errors.BrokenUpload(Reason.CHECKSUM_MISMATCH, "sha256", "sha"),
    errors.NotFound(Reason.BLOB_NOT_FOUND, "no blob", key="ключ"),
    errors.NotFound(Reason.ROOM_NOT_FOUND, "no room", room_id="комната"),
    errors.NotFound(Reason.CHECKPOINT_NOT_FOUND, "no checkpoint", room_id="r", epoch="7"),
    errors.NotFound(Reason.SNAPSHOT_NOT_FOUND, "no snapshot", room_id="r"),
    errors.RangeNotSatisfiable("outside", 20),
    errors.AlreadyExists(Reason.ALREADY_EXISTS, "taken", key="k", etag="e", sha256="00"),
    errors.AlreadyExists(Reason.CONTENT_CONFLICT, "other bytes", key="k"),
    errors.PreconditionFailed(Reason.PRECONDITION_FAILED, "etag"),
    errors.EpochTooOld("too old", room_id="r", next_epoch="8"),
    errors.SealKeyUnavailable("no ring"),
    errors.SealTooNew("version 2", version="2"),
    errors.ConditionUnsupported("this store cannot"),
    errors.ConcurrentModification("others were faster", key="k"),
    errors.ReadOnly(),
    errors.IntegrityFailed("k", "damaged"),
    errors.SealInvalid("room 'r', epoch 7", "its seal does not fit", room_id="r", epoch="7"),
    errors.PointerInvalid("r", "names nothing"),
    errors.StorageFull("full"),
    errors.StorageFull("quota", Reason.QUOTA_EXCEEDED),
    errors.StorageFull("spool", Reason.SPOOL_FULL),
    errors.BackendRefused(Reason.BACKEND_AUTH, "credentials"),
    errors.BackendRefused(Reason.BUCKET_MISSING, "bucket"),
    errors.Unavailable(Reason.BACKEND_UNAVAILABLE, "down", 2.5),
    errors.Unavailable(Reason.DRAINING, "going"),
    errors.Overloaded("busy", 0.25),
    errors.DeadlineExceeded("late"),
    errors.Cancelled(),
]


def call(stub: blob_store_pb2_grpc.BlobStoreStub, method: str) -> None:
    if method == "StatBlob":
        stub.StatBlob(pb.StatBlobRequest())
    elif method == "GetBlob":
        list(stub.GetBlob(pb.GetBlobRequest()))
    else:
        stub.PutBlob(iter([pb.PutBlobRequest()]))


def details_of(error: grpc.RpcError) -> tuple[str, dict[str, Any]]:
    """Return the message and the details of a status by the name of their type."""
    assert isinstance(error, grpc.Call)
    status = rpc_status.from_call(error)
    assert status is not None
    found: dict[str, Any] = {}
    for packed in status.details:
        kind = getattr(error_details_pb2, packed.type_url.rpartition(".")[2])
        detail = kind()
        packed.Unpack(detail)
        found[kind.__name__] = detail
    return status.message, found


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: error.reason)
@pytest.mark.parametrize("method", ["StatBlob", "GetBlob", "PutBlob"])
def test_every_error_arrives_with_code_reason_and_details(
    grpc_stub: blob_store_pb2_grpc.BlobStoreStub, grpc_servicer: Servicer, error: HoldfastError, method: str
) -> None:
    def behave() -> None:
        raise error

    grpc_servicer.behave = behave
    with pytest.raises(grpc.RpcError) as failed:
        call(grpc_stub, method)
    assert failed.value.code() is CODES[type(error)]
    message, details = details_of(failed.value)
    assert message == error.message
    assert details["ErrorInfo"].domain == "holdfast"
    assert details["ErrorInfo"].reason == error.reason
    assert dict(details["ErrorInfo"].metadata) == error.details
    if isinstance(error, errors.InvalidArgument):
        (violation,) = details["BadRequest"].field_violations
        assert (violation.field, violation.description) == (error.field, error.message)
    retry_after = getattr(error, "retry_after_seconds", None)
    assert ("RetryInfo" in details) == (retry_after is not None)
    if retry_after is not None:
        assert details["RetryInfo"].retry_delay.ToTimedelta().total_seconds() == retry_after


def test_every_reason_is_in_the_proto_and_met_above() -> None:
    in_proto = {name.removeprefix("ERROR_REASON_") for name in types_pb2.ErrorReason.DESCRIPTOR.values_by_name} - {
        "UNSPECIFIED"
    }
    assert {reason.value for reason in Reason} == in_proto
    assert {error.reason for error in EVERY_ERROR} | {Reason.INTERNAL} == set(Reason)
    assert {type(error) for error in EVERY_ERROR} == set(CODES)


@pytest.mark.parametrize("method", ["StatBlob", "GetBlob", "PutBlob"])
def test_an_unexpected_error_is_a_fixed_text_outside_and_a_traceback_in_the_log(
    grpc_stub: blob_store_pb2_grpc.BlobStoreStub,
    grpc_servicer: Servicer,
    caplog: pytest.LogCaptureFixture,
    method: str,
) -> None:
    def behave() -> None:
        raise ValueError("/secret/path and password")

    grpc_servicer.behave = behave
    with pytest.raises(grpc.RpcError) as failed:
        call(grpc_stub, method)
    assert failed.value.code() is grpc.StatusCode.INTERNAL
    message, details = details_of(failed.value)
    assert message == "internal error; the server's log has the details"
    assert details["ErrorInfo"].reason == "INTERNAL"
    assert "secret" not in str(failed.value.trailing_metadata())
    logged = [record for record in caplog.records if record.name == "holdfast_server.rpc.handlers"]
    assert len(logged) == 1
    assert logged[0].exc_info is not None
    assert "/secret/path" in str(logged[0].exc_info[1])


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE, errno.EROFS])
def test_what_a_disk_refuses_is_one_line_in_the_log_with_the_key(
    grpc_stub: blob_store_pb2_grpc.BlobStoreStub,
    grpc_servicer: Servicer,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    record = logged_failure(grpc_stub, grpc_servicer, caplog, number)
    assert record.exc_info is None
    assert getattr(record, "fields") == {  # noqa: B009 (no record has it of itself)
        "method": f"/{SERVICE}/StatBlob",
        "error": "key 'a/b': the file system failed",
        "cause": f"[Errno {number}] {os.strerror(number)}: '/secret/path'",
    }


def test_what_no_disk_says_by_itself_has_a_traceback(
    grpc_stub: blob_store_pb2_grpc.BlobStoreStub, grpc_servicer: Servicer, caplog: pytest.LogCaptureFixture
) -> None:
    assert logged_failure(grpc_stub, grpc_servicer, caplog, errno.EBADF).exc_info is not None


def logged_failure(
    stub: blob_store_pb2_grpc.BlobStoreStub, servicer: Servicer, caplog: pytest.LogCaptureFixture, number: int
) -> logging.LogRecord:
    """Return the one line about a call that a disk failed, whose path the caller was not told."""

    def behave() -> None:
        cause = OSError(number, os.strerror(number), "/secret/path")
        raise errors.Unavailable(Reason.BACKEND_UNAVAILABLE, "key 'a/b': the file system failed") from cause

    servicer.behave = behave
    with pytest.raises(grpc.RpcError) as failed:
        stub.StatBlob(pb.StatBlobRequest())
    assert "secret" not in str(failed.value)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == "Backend failed"
    return record


def test_a_message_of_any_length_arrives(grpc_stub: blob_store_pb2_grpc.BlobStoreStub, grpc_servicer: Servicer) -> None:
    def behave() -> None:
        raise errors.InvalidArgument(Reason.INVALID_KEY, "key", "😀" * 2000, key="é" * 450)

    grpc_servicer.behave = behave
    with pytest.raises(grpc.RpcError) as failed:
        grpc_stub.StatBlob(pb.StatBlobRequest())
    assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert len(details_of(failed.value)[0]) == 300


def test_too_many_calls_are_overloaded_and_health_still_answers(
    grpc_stub: blob_store_pb2_grpc.BlobStoreStub, grpc_servicer: Servicer, grpc_server: RpcServer
) -> None:
    entered, leave = threading.Semaphore(0), threading.Event()

    def behave() -> None:
        entered.release()
        assert leave.wait(30)

    grpc_servicer.behave = behave
    waiting = [grpc_stub.StatBlob.future(pb.StatBlobRequest()) for _ in range(4)]
    for _ in waiting:
        assert entered.acquire(timeout=30)
    assert grpc_server.admission.at_work == 4
    with pytest.raises(grpc.RpcError) as refused:
        grpc_stub.StatBlob(pb.StatBlobRequest())
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    _, details = details_of(refused.value)
    assert details["ErrorInfo"].reason == "OVERLOADED"
    assert "RetryInfo" in details
    leave.set()
    for waited in waiting:
        waited.result(timeout=30)
    grpc_stub.StatBlob(pb.StatBlobRequest())


def test_a_call_knows_its_deadline_and_when_its_caller_is_gone(
    grpc_stub: blob_store_pb2_grpc.BlobStoreStub, grpc_servicer: Servicer, grpc_server: RpcServer
) -> None:
    outcomes: list[type[BaseException]] = []
    entered, done = threading.Event(), threading.Event()

    def behave() -> None:
        entered.set()
        try:
            while True:
                calls.pause(0.01, "something that never comes")
        except HoldfastError as error:
            outcomes.append(type(error))
            raise
        finally:
            done.set()

    grpc_servicer.behave = behave
    seconds = 0.2
    while not entered.is_set():  # on a busy machine a call may be late before it arrives
        with pytest.raises(grpc.RpcError) as late:
            grpc_stub.StatBlob(pb.StatBlobRequest(), timeout=seconds)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        seconds *= 2
    assert done.wait(60)
    assert grpc_server.admission.wait_until_idle(60)
    assert outcomes
    assert set(outcomes) <= {errors.DeadlineExceeded, errors.Cancelled}
    outcomes.clear()
    entered.clear()
    done.clear()
    abandoned = grpc_stub.StatBlob.future(pb.StatBlobRequest())
    assert entered.wait(60)
    abandoned.cancel()
    assert done.wait(60)
    assert errors.Cancelled in outcomes
    assert grpc_server.admission.wait_until_idle(60)


def test_a_call_without_a_deadline_waits_as_long_as_it_takes(
    grpc_stub: blob_store_pb2_grpc.BlobStoreStub, grpc_servicer: Servicer
) -> None:
    grpc_servicer.behave = lambda: calls.pause(0.01, "something")
    grpc_stub.StatBlob(pb.StatBlobRequest())


def test_calls_are_counted_by_code_and_logged_in_one_line(
    grpc_stub: blob_store_pb2_grpc.BlobStoreStub,
    grpc_servicer: Servicer,
    registry: CollectorRegistry,
    caplog: pytest.LogCaptureFixture,
) -> None:
    labels = {"grpc_type": "unary", "grpc_service": SERVICE, "grpc_method": "StatBlob"}

    def counted(code: str) -> float:
        return registry.get_sample_value("grpc_server_handled_total", {**labels, "grpc_code": code}) or 0

    def missing() -> None:
        raise errors.NotFound(Reason.BLOB_NOT_FOUND, "there is no blob", key="k")

    caplog.set_level(logging.INFO, "holdfast_server.access")
    before = counted("OK"), counted("NOT_FOUND")
    grpc_servicer.behave = lambda: None
    grpc_stub.StatBlob(pb.StatBlobRequest())
    grpc_servicer.behave = missing
    with pytest.raises(grpc.RpcError):
        grpc_stub.StatBlob(pb.StatBlobRequest())
    assert (counted("OK"), counted("NOT_FOUND")) == (before[0] + 1, before[1] + 1)
    assert registry.get_sample_value("grpc_server_handling_seconds_count", labels)
    lines = [
        record
        for record in caplog.records
        if record.name == "holdfast_server.access" and getattr(record, "fields")["code"] != "CANCELLED"  # noqa: B009
    ]  # without a late one of the tests before
    assert [record.message for record in lines] == ["Call finished", "Call finished"]
    assert lines[0].fields["method"] == f"/{SERVICE}/StatBlob"  # type: ignore[attr-defined]
    assert lines[1].fields["reason"] == "BLOB_NOT_FOUND"  # type: ignore[attr-defined]
