"""The system calls that the filesystem backend makes, in one place, so that tests can fail or forget each of them."""

import ctypes
import errno
import fcntl
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from holdfast_server.errors import HoldfastError, ReadOnly, Reason, StorageFull, Unavailable
from holdfast_server.objects.key import ObjectKey

_COPY_BYTES = 16 << 20

_SYNC_FILE_RANGE_WRITE = 2
"""From Linux's fs.h: begin to write what is dirty, and wait for nothing."""

_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None) if sys.platform == "linux" else None
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


_OPENAT2 = 437
"""The number of openat2(2), the same on every architecture (Linux 5.6); glibc has no function for it."""

_RESOLVE_NO_SYMLINKS = 0x04
"""From Linux's openat2.h."""


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_OPEN_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_TO_READ = _OpenHow(os.O_RDONLY | _OPEN_FLAGS, 0, _RESOLVE_NO_SYMLINKS)

_TO_READ_POINTER = ctypes.byref(_TO_READ)
_TO_READ_BYTES = ctypes.sizeof(_TO_READ)

_syscall = getattr(ctypes.CDLL(None, use_errno=True), "syscall", None) if sys.platform == "linux" else None
if _syscall is not None:
    _syscall.restype = ctypes.c_long
    _syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(_OpenHow), ctypes.c_size_t)


def _open_without_links(path: bytes, dir_fd: int) -> int:
    """Open a path for reading in one step, following no symbolic link anywhere on it. Raises `OSError`."""
    if _syscall is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    while (fd := _syscall(_OPENAT2, dir_fd, path, _TO_READ_POINTER, _TO_READ_BYTES)) < 0:
        if (number := ctypes.get_errno()) != errno.EINTR:
            raise OSError(number, os.strerror(number))
    return int(fd)


def _has_openat2() -> bool:
    """Tell whether the kernel has openat2(2), and whoever confines this process lets it through."""
    try:
        root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.close(_open_without_links(b".", root))
    except OSError:
        return False
    finally:
        os.close(root)
    return True


