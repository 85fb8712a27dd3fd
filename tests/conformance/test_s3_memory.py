"""What a stream takes of a server's memory on its way to a bucket or from it: two parts at most, however long it is."""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import grpc
import pytest

from holdfast.v1 import blob_store_pb2 as pb
from holdfast_server.objects.body import Body
from holdfast_server.objects.key import ObjectKey
from tests.support.process_memory import Memory
from tests.support.raw_blobs import TIMEOUT_SECONDS, chunk, header, stub_of, trailer
from tests.support.s3_servers import MinioServer
from tests.support.s3_stores import OpenedStore, s3_environment
from tests.support.samples import MIB, sample
from tests.support.server_process import ServerProcess

STREAMS = 4
PART_BYTES = 16 * MIB
STREAM_MIB = 96
OTHER_BYTES = 16 * MIB
"""What a stream takes beside parts, less than one: messages on their way, and what waits for its hash."""


Act = Callable[[Any, str], None]
"""Does something with a stub and a key."""


class Streams:
    """A server, and `STREAMS` clients that do the same at once."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server

    def growth(self, act: Act) -> int:
        """Return by how much the server's memory grew meanwhile."""
        with ExitStack() as stack, ThreadPoolExecutor(STREAMS) as pool:
            stubs = [stub_of(stack.enter_context(grpc.insecure_channel(self._server.address))) for _ in range(STREAMS)]
            with Memory(self._server.pid) as memory:
                for _ in pool.map(act, stubs, (f"stream/{number}" for number in range(STREAMS))):
                    pass
            return memory.grown_bytes


@pytest.fixture(scope="module")
def bucket(minio: MinioServer) -> Iterator[str]:
    """A bucket with a large object."""
    with OpenedStore(minio, part_bytes=PART_BYTES) as opened:
        opened.store.put(ObjectKey("large"), Body.of(sample(MIB) * STREAM_MIB))
        yield opened.bucket
        opened.empty()


@pytest.fixture
def streams(minio: MinioServer, bucket: str) -> Iterator[Streams]:
    """Streams through a server that has taken the memory that every server takes."""
    with ServerProcess(env=s3_environment(minio, bucket, part_bytes=PART_BYTES)) as server:
        found = Streams(server)
        found.growth(upload(1))
        found.growth(download("stream/0", 1))
        yield found


def upload(size_mib: int, *, is_declared: bool = False) -> Act:
    """Return what uploads so much; `is_declared`: it says beforehand what that is."""
    piece = sample(MIB)
    fields: dict[str, Any] = {}
    if is_declared:
        digest = hashlib.sha256()
        for _ in range(size_mib):
            digest.update(piece)
        fields = {"size_bytes": size_mib * MIB, "sha256": digest.digest()}

    def act(stub: Any, key: str) -> None:
        def messages() -> Iterator[pb.PutBlobRequest]:
            yield header(key, **fields)
            for _ in range(size_mib):
                yield chunk(piece)
            yield trailer()

        assert stub.PutBlob(messages(), timeout=TIMEOUT_SECONDS).blob.size_bytes == size_mib * MIB

    return act


def download(key: str, size_mib: int) -> Act:
    """Return what downloads so much, and keeps nothing of it."""

    def act(stub: Any, _: str) -> None:
        answers = stub.GetBlob(pb.GetBlobRequest(key=key), timeout=TIMEOUT_SECONDS)
        assert sum(len(answer.chunk.data) for answer in answers) == size_mib * MIB

    return act


@pytest.mark.parametrize("is_declared", [True, False], ids=["as it comes", "through the spool"])
def test_an_upload_holds_two_parts(streams: Streams, is_declared: bool) -> None:
    grown = streams.growth(upload(STREAM_MIB, is_declared=is_declared))
    assert grown < STREAMS * (2 * PART_BYTES + OTHER_BYTES)


def test_a_download_holds_less_than_a_part(streams: Streams) -> None:
    assert streams.growth(download("large", STREAM_MIB)) < STREAMS * OTHER_BYTES
