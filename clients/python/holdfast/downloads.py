"""Receiving a download: verified chunk by chunk, and taken up again where a connection broke."""

import hashlib
from collections.abc import Iterator
from types import TracebackType
from typing import Self, TypeAlias

import grpc

from holdfast.calls import Calls
from holdfast.content import check_content
from holdfast.errors import (
    HoldfastError,
    IntegrityFailed,
    NotFound,
    Overloaded,
    PreconditionFailed,
    Unavailable,
)
from holdfast.incoming import Incoming
from holdfast.results import ByteRange, blob_info
from holdfast.retrying import PASSING
from holdfast.v1 import blob_store_pb2 as pb

_Method: TypeAlias = "grpc.UnaryStreamMultiCallable[pb.GetBlobRequest, pb.GetBlobResponse]"


class BlobReader(Iterator[bytes]):
    """The bytes of a blob or of a range of it as they come: chunks of at most 1 MiB, each verified by its CRC-32C.

    `info` is what is known of the blob, `range` which of its bytes these are. The iteration ends only if all of them
    came, and if a whole blob has the sha256 that it should; until then a caller has right bytes, but perhaps not all.
    That the blob is the one of a `Content`'s sha256, also for a range, is sure as soon as there is a reader.
    Where the connection breaks, or the server goes away, it is taken up again at the offset reached, of the same blob
    (if-match): as often as the client retries without any new byte. To be closed, or used as a context manager. Not for
    several threads at once.

    Iterating raises `IntegrityFailed` for damaged or missing bytes, `PreconditionFailed` or `NotFound` if the blob was
    replaced or deleted and so cannot be taken up again, `DeadlineExceeded` for a server that is silent for longer than
    the client's time-out, and other `HoldfastError`s; after that, and once closed, `ValueError`.
    """

    def __init__(self, calls: Calls, method: _Method, request: pb.GetBlobRequest) -> None:
        self._calls = calls
        self._method = method
        self._request = request
        self._is_closed = False
        self._stream: Incoming[pb.BlobInfo] | None = calls.retrier.call(lambda _: self._open(request))
        message = self._stream.info
        self.info = blob_info(message)
        self.range = ByteRange(message.range.offset, message.range.length)
        self._position = self.range.offset
        self._end = self.range.offset + self.range.length
        self._sha256 = hashlib.sha256() if self.range.length == self.info.size_bytes else None
        self._tries = calls.retrier.begin()
        self._tried_at: int | None = None

    def read(self) -> bytes:
        """Return all bytes that are left. Raises what iterating raises."""
        return b"".join(self)

    def close(self) -> None:
        """Cancel what is left of the download. Closing twice is no error."""
        self._is_closed = True
        self._release()

    def __next__(self) -> bytes:
        if self._is_closed:
            raise ValueError("the reader is closed")
        try:
            chunk = self._next_chunk()
        except BaseException:
            # Whoever goes on after an error must not take the silence for the end.
            self.close()
            raise
        if chunk is None:
            self._release()
            raise StopIteration
        return chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _release(self) -> None:
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None

    def _open(self, request: pb.GetBlobRequest) -> Incoming[pb.BlobInfo]:
        stream = Incoming(self._calls, self._method(request), _name(request))
        if not stream.info.HasField("range"):
            raise stream.damage("a download did not begin with the blob's range")
        try:
            check_content(request, stream.info)
        except IntegrityFailed:
            stream.cancel()
            raise
        return stream

    def _next_chunk(self) -> bytes | None:
        while self._stream is not None:
            try:
                chunk = self._stream.next_chunk()
            except PASSING as error:
                if self._position < self._end:
                    self._stream = self._resumed(error)
                    continue
                chunk = None  # everything came but the status
            if chunk is None:
                self._check_end()
                return None
            self._position += len(chunk)
            if self._position > self._end:
                raise self._damage(f"more than the {self.range.length} bytes asked for came")
            if self._sha256 is not None:
                self._sha256.update(chunk)
            return chunk
        return None

    def _resumed(self, error: Unavailable | Overloaded) -> Incoming[pb.BlobInfo]:
        if self._position != self._tried_at:
            self._tries = self._calls.retrier.begin()
            self._tried_at = self._position
        request = pb.GetBlobRequest(
            offset=self._position, length=self._end - self._position, exact=True, if_match_etag=self.info.etag
        )
        if self._request.HasField("content"):
            request.content.CopyFrom(self._request.content)
        else:
            request.key = self._request.key
        while True:
            self._tries.pause_after(error)
            try:
                stream = self._open(request)
            except PASSING as again:
                error = again
            except PreconditionFailed as changed:
                raise self._changed("replaced", changed) from changed
            except NotFound as gone:
                raise self._changed("deleted", gone) from gone
            else:
                info = stream.info
                if (info.etag, info.range.offset, info.range.length) != (
                    self.info.etag,
                    request.offset,
                    request.length,
                ):
                    stream.cancel()
                    raise self._damage("the server went on with other bytes than those asked for")
                return stream

    def _changed(self, how: str, error: HoldfastError) -> HoldfastError:
        message = (
            f"key {self.info.key!r} was {how} while it was read: the connection broke after "
            f"{self._position - self.range.offset} of {self.range.length} bytes of etag {self.info.etag!r}"
        )
        return type(error)(error.reason, message, error.details)

    def _check_end(self) -> None:
        if self._position < self._end:
            raise self._damage(f"only {self._position - self.range.offset} of {self.range.length} bytes came")
        if self._sha256 is not None and (found := self._sha256.digest()) != self.info.sha256:
            raise self._damage(f"the bytes that came have sha256 {found.hex()}, not {self.info.sha256.hex()}")

    def _damage(self, what: str) -> IntegrityFailed:
        key = self.info.key
        return IntegrityFailed("INTEGRITY_FAILED", f"key {key!r}: {what}", {"key": key})


def _name(request: pb.GetBlobRequest) -> str:
    return f"key {request.key!r}" if request.HasField("key") else "content"
