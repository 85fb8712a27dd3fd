"""Power is lost after the 1st, 2nd, 3rd ... system call: no acknowledged change is lost, and what is there is whole."""

import itertools
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.power_loss import Power, UnsyncedDisk
from tests.support.samples import MIB, sample
from tests.support.unsynced_machine import Machine, MakeDisk, Step, copy, create, delete, put, replace

LARGE = sample(MIB + 1)

SCENARIOS: dict[str, list[Step]] = {
    "new nested directories": [
        put("A", "top", b"1"),
        put("A", "a/b/c", b"2"),
        create("A", "a/b/d", b"3"),
        put("A", "a/e/f/g", b"4"),
        put("A", "a", b"5"),
    ],
    "overwrites and copies": [
        put("A", "a/key", b"first"),
        put("A", "a/key", LARGE),
        replace("A", "a/key", b"third"),
        copy("A", "a/key", "b/new", b"third"),
        put("A", "top", b"4"),
        copy("A", "top", "a/key", b"4"),
    ],
    "directories emptied and made again": [
        put("A", "a/b/c", b"1"),
        delete("A", "a/b/c"),
        put("A", "a/b/c", b"2"),
        put("A", "a/d", b"3"),
        delete("A", "a/b/c"),
        create("A", "a/b/e", b"4"),
        delete("A", "a/d"),
    ],
    "two processes": [
        put("A", "a/b/c", b"1"),
        put("B", "a/b/d", b"2"),
        put("B", "a/b/c", b"3"),
        delete("A", "a/b/d"),
    ],
    "two processes that empty directories": [
        put("A", "a/b/c", b"1"),
        put("B", "a/b/d", b"2"),
        delete("B", "a/b/c"),
        delete("B", "a/b/d"),
        put("B", "a/b/d", b"3"),
        put("A", "a/b/c", b"4"),
        delete("B", "a/b/d"),
        delete("A", "a/b/c"),
        put("A", "a/b/e", b"5"),
    ],
}


def sweep(tmp_path: Path, steps: Sequence[Step], make_disk: MakeDisk = UnsyncedDisk) -> Iterator[str]:
    """Lose power after no call, after the 1st, the 2nd ... until the steps complete; yield what that broke."""
    for calls in itertools.count():
        with TemporaryDirectory(dir=tmp_path) as directory:
            machine = Machine(Path(directory), make_disk)
            power = Power(calls)
            machine.run(steps, power)
            yield from (f"after {calls} calls: {wrong}" for wrong in machine.broken_promises())
            if not power.is_lost:
                return


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_loss_of_power_loses_nothing_acknowledged(tmp_path: Path, scenario: str) -> None:
    assert list(sweep(tmp_path, SCENARIOS[scenario])) == []


LIVES: dict[str, tuple[list[Step], list[Step]]] = {
    # What was done before, and what the process that is to be killed does.
    "new directories": ([], [put("A", "a/b/by-a", b"2")]),
    "directories made again": ([put("B", "a/b/c", b"1")], [delete("A", "a/b/c"), put("A", "a/b/by-a", b"2")]),
}


def sweep_kills(
    tmp_path: Path, before: Sequence[Step], life: Sequence[Step], make_disk: MakeDisk = UnsyncedDisk
) -> Iterator[str]:
    """Kill A after each of its calls, let B put something into the same directory, and then lose power."""
    for calls in itertools.count():
        with TemporaryDirectory(dir=tmp_path) as directory:
            machine = Machine(Path(directory), make_disk)
            machine.run(before, Power())
            power = Power(calls)
            machine.run(life, power)
            machine.kill("A")
            pending = machine.ledger.pending
            machine.run([put("B", "a/b/by-b", b"3")], Power())
            machine.ledger.pending = pending
            yield from (f"A killed after {calls} calls: {wrong}" for wrong in machine.broken_promises())
            if not power.is_lost:
                return


@pytest.mark.parametrize("life", LIVES)
def test_a_directory_whose_maker_was_killed_is_not_trusted(tmp_path: Path, life: str) -> None:
    assert list(sweep_kills(tmp_path, *LIVES[life])) == []


class ForgetsDirectories(UnsyncedDisk):
    """Does not sync directories."""

    def fsync(self, fd: int) -> None:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            super().fsync(fd)


class ForgetsFiles(UnsyncedDisk):
    """Does not sync files."""

    def fsync(self, fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            super().fsync(fd)


class ForgetsNewDirectories(UnsyncedDisk):
    """Does not sync a directory in which a directory was made."""

    made_in = -1

    def mkdir(self, name: bytes, dir_fd: int) -> None:
        super().mkdir(name, dir_fd)
        self.made_in = os.fstat(dir_fd).st_ino

    def fsync(self, fd: int) -> None:
        if os.fstat(fd).st_ino == self.made_in:
            self.made_in = -1
        else:
            super().fsync(fd)


@pytest.mark.parametrize(
    ("make_disk", "scenario"),
    [
        (ForgetsDirectories, "overwrites and copies"),
        (ForgetsFiles, "overwrites and copies"),
        (ForgetsNewDirectories, "new nested directories"),
    ],
)
def test_these_tests_notice_a_disk_that_forgets(tmp_path: Path, make_disk: MakeDisk, scenario: str) -> None:
    assert next(sweep(tmp_path, SCENARIOS[scenario], make_disk), None) is not None


class TrustsDirectoriesThatItFinds(UnsyncedDisk):
    """Does not sync where a directory was there already."""

    found_in = -1

    def mkdir(self, name: bytes, dir_fd: int) -> None:
        try:
            super().mkdir(name, dir_fd)
        except FileExistsError:
            self.found_in = os.fstat(dir_fd).st_ino
            raise

    def fsync(self, fd: int) -> None:
        if os.fstat(fd).st_ino == self.found_in:
            self.found_in = -1
        else:
            super().fsync(fd)


class ForgetsRemovals(UnsyncedDisk):
    """Does not count the removals of directories, so that other processes do not hear of them."""

    def write_at(self, fd: int, data: bytes, offset: int) -> None:
        pass


@pytest.mark.parametrize(
    ("make_disk", "life"),
    [(TrustsDirectoriesThatItFinds, "new directories"), (ForgetsRemovals, "directories made again")],
)
def test_these_tests_notice_a_process_that_trusts_directories(tmp_path: Path, make_disk: MakeDisk, life: str) -> None:
    assert any("by-b holds None" in wrong for wrong in sweep_kills(tmp_path, *LIVES[life], make_disk))
