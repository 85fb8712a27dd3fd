"""What is refused since its key is not there names the room, and says what an operator can do about it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.support.any_checkpoints import ON_EACH_BACKEND, Checkpoints, pointer_name, refused

pytestmark = ON_EACH_BACKEND

ROOM = "arena/7"
OF_THE_POINTER = "the latest pointer of room 'arena/7': "
OF_THE_EPOCH = "room 'arena/7', epoch 1: "
OF_THE_SNAPSHOT = "the snapshot of room 'arena/7': "

Call = Callable[[Checkpoints], Any]
CALLS: dict[str, tuple[Call, str, str | None]] = {
    "load": (lambda checkpoints: checkpoints.load(ROOM), OF_THE_POINTER, None),
    "load an epoch": (lambda checkpoints: checkpoints.load(ROOM, epoch=1), OF_THE_EPOCH, "1"),
    "stat": (lambda checkpoints: checkpoints.stat(ROOM), OF_THE_POINTER, None),
    "stat an epoch": (lambda checkpoints: checkpoints.stat(ROOM, epoch=1), OF_THE_EPOCH, "1"),
    "save": (lambda checkpoints: checkpoints.save(ROOM, 2, b"2"), OF_THE_POINTER, None),
    "prune": (lambda checkpoints: checkpoints.prune(ROOM), OF_THE_POINTER, None),
    "delete": (lambda checkpoints: checkpoints.delete_room(ROOM), OF_THE_POINTER, None),
    "restore": (lambda checkpoints: checkpoints.restore(ROOM), OF_THE_SNAPSHOT, None),
    "hibernate": (lambda checkpoints: checkpoints.hibernate(ROOM, b"new"), OF_THE_SNAPSHOT, None),
    "confirm": (lambda checkpoints: checkpoints.confirm(ROOM, "etag", bytes(32)), OF_THE_SNAPSHOT, None),
}


def lose(checkpoints: Checkpoints, *, retire: bool) -> str:
    """Save and hibernate the room, take the key away, and return its id."""
    checkpoints.save(ROOM, 1, b"1")
    checkpoints.hibernate(ROOM, b"night")
    old = checkpoints.keys.rotate()
    ring = checkpoints.keys.ring
    left = replace(ring, keys=tuple(key for key in ring.keys if key.id != old))
    checkpoints.keys.ring = ring.retired(old) if retire else left
    checkpoints.restart()
    return old.hex()


@pytest.mark.parametrize("retire", [True, False], ids=["retired", "unknown"])
@pytest.mark.parametrize("name", CALLS)
def test_a_refusal_names_the_room_and_the_way_out(checkpoints: Checkpoints, name: str, *, retire: bool) -> None:
    call, what, epoch = CALLS[name]
    key = lose(checkpoints, retire=retire)
    with refused("SEAL_KEY_UNAVAILABLE", "FAILED_PRECONDITION") as refusal:
        call(checkpoints)
    says = (
        f"sealing key {key} is retired: `holdfast-server keys readmit {key}` takes that back"
        if retire
        else f"sealing key {key} is not in the key ring: bring back the ring that has it (`holdfast-server keys add`)"
    )
    assert refusal.message.startswith(what + says), refusal.message
    assert refusal.message.count(ROOM) == 1
    assert (refusal.names["room_id"], refusal.names["key_id"]) == (ROOM, key)
    assert refusal.names.get("epoch") == epoch
    assert ("`holdfast checkpoint rm --without-key`" in refusal.message) is (name == "delete")


def test_lists_name_them_too(checkpoints: Checkpoints) -> None:
    lose(checkpoints, retire=True)
    for entries, what in (
        (checkpoints.rooms(), OF_THE_POINTER),
        (checkpoints.listed(ROOM), OF_THE_EPOCH),
        (checkpoints.hibernated(), OF_THE_SNAPSHOT),
    ):
        assert [entry.status.message.startswith(what) for entry in entries] == [True]


def test_an_epoch_that_is_taken_by_what_cannot_be_read_is_named(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 1, b"1")
    old = checkpoints.keys.rotate()
    checkpoints.save(ROOM, 2, b"2")
    checkpoints.keys.ring = checkpoints.keys.ring.retired(old)
    with refused("SEAL_KEY_UNAVAILABLE") as refusal:
        checkpoints.save(ROOM, 1, b"1")
    assert refusal.message.startswith(OF_THE_EPOCH)
    assert (refusal.names["epoch"], refusal.names["next_epoch"]) == ("1", "3")
    assert refusal.names["latest_epoch"] == "2"
    checkpoints.remove(pointer_name(ROOM))
    checkpoints.restart()
    with refused("SEAL_KEY_UNAVAILABLE") as refusal:
        checkpoints.save(ROOM, 1, b"1")
    assert refusal.names["latest_epoch"] == "-1", "there is no pointer: who begins the room should not go over it"
