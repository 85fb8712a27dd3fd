"""A spool on a disk that loses what it took: a bit flips, or the end of a file is gone."""

import os
from collections.abc import Callable, Iterator

from holdfast_server.objects.body import Chunk
from holdfast_server.objects.spool import Room, Spool, SpooledFile
from tests.support.samples import MIB

Spoil = Callable[[int], None]
"""Is given the descriptor of a file."""


def flip(fd: int, at: int = MIB + 100) -> None:
    """Flip a bit."""
    (byte,) = os.pread(fd, 1, at)
    os.pwrite(fd, bytes([byte ^ 1]), at)


def cut(fd: int) -> None:
    """Cut a file, where a piece ends."""
    os.ftruncate(fd, MIB)


def shorten(fd: int) -> None:
    """Take the last bytes of a file: of a payload, too, if it is one with a seal behind it."""
    os.ftruncate(fd, os.fstat(fd).st_size - 1000)


SPOILS: dict[str, Spoil] = {"flipped": flip, "cut": cut, "shortened": shorten}


class SpoilingSpool(Spool):
    """Its files are spoiled by `spoil`, once each: before they are first read, or when `now` is called."""

    def __init__(self, spoil: Spoil, *, waits: bool = False) -> None:
        super().__init__()
        self._spoil = spoil
        self._waits = waits
        self._files: list[_SpoiledFile] = []

    def open(self) -> SpooledFile:
        with super().open() as file:
            spoiled = _SpoiledFile(os.dup(file._fd), self._room, None if self._waits else self._spoil)
        self._files.append(spoiled)
        return spoiled

    @property
    def files(self) -> int:
        """How many were opened."""
        return len(self._files)

    def now(self) -> None:
        """Spoil the newest file."""
        self._spoil(self._files[-1]._fd)


class _SpoiledFile(SpooledFile):
    def __init__(self, fd: int, room: Room, spoil: Spoil | None) -> None:
        super().__init__(fd, room)
        self._spoil = spoil

    def chunks(self, offset: int, length: int) -> Iterator[Chunk]:
        spoil, self._spoil = self._spoil, None
        if spoil is not None:
            spoil(self._fd)
        return super().chunks(offset, length)
