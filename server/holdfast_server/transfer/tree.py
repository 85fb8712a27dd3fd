"""A directory tree of another program: read and written a step at a time from its open root.

No symbolic link below the root is ever followed, so nothing outside is read, and nothing outside is written.
"""

import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from holdfast_server import calls
from holdfast_server.objects.body import PIECE_BYTES, Body, Chunk
from holdfast_server.objects.filesystem.disk import Disk, make_directory
from holdfast_server.objects.filesystem.paths import FOREIGN, Place, Walker
from holdfast_server.objects.marker import NAME as MARKER
from holdfast_server.transfer.outcome import Moved
from holdfast_server.transfer.work import Stopped

_FULL = {errno.ENOSPC: "its disk is full", errno.EDQUOT: "its disk quota is used up", errno.EROFS: "it is read-only"}

_MOST_REMEMBERED_DIRECTORIES = 10_000


class TreeError(Exception):
    """The directory cannot be used for this; the message says why."""


class NoPlace(Exception):
    """A file cannot be where it is to be; the message says why."""


class Unreadable(Exception):
    """A file's bytes cannot be read; the message says why."""


class Kind(Enum):
    """What a name in a directory stands for."""

    FILE = auto()
    DIRECTORY = auto()
    LINK = auto()
    OTHER = auto()


@dataclass(frozen=True, slots=True)
class Name:
    """A name in a directory, and what it stands for."""

    name: bytes
    kind: Kind


class OpenFile:
    """A regular file that is read."""

    def __init__(self, disk: Disk, fd: int) -> None:
        self._disk = disk
        self._fd = fd
        self.size_bytes = disk.size(fd)

    def chunks(self, moved: Moved) -> Iterator[Chunk]:
        """Yield its bytes from the start, as far as it goes; ends where the work is to stop. Raises `Unreadable`."""
        offset = 0
        while data := self._read(offset):
            calls.check("reading a file")
            offset += len(data)
            moved(len(data))
            yield Chunk(data)

    def _read(self, offset: int) -> bytes:
        try:
            return self._disk.read(self._fd, PIECE_BYTES, offset)
        except OSError as error:  # else a store that reads it would take it for a fault of its own disk
            raise Unreadable(f"it cannot be read: {error.strerror}") from error

    def sha256(self) -> bytes:
        """Return the digest of its bytes."""
        digest = hashlib.sha256()
        for chunk in self.chunks(lambda _size: None):
            digest.update(chunk.data)
        return digest.digest()


