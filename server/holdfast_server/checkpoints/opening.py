"""Payloads on their way out: an object is read whole and verified before the first byte of it is used.

Meanwhile its bytes wait: those of a small one in memory, others in the spool. They are read from the backend once, so
nobody can put others in their place between the check and the use.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Protocol, Self

import google_crc32c

from holdfast_server import calls
from holdfast_server.checkpoints import seal
from holdfast_server.checkpoints.key_ring import Keys
from holdfast_server.checkpoints.seal import (
    END_MAGIC,
    HEAD_BYTES,
    MAX_FOOTER_BYTES,
    Footer,
    SealBroken,
    SealedAs,
)
from holdfast_server.checkpoints.segments import decrypted
from holdfast_server.errors import Reason, Unavailable
from holdfast_server.objects.base import ObjectReader
from holdfast_server.objects.body import PIECE_BYTES, Chunk, Sha256
from holdfast_server.objects.spool import DEFAULT_SPOOL_BYTES, Room, SpooledFile

_FULL = (
    "{size} more bytes do not fit beside what waits in the spool for its readers: {used} of {most}, three quarters of "
    "spool_max_bytes, are taken; try it again later, or have spool_max_bytes raised"
)


class OpensFiles(Protocol):
    """A spool, or what opens one when it is needed."""

    def open(self) -> SpooledFile:
        """Return a new, empty file. Raises `StorageFull` (SPOOL_FULL) or `Unavailable`."""


class WaitingRoom:
    """Where payloads wait: up to `memory_bytes` of each in memory, and larger ones in the spool of `spool_bytes`.

    Those that wait for their readers may take three quarters of it together: readers that take their time, or take
    nothing any more, must leave room for those who save. One alone may be larger.
    """

    def __init__(self, spool: OpensFiles, memory_bytes: int, spool_bytes: int = DEFAULT_SPOOL_BYTES) -> None:
        self._spool = spool
        self._share = spool_bytes * 3 // 4
        self._for_readers = Room(self._share, _FULL)
        self.memory_bytes = memory_bytes

    def take(self, size_bytes: int, stack: ExitStack) -> "Waiting":
        """Return room for so many bytes, given back with the stack. Raises `Unavailable`."""
        return _InMemory() if size_bytes <= self.memory_bytes else stack.enter_context(self._spool.open())

    def reserve(self, size_bytes: int, stack: ExitStack) -> None:
        """Set aside what a payload will take until its reader is done: whole, so that none is read in vain.

        What is larger than the share of readers takes all of that, so it is loaded where nobody else waits. It is given
        back with the stack. Raises `StorageFull` (SPOOL_FULL).
        """
        if size_bytes > self.memory_bytes:
            taken = min(size_bytes, self._share)
            self._for_readers.take(taken)
            stack.callback(self._for_readers.give_back, taken)


class Waiting(Protocol):
    """Bytes that wait. `write` raises `StorageFull` (SPOOL_FULL), all raise `Unavailable`: also where they changed."""

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Return `length` bytes, fewer only at the end."""

    def chunks(self, offset: int, length: int) -> Iterator[Chunk]:
        """Yield them in chunks of at most 1 MiB."""


class _InMemory:
    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes | memoryview) -> None:
        self._data += data

    def read_at(self, offset: int, length: int) -> bytes:
        return bytes(memoryview(self._data)[offset : offset + length])

    def chunks(self, offset: int, length: int) -> Iterator[Chunk]:
        end = offset + length
        for start in range(offset, end, PIECE_BYTES):
            yield Chunk(self.read_at(start, min(PIECE_BYTES, end - start)))


class Payload:
    """A payload that was verified whole. A context manager; iterate it for chunks of at most 1 MiB, as often as needed.

    `footer` is what its seal says; None for what an older system wrote.
    """

    def __init__(
        self,
        footer: Footer | None,
        size_bytes: int,
        sha256: bytes,
        chunks: Callable[[], Iterator[Chunk]],
        stack: ExitStack,
    ) -> None:
        self.footer = footer
        self.size_bytes = size_bytes
        self.sha256 = sha256
        self._chunks = chunks
        self._stack = stack

    def __iter__(self) -> Iterator[Chunk]:
        try:
            for data, crc32c in self._chunks():
                yield Chunk(data, google_crc32c.value(data) if crc32c is None else crc32c)
        except SealBroken as broken:
            # It was verified, and the spool looks after itself: so this is no damage of what is stored.
            message = "a payload did not wait in the server's memory as it was verified"
            raise Unavailable(Reason.BACKEND_UNAVAILABLE, message) from broken

    def close(self) -> None:
        """Give back the room that the payload takes; harmless when repeated."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the payload."""
        self.close()


