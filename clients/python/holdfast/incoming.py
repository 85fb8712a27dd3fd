"""What a server streams: message by message, with an end to silence, and downloads with every chunk verified."""

from collections.abc import Callable, Iterator
from typing import Generic, Literal, Protocol, TypeVar

import google_crc32c

from holdfast.calls import Calls
from holdfast.errors import Cancelled, DeadlineExceeded, IntegrityFailed
from holdfast.v1.types_pb2 import DataChunk

Message = TypeVar("Message")
Info = TypeVar("Info")
_Message_co = TypeVar("_Message_co", covariant=True)
_Info_co = TypeVar("_Info_co", covariant=True)


class Part(Protocol[_Info_co]):
    """One message of a download: the info first, then chunks."""

    @property
    def info(self) -> _Info_co: ...  # noqa: D102 (the proto's)
    @property
    def chunk(self) -> DataChunk: ...  # noqa: D102 (the proto's)
    def WhichOneof(self, oneof_group: Literal["part"], /) -> str | None: ...  # noqa: D102, N802 (protobuf's)


class Call(Protocol[_Message_co]):
    """A call whose answers come one by one."""

    def __iter__(self) -> Iterator[_Message_co]: ...
    def __next__(self) -> _Message_co: ...
    def cancel(self) -> object: ...  # noqa: D102 (gRPC's)


def received(calls: Calls, call: Call[Message]) -> Message | None:
    """Return the next message, or None at the end. Raises `DeadlineExceeded` for one that is too long in coming."""
    with calls.watchdog.watching(call) as wait:
        try:
            with calls.translated():
                return next(call, None)
        except Cancelled:
            if not wait.expired:
                raise
            message = f"{calls.address} sent nothing for {calls.retrier.timeout_seconds:g} s"
            raise DeadlineExceeded("DEADLINE_EXCEEDED", message) from None


def all_received(calls: Calls, begin: Callable[[], Call[Message]]) -> Iterator[Message]:
    """Yield the messages of a call, which is cancelled if not all are taken. It is tried again while none has come."""

    def attempt(_: float | None) -> tuple[Call[Message], Message | None]:
        call = begin()
        return call, received(calls, call)

    call, message = calls.retrier.call(attempt)
    try:
        while message is not None:
            yield message
            message = received(calls, call)
    finally:
        call.cancel()


class Incoming(Generic[Info]):
    """One call of a download: its `info` is there, its chunks are to come. `name` is what it is of, for errors."""

    def __init__(self, calls: Calls, call: Call[Part[Info]], name: str) -> None:
        self._calls = calls
        self._call = call
        self._name = name
        first = received(calls, call)
        if first is None or first.WhichOneof("part") != "info":
            raise self.damage("a download did not begin with what is known of it")
        self.info = first.info

    def next_chunk(self) -> bytes | None:
        """Return the next bytes, verified; None at the end. Raises `IntegrityFailed` and other `HoldfastError`s."""
        message = received(self._calls, self._call)
        if message is None:
            return None
        chunk = message.chunk
        data = chunk.data  # copies at each access
        if not data or not chunk.HasField("crc32c"):
            raise self.damage("a message came without data or without its CRC-32C")
        if google_crc32c.value(data) != chunk.crc32c:
            raise self.damage("a chunk that came does not have its CRC-32C")
        return data

    def cancel(self) -> None:
        """Give the rest up."""
        self._call.cancel()

    def damage(self, what: str) -> IntegrityFailed:
        """Give the rest up, and return the error that says why."""
        self.cancel()
        return IntegrityFailed("INTEGRITY_FAILED", f"{self._name}: {what}")