class Disk:
    """System calls by their usual names; all raise `OSError`. File names are bytes, relative to an open directory."""

    opens_paths = _has_openat2()
    """Whether `open_path` can be used."""

    def open(self, name: bytes | str, flags: int, mode: int = 0o600, *, dir_fd: int | None = None) -> int:
        """Open a file, never following a symbolic link at its last step, nor waiting for the other end of a pipe."""
        return os.open(name, flags | _OPEN_FLAGS, mode, dir_fd=dir_fd)

    def open_path(self, path: bytes, *, dir_fd: int) -> int:
        """Open a file for reading, some directories down, never following a symbolic link on the way."""
        return _open_without_links(path, dir_fd)

    def open_regular(self, path: bytes, *, dir_fd: int) -> int:
        """Open a regular file for reading. Anything else is ENXIO, as the kernel itself says of a socket.

        `path` is a name, or, where `opens_paths`, a path.
        """
        fd = self.open_path(path, dir_fd=dir_fd) if b"/" in path else self.open(path, os.O_RDONLY, dir_fd=dir_fd)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            self.close(fd)
            raise OSError(errno.ENXIO, "not a regular file")
        return fd

    def close(self, fd: int) -> None:
        """Close a file. What was written is not lost with an error here: it was synced, or is thrown away."""
        try:
            os.close(fd)
        except OSError as error:
            if error.errno == errno.EBADF:
                raise  # a fault of ours; on any other error the file is closed all the same

    def state(self, fd: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return which directory this is (device, inode), and when it last changed (mtime, ctime; ns since 1970)."""
        found = os.fstat(fd)
        return (found.st_dev, found.st_ino), (found.st_mtime_ns, found.st_ctime_ns)

    def size(self, fd: int) -> int:
        """Return a file's size in bytes."""
        return os.fstat(fd).st_size

    def read(self, fd: int, length: int, offset: int) -> bytes:
        """Read up to `length` bytes: fewer only at the end of the file."""
        data = os.pread(fd, length, offset)
        if len(data) == length or not data:
            return data
        parts = [data]
        got = len(data)
        while got < length and (data := os.pread(fd, length - got, offset + got)):
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def write(self, fd: int, data: bytes) -> None:
        """Append all of `data`."""
        written = os.write(fd, data)
        if written < len(data):
            view = memoryview(data)
            while written < len(data):
                written += os.write(fd, view[written:])

    def begin_writing(self, fd: int, offset: int, length: int) -> None:
        """Have the kernel begin to write these bytes to the disk, so that `fsync` finds less to do. Only a hint.

        It waits for nothing and reports no error: `fsync` does both.
        """
        if _sync_file_range is not None:
            _sync_file_range(fd, offset, length, _SYNC_FILE_RANGE_WRITE)

    def write_at(self, fd: int, data: bytes, offset: int) -> None:
        """Write a few bytes at an offset."""
        os.pwrite(fd, data, offset)

    def copy(self, source: int, target: int, length: int) -> int:
        """Append up to `length` bytes from the start of `source`'s remaining bytes to `target`; returns how many.

        Shares the blocks where the file system can. Both file positions move; 0 means that `source` has ended.
        """
        return os.copy_file_range(source, target, min(length, _COPY_BYTES))

    def fsync(self, fd: int) -> None:
        """Make a file's bytes, or a directory's entries, survive a loss of power."""
        os.fsync(fd)

    def rename(self, name: bytes, source_dir: int, target: bytes, target_dir: int) -> None:
        """Move a file in one step, replacing what is there."""
        os.rename(name, target, src_dir_fd=source_dir, dst_dir_fd=target_dir)

    def unlink(self, name: bytes, dir_fd: int) -> None:
        """Remove a file."""
        os.unlink(name, dir_fd=dir_fd)

    def mkdir(self, name: bytes, dir_fd: int) -> None:
        """Make a directory."""
        os.mkdir(name, 0o700, dir_fd=dir_fd)

    def rmdir(self, name: bytes, dir_fd: int) -> None:
        """Remove an empty directory."""
        os.rmdir(name, dir_fd=dir_fd)

    def names(self, dir_fd: int) -> list[bytes]:
        """Return the names in a directory, in no order."""
        return [os.fsencode(name) for name in os.listdir(dir_fd)]

    def scan(self, dir_fd: int) -> Iterator[bytes]:
        """Yield the names in a directory, in no order, reading no further than asked."""
        with os.scandir(dir_fd) as entries:
            for entry in entries:
                yield os.fsencode(entry.name)

    def try_lock(self, fd: int, *, shared: bool = False) -> bool:
        """Take an advisory lock on a file, and tell whether that worked. It is let go when the file is closed."""
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def make_directory(path: Path) -> None:
    """Make a directory and those above it, each synced in its parent, so that they survive a loss of power.

    Those that are there are synced as well: whoever made them may have died before that.
    """
    path = path.absolute()
    for directory in (*reversed(path.parents), path):
        found = directory.exists()
        if not found:
            directory.mkdir(mode=0o700, exist_ok=True)
        try:
            sync_directory(directory.parent)
        except OSError as error:
            if not found or error.errno not in _NOT_OURS_TO_SYNC:
                raise


_NOT_OURS_TO_SYNC = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EINVAL}
"""Of a place that we may only pass through: who made a directory for us there had to see to that."""


def sync_directory(path: Path) -> None:
    """Make a directory's entries survive a loss of power."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


_NOT_WRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM}


def _ours(error: OSError, what: str, *, writing: bool) -> HoldfastError:
    """Return what the failure of a system call on `what` means to a caller; the paths stay in the log."""
    if error.errno == errno.ENOSPC:
        return StorageFull(f"{what}: the disk is full")
    if error.errno == errno.EDQUOT:
        return StorageFull(f"{what}: the disk quota is used up", Reason.QUOTA_EXCEEDED)
    if writing and error.errno in _NOT_WRITABLE:
        return ReadOnly(f"{what}: the store can be read but not written")
    name = errno.errorcode.get(error.errno or 0, "error")
    return Unavailable(Reason.BACKEND_UNAVAILABLE, f"{what}: the file system failed: {name}")


class os_errors_translated:  # noqa: N801 (used as a function would be)
    """Raise what the failure of a system call within the block means to a caller, with the failure as its cause.

    A class: a generator's context manager is slower, and this is around every operation.
    """

    __slots__ = ("_writing", "what")

    def __init__(self, what: ObjectKey | str, *, writing: bool) -> None:
        self.what = what
        """What the block is about: the error says it first."""
        self._writing = writing

    def __enter__(self) -> Self:
        """Return it, for what becomes known of `what` within the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Translate an `OSError`."""
        if isinstance(error, OSError):
            what = self.what if isinstance(self.what, str) else f"key {self.what.text!r}"
            raise _ours(error, what, writing=self._writing) from error
