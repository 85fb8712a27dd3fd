"""A room that has checkpoints and no pointer: one that lost it, or one whose first save is not done yet."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from holdfast.v1 import checkpoint_store_pb2 as pb
from tests.support.any_checkpoints import ON_EACH_BACKEND, STORED, Checkpoints, pointer_name, refused
from tests.support.meddled_store import once

pytestmark = ON_EACH_BACKEND

ROOM = "arena"


def lose_pointer(checkpoints: Checkpoints, minutes: int = 1) -> None:
    """Save two epochs, so long before now, and lose the pointer; nobody who is there has seen it."""
    for epoch in (4, 5):
        checkpoints.save(ROOM, epoch, b"%d" % epoch)
    checkpoints.remove(pointer_name(ROOM))
    checkpoints.restart()
    checkpoints.objects.clock_ahead = timedelta(minutes=minutes)


def test_a_room_without_its_pointer_says_where_it_goes_on(checkpoints: Checkpoints) -> None:
    lose_pointer(checkpoints)
    for look in (checkpoints.load, checkpoints.stat):
        with refused("ROOM_NOT_FOUND", "NOT_FOUND") as refusal:
            look(ROOM)
        assert refusal.names["next_epoch"] == "6"
        assert "no pointer, but checkpoints up to epoch 5" in refusal.message
    loaded = checkpoints.load(ROOM, fallback=True)
    assert (loaded.info.epoch, loaded.data, loaded.info.next_epoch) == (5, b"5", 6)


@pytest.mark.parametrize("minutes", [1, -1, -120])
def test_a_room_without_its_pointer_is_not_begun_below_what_it_has(checkpoints: Checkpoints, minutes: int) -> None:
    """Neither where a clock that was ahead when they were saved was put right since."""
    lose_pointer(checkpoints, minutes)
    for epoch in (0, 3):
        with refused("EPOCH_TOO_OLD", "FAILED_PRECONDITION") as refusal:
            checkpoints.save(ROOM, epoch, b"anew")
        assert (refusal.names["latest_epoch"], refusal.names["next_epoch"]) == ("5", "6")
    assert checkpoints.epochs(ROOM) == [4, 5]
    assert checkpoints.save(ROOM, 6, b"6").pointer_moved
    assert checkpoints.load(ROOM).data == b"6"


def test_a_first_save_is_not_refused_for_what_others_begin_with(checkpoints: Checkpoints) -> None:
    begin = threading.Barrier(8)

    def first(epoch: int) -> pb.SaveCheckpointResponse:
        begin.wait()
        return checkpoints.save(ROOM, epoch, b"%d" % epoch)

    with ThreadPoolExecutor(8) as pool:
        assert {answer.outcome for answer in pool.map(first, range(8))} == {STORED}
    assert checkpoints.load(ROOM).info.epoch == 7


def test_the_pointer_that_is_not_there_yet_refuses_nobody(checkpoints: Checkpoints) -> None:
    """Another's first checkpoint lies there already, and its pointer does not."""
    checkpoints.objects.before = once("put", pointer_name(ROOM))
    with refused("BACKEND_UNAVAILABLE"):
        checkpoints.save(ROOM, 7, b"seven")
    assert checkpoints.save(ROOM, 3, b"three").pointer_moved
