"""The pointer names a checkpoint, and that is gone: nothing takes its place without a word, and the room goes on."""

from contextlib import closing

import pytest

from holdfast_server.objects.memory import MemoryStore
from tests.support.any_checkpoints import (
    DAMAGED,
    ON_EACH_BACKEND,
    STORED,
    Checkpoints,
    epoch_name,
    pointer_name,
    refused,
)

pytestmark = ON_EACH_BACKEND

ROOM = "arena"


@pytest.fixture(params=["seen", "met anew"])
def lost(checkpoints: Checkpoints, request: pytest.FixtureRequest) -> Checkpoints:
    """A room whose epochs are 6 and 7, and whose latest is gone; perhaps the server has not seen it before."""
    checkpoints.save(ROOM, 6, b"six")
    checkpoints.save(ROOM, 7, b"lost")
    checkpoints.remove(epoch_name(ROOM, 7))
    if request.param == "met anew":
        checkpoints.restart()
    return checkpoints


@pytest.mark.parametrize("data", [b"lost", b"new"])
def test_nothing_is_put_in_the_place_of_what_the_pointer_names(lost: Checkpoints, data: bytes) -> None:
    there = {name: lost.stored(name) for name in lost.names()}
    for _ in range(2):
        with refused("POINTER_INVALID", "DATA_LOSS") as refusal:
            lost.save(ROOM, 7, data)
        assert "names epoch 7, and that is not there" in refusal.message
        assert (refusal.names["epoch"], refusal.names["next_epoch"]) == ("7", "8"), "so a saver can go on by itself"
        with refused("POINTER_INVALID", "DATA_LOSS"):
            lost.load(ROOM)
    assert {name: lost.stored(name) for name in lost.names()} == there


def test_with_replace_damaged_pointer_a_save_has_to_be_above(lost: Checkpoints) -> None:
    with refused("INVALID_EPOCH", "INVALID_ARGUMENT") as refusal:
        lost.save(ROOM, 7, b"new", replace_damaged_pointer=True)
    assert refusal.names["next_epoch"] == "8"
    assert lost.save(ROOM, 8, b"eight", replace_damaged_pointer=True).pointer_moved
    assert lost.load(ROOM).data == b"eight"


def test_the_room_goes_on_at_the_next_epoch(lost: Checkpoints) -> None:
    saved = lost.save(ROOM, 8, b"eight")
    assert (saved.outcome, saved.pointer_moved) == (STORED, True)
    assert lost.load(ROOM).data == b"eight"
    assert lost.epochs(ROOM) == [6, 8]
    assert lost.save(ROOM, 7, b"late").outcome == STORED, "it is as free as one that was pruned"


def test_another_one_that_was_sealed_for_its_epoch_does_not_take_its_place(lost: Checkpoints) -> None:
    pointer = lost.stored(pointer_name(ROOM))
    with closing(Checkpoints(MemoryStore(), lost.keys)) as elsewhere:
        elsewhere.save(ROOM, 7, b"of another life")
        lost.put(epoch_name(ROOM, 7), elsewhere.stored(epoch_name(ROOM, 7)))
    for data in (b"of another life", b"lost"):
        saved = lost.save(ROOM, 7, data)
        assert (saved.outcome, saved.pointer_moved, saved.next_epoch) == (DAMAGED, False, 8)
    assert lost.stored(pointer_name(ROOM)) == pointer
    with refused("SEAL_INVALID", "DATA_LOSS"):
        lost.load(ROOM)


def test_who_had_not_heard_of_its_loss_does_not_name_another(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 6, b"six")
    with checkpoints.beside() as other:
        other.save(ROOM, 7, b"lost")
    checkpoints.remove(epoch_name(ROOM, 7))
    with refused("POINTER_INVALID", "DATA_LOSS"):
        checkpoints.save(ROOM, 7, b"new")
    checkpoints.restart()
    with refused("SEAL_INVALID", "DATA_LOSS"):
        checkpoints.load(ROOM)


def test_one_that_was_pruned_since_it_was_the_latest_is_free(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 7, b"seven")
    with checkpoints.beside() as other:
        other.save(ROOM, 8, b"eight")
        assert other.prune(ROOM)[-1].deleted == 1
    saved = checkpoints.save(ROOM, 7, b"anew")
    assert (saved.outcome, saved.pointer_moved, saved.latest_epoch) == (STORED, False, 8)
