"""The store refuses us: wrong keys, a missing bucket. The caller learns which; the server waits for an operator."""

import io
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from minio import MinioAdmin
from minio.credentials.providers import StaticProvider

from holdfast.v1 import server_pb2, server_pb2_grpc, types_pb2
from holdfast_server.errors import BackendRefused, HoldfastError, InvalidArgument, Reason, StorageFull, Unavailable
from holdfast_server.objects.base import ListQuery
from holdfast_server.objects.body import Body
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.s3.store import S3Store
from tests.support.disk_operations import KEY, SOURCE, content
from tests.support.fault_proxy import FOREVER, Answer, Fault, Seen
from tests.support.raw_blobs import get, put
from tests.support.s3_faults import FaultyStore, is_callers
from tests.support.s3_operations import LARGE, NEW, OLD
from tests.support.s3_process import WAITING, FaultyProcess
from tests.support.s3_servers import MinioServer, MotoServer
from tests.support.statuses import refused
from tests.support.waiting import wait_until

OTHER = ObjectKey("another")
BACK_SECONDS = 60.0

CALLS: dict[str, Callable[[S3Store], object]] = {
    "put": lambda store: store.put(KEY, Body.of(NEW)),
    "put in parts": lambda store: store.put(KEY, Body.of(LARGE)),
    "get": lambda store: content(store, KEY),
    "stat": lambda store: store.stat(KEY),
    "delete": lambda store: store.delete(KEY),
    "copy": lambda store: store.copy(SOURCE, KEY),
    "list": lambda store: list(store.list(ListQuery())),
}


@pytest.mark.parametrize("wrong", ["access_key", "secret_key"])
def test_a_server_with_wrong_keys(minio: MinioServer, wrong: str) -> None:
    guess = secrets.token_hex(10)
    settings: dict[str, Any] = {wrong: guess}
    with FaultyProcess(minio, ready=WAITING, **settings) as process:
        wait_until(lambda: reason(process) == types_pb2.ERROR_REASON_BACKEND_AUTH)
        for call in (lambda: get(process.stub, "k"), lambda: put(process.stub, "k", b"")):
            with refused() as refusal:
                call()
            assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "BACKEND_AUTH")
            assert "credentials" in refusal.message
            assert minio.secret_key not in refusal.message
            assert guess not in refusal.message
        assert not process.is_ready()
        assert (process.is_serving("BlobStore"), process.is_serving("Server")) == (False, True)
        assert process.is_alive()
        assert process.server.wait_for_log("BACKEND_AUTH")
        log = "".join(process.server.log)
    assert minio.secret_key not in log
    assert guess not in log or wrong == "access_key"


def reason(process: FaultyProcess) -> int:
    """Return why the server is not ready, as it tells."""
    stub = server_pb2_grpc.ServerStub(process.channel)
    info = stub.GetServerInfo(server_pb2.GetServerInfoRequest(), timeout=60)
    return int(info.services[0].backend.not_ready_reason)


def test_a_server_without_its_bucket_waits_for_it(minio: MinioServer) -> None:
    with FaultyProcess(minio, ready=WAITING, create_bucket="false") as process:
        wait_until(lambda: reason(process) == types_pb2.ERROR_REASON_BUCKET_MISSING)
        with refused() as refusal:
            get(process.stub, "k")
        assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "BUCKET_MISSING")
        assert process.bucket in refusal.message
        assert refusal.names["bucket"] == process.bucket
        assert not process.is_ready()
        minio.make_bucket(process.bucket)
        wait_until(process.is_ready, BACK_SECONDS)
        put(process.stub, "k", b"data")
        assert get(process.stub, "k") == b"data"


def remove_bucket(faulty: FaultyStore) -> None:
    faulty.server.empty_bucket(faulty.bucket)
    faulty.server.client().remove_bucket(faulty.bucket)


def wait_until_not_ready(store: S3Store, why: Reason | None) -> None:
    """Wait until a store says that it cannot be used for this reason; None: that it can."""
    wait_until(lambda: store.describe().not_ready is why, BACK_SECONDS)


