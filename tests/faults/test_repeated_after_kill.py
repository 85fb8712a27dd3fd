"""A process is killed within an operation, and another repeats it: what that one is told outlives a loss of power."""

import hashlib
import itertools
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from holdfast_server.blobs.address import ContentAddress
from holdfast_server.blobs.store import BlobStore
from holdfast_server.objects.base import ObjectStore
from holdfast_server.objects.body import Body, Chunk, Declared
from holdfast_server.objects.conditions import CreateOnly, ObjectExists
from holdfast_server.objects.key import ObjectKey
from tests.support.power_loss import Platter, Power, UnsyncedDisk
from tests.support.unsynced_machine import Machine, MakeDisk, Step, delete, put

DATA = b"data"
SHA256 = hashlib.sha256(DATA).digest()
KEY = "some/key"


def put_content(process: str, sha256: bytes | None) -> Step:
    def do(store: ObjectStore) -> None:
        BlobStore(store).put(ContentAddress("art/", sha256=sha256), [Chunk(DATA)], declared=Declared(len(DATA)))

    return Step(process, do, ContentAddress("art/", sha256=SHA256).key.text, DATA)


def create_or_find(process: str) -> Step:
    def do(store: ObjectStore) -> None:
        with suppress(ObjectExists):  # an answer too: its own bytes are there
            store.put(ObjectKey(KEY), Body.of(DATA), condition=CreateOnly())

    return Step(process, do, KEY, DATA)


OPERATIONS: dict[str, Callable[[str], Step]] = {
    "content put": lambda process: put_content(process, None),
    "content put of a known digest": lambda process: put_content(process, SHA256),
    "create-only put": create_or_find,
    "delete": lambda process: delete(process, KEY),
}


def sweep(tmp_path: Path, operation: str, make_disk: MakeDisk = UnsyncedDisk) -> Iterator[str]:
    """Kill A before the 1st, 2nd, 3rd ... call, let B repeat the operation, and lose power; yield what that broke."""
    step_of = OPERATIONS[operation]
    for calls in itertools.count():
        with TemporaryDirectory(dir=tmp_path) as directory:
            machine = Machine(Path(directory), make_disk)
            machine.run([put("A", KEY if operation == "delete" else "other", b"old")], Power())
            power = Power(calls)
            machine.run([step_of("A")], power)
            machine.kill("A")
            machine.run([step_of("B")], Power())
            yield from (f"A killed after {calls} calls: {wrong}" for wrong in machine.broken_promises())
            if not power.is_lost:
                return


@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_the_second_process_is_told_outlives_a_loss_of_power(tmp_path: Path, operation: str) -> None:
    assert list(sweep(tmp_path, operation)) == []


class SyncsOnlyItsOwnChanges(UnsyncedDisk):
    """Does not sync a directory in which this process changed nothing."""

    def __init__(self, platter: Platter, power: Power) -> None:
        super().__init__(platter, power)
        self._changed: set[int] = set()

    def rename(self, name: bytes, source_dir: int, target: bytes, target_dir: int) -> None:
        super().rename(name, source_dir, target, target_dir)
        self._changed.add(os.fstat(target_dir).st_ino)

    def unlink(self, name: bytes, dir_fd: int) -> None:
        super().unlink(name, dir_fd)
        self._changed.add(os.fstat(dir_fd).st_ino)

    def mkdir(self, name: bytes, dir_fd: int) -> None:
        super().mkdir(name, dir_fd)
        self._changed.add(os.fstat(dir_fd).st_ino)

    def fsync(self, fd: int) -> None:
        found = os.fstat(fd)
        if not stat.S_ISDIR(found.st_mode) or found.st_ino in self._changed:
            super().fsync(fd)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_these_tests_notice_a_process_that_trusts_what_it_finds(tmp_path: Path, operation: str) -> None:
    assert next(sweep(tmp_path, operation, SyncsOnlyItsOwnChanges), None) is not None
