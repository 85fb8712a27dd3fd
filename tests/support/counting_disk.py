"""A disk that counts, so that a walk over what is stored shows without a clock."""

from collections.abc import Callable, Iterator
from typing import Any

from holdfast_server.objects.filesystem.disk import Disk


class CountingDisk(Disk):
    """Counts system calls, and what was read: the names in directories, each of which is work, too, and bytes.

    `fsync` is counted and not done.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.names_read = 0
        self.bytes_read = 0

    def fsync(self, _fd: int) -> None:
        """Do nothing: what is counted need not last."""

    def read(self, fd: int, length: int, offset: int) -> bytes:
        """Return bytes of a file, counted."""
        data = super().read(fd, length, offset)
        self.bytes_read += len(data)
        return data

    def names(self, dir_fd: int) -> list[bytes]:
        """Return the names in a directory, counted."""
        names = super().names(dir_fd)
        self.names_read += len(names)
        return names

    def scan(self, dir_fd: int) -> Iterator[bytes]:
        """Yield the names in a directory, counted as they are asked for."""
        for name in super().scan(dir_fd):
            self.names_read += 1
            yield name

    @property
    def work(self) -> int:
        """Calls, and names read."""
        return self.calls + self.names_read


def _counted(name: str) -> Callable[..., Any]:
    method = getattr(CountingDisk, name)

    def call(self: CountingDisk, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return method(self, *args, **kwargs)

    return call


for _name, _value in vars(Disk).items():
    if callable(_value) and not _name.startswith("_"):
        setattr(CountingDisk, _name, _counted(_name))
