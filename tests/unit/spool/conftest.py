"""Directories for spools."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

real_open = os.open


def open_without_o_tmpfile(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
    """Fail as the file systems do that have no files without a name."""
    if flags & os.O_TMPFILE == os.O_TMPFILE:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), path)
    return real_open(path, flags, *args, **kwargs)


@pytest.fixture(params=["O_TMPFILE", "unlinked"])
def directory(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for spools, of a file system that has files without a name, and of one that has not."""
    if request.param == "unlinked":
        monkeypatch.setattr(os, "open", open_without_o_tmpfile)
    return tmp_path / "spool"
