"""Where objects lie, and how they get there and away again: durably, directories included."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from holdfast_server.errors import HoldfastError
from holdfast_server.objects.base import CommonPrefix, Entry, ListQuery, ObjectNotFound
from holdfast_server.objects.filesystem.disk import Disk
from holdfast_server.objects.filesystem.locks import Locks
from holdfast_server.objects.filesystem.names import Names
from holdfast_server.objects.filesystem.paths import Place, Walker, file_name, named, path_of, place_of
from holdfast_server.objects.filesystem.scratch import ScratchFile
from holdfast_server.objects.filesystem.walk import List, RecordOf
from holdfast_server.objects.key import ObjectKey

_REMOVAL_TIMEOUT_SECONDS = 0.02
"""How long a deletion waits to tidy up an empty directory; one that stays costs a list one look."""

_MOST_REMEMBERED_DIRECTORIES = 10_000


class Tree:
    """The files below one open directory."""

    def __init__(self, disk: Disk, root_fd: int, locks: Locks) -> None:
        self._disk = disk
        self._root_fd = root_fd
        self._locks = locks
        self._names = Names(disk)
        self._durable_lock = threading.Lock()
        self._durable: set[bytes] = set()
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
            if self._disk.opens_paths:
                return self._disk.open_regular(path_of(key), dir_fd=self._root_fd)
            with self._walker() as walker:
                return self._disk.open_regular(file_name(key), dir_fd=walker.at(place_of(key)))
        except FileNotFoundError:
            raise ObjectNotFound(key) from None
        except OSError as error:
            raise named(error, key) from None

    def publish(self, file: ScratchFile, key: ObjectKey) -> None:
        """Move a synced file into place, so that it survives a loss of power, directories included.

        The caller holds the key's lock.
        """
        with self._locks.of_directories() as removals:
            try:
                with self._walker() as walker:
                    parent = self._durable_parent(walker, place_of(key), removals)
                    self._disk.rename(file.name, file.dir_fd, file_name(key), parent)
                    file.published = True
                    self._disk.fsync(parent)
            except OSError as error:
                raise named(error, key) from None

    def settle(self, key: ObjectKey) -> None:
        """Make what stands under the key survive a loss of power: whoever put it there may have died before it did.

        To be done before a caller is told that it is there.
        """
        with self._locks.of_directories() as removals, suppress(FileNotFoundError), self._walker() as walker:
            place = place_of(key)
            walker.at(place)  # if it is gone meanwhile, there is nothing to settle, and nothing to make
            self._disk.fsync(self._durable_parent(walker, place, removals))

    def remove(self, key: ObjectKey) -> bool:
        """Remove the key's file, so that it stays away after a loss of power, and the directories that it empties.

        The caller holds the key's lock. Returns whether there was a file.
        """
        existed = True
        try:
            with self._walker() as walker:
                parent = walker.at(place_of(key))
                try:
                    self._disk.unlink(file_name(key), parent)
                except FileNotFoundError:
                    existed = False  # perhaps by one who died before it synced that
                self._disk.fsync(parent)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise named(error, key) from None
        if existed:
            with suppress(OSError, HoldfastError):  # the object is gone; an empty directory is not worth failing for
                self._remove_empty_parents(place_of(key))
        return existed

    def list(self, query: ListQuery, record_of: RecordOf) -> Iterator[Entry | CommonPrefix]:
        """Yield what the query asks for. `record_of` reads the record of an open file, None where it is damaged."""
        return iter(List(self._disk, self._names, self._root_fd, query, record_of))

    def _walker(self) -> Walker:
        return Walker(self._disk, self._root_fd)

    def _durable_parent(self, walker: Walker, place: Place, removals: int) -> int:
        """Make the directories on a path, each durable in its parent before anything is acknowledged in it.

        Whoever finds a directory cannot know whether its maker lived to sync the parent. So every process syncs it
        once for itself, and remembers that until a directory is removed. Returns the last one, open.
        """
        with self._durable_lock:
            if self._durable_at_removal != removals or len(self._durable) > _MOST_REMEMBERED_DIRECTORIES:
                self._durable = set()
                self._durable_at_removal = removals
            durable = self._durable
        if b"/".join(place) not in durable:
            for depth, name in enumerate(place):
                path = b"/".join(place[: depth + 1])
                if path not in durable:
                    parent = walker.at(place[:depth])
                    with suppress(FileExistsError):
                        self._disk.mkdir(name, parent)
                    self._disk.fsync(parent)
                    durable.add(path)
        return walker.at(place)

    def _remove_empty_parents(self, place: Place) -> None:
        with self._walker() as walker:
            if not place or next(self._disk.scan(walker.at(place)), None) is not None:
                return
            with self._locks.of_removal(_REMOVAL_TIMEOUT_SECONDS) as alone:
                while alone and place:
                    # Fails, and so ends this, where it is not empty.
                    self._disk.rmdir(place[-1], walker.at(place[:-1]))
                    place = place[:-1]
