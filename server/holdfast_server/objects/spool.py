"""The spool: room for bytes that must be known whole before they can go on.

A store that wants an object's digests before its first byte, or that must send the same bytes once more, keeps them
here meanwhile. The files have no names and nothing is synced: a spool is no storage. But what was verified before must
not leave as something else: so the CRC-32C of each MiB stays in memory, and what is read back is checked against it.
"""

import errno
import logging
import os
import tempfile
import threading
from array import array
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import google_crc32c

from holdfast_server.errors import Reason, StorageFull, Unavailable
from holdfast_server.objects.body import PIECE_BYTES, Chunk

DEFAULT_SPOOL_BYTES = 4 << 30
"""4 GiB."""

_FULL = (
    "{size} more bytes do not fit into the spool: {used} of the {most} that it may hold are taken; try it again later, "
    "or have spool_max_bytes raised"
)
_CLOSED = -1

_log = logging.getLogger(__name__)


class Spool:
    """Temporary files that hold at most `max_bytes` together, in `directory` (None: the system's temporary directory).

    The files are unlinked from their start, so the kernel frees them with the process, however that ends. Where the
    file system has no O_TMPFILE, a file has a name for as long as it takes to remove it, before its first byte.

    The directory is made, for its owner alone, if it is missing. Raises `OSError` if it cannot be used; its `strerror`
    names the directory. May be used by many threads at once.
    """

    def __init__(self, directory: Path | None = None, max_bytes: int = DEFAULT_SPOOL_BYTES) -> None:
        self._directory = Path(tempfile.gettempdir()) if directory is None else directory.absolute()
        self._room = Room(max_bytes, _FULL)
        try:
            for path in (*reversed(self._directory.parents), self._directory):
                path.mkdir(mode=0o700, exist_ok=True)
            os.close(_open_unlinked(self._directory))
        except OSError as error:
            message = f"the spool directory {self._directory} cannot be used: {error.strerror}"
            raise OSError(error.errno, message) from error

    @property
    def used_bytes(self) -> int:
        """How many bytes the open files hold together."""
        return self._room.used_bytes

    def open(self) -> "SpooledFile":
        """Return a new, empty file. Raises `StorageFull` (SPOOL_FULL) or `Unavailable`."""
        with _os_errors_translated():
            return SpooledFile(_open_unlinked(self._directory), self._room)


class _Written(NamedTuple):
    """How much was written, and the CRC-32C of what is behind the last whole piece: replaced together."""

    size_bytes: int
    rest_crc32c: int


