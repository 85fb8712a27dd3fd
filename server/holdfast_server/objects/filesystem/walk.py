"""Lists: the directories below one root, walked in the order of keys.

One directory is open at a time, and what it holds is in memory; so a list costs the same however deep keys are, and
may be left at any point.
"""

import errno
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

from holdfast_server import calls
from holdfast_server.errors import InvalidArgument
from holdfast_server.objects.base import CommonPrefix, Entry, EntryRecord, ListQuery
from holdfast_server.objects.filesystem.disk import Disk
from holdfast_server.objects.filesystem.names import Names
from holdfast_server.objects.filesystem.paths import (
    DIRECTORY_SUFFIX,
    FILE_SUFFIX,
    FOREIGN,
    Place,
    Walker,
    directory_name,
    file_name,
    segment_of,
)
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.listing import first_position, past

RecordOf = Callable[[int, ObjectKey], EntryRecord | None]
"""Reads the record of an open file; None where it is damaged."""


class List:
    """One list: what `query` asks for in the tree below `root_fd`."""

    def __init__(self, disk: Disk, names: Names, root_fd: int, query: ListQuery, record_of: RecordOf) -> None:
        self._disk = disk
        self._names = names
        self._root_fd = root_fd
        self._query = query
        self._start = first_position(query)
        self._record_of = record_of

    def __iter__(self) -> Iterator[Entry | CommonPrefix]:
        """Yield entries and common prefixes in the order of their names."""
        with Walker(self._disk, self._root_fd) as walker:
            levels = [self._candidates(walker, ())]
            places: list[Place] = [()]
            while levels:
                calls.check("listing")
                name = next(levels[-1], None)
                if name is None:
                    levels.pop()
                    places.pop()
                elif not name.endswith("/"):
                    if (entry := self._entry(walker, places[-1], name)) is not None:
                        yield entry
                else:
                    below = (*places[-1], directory_name(name.rstrip("/").rpartition("/")[2]))
                    if self._query.delimiter and len(name) > len(self._query.prefix):
                        if self._holds_any(below, name):
                            yield CommonPrefix(name)
                    else:
                        levels.append(self._candidates(walker, below))
                        places.append(below)

    def _candidates(self, walker: Walker, place: Place) -> Iterator[str]:
        """Yield what in a directory can hold something for the query, sorted: keys, and prefixes ending in `/`."""
        base = "".join(segment_of(name) + "/" for name in place)
        prefix = self._query.prefix.removeprefix(base) if self._query.prefix.startswith(base) else ""
        segment, slash, _ = prefix.partition("/")
        if slash:
            # The one name that the prefix leads through: of very many others none is read.
            names: Sequence[str] = [segment + "/"]
            prefix = segment + "/"
        else:
            names = self._names_in(walker, place)
        after = self._start[len(base) :].partition("/")[0] if self._start.startswith(base) else ""
        for at in range(bisect_left(names, max(prefix, after)), len(names)):
            name = names[at]
            if not name.startswith(prefix):
                return
            text = base + name
            last = past(text) if name.endswith("/") else text + "\0"
            if last > self._start and text not in self._query.skip:
                yield text

    def _names_in(self, walker: Walker, place: Place) -> Sequence[str]:
        """Return the names in a directory: none if it was removed meanwhile, or is not ours."""
        try:
            return self._names.in_directory(walker.at(place))
        except FileNotFoundError:
            return ()
        except OSError as error:
            if error.errno in FOREIGN or error.errno == errno.ENAMETOOLONG:
                return ()
            raise

    def _entry(self, walker: Walker, place: Place, name: str) -> Entry | None:
        try:
            key = ObjectKey(name)
            fd = self._disk.open_regular(file_name(key), dir_fd=walker.at(place))
        except (FileNotFoundError, InvalidArgument):
            return None  # deleted while it was listed; or not ours: no put makes such a name
        except OSError as error:
            if error.errno in FOREIGN:
                return None
            raise
        try:
            return Entry(name, self._record_of(fd, key))
        finally:
            self._disk.close(fd)

    def _holds_any(self, place: Place, prefix: str) -> bool:
        """Tell whether there is any file below a directory from the start on; nearly always one look."""
        if prefix < self._start:
            inside = List(
                self._disk, self._names, self._root_fd, ListQuery(prefix, self._query.after), lambda _fd, _key: None
            )
            return next(iter(inside), None) is not None
        with Walker(self._disk, self._root_fd) as walker:
            left = [place]
            while left:
                calls.check("listing")
                here = left.pop()
                try:
                    for name in self._disk.scan(walker.at(here)):
                        if name.endswith(FILE_SUFFIX):
                            return True
                        if name.endswith(DIRECTORY_SUFFIX) and segment_of(name):
                            left.append((*here, name))
                except FileNotFoundError:
                    continue  # removed while it was listed
                except OSError as error:
                    if error.errno not in FOREIGN:
                        raise
        return False