class Tree:
    """The tree below an open directory. `root_fd` None: there is none yet, and this is as good as an empty one.

    Unfinished files are made in the directory `aside`, and their names start with `mark`; both are the caller's choice,
    so that the program whose tree it is passes them over.
    """

    def __init__(self, path: Path, root_fd: int | None, *, aside: Place = (), mark: bytes = b"") -> None:
        self._path = path
        self._disk = Disk()
        self._root_fd = root_fd
        self._aside = aside
        self._mark = mark
        self._durable: set[Place] = set()

    def names(self, place: Place = ()) -> list[Name]:
        """Return what is in a directory, sorted. Raises `OSError`."""
        if self._root_fd is None:
            return []
        with Walker(self._disk, self._root_fd) as walker, os.scandir(walker.at(place)) as entries:
            found = [Name(os.fsencode(entry.name), _kind(entry)) for entry in entries]
        return sorted(found, key=lambda name: name.name)

    @contextmanager
    def opened(self, place: Place, name: bytes) -> Iterator[OpenFile | None]:
        """Open a file for reading within the block; None: there is none. Raises `NoPlace`, `OSError`."""
        fd = None if self._root_fd is None else self._open(self._root_fd, place, name)
        if fd is None:
            yield None
            return
        try:
            yield OpenFile(self._disk, fd)
        finally:
            self._disk.close(fd)

    def _open(self, root_fd: int, place: Place, name: bytes) -> int | None:
        try:
            with Walker(self._disk, root_fd) as walker:
                return self._disk.open_regular(name, dir_fd=walker.at(place))
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in FOREIGN:
                raise
            raise NoPlace("a link, a directory or a special file stands in its place or in its way") from None

    def write(self, place: Place, name: bytes, body: Body) -> None:
        """Write a file, in place of the one that is there if any is, and have it survive a loss of power.

        What is there stays as it was until the new one is whole. Raises `NoPlace`, `Stopped`, what the body raises, and
        `OSError`.
        """
        if self._root_fd is None:
            raise RuntimeError("a tree that is not there is not written")
        disk = self._disk
        temporary = self._mark + secrets.token_hex(8).encode()
        try:
            with Walker(disk, self._root_fd) as at_aside, Walker(disk, self._root_fd) as at_place:
                aside = self._made(at_aside, self._aside)
                parent = self._made(at_place, place)
                fd = disk.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, dir_fd=aside)
                try:
                    for piece in body:
                        disk.write(fd, piece)
                    disk.fsync(fd)
                    disk.rename(temporary, aside, name, parent)
                except BaseException:
                    # Also on KeyboardInterrupt: the next export would remove it, but there may be none.
                    with suppress(OSError):
                        disk.unlink(temporary, aside)
                    raise
                finally:
                    disk.close(fd)
                disk.fsync(parent)
        except OSError as error:
            if error.errno in _FULL:
                raise Stopped(f"{self._path}: {_FULL[error.errno or 0]}") from error
            if error.errno in FOREIGN:
                raise NoPlace("a link, a directory or a special file stands in its place or in its way") from None
            raise

    def lock(self) -> None:
        """Keep other exports away until this process ends, and remove what dead ones left. Raises `TreeError`."""
        if self._root_fd is None:
            return
        try:
            alone = self._disk.try_lock(self._root_fd)
        except OSError:
            return  # some network file systems lock no directories: then nothing is known about what others are at
        if not alone:
            raise TreeError(f"{self._path}: another export is writing to it")
        # What cannot be removed harms nobody; what cannot be reached is told of where something is to be written.
        with suppress(OSError), Walker(self._disk, self._root_fd) as walker:
            aside = walker.at(self._aside)
            for name in self._disk.names(aside):
                if name.startswith(self._mark):
                    with suppress(OSError):
                        self._disk.unlink(name, aside)

    def _made(self, walker: Walker, place: Place) -> int:
        """Make the directories on the way, each durable in the one above it, and return the last one open.

        Whoever finds one cannot know whether its maker lived to sync that; so each is synced once.
        """
        for depth, name in enumerate(place):
            here = place[: depth + 1]
            if here in self._durable:
                continue
            above = walker.at(place[:depth])
            with suppress(FileExistsError):
                self._disk.mkdir(name, above)
            self._disk.fsync(above)
            if len(self._durable) < _MOST_REMEMBERED_DIRECTORIES:
                self._durable.add(here)
        return walker.at(place)


@contextmanager
def opened_tree(
    path: Path, *, make: bool = False, may_be_missing: bool = False, aside: Place = (), mark: bytes = b""
) -> Iterator[Tree]:
    """Open the tree at `path` within the block; `make`: make it if it is missing.

    Raises `TreeError` if it is missing, cannot be opened, or is a data directory of ours.
    """
    try:
        if make:
            make_directory(path)
        root_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        if not may_be_missing:
            raise TreeError(f"{path}: there is no such directory") from None
        yield Tree(path, None)
        return
    except OSError as error:
        raise TreeError(f"{path}: it cannot be used: {error.strerror}") from None
    try:
        if (path / MARKER).exists():
            raise TreeError(f"{path}: it is a data directory of Holdfast; `holdfast-server copy` takes it")
        yield Tree(path, root_fd, aside=aside, mark=mark)
    finally:
        os.close(root_fd)


def _kind(entry: "os.DirEntry[str]") -> Kind:
    if entry.is_symlink():
        return Kind.LINK
    if entry.is_dir(follow_symlinks=False):
        return Kind.DIRECTORY
    return Kind.FILE if entry.is_file(follow_symlinks=False) else Kind.OTHER


def path_of(place: Place, name: bytes) -> str:
    """Return a path in a tree as text; what is no UTF-8 in it becomes lone surrogates (PEP 383)."""
    return b"/".join((*place, name)).decode(errors="surrogateescape")
