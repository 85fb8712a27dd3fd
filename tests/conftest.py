"""Fixtures for all tests. `tests/README.md` is the map."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server_process import ServerProcess


@pytest.fixture(params=["memory", "filesystem"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerProcess]:
    """A real server process on each backend."""
    with ServerProcess(tmp_path / "data" if request.param == "filesystem" else None) as process:
        yield process


@pytest.fixture
def filesystem_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A real server process on a directory of its own: `tmp_path / "data"`."""
    with ServerProcess(tmp_path / "data") as process:
        yield process
