"""The names in directories, sorted; those of a large directory are remembered as long as it does not change.

A page of a list needs few of them, and the kernel gives all or none: without this, each page amid 10,000 prefixes read
and sorted 10,000 names.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from holdfast_server.objects.filesystem.disk import Disk
from holdfast_server.objects.filesystem.paths import DIRECTORY_SUFFIX, FILE_SUFFIX, segment_of

_FEWEST_REMEMBERED = 256
"""Fewer names in a directory are read about as fast as they are found."""

_MOST_REMEMBERED = 200_000
"""Names that are remembered in all: about 20 MB of names of 40 characters."""

_SECOND_NS = 1_000_000_000

_SETTLED_NS = _SECOND_NS // 10
_COARSE_SETTLED_NS = 3 * _SECOND_NS
"""The times of a directory have steps, of up to 10 ms as a rule (the kernel's ticks), on some file systems of one or
two seconds: what changed just now can change again and show the same time. Only what was read this long after a change
is trusted to show the next one."""

_MOST_READINGS = 8
"""How often names are read again while a directory changes: on some file systems a rename hides a name for a moment."""


class Names:
    """Reads the names in directories. `clock`: nanoseconds since 1970, as the file system's times are."""

    def __init__(self, disk: Disk, clock: Callable[[], int] = time.time_ns) -> None:
        self._disk = disk
        self._clock = clock
        self._lock = threading.Lock()
        self._remembered: OrderedDict[tuple[int, int], tuple[tuple[int, int], list[str]]] = OrderedDict()
        self._count = 0

    def in_directory(self, fd: int) -> Sequence[str]:
        """Return what is in an open directory, sorted: `segment` for an object's file, `segment/` for a directory.

        What is not ours is left out. Raises `OSError`.
        """
        identity, times = self._disk.state(fd)
        with self._lock:
            known = self._remembered.get(identity)
            if known is not None and known[0] == times:
                self._remembered.move_to_end(identity)
                return known[1]
        names: set[bytes] = set()
        for _ in range(_MOST_READINGS):
            before = times
            names.update(self._disk.names(fd))
            _, times = self._disk.state(fd)
            if times == before:
                break
        listed = sorted(filter(None, map(_text_of, names)))
        if times == before and max(times) < self._clock() - _settling_ns(times):
            self._remember(identity, times, listed)
        return listed

    def _remember(self, identity: tuple[int, int], times: tuple[int, int], names: list[str]) -> None:
        with self._lock:
            self._forget(identity)
            if _FEWEST_REMEMBERED <= len(names) <= _MOST_REMEMBERED:
                while self._count + len(names) > _MOST_REMEMBERED:
                    self._forget(next(iter(self._remembered)))
                self._remembered[identity] = times, names
                self._count += len(names)

    def _forget(self, identity: tuple[int, int]) -> None:
        if (known := self._remembered.pop(identity, None)) is not None:
            self._count -= len(known[1])


def _settling_ns(times: tuple[int, int]) -> int:
    return _SETTLED_NS if any(time_ns % _SECOND_NS for time_ns in times) else _COARSE_SETTLED_NS


def _text_of(name: bytes) -> str:
    """Return the segment that a name stands for, with a `/` behind that of a directory; empty for what is not ours."""
    if name.endswith(FILE_SUFFIX):
        return segment_of(name)
    segment = segment_of(name) if name.endswith(DIRECTORY_SUFFIX) else ""
    return segment and segment + "/"
