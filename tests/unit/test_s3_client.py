"""The one file that knows the S3 library: what goes over the wire, and what each answer, or its absence, becomes."""

import inspect
import logging
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import pytest
from minio import Minio

from holdfast_server import calls
from holdfast_server.errors import (
    BackendRefused,
    Cancelled,
    DeadlineExceeded,
    HoldfastError,
    InvalidArgument,
    Reason,
    StorageFull,
    Unavailable,
)
from holdfast_server.objects.s3.client import Request, S3Client, S3Refusal
from holdfast_server.objects.s3.options import S3Options
from tests.support.fault_proxy import (
    FOREVER,
    Answer,
    Fault,
    FaultProxy,
    Garbage,
    Hang,
    HangAfter,
    LoseAnswer,
    NotXml,
    ResetAfter,
    Throttle,
    Truncate,
)
from tests.support.fault_proxy.exchange import Exchange
from tests.support.http_upstream import HttpUpstream
from tests.support.samples import MIB, sample

SECRET = "hunter2-secret"
TOKEN = "hunter2-token"
SHORT = 0.2
LONG = 20.0
GET = Request("get", "GET", "key")
HEAD = Request("head", "HEAD", "key")
PUT = Request("put", "PUT", "key", body=b"body")
COMPLETE = Request("complete_upload", "POST", "key", {"uploadId": "1"}, body=b"<CompleteMultipartUpload/>")
HEAD_BUCKET = Request("head_bucket", "HEAD")


@pytest.fixture
def upstream() -> Iterator[HttpUpstream]:
    """A server that keeps what is put."""
    with HttpUpstream() as server:
        yield server


@pytest.fixture
def proxy(upstream: HttpUpstream) -> Iterator[FaultProxy]:
    """What stands before it."""
    with FaultProxy(upstream.address) as server:
        yield server


@pytest.fixture
def connect() -> Iterator[Callable[..., S3Client]]:
    """What makes clients of an endpoint; further arguments are options."""
    with ExitStack() as stack:

        def make(endpoint: str, **changes: object) -> S3Client:
            options = S3Options(endpoint, "bucket", "AKID", SECRET, TOKEN, secure=False)
            client = S3Client(replace(options, **changes))  # type: ignore[arg-type]
            stack.callback(client.close)
            return client

        yield make


@pytest.fixture
def client(proxy: FaultProxy, connect: Callable[..., S3Client]) -> S3Client:
    return connect(proxy.endpoint)


def failure(client: S3Client, request: Request) -> Exception:
    """Return what sending a request raises."""
    with pytest.raises((HoldfastError, S3Refusal)) as raised:
        client.send(request)
    return raised.value


@contextmanager
def within(seconds: float) -> Iterator[None]:
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < seconds