class OpenLegacy(Protocol):
    """Verifies what an older system wrote: the payload, and then its tag."""

    def __call__(self, read_at: Callable[[int, int], bytes], size_bytes: int) -> tuple[int, bytes]:
        """Return size and SHA-256 of the payload that an object of `size_bytes` begins with. Raises `SealBroken`."""


def open_payload(
    reader: ObjectReader,
    room: WaitingRoom,
    keys: Keys,
    expected: SealedAs,
    *,
    legacy: OpenLegacy | None = None,
    leaves: bool = False,
) -> Payload:
    """Read an object whole, and verify that it is what was sealed for just this; the caller closes both.

    `legacy`: what verifies an object without a seal; None: that is damage. `leaves`: it will wait for a reader. Raises
    `SealBroken`, `SealKeyUnavailable`, `StorageFull` (SPOOL_FULL), and what the reader raises.
    """
    with ExitStack() as stack:
        size = reader.info.size_bytes
        if leaves:
            room.reserve(size, stack)
        waiting = room.take(size, stack)
        sha256 = Sha256()
        stack.callback(sha256.close)
        head, end = _read(reader, size, waiting, sha256)
        if legacy is not None and not end.endswith(END_MAGIC):
            payload_bytes, payload_sha256 = legacy(waiting.read_at, size)
            return Payload(
                None, payload_bytes, payload_sha256, lambda: waiting.chunks(0, payload_bytes), stack.pop_all()
            )
        length = seal.footer_length(end)
        stored_bytes = size - HEAD_BYTES - length
        if stored_bytes < 0 or head != end[-length:][:HEAD_BYTES]:
            raise SealBroken("head and footer are not of one seal")
        footer = seal.open_footer(end, keys, expected)
        key = keys.ring.verifying(footer.head.key_id)
        sha256.update(end[:-length])  # was kept back since it might have been footer
        payload_sha256 = stored_sha256 = sha256.digest()
        if footer.stored_bytes != stored_bytes:
            raise SealBroken("its bytes are not those that were sealed")
        seal.verify(footer, end[-length:], key, stored_sha256)

        def chunks() -> Iterator[Chunk]:
            if not footer.head.is_encrypted:
                return waiting.chunks(HEAD_BYTES, stored_bytes)
            pieces = decrypted(
                lambda offset, length: waiting.read_at(HEAD_BYTES + offset, min(length, stored_bytes - offset)),
                stored_bytes,
                key,
                footer.head,
            )
            return (Chunk(piece) for piece in pieces)

        if footer.head.is_encrypted:
            payload_sha256 = _sha256_of(chunks(), stack)
        if not footer.is_of(payload_sha256, key):
            raise SealBroken("its payload is not the one that was sealed")
        return Payload(footer, footer.size_bytes, payload_sha256, chunks, stack.pop_all())


def _read(reader: ObjectReader, size: int, waiting: Waiting, sha256: Sha256) -> tuple[bytes, bytes]:
    """Let an object wait; return its head, and its last bytes, which may be footer. What is between them is hashed."""
    kept_from = max(size - MAX_FOOTER_BYTES, HEAD_BYTES)
    head, end = bytearray(), bytearray()
    position = 0
    for chunk in reader:
        calls.check("reading what is stored")
        waiting.write(chunk.data)
        data = memoryview(chunk.data)
        if position < HEAD_BYTES:
            head += data[: HEAD_BYTES - position]
        begin, stop = max(HEAD_BYTES - position, 0), max(kept_from - position, 0)
        if stored := data[begin:stop]:
            sha256.update(bytes(stored))
        end += data[max(begin, stop) :]
        position += len(data)
    return bytes(head), bytes(end)


def _sha256_of(chunks: Iterator[Chunk], stack: ExitStack) -> bytes:
    sha256 = Sha256()
    stack.callback(sha256.close)
    for chunk in chunks:
        calls.check("verifying what is stored")
        sha256.update(chunk.data)
    return sha256.digest()
