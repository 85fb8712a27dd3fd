"""How keys become names of files and directories: `a/b` is the file `b.f` in the directory `a.d`.

So `a` (`a.f`) and `a/b` are side by side. Every path is walked a segment at a time from an open root, and symbolic
links in it are refused: no key leads out.
"""

import errno
import os
from types import TracebackType
from typing import Self

from holdfast_server.errors import IntegrityFailed
from holdfast_server.objects.filesystem.disk import Disk
from holdfast_server.objects.key import ObjectKey

FILE_SUFFIX = b".f"
DIRECTORY_SUFFIX = b".d"
_SUFFIX_BYTES = 2

FOREIGN = {errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EISDIR}
"""What the kernel says of a link, of a file that should be a directory, and of what is no regular file."""

Place = tuple[bytes, ...]
"""A directory, by the names on the way from the root."""


def place_of(key: ObjectKey) -> Place:
    """Return the directory that an object's file is in."""
    return tuple(directory_name(segment) for segment in key.segments[:-1])


def file_name(key: ObjectKey) -> bytes:
    """Return the name of an object's file in its directory."""
    return key.text.rpartition("/")[2].encode() + FILE_SUFFIX


def path_of(key: ObjectKey) -> bytes:
    """Return the path of an object's file from the root."""
    return (key.text.replace("/", ".d/") + ".f").encode()


def directory_name(segment: str) -> bytes:
    """Return the name of the directory that a segment of a key becomes."""
    return segment.encode() + DIRECTORY_SUFFIX


def segment_of(name: bytes) -> str:
    """Return the segment that a name stands for; empty for one that is not ours, since keys are UTF-8."""
    try:
        return name[:-_SUFFIX_BYTES].decode()
    except UnicodeDecodeError:
        return ""


def named(error: OSError, key: ObjectKey) -> Exception:
    """Return what the failure to reach a key's file means: damage, where something foreign is in its place."""
    if error.errno in FOREIGN:
        return IntegrityFailed(key.text, "a symbolic link or a foreign file stands in its place")
    return error


class Walker:
    """One open directory that moves: holds a single file however deep it goes. A context manager."""

    def __init__(self, disk: Disk, root_fd: int) -> None:
        self._disk = disk
        self._root_fd = root_fd
        self._fd = root_fd
        self._place: Place = ()

    def at(self, place: Place) -> int:
        """Move to a directory, from here if it is just below, and return it open. Raises `OSError`."""
        if place != self._place:
            if place[:-1] != self._place:
                self.close()
            for name in place[len(self._place) :]:
                fd = self._disk.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._fd)
                below = (*self._place, name)
                self.close()
                self._fd, self._place = fd, below
        return self._fd

    def close(self) -> None:
        """Go back to the root."""
        if self._fd != self._root_fd:
            self._disk.close(self._fd)
        self._fd, self._place = self._root_fd, ()

    def __enter__(self) -> Self:
        """Return the walker itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what is open."""
        self.close()
