"""A large checkpoint is saved, and verified whole before it is sent, in flat memory: it waits on the disk."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from holdfast.v1 import checkpoint_store_pb2 as pb
from holdfast.v1.checkpoint_store_pb2_grpc import CheckpointStoreStub
from holdfast.v1.types_pb2 import DataChunk, UploadTrailer
from holdfast_server.checkpoints.key_file import create
from holdfast_server.checkpoints.key_ring import KeyRing
from tests.support.process_memory import Memory
from tests.support.s3_servers import MinioServer
from tests.support.s3_stores import s3_environment
from tests.support.samples import MIB, sample
from tests.support.server_process import ServerProcess

SIZE_MIB = 512
MOST_BYTES = 64 * MIB
SECONDS = 240


@pytest.fixture(params=["filesystem", "filesystem, encrypted", "minio"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that has taken the memory that every server takes."""
    environment = {"HOLDFAST_CHECKPOINT_STORE__ENCRYPT": "true" if "encrypted" in request.param else "false"}
    data = tmp_path / "data"
    if request.param == "minio":
        minio: MinioServer = request.getfixturevalue("minio")
        data.mkdir(mode=0o700)
        create(data / "keys.json", KeyRing.fresh())
        environment |= s3_environment(minio)
    with ServerProcess(data, env=environment) as process:
        with grpc.insecure_channel(process.address) as channel:
            stub = CheckpointStoreStub(channel)
            save(stub, 0, 1, hashlib.sha256())
            load(stub)
        yield process


def save(stub: CheckpointStoreStub, epoch: int, mib: int, digest: "hashlib._Hash") -> pb.SaveCheckpointResponse:
    piece = sample(MIB)

    def messages() -> Iterator[pb.SaveCheckpointRequest]:
        yield pb.SaveCheckpointRequest(header=pb.SaveCheckpointHeader(room_id="arena", epoch=epoch))
        for _ in range(mib):
            digest.update(piece)
            yield pb.SaveCheckpointRequest(chunk=DataChunk(data=piece))
        yield pb.SaveCheckpointRequest(trailer=UploadTrailer())

    return stub.SaveCheckpoint(messages(), timeout=SECONDS)


def load(stub: CheckpointStoreStub) -> tuple[int, bytes]:
    size, digest = 0, hashlib.sha256()
    for answer in stub.LoadCheckpoint(pb.LoadCheckpointRequest(room_id="arena"), timeout=SECONDS):
        data = answer.chunk.data
        digest.update(data)
        size += len(data)
    return size, digest.digest()


@pytest.mark.timeout(400)
def test_half_a_gibibyte_is_saved_and_loaded_in_flat_memory(server: ServerProcess) -> None:
    digest = hashlib.sha256()
    with grpc.insecure_channel(server.address) as channel:
        stub = CheckpointStoreStub(channel)
        with Memory(server.pid) as memory:
            saved = save(stub, 1, SIZE_MIB, digest)
            loaded = load(stub)
    assert (saved.checkpoint.size_bytes, saved.checkpoint.sha256) == (SIZE_MIB * MIB, digest.digest())
    assert loaded == (SIZE_MIB * MIB, digest.digest())
    assert memory.grown_bytes < MOST_BYTES
