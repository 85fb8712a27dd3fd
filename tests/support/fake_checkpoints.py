"""A CheckpointStore that does what a test tells it, on a real gRPC server, and right answers of it."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, NoReturn

import google_crc32c
import grpc

from holdfast.v1 import checkpoint_store_pb2 as pb
from holdfast.v1 import checkpoint_store_pb2_grpc
from holdfast.v1.types_pb2 import DataChunk
from holdfast_server import errors as server_errors
from holdfast_server.rpc.status import status_of

CHUNK_BYTES = 100

Answer = Callable[[Any, grpc.ServicerContext], Any]


class FakeCheckpoints(checkpoint_store_pb2_grpc.CheckpointStoreServicer):
    """Answers each call with the next of `answers`, and then with the last one for good; keeps the requests."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[Any] = []
        self.released = threading.Event()
        """Set when the test is over: answers that hang wait for it."""

    def _answer(self, request: Any, context: grpc.ServicerContext) -> Any:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(request, pb.ConfirmRestoreRequest) or not hasattr(request, "__next__"):
            self.requests.append(request)
        return answer(request, context)

    def _stream(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield from self._answer(request, context)

    SaveCheckpoint = HibernateRoom = StatCheckpoint = ConfirmRestore = _answer  # type: ignore[assignment]  # any of them
    ListCheckpoints = ListRooms = ListHibernatedRooms = _answer
    LoadCheckpoint = RestoreRoom = WatchCheckpoints = _stream
    PruneCheckpoints = DeleteRoom = _stream


@contextmanager
def serving(fake: FakeCheckpoints) -> Iterator[str]:
    """Serve it, and yield the address."""
    server = grpc.server(ThreadPoolExecutor(8))
    checkpoint_store_pb2_grpc.add_CheckpointStoreServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        fake.released.set()
        server.stop(None).wait()


def unavailable(context: grpc.ServicerContext) -> NoReturn:
    """End a call as one whose connection broke."""
    context.abort(grpc.StatusCode.UNAVAILABLE, "away")
    raise AssertionError


def refuse(context: grpc.ServicerContext, error: server_errors.HoldfastError) -> NoReturn:
    """End a call as the server does."""
    context.abort_with_status(status_of(error))
    raise AssertionError


def chunk_of(data: bytes) -> DataChunk:
    """Return a chunk of a download."""
    return DataChunk(data=data, crc32c=google_crc32c.value(data))


def checkpoint_download(data: bytes, **changes: Any) -> Iterator[pb.LoadCheckpointResponse]:
    """Yield a right answer to a load, in chunks of 100 bytes."""
    fields = {"room_id": "a", "epoch": 7, "size_bytes": len(data), "etag": "etag-1", "sha256": digest(data), **changes}
    yield pb.LoadCheckpointResponse(info=pb.CheckpointInfo(**fields))
    for at in range(0, len(data), CHUNK_BYTES):
        yield pb.LoadCheckpointResponse(chunk=chunk_of(data[at : at + CHUNK_BYTES]))


def snapshot_download(data: bytes, **changes: Any) -> Iterator[pb.RestoreRoomResponse]:
    """Yield a right answer to a restore, in chunks of 100 bytes."""
    fields = {"room_id": "a", "size_bytes": len(data), "etag": "etag-1", "sha256": digest(data), **changes}
    yield pb.RestoreRoomResponse(info=pb.SnapshotInfo(**fields))
    for at in range(0, len(data), CHUNK_BYTES):
        yield pb.RestoreRoomResponse(chunk=chunk_of(data[at : at + CHUNK_BYTES]))


def received(requests: Iterator[pb.SaveCheckpointRequest]) -> tuple[pb.SaveCheckpointHeader, bytes, bool]:
    """Take an upload, and return its header, its bytes, and whether a right trailer came."""
    header, data, ended = next(requests).header, b"", False
    for request in requests:
        data += request.chunk.data
        if request.HasField("trailer"):
            ended = (request.trailer.size_bytes, request.trailer.sha256) == (len(data), digest(data))
    return header, data, ended


def digest(data: bytes) -> bytes:
    """Return the SHA-256."""
    return sha256(data).digest()
