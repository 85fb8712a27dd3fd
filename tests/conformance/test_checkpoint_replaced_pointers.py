"""Replacing a damaged pointer: not where a condition could not be told, and not beneath a deletion."""

from collections.abc import Callable
from contextlib import closing

import pytest

from holdfast_server.objects.memory import MemoryStore
from tests.support.any_checkpoints import ON_EACH_BACKEND, SAME, Checkpoints, epoch_name, pointer_name, refused

pytestmark = ON_EACH_BACKEND

ROOM = "arena"


def damage(checkpoints: Checkpoints) -> None:
    checkpoints.put(pointer_name(ROOM), b"garbage")


def roll_back(checkpoints: Checkpoints) -> None:
    older = checkpoints.stored(pointer_name(ROOM))
    checkpoints.save(ROOM, 6, b"six")
    checkpoints.put(pointer_name(ROOM), older)


def lose(checkpoints: Checkpoints) -> None:
    checkpoints.remove(pointer_name(ROOM))


BAD: dict[str, Callable[[Checkpoints], None]] = {"damaged": damage, "rolled back": roll_back, "gone": lose}


# With a condition.


@pytest.mark.parametrize("how", BAD)
@pytest.mark.parametrize("expected", [-1, 5, 6, 8])
def test_a_bad_pointer_is_not_replaced_under_a_condition(checkpoints: Checkpoints, how: str, expected: int) -> None:
    """Nobody can tell what the latest epoch was."""
    checkpoints.save(ROOM, 5, b"five")
    BAD[how](checkpoints)
    there = checkpoints.names()
    with refused("POINTER_INVALID", "DATA_LOSS"):
        checkpoints.save(ROOM, 8, b"eight", replace_damaged_pointer=True, if_latest_epoch=expected)
    assert checkpoints.names() == there
    assert checkpoints.save(ROOM, 8, b"eight", replace_damaged_pointer=True).pointer_moved
    assert checkpoints.load(ROOM).data == b"eight"


def test_a_good_pointer_is_moved_under_a_condition_whatever_was_said_of_damage(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 5, b"five")
    with refused("CONCURRENT_MODIFICATION", "ABORTED"):
        checkpoints.save(ROOM, 6, b"six", replace_damaged_pointer=True, if_latest_epoch=4)
    assert checkpoints.save(ROOM, 6, b"six", replace_damaged_pointer=True, if_latest_epoch=5).pointer_moved


# Of a room that was deleted.


def bury(checkpoints: Checkpoints) -> int:
    """Delete a room at epoch 5, and damage its tombstone; return where the room can be begun anew."""
    checkpoints.save(ROOM, 5, b"five")
    next_epoch = checkpoints.delete_room(ROOM).next_epoch
    damage(checkpoints)
    return next_epoch


def test_nothing_is_saved_beneath_a_tombstone_that_was_damaged(checkpoints: Checkpoints) -> None:
    next_epoch = bury(checkpoints)
    for epoch in (0, 4, 5, next_epoch - 1):
        with refused("EPOCH_TOO_OLD", "FAILED_PRECONDITION") as refusal:
            checkpoints.save(ROOM, epoch, b"late", replace_damaged_pointer=True)
        assert (refusal.names["room_id"], refusal.names["next_epoch"]) == (ROOM, str(next_epoch))
    assert checkpoints.names() == [pointer_name(ROOM)]


def test_what_lies_beneath_a_damaged_tombstone_is_not_brought_back(checkpoints: Checkpoints) -> None:
    """Over the damaged pointer of a room that lives it would be: a try before may have stored it."""
    last = bury(checkpoints) - 1
    with closing(Checkpoints(MemoryStore(), checkpoints.keys)) as elsewhere:
        elsewhere.save(ROOM, last, b"late")
        checkpoints.put(epoch_name(ROOM, last), elsewhere.stored(epoch_name(ROOM, last)))
    with refused("EPOCH_TOO_OLD", "FAILED_PRECONDITION"):
        checkpoints.save(ROOM, last, b"late", replace_damaged_pointer=True)
    with refused("POINTER_INVALID", "DATA_LOSS"):
        checkpoints.load(ROOM)


def test_a_room_is_begun_anew_above_a_damaged_tombstone(checkpoints: Checkpoints) -> None:
    next_epoch = bury(checkpoints)
    with refused("POINTER_INVALID", "DATA_LOSS"):
        checkpoints.save(ROOM, next_epoch, b"anew")
    saved = checkpoints.save(ROOM, next_epoch, b"anew", replace_damaged_pointer=True)
    # The first one knew the tombstone, and noticed the damage only after its checkpoint.
    assert (saved.outcome, saved.pointer_moved, saved.latest_epoch) == (SAME, True, next_epoch)
    assert checkpoints.load(ROOM).data == b"anew"


def test_an_epoch_that_cannot_be_read_says_where_the_pointer_can_be_replaced(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 5, b"five")
    old = checkpoints.keys.rotate()
    checkpoints.keys.ring = checkpoints.keys.ring.retired(old)
    checkpoints.put(pointer_name(ROOM), b"damage")
    with refused("INVALID_EPOCH", "INVALID_ARGUMENT") as refusal:
        checkpoints.save(ROOM, 5, b"five", replace_damaged_pointer=True)
    assert refusal.names["next_epoch"] == "6"
    assert checkpoints.save(ROOM, 6, b"six", replace_damaged_pointer=True).pointer_moved
