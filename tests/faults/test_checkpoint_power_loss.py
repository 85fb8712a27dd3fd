"""Power is lost after the 1st, 2nd, 3rd ... system call: what was saved is there, and so is what points to it."""

import itertools
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest

from holdfast_server.checkpoints.names import RoomId
from holdfast_server.checkpoints.store import CheckpointStore
from holdfast_server.errors import HoldfastError, NotFound
from holdfast_server.objects.filesystem import FilesystemStore
from holdfast_server.objects.filesystem.disk import Disk
from holdfast_server.workers import Workers
from tests.support.checkpoint_stores import checkpoint_store, confirm, hibernate, load, restore, save
from tests.support.power_loss import Platter, Power, PowerLost, UnsyncedDisk
from tests.support.tombstones import anew_after

ROOM = RoomId("arena/7")


@dataclass
class Promises:
    """What was acknowledged before the power went, and what was under way."""

    epochs: dict[int, bytes] = field(default_factory=dict)
    deleted_up_to: int = -1
    pending_deletion: bool = False
    snapshot: bytes | None = None
    pending_snapshot: bytes | None = None
    is_snapshot_pending: bool = False
    tried: dict[int, bytes] = field(default_factory=dict)
    """What may be there, whether it was acknowledged or not."""


Step = Callable[[CheckpointStore, Promises], None]


def saves(epoch: int) -> Step:
    data = b"epoch %d" % epoch

    def do(store: CheckpointStore, promises: Promises) -> None:
        promises.tried[epoch] = data
        save(store, ROOM, epoch, data)
        promises.epochs[epoch] = data

    return do


def deletes(store: CheckpointStore, promises: Promises) -> None:
    promises.pending_deletion = True
    list(store.delete_room(ROOM))
    promises.pending_deletion = False
    promises.deleted_up_to = max(promises.epochs)
    promises.epochs = {}


def hibernates(data: bytes) -> Step:
    def do(store: CheckpointStore, promises: Promises) -> None:
        promises.is_snapshot_pending, promises.pending_snapshot = True, data
        hibernate(store, ROOM, data)
        promises.is_snapshot_pending, promises.snapshot = False, data

    return do


def confirms(store: CheckpointStore, promises: Promises) -> None:
    promises.is_snapshot_pending, promises.pending_snapshot = True, None
    snapshot, data = restore(store, ROOM)
    confirm(store, snapshot, data)
    promises.is_snapshot_pending, promises.snapshot = False, None


SCENARIOS: dict[str, list[Step]] = {
    "saves": [saves(1), saves(2), saves(5), saves(3)],
    "a room that is deleted and begun anew": [saves(1), saves(2), deletes, saves(anew_after(2))],
    "a room that sleeps and wakes": [hibernates(b"one"), hibernates(b"two"), confirms, hibernates(b"three")],
}

MakeDisk = Callable[[Platter, Power], UnsyncedDisk]


class QuickDisk(Disk):
    """Syncs nothing: what is looked at need not last."""

    def fsync(self, fd: int) -> None:
        pass


def sweep(tmp_path: Path, steps: Sequence[Step], workers: Workers, make_disk: MakeDisk = UnsyncedDisk) -> Iterator[str]:
    """Lose power after no call, after the 1st, the 2nd ... until the steps complete; yield what that broke."""
    for calls in itertools.count():
        with TemporaryDirectory(dir=tmp_path) as directory:
            power = Power(calls)
            yield from (
                f"after {calls} calls: {wrong}" for wrong in lose(Path(directory), steps, workers, power, make_disk)
            )
            if not power.is_lost:
                return


def lose(directory: Path, steps: Sequence[Step], workers: Workers, power: Power, make_disk: MakeDisk) -> Iterator[str]:
    root = directory / "root"
    for name in ("tree", "locks", "scratch"):  # the root is given: only what happens in it is at stake
        (root / name).mkdir(parents=True)
    platter = Platter(root)
    disk = make_disk(platter, power)
    promises = Promises()
    with suppress(PowerLost):
        store = checkpoint_store(FilesystemStore(root, disk=disk), workers)
        for step in steps:
            step(store, promises)
    disk.release()
    chance = Random(0)
    shows = {"nothing": lambda: False, "all": lambda: True, "some": lambda: chance.random() < 0.5}
    for kept, shows_later in shows.items():
        rebuilt = directory / kept
        platter.rebuild(rebuilt, shows_later)
        with closing(FilesystemStore(rebuilt, disk=QuickDisk())) as objects:
            for wrong in broken(checkpoint_store(objects, workers), promises):
                yield f"{wrong}, with {kept} of the unsynced directory entries kept"


def broken(store: CheckpointStore, promises: Promises) -> Iterator[str]:
    """Yield which promises do not hold. Damage is raised."""
    yield from broken_epochs(store, promises)
    data = None
    with suppress(NotFound):
        data = restore(store, ROOM)[1]
    if data != promises.snapshot and not (promises.is_snapshot_pending and data == promises.pending_snapshot):
        yield f"the snapshot is {data!r}"


def broken_epochs(store: CheckpointStore, promises: Promises) -> Iterator[str]:
    try:
        latest, data = load(store, ROOM)
    except NotFound:
        if promises.epochs and not promises.pending_deletion:
            yield "the room has no checkpoint"
        return
    if latest < max(promises.epochs, default=0) or latest <= promises.deleted_up_to:
        yield f"the pointer is at {latest}"
    if data != promises.tried[latest]:
        yield f"epoch {latest} is {data!r}"
    for epoch, expected in promises.epochs.items():
        try:
            if load(store, ROOM, epoch) != (epoch, expected):
                yield f"epoch {epoch} is another"
        except NotFound:
            yield f"epoch {epoch} is gone"
    # Whoever goes on does so above all that there is, and that is then the latest.
    found = store.stat(ROOM, None, min_epoch=None)
    save(store, ROOM, found.next_epoch, b"next")
    if load(store, ROOM) != (found.next_epoch, b"next"):
        yield "a save after the loss of power is not the latest"


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    """Threads."""
    workers = Workers()
    yield workers
    workers.close()


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_loss_of_power_loses_nothing_that_was_saved(tmp_path: Path, workers: Workers, scenario: str) -> None:
    assert list(sweep(tmp_path, SCENARIOS[scenario], workers)) == []


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


@pytest.mark.parametrize("make_disk", [ForgetsDirectories, ForgetsFiles])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_these_tests_notice_a_disk_that_forgets(
    tmp_path: Path, workers: Workers, make_disk: MakeDisk, scenario: str
) -> None:
    def first() -> str | None:
        try:
            return next(sweep(tmp_path, SCENARIOS[scenario], workers, make_disk), None)
        except HoldfastError as damage:
            return damage.message

    assert first() is not None
