"""A deletion whose answer was lost, and that is sent once more: it deletes nothing of what was begun anew since."""

import pytest

from tests.support.any_checkpoints import ON_EACH_BACKEND, Checkpoints, epoch_name, pointer_name, refused
from tests.support.meddled_store import meanwhile, once
from tests.support.tombstones import anew_after

pytestmark = ON_EACH_BACKEND

ROOM = "arena"
ANEW = anew_after(2)


def fill(checkpoints: Checkpoints, first: int = 0) -> None:
    for epoch in range(first, first + 3):
        checkpoints.save(ROOM, epoch, b"%d" % epoch)


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_room_that_was_begun_anew_outlives_the_repeat_of_its_deletion(
    checkpoints: Checkpoints, is_restarted: bool
) -> None:
    fill(checkpoints)
    assert checkpoints.delete_room(ROOM, request_id="one").next_epoch == ANEW
    fill(checkpoints, ANEW)
    late = checkpoints.stored(epoch_name(ROOM, ANEW))
    if is_restarted:
        checkpoints.restart()
    checkpoints.put(epoch_name(ROOM, 1), late)  # what the first request did not come to
    repeated = checkpoints.delete_room(ROOM, request_id="one")
    assert (repeated.deleted, repeated.existed, repeated.next_epoch) == (1, True, ANEW + 3)
    assert checkpoints.epochs(ROOM) == [ANEW, ANEW + 1, ANEW + 2]
    assert checkpoints.load(ROOM).data == b"%d" % (ANEW + 2)


def test_another_request_deletes_what_was_begun_anew(checkpoints: Checkpoints) -> None:
    anew = 0
    for request in ("one", "other", "", ""):
        fill(checkpoints, anew)
        deletion = checkpoints.delete_room(ROOM, request_id=request)
        assert (deletion.deleted, deletion.existed) == (3, True)
        anew = deletion.next_epoch
        with refused("ROOM_NOT_FOUND"):
            checkpoints.load(ROOM)
        assert checkpoints.epochs(ROOM) == []


def test_a_room_whose_pointer_was_damaged_since_outlives_it_too(checkpoints: Checkpoints) -> None:
    fill(checkpoints)
    checkpoints.delete_room(ROOM, request_id="one")
    fill(checkpoints, ANEW)
    checkpoints.put(pointer_name(ROOM), b"damaged")
    checkpoints.delete_room(ROOM, request_id="one")
    assert checkpoints.load(ROOM, fallback=True).data == b"%d" % (ANEW + 2)
    checkpoints.save(ROOM, ANEW + 3, replace_damaged_pointer=True)
    checkpoints.restart()
    checkpoints.delete_room(ROOM, request_id="one")
    assert checkpoints.stat(ROOM).epoch == ANEW + 3


@pytest.mark.parametrize("what", ["put", "delete"])
def test_a_deletion_that_broke_off_is_finished_by_its_repeat(checkpoints: Checkpoints, what: str) -> None:
    fill(checkpoints)
    checkpoints.objects.after = once(what, pointer_name(ROOM) if what == "put" else epoch_name(ROOM, 1))
    with refused("BACKEND_UNAVAILABLE"):
        checkpoints.delete_room(ROOM, request_id="one")
    repeated = checkpoints.delete_room(ROOM, request_id="one")
    assert (repeated.existed, repeated.next_epoch) == (True, ANEW), "that it was there is told by whoever is heard"
    assert [name for name in checkpoints.names() if name != pointer_name(ROOM)] == []
    assert not checkpoints.delete_room(ROOM, request_id="other").existed


def test_a_tombstone_that_was_damaged_since_is_made_anew_by_the_repeat(checkpoints: Checkpoints) -> None:
    fill(checkpoints)
    checkpoints.delete_room(ROOM, request_id="one")
    checkpoints.put(pointer_name(ROOM), b"damaged")
    assert checkpoints.delete_room(ROOM, request_id="one").next_epoch == ANEW
    checkpoints.restart()
    assert checkpoints.save(ROOM, ANEW, b"anew").pointer_moved


def test_the_first_save_of_a_room_that_is_begun_anew_meanwhile_is_not_in_its_way(checkpoints: Checkpoints) -> None:
    fill(checkpoints)
    checkpoints.delete_room(ROOM, request_id="one")
    checkpoints.objects.before = meanwhile(
        "put", pointer_name(ROOM), lambda: checkpoints.delete_room(ROOM, request_id="one")
    )
    assert checkpoints.save(ROOM, ANEW, b"anew").pointer_moved
    assert checkpoints.load(ROOM).data == b"anew"


@pytest.mark.parametrize("bad", ["x" * 65, "\n", "\u00e9"])
def test_an_id_that_is_none_is_refused(checkpoints: Checkpoints, bad: str) -> None:
    fill(checkpoints)
    with refused("INVALID_CONDITION", "INVALID_ARGUMENT") as refusal:
        checkpoints.delete_room(ROOM, request_id=bad)
    assert refusal.fields == ["request_id"]
    assert checkpoints.epochs(ROOM) == [0, 1, 2]
