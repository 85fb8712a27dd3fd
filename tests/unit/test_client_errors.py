"""The client's errors: a mirror of the server's, and something sensible for everything else."""

import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

import holdfast
from holdfast import errors
from holdfast.retrying import Retrier
from holdfast.v1 import blob_store_pb2 as pb
from holdfast.v1 import blob_store_pb2_grpc, types_pb2
from holdfast_server import errors as server_errors
from holdfast_server.errors import Reason
from holdfast_server.rpc.batches import Statuses
from holdfast_server.rpc.status import internal_status, status_of

_REASONS = {
    name.removeprefix("ERROR_REASON_") for name, number in types_pb2.ErrorReason.items() if number
}  # 0 is "not used"


class _Answering(blob_store_pb2_grpc.BlobStoreServicer):
    """Answers every StatBlob with one status."""

    def __init__(self) -> None:
        self.status: grpc.Status | None = None

    def StatBlob(self, request: pb.StatBlobRequest, context: grpc.ServicerContext) -> pb.StatBlobResponse:
        assert self.status is not None
        context.abort_with_status(self.status)
        raise AssertionError


@pytest.fixture(scope="module")
def answering() -> Iterator[tuple[_Answering, str]]:
    """A server that answers as it is told, and its address."""
    servicer = _Answering()  # type: ignore[abstract]  # the other calls are not made
    server = grpc.server(ThreadPoolExecutor(2))
    blob_store_pb2_grpc.add_BlobStoreServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"127.0.0.1:{port}"
    server.stop(None).wait()


@contextmanager
def _client(address: str) -> Iterator[holdfast.Client]:
    with holdfast.connect(address, retries=0) as client:
        yield client


def _answer(answering: tuple[_Answering, str], status: grpc.Status) -> errors.HoldfastError:
    servicer, address = answering
    servicer.status = status
    with _client(address) as client, pytest.raises(errors.HoldfastError) as caught:
        client.blobs.stat("a")
    return caught.value


def _status(code: grpc.StatusCode, message: str, *details: Any) -> grpc.Status:
    packed = []
    for detail in details:
        wrapped = AnyMessage()
        wrapped.Pack(detail)
        packed.append(wrapped)
    return rpc_status.to_status(status_pb2.Status(code=code.value[0], message=message, details=packed))


def _server_error(reason: Reason) -> server_errors.HoldfastError:
    """Return a server's error with this reason, of the class that the server raises it with."""
    kind = getattr(server_errors, errors.CLASS_BY_REASON[reason].__name__)
    by_kind: dict[type[server_errors.HoldfastError], Any] = {
        server_errors.RangeNotSatisfiable: lambda: kind("outside", 17),
        server_errors.ConditionUnsupported: lambda: kind("cannot"),
        server_errors.ConcurrentModification: lambda: kind("others were faster"),
        server_errors.ReadOnly: lambda: kind("read-only"),
        server_errors.EpochTooOld: lambda: kind("too old", room_id="a", next_epoch="8"),
        server_errors.SealKeyUnavailable: lambda: kind("no such key", key_id="00"),
        server_errors.SealTooNew: lambda: kind("version 2", version="2"),
        server_errors.SealInvalid: lambda: kind("room 'a', epoch 7", "its seal does not fit", room_id="a", epoch="7"),
        server_errors.PointerInvalid: lambda: kind("a", "names nothing"),
        server_errors.IntegrityFailed: lambda: kind("a/b", "damaged"),
        server_errors.StorageFull: lambda: kind("full", reason),
        server_errors.Unavailable: lambda: kind(reason, "away", retry_after_seconds=2.5),
        server_errors.Overloaded: lambda: kind("busy", retry_after_seconds=1.25),
        server_errors.DeadlineExceeded: lambda: kind("late"),
        server_errors.Cancelled: lambda: kind("gone"),
        server_errors.InvalidArgument: lambda: kind(reason, "some.field", "a rule", key="a/b"),
        server_errors.BrokenUpload: lambda: kind(reason, "some.field", "a rule", key="a/b"),
    }
    error: server_errors.HoldfastError = by_kind.get(kind, lambda: kind(reason, "a message", key="a/b", etag="e"))()
    return error


def test_every_reason_of_the_proto_has_a_class() -> None:
    assert set(errors.CLASS_BY_REASON) == _REASONS


