"""Files that are there whole or not at all."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def check_replaceable(path: Path) -> None:
    """Raise `OSError` unless `path` is, or can become, a regular file: a device or a pipe must not be renamed over."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "Not a regular file", str(path))


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that takes the place of `path` if the block ends well, durably, and else vanishes.

    It lies beside `path`, so that the rename is one step, and has the mode that a new file has. A symbolic link is
    followed, not replaced. Raises `OSError`.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".holdfast-{secrets.token_hex(8)}.part")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        # Also on Ctrl-C, and whatever else is no `Exception`.
        temporary.unlink(missing_ok=True)
    _sync_directory(target.parent)


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
