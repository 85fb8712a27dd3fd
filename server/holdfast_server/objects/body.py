"""Bytes on their way into a store: cut into pieces, summed, and checked against what was declared.

A store that has iterated a `Body` to its end without an error has all of the bytes, and they are the ones meant.
"""

import hashlib
import queue
import threading
from array import array
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Self

import google_crc32c

from holdfast_server.errors import AlreadyExists, BrokenUpload, InvalidArgument, Reason

PIECE_BYTES = 1 << 20
"""1 MiB: the unit of checksums at rest and of messages on the wire. Below 256 KiB gRPC's throughput falls by half."""

SHA256_BYTES = 32

_HASH_QUEUE_PIECES = 4
"""How far hashing may fall behind; bounds the memory of a stream to a few pieces."""


class Chunk(NamedTuple):
    """Some bytes and their CRC-32C."""

    data: bytes
    crc32c: int | None = None
    """None: not known yet."""


@dataclass(frozen=True, slots=True)
class Declared:
    """What a sender says of its bytes: their number, and their sha256 (32 bytes). None: it does not say.

    Raises `InvalidArgument` (INVALID_SIZE, INVALID_DIGEST) for a negative size or a digest of another length.
    """

    size_bytes: int | None = None
    sha256: bytes | None = None

    def __post_init__(self) -> None:
        """Check the rules."""
        if self.size_bytes is not None and self.size_bytes < 0:
            raise InvalidArgument(Reason.INVALID_SIZE, "size_bytes", f"size_bytes {self.size_bytes} is negative")
        if self.sha256 is not None and len(self.sha256) != SHA256_BYTES:
            message = f"sha256 has {len(self.sha256)} bytes, not {SHA256_BYTES}"
            raise InvalidArgument(Reason.INVALID_DIGEST, "sha256", message)


NOTHING_DECLARED = Declared()


@dataclass(frozen=True, slots=True)
class Digests:
    """What was found about a body's bytes."""

    size_bytes: int
    sha256: bytes
    piece_crc32c: "array[int]"
    """CRC-32C of each 1 MiB piece in order, as unsigned 32-bit numbers."""


class Sha256:
    """SHA-256 of pieces; from the second piece on by a thread of its own, so that it overlaps with disk and network."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._pieces: queue.Queue[bytes | None] | None = None
        self._thread: threading.Thread | None = None
        self._held: bytes | None = None

    def update(self, piece: bytes) -> None:
        """Take the next piece."""
        if self._pieces is not None:
            self._pieces.put(piece)
        elif self._held is None:
            self._held = piece
        else:
            self._pieces = queue.Queue(_HASH_QUEUE_PIECES)
            self._thread = threading.Thread(target=self._run, args=(self._pieces,), name="sha256", daemon=True)
            self._thread.start()
            self._pieces.put(self._held)
            self._pieces.put(piece)
            self._held = None

    def _run(self, pieces: "queue.Queue[bytes | None]") -> None:
        while (piece := pieces.get()) is not None:
            self._hash.update(piece)

    def digest(self) -> bytes:
        """Wait for the pieces so far, and return the digest of them all."""
        self.close()
        if self._held is not None:
            self._hash.update(self._held)
            self._held = None
        return self._hash.digest()

    def close(self) -> None:
        """End the thread, if there is one."""
        if self._pieces is not None and self._thread is not None:
            self._pieces.put(None)
            self._thread.join()
            self._pieces = self._thread = None


class Body:
    """The bytes of one object to be stored, read once.

    `parts` yields chunks, and may end with what the sender declares of all of them: the trailer. Complete is a body
    whose bytes equal `header.size_bytes`, or which ends with a trailer. `max_bytes` bounds the whole.
    """

    def __init__(
        self,
        parts: Iterable[Chunk | Declared],
        header: Declared = NOTHING_DECLARED,
        *,
        max_bytes: int | None = None,
    ) -> None:
        self.header = header
        self.piece_crc32c = array("I")
        """CRC-32C of the pieces that were yielded so far."""
        self._reading = _Reading(parts, header, max_bytes, self.piece_crc32c)
        self._pieces: Generator[bytes, None, None] | None = None

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Return the body that consists of these bytes."""
        return cls([Chunk(data)] if data else [], Declared(len(data)))

    def __iter__(self) -> Iterator[bytes]:
        """Yield the bytes in pieces of 1 MiB, the last one shorter, and none of them empty.

        Whoever iterates a body that was begun goes on where that ended. Ends normally only if the body is complete and
        is what was declared. Raises `BrokenUpload` (UPLOAD_INCOMPLETE, SIZE_MISMATCH, CHECKSUM_MISMATCH),
        `InvalidArgument` (TOO_LARGE), and whatever the parts raise.
        """
        if self._pieces is None:
            self._pieces = self._reading.pieces()
        return self._pieces

    def close(self) -> None:
        """End a reading that is given up, and its thread at once; harmless when repeated."""
        if self._pieces is not None:
            self._pieces.close()

    @contextmanager
    def given_up_on_failure(self) -> Iterator[None]:
        """Close the body if the block fails: but for a name that is taken, after which its rest may be asked for."""
        try:
            yield
        except AlreadyExists:
            raise
        except BaseException:
            self.close()
            raise

    @property
    def is_complete(self) -> bool:
        """Whether the body was read to its end, and was what was declared."""
        return self._reading.digests is not None

    @property
    def digests(self) -> Digests:
        """What was found about the bytes; known once the body was read to its end."""
        if self._reading.digests is None:
            raise RuntimeError("the body was not read to its end")
        return self._reading.digests

    def read_to_end(self) -> Digests:
        """Check what is left of the body without keeping it: a store may have read all of it already, or a part."""
        for _ in self:
            pass
        return self.digests


