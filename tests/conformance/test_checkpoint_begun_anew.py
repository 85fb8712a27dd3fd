"""What was deleted with a room stays deleted: for who has not heard of it, and in the room that is begun anew."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from holdfast_server.checkpoints.names import MAX_EPOCH, MAX_RISE
from tests.support.any_checkpoints import ON_EACH_BACKEND, Checkpoints, epoch_name, pointer_name, refused, tried
from tests.support.meddled_store import meanwhile, once
from tests.support.tombstones import GAP, anew_after, tombstone_of

pytestmark = ON_EACH_BACKEND

ROOM = "arena"
HOUR = timedelta(hours=1)
AGE = timedelta(days=14)
LAST = 3
ANEW = anew_after(LAST)


def fill(checkpoints: Checkpoints) -> None:
    for epoch in range(LAST + 1):
        checkpoints.save(ROOM, epoch, b"old %d" % epoch)


def there(checkpoints: Checkpoints) -> list[int]:
    """Return the epochs that are stored, whether they are shown or not."""
    names = [name for name in checkpoints.names() if name.startswith(f"snapshots/{ROOM}/0")]
    return [int(name.rpartition("/")[2]) for name in names]


# Who has not heard of it.


@pytest.mark.parametrize("epoch", [LAST, LAST + 1, LAST + 100, LAST + GAP])
@pytest.mark.parametrize("how", ["remembers", "restarted", "at once"])
def test_a_node_that_has_not_heard_of_a_deletion_cannot_bring_the_room_back(
    checkpoints: Checkpoints, how: str, epoch: int
) -> None:
    """Neither where its server remembers the pointer, nor where the room is deleted while the bytes come."""
    fill(checkpoints)
    with checkpoints.beside() as other:
        if how == "at once" and epoch > LAST:
            checkpoints.objects.before = meanwhile("put", epoch_name(ROOM, epoch), lambda: other.delete_room(ROOM))
        else:
            other.delete_room(ROOM)
        if how == "restarted":
            checkpoints.restart()
        for data in (b"the old room", b"the old room"):
            with refused("EPOCH_TOO_OLD", "FAILED_PRECONDITION") as refusal:
                checkpoints.save(ROOM, epoch, data)
            assert refusal.names == {
                "room_id": ROOM,
                "latest_epoch": str(tombstone_of(LAST)),
                "next_epoch": str(ANEW),
                "deleted": "true",
            }
            assert refusal.message == (
                f"room 'arena' was deleted: it can be begun anew from epoch {ANEW} on, and epoch {epoch} is below"
            )
        for each in (checkpoints, other):
            for fallback in (False, True):
                with refused("ROOM_NOT_FOUND", "NOT_FOUND"):
                    each.load(ROOM, fallback=fallback)
            assert each.epochs(ROOM) == []
            assert each.rooms() == []
        assert other.save(ROOM, ANEW, b"anew").pointer_moved
        assert checkpoints.load(ROOM).data == b"anew"


def test_what_who_has_not_heard_has_left_is_swept_and_the_tombstone_removed(
    checkpoints: Checkpoints, backend: str
) -> None:
    fill(checkpoints)
    with checkpoints.beside() as other:
        other.delete_room(ROOM)
        with refused("EPOCH_TOO_OLD"):
            checkpoints.save(ROOM, LAST + 1, b"late")
    assert there(checkpoints) == [LAST + 1]
    checkpoints.objects.clock_ahead = AGE + HOUR
    is_removed = backend != "minio"  # MinIO keeps no condition of a deletion, so tombstones stay
    for removed in (0, is_removed):
        assert checkpoints.store.deleting.tidy_tombstones(AGE) == removed
        assert there(checkpoints) == []


@pytest.mark.parametrize("highest", [MAX_EPOCH - GAP - 1, MAX_EPOCH - GAP, MAX_EPOCH - 2, MAX_EPOCH - 1])
def test_at_the_end_of_all_epochs_one_is_left_to_begin_the_room_anew_with(
    checkpoints: Checkpoints, highest: int
) -> None:
    checkpoints.save(ROOM, MAX_RISE)
    checkpoints.delete_room(ROOM)
    checkpoints.save(ROOM, highest)
    assert checkpoints.delete_room(ROOM).next_epoch == MAX_EPOCH
    with refused("EPOCH_TOO_OLD", "FAILED_PRECONDITION"):
        checkpoints.save(ROOM, MAX_EPOCH - 1)
    assert checkpoints.save(ROOM, MAX_EPOCH, b"anew").pointer_moved
    assert checkpoints.load(ROOM).data == b"anew"


def test_a_damaged_tombstone_is_put_back_where_it_was_by_who_knows_it(checkpoints: Checkpoints) -> None:
    fill(checkpoints)
    checkpoints.delete_room(ROOM)
    for _ in range(2):
        checkpoints.put(pointer_name(ROOM), b"garbage")
        assert checkpoints.delete_room(ROOM).next_epoch == ANEW


# In the room that is begun anew, where a deletion broke off.


def begin_anew(checkpoints: Checkpoints) -> None:
    """Leave epochs 2 and 3 of a deleted room, and begin it anew, with two saves."""
    fill(checkpoints)
    checkpoints.objects.before = once("delete", epoch_name(ROOM, 2))
    with refused("BACKEND_UNAVAILABLE"):
        checkpoints.delete_room(ROOM)
    checkpoints.objects.calm()
    for epoch in (ANEW, ANEW + 1):
        assert checkpoints.save(ROOM, epoch, b"anew %d" % epoch).pointer_moved
    assert there(checkpoints) == [2, 3, ANEW, ANEW + 1]


WHO: dict[str, Callable[[Checkpoints], object]] = {"knows": lambda _checkpoints: None, "reads": Checkpoints.restart}


@pytest.mark.parametrize("who", WHO)
def test_what_was_deleted_is_not_shown_in_the_room_that_is_begun_anew(checkpoints: Checkpoints, who: str) -> None:
    begin_anew(checkpoints)
    WHO[who](checkpoints)
    calls: list[Callable[..., Any]] = [checkpoints.stat, checkpoints.load, partial(checkpoints.load, fallback=True)]
    assert checkpoints.epochs(ROOM) == checkpoints.epochs(ROOM, page_size=1) == [ANEW, ANEW + 1]
    assert checkpoints.epochs(ROOM, from_epoch=3) == [ANEW, ANEW + 1]
    for call in calls:
        for epoch in (2, 3):
            with refused("CHECKPOINT_NOT_FOUND", "NOT_FOUND"):
                call(ROOM, epoch=epoch)
        assert call(ROOM, epoch=ANEW)
    assert (checkpoints.stat(ROOM).latest_epoch, checkpoints.stat(ROOM).next_epoch) == (ANEW + 1, ANEW + 2)
    assert [room.latest_epoch for room in checkpoints.rooms()] == [ANEW + 1]


@pytest.mark.parametrize("who", WHO)
def test_what_was_deleted_is_nothing_to_fall_back_to(checkpoints: Checkpoints, who: str) -> None:
    begin_anew(checkpoints)
    WHO[who](checkpoints)
    checkpoints.flip(epoch_name(ROOM, ANEW + 1))
    assert checkpoints.load(ROOM, fallback=True).info.epoch == ANEW
    checkpoints.flip(epoch_name(ROOM, ANEW))
    with refused("SEAL_INVALID", "DATA_LOSS"):
        checkpoints.load(ROOM, fallback=True)


def test_who_has_seen_the_pointer_does_not_fall_back_to_what_was_deleted_once_it_is_damaged(
    checkpoints: Checkpoints,
) -> None:
    begin_anew(checkpoints)
    checkpoints.put(pointer_name(ROOM), b"garbage")
    for _ in range(2):  # from memory, and once the damage was noticed
        assert checkpoints.epochs(ROOM) == [ANEW, ANEW + 1]
        assert checkpoints.load(ROOM, fallback=True).info.epoch == ANEW + 1
    for epoch in (ANEW, ANEW + 1):
        checkpoints.remove(epoch_name(ROOM, epoch))
    with refused("POINTER_INVALID", "DATA_LOSS"):
        checkpoints.load(ROOM, fallback=True)
    assert checkpoints.save(ROOM, ANEW + 2, b"two", replace_damaged_pointer=True).pointer_moved
    checkpoints.restart()
    assert checkpoints.epochs(ROOM) == [ANEW + 2], "the pointer that replaced it says so, too"


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("epoch", [0, 3, LAST + 1, ANEW - 1])
def test_who_has_not_heard_cannot_save_beneath_the_room_that_was_begun_anew(
    checkpoints: Checkpoints, who: str, epoch: int
) -> None:
    """Not even the bytes that are there: what is acknowledged is to be had afterwards."""
    with checkpoints.beside() as other:
        fill(other)
        begin_anew(checkpoints)
        WHO[who](other)
        for _ in range(2):
            with refused("EPOCH_TOO_OLD", "FAILED_PRECONDITION") as refusal:
                other.save(ROOM, epoch, b"old %d" % epoch)
            assert refusal.names == {
                "room_id": ROOM,
                "latest_epoch": str(ANEW + 1),
                "next_epoch": str(ANEW + 2),
                "deleted": "true",
            }
        assert checkpoints.epochs(ROOM) == [ANEW, ANEW + 1]
        left = there(checkpoints)
        with refused("EPOCH_TOO_OLD", "FAILED_PRECONDITION"):
            other.save(ROOM, epoch + (2 if epoch < LAST else -2), b"by now it has heard")
        assert there(checkpoints) == left
    assert checkpoints.load(ROOM).data == b"anew %d" % (ANEW + 1)


@pytest.mark.parametrize("is_damaged", [False, True], ids=["another", "damaged"])
@pytest.mark.parametrize("is_begun_anew", [False, True], ids=["deleted", "begun anew"])
@pytest.mark.parametrize("who", WHO)
def test_who_has_not_heard_is_not_told_to_go_on_above_where_something_was_left_at_its_epoch(
    checkpoints: Checkpoints, who: str, is_begun_anew: bool, is_damaged: bool
) -> None:
    """Told where to save what is another's epoch, it would save the old room there, as the new one's latest."""
    with checkpoints.beside() as other:
        fill(other)
        begin_anew(checkpoints)
        if not is_begun_anew:
            left = checkpoints.stored(epoch_name(ROOM, 3))
            checkpoints.delete_room(ROOM)
            checkpoints.put(epoch_name(ROOM, 3), left)
        if is_damaged:
            checkpoints.flip(epoch_name(ROOM, 3))
        WHO[who](other)
        for replace in (False, True):
            with refused("EPOCH_TOO_OLD", "FAILED_PRECONDITION") as refusal:
                other.save(ROOM, 3, b"another", replace_damaged_pointer=replace)
            assert refusal.names["deleted"] == "true"
        checkpoints.put(pointer_name(ROOM), b"garbage")
        with refused("EPOCH_TOO_OLD", "FAILED_PRECONDITION"):
            other.save(ROOM, 3, b"another", replace_damaged_pointer=True)


# How it goes.


@pytest.mark.parametrize("room", [ROOM, ""], ids=["one", "all"])
def test_pruning_deletes_what_was_deleted_whatever_is_to_be_kept(checkpoints: Checkpoints, room: str) -> None:
    begin_anew(checkpoints)
    sizes = sum(len(checkpoints.stored(epoch_name(ROOM, epoch))) for epoch in (2, 3))
    for dry_run in (True, False):
        assert there(checkpoints) == [2, 3, ANEW, ANEW + 1]
        summary = checkpoints.prune(room, keep_last=100, older_than=1_000_000, dry_run=dry_run)[-1]
        assert (summary.deleted, summary.kept, summary.deleted_bytes) == (2, 2, sizes)
    assert there(checkpoints) == [ANEW, ANEW + 1]


def test_what_was_deleted_does_not_count_for_what_is_kept(checkpoints: Checkpoints) -> None:
    begin_anew(checkpoints)
    checkpoints.objects.clock_ahead = HOUR
    summary = checkpoints.prune(ROOM, keep_last=1)[-1]
    assert (summary.deleted, summary.kept) == (3, 1)
    assert there(checkpoints) == [ANEW + 1]


def test_housekeeping_sweeps_what_was_deleted_once_it_is_old(checkpoints: Checkpoints) -> None:
    begin_anew(checkpoints)
    tidy = checkpoints.store.deleting.tidy_tombstones
    for ahead in (timedelta(0), HOUR - timedelta(minutes=1)):
        checkpoints.objects.clock_ahead = ahead
        assert (tidy(AGE), there(checkpoints)) == (0, [2, 3, ANEW, ANEW + 1])
    checkpoints.objects.clock_ahead = HOUR + timedelta(minutes=1)
    for _ in range(2):
        assert (tidy(AGE), there(checkpoints)) == (0, [ANEW, ANEW + 1])


def test_nothing_is_deleted_beneath_a_room_whose_latest_is_not_good(checkpoints: Checkpoints) -> None:
    """An old pointer that somebody has put back is good, and what it names is not there."""
    begin_anew(checkpoints)
    checkpoints.flip(epoch_name(ROOM, ANEW + 1))
    checkpoints.objects.clock_ahead = HOUR * 2
    left = there(checkpoints)
    with refused("SEAL_INVALID", "DATA_LOSS"):
        checkpoints.prune(ROOM, keep_last=100)
    checkpoints.store.deleting.tidy_tombstones(AGE)
    assert there(checkpoints) == left


def test_a_room_that_was_begun_anew_is_deleted_with_all_that_was_left(checkpoints: Checkpoints) -> None:
    begin_anew(checkpoints)
    done = checkpoints.delete_room(ROOM)
    assert (done.deleted, done.existed, done.next_epoch) == (4, True, anew_after(ANEW + 1))
    assert checkpoints.names() == [pointer_name(ROOM)]
    tried(lambda: checkpoints.save(ROOM, ANEW + 2, b"late"))
    assert checkpoints.save(ROOM, done.next_epoch, b"once more").pointer_moved
    checkpoints.restart()
    assert checkpoints.epochs(ROOM) == [done.next_epoch]
    with refused("EPOCH_TOO_OLD"):
        checkpoints.save(ROOM, ANEW + 3, b"late")