def test_every_class_of_the_server_has_a_mirror_of_the_same_descent() -> None:
    def tree(module: Any) -> dict[str, str]:
        kinds = [kind for kind in vars(module).values() if isinstance(kind, type)]
        public = {
            kind for kind in kinds if issubclass(kind, module.HoldfastError) and not kind.__name__.startswith("_")
        }
        return {
            kind.__name__: next((parent.__name__ for parent in kind.__mro__[1:] if parent in public), "")
            for kind in public
        }

    assert tree(errors) == tree(server_errors) | {"InternalError": "HoldfastError"}


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.INTERNAL])
def test_every_error_of_the_server_arrives_as_its_mirror(answering: tuple[_Answering, str], reason: Reason) -> None:
    sent = _server_error(reason)
    got = _answer(answering, status_of(sent))
    assert type(got).__name__ == type(sent).__name__
    assert (got.reason, got.message, got.details) == (sent.reason.value, sent.message, sent.details)
    assert str(got) == sent.message
    for name in ("field", "retry_after_seconds"):
        assert getattr(got, name, None) == getattr(sent, name, None)
    if isinstance(got, errors.RangeNotSatisfiable):
        assert got.size_bytes == 17


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.INTERNAL])
def test_every_error_of_an_item_arrives_as_its_mirror(reason: Reason) -> None:
    sent = _server_error(reason)
    got = errors.from_item_status(Statuses(1000).of(sent))
    assert type(got) is errors.CLASS_BY_REASON[reason]
    assert type(got).__name__ == type(sent).__name__
    assert (got.reason, got.message, got.details) == (sent.reason.value, sent.message, sent.details)
    assert getattr(got, "field", None) == getattr(sent, "field", None)
    assert getattr(got, "retry_after_seconds", None) is None
    if isinstance(got, errors.RangeNotSatisfiable):
        assert got.size_bytes == 17


def test_a_fault_of_the_server_with_an_item_is_an_internal_error() -> None:
    status = types_pb2.ItemStatus(
        code=grpc.StatusCode.INTERNAL.value[0], reason=types_pb2.ERROR_REASON_INTERNAL, message="see the log"
    )
    got = errors.from_item_status(status)
    assert type(got) is errors.InternalError
    assert (got.reason, got.message) == ("INTERNAL", "see the log")


def test_an_error_of_an_item_without_its_texts_still_says_what_it_is() -> None:
    got = errors.from_item_status(Statuses(0).of(_server_error(Reason.BLOB_NOT_FOUND)))
    assert type(got) is errors.NotFound
    assert (got.reason, got.message, got.details) == (
        "BLOB_NOT_FOUND",
        "the server answered NOT_FOUND, BLOB_NOT_FOUND",
        {},
    )


@pytest.mark.parametrize("number", [0, 999])
def test_the_reason_of_an_item_that_this_client_does_not_know_goes_by_its_code(number: int) -> None:
    known = types_pb2.ItemStatus(code=grpc.StatusCode.DATA_LOSS.value[0], message="worse", details={"key": "a"})
    wire = {0: b"\x10\x00", 999: b"\x10\xe7\x07"}[number]
    status = types_pb2.ItemStatus.FromString(known.SerializeToString() + wire)
    assert status.reason == number
    got = errors.from_item_status(status)
    assert type(got) is errors.IntegrityFailed
    assert (got.reason, got.message, got.details) == ("DATA_LOSS", "worse", {"key": "a"})


def test_an_item_with_a_code_that_nobody_knows_is_an_internal_error_that_says_so() -> None:
    got = errors.from_item_status(types_pb2.ItemStatus(code=77))
    assert type(got) is errors.InternalError
    assert (got.reason, got.message) == ("UNKNOWN", "the server answered UNKNOWN, UNKNOWN")


def test_a_fault_of_the_server_is_an_internal_error(answering: tuple[_Answering, str]) -> None:
    got = _answer(answering, internal_status())
    assert type(got) is errors.InternalError
    assert got.reason == "INTERNAL"


def test_a_reason_that_this_client_does_not_know_goes_by_its_code(answering: tuple[_Answering, str]) -> None:
    info = error_details_pb2.ErrorInfo(reason="ROOM_NOT_FOUND", domain="holdfast", metadata={"room": "7"})
    got = _answer(answering, _status(grpc.StatusCode.NOT_FOUND, "no such room", info))
    assert type(got) is errors.NotFound
    assert (got.reason, got.message, got.details) == ("ROOM_NOT_FOUND", "no such room", {"room": "7"})


