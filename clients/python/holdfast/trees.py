"""A tree of local files: walked lazily, read only as it stands still, and never followed out of."""

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

_SORTED_NAMES = 10_000
"""Names of a directory that are held, and sorted, at a time: a bound for memory."""

_PIECE_BYTES = 1 << 20

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_UNOPENED = {errno.ELOOP: stat.S_IFLNK, errno.ENXIO: stat.S_IFSOCK}
"""What cannot be opened as a file, by the error that comes of it."""


class FileChanged(Exception):
    """A file is not what it was when its reading began."""


class NotAFile(Exception):
    """What has this name is no regular file; the text says what it is."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was found at `path`: names from the tree's root on, joined by `/`, as bytes. A regular file, if no `other`.

    `other` says what else it is. `why`: why it, or what is below it, could not be read.
    """

    path: bytes
    other: str = ""
    why: str = ""


class SteadyFile:
    """An open file that is read as long as it does not change; `size_bytes` is that of the beginning.

    Reading raises `FileChanged` where the file has another size or time than it had, at its end at the latest; what
    happens within one tick of the file system's clock nobody can see. The descriptor is taken over, unless it is of
    something else: that raises `NotAFile`.
    """

    def __init__(self, descriptor: int) -> None:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise NotAFile(_kind(found.st_mode))
        self.size_bytes = found.st_size
        self._state = _state(found)
        self._file = os.fdopen(descriptor, "rb", buffering=0)

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, and none at the end."""
        data = self._file.read(size)
        if not data or self._file.tell() > self.size_bytes:
            self._check()
        return data

    def read_all(self) -> bytes:
        """Return all bytes."""
        # One more than there are: that none follows is how the end is known.
        return b"".join(iter(lambda: self.read(self.size_bytes + 1), b""))

    def sha256(self, moved: Callable[[int], None]) -> bytes:
        """Return the sha256 of all bytes, and go back to the first of them. `moved` is told how many were read."""
        digest = hashlib.sha256()
        for piece in iter(lambda: self.read(_PIECE_BYTES), b""):
            digest.update(piece)
            moved(self.tell())
        self.seek(0)
        return digest.digest()

    def seekable(self) -> bool:
        """Whether it can be read again: always."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go elsewhere, and return where that is."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return where it stands."""
        return self._file.tell()

    def close(self) -> None:
        """Close it."""
        self._file.close()

    def _check(self) -> None:
        if self._file.tell() != self.size_bytes or _state(os.fstat(self._file.fileno())) != self._state:
            raise FileChanged


class Tree:
    """The files below a directory, which stays the same one even if something else takes its place. A context manager.

    Nothing leads out of it: a link that takes the place of a directory on the way to a file is an error. Not to be used
    by several threads at once. Raises `OSError` if it is not there, or is no directory.
    """

    def __init__(self, directory: Path | str) -> None:
        self._root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._walker = _Walker(self._root)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._walker.close()
        os.close(self._root)

    def walk(self, max_path_bytes: int) -> Iterator[Found]:
        """Yield what is in the tree but its directories, those of a directory by name, up to 10,000 at a time.

        A directory whose path is longer than `max_path_bytes` is not entered; that, and what cannot be read, is told.
        """
        levels = [self._entries(b"")]
        while levels:  # not recursion: a tree may be deeper than the stack
            found = next(levels[-1], None)
            if found is None:
                levels.pop()
            elif not isinstance(found, _Directory):
                yield found
            elif len(found.path) > max_path_bytes:
                yield Found(found.path, why=f"what is in it has a path of more than {max_path_bytes} bytes")
            else:
                levels.append(self._entries(found.path))

    def total_bytes(self, max_path_bytes: int) -> int:
        """Return the size of all files that `walk` finds."""
        return sum(self._size(found.path) for found in self.walk(max_path_bytes) if not (found.other or found.why))

    @contextmanager
    def open(self, path: bytes) -> Iterator[SteadyFile]:
        """Open a file. Raises `OSError`, and `NotAFile` for what is none any more."""
        # Without waiting for the writer of a pipe that took the file's place.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        *way, name = path.split(b"/")
        directory = self._walker.at(way)
        try:
            descriptor = os.open(name, flags, dir_fd=directory)
        except OSError as error:
            if (other := _UNOPENED.get(error.errno or 0)) is None:
                raise
            raise NotAFile(_kind(other)) from None
        try:
            file = SteadyFile(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        try:
            yield file
        finally:
            file.close()

    def lacks(self, path: bytes) -> bool:
        """Whether there is nothing at `path`, or a directory. Where a link or the like is on the way, nobody knows: no.

        Raises `OSError` if that cannot be found out.
        """
        names = path.split(b"/")
        # Always from the root on: what is removed by this answer has to be lacking here, not where a directory went.
        for depth, name in enumerate(names):
            try:
                directory = self._walker.at(names[:depth])
                mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
            except FileNotFoundError:
                return True
            if not stat.S_ISDIR(mode):
                return stat.S_ISREG(mode) and depth + 1 < len(names)
        return True

    def _size(self, path: bytes) -> int:
        *way, name = path.split(b"/")
        try:
            return os.stat(name, dir_fd=self._walker.at(way), follow_symlinks=False).st_size
        except OSError:  # whoever reads it will tell
            return 0

    def _entries(self, path: bytes) -> Iterator["Found | _Directory"]:
        try:
            for some in self._lists(path):
                yield from sorted(some, key=lambda found: found.path)
        except OSError as error:
            yield Found(path, why=_why(error))

    def _lists(self, path: bytes) -> Iterator[list["Found | _Directory"]]:
        """Yield what is in a directory in lists. It is open only while there is more than the last of them."""
        *way, name = path.split(b"/")
        descriptor = os.open(name or b".", _DIRECTORY, dir_fd=self._walker.at(way))
        try:
            with os.scandir(descriptor) as entries:
                while len(some := [_found(path, entry) for entry in islice(entries, _SORTED_NAMES)]) == _SORTED_NAMES:
                    yield some
        finally:
            os.close(descriptor)
        yield some


class _Walker:
    """One open directory that moves, a step at a time and never through a link: the next file is mostly in it, too."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._descriptor = root
        self._way: list[bytes] = []

    def at(self, way: list[bytes]) -> int:
        """Go to the directory that the names lead to from the root, from here if it is below. Raises `OSError`."""
        if way[: len(self._way)] != self._way:
            self.close()
        for name in way[len(self._way) :]:
            descriptor = os.open(name, _DIRECTORY, dir_fd=self._descriptor)
            passed = [*self._way, name]
            self.close()
            self._descriptor, self._way = descriptor, passed
        return self._descriptor

    def close(self) -> None:
        """Go back to the root."""
        if self._descriptor != self._root:
            os.close(self._descriptor)
        self._descriptor, self._way = self._root, []


@dataclass(frozen=True, slots=True)
class _Directory:
    path: bytes


def _found(directory: bytes, entry: "os.DirEntry[str]") -> Found | _Directory:
    name = os.fsencode(entry.name)
    path = directory + b"/" + name if directory else name
    try:
        if entry.is_symlink():
            return Found(path, _kind(stat.S_IFLNK))
        if entry.is_dir(follow_symlinks=False):
            return _Directory(path)
        if entry.is_file(follow_symlinks=False):
            return Found(path)
        return Found(path, _kind(entry.stat(follow_symlinks=False).st_mode))
    except OSError as error:
        return Found(path, why=_why(error))


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFDIR: "a directory",
        stat.S_IFSOCK: "a socket",
        stat.S_IFIFO: "a pipe",
        stat.S_IFBLK: "a device",
        stat.S_IFCHR: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "no regular file")


def _state(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _why(error: OSError) -> str:
    return error.strerror or str(error)
