"""Every system call in opening and closing a filesystem store fails once, in turn: nothing stays open or locked."""

import errno
import itertools
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from holdfast_server.errors import HoldfastError
from holdfast_server.objects.body import Body
from holdfast_server.objects.filesystem import FilesystemStore
from tests.support.disk_operations import KEY, content
from tests.support.faulty_disk import FaultyDisk, open_files_below

DEAD = "0123456789abcdef"
"""The scratch directory of a process that was killed in the middle of an upload."""


def leave_a_dead_scratch(root: Path) -> None:
    (root / "scratch" / DEAD).mkdir()
    (root / "scratch" / DEAD / "0").write_bytes(b"half an upl")
    (root / "scratch" / f"{DEAD}.lock").touch()


def scratch(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.glob("scratch/**/*"))


@pytest.fixture
def roots(tmp_path: Path) -> Iterator[Iterator[Path]]:
    """Roots, each with an object and something to sweep."""
    with TemporaryDirectory(dir=tmp_path) as directory:
        yield (furnished(Path(directory, str(number))) for number in itertools.count())


def furnished(root: Path) -> Path:
    store = FilesystemStore(root)
    store.put(KEY, Body.of(b"kept"))
    store.close()
    leave_a_dead_scratch(root)
    return root


def opened(root: Path, disk: FaultyDisk) -> FilesystemStore | None:
    try:
        return FilesystemStore(root, disk=disk)
    except (OSError, HoldfastError):
        return None


def test_a_store_that_does_not_open_holds_nothing_and_the_next_one_sweeps_up(roots: Iterator[Path]) -> None:
    for nth, root in enumerate(roots, 1):
        disk = FaultyDisk()
        disk.fail(nth, errno.EIO)
        store = opened(root, disk)
        disk.heal()
        if store is None:
            assert open_files_below(root) == [], disk.calls
        else:
            store.close()
        assert disk.bad_closes == []
        reopened = FilesystemStore(root)
        assert content(reopened, KEY) == b"kept"
        reopened.close()
        assert scratch(root) == [], disk.calls
        if disk.failed_call is None:
            return


def test_a_store_that_cannot_tidy_up_closes_all_the_same(roots: Iterator[Path]) -> None:
    for nth, root in enumerate(roots, 1):
        disk = FaultyDisk()
        store = FilesystemStore(root, disk=disk)
        disk.fail(nth, errno.EIO)
        store.close()
        assert open_files_below(root) == [], disk.calls
        assert disk.bad_closes == []
        FilesystemStore(root).close()
        assert scratch(root) == [], disk.calls
        if disk.failed_call is None:
            return
