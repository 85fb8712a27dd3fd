"""What CheckpointStore does, what holds of it while it is done, and afterwards: for who interrupts it."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from holdfast_server.checkpoints.limits import DEFAULT_TOMBSTONE_SECONDS
from holdfast_server.checkpoints.names import RoomId
from holdfast_server.checkpoints.pruning import Retention
from holdfast_server.checkpoints.snapshot_reading import Snapshot
from holdfast_server.checkpoints.store import CheckpointStore
from holdfast_server.errors import AlreadyExists, EpochTooOld, NotFound
from holdfast_server.objects.base import ObjectStore
from holdfast_server.objects.body import Body
from holdfast_server.objects.conditions import CreateOnly
from holdfast_server.workers import Workers
from tests.support.checkpoint_damage import flipped
from tests.support.checkpoint_stores import checkpoint_store, confirm, hibernate, load, restore, save
from tests.support.disk_operations import content
from tests.support.failing_store import FailingStore, Killed
from tests.support.tombstones import anew_after

ROOM = RoomId("arena/7")
OLD = {1: b"one", 2: b"two", 3: b"three"}
NEW = b"the newest"
ANEW = anew_after(3)
KEEP_ONE = Retention(1, timedelta(0))
LIFETIME = timedelta(seconds=DEFAULT_TOMBSTONE_SECONDS)


@dataclass(frozen=True)
class Stage:
    """The server at which operations fail, another one, and what they share."""

    store: CheckpointStore
    other: CheckpointStore
    objects: ObjectStore
    failing: FailingStore
    workers: Workers


class Scenario:
    """What is done while operations fail, and what holds before it is repeated, and afterwards."""

    def prepare(self, stage: Stage) -> Any:
        """Make what is there at first."""
        for epoch, data in OLD.items():
            save(stage.store, ROOM, epoch, data)

    def do(self, store: CheckpointStore, prepared: Any) -> None:
        """Do it; or do it again."""
        raise NotImplementedError

    def meanwhile(self, store: CheckpointStore) -> None:
        """Check what holds whether it was done or not: the pointer names something good, and the old is there."""
        assert load(store, ROOM) in ((3, OLD[3]), (4, NEW))
        check_old(store)

    def afterwards(self, store: CheckpointStore) -> None:
        """Check what holds once it was done."""
        assert load(store, ROOM) == (4, NEW)
        check_old(store)


def check_old(store: CheckpointStore) -> None:
    for epoch, data in OLD.items():
        assert load(store, ROOM, epoch) == (epoch, data)


def epochs(store: CheckpointStore) -> list[int]:
    return [each.epoch for each in store.checkpoints_of(ROOM, from_epoch=0, page_size=0, page_token="")[0]]


class ASave(Scenario):
    def do(self, store: CheckpointStore, _prepared: Any) -> None:
        saved = save(store, ROOM, 4, NEW)
        assert (saved.latest_epoch, saved.next_epoch) == (4, 5)


class AFirstSave(Scenario):
    def prepare(self, _stage: Stage) -> None:
        """Nothing is there."""

    def do(self, store: CheckpointStore, _prepared: Any) -> None:
        assert save(store, ROOM, 1, NEW).latest_epoch == 1

    def meanwhile(self, store: CheckpointStore) -> None:
        with suppress(NotFound):
            assert load(store, ROOM) == (1, NEW)

    def afterwards(self, store: CheckpointStore) -> None:
        assert load(store, ROOM) == (1, NEW)


class ASaveWithAnOldPointerInMind(ASave):
    def prepare(self, stage: Stage) -> None:
        for epoch, data in OLD.items():
            save(stage.store if epoch < len(OLD) else stage.other, ROOM, epoch, data)


class ASaveThatExpectsAnEpoch(ASave):
    def do(self, store: CheckpointStore, _prepared: Any) -> None:
        assert save(store, ROOM, 4, NEW, if_latest_epoch=3).latest_epoch == 4


class ALateSave(Scenario):
    def do(self, store: CheckpointStore, _prepared: Any) -> None:
        assert save(store, ROOM, 0, b"late").latest_epoch == 3

    def afterwards(self, store: CheckpointStore) -> None:
        assert load(store, ROOM) == (3, OLD[3])
        assert load(store, ROOM, 0) == (0, b"late")
        check_old(store)


class ASaveOverDamage(Scenario):
    """The pointer is damaged, and a save is told to replace it."""

    def prepare(self, stage: Stage) -> None:
        super().prepare(stage)
        damage(stage.objects)

    def do(self, store: CheckpointStore, _prepared: Any) -> None:
        assert save(store, ROOM, 4, NEW, replace_damaged_pointer=True).latest_epoch == 4

    def meanwhile(self, store: CheckpointStore) -> None:
        check_old(store)
        assert load(store, ROOM, fallback=True) in ((3, OLD[3]), (4, NEW))


class APrune(Scenario):
    def do(self, store: CheckpointStore, _prepared: Any) -> None:
        list(store.prune(ROOM, KEEP_ONE))

    def meanwhile(self, store: CheckpointStore) -> None:
        assert load(store, ROOM) == (3, OLD[3])

    def afterwards(self, store: CheckpointStore) -> None:
        assert load(store, ROOM) == (3, OLD[3])
        assert epochs(store) == [3]


class ADeletion(Scenario):
    def do(self, store: CheckpointStore, _prepared: Any) -> None:
        list(store.delete_room(ROOM))

    def meanwhile(self, store: CheckpointStore) -> None:
        """Check that it is all there, or nothing is."""
        try:
            assert load(store, ROOM) == (3, OLD[3])
        except NotFound:
            for epoch in OLD:
                with pytest.raises(NotFound):
                    load(store, ROOM, epoch)
        else:
            check_old(store)

    def afterwards(self, store: CheckpointStore) -> None:
        with pytest.raises(NotFound):
            load(store, ROOM)
        assert epochs(store) == []


class ADeletionOfMoreThanThePointerNames(ADeletion):
    def prepare(self, stage: Stage) -> None:
        super().prepare(stage)
        dying = FailingStore(stage.objects)
        dying.fail(3, after=False, kill=True)  # the put of the pointer
        with pytest.raises(Killed):
            save(checkpoint_store(dying, stage.workers), ROOM, 4, NEW)
        assert load(stage.other, ROOM, 4) == (4, NEW)

    def afterwards(self, store: CheckpointStore) -> None:
        super().afterwards(store)
        with pytest.raises(EpochTooOld):
            save(store, ROOM, 4, b"another")


class ADeletionOfADamagedRoom(ADeletion):
    def prepare(self, stage: Stage) -> None:
        super().prepare(stage)
        damage(stage.objects)

    def meanwhile(self, store: CheckpointStore) -> None:
        with suppress(NotFound):
            check_old(store)


class ASaveAfterADeletion(Scenario):
    def prepare(self, stage: Stage) -> None:
        super().prepare(stage)
        list(stage.other.delete_room(ROOM))

    def do(self, store: CheckpointStore, _prepared: Any) -> None:
        assert save(store, ROOM, ANEW, NEW).latest_epoch == ANEW

    def meanwhile(self, store: CheckpointStore) -> None:
        with suppress(NotFound):
            assert load(store, ROOM) == (ANEW, NEW)

    def afterwards(self, store: CheckpointStore) -> None:
        assert load(store, ROOM) == (ANEW, NEW)
        assert epochs(store) == [ANEW]


class ATombstonesRemoval(Scenario):
    def prepare(self, stage: Stage) -> None:
        super().prepare(stage)
        list(stage.store.delete_room(ROOM))
        stage.failing.clock_ahead = 2 * LIFETIME

    def do(self, store: CheckpointStore, _prepared: Any) -> None:
        store.deleting.tidy_tombstones(LIFETIME)

    def meanwhile(self, store: CheckpointStore) -> None:
        with pytest.raises(NotFound):
            load(store, ROOM)

    def afterwards(self, store: CheckpointStore) -> None:
        self.meanwhile(store)


class AHibernation(Scenario):
    def prepare(self, stage: Stage) -> None:
        hibernate(stage.store, ROOM, b"before")

    def do(self, store: CheckpointStore, _prepared: Any) -> None:
        hibernate(store, ROOM, NEW)

    def meanwhile(self, store: CheckpointStore) -> None:
        assert restore(store, ROOM)[1] in (b"before", NEW)

    def afterwards(self, store: CheckpointStore) -> None:
        assert restore(store, ROOM)[1] == NEW


class AConfirmation(Scenario):
    def prepare(self, stage: Stage) -> Snapshot:
        return hibernate(stage.store, ROOM, NEW)

    def do(self, store: CheckpointStore, prepared: Any) -> None:
        confirm(store, prepared, NEW, "node-1")

    def meanwhile(self, store: CheckpointStore) -> None:
        with suppress(NotFound):
            assert restore(store, ROOM)[1] == NEW

    def afterwards(self, store: CheckpointStore) -> None:
        with pytest.raises(NotFound):
            restore(store, ROOM)


class AHibernationOnceMore(AHibernation):
    def prepare(self, stage: Stage) -> None:
        confirm(stage.store, hibernate(stage.store, ROOM, b"before"), b"before")

    def do(self, store: CheckpointStore, _prepared: Any) -> None:
        try:
            hibernate(store, ROOM, NEW, CreateOnly())
        except AlreadyExists:
            assert restore(store, ROOM)[1] == NEW  # it was done, and nobody was told

    def meanwhile(self, store: CheckpointStore) -> None:
        with suppress(NotFound):
            assert restore(store, ROOM)[1] == NEW


def damage(objects: ObjectStore) -> None:
    """Flip a bit of the pointer."""
    sealed = content(objects, ROOM.pointer_key)
    assert sealed is not None
    objects.put(ROOM.pointer_key, Body.of(flipped(sealed, len(sealed) // 2, 1)))


SCENARIOS = [
    ASave,
    AFirstSave,
    ASaveWithAnOldPointerInMind,
    ASaveThatExpectsAnEpoch,
    ALateSave,
    ASaveOverDamage,
    APrune,
    ADeletion,
    ADeletionOfMoreThanThePointerNames,
    ADeletionOfADamagedRoom,
    ASaveAfterADeletion,
    ATombstonesRemoval,
    AHibernation,
    AHibernationOnceMore,
    AConfirmation,
]