class TestWire:
    def test_the_private_door_of_the_library_is_as_it_is_used(self) -> None:
        parameters = inspect.signature(Minio._execute).parameters
        used = {"method", "bucket_name", "object_name", "body", "headers", "query_params", "preload_content"}
        assert used <= set(parameters)
        assert list(parameters)[:3] == ["self", "method", "bucket_name"]

    def test_headers_arrive_and_are_signed(self, client: S3Client, proxy: FaultProxy) -> None:
        sent = {
            "If-None-Match": "*",
            "If-Match": '"etag"',
            "Range": "bytes=1-2",
            "x-amz-copy-source-if-match": '"source"',
            "x-amz-meta-holdfast-metadata": "k=%C3%BC&e",
            "Content-Type": "text/plain;  two  spaces",
        }
        client.send(replace(PUT, headers=sent))
        arrived = proxy.requests[0].headers
        assert {name: arrived[name.lower()] for name in sent} == sent
        signed = arrived["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
        assert {name.lower() for name in sent} | {"x-amz-security-token"} <= set(signed)

    def test_the_session_token_is_sent_and_none_if_there_is_none(
        self, client: S3Client, proxy: FaultProxy, connect: Callable[..., S3Client]
    ) -> None:
        client.send(PUT)
        connect(proxy.endpoint, session_token="").send(PUT)
        sent = [request.headers.get("x-amz-security-token") for request in proxy.requests]
        assert sent == [TOKEN, None]

    @pytest.mark.parametrize("size", [0, 1, 256 << 10, (256 << 10) + 1, 3 * MIB + 5])
    def test_a_body_arrives_whole_with_its_length(
        self, client: S3Client, proxy: FaultProxy, upstream: HttpUpstream, size: int
    ) -> None:
        client.send(replace(PUT, body=memoryview(bytearray(sample(size)))))
        assert upstream.stored["/bucket/key"] == sample(size)
        assert proxy.requests[0].headers["content-length"] == str(size)
        assert "transfer-encoding" not in proxy.requests[0].headers
        assert client.send(GET).body == sample(size)

    def test_names_and_queries_arrive_as_they_are(self, client: S3Client, proxy: FaultProxy) -> None:
        key = "a+b c/%2B/ü/~'\"&=?#"
        client.send(replace(PUT, key=key, query={"q": "a b+ü&/", "empty": ""}))
        assert (proxy.requests[0].path, proxy.requests[0].query) == (f"/bucket/{key}", {"q": "a b+ü&/", "empty": ""})

    def test_an_answer_has_status_headers_by_lower_case_name_and_body(
        self, client: S3Client, upstream: HttpUpstream
    ) -> None:
        upstream.stored["/bucket/key"] = b"<Error><Code>NoSuchKey</Code></Error>"
        answer = client.send(GET)
        assert (answer.status, answer.body) == (200, upstream.stored["/bucket/key"])
        assert answer.headers["content-length"] == str(len(answer.body))
        assert client.send(HEAD).headers["content-length"] == str(len(answer.body))

    def test_a_redirect_is_not_followed(self, client: S3Client, proxy: FaultProxy, upstream: HttpUpstream) -> None:
        for status in (301, 302, 303, 307, 308):
            elsewhere = {"Location": f"http://{upstream.address}/bucket/other"}
            proxy.fail(Answer(status, "PermanentRedirect", elsewhere))
            error = failure(client, GET)
            assert isinstance(error, BackendRefused)
            assert "redirect" in str(error)
        assert upstream.clients == []


@dataclass(frozen=True)
class Meaning:
    """What an answer becomes."""

    kind: type[Exception]
    reason: Reason | None = None
    is_missing: bool = False
    is_conflict: bool = False

    def check(self, error: Exception) -> None:
        assert type(error) is self.kind
        if isinstance(error, S3Refusal):
            assert (error.is_missing, error.is_conflict) == (self.is_missing, self.is_conflict)
        else:
            assert isinstance(error, HoldfastError)
            assert error.reason == self.reason


MISSING = Meaning(S3Refusal, is_missing=True)
CONFLICT = Meaning(S3Refusal, is_conflict=True)
REFUSED = Meaning(S3Refusal)
AUTH = Meaning(BackendRefused, Reason.BACKEND_AUTH)
NO_BUCKET = Meaning(BackendRefused, Reason.BUCKET_MISSING)
AWAY = Meaning(Unavailable, Reason.BACKEND_UNAVAILABLE)
FULL = Meaning(StorageFull, Reason.STORAGE_FULL)
QUOTA = Meaning(StorageFull, Reason.QUOTA_EXCEEDED)
BAD_KEY = Meaning(InvalidArgument, Reason.INVALID_KEY)

ANSWERS: list[tuple[Request, Fault, Meaning]] = [
    (GET, Answer(404, "NoSuchKey"), MISSING),
    (COMPLETE, Answer(404, "NoSuchUpload"), MISSING),
    (HEAD, Answer(404, "NoSuchKey"), MISSING),
    (GET, Answer(404, "NoSuchBucket"), NO_BUCKET),
    (HEAD, Answer(404, "NoSuchBucket"), NO_BUCKET),
    (HEAD_BUCKET, Answer(404, "NoSuchBucket"), NO_BUCKET),
    (GET, NotXml(404), AWAY),
    (HEAD, NotXml(404), AWAY),
    (PUT, Answer(412, "PreconditionFailed"), CONFLICT),
    (PUT, Answer(409, "ConditionalRequestConflict"), CONFLICT),
    (COMPLETE, Answer(200, "PreconditionFailed"), CONFLICT),
    (PUT, Answer(409, "OperationAborted"), AWAY),
    (GET, Answer(416, "InvalidRange"), REFUSED),
    (PUT, Answer(400, "InvalidArgument"), REFUSED),
    (PUT, Answer(501, "NotImplemented"), REFUSED),
    (HEAD_BUCKET, Answer(400, "InvalidRequest"), REFUSED),
    (HEAD_BUCKET, Answer(400, "AuthorizationHeaderMalformed"), AUTH),
    (HEAD, Answer(400, "KeyTooLongError"), BAD_KEY),
    (PUT, Answer(400, "KeyTooLongError"), BAD_KEY),
    (GET, Answer(401), AUTH),
    (GET, Answer(403, "AccessDenied"), AUTH),
    (HEAD, Answer(403), AUTH),
    (GET, NotXml(403), AUTH),
    (GET, Answer(403, "RequestTimeTooSkewed"), AUTH),
    (GET, Answer(400, "ExpiredToken"), AUTH),
    (GET, Answer(400, "AuthorizationHeaderMalformed"), AUTH),
    (HEAD, Answer(301), AUTH),
    (PUT, Answer(507, "XMinioStorageFull"), FULL),
    (PUT, Answer(507, "InsufficientStorage"), FULL),
    (PUT, Answer(403, "QuotaExceeded"), QUOTA),
    (PUT, Answer(400, "XMinioAdminBucketQuotaExceeded"), QUOTA),
    *((PUT, Answer(400, code), AWAY) for code in ("RequestTimeout", "BadDigest", "IncompleteBody", "SlowDown")),
    *((PUT, Answer(status), AWAY) for status in (429, 500, 502, 503, 504)),
    *((HEAD, Answer(status), AWAY) for status in (429, 500, 503)),
    (COMPLETE, Answer(200, "InternalError"), AWAY),
    (PUT, Answer(200, "SlowDown"), AWAY),
    (GET, NotXml(502), AWAY),
    (GET, Garbage(), AWAY),
    (GET, LoseAnswer(), AWAY),
    (GET, Truncate(1), AWAY),
    (GET, ResetAfter(100), AWAY),
]


class TestAnswers:
    @pytest.mark.parametrize("case", ANSWERS, ids=[f"{request.name} {fault}" for request, fault, _ in ANSWERS])
    def test_an_answer_becomes_what_it_means(
        self, client: S3Client, proxy: FaultProxy, upstream: HttpUpstream, case: tuple[Request, Fault, Meaning]
    ) -> None:
        request, fault, meaning = case
        upstream.stored["/bucket/key"] = sample(MIB)
        proxy.fail(fault, times=FOREVER)
        error = failure(client, request)
        meaning.check(error)
        # Nothing is tried again here. But why a HEAD is refused is not in its answer, and is asked for.
        assert [seen.method for seen in proxy.requests] in ([request.method], ["HEAD", "GET"])
        if isinstance(fault, Answer) and fault.code and meaning.reason != Reason.BUCKET_MISSING:
            assert fault.code in str(error)
        proxy.heal()
        assert client.send(GET).body == sample(MIB)  # on no connection that has gone wrong

    def test_nobody_there_cannot_be_reached(self, proxy: FaultProxy, client: S3Client) -> None:
        proxy.go_down()
        error = failure(client, GET)
        AWAY.check(error)
        assert "cannot be reached" in str(error)

    def test_a_store_without_tls_is_told_from_one_that_breaks_off(
        self, upstream: HttpUpstream, connect: Callable[..., S3Client]
    ) -> None:
        error = failure(connect(upstream.address, secure=True), HEAD_BUCKET)
        AWAY.check(error)
        assert "TLS" in str(error)


class SlowTaker(Fault):
    """The request's body is not read for a while."""

    def request_body(self, exchange: Exchange, offset: int, data: bytes) -> Iterator[bytes]:
        if not offset:
            exchange.wait(4 * SHORT)
        yield data


@contextmanager
def deaf_listener() -> Iterator[str]:
    """Yield the address of a server to which no connection can be made: its queue is full, and nobody accepts."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"


class TestPatience:
    def test_each_wait_ends_by_the_time_out(
        self, proxy: FaultProxy, upstream: HttpUpstream, connect: Callable[..., S3Client]
    ) -> None:
        upstream.stored["/bucket/key"] = sample(MIB)
        client = connect(proxy.endpoint, connect_timeout_seconds=LONG, read_timeout_seconds=SHORT)
        for fault in (Hang("request"), Hang("answer"), HangAfter(1000), Throttle(100_000)):
            proxy.fail(fault)
            with within(LONG / 4):
                error = failure(client, GET)
            AWAY.check(error)
            assert f"within {SHORT} s" in str(error), fault

    def test_a_request_can_have_a_shorter_one(self, proxy: FaultProxy, client: S3Client) -> None:
        proxy.fail(Hang("answer"))
        with within(LONG / 4):
            AWAY.check(failure(client, replace(GET, timeout_seconds=SHORT)))

    def test_connecting_ends_by_its_own_time_out(self, connect: Callable[..., S3Client]) -> None:
        with deaf_listener() as address, within(LONG / 4):
            client = connect(address, connect_timeout_seconds=SHORT, read_timeout_seconds=LONG)
            error = failure(client, GET)
        AWAY.check(error)
        assert "cannot be reached" in str(error)

    @pytest.mark.parametrize("is_first", [True, False])
    def test_a_body_goes_out_with_the_patience_of_reading(
        self, proxy: FaultProxy, connect: Callable[..., S3Client], is_first: bool
    ) -> None:
        patient = connect(proxy.endpoint, connect_timeout_seconds=SHORT, read_timeout_seconds=LONG)
        hasty = connect(proxy.endpoint, connect_timeout_seconds=LONG, read_timeout_seconds=SHORT)
        if not is_first:
            for client in (patient, hasty):
                client.send(PUT)
        large = replace(PUT, body=bytes(16 * MIB))  # more than fits between the two
        proxy.fail(SlowTaker(), times=2)
        patient.send(large)
        with within(LONG / 4):
            error = failure(hasty, large)
        AWAY.check(error)
        assert f"within {SHORT} s" in str(error)

    @pytest.mark.parametrize("fault", [Hang("request"), Hang("answer"), HangAfter(1000), Throttle(100_000)])
    def test_a_callers_deadline_is_not_the_stores_fault(
        self, client: S3Client, proxy: FaultProxy, upstream: HttpUpstream, fault: Fault
    ) -> None:
        upstream.stored["/bucket/key"] = sample(MIB)
        proxy.fail(fault)
        with calls.working_for(calls.Call(time.monotonic() + SHORT)), within(LONG / 4):
            assert type(failure(client, GET)) is DeadlineExceeded

    def test_connecting_ends_by_a_callers_deadline(self, connect: Callable[..., S3Client]) -> None:
        with deaf_listener() as address, calls.working_for(calls.Call(time.monotonic() + SHORT)), within(4):
            assert type(failure(connect(address), GET)) is DeadlineExceeded

    def test_one_callers_deadline_is_not_the_next_ones(self, client: S3Client, proxy: FaultProxy) -> None:
        with calls.working_for(calls.Call(time.monotonic() + SHORT)):
            client.send(PUT)
        proxy.fail(SlowTaker())
        client.send(replace(PUT, body=bytes(16 * MIB)))

    def test_nothing_is_sent_for_a_caller_that_is_gone(self, client: S3Client, proxy: FaultProxy) -> None:
        with calls.working_for(calls.Call(is_active=lambda: False)):
            assert type(failure(client, GET)) is Cancelled
        with calls.working_for(calls.Call(time.monotonic() - 1)):
            assert type(failure(client, GET)) is DeadlineExceeded
        assert proxy.requests == []


class TestConnections:
    def test_one_connection_serves_one_request_after_the_other(
        self, upstream: HttpUpstream, connect: Callable[..., S3Client]
    ) -> None:
        client = connect(upstream.address)
        small, large = sample(1000), sample(3 * MIB)
        for _ in range(3):
            client.send(replace(PUT, body=small))
            client.send(replace(PUT, key="large", body=large))
            assert client.send(HEAD).body == b""
            AWAY.check(failure(client, replace(GET, key="none")))  # what is no store's answer
            AWAY.check(failure(client, replace(HEAD, key="none")))
            with client.open(replace(GET, key="large")) as download:
                assert download.read(len(large)) == large  # and not asked whether there is more
            with client.open(GET) as download:
                assert download.read(10) == small[:10]  # little is left, and is read
            client.send(Request("delete", "DELETE", "key"))
        assert len(set(upstream.clients)) == 1

    def test_many_at_once_take_as_many_and_keep_them(
        self, upstream: HttpUpstream, connect: Callable[..., S3Client]
    ) -> None:
        client = connect(upstream.address)
        together = threading.Barrier(8)

        def work(number: int) -> bool:
            together.wait()
            for _ in range(10):
                client.send(replace(PUT, key=f"{number}", body=b"%d" % number))
            return client.send(replace(GET, key=f"{number}")).body == b"%d" % number

        with ThreadPoolExecutor(8) as pool:
            for _ in range(2):
                assert all(pool.map(work, range(8)))
        assert len(set(upstream.clients)) <= 8

    def test_a_download_that_is_left_early_costs_its_connection_and_no_more(
        self, client: S3Client, proxy: FaultProxy, upstream: HttpUpstream
    ) -> None:
        upstream.stored["/bucket/key"] = sample(32 * MIB)
        before = proxy.bytes_from_upstream
        for _ in range(2):
            with client.open(GET) as download:
                assert len(download.read(1000)) == 1000
            download.close()
        assert client.send(HEAD).status == 200
        assert len(set(upstream.clients)) == 3
        assert proxy.bytes_from_upstream - before < 2 * 24 * MIB


def test_no_secret_is_in_what_can_be_printed(
    client: S3Client, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    proxy.fail(Answer(403, "SignatureDoesNotMatch"), times=1)
    proxy.fail(Garbage(), nth=2, times=FOREVER)
    printed = [repr(client), str(client), repr(client._options), repr(client._minio), repr(vars(client))]
    for _ in range(2):
        error = failure(client, PUT)
        printed += [repr(error), *traceback.format_exception(error)]
    printed += [f"{record.getMessage()} {vars(record)}" for record in caplog.records]
    assert any("/bucket/key" in text for text in printed)
    assert "hunter2" not in "".join(printed)
