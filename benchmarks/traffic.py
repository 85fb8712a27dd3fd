"""A caller with nothing but generated stubs, and messages built once, so that sending them is all it does."""

import hashlib
import random
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

import google_crc32c
import grpc

from benchmarks.options import MIB
from holdfast.v1 import blob_store_pb2 as pb
from holdfast.v1 import blob_store_pb2_grpc
from holdfast.v1.types_pb2 import DataChunk, UploadTrailer


def canned_data(size: int = MIB) -> bytes:
    """Return bytes that look random, the same in every run."""
    return random.Random(size).randbytes(size)  # noqa: S311 (no secret)


def canned_chunk(data: bytes) -> DataChunk:
    """Return the chunk that carries the data and its CRC-32C."""
    return DataChunk(data=data, crc32c=google_crc32c.value(data))


class CannedUpload:
    """An upload of `chunks` times the same chunk, its size and sha256 declared in the trailer.

    `foretold`: the sha256 is in the header, too.
    """

    def __init__(self, data: bytes, chunks: int, *, foretold: bool = False) -> None:
        digest = hashlib.sha256()
        for _ in range(chunks):
            digest.update(data)
        self.size_bytes = len(data) * chunks
        self.chunks = chunks
        self._chunk = pb.PutBlobRequest(chunk=canned_chunk(data))
        self.sha256 = digest.digest()
        self._foretold = self.sha256 if foretold else b""
        self._trailer = pb.PutBlobRequest(trailer=UploadTrailer(size_bytes=self.size_bytes, sha256=self.sha256))

    def messages(self, key: str) -> Iterator[pb.PutBlobRequest]:
        """Yield the messages of an upload to `key`."""
        yield pb.PutBlobRequest(header=pb.PutBlobHeader(key=key, sha256=self._foretold))
        for _ in range(self.chunks):
            yield self._chunk
        yield self._trailer


class Caller:
    """A client of the server at `address`, on one connection of its own."""

    def __init__(self, address: str, options: Sequence[tuple[str, int]] = ()) -> None:
        self.channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1), *options])
        self.stub = blob_store_pb2_grpc.BlobStoreStub(self.channel)

    def upload(self, key: str, upload: CannedUpload) -> None:
        """Send an upload, and check that it arrived whole."""
        answer = self.stub.PutBlob(upload.messages(key))
        if answer.blob.size_bytes != upload.size_bytes:
            raise RuntimeError(f"{answer.blob.size_bytes} of {upload.size_bytes} bytes of {key} were stored")

    def download(self, key: str, chunks: int) -> None:
        """Receive a blob of `chunks` chunks, and check that all of them came."""
        drain(self.stub.GetBlob(pb.GetBlobRequest(key=key)), chunks)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.channel.close()


def drain(responses: Iterator[pb.GetBlobResponse], chunks: int) -> None:
    """Receive the info and `chunks` messages."""
    messages = sum(1 for _ in responses)
    if messages != 1 + chunks:
        raise RuntimeError(f"{messages} messages came instead of the info and {chunks} chunks")
