"""The one file that knows the S3 library: what goes over the wire, and what each answer, or its absence, becomes."""

import inspect
import logging
import traceback
from collections.abc import Iterator
from dataclasses import replace

import pytest
from minio import Minio

from holdfast_server.errors import BackendRefused, InvalidArgument, Reason, StorageFull
from holdfast_server.objects.breaker import AnsweredFailure
from holdfast_server.objects.s3.client import S3Client
from holdfast_server.objects.s3.messages import Request, S3Refusal, Throttled
from tests.support.fault_proxy import (
    FOREVER,
    Answer,
    Fault,
    FaultProxy,
    Garbage,
    LoseAnswer,
    NotXml,
    ResetAfter,
    Truncate,
)
from tests.support.http_upstream import HttpUpstream
from tests.support.s3_clients import (
    AWAY,
    COMPLETE,
    GET,
    HEAD,
    HEAD_BUCKET,
    PUT,
    TOKEN,
    Connect,
    Meaning,
    connecting,
    failure,
    measured,
)
from tests.support.samples import MIB, sample


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
def connect() -> Iterator[Connect]:
    with connecting() as make:
        yield make


@pytest.fixture
def client(proxy: FaultProxy, connect: Connect) -> S3Client:
    return connect(proxy.endpoint)


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
        self, client: S3Client, proxy: FaultProxy, connect: Connect
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


MISSING = Meaning(S3Refusal, is_missing=True)
CONFLICT = Meaning(S3Refusal, is_conflict=True)
REFUSED = Meaning(S3Refusal)
AUTH = Meaning(BackendRefused, Reason.BACKEND_AUTH)
NO_BUCKET = Meaning(BackendRefused, Reason.BUCKET_MISSING)
FULL = Meaning(StorageFull, Reason.STORAGE_FULL)
QUOTA = Meaning(StorageFull, Reason.QUOTA_EXCEEDED)
TOO_LARGE = Meaning(InvalidArgument, Reason.TOO_LARGE)
FAILED = Meaning(AnsweredFailure, Reason.BACKEND_UNAVAILABLE)
TOO_MUCH = Meaning(Throttled, Reason.BACKEND_UNAVAILABLE)
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
    (PUT, Answer(409, "OperationAborted"), FAILED),
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
    (PUT, Answer(400, "EntityTooLarge"), TOO_LARGE),
    (COMPLETE, Answer(200, "NoSuchUpload"), MISSING),
    (PUT, Answer(507, "XMinioStorageFull"), FULL),
    (PUT, Answer(507, "InsufficientStorage"), FULL),
    (PUT, Answer(403, "QuotaExceeded"), QUOTA),
    (PUT, Answer(400, "XMinioAdminBucketQuotaExceeded"), QUOTA),
    *((PUT, Answer(400, code), FAILED) for code in ("RequestTimeout", "BadDigest", "IncompleteBody")),
    *((PUT, Answer(status), FAILED) for status in (500, 502, 504)),
    *((HEAD, Answer(status), FAILED) for status in (500, 503)),
    *((PUT, Answer(status), TOO_MUCH) for status in (429, 503)),
    (HEAD, Answer(429), TOO_MUCH),
    (PUT, Answer(400, "SlowDown"), TOO_MUCH),
    (PUT, Answer(200, "SlowDown"), TOO_MUCH),
    (COMPLETE, Answer(200, "InternalError"), FAILED),
    (GET, NotXml(502), FAILED),
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
        error = failure(measured(client), request)
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
        self, upstream: HttpUpstream, connect: Connect
    ) -> None:
        error = failure(connect(upstream.address, secure=True), HEAD_BUCKET)
        AWAY.check(error)
        assert "TLS" in str(error)


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
