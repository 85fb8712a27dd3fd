"""The store does what it is asked, and the answer is lost: the caller's write succeeded, and is told so, once.

Over gRPC, with a real server process; the sweeps do the same with each request of each operation.
"""

import hashlib
from collections.abc import Iterator

import pytest

from holdfast.v1 import blob_store_pb2 as pb
from tests.support.fault_proxy import AnswerAfter, Fault, LoseAnswer, Seen
from tests.support.raw_blobs import get, put, stat
from tests.support.s3_operations import LARGE, NEW, OLD
from tests.support.s3_process import FaultyProcess
from tests.support.s3_servers import MinioServer, MotoServer
from tests.support.statuses import refused

KEY = "some/blob"
MARK = "another"

LOSSES: dict[str, Fault] = {"lost answer": LoseAnswer(), "500 after success": AnswerAfter(500)}

UPLOADS = {
    "small": (NEW, {}),
    "in parts": (LARGE, {"sha256": hashlib.sha256(LARGE).digest(), "size_bytes": len(LARGE)}),
    "in parts from the spool": (LARGE, {}),
}


@pytest.fixture(scope="module")
def minio_process(minio: MinioServer) -> Iterator[FaultyProcess]:
    """A server on MinIO, which keeps the conditions of puts."""
    with FaultyProcess(minio) as process:
        put(process.stub, MARK, b"")
        yield process


@pytest.fixture(scope="module")
def moto_process(moto: MotoServer) -> Iterator[FaultyProcess]:
    """A server on moto, which keeps those of deletions."""
    with FaultyProcess(moto) as process:
        put(process.stub, MARK, b"")
        yield process


def publishes(request: Seen) -> bool:
    """Tell whether this is the request that makes the object: a put, or the end of an upload in parts."""
    is_put = request.method == "PUT" and "partNumber" not in request.query
    return is_put or (request.method == "POST" and "uploadId" in request.query)


def deletes(request: Seen) -> bool:
    return request.method == "DELETE" and not request.query


def make(process: FaultyProcess, data: bytes | None) -> str:
    """Let KEY hold these bytes, or nothing, and return the etag."""
    for _ in range(10):
        stat(process.stub, MARK)  # each answer earns a tenth of a retry
    if data is None:
        process.stub.DeleteBlob(pb.DeleteBlobRequest(key=KEY))
        return ""
    return put(process.stub, KEY, data).etag


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("name", UPLOADS)
@pytest.mark.parametrize("condition", ["create_only", "if_match_etag"])
def test_a_put_under_a_condition(minio_process: FaultyProcess, condition: str, name: str, loss: Fault) -> None:
    data, declared = UPLOADS[name]
    etag = make(minio_process, None if condition == "create_only" else OLD)
    injection = minio_process.proxy.fail(loss, when=publishes)
    stored = put(minio_process.stub, KEY, data, **declared, **{condition: etag or True})
    assert injection.met == 1
    assert stored.sha256 == hashlib.sha256(data).digest()
    assert stat(minio_process.stub, KEY).etag == stored.etag
    assert get(minio_process.stub, KEY) == data


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_refusal_that_is_lost_is_a_refusal(minio_process: FaultyProcess, loss: Fault) -> None:
    etag = make(minio_process, OLD)
    minio_process.proxy.fail(loss, when=publishes)
    with refused() as refusal:
        put(minio_process.stub, KEY, NEW, create_only=True)
    assert (refusal.reason, refusal.names["etag"]) == ("ALREADY_EXISTS", etag)
    minio_process.proxy.fail(loss, when=publishes)
    with refused() as refusal:
        put(minio_process.stub, KEY, NEW, if_match_etag="another")
    # The etag has changed since, or was another one before: nobody can tell whether ours was written and replaced.
    assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "BACKEND_UNAVAILABLE")
    assert get(minio_process.stub, KEY) == OLD


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_deletion_under_a_condition(moto_process: FaultyProcess, loss: Fault) -> None:
    etag = make(moto_process, OLD)
    injection = moto_process.proxy.fail(loss, when=deletes)
    answer = moto_process.stub.DeleteBlob(pb.DeleteBlobRequest(key=KEY, if_match_etag=etag))
    assert (injection.met, answer.existed) == (1, True)
    with refused() as refusal:
        get(moto_process.stub, KEY)
    assert refusal.code == "NOT_FOUND"


@pytest.mark.parametrize("there", [None, NEW], ids=["nothing", "another"])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_deletion_whose_condition_does_not_hold(
    moto_process: FaultyProcess, loss: Fault, there: bytes | None
) -> None:
    etag = make(moto_process, OLD)
    make(moto_process, there)
    moto_process.proxy.fail(loss, when=deletes)
    with refused() as refusal:
        moto_process.stub.DeleteBlob(pb.DeleteBlobRequest(key=KEY, if_match_etag=etag))
    assert refusal.reason == "PRECONDITION_FAILED"
    moto_process.proxy.heal()
