"""A pointer is what it is now, whatever a server has in memory of it, and whatever another one does meanwhile."""

from datetime import timedelta

import pytest

from tests.support.any_checkpoints import ON_EACH_BACKEND, STORED, Checkpoints, epoch_name, pointer_name, refused
from tests.support.meddled_store import meanwhile
from tests.support.tombstones import anew_after

pytestmark = ON_EACH_BACKEND

ROOM = "arena"
HOUR = timedelta(hours=1)


def test_a_save_below_a_pointer_that_another_server_buried_is_too_old(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 100, b"data")
    with checkpoints.beside() as other:
        other.delete_room(ROOM)
        with refused("EPOCH_TOO_OLD", "FAILED_PRECONDITION") as refusal:
            checkpoints.save(ROOM, 50, b"late")
        anew = anew_after(100)
        assert refusal.names["next_epoch"] == str(anew)
        other.save(ROOM, anew, b"anew")
    assert checkpoints.load(ROOM).data == b"anew"


def test_what_is_acknowledged_below_a_pointer_in_memory_is_there(checkpoints: Checkpoints) -> None:
    """A late save lands below the pointer, which is another one by now."""
    checkpoints.save(ROOM, 5, b"data")
    with checkpoints.beside() as other:
        other.save(ROOM, 9, b"newer")
        answer = checkpoints.save(ROOM, 4, b"late")
    assert (answer.outcome, answer.pointer_moved, answer.latest_epoch, answer.next_epoch) == (STORED, False, 9, 10)
    assert checkpoints.load(ROOM, epoch=4).data == b"late"


def test_a_damaged_pointer_is_replaced_only_while_it_is_that_one(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 10, b"ten")
    checkpoints.put(pointer_name(ROOM), b"garbage")
    checkpoints.restart()
    with checkpoints.beside() as other:
        checkpoints.objects.before = meanwhile(
            "put", pointer_name(ROOM), lambda: other.save(ROOM, 12, b"twelve", replace_damaged_pointer=True)
        )
        with refused("CONCURRENT_MODIFICATION", "ABORTED"):
            checkpoints.save(ROOM, 11, b"eleven", replace_damaged_pointer=True)
        for each in (checkpoints, other):
            assert each.load(ROOM).info.epoch == 12


def test_a_deletion_sees_what_replaced_a_damaged_pointer_meanwhile(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 10, b"ten")
    checkpoints.put(pointer_name(ROOM), b"garbage")
    checkpoints.restart()
    with checkpoints.beside() as other:
        checkpoints.objects.before = meanwhile(
            "put", pointer_name(ROOM), lambda: other.save(ROOM, 12, b"twelve", replace_damaged_pointer=True)
        )
        summary = checkpoints.delete_room(ROOM)
        assert (summary.existed, summary.next_epoch) == (True, anew_after(12))
        assert checkpoints.names() == [pointer_name(ROOM)]
        with refused("EPOCH_TOO_OLD"):
            other.save(ROOM, 12, b"twelve")


def test_a_live_pointer_put_back_in_a_tombstones_place_is_noticed(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 5, b"data")
    live = checkpoints.stored(pointer_name(ROOM)), checkpoints.stored(epoch_name(ROOM, 5))
    with checkpoints.beside() as other:
        other.delete_room(ROOM)
        for each in (checkpoints, other):
            with refused("ROOM_NOT_FOUND"):
                each.load(ROOM)
        for name, data in zip((pointer_name(ROOM), epoch_name(ROOM, 5)), live, strict=True):
            checkpoints.put(name, data)
        for each in (checkpoints, other):
            with refused("POINTER_INVALID", "DATA_LOSS"):
                each.load(ROOM)


@pytest.mark.parametrize("look", ["load", "stat"])
def test_an_epoch_that_was_pruned_meanwhile_is_gone_and_its_pointer_good(checkpoints: Checkpoints, look: str) -> None:
    checkpoints.save(ROOM, 1, b"one")
    with checkpoints.beside() as other:

        def move_on() -> None:
            other.save(ROOM, 2, b"two")
            other.objects.clock_ahead = HOUR
            assert other.prune(ROOM)[-1].deleted == 1

        checkpoints.objects.before = meanwhile("get", epoch_name(ROOM, 1), move_on)
        with refused("CHECKPOINT_NOT_FOUND", "NOT_FOUND"):
            getattr(checkpoints, look)(ROOM, epoch=1)


@pytest.mark.parametrize("room", [ROOM, ""], ids=["one room", "all rooms"])
def test_a_prune_against_a_moving_pointer_is_no_alarm(checkpoints: Checkpoints, room: str) -> None:
    for epoch in range(3):
        checkpoints.save(ROOM, epoch, b"data")
    checkpoints.objects.clock_ahead = HOUR
    with checkpoints.beside() as other:

        def move_on() -> None:
            other.save(ROOM, 3, b"three")
            other.objects.clock_ahead = HOUR
            assert other.prune(ROOM)[-1].deleted == 3

        checkpoints.objects.before = meanwhile("get", epoch_name(ROOM, 2), move_on)
        assert [list(answer.failed) for answer in checkpoints.prune(room)] == [[]]
    assert checkpoints.load(ROOM).data == b"three"
