"""A disk on which one system call fails, so that a sweep can fail each of them in turn."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

from holdfast_server.objects.filesystem.disk import Disk

SECRET_PATH = "/where/no/caller/should/look"
"""Stands in the `OSError`s, as a path does in real ones: it must not reach a caller."""


class FaultyDisk(Disk):
    """Passes every call on, but the `nth` after `fail` raises `OSError`, once.

    The call that fails has no effect, with two exceptions, as on Linux: `close` has let go of the file all the same,
    and `write` has written half. `fsync` does nothing else: no power is lost here.
    """

    def __init__(self) -> None:
        self._errno = 0
        self._calls_left = 0
        self.calls: list[str] = []
        """The calls since `fail`, by name."""
        self.failed_call: str | None = None
        self.bad_closes: list[int] = []
        """Files that were closed and not open: in a busy process that closes another's file."""
        self._open: set[int] = set()

    def fail(self, nth: int, errno: int) -> None:
        """Let the `nth` call from now on, counted from 1, fail."""
        self._errno = errno
        self._calls_left = nth
        self.calls = []
        self.failed_call = None

    def heal(self) -> None:
        """Let nothing fail any more."""
        self._calls_left = 0

    def call(self, name: str, real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Make a call of a `Disk`, or fail it."""
        self.calls.append(name)
        self._calls_left -= 1
        if name == "close":
            self._note_close(args[0])
        if self._calls_left == 0:
            self.failed_call = name
            return self._fail(name, real, args)
        result = real(self, *args, **kwargs)
        if name in {"open", "open_path"}:
            self._open.add(result)
        return result

    def _fail(self, name: str, real: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        error = OSError(self._errno, os.strerror(self._errno), SECRET_PATH)
        if name == "close":
            return self._fail_close(error, real, args[0])
        if name == "write":
            fd, data = args
            real(self, fd, data[: len(data) // 2])
        raise error

    def _fail_close(self, error: OSError, real: Callable[..., Any], fd: int) -> Any:
        """Fail below `Disk.close`, which may have its own view of what such a failure means."""
        close = os.close

        def close_and_fail(fd: int) -> NoReturn:
            close(fd)
            raise error

        with patch.object(os, "close", close_and_fail):
            return real(self, fd)

    def _note_close(self, fd: int) -> None:
        if fd not in self._open:
            self.bad_closes.append(fd)
        self._open.discard(fd)


def _failing(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: FaultyDisk, *args: Any, **kwargs: Any) -> Any:
        return self.call(name, real, *args, **kwargs)

    return call


def _no_fsync(_disk: Disk, fd: int) -> None:
    os.fstat(fd)  # which fails, as fsync does, where it is not open


CALLS = tuple(name for name, value in vars(Disk).items() if callable(value) and not name.startswith("_"))
"""Every method of `Disk`, those that are still to come included."""

for _name in CALLS:
    setattr(FaultyDisk, _name, _failing(_name, _no_fsync if _name == "fsync" else getattr(Disk, _name)))


def open_files_below(root: Path) -> list[str]:
    """Return what this process's open descriptors below `root` lead to, sorted."""
    targets = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:
            continue  # the one that lists them
        if target.startswith(f"{root}/"):
            targets.append(target)
    return sorted(targets)
