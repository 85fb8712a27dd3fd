"""The names in a directory: read again exactly when they may have changed."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast_server.objects.filesystem.names import Names
from tests.support.counting_disk import CountingDisk
from tests.support.waiting import wait_until

SECOND = 1_000_000_000
MANY = 300


class Place:
    """A directory with many names, and a clock that the test moves."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for number in range(MANY):
            (path / f"{number:04}.f").touch()
        wait_until(self._clock_has_gone_on)
        self.disk = CountingDisk()
        self.now = self.changed_at() + 10 * SECOND
        self.names = Names(self.disk, lambda: self.now)
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def _clock_has_gone_on(self) -> bool:
        """Return whether a change from now on has another time than the last: the kernel's clock goes on in steps."""
        beside = self.path.with_name(f"{self.path.name}-clock")
        beside.touch()
        return beside.stat().st_ctime_ns > self.changed_at()

    def changed_at(self) -> int:
        return self.path.stat().st_ctime_ns

    def read(self) -> list[str]:
        return list(self.names.in_directory(self.fd))

    def readings(self) -> int:
        """How many names were read since the last time."""
        read, self.disk.names_read = self.disk.names_read, 0
        return read


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    os.close(made.fd)


def test_names_are_sorted_as_keys_are_and_what_is_not_ours_is_left_out(tmp_path: Path) -> None:
    for name in ("b.f", "a!.f", "a.f", "a0.f", "é.f", "x", "y.txt", ".f", "c.d.f"):
        (tmp_path / name).touch()
    for name in ("a.d", "b.d", ".d", "c"):
        (tmp_path / name).mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.f")).touch()
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        names = list(Names(CountingDisk()).in_directory(fd))
    finally:
        os.close(fd)
    assert names == ["a", "a!", "a/", "a0", "b", "b/", "c.d", "é"]


def test_a_large_directory_is_read_once_while_it_does_not_change(place: Place) -> None:
    first = place.read()
    assert place.readings() == MANY
    assert place.read() == first
    assert place.readings() == 0


@pytest.mark.parametrize("change", ["add", "remove", "rename", "add a directory"])
def test_it_is_read_again_after_every_change(place: Place, change: str) -> None:
    place.read()
    if change == "add":
        (place.path / "new.f").touch()
    elif change == "remove":
        (place.path / "0000.f").unlink()
    elif change == "rename":
        (place.path / "0000.f").rename(place.path / "9999.f")
    else:
        (place.path / "new.d").mkdir()
    place.now = place.changed_at() + 10 * SECOND
    expected = sorted(p.stem + ("/" if p.suffix == ".d" else "") for p in place.path.iterdir())
    assert place.read() == expected


def test_a_change_is_seen_also_where_somebody_has_set_the_time_back(place: Place) -> None:
    before = place.path.stat()
    place.read()
    (place.path / "new.f").touch()
    os.utime(place.path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as programs that restore files do
    assert "new" in place.read()


def test_what_changed_a_moment_ago_is_not_trusted(place: Place) -> None:
    place.now = place.changed_at() + SECOND // 20
    place.read()
    place.readings()
    place.read()
    assert place.readings() == MANY


@pytest.mark.parametrize(("seconds", "read_again"), [(2, MANY), (4, 0)])
def test_on_a_file_system_with_coarse_times_it_takes_longer(place: Place, seconds: int, read_again: int) -> None:
    class Coarse(CountingDisk):
        def state(self, fd: int) -> tuple[tuple[int, int], tuple[int, int]]:
            identity, (mtime_ns, ctime_ns) = super().state(fd)
            return identity, (mtime_ns // SECOND * SECOND, ctime_ns // SECOND * SECOND)

    place.disk = Coarse()
    place.names = Names(place.disk, lambda: place.now)
    place.now = place.changed_at() // SECOND * SECOND + seconds * SECOND
    place.read()
    place.readings()
    place.read()
    assert place.readings() == read_again


def test_a_clock_that_is_behind_the_disk_is_not_trusted(place: Place) -> None:
    place.now = place.changed_at() - 3600 * SECOND
    place.read()
    place.readings()
    place.read()
    assert place.readings() == MANY


def test_what_is_remembered_is_bounded_and_the_oldest_goes(
    place: Place, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast_server.objects.filesystem.names._MOST_REMEMBERED", 2 * MANY)
    others = [Place(tmp_path_factory.mktemp("other")) for _ in range(2)]
    fds = [place.fd, *(other.fd for other in others)]
    place.now = max(other.now for other in (place, *others))
    for fd in fds:
        place.names.in_directory(fd)
    place.readings()
    for fd in fds[1:]:
        place.names.in_directory(fd)
    assert place.readings() == 0
    place.names.in_directory(fds[0])
    assert place.readings() == MANY
    for other in others:
        os.close(other.fd)
