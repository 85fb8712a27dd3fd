"""Clients that begin a call and then do nothing more: neither send the next message nor take one."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc

from holdfast.v1 import blob_store_pb2 as blobs
from holdfast.v1 import blob_store_pb2_grpc, checkpoint_store_pb2_grpc
from holdfast.v1 import checkpoint_store_pb2 as checkpoints

_OF_ITS_OWN = ("grpc.use_local_subchannel_pool", 1)

LITTLE_AHEAD = (_OF_ITS_OWN, ("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 64 << 10))
"""Options of a channel that takes little more than it is asked for: else that is some MiB, or all there is."""

UPLOADS: dict[str, Any] = {
    "PutBlob": blobs.PutBlobRequest(header=blobs.PutBlobHeader(key="stalled")),
    "SaveCheckpoint": checkpoints.SaveCheckpointRequest(
        header=checkpoints.SaveCheckpointHeader(room_id="stalled", epoch=1)
    ),
    "HibernateRoom": checkpoints.HibernateRoomRequest(header=checkpoints.HibernateRoomHeader(room_id="stalled")),
}
"""Uploads by method, with their headers."""

DOWNLOADS: dict[str, Any] = {
    "GetBlob": blobs.GetBlobRequest(key="large"),
    "LoadCheckpoint": checkpoints.LoadCheckpointRequest(room_id="large"),
    "RestoreRoom": checkpoints.RestoreRoomRequest(room_id="large"),
}
"""Downloads by method, with their requests."""


def _method(channel: grpc.Channel, name: str) -> Any:
    blob_stub = blob_store_pb2_grpc.BlobStoreStub(channel)
    return getattr(blob_stub, name, None) or getattr(checkpoint_store_pb2_grpc.CheckpointStoreStub(channel), name)


@contextmanager
def stalled_uploads(address: str, method: str, *messages: Any, calls: int = 1) -> Iterator[list[Any]]:
    """Begin uploads that send their header and these messages; yield the calls, which are given up at the end."""
    over = threading.Event()

    def requests() -> Iterator[Any]:
        yield UPLOADS[method]
        yield from messages
        over.wait()

    with grpc.insecure_channel(address, [_OF_ITS_OWN]) as channel:
        begun = [_method(channel, method).future(requests()) for _ in range(calls)]
        try:
            yield begun
        finally:
            over.set()
            for call in begun:
                call.cancel()


@contextmanager
def stalled_downloads(address: str, method: str, calls: int = 1) -> Iterator[list[Any]]:
    """Begin downloads of which nothing is taken but the first message; yield the calls, given up at the end."""
    with ExitStack() as stack:
        begun = []
        for _ in range(calls):
            channel = stack.enter_context(grpc.insecure_channel(address, LITTLE_AHEAD))
            begun.append(_method(channel, method)(DOWNLOADS[method]))
            stack.callback(begun[-1].cancel)
            next(begun[-1])
        yield begun
