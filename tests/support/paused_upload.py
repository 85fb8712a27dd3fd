"""An upload that has begun, and waits in the middle until it is told to finish."""

from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

import grpc

from holdfast.v1 import blob_store_pb2 as pb
from tests.support.raw_blobs import TIMEOUT_SECONDS, chunk, header, stub_of, trailer


class PausedUpload:
    """Sends header and `data`, and then nothing until `finish`. Leaving the block gives it up."""

    def __init__(self, address: str, key: str, data: bytes, **fields: Any) -> None:
        self._parts: SimpleQueue[pb.PutBlobRequest | None] = SimpleQueue()
        self._parts.put(header(key, **fields))
        self._parts.put(chunk(data))
        self._channel = grpc.insecure_channel(address)
        self._call = stub_of(self._channel).PutBlob.future(iter(self._parts.get, None), timeout=TIMEOUT_SECONDS)

    def send(self, data: bytes) -> None:
        """Send some more."""
        self._parts.put(chunk(data))

    def finish(self) -> pb.PutBlobResponse:
        """Send the trailer, and return the answer. Raises `grpc.RpcError`."""
        self._parts.put(trailer())
        self._parts.put(None)
        answer: pb.PutBlobResponse = self._call.result(timeout=TIMEOUT_SECONDS)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it up, unless it is finished."""
        self._call.cancel()
        self._parts.put(None)
        self._channel.close()
