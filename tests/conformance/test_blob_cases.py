"""Cases that other stores lose or mix up, on every backend; `tests/CASES.md` tells where all of them are held."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import pytest

import holdfast
import holdfast_server.errors
from holdfast.v1 import blob_store_pb2 as pb
from holdfast.v1.types_pb2 import DataChunk, UploadTrailer
from tests.support.any_blobs import Blobs, keys, read
from tests.support.direct_blobs import refused
from tests.support.restartable_blobs import RestartableBlobs, restartable
from tests.support.s3_servers import S3Server
from tests.support.samples import MIB, sample

LOST = (holdfast.AlreadyExists, holdfast_server.errors.AlreadyExists)


def test_what_was_deleted_is_not_found(blobs: Blobs) -> None:
    blobs.put("k", b"data")
    assert blobs.delete("k") is True
    with refused("BLOB_NOT_FOUND"):
        read(blobs, "k")
    with refused("BLOB_NOT_FOUND"):
        blobs.stat("k")
    assert blobs.delete("k") is False
    assert keys(blobs) == []


LIKE_TEMPORARY_FILES = [
    ".tmp", "a/.tmp-1", "a/tmp", "k.tmp", "k~", "#k#", ".k.swp", "k.part", "k.lock", "k.data", "SHARDING",
    "scratch/1/2", "tree/k", "objects/k", "locks/0", "lost+found/k", ".holdfast/store", "a-b/-", "--/-r",
]  # fmt: skip


def test_a_key_like_a_temporary_file_is_a_key(blobs: Blobs) -> None:
    for key in LIKE_TEMPORARY_FILES:
        blobs.put(key, key.encode())
    assert keys(blobs) == sorted(LIKE_TEMPORARY_FILES)
    for key in LIKE_TEMPORARY_FILES:
        assert keys(blobs, key) == [key]
        assert read(blobs, key) == key.encode()
        assert blobs.delete(key) is True
    assert keys(blobs) == []


def test_a_put_is_repeated_without_harm(blobs: Blobs) -> None:
    for _ in range(3):
        blobs.put("k", b"data", metadata={"n": "1"})
    assert keys(blobs) == ["k"]
    assert (read(blobs, "k"), blobs.stat("k").metadata) == (b"data", {"n": "1"})


def test_concurrent_puts_and_deletes_of_a_key_tell_what_they_did(blobs: Blobs, backend: str) -> None:
    def put(_: None) -> int:
        try:
            blobs.put("k", b"data", create_only=True)
        except LOST:
            return 0
        return 1

    with ThreadPoolExecutor(8) as pool:
        created = pool.map(put, repeat(None, 40))
        deleted = pool.map(lambda _: blobs.delete("k"), repeat(None, 40))
        left = sum(created) - sum(deleted)
    there = len(keys(blobs))
    if backend in {"moto", "minio"}:
        # S3 does not say whether a deletion found something: two at once may both have seen the same blob.
        assert left <= there
    else:
        assert left == there
    assert read(blobs, "k") == b"data" if there else blobs.delete("k") is False


@pytest.fixture(
    params=[f"{how} {backend}" for how in ("opened", "served") for backend in ("filesystem", "moto", "minio")]
)
def durable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RestartableBlobs]:
    """An empty store that outlives its process."""
    backend = request.param.split()[1]
    s3: S3Server | None = None if backend == "filesystem" else request.getfixturevalue(backend)
    with restartable(request.param, tmp_path, s3) as found:
        yield found


@pytest.mark.parametrize("kill", [False, True])
def test_a_store_that_is_opened_again_finds_everything(durable: RestartableBlobs, kill: bool) -> None:
    infos = {}
    for key, size in {"a": 11, "b/empty": 0, "é/🎲": MIB + 1, "large": 6 * MIB}.items():
        header = pb.PutBlobHeader(key=key, content_type="text/x", metadata={"who": "mé"}, size_bytes=size)
        chunks = [DataChunk(data=sample(size)[start : start + MIB]) for start in range(0, size, MIB)]
        parts = [pb.PutBlobRequest(header=header), *(pb.PutBlobRequest(chunk=chunk) for chunk in chunks)]
        answer = durable.call("PutBlob", iter([*parts, pb.PutBlobRequest(trailer=UploadTrailer())]))
        infos[key] = answer.blob
    listed = durable.call("ListBlobs", pb.ListBlobsRequest())
    durable.restart(kill=kill)
    assert durable.call("ListBlobs", pb.ListBlobsRequest()) == listed
    for key, info in infos.items():
        found = durable.call("StatBlob", pb.StatBlobRequest(key=key)).blob
        info.update_time.CopyFrom(found.update_time)
        assert found == info
        got = durable.get(pb.GetBlobRequest(key=key))
        assert isinstance(got, list)
        assert b"".join(message.chunk.data for message in got) == sample(info.size_bytes)