class SpooledFile:
    """Bytes in the spool. One thread writes; what it has written, any number may read at the same time.

    A context manager. Closing it gives its room back; so does forgetting it.
    """

    def __init__(self, fd: int, room: "Room") -> None:
        self._fd = fd
        self._room = room
        self._written = _Written(0, 0)
        self._crcs = array("I")
        """CRC-32C of each whole piece."""

    @property
    def size_bytes(self) -> int:
        """The bytes written so far."""
        return self._written.size_bytes

    def write(self, data: bytes | memoryview) -> None:
        """Append all of `data`, or nothing.

        Raises `StorageFull` (SPOOL_FULL) if it does not fit below the spool's cap or on its disk, and `Unavailable` if
        the disk fails otherwise. Those before it are kept in any case.
        """
        fd = self._open_fd()
        crcs, written = self._after(data)
        self._room.take(len(data))
        try:
            with _os_errors_translated():
                _write_at(fd, data, self.size_bytes)
        except BaseException:
            # What was written of it would take room that nobody counts.
            with suppress(OSError):
                os.ftruncate(fd, self.size_bytes)
            self._room.give_back(len(data))
            raise
        self._crcs.extend(crcs)
        self._written = written

    def chunks(self, offset: int, length: int) -> Iterator[Chunk]:
        """Yield `length` bytes from `offset` on, fewer only at the end, cut at each MiB of the file.

        Those that are a whole piece have their CRC-32C. Raises `Unavailable` if the disk fails, or does not give back
        what was put there.
        """
        written = self._written
        end = min(offset + length, written.size_bytes)
        while offset < end:
            start = offset - offset % PIECE_BYTES
            piece, crc32c = self._piece(start, written)
            data = piece[offset - start : end - start]
            yield Chunk(data, crc32c if len(data) == len(piece) else None)
            offset += len(data)

    def read_at(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` on, fewer only at the end. Raises what `chunks` does."""
        parts = [chunk.data for chunk in self.chunks(offset, length)]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Free the bytes, and give their room back; harmless when repeated. Not while another thread reads them."""
        fd, self._fd = self._fd, _CLOSED
        if fd == _CLOSED:
            return
        self._room.give_back(self.size_bytes)
        with suppress(OSError):  # the file is closed all the same, and its bytes are not wanted any more
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def __del__(self) -> None:
        """Close the file, if nobody did."""
        self.close()

    def _after(self, data: bytes | memoryview) -> tuple[list[int], _Written]:
        """Return what is known once `data` is written: the CRC-32C of the pieces that it completes, and the rest."""
        size, crc32c = self._written
        view = memoryview(data)
        crcs: list[int] = []
        while view:
            fits = view[: PIECE_BYTES - size % PIECE_BYTES]
            is_all = len(fits) == len(data)
            crc32c = google_crc32c.extend(crc32c, bytes(data if is_all else fits))  # of bytes that is no copy
            view = view[len(fits) :]
            size += len(fits)
            if size % PIECE_BYTES == 0:
                crcs.append(crc32c)
                crc32c = 0
        return crcs, _Written(size, crc32c)

    def _piece(self, start: int, written: _Written) -> tuple[bytes, int]:
        """Read a piece, the last one as far as it was written then, and check it."""
        length = min(PIECE_BYTES, written.size_bytes - start)
        data = _read_at(self._open_fd(), start, length)
        crc32c = self._crcs[start // PIECE_BYTES] if length == PIECE_BYTES else written.rest_crc32c
        if len(data) != length or google_crc32c.value(data) != crc32c:
            fields = {"offset": start, "wanted_bytes": length, "read_bytes": len(data)}
            _log.warning("The spool did not give back what was put there", extra={"fields": fields})
            message = "the server's spool did not give back what was put there"
            raise Unavailable(Reason.BACKEND_UNAVAILABLE, message)
        return data, crc32c

    def _open_fd(self) -> int:
        if self._fd == _CLOSED:
            raise ValueError("the spooled file is closed")
        return self._fd


class Room:
    """How many bytes of `max_bytes` are taken. `refusal` says that no more can be, with {size}, {used} and {most}.

    May be used by many threads at once.
    """

    def __init__(self, max_bytes: int, refusal: str) -> None:
        self._max_bytes = max_bytes
        self._refusal = refusal
        self._lock = threading.Lock()
        self._used_bytes = 0
        self._given_back: deque[int] = deque()

    @property
    def used_bytes(self) -> int:
        """How many are taken."""
        with self._lock:
            return self._settled()

    def take(self, size: int) -> None:
        """Take so many. Raises `StorageFull` (SPOOL_FULL)."""
        with self._lock:
            if self._settled() + size > self._max_bytes:
                message = self._refusal.format(size=size, used=self._used_bytes, most=self._max_bytes)
                raise StorageFull(message, Reason.SPOOL_FULL)
            self._used_bytes += size

    def give_back(self, size: int) -> None:
        """Note it, without the lock: garbage collection comes in the middle of anything, a holder of the lock too."""
        self._given_back.append(size)

    def _settled(self) -> int:
        while self._given_back:
            self._used_bytes -= self._given_back.popleft()
        return self._used_bytes


def _open_unlinked(directory: Path) -> int:
    """Return the descriptor of a new file without a name: mode 0600, closed on exec. Raises `OSError`."""
    with tempfile.TemporaryFile(dir=directory, prefix="holdfast-spool-", buffering=0) as file:
        return os.dup(file.fileno())  # a file object would warn where it is collected before its owner


def _write_at(fd: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


def _read_at(fd: int, offset: int, length: int) -> bytes:
    """Return `length` bytes, fewer where the file ends. Raises `Unavailable` if the disk fails."""
    parts = []
    with _os_errors_translated():
        while length and (data := os.pread(fd, length, offset)):
            parts.append(data)
            offset += len(data)
            length -= len(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


@contextmanager
def _os_errors_translated() -> Iterator[None]:
    """Raise what a failed system call means to a caller, with the failure as its cause; paths stay in the log."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StorageFull("the disk of the spool is full", Reason.SPOOL_FULL) from error
        name = errno.errorcode.get(error.errno or 0, "error")
        raise Unavailable(Reason.BACKEND_UNAVAILABLE, f"the spool failed: {name}") from error
