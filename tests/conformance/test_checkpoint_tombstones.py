"""What becomes of a tombstone, and of what late saves leave beside it."""

from datetime import timedelta
from functools import partial
from itertools import count

import pytest

from holdfast_server.checkpoints.housekeeping import Housekeeping
from holdfast_server.checkpoints.pruning import Retention
from tests.support.any_checkpoints import (
    ON_EACH_BACKEND,
    Checkpoints,
    epoch_name,
    pointer_name,
    refused,
    snapshot_name,
    tried,
)
from tests.support.meddled_store import once
from tests.support.tombstones import anew_after

pytestmark = ON_EACH_BACKEND

ROOM = "arena"
HOUR = timedelta(hours=1)
HOUR_SECONDS = 3600
ANEW = anew_after(5)


def housekeeping(checkpoints: Checkpoints, retention: Retention | None, tombstone_seconds: float) -> Housekeeping:
    return Housekeeping(
        checkpoints.store,
        retention=retention,
        interval_seconds=HOUR_SECONDS,
        tombstone_seconds=tombstone_seconds,
        clock=partial(next, count(0, 24 * HOUR_SECONDS)),  # it looks for tombstones once in a while
    )


def test_housekeeping_prunes_and_removes_old_tombstones(checkpoints: Checkpoints, backend: str) -> None:
    for epoch in range(10):
        checkpoints.save(ROOM, epoch, b"%d" % epoch)
    checkpoints.objects.clock_ahead = HOUR
    for room in ("gone", "slept"):
        checkpoints.save(room, 1)
    checkpoints.delete_room("gone")
    snapshot = checkpoints.hibernate("slept", b"x")
    checkpoints.confirm("slept", snapshot.etag, snapshot.sha256)
    young = housekeeping(checkpoints, None, 2 * HOUR_SECONDS)
    old = housekeeping(checkpoints, Retention(2, timedelta(minutes=1)), HOUR_SECONDS / 2)
    there = checkpoints.names()
    young.tidy()
    assert checkpoints.names() == there
    old.tidy()
    assert checkpoints.epochs(ROOM) == [8, 9]
    left = {pointer_name("gone"), snapshot_name("slept")} & set(checkpoints.names())
    if backend == "minio":
        assert len(left) == 2, "MinIO keeps no condition of a deletion, so they stay"
        return
    assert left == set()
    assert checkpoints.save("gone", 0, b"anew").pointer_moved
    assert checkpoints.load("slept").info.epoch == 1


def test_a_tombstone_of_a_room_that_is_there_again_is_not_removed(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 1)
    checkpoints.save(ROOM, checkpoints.delete_room(ROOM).next_epoch, b"2")
    checkpoints.objects.clock_ahead = HOUR
    assert checkpoints.store.deleting.tidy_tombstones(timedelta(0)) == 0
    assert checkpoints.load(ROOM).data == b"2"


def test_a_tombstone_that_is_replaced_while_it_is_removed_stays_replaced(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 1)
    anew = checkpoints.delete_room(ROOM).next_epoch
    checkpoints.objects.clock_ahead = HOUR
    with checkpoints.beside() as other:

        def meddle(operation: str, _name: str) -> None:
            if operation == "delete":
                other.save(ROOM, anew, b"2")

        checkpoints.objects.before = meddle
        assert checkpoints.store.deleting.tidy_tombstones(timedelta(0)) == 0
    assert checkpoints.load(ROOM).data == b"2"


# What a late save leaves beside a tombstone.


def leave_orphans(checkpoints: Checkpoints, *epochs: int) -> None:
    """Leave checkpoints beside a tombstone at epoch 5: their saves were broken off, or told that they were too late."""
    checkpoints.save(ROOM, 5, b"data")
    orphans = {}
    for epoch in epochs:
        checkpoints.objects.before = once("put", pointer_name(ROOM))
        tried(partial(checkpoints.save, ROOM, epoch, b"orphan"))
        orphans[epoch_name(ROOM, epoch)] = checkpoints.stored(epoch_name(ROOM, epoch))
        if epoch > 5:
            checkpoints.remove(epoch_name(ROOM, epoch))
    checkpoints.objects.calm()
    assert checkpoints.delete_room(ROOM).next_epoch == ANEW
    for name, data in orphans.items():
        checkpoints.put(name, data)


