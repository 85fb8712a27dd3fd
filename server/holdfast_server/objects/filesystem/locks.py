"""What keeps the processes that share a store apart: advisory locks on small files.

One of 256 lock files, chosen by the key, is held by whoever publishes or deletes that key. One more guards the
directories: shared by those who publish into them, exclusive for those who remove an empty one. The kernel lets go of
a lock when its holder dies, so nothing is ever left locked.
"""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from holdfast_server import calls
from holdfast_server.errors import Reason, Unavailable
from holdfast_server.objects.filesystem.disk import Disk
from holdfast_server.objects.key import ObjectKey

_FIRST_PAUSE_SECONDS = 0.0005
_LONGEST_PAUSE_SECONDS = 0.02

_COUNTER_BYTES = 8


class Locks:
    """The lock files in one directory. `timeout_seconds` bounds every wait, beside the call's own deadline."""

    def __init__(self, disk: Disk, dir_fd: int, timeout_seconds: float) -> None:
        self._disk = disk
        self._dir_fd = dir_fd
        self._timeout_seconds = timeout_seconds

    @contextmanager
    def of_key(self, key: ObjectKey) -> Iterator[None]:
        """Keep everyone else from publishing or deleting this key. Raises `Unavailable` after the timeout."""
        stripe = hashlib.sha256(key.text.encode()).hexdigest()[:2].encode()
        with self._held(stripe, shared=False, timeout_seconds=self._timeout_seconds) as fd:
            if fd is None:
                raise _busy(f"key {key.text!r}")
            yield

    @contextmanager
    def of_directories(self) -> Iterator[int]:
        """Keep everyone from removing directories; yields how many removals there were. Raises `Unavailable`."""
        with self._held(b"directories", shared=True, timeout_seconds=self._timeout_seconds) as fd:
            if fd is None:
                raise _busy("the directories")
            yield int.from_bytes(self._disk.read(fd, _COUNTER_BYTES, 0), "little")

    @contextmanager
    def of_removal(self, timeout_seconds: float) -> Iterator[bool]:
        """Keep everyone out of the directories, and count a removal; yields whether that worked in time."""
        with self._held(b"directories", shared=False, timeout_seconds=timeout_seconds) as fd:
            if fd is None:
                yield False
                return
            count = int.from_bytes(self._disk.read(fd, _COUNTER_BYTES, 0), "little")
            self._disk.write_at(fd, (count + 1).to_bytes(_COUNTER_BYTES, "little"), 0)
            yield True

    @contextmanager
    def _held(self, name: bytes, *, shared: bool, timeout_seconds: float) -> Iterator[int | None]:
        # Opened anew each time: locks of one open file are shared by the threads that use it.
        fd = self._disk.open(name, os.O_RDWR | os.O_CREAT, dir_fd=self._dir_fd)
        try:
            end = time.monotonic() + timeout_seconds
            pause = _FIRST_PAUSE_SECONDS
            locked = self._disk.try_lock(fd, shared=shared)
            while not locked and time.monotonic() < end:
                calls.pause(pause, "a lock of the store")
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
                locked = self._disk.try_lock(fd, shared=shared)
            yield fd if locked else None
        finally:
            self._disk.close(fd)


def _busy(what: str) -> Unavailable:
    return Unavailable(Reason.BACKEND_UNAVAILABLE, f"somebody else has held the lock of {what} for too long")
