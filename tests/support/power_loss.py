"""A disk that loses power, and forgets all that was not synced.

POSIX promises no more than this: a file's bytes are there as of its last fsync, a directory's entries as of the
directory's last fsync. A real disk may keep more, in any order, so that a rebuilt directory may show later entries too.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from holdfast_server.objects.filesystem.disk import Disk


class PowerLost(BaseException):
    """The machine is off. Nothing that the program still does can matter, so nothing catches it."""


@dataclass
class Power:
    """Lasts for `calls_left` more system calls that change anything; for ever if None."""

    calls_left: int | None = None
    is_lost: bool = False

    def spend(self) -> None:
        """Use it for one call. Raises `PowerLost`, then and ever after."""
        if self.calls_left == 0:
            self.is_lost = True
            raise PowerLost
        if self.calls_left is not None:
            self.calls_left -= 1


@dataclass(eq=False)
class _File:
    synced: bytes = b""


@dataclass(eq=False)
class _Directory:
    synced: "dict[bytes, _File | _Directory]" = field(default_factory=dict)


_Node = _File | _Directory


class Platter:
    """What has got onto the disk of all that lies below `root`; what is there at first has."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._nodes: dict[int, _Node] = {}
        """By inode number: those that are there now. A number is used again, so making a file enters a new node."""
        for path in (root, *root.rglob("*")):
            self._nodes[path.stat().st_ino] = _Directory() if path.is_dir() else _File(path.read_bytes())
        for path in (root, *root.rglob("*")):
            if path.is_dir():
                self._sync_directory(path)

    def make(self, entry: os.stat_result) -> None:
        """Note a new file or directory, of which nothing is synced."""
        self._nodes[entry.st_ino] = _Directory() if stat.S_ISDIR(entry.st_mode) else _File()

    def sync(self, fd: int) -> None:
        """Note that a file or directory was synced; those outside of the root are nobody's business."""
        node = self._nodes.get(os.fstat(fd).st_ino)
        if isinstance(node, _Directory):
            node.synced = self._entries(fd)
        elif isinstance(node, _File):
            node.synced = os.pread(fd, os.fstat(fd).st_size, 0)

    def rebuild(self, target: Path, shows_later_entries: Callable[[], bool]) -> None:
        """Write what is left after the loss of power.

        For each directory that still is there `shows_later_entries` tells whether it kept its unsynced entries too.
        """
        now = {id(node): entries for node, entries in self._now(self._root)}
        left = [(self._nodes[self._root.stat().st_ino], target)]
        while left:
            node, path = left.pop()
            if isinstance(node, _File):
                path.write_bytes(node.synced)
                continue
            path.mkdir()
            entries = now[id(node)] if id(node) in now and shows_later_entries() else node.synced
            left += [(child, path / os.fsdecode(name)) for name, child in entries.items()]

    def _now(self, path: Path) -> "Iterator[tuple[_Directory, dict[bytes, _Node]]]":
        node = self._nodes[path.stat().st_ino]
        if isinstance(node, _Directory):
            entries = self._entries(path)
            yield node, entries
            for name in entries:
                yield from self._now(path / os.fsdecode(name))

    def _sync_directory(self, path: Path) -> None:
        node = self._nodes[path.stat().st_ino]
        if isinstance(node, _Directory):
            node.synced = self._entries(path)

    def _entries(self, directory: int | Path) -> "dict[bytes, _Node]":
        with os.scandir(directory) as entries:
            return {os.fsencode(entry.name): self._nodes[entry.inode()] for entry in entries}


class UnsyncedDisk(Disk):
    """A disk as one process sees it, under which a platter keeps only what is synced.

    All disks on one `power` stop together. `release` is what the kernel does for a process that has died.
    """

    def __init__(self, platter: Platter, power: Power) -> None:
        self._platter = platter
        self.power = power
        self._open: set[int] = set()

    def open(self, name: bytes | str, flags: int, mode: int = 0o600, *, dir_fd: int | None = None) -> int:
        new = bool(flags & os.O_CREAT) and not _exists(name, dir_fd)
        if new:
            self.power.spend()
        fd = super().open(name, flags, mode, dir_fd=dir_fd)
        self._open.add(fd)
        if new:
            self._platter.make(os.fstat(fd))
        return fd

    def close(self, fd: int) -> None:
        self._open.discard(fd)
        super().close(fd)

    def release(self) -> None:
        """Close every file that is open."""
        while self._open:
            super().close(self._open.pop())

    def write(self, fd: int, data: bytes) -> None:
        self.power.spend()
        super().write(fd, data)

    def write_at(self, fd: int, data: bytes, offset: int) -> None:
        self.power.spend()
        super().write_at(fd, data, offset)

    def copy(self, source: int, target: int, length: int) -> int:
        self.power.spend()
        return super().copy(source, target, length)

    def fsync(self, fd: int) -> None:
        self.power.spend()
        self._platter.sync(fd)

    def rename(self, name: bytes, source_dir: int, target: bytes, target_dir: int) -> None:
        self.power.spend()
        super().rename(name, source_dir, target, target_dir)

    def unlink(self, name: bytes, dir_fd: int) -> None:
        self.power.spend()
        super().unlink(name, dir_fd)

    def mkdir(self, name: bytes, dir_fd: int) -> None:
        self.power.spend()
        super().mkdir(name, dir_fd)
        self._platter.make(os.stat(name, dir_fd=dir_fd, follow_symlinks=False))

    def rmdir(self, name: bytes, dir_fd: int) -> None:
        self.power.spend()
        super().rmdir(name, dir_fd)


def _exists(name: bytes | str, dir_fd: int | None) -> bool:
    with suppress(FileNotFoundError):
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        return True
    return False