def stored_epochs(checkpoints: Checkpoints) -> list[int]:
    """Return what is there, whether it is shown or not."""
    *names, last = [name for name in checkpoints.names() if name.startswith(f"snapshots/{ROOM}/")]
    assert last == pointer_name(ROOM)
    return [int(name.rpartition("/")[2]) for name in names]


def test_a_room_deleted_again_loses_what_late_saves_left(checkpoints: Checkpoints) -> None:
    leave_orphans(checkpoints, 3, 4, 6, ANEW, ANEW + 2)
    summary = checkpoints.delete_room(ROOM)
    assert (summary.deleted, summary.existed, summary.next_epoch) == (5, False, anew_after(ANEW + 2))
    assert checkpoints.names() == [pointer_name(ROOM)]


@pytest.mark.parametrize("above", [(), (ANEW, ANEW + 2)], ids=["nothing above", "and above"])
def test_housekeeping_sweeps_what_came_too_late_once_it_is_old(
    checkpoints: Checkpoints, backend: str, above: tuple[int, ...]
) -> None:
    """What lies above may be what the room is begun anew with: that is for who deletes it once more."""
    leave_orphans(checkpoints, 3, 4, 6, 8, *above)
    tidy = checkpoints.store.deleting.tidy_tombstones
    for ahead in (timedelta(0), HOUR - timedelta(minutes=1)):
        checkpoints.objects.clock_ahead = ahead
        assert tidy(timedelta(days=14)) == 0
        assert stored_epochs(checkpoints) == [3, 4, 6, 8, *above], "what is young may be of a save at work"
    checkpoints.objects.clock_ahead = HOUR + timedelta(minutes=1)
    assert tidy(timedelta(days=14)) == 0
    assert stored_epochs(checkpoints) == checkpoints.epochs(ROOM) == [*above]
    if above:
        checkpoints.delete_room(ROOM)
    assert checkpoints.names() == [pointer_name(ROOM)]
    checkpoints.objects.clock_ahead = timedelta(days=15)
    is_removed = backend != "minio"  # MinIO keeps no condition of a deletion, so tombstones stay
    assert tidy(timedelta(days=14)) == is_removed
    assert checkpoints.names() == ([] if is_removed else [pointer_name(ROOM)])


@pytest.mark.parametrize("taken_by", ["another payload", "damage", "the same"])
def test_a_room_deleted_elsewhere_is_not_gone_on_with_where_its_epoch_is_taken(
    checkpoints: Checkpoints, taken_by: str
) -> None:
    checkpoints.save(ROOM, 4, b"four")
    with checkpoints.beside() as other:
        other.save(ROOM, 5, b"mine" if taken_by == "the same" else b"of another")
        left = b"damage" if taken_by == "damage" else checkpoints.stored(epoch_name(ROOM, 5))
        other.delete_room(ROOM)
    checkpoints.put(epoch_name(ROOM, 5), left)
    with refused("EPOCH_TOO_OLD", "FAILED_PRECONDITION") as refusal:
        checkpoints.save(ROOM, 5, b"mine")
    assert refusal.names["deleted"] == "true"


def test_a_tombstone_that_others_removed_is_not_gone_by(checkpoints: Checkpoints, backend: str) -> None:
    checkpoints.save(ROOM, 4)
    checkpoints.delete_room(ROOM)
    with checkpoints.beside() as other:
        for each in (checkpoints, other):
            each.objects.clock_ahead = timedelta(days=15)
        assert other.store.deleting.tidy_tombstones(timedelta(days=14)) == (backend != "minio")
    if backend != "minio":  # which keeps no condition of a deletion, so there it stays
        assert checkpoints.save(ROOM, 0, b"anew").pointer_moved
        assert checkpoints.load(ROOM).data == b"anew"
