"""A gRPC server of blobs for the batches of the client: it behaves well, or does what a test tells it."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import google_crc32c
import grpc

import holdfast
from holdfast import Blob, PutResult
from holdfast.batches import MAX_BATCH_BYTES
from holdfast.v1 import blob_store_pb2 as pb
from holdfast.v1 import blob_store_pb2_grpc
from holdfast.v1.types_pb2 import ByteRange, DataChunk, ErrorReason, ItemStatus
from tests.support.samples import MIB

Answer = Callable[[Any, grpc.ServicerContext], Any]

_CODES = {
    "BATCH_FULL": grpc.StatusCode.INVALID_ARGUMENT,
    "TOO_LARGE": grpc.StatusCode.INVALID_ARGUMENT,
    "INVALID_KEY": grpc.StatusCode.INVALID_ARGUMENT,
    "BLOB_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "BACKEND_UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
    "INTEGRITY_FAILED": grpc.StatusCode.DATA_LOSS,
}


def status_of(reason: str) -> ItemStatus:
    return ItemStatus(
        code=_CODES[reason].value[0], reason=ErrorReason.Value(f"ERROR_REASON_{reason}"), message=f"it is {reason}"
    )


def sha256_of(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def info_of(key: str, data: bytes) -> pb.BlobInfo:
    return pb.BlobInfo(key=key, size_bytes=len(data), etag="e", sha256=sha256_of(data))


class BatchStore(blob_store_pb2_grpc.BlobStoreServicer):
    """Blobs by key, behaving well; `failures` are the reasons that keys fail with, one for each time they are named.

    `answer` answers in its place. Keeps the requests.
    """

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.failures: dict[str, list[str]] = {}
        self.answer: Answer | None = None
        self.requests: list[Any] = []
        self.streamed: list[str] = []
        """Keys that came or went as a stream."""

    def asked(self) -> list[list[str]]:
        """The keys of each request."""
        return [
            list(request.keys) if isinstance(request, pb.FindMissingBlobsRequest) else [x.key for x in request.items]
            for request in self.requests
        ]

    def _answer(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.requests.append(request)
        return None if self.answer is None else self.answer(request, context)

    def _failure(self, key: str) -> ItemStatus | None:
        reasons = self.failures.get(key)
        return status_of(reasons.pop(0)) if reasons else None

    def FindMissingBlobs(
        self, request: pb.FindMissingBlobsRequest, context: grpc.ServicerContext
    ) -> pb.FindMissingBlobsResponse:
        if (answer := self._answer(request, context)) is not None:
            return answer  # type: ignore[no-any-return]  # what the test gave
        response = pb.FindMissingBlobsResponse()
        for position, key in enumerate(request.keys):
            if (status := self._failure(key)) is not None:
                response.failures.add(position=position, status=status)
            elif key not in self.blobs or (
                request.sha256 and request.sha256[position] not in (b"", sha256_of(self.blobs[key]))
            ):
                response.missing.append(position)
        return response

    def BatchGetBlobs(
        self, request: pb.BatchGetBlobsRequest, context: grpc.ServicerContext
    ) -> pb.BatchGetBlobsResponse:
        if (answer := self._answer(request, context)) is not None:
            return answer  # type: ignore[no-any-return]  # what the test gave
        room = MAX_BATCH_BYTES
        response = pb.BatchGetBlobsResponse()
        for item in request.items:
            data = self.blobs.get(item.key)
            status = self._failure(item.key)
            if status is None and data is None:
                status = status_of("BLOB_NOT_FOUND")
            if status is None and data is not None and len(data) > room:
                status = status_of("TOO_LARGE" if len(data) > MAX_BATCH_BYTES else "BATCH_FULL")
            if status is not None or data is None:
                response.results.add(status=status)
                continue
            room -= len(data)
            response.results.add(blob=info_of(item.key, data), data=data, crc32c=google_crc32c.value(data))
        return response

    def BatchPutBlobs(
        self, request: pb.BatchPutBlobsRequest, context: grpc.ServicerContext
    ) -> pb.BatchPutBlobsResponse:
        if (answer := self._answer(request, context)) is not None:
            return answer  # type: ignore[no-any-return]  # what the test gave
        response = pb.BatchPutBlobsResponse()
        for item in request.items:
            assert item.crc32c == google_crc32c.value(item.data)
            assert item.sha256 == sha256_of(item.data)
            if (status := self._failure(item.key)) is not None:
                response.results.add(status=status)
                continue
            self.blobs[item.key] = item.data
            response.results.add(blob=info_of(item.key, item.data), created=True)
        return response

    def BatchDeleteBlobs(
        self, request: pb.BatchDeleteBlobsRequest, context: grpc.ServicerContext
    ) -> pb.BatchDeleteBlobsResponse:
        if (answer := self._answer(request, context)) is not None:
            return answer  # type: ignore[no-any-return]  # what the test gave
        response = pb.BatchDeleteBlobsResponse()
        for item in request.items:
            if (status := self._failure(item.key)) is not None:
                response.results.add(status=status)
            else:
                response.results.add(existed=self.blobs.pop(item.key, None) is not None)
        return response

    def GetBlob(self, request: pb.GetBlobRequest, context: grpc.ServicerContext) -> Iterator[pb.GetBlobResponse]:
        self.streamed.append(request.key)
        if (data := self.blobs.get(request.key)) is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "gone")
            raise AssertionError
        info = info_of(request.key, data)
        info.range.CopyFrom(ByteRange(length=len(data)))
        yield pb.GetBlobResponse(info=info)
        for at in range(0, len(data), MIB):
            piece = data[at : at + MIB]
            yield pb.GetBlobResponse(chunk=DataChunk(data=piece, crc32c=google_crc32c.value(piece)))

    def PutBlob(
        self, request_iterator: Iterator[pb.PutBlobRequest], context: grpc.ServicerContext
    ) -> pb.PutBlobResponse:
        key = next(request_iterator).header.key
        self.streamed.append(key)
        self.blobs[key] = b"".join(request.chunk.data for request in request_iterator)
        return pb.PutBlobResponse(blob=info_of(key, self.blobs[key]), created=True)


@contextmanager
def serving(store: BatchStore) -> Iterator[str]:
    """Serve it within the block; yields the address."""
    server = grpc.server(ThreadPoolExecutor(2))
    blob_store_pb2_grpc.add_BlobStoreServicer_to_server(store, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def outcomes(results: Iterable[object]) -> list[object]:
    """The reason in place of each error, the bytes in place of each blob, and the key in place of what was stored."""

    def outcome(result: object) -> object:
        match result:
            case holdfast.HoldfastError():
                return result.reason
            case Blob():
                return result.data
            case PutResult():
                return result.blob.key
            case _:
                return result

    return [outcome(result) for result in results]
