"""How long a tombstone that was seen counts: until another server may have removed it, by the times that it is told.

Two servers may be told the time of one put up to a minute apart. So a tombstone's end is expected a minute early; for
one that is kept for a short time, a tenth of that.
"""

from datetime import datetime, timedelta

import pytest

from holdfast_server.checkpoints.key_ring import FixedKeys, KeyRing
from holdfast_server.checkpoints.names import RoomId
from holdfast_server.checkpoints.pointers import BadPointer, Pointers, Target
from holdfast_server.objects.body import Body
from holdfast_server.objects.memory import MemoryStore
from tests.support.meddled_store import MeddledStore

ROOM = RoomId("duel")
TAG = b"t" * 32
BEFORE, WITHIN = 1.5, 0.9
"""Of the margin, before a tombstone's end."""

KEPT = pytest.mark.parametrize(
    ("kept_seconds", "margin_seconds"), [(100, 10), (600, 60), (3600, 60), (14 * 86400, 60)], ids=str
)


class StoppedClock(MeddledStore):
    """Its clock stands still once it is `stopped_at` a time."""

    stopped_at: datetime | None = None

    def now(self) -> datetime:
        return self.stopped_at or super().now()


class Buried:
    """A room that was deleted at epoch 5, as the one who deleted it sees it."""

    def __init__(self, kept_seconds: float) -> None:
        self.objects = StoppedClock(MemoryStore())
        self.pointers = Pointers(self.objects, FixedKeys(KeyRing.fresh()), forget_seconds=kept_seconds)
        _, pointer = self.pointers.advance(Target(ROOM, 5, TAG), None)
        with self.objects.get(ROOM.pointer_key) as reader:
            self.live = b"".join(chunk.data for chunk in reader)
        self.pointers.bury(ROOM, 5, pointer)
        self.buried_at = self.objects.stat(ROOM.pointer_key).update_time

    def after(self, seconds: float) -> "Buried":
        self.objects.stopped_at = self.buried_at + timedelta(seconds=seconds)
        return self


@KEPT
def test_a_tombstone_that_is_gone_before_its_time_is_noticed(kept_seconds: float, margin_seconds: float) -> None:
    buried = Buried(kept_seconds)
    buried.objects.delete(ROOM.pointer_key)
    for seconds in (0, kept_seconds / 2, kept_seconds - margin_seconds * BEFORE):
        with pytest.raises(BadPointer, match="is gone, and this server has seen it deleted"):
            buried.after(seconds).pointers.read(ROOM)


@KEPT
def test_a_room_that_is_back_before_its_tombstones_time_is_noticed(kept_seconds: float, margin_seconds: float) -> None:
    buried = Buried(kept_seconds)
    buried.objects.put(ROOM.pointer_key, Body.of(buried.live))
    for seconds in (0, kept_seconds / 2, kept_seconds - margin_seconds * BEFORE):
        with pytest.raises(BadPointer, match="it was rolled back; files put back undo no deletion: delete it again"):
            buried.after(seconds).pointers.read(ROOM)


@KEPT
def test_a_tombstone_that_another_removed_by_a_clock_that_differs_is_no_alarm(
    kept_seconds: float, margin_seconds: float
) -> None:
    buried = Buried(kept_seconds)
    buried.objects.delete(ROOM.pointer_key)
    buried.after(kept_seconds - margin_seconds * WITHIN)
    assert buried.pointers.read(ROOM) is None
    moved, pointer = buried.pointers.advance(Target(ROOM, 0, TAG), None)
    assert (moved, pointer.epoch) == (True, 0)


@KEPT
def test_a_room_that_others_began_anew_by_a_clock_that_differs_is_no_alarm(
    kept_seconds: float, margin_seconds: float
) -> None:
    buried = Buried(kept_seconds)
    others = Pointers(buried.objects, buried.pointers._keys, forget_seconds=kept_seconds)
    buried.objects.delete(ROOM.pointer_key)
    others.advance(Target(ROOM, 0, TAG), None)
    found = buried.after(kept_seconds - margin_seconds * WITHIN).pointers.read(ROOM)
    assert found is not None
    assert (found.epoch, buried.pointers.furthest_epoch(ROOM)) == (0, 0)


@KEPT
def test_a_tombstone_that_is_there_counts_however_old_it_is(kept_seconds: float, margin_seconds: float) -> None:
    found = Buried(kept_seconds).after(kept_seconds * 2 + margin_seconds).pointers.read(ROOM)
    assert found is not None
    assert (found.epoch, found.is_deleted) == (5, True)
