"""Tidying tombstones: one behind which a room lives, or whose pointer is not good, is left alone."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.support.any_checkpoints import ON_EACH_BACKEND, Checkpoints, epoch_name, pointer_name, refused

pytestmark = ON_EACH_BACKEND

ROOM, GONE = "arena", "zoo"
AGE = timedelta(days=14)


def roll_back(checkpoints: Checkpoints) -> int:
    """Put the tombstone of a room back that was begun anew, and what it had deleted; return the room's epoch now."""
    checkpoints.save(ROOM, 5, b"five")
    deleted = checkpoints.stored(epoch_name(ROOM, 5))
    now = checkpoints.delete_room(ROOM).next_epoch
    tombstone = checkpoints.stored(pointer_name(ROOM))
    checkpoints.save(ROOM, now, b"anew")
    for name, data in ((pointer_name(ROOM), tombstone), (epoch_name(ROOM, 5), deleted)):
        checkpoints.put(name, data)
    return now


def roll_back_alone(checkpoints: Checkpoints) -> None:
    """Do the same, and let nothing else of the room be there."""
    for epoch in (5, roll_back(checkpoints)):
        checkpoints.remove(epoch_name(ROOM, epoch))


def damage(checkpoints: Checkpoints) -> None:
    """Damage the pointer of a room with three checkpoints."""
    for epoch in (4, 5, 6):
        checkpoints.save(ROOM, epoch, b"data")
    checkpoints.put(pointer_name(ROOM), b"garbage")


BAD: dict[str, Callable[[Checkpoints], object]] = {
    "rolled back": roll_back,
    "rolled back, nothing left": roll_back_alone,
    "damaged": damage,
}


@pytest.mark.parametrize("how", BAD)
def test_what_is_not_known_to_be_a_rooms_tombstone_is_left_alone(
    checkpoints: Checkpoints, backend: str, how: str
) -> None:
    """And the others, before and behind it, are tidied."""
    BAD[how](checkpoints)
    theirs = [name for name in checkpoints.names() if name.startswith(f"snapshots/{ROOM}/")]
    for room in ("a", GONE):
        checkpoints.save(room, 1)
        checkpoints.delete_room(room)
    checkpoints.objects.clock_ahead = AGE + timedelta(days=1)
    is_removed = backend != "minio"  # MinIO keeps no condition of a deletion, so tombstones stay
    for removed in (2 * is_removed, 0):
        assert checkpoints.store.deleting.tidy_tombstones(AGE) == removed
    assert checkpoints.names() == (theirs if is_removed else [pointer_name("a"), *theirs, pointer_name(GONE)])


def test_a_room_whose_tombstone_was_put_back_lives_on_once_its_pointer_is_replaced(checkpoints: Checkpoints) -> None:
    now = roll_back(checkpoints)
    checkpoints.objects.clock_ahead = AGE + timedelta(days=1)
    checkpoints.store.deleting.tidy_tombstones(AGE)
    with refused("POINTER_INVALID", "DATA_LOSS"):
        checkpoints.load(ROOM)
    assert checkpoints.load(ROOM, epoch=now).data == b"anew"
    assert checkpoints.save(ROOM, now + 1, b"on", replace_damaged_pointer=True).pointer_moved
    assert checkpoints.load(ROOM, epoch=now).data == b"anew"
