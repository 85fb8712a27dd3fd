"""Where objects lie: `a/b` is the file `b.f` in the directory `a.d`, so that `a` (`a.f`) and `a/b` are side by side.

Every path is walked a segment at a time from an open root, and symbolic links in it are refused: no key leads out.
"""

import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from holdfast_server.errors import HoldfastError, IntegrityFailed, InvalidArgument
from holdfast_server.objects.base import CommonPrefix, Entry, EntryRecord, ListQuery, ObjectNotFound
from holdfast_server.objects.filesystem.disk import Disk
from holdfast_server.objects.filesystem.locks import Locks
from holdfast_server.objects.filesystem.scratch import ScratchFile
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.listing import first_position, past

_FILE_SUFFIX = b".f"
_DIRECTORY_SUFFIX = b".d"
_SUFFIX_BYTES = 2

_REMOVAL_TIMEOUT_SECONDS = 0.02
"""How long a deletion waits to tidy up an empty directory; one that stays costs a list one look."""

_MOST_REMEMBERED_DIRECTORIES = 100_000

_FOREIGN = {errno.ELOOP, errno.ENOTDIR, errno.ENXIO}
"""What the kernel says of a link, of a file that should be a directory, and of what is no regular file."""


class Tree:
    """The files below one open directory."""

    def __init__(self, disk: Disk, root_fd: int, locks: Locks) -> None:
        self._disk = disk
        self._root_fd = root_fd
        self._locks = locks
        self._durable_lock = threading.Lock()
        self._durable: set[tuple[bytes, ...]] = set()
        self._durable_at_removal = -1

    @contextmanager
    def opened(self, key: ObjectKey) -> Iterator[int]:
        """Open the key's file for reading within the block. Raises `ObjectNotFound`."""
        fd = self.open(key)
        try:
            yield fd
        finally:
            self._disk.close(fd)

    def open(self, key: ObjectKey) -> int:
        """Open the key's file for reading; the caller closes it. Raises `ObjectNotFound`."""
        try:
            with self._parent(key) as parent:
                return self._disk.open_regular(_file_name(key), dir_fd=parent)
        except FileNotFoundError:
            raise ObjectNotFound(key) from None
        except OSError as error:
            raise _named(error, key) from None

    def publish(self, file: ScratchFile, key: ObjectKey) -> None:
        """Move a synced file into place, so that it survives a loss of power, directories included.

        The caller holds the key's lock.
        """
        with self._locks.of_directories() as removals:
            try:
                self._make_parents(key, removals)
                with self._parent(key) as parent:
                    self._disk.rename(file.name, file.dir_fd, _file_name(key), parent)
                    file.published = True
                    self._disk.fsync(parent)
            except OSError as error:
                raise _named(error, key) from None

    def remove(self, key: ObjectKey) -> bool:
        """Remove the key's file, so that it stays away after a loss of power, and the directories that it empties.

        The caller holds the key's lock. Returns whether there was a file.
        """
        try:
            with self._parent(key) as parent:
                self._disk.unlink(_file_name(key), parent)
                self._disk.fsync(parent)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _named(error, key) from None
        with suppress(OSError, HoldfastError):  # the object is gone; an empty directory is not worth failing for
            self._remove_empty_parents(key)
        return True

    def list(
        self, query: ListQuery, record_of: Callable[[int, ObjectKey], EntryRecord | None]
    ) -> Iterator[Entry | CommonPrefix]:
        """Yield what the query asks for. `record_of` reads the record of an open file, None where it is damaged."""
        return self._walk((), query, first_position(query), record_of)

    def _walk(
        self,
        directory: tuple[str, ...],
        query: ListQuery,
        start: str,
        record_of: Callable[[int, ObjectKey], EntryRecord | None],
    ) -> Iterator[Entry | CommonPrefix]:
        base = "".join(segment + "/" for segment in directory)
        try:
            with self._directory([_directory_name(segment) for segment in directory]) as fd:
                for name in sorted(self._candidates(fd, base, query, start)):
                    if not name.endswith("/"):
                        if (entry := self._entry(fd, name, record_of)) is not None:
                            yield entry
                    elif query.delimiter and len(name) > len(query.prefix):
                        if self._holds_any((*directory, name[len(base) : -1]), name, start):
                            yield CommonPrefix(name)
                    else:
                        yield from self._walk((*directory, name[len(base) : -1]), query, start, record_of)
        except FileNotFoundError:
            return  # removed while it was listed
        except OSError as error:
            if error.errno not in _FOREIGN:
                raise

    def _candidates(self, fd: int, base: str, query: ListQuery, start: str) -> Iterator[str]:
        """Yield what in a directory can hold something for the query: keys, and prefixes ending in `/`."""
        for name in self._disk.names(fd):
            is_directory = name.endswith(_DIRECTORY_SUFFIX)
            if not is_directory and not name.endswith(_FILE_SUFFIX):
                continue
            segment = _segment(name)
            if not segment:
                continue
            text = base + segment
            if is_directory:
                text += "/"
                wanted = (text.startswith(query.prefix) or query.prefix.startswith(text)) and text not in query.skip
                if wanted and past(text) > start:
                    yield text
            elif text >= start and text.startswith(query.prefix):
                yield text

    def _entry(self, parent: int, name: str, record_of: Callable[[int, ObjectKey], EntryRecord | None]) -> Entry | None:
        try:
            key = ObjectKey(name)
            fd = self._disk.open_regular(_file_name(key), dir_fd=parent)
        except (FileNotFoundError, InvalidArgument):
            return None  # deleted while it was listed; or not ours: no put makes such a name
        except OSError as error:
            if error.errno in _FOREIGN:
                return None
            raise
        try:
            return Entry(name, record_of(fd, key))
        finally:
            self._disk.close(fd)

    def _holds_any(self, directory: tuple[str, ...], prefix: str, start: str) -> bool:
        """Tell whether there is any file below a directory from `start` on; nearly always one look."""
        if prefix < start:
            listed = self._walk(directory, ListQuery(prefix), start, lambda _fd, _key: None)
            return next(listed, None) is not None
        below = []
        try:
            with self._directory([_directory_name(segment) for segment in directory]) as fd:
                for name in self._disk.scan(fd):
                    if name.endswith(_FILE_SUFFIX):
                        return True
                    if name.endswith(_DIRECTORY_SUFFIX):
                        below.append(name)
        except FileNotFoundError:
            return False  # removed while it was listed
        except OSError as error:
            if error.errno in _FOREIGN:
                return False
            raise
        return any(self._holds_any((*directory, segment), prefix, start) for segment in map(_segment, below) if segment)

    def _parent(self, key: ObjectKey) -> "_OpenDirectory":
        return self._directory([_directory_name(segment) for segment in key.segments[:-1]])

    def _directory(self, names: Sequence[bytes]) -> "_OpenDirectory":
        return _OpenDirectory(self._disk, self._root_fd, names)

    def _make_parents(self, key: ObjectKey, removals: int) -> None:
        """Make the directories on the key's path, each durable in its parent before anything is acknowledged in it.

        Whoever finds a directory cannot know whether its maker lived to sync the parent. So every process syncs it
        once for itself, and remembers that until a directory is removed.
        """
        names = [_directory_name(segment) for segment in key.segments[:-1]]
        with self._durable_lock:
            if self._durable_at_removal != removals or len(self._durable) > _MOST_REMEMBERED_DIRECTORIES:
                self._durable = set()
                self._durable_at_removal = removals
            durable = self._durable
        for depth in range(1, len(names) + 1):
            path = tuple(names[:depth])
            if path in durable:
                continue
            with self._directory(names[: depth - 1]) as parent:
                with suppress(FileExistsError):
                    self._disk.mkdir(names[depth - 1], parent)
                self._disk.fsync(parent)
            durable.add(path)

    def _remove_empty_parents(self, key: ObjectKey) -> None:
        names = [_directory_name(segment) for segment in key.segments[:-1]]
        with self._directory(names) as parent:
            if not names or next(self._disk.scan(parent), None) is not None:
                return
        with self._locks.of_removal(_REMOVAL_TIMEOUT_SECONDS) as alone:
            while alone and names:
                last = names.pop()
                with self._directory(names) as parent:
                    self._disk.rmdir(last, parent)  # fails, and so ends this, where it is not empty


