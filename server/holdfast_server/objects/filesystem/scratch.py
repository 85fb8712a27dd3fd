"""Where unfinished files are: a directory for each process, which dies with it.

`<id>.lock` is locked as long as the process lives, and `<id>/` holds its files. Whoever starts sweeps the directories
whose lock it can take: their owners are dead. The lock comes before the directory, so no living one is ever swept.
"""

import itertools
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from holdfast_server.objects.filesystem.disk import Disk

_LOCK_SUFFIX = b".lock"


@dataclass(slots=True)
class ScratchFile:
    """An unfinished file: `name` in the directory `dir_fd`, open for writing as `fd`."""

    name: bytes
    dir_fd: int
    fd: int
    published: bool = False
    """Set by whoever has moved it into place."""


class Scratch:
    """The unfinished files of this process, below `parent_fd`."""

    def __init__(self, disk: Disk, parent_fd: int) -> None:
        self._disk = disk
        self._numbers = itertools.count()
        self._parent_fd = parent_fd
        _sweep(disk, parent_fd)
        self._name, self._lock_fd = _claim(disk, parent_fd)
        try:
            disk.mkdir(self._name, parent_fd)
            self._dir_fd = disk.open(self._name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=parent_fd)
        except BaseException:
            disk.close(self._lock_fd)  # or else no later start could sweep what is there
            raise

    @contextmanager
    def file(self) -> Iterator[ScratchFile]:
        """Make a file, and remove it at the end of the block unless it was published."""
        disk = self._disk
        name = b"%d" % next(self._numbers)
        fd = disk.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, dir_fd=self._dir_fd)
        file = ScratchFile(name, self._dir_fd, fd)
        try:
            yield file
        finally:
            # Also on KeyboardInterrupt and GeneratorExit: nobody else removes it before the process ends. A failure to
            # remove it must not hide why the block failed; the next start sweeps what is left.
            disk.close(fd)
            if not file.published:
                with suppress(OSError):
                    disk.unlink(name, self._dir_fd)

    def close(self) -> None:
        """Remove the directory and let the lock go."""
        if self._lock_fd < 0:
            return
        self._disk.close(self._dir_fd)
        with suppress(OSError):
            _remove(self._disk, self._parent_fd, self._name)
        self._disk.close(self._lock_fd)
        self._lock_fd = -1


def _claim(disk: Disk, parent_fd: int) -> tuple[bytes, int]:
    """Take a lock of our own, and return its name without suffix, and the open lock file."""
    while True:
        name = secrets.token_hex(8).encode()
        lock_name = name + _LOCK_SUFFIX
        fd = disk.open(lock_name, os.O_RDWR | os.O_CREAT | os.O_EXCL, dir_fd=parent_fd)
        try:
            if disk.try_lock(fd) and _is_linked(fd):
                return name, fd
        except BaseException:
            disk.close(fd)
            raise
        disk.close(fd)  # a sweep came between, took it for a dead one's, and removes it


def _is_linked(fd: int) -> bool:
    return os.fstat(fd).st_nlink > 0


def _sweep(disk: Disk, parent_fd: int) -> None:
    """Remove what dead processes left."""
    names = disk.names(parent_fd)
    for lock_name in names:
        if not lock_name.endswith(_LOCK_SUFFIX):
            continue
        try:
            fd = disk.open(lock_name, os.O_RDWR, dir_fd=parent_fd)
        except FileNotFoundError:
            continue  # another one sweeps too
        try:
            if disk.try_lock(fd):
                with suppress(FileNotFoundError):
                    _remove(disk, parent_fd, lock_name.removesuffix(_LOCK_SUFFIX))
        finally:
            disk.close(fd)


def _remove(disk: Disk, parent_fd: int, name: bytes) -> None:
    """Remove a process's directory, and then its lock file."""
    try:
        dir_fd = disk.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=parent_fd)
    except FileNotFoundError:
        pass  # it died before it made the directory
    else:
        try:
            for file in disk.names(dir_fd):
                disk.unlink(file, dir_fd)
        finally:
            disk.close(dir_fd)
        disk.rmdir(name, parent_fd)
    disk.unlink(name + _LOCK_SUFFIX, parent_fd)
