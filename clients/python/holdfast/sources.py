"""Where the bytes of an upload come from: memory, a file, or an iterator."""

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

PIECE_BYTES = 1 << 20
"""1 MiB: the fastest size of a message, and the unit in which the server keeps its checksums."""


@runtime_checkable
class Readable(Protocol):
    """A binary file, as far as an upload needs it. What can seek is sent again if need be."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, and none at the end."""


@runtime_checkable
class _Seekable(Protocol):
    def seekable(self) -> bool: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def tell(self) -> int: ...


Data = bytes | bytearray | memoryview | Path | BinaryIO | Readable | Iterable[bytes | bytearray | memoryview]
"""What can be uploaded."""


@dataclass(frozen=True, slots=True)
class OpenSource:
    """A source being read: its bytes in pieces of 1 MiB, the last one shorter, and their number if it is known."""

    pieces: Iterator[bytes]
    size_bytes: int | None


class Source(ABC):
    """The bytes of an upload. `can_rewind`: they can be read more than once."""

    can_rewind: bool

    @abstractmethod
    @contextmanager
    def open(self) -> Iterator[OpenSource]:
        """Read from the start within the block. Errors of the source are its own."""
        yield OpenSource(iter(()), 0)


class _Memory(Source):
    can_rewind = True

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = memoryview(data).cast("B")

    @contextmanager
    def open(self) -> Iterator[OpenSource]:
        size = len(self._data)
        yield OpenSource((bytes(self._data[at : at + PIECE_BYTES]) for at in range(0, size, PIECE_BYTES)), size)


class _File(Source):
    """An open file, from where it stands; the caller closes it."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._seekable = file if isinstance(file, _Seekable) and file.seekable() else None
        self.can_rewind = self._seekable is not None
        self._start = 0 if self._seekable is None else self._seekable.tell()

    @contextmanager
    def open(self) -> Iterator[OpenSource]:
        size = None if self._seekable is None else self._rewind(self._seekable)
        yield OpenSource(_repacked(iter(lambda: self._file.read(PIECE_BYTES), b"")), size)

    def _rewind(self, file: "_Seekable") -> int | None:
        try:
            size = file.seek(0, os.SEEK_END) - self._start
        except OSError:  # files of /proc can only be rewound
            size = 0
        file.seek(self._start)
        # Others of them say 0 and have bytes: 0 is taken for "not known".
        return size or None


class _Path(Source):
    """A file by its name. Pipes and devices have no size, and can be read once only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.can_rewind = stat.S_ISREG(path.stat().st_mode)

    @contextmanager
    def open(self) -> Iterator[OpenSource]:
        with self._path.open("rb") as file, _File(file).open() as opened:
            yield opened


class _Iterable(Source):
    can_rewind = False

    def __init__(self, chunks: Iterable[bytes | bytearray | memoryview]) -> None:
        self._chunks = chunks

    @contextmanager
    def open(self) -> Iterator[OpenSource]:
        yield OpenSource(_repacked(self._chunks), None)


def source_of(data: Data) -> Source:
    """Return the source that `data` is. Raises `TypeError`, and `OSError` for a path that is not there."""
    if isinstance(data, bytes | bytearray | memoryview):
        return _Memory(data)
    if isinstance(data, Path):
        return _Path(data)
    if isinstance(data, str):
        raise TypeError("data is a str: give bytes, or a pathlib.Path for the name of a file")
    if isinstance(data, Readable):
        return _File(data)
    if isinstance(data, Iterable):
        return _Iterable(data)
    raise TypeError(f"data is neither bytes, Path, binary file nor iterable, but {type(data).__name__}")


def _repacked(chunks: Iterable[bytes | bytearray | memoryview]) -> Iterator[bytes]:
    """Yield the same bytes in pieces of 1 MiB. What is kept is copied: a source may use its buffer again."""
    gathered: list[bytes] = []
    room = PIECE_BYTES
    for chunk in chunks:
        view = memoryview(chunk).cast("B")
        for start, end in _cuts(len(view), room):
            part = bytes(view[start:end])
            gathered.append(part)
            room -= len(part)
            if room == 0:
                yield b"".join(gathered)
                gathered.clear()
                room = PIECE_BYTES
    if gathered:
        yield b"".join(gathered)


def _cuts(size: int, room: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of the parts of `size` bytes: the first of up to `room`, the others of up to 1 MiB."""
    start, end = 0, room
    while start < size:
        yield start, min(end, size)
        start, end = end, end + PIECE_BYTES