class _OpenDirectory:
    """A directory open within a block, walked to from the root without following any link."""

    def __init__(self, disk: Disk, root_fd: int, names: Sequence[bytes]) -> None:
        self._disk = disk
        self._root_fd = root_fd
        self._names = names
        self._fd = root_fd

    def __enter__(self) -> int:
        for name in self._names:
            try:
                fd = self._disk.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._fd)
            finally:
                self.__exit__()
            self._fd = fd
        return self._fd

    def __exit__(self, *_: object) -> None:
        if self._fd != self._root_fd:
            self._disk.close(self._fd)
            self._fd = self._root_fd


def _file_name(key: ObjectKey) -> bytes:
    return key.text.rpartition("/")[2].encode() + _FILE_SUFFIX


def _segment(name: bytes) -> str:
    """Return the segment of a key that a name stands for; empty for one that is not ours, since keys are UTF-8."""
    try:
        return name[:-_SUFFIX_BYTES].decode()
    except UnicodeDecodeError:
        return ""


def _directory_name(segment: str) -> bytes:
    return segment.encode() + _DIRECTORY_SUFFIX


def _named(error: OSError, key: ObjectKey) -> Exception:
    if error.errno in _FOREIGN:
        return IntegrityFailed(key.text, "a symbolic link or a foreign file stands in its place")
    return error