@pytest.mark.parametrize("name", ["moto", "minio"])
def test_no_call_takes_a_missing_bucket_for_a_missing_object(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with FaultyStore(request.getfixturevalue(name)) as faulty:
        monkeypatch.setattr(faulty.store._breaker, "failed", lambda _error: None)  # so that each one asks the store
        remove_bucket(faulty)
        for call in CALLS.values():
            with pytest.raises(BackendRefused) as missed:
                call(faulty.store)
            assert missed.value.reason is Reason.BUCKET_MISSING


def test_a_bucket_that_is_deleted_is_missed_until_it_is_back(moto: MotoServer) -> None:
    with FaultyStore(moto, create_bucket=True) as faulty:
        with faulty.server.client().get_object(faulty.bucket, "holdfast/store") as answer:
            marker = answer.read()
        remove_bucket(faulty)
        with pytest.raises(BackendRefused):
            faulty.store.stat(KEY)
        wait_until_not_ready(faulty.store, Reason.BUCKET_MISSING)
        asked = len(faulty.requests)
        wait_until(lambda: len(faulty.requests) >= asked + 2)
        assert not faulty.server.client().bucket_exists(faulty.bucket)
        faulty.server.make_bucket(faulty.bucket)
        wait_until_not_ready(faulty.store, Reason.BACKEND_UNAVAILABLE)
        with pytest.raises(Unavailable, match="another store"):  # an empty one would pass for all that was stored
            faulty.store.stat(KEY)
        faulty.server.client().put_object(faulty.bucket, "holdfast/store", io.BytesIO(marker), len(marker))
        wait_until_not_ready(faulty.store, None)
        faulty.store.put(KEY, Body.of(NEW))
        assert content(faulty.store, KEY) == NEW


def test_keys_that_are_revoked_are_refused_until_they_are_valid_again(minio: MinioServer) -> None:
    root = StaticProvider(minio.access_key, minio.secret_key)
    admin = MinioAdmin(endpoint=minio.endpoint, credentials=root, secure=False)
    access_key, secret_key = secrets.token_hex(8), secrets.token_hex(16)
    admin.user_add(access_key, secret_key)
    admin.attach_policy(policies=["readwrite"], user=access_key)
    with FaultyStore(minio, access_key=access_key, secret_key=secret_key) as faulty:
        faulty.store.put(KEY, Body.of(OLD))
        admin.user_disable(access_key)
        with pytest.raises(BackendRefused, match="refuses the credentials") as refusal:
            content(faulty.store, KEY)
        assert refusal.value.reason is Reason.BACKEND_AUTH
        assert secret_key not in str(refusal.value)
        wait_until_not_ready(faulty.store, Reason.BACKEND_AUTH)
        admin.user_enable(access_key)
        wait_until_not_ready(faulty.store, None)
        assert content(faulty.store, KEY) == OLD


@pytest.fixture(scope="module")
def answering(moto: MotoServer) -> Iterator[FaultyStore]:
    """A store on a server that answers what the proxy says."""
    with FaultyStore(moto) as faulty:
        faulty.direct.put(KEY, Body.of(OLD))
        faulty.direct.put(OTHER, Body.of(NEW))
        yield faulty


def is_about_key(request: Seen) -> bool:
    return request.path.endswith(f"/{KEY}")


def test_one_object_that_is_forbidden_leaves_the_store_ready(answering: FaultyStore) -> None:
    answering.rest()
    answering.proxy.fail(Answer(403), when=is_about_key, times=FOREVER)
    checks = len([request for request in answering.requests if not is_callers(request)])
    for name in ("get", "stat"):
        with pytest.raises(BackendRefused) as refusal:
            CALLS[name](answering.store)
        assert refusal.value.reason is Reason.BACKEND_AUTH
        assert content(answering.store, OTHER) == NEW
    wait_until(
        lambda: len([request for request in answering.requests if not is_callers(request)]) > checks, BACK_SECONDS
    )
    assert answering.store.describe().not_ready is None
    assert content(answering.store, OTHER) == NEW
    answering.rest()
    assert content(answering.store, KEY) == OLD


MEANINGS: dict[str, tuple[Fault, type[HoldfastError], Reason]] = {
    "keys that have expired": (Answer(400, "ExpiredToken"), BackendRefused, Reason.BACKEND_AUTH),
    "a clock that is wrong": (Answer(403, "RequestTimeTooSkewed"), BackendRefused, Reason.BACKEND_AUTH),
    "another region": (Answer(301, "PermanentRedirect"), BackendRefused, Reason.BACKEND_AUTH),
    "no room": (Answer(507, "XMinioStorageFull"), StorageFull, Reason.STORAGE_FULL),
    "a quota": (Answer(400, "QuotaExceeded"), StorageFull, Reason.QUOTA_EXCEEDED),
    "a key it cannot have": (Answer(400, "XMinioInvalidObjectName"), InvalidArgument, Reason.INVALID_KEY),
}


@pytest.mark.parametrize(("answer", "kind", "why"), MEANINGS.values(), ids=MEANINGS)
def test_what_an_answer_means(answering: FaultyStore, answer: Fault, kind: type[HoldfastError], why: Reason) -> None:
    for name in ("put", "stat"):
        answering.rest()
        answering.proxy.fail(answer, when=is_about_key, times=FOREVER)
        with pytest.raises(kind) as refusal:
            CALLS[name](answering.store)
        assert refusal.value.reason is why
    answering.rest()
    assert content(answering.store, KEY) == OLD