class _Reading:
    """A body that is read: apart from it, so that a reading that is given up ends with the body, and at once."""

    def __init__(
        self, parts: Iterable[Chunk | Declared], header: Declared, max_bytes: int | None, crcs: "array[int]"
    ) -> None:
        self._parts = parts
        self._header = header
        self._max_bytes = max_bytes
        self._crcs = crcs
        self._size = 0
        self.digests: Digests | None = None
        if header.size_bytes is not None:
            self._check_limit(header.size_bytes)

    def pieces(self) -> Generator[bytes, None, None]:
        sha256 = Sha256()
        trailer: Declared | None = None
        try:
            cutter = _Cutter()
            for part in self._parts:
                if isinstance(part, Declared):
                    trailer = part
                    continue
                self._count(len(part.data))
                for piece, crc32c in cutter.cut(part):
                    self._crcs.append(crc32c)
                    sha256.update(piece)
                    yield piece
            for piece, crc32c in cutter.rest():
                self._crcs.append(crc32c)
                sha256.update(piece)
                yield piece
            self._check_complete(trailer)
            digest = sha256.digest()
            self._check_digest("header", self._header.sha256, digest)
            if trailer is not None:
                self._check_digest("trailer", trailer.sha256, digest)
            self.digests = Digests(self._size, digest, self._crcs)
        finally:
            sha256.close()

    def _count(self, arrived: int) -> None:
        self._size += arrived
        declared = self._header.size_bytes
        if declared is not None and self._size > declared:
            message = f"more than the {declared} bytes that the header declared arrived"
            raise BrokenUpload(Reason.SIZE_MISMATCH, "size_bytes", message)
        self._check_limit(self._size)

    def _check_limit(self, size: int) -> None:
        if self._max_bytes is not None and size > self._max_bytes:
            message = f"the upload is larger than {self._max_bytes} bytes, the most that one may have"
            raise InvalidArgument(Reason.TOO_LARGE, "size_bytes", message)

    def _check_complete(self, trailer: Declared | None) -> None:
        declared = self._header.size_bytes
        if trailer is None:
            if declared is None:
                message = f"the upload ended after {self._size} bytes without a trailer or a declared size"
                raise BrokenUpload(Reason.UPLOAD_INCOMPLETE, "trailer", message)
            if self._size < declared:
                message = f"the upload ended after {self._size} of {declared} declared bytes"
                raise BrokenUpload(Reason.UPLOAD_INCOMPLETE, "size_bytes", message)
            return
        for place, size in (("header", declared), ("trailer", trailer.size_bytes)):
            if size is not None and size != self._size:
                message = f"{self._size} bytes arrived, and the {place} declared {size}"
                raise BrokenUpload(Reason.SIZE_MISMATCH, "size_bytes", message)

    @staticmethod
    def _check_digest(place: str, declared: bytes | None, found: bytes) -> None:
        if declared is not None and declared != found:
            message = f"the bytes that arrived have sha256 {found.hex()}, and the {place} declared {declared.hex()}"
            raise BrokenUpload(Reason.CHECKSUM_MISMATCH, "sha256", message)


class _Cutter:
    """Cuts chunks of any size into pieces of 1 MiB with their CRC-32C.

    A chunk that is a piece passes as it is, with the checksum that the sender's was verified to be; what is gathered
    from several takes no more memory than the piece that it becomes, however small they are.
    """

    def __init__(self) -> None:
        self._only: Chunk | None = None
        """What was gathered, while it is one chunk."""
        self._gathered = bytearray()

    def cut(self, chunk: Chunk) -> Iterator[tuple[bytes, int]]:
        """Take a chunk, and yield the pieces that it completes."""
        data = chunk.data
        if self._only is None and not self._gathered and len(data) <= PIECE_BYTES:
            self._only = chunk
        else:
            if self._only is not None:
                self._gathered += self._only.data
                self._only = None
            start = 0
            while start < len(data):
                end = start + PIECE_BYTES - len(self._gathered)
                self._gathered += data[start:end]
                start = end
                if len(self._gathered) == PIECE_BYTES:
                    yield from self.rest()
            return
        if len(data) == PIECE_BYTES:
            yield from self.rest()

    def rest(self) -> Iterator[tuple[bytes, int]]:
        """Yield what was gathered as a piece, if anything was."""
        if self._only is not None:
            data, crc32c = self._only
            self._only = None
            yield data, google_crc32c.value(data) if crc32c is None else crc32c
        elif self._gathered:
            data = bytes(self._gathered)
            self._gathered.clear()
            yield data, google_crc32c.value(data)