def test_reasons_of_other_domains_are_not_ours(answering: tuple[_Answering, str]) -> None:
    info = error_details_pb2.ErrorInfo(reason="DRAINING", domain="example.org")
    got = _answer(answering, _status(grpc.StatusCode.NOT_FOUND, "a proxy's", info))
    assert (type(got), got.reason) == (errors.NotFound, "NOT_FOUND")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, errors.InvalidArgument),
        (grpc.StatusCode.NOT_FOUND, errors.NotFound),
        (grpc.StatusCode.OUT_OF_RANGE, errors.RangeNotSatisfiable),
        (grpc.StatusCode.ALREADY_EXISTS, errors.AlreadyExists),
        (grpc.StatusCode.FAILED_PRECONDITION, errors.PreconditionFailed),
        (grpc.StatusCode.DATA_LOSS, errors.IntegrityFailed),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.Overloaded),
        (grpc.StatusCode.UNAVAILABLE, errors.Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineExceeded),
        (grpc.StatusCode.CANCELLED, errors.Cancelled),
        (grpc.StatusCode.INTERNAL, errors.InternalError),
        (grpc.StatusCode.UNKNOWN, errors.InternalError),
        (grpc.StatusCode.PERMISSION_DENIED, errors.InternalError),
    ],
)
def test_a_status_without_details_goes_by_its_code_and_names_the_address(
    answering: tuple[_Answering, str], code: grpc.StatusCode, kind: type[errors.HoldfastError]
) -> None:
    got = _answer(answering, _status(code, "bare"))
    assert (type(got), got.reason, got.details) == (kind, code.name, {})
    assert answering[1] in got.message


def test_a_call_that_the_server_gave_up_is_said_to_have_stalled_perhaps(answering: tuple[_Answering, str]) -> None:
    got = _answer(answering, _status(grpc.StatusCode.CANCELLED, "CANCELLED"))
    assert got.message == f"a call to {answering[1]} was given up: by its caller, or since it stalled (CANCELLED)"


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("Concurrent RPC limit exceeded!", errors.Overloaded),
        ("SERVER: Received message larger than max (5242885 vs. 4194304)", errors.InvalidArgument),
        ("received metadata size exceeds hard limit (35110 vs. 16384)", errors.InvalidArgument),
    ],
)
def test_only_the_resources_that_come_back_are_worth_another_try(
    answering: tuple[_Answering, str], words: str, kind: type[errors.HoldfastError]
) -> None:
    got = _answer(answering, _status(grpc.StatusCode.RESOURCE_EXHAUSTED, words))
    assert (type(got), got.reason) == (kind, "RESOURCE_EXHAUSTED")
    assert words in got.message


def test_the_words_of_a_server_of_ours_do_not_change_its_reason(answering: tuple[_Answering, str]) -> None:
    got = _answer(answering, status_of(server_errors.StorageFull("a message larger than max is what 'full' means")))
    assert type(got) is errors.StorageFull


def test_a_range_error_without_a_size_has_none(answering: tuple[_Answering, str]) -> None:
    got = _answer(answering, _status(grpc.StatusCode.OUT_OF_RANGE, "bare"))
    assert isinstance(got, errors.RangeNotSatisfiable)
    assert got.size_bytes is None


def test_details_that_contradict_their_status_do_not_count(answering: tuple[_Answering, str]) -> None:
    class Contradicting(grpc.Status):
        code = grpc.StatusCode.NOT_FOUND
        details = "what the call says"
        trailing_metadata = _status(grpc.StatusCode.UNAVAILABLE, "what the details say").trailing_metadata

    got = _answer(answering, Contradicting())
    assert (type(got), got.reason) == (errors.NotFound, "NOT_FOUND")


def test_a_call_that_the_server_does_not_know_is_an_internal_error_that_says_so(
    answering: tuple[_Answering, str],
) -> None:
    with (
        _client(answering[1]) as client,
        pytest.raises(errors.InternalError, match="does not know this call") as caught,
    ):
        client.server_info()
    assert caught.value.reason == "UNIMPLEMENTED"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "unix:/nowhere/holdfast.sock"])
def test_an_address_where_nobody_listens_is_unavailable_by_name(address: str) -> None:
    client = holdfast.Client(address, Retrier(retries=0))
    with client, pytest.raises(errors.Unavailable) as caught:
        client.server_info()
    assert address in caught.value.message
    assert caught.value.reason == "UNAVAILABLE"
    assert caught.value.retry_after_seconds is None


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidArgument("INVALID_KEY", "bad", {"key": "a"}, field="key"),
        errors.Unavailable("DRAINING", "away", retry_after_seconds=2.0),
        errors.RangeNotSatisfiable("RANGE_NOT_SATISFIABLE", "outside", {"size_bytes": "3"}),
    ],
)
def test_errors_survive_pickling(error: errors.HoldfastError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), vars(copy)) == (str(error), vars(error))
