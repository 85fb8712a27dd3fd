"""A gibibyte up and down: the server holds a few messages of it, on S3 two parts, and in memory what it has to keep."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from holdfast.v1 import blob_store_pb2 as pb
from tests.support.process_memory import Memory
from tests.support.raw_blobs import chunk, get, header, put, stub_of, trailer
from tests.support.s3_servers import MinioServer
from tests.support.s3_stores import s3_environment
from tests.support.samples import MIB, sample
from tests.support.server_process import ServerProcess

SIZES_MIB = {"memory": 256, "filesystem": 1024, "minio": 1024}
PART_BYTES = 16 * MIB
MESSAGES_BYTES = 24 * MIB
"""Messages on their way, what waits for its hash, and what the allocator keeps for the next ones."""

MOST_BYTES = {
    "memory": 256 * MIB + MESSAGES_BYTES,
    "filesystem": MESSAGES_BYTES,
    "minio": 2 * PART_BYTES + MESSAGES_BYTES,
}
SECONDS = 240


@pytest.fixture(params=SIZES_MIB)
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def server(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that has taken the memory that every server takes."""
    environment: dict[str, str] = {}
    if backend == "minio":
        minio: MinioServer = request.getfixturevalue("minio")
        environment = s3_environment(minio, part_bytes=PART_BYTES)
    with ServerProcess(tmp_path / "data" if backend == "filesystem" else None, env=environment) as process:
        with grpc.insecure_channel(process.address) as channel:
            put(stub_of(channel), "small", b"data")
            get(stub_of(channel), "small")
        yield process


@pytest.mark.timeout(300)
def test_a_gibibyte_goes_up_and_down_in_flat_memory(server: ServerProcess, backend: str) -> None:
    piece, digest = sample(MIB), hashlib.sha256()

    def messages() -> Iterator[pb.PutBlobRequest]:
        yield header("large")
        for _ in range(SIZES_MIB[backend]):
            digest.update(piece)
            yield chunk(piece)
        yield trailer()

    with grpc.insecure_channel(server.address) as channel:
        stub = stub_of(channel)
        with Memory(server.pid) as memory:
            stored = stub.PutBlob(messages(), timeout=SECONDS).blob
            answers = stub.GetBlob(pb.GetBlobRequest(key="large"), timeout=SECONDS)
            is_same = [answer.chunk.data == piece for answer in answers if answer.HasField("chunk")]
        stub.DeleteBlob(pb.DeleteBlobRequest(key="large"), timeout=SECONDS)
    assert (stored.size_bytes, stored.sha256) == (SIZES_MIB[backend] * MIB, digest.digest())
    assert is_same == [True] * SIZES_MIB[backend]
    assert memory.grown_bytes < MOST_BYTES[backend]
