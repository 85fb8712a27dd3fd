"""The spool: room for bytes that must be known whole before they can go on.

A store that wants an object's digests before its first byte, or that must send the same bytes once more, keeps them
here meanwhile. The files have no names and nothing is synced: a spool is no storage.
"""

import errno
import os
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from holdfast_server.errors import Reason, StorageFull, Unavailable

DEFAULT_SPOOL_BYTES = 4 << 30
"""4 GiB."""

_CLOSED = -1


class Spool:
    """Temporary files that hold at most `max_bytes` together, in `directory` (None: the system's temporary directory).

    The files are unlinked from their start, so the kernel frees them with the process, however that ends. Where the
    file system has no O_TMPFILE, a file has a name for as long as it takes to remove it, before its first byte.

    The directory is made, for its owner alone, if it is missing. Raises `OSError` if it cannot be used; its `strerror`
    names the directory. May be used by many threads at once.
    """

    def __init__(self, directory: Path | None = None, max_bytes: int = DEFAULT_SPOOL_BYTES) -> None:
        self._directory = Path(tempfile.gettempdir()) if directory is None else directory.absolute()
        self._room = _Room(max_bytes)
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


class SpooledFile:
    """Bytes in the spool. One thread writes; what it has written, any number may read at the same time.

    A context manager. Closing it gives its room back; so does forgetting it.
    """

    def __init__(self, fd: int, room: "_Room") -> None:
        self._fd = fd
        self._room = room
        self.size_bytes = 0
        """The bytes written so far."""

    def write(self, data: bytes | memoryview) -> None:
        """Append all of `data`, or nothing.

        Raises `StorageFull` (SPOOL_FULL) if it does not fit below the spool's cap or on its disk, and `Unavailable` if
        the disk fails otherwise. Those before it are kept in any case.
        """
        fd = self._open_fd()
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
        self.size_bytes += len(data)

    def read_at(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` on, fewer only at the end. Raises `Unavailable` if the disk fails."""
        fd = self._open_fd()
        end = min(offset + length, self.size_bytes)
        parts = []
        with _os_errors_translated():
            while offset < end and (data := os.pread(fd, end - offset, offset)):
                parts.append(data)
                offset += len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def readinto_at(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset` on, and return how many bytes that were: fewer than fit only at the end.

        Raises `Unavailable` if the disk fails.
        """
        fd = self._open_fd()
        wanted = min(len(buffer), self.size_bytes - offset)
        done = 0
        with _os_errors_translated():
            while done < wanted and (count := os.preadv(fd, [buffer[done:wanted]], offset + done)):
                done += count
        return done

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

    def _open_fd(self) -> int:
        if self._fd == _CLOSED:
            raise ValueError("the spooled file is closed")
        return self._fd


class _Room:
    """How many bytes of `max_bytes` are taken."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._used_bytes = 0
        self._given_back: deque[int] = deque()

    @property
    def used_bytes(self) -> int:
        with self._lock:
            return self._settled()

    def take(self, size: int) -> None:
        with self._lock:
            if self._settled() + size > self._max_bytes:
                message = f"{size} more bytes do not fit into the spool: it holds at most {self._max_bytes}"
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
