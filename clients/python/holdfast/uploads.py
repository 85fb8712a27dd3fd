"""Sending an upload: header, chunks, trailer.

The source is read in the caller's thread, and gRPC sends from a thread of its own; between the two is an `_Outbox`. So
an error of the source is simply the caller's (gRPC would report UNKNOWN, "Exception iterating requests!"), and reading
and hashing overlap with sending.
"""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Generic, TypeAlias, TypeVar

import google_crc32c
import grpc

from holdfast.calls import Calls
from holdfast.errors import BrokenUpload, Cancelled, DeadlineExceeded
from holdfast.retrying import PASSING
from holdfast.sources import Source
from holdfast.v1.blob_store_pb2 import PutBlobHeader
from holdfast.v1.checkpoint_store_pb2 import HibernateRoomHeader, SaveCheckpointHeader
from holdfast.v1.types_pb2 import DataChunk, UploadTrailer

M = TypeVar("M")
Answer = TypeVar("Answer")

Header: TypeAlias = PutBlobHeader | SaveCheckpointHeader | HibernateRoomHeader
"""What an upload can begin with."""

Progress = Callable[[int, int | None], None]
"""Is told the bytes so far and, if it is known, the number in all. On a new try it begins at 0 again."""

_OUTBOX_MESSAGES = 2
"""How far reading may be ahead of sending: enough to overlap, and a bound for memory."""


class _Stalled(Exception):
    """Not a `TimeoutError`: that could be the source's."""


@dataclass(frozen=True, slots=True)
class Sent(Generic[Answer]):
    """The answer to an upload, and the SHA-256 of the bytes that were sent."""

    answer: Answer
    sha256: bytes


class _Outbox(Iterator[M]):
    """Messages on their way from the caller's thread to gRPC's."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._messages: deque[M] = deque()
        self._ended = False
        self._closed = False

    def put(self, message: M, timeout_seconds: float | None) -> bool:
        """Hand over a message, and tell whether that is still wanted. Raises `_Stalled` if there stays no room."""
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._closed or len(self._messages) < _OUTBOX_MESSAGES, timeout_seconds
            ):
                raise _Stalled
            self._messages.append(message)
            self._changed.notify_all()
            return not self._closed

    def end(self) -> None:
        """Say that no message will follow."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def close(self) -> None:
        """Drop what was not taken: the call is over."""
        with self._changed:
            self._closed = True
            self._messages.clear()
            self._changed.notify_all()

    def __next__(self) -> M:
        with self._changed:
            self._changed.wait_for(lambda: self._messages or self._ended or self._closed)
            if self._closed or not self._messages:
                raise StopIteration
            message = self._messages.popleft()
            self._changed.notify_all()
            return message


class _Requests(Generic[M]):
    """The messages of an upload, made once; afterwards `sha256` is that of all bytes."""

    def __init__(self, message: Callable[..., M], header: Header, pieces: Iterator[bytes]) -> None:
        self._message = message
        self._header = header
        self._pieces = pieces
        self.declared_bytes = header.size_bytes if header.HasField("size_bytes") else None
        self._size = 0
        self._sha256 = hashlib.sha256()

    @property
    def sha256(self) -> bytes:
        return self._sha256.digest()

    def __iter__(self) -> Iterator[tuple[M, int]]:
        """Yield header, chunks and trailer, each with its number of data bytes, always one message behind the source.

        For the server an upload is complete once all declared bytes are there: so the last of them leave only when the
        source has ended well.
        """
        held = self._message(header=self._header), 0
        for piece in self._pieces:
            self._size += len(piece)
            self._sha256.update(piece)
            if self.declared_bytes is not None and self._size > self.declared_bytes:
                raise self._mismatch("has more")
            yield held
            held = self._message(chunk=DataChunk(data=piece, crc32c=google_crc32c.value(piece))), len(piece)
        if self.declared_bytes is not None and self._size < self.declared_bytes:
            raise self._mismatch(f"ended after {self._size}")
        yield held
        yield self._message(trailer=UploadTrailer(size_bytes=self._size, sha256=self.sha256)), 0

    def _mismatch(self, what: str) -> BrokenUpload:
        message = f"the source {what}, and {self.declared_bytes} bytes were declared"
        return BrokenUpload("SIZE_MISMATCH", message, field="size_bytes")


def upload(
    calls: Calls,
    method: "grpc.StreamUnaryMultiCallable[M, Answer]",
    message: type[M],
    header: Header,
    source: Source,
    *,
    progress: Progress | None = None,
    timeout_seconds: float | None = None,
) -> Sent[Answer]:
    """Send a source, again after what passes by itself: as often as `calls` has it, so once for what may not be.

    `message` is the class of the method's requests. `timeout_seconds`: the longest that all of it may take; None: the
    client's time-out, for standing still. Raises what `_send` raises.
    """
    if timeout_seconds is not None:
        calls = calls.within(timeout_seconds)
    tries = calls.retrier.begin()
    while True:
        seconds_left = None if timeout_seconds is None else tries.seconds_left
        try:
            with source.open() as opened:
                if opened.size_bytes is not None and not header.HasField("size_bytes"):
                    header.size_bytes = opened.size_bytes
                requests = _Requests(message, header, opened.pieces)
                return _send(calls, method, requests, progress, seconds_left)
        except PASSING as error:
            if timeout_seconds is None:
                # The upload may have taken its time: the bound is for standing still.
                tries.extend()
            tries.pause_after(error)


def _send(
    calls: Calls,
    method: "grpc.StreamUnaryMultiCallable[M, Answer]",
    requests: _Requests[M],
    progress: Progress | None,
    seconds_left: float | None,
) -> Sent[Answer]:
    """Send one upload, and return the answer to it. Whatever goes wrong, the call is cancelled.

    The time-out is for each step: until a message is taken, and from the last one until the answer; `seconds_left` are
    those for all of it. Raises `HoldfastError`, and whatever the source and `progress` raise.
    """
    messages = iter(requests)
    first = next(messages)  # before the call begins: a source that fails at once needs none
    outbox = _Outbox[M]()
    timeout_seconds = calls.retrier.timeout_seconds
    call = method.future(outbox, timeout=seconds_left)
    call.add_done_callback(lambda _: outbox.close())
    try:
        sent = 0
        for message, data_bytes in chain([first], messages):
            if progress is not None and data_bytes:
                sent += data_bytes
                progress(sent, requests.declared_bytes)  # before the last bytes leave, since it can fail too
            if not outbox.put(message, timeout_seconds):
                break  # the server has answered already
        outbox.end()
        with calls.translated():
            answer = call.result(timeout_seconds)
    except grpc.FutureCancelledError:
        raise Cancelled("CANCELLED", "the client was closed during an upload") from None
    except (_Stalled, grpc.FutureTimeoutError):
        silence = f"{calls.address} took no data, or gave no answer, for {timeout_seconds:g} s"
        raise DeadlineExceeded("DEADLINE_EXCEEDED", silence) from None
    finally:
        # In this order: an outbox that merely ends would look like the end of the upload.
        call.cancel()
        outbox.close()
    return Sent(answer, requests.sha256)
