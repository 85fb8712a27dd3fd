"""An upload in parts whose key is taken: the store stops in the middle of it, and the answer is of the whole."""

import hashlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from holdfast.v1 import checkpoint_store_pb2 as pb
from holdfast.v1.types_pb2 import UploadTrailer
from holdfast_server.blobs.address import ContentAddress
from holdfast_server.blobs.store import BlobStore
from holdfast_server.errors import AlreadyExists, BrokenUpload, Reason
from holdfast_server.objects.base import ObjectStore
from holdfast_server.objects.body import PIECE_BYTES, Body, Chunk, Declared
from holdfast_server.objects.filesystem import FilesystemStore
from tests.support.any_checkpoints import (
    DIFFERENT,
    SAME,
    STORED,
    Checkpoints,
    opened,
    pointer_name,
    refused,
    upload,
)
from tests.support.s3_stores import PART_BYTES, OpenedStore
from tests.support.samples import MIB, sample

ROOM = "arena"
DATA = sample(20 * MIB)
SHA256 = hashlib.sha256(DATA).digest()
OTHER = DATA[:-1] + bytes([DATA[-1] ^ 1])
assert len(DATA) > 3 * PART_BYTES

DECLARED: dict[str, tuple[dict[str, Any], UploadTrailer]] = {
    "nothing": ({}, UploadTrailer()),
    "its size": ({"size_bytes": len(DATA)}, UploadTrailer()),
    "in the header": ({"size_bytes": len(DATA), "sha256": SHA256}, UploadTrailer()),
    "in the trailer": ({}, UploadTrailer(size_bytes=len(DATA), sha256=SHA256)),
}


@pytest.fixture(params=["grpc filesystem", "grpc minio", "grpc minio encrypted"])
def checkpoints(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Checkpoints]:
    """A CheckpointStore behind a server."""
    s3 = request.getfixturevalue("minio") if "minio" in request.param else None
    with opened(request.param, tmp_path, s3) as found:
        yield found


def save(checkpoints: Checkpoints, epoch: int, data: bytes, declared: str) -> pb.SaveCheckpointResponse:
    fields, trailer = DECLARED[declared]
    header = pb.SaveCheckpointHeader(room_id=ROOM, epoch=epoch, **fields)
    *messages, _ = upload(pb.SaveCheckpointRequest, header, data)
    answer: pb.SaveCheckpointResponse = checkpoints.call(
        "SaveCheckpoint", iter([*messages, pb.SaveCheckpointRequest(trailer=trailer)])
    )
    return answer


@pytest.mark.parametrize("declared", DECLARED)
def test_a_large_save_converges_when_it_is_repeated(checkpoints: Checkpoints, declared: str) -> None:
    assert save(checkpoints, 1, DATA, declared).outcome == STORED
    checkpoints.remove(pointer_name(ROOM))  # as if the first try had ended before it
    checkpoints.restart()
    again = save(checkpoints, 1, DATA, declared)
    assert (again.outcome, again.pointer_moved, again.latest_epoch) == (SAME, True, 1)
    once_more = save(checkpoints, 1, DATA, declared)
    assert (once_more.outcome, once_more.pointer_moved, once_more.next_epoch) == (SAME, False, 2)
    assert checkpoints.load(ROOM).data == DATA


@pytest.mark.parametrize("declared", ["in the header", "in the trailer"])
def test_a_large_repeat_that_is_not_what_it_declared_is_refused(checkpoints: Checkpoints, declared: str) -> None:
    save(checkpoints, 1, DATA, declared)
    with refused("CHECKSUM_MISMATCH", "INVALID_ARGUMENT"):
        save(checkpoints, 1, OTHER, declared)


@pytest.mark.parametrize("mib", [4, 12, 13, 14, 15])
def test_more_zeros_are_another_payload(checkpoints: Checkpoints, mib: int) -> None:
    """Also where the store has read so much of them that what is left is just what is there."""
    checkpoints.save(ROOM, 1, bytes(mib * MIB))
    answer = checkpoints.save(ROOM, 1, bytes(20 * MIB))
    assert (answer.outcome, answer.checkpoint.size_bytes) == (DIFFERENT, mib * MIB)
    assert checkpoints.load(ROOM).data == bytes(mib * MIB)


@pytest.fixture(params=["filesystem", "minio", "moto"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    """What blobs are on."""
    if request.param == "filesystem":
        with closing(FilesystemStore(tmp_path)) as files:
            yield files
    else:
        with OpenedStore(request.getfixturevalue(request.param)) as bucket:
            yield bucket.store


def parts(data: bytes, trailer: Declared) -> "Iterator[Chunk | Declared]":
    for start in range(0, len(data), PIECE_BYTES):
        yield Chunk(data[start : start + PIECE_BYTES])
    yield trailer


HOW = {
    "in the address": (ContentAddress("art/", sha256=SHA256), Declared(), Declared()),
    "in the header": (ContentAddress("art/"), Declared(len(DATA), SHA256), Declared()),
    "in the trailer": (ContentAddress("art/"), Declared(), Declared(len(DATA), SHA256)),
    "nowhere": (ContentAddress("art/"), Declared(), Declared()),
}


@pytest.mark.parametrize("declared", HOW)
def test_a_large_blob_put_again_by_its_content_is_there(objects: ObjectStore, declared: str) -> None:
    blobs = BlobStore(objects)
    address, header, trailer = HOW[declared]
    for created in (True, False, False):
        put = blobs.put(address, parts(DATA, trailer), declared=header)
        assert (put.created, put.blob.size_bytes) == (created, len(DATA))


@pytest.mark.parametrize("declared", ["in the address", "in the header", "nowhere"])
def test_other_bytes_at_a_large_blobs_place_are_a_conflict(objects: ObjectStore, declared: str) -> None:
    address, header, trailer = HOW[declared]
    blobs = BlobStore(objects)
    objects.put(ContentAddress("art/").key_of(SHA256).object_key, Body.of(OTHER))
    with pytest.raises(AlreadyExists) as there:
        blobs.put(address, parts(DATA, trailer), declared=header)
    assert there.value.reason is Reason.CONTENT_CONFLICT


def test_a_large_blob_that_is_there_does_not_let_other_bytes_pass(objects: ObjectStore) -> None:
    address, header, trailer = HOW["in the address"]
    blobs = BlobStore(objects)
    blobs.put(address, parts(DATA, trailer), declared=header)
    with pytest.raises(BrokenUpload) as broken:
        blobs.put(address, parts(OTHER, trailer), declared=header)
    assert broken.value.reason is Reason.CHECKSUM_MISMATCH
