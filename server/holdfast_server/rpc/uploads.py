"""Reading an upload off the wire: header, then chunks, then optionally a trailer.

Here is the order of messages, and the check of each chunk. Whether the upload is complete and what it declared is
`objects.body.Body`'s to say. A stream that a client broke off can look like one that ended, so its end proves nothing.
"""

from collections.abc import Iterator
from typing import Any, Generic, Protocol, TypeVar

import google_crc32c

from holdfast.v1.types_pb2 import DataChunk, UploadTrailer
from holdfast_server.errors import BrokenUpload, InvalidArgument, Reason
from holdfast_server.objects.body import Chunk, Declared

MAX_CHUNK_BYTES = 2 << 20
"""2 MiB: half of every client's default message limit."""

Header_co = TypeVar("Header_co", covariant=True)


class UploadRequest(Protocol[Header_co]):
    """A message of an upload: `oneof part { <Rpc>Header header; DataChunk chunk; UploadTrailer trailer; }`."""

    @property
    def header(self) -> Header_co: ...  # noqa: D102
    @property
    def chunk(self) -> DataChunk: ...  # noqa: D102
    @property
    def trailer(self) -> UploadTrailer: ...  # noqa: D102
    def WhichOneof(self, oneof_group: Any, /) -> str | None: ...  # noqa: D102, N802 (protobuf's name)


class Upload(Generic[Header_co]):
    """An upload whose header has come: `header`, and `parts`, which yields chunks and at the end the trailer.

    Raises `BrokenUpload` (UPLOAD_INCOMPLETE) if no message comes, `InvalidArgument` (INVALID_UPLOAD) if the first is no
    header.
    """

    def __init__(self, requests: "Iterator[UploadRequest[Header_co]]") -> None:
        first = next(requests, None)
        if first is None:
            message = "the upload ended before its header"
            raise BrokenUpload(Reason.UPLOAD_INCOMPLETE, "header", message)
        if (part := first.WhichOneof("part")) != "header":
            raise _out_of_order(f"the first message of an upload must be its header, and has {part or 'no part'}")
        self.header = first.header
        self._requests = requests

    def parts(self) -> Iterator[Chunk | Declared]:
        """Yield verified chunks in order, and last what the trailer declares, if one comes.

        Raises `InvalidArgument` (INVALID_UPLOAD, TOO_LARGE, INVALID_SIZE, INVALID_DIGEST), `BrokenUpload`
        (CHECKSUM_MISMATCH).
        """
        ended = False
        for request in self._requests:
            part = request.WhichOneof("part")
            if ended:
                raise _out_of_order(f"a message with {part or 'no part'} came after the trailer")
            if part == "chunk":
                yield _verified(request.chunk)
            elif part == "trailer":
                ended = True
                yield declared(request.trailer)
            elif part == "header":
                raise _out_of_order("a second header came")
            else:
                raise _out_of_order("a message with no part came")


def declared(message: "_Declaring") -> Declared:
    """Return what a header or trailer declares."""
    size_bytes = message.size_bytes if message.HasField("size_bytes") else None
    return Declared(size_bytes, message.sha256 or None)


class _Declaring(Protocol):
    @property
    def size_bytes(self) -> int: ...
    @property
    def sha256(self) -> bytes: ...
    def HasField(self, field_name: Any, /) -> bool: ...  # noqa: N802 (protobuf's name)


def _verified(chunk: DataChunk) -> Chunk:
    data = chunk.data  # copies at each access
    if not 0 < len(data) <= MAX_CHUNK_BYTES:
        if not data:
            raise InvalidArgument(Reason.INVALID_UPLOAD, "chunk.data", "a chunk has no data")
        message = f"a chunk of {len(data)} bytes is larger than {MAX_CHUNK_BYTES}"
        raise InvalidArgument(Reason.TOO_LARGE, "chunk.data", message)
    return summed(data, chunk.crc32c if chunk.HasField("crc32c") else None, "chunk.crc32c")


def summed(data: bytes, sent: int | None, field: str) -> Chunk:
    """Return data with its CRC-32C, if one was sent with it, in `field`. Raises `BrokenUpload` (CHECKSUM_MISMATCH)."""
    if sent is None:
        return Chunk(data)
    crc32c = google_crc32c.value(data)
    if crc32c != sent:
        message = f"{len(data)} bytes have crc32c {crc32c:#010x}, and {sent:#010x} was sent with them"
        raise BrokenUpload(Reason.CHECKSUM_MISMATCH, field, message)
    return Chunk(data, crc32c)


def _out_of_order(message: str) -> InvalidArgument:
    return InvalidArgument(Reason.INVALID_UPLOAD, "part", message)
