"""Snapshots of an older system, and what stands for one of ours that was given up: nothing wakes a room twice."""

import hashlib
from collections.abc import Iterator
from datetime import timedelta

import pytest

from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.memory import MemoryStore
from tests.support.any_checkpoints import Checkpoints, refused, snapshot_name
from tests.support.legacy_forms import flat, reading_legacy
from tests.support.meddled_store import once
from tests.support.transfers import put_all

ROOM = "sleeper"
FLAT = f"snapshots/{ROOM}"
DATA = b"asleep"
SHA256 = hashlib.sha256(DATA).digest()


@pytest.fixture
def rooms() -> Iterator[Checkpoints]:
    checkpoints = reading_legacy(MemoryStore())
    yield checkpoints
    checkpoints.close()


def check_awake(rooms: Checkpoints) -> None:
    """Check that the room does not sleep."""
    assert rooms.hibernated() == []
    with refused("SNAPSHOT_NOT_FOUND", "NOT_FOUND"):
        rooms.restore(ROOM)


# Under the name of the older system.


@pytest.fixture
def moved(rooms: Checkpoints) -> Checkpoints:
    """What stands for a snapshot that was given up lies where the older system keeps its own."""
    rooms.confirm(ROOM, rooms.hibernate(ROOM, DATA).etag, SHA256)
    rooms.put(FLAT, rooms.stored(snapshot_name(ROOM)))
    rooms.remove(snapshot_name(ROOM))
    return rooms


def test_what_was_given_up_is_no_snapshot_under_the_older_name_either(moved: Checkpoints) -> None:
    check_awake(moved)
    assert moved.names() == [FLAT]


def test_what_was_given_up_is_not_confirmed_under_the_older_name(moved: Checkpoints) -> None:
    etag = moved.objects.inner.stat(ObjectKey(FLAT)).etag
    with refused("SNAPSHOT_NOT_FOUND", "NOT_FOUND"):
        moved.confirm(ROOM, etag, hashlib.sha256(b"").digest())
    assert moved.names() == [FLAT]


def test_a_room_sleeps_beside_what_was_given_up_under_the_older_name(moved: Checkpoints) -> None:
    moved.hibernate(ROOM, b"again")
    assert moved.restore(ROOM).data == b"again"
    assert [entry.room_id for entry in moved.hibernated()] == [ROOM]


def test_a_snapshot_of_another_room_is_damage_under_the_older_name(rooms: Checkpoints) -> None:
    """Also one that was given up: it says nothing of this room."""
    rooms.confirm("other", rooms.hibernate("other", DATA).etag, SHA256)
    rooms.put(FLAT, rooms.stored(snapshot_name("other")))
    with refused("SEAL_INVALID", "DATA_LOSS"):
        rooms.restore(ROOM)
    (entry,) = rooms.hibernated()
    assert (entry.room_id, entry.status.code) == (ROOM, 15)


# Above one of the older system.


@pytest.fixture
def hidden(rooms: Checkpoints) -> Checkpoints:
    """A snapshot of the older system was given up, and the call broke off before it went."""
    put_all(rooms.objects, flat(ROOM, DATA))
    rooms.objects.before = once("delete", FLAT)
    with refused("BACKEND_UNAVAILABLE", "UNAVAILABLE"):
        rooms.confirm(ROOM, rooms.restore(ROOM).info.etag, SHA256, "node-1")
    assert rooms.names() == [snapshot_name(ROOM), FLAT]
    return rooms


def test_an_older_snapshot_that_was_given_up_and_did_not_go_is_not_seen_again(hidden: Checkpoints) -> None:
    check_awake(hidden)
    hidden.restart()
    check_awake(hidden)


def test_damage_above_an_older_snapshot_is_replaced_but_not_by_who_would_only_create(rooms: Checkpoints) -> None:
    put_all(rooms.objects, flat(ROOM, DATA))
    rooms.put(snapshot_name(ROOM), b"garbage")
    with refused("ALREADY_EXISTS"):
        rooms.hibernate(ROOM, b"new", create_only=True, replace_damaged=True)
    rooms.hibernate(ROOM, b"new", replace_damaged=True)
    assert rooms.restore(ROOM).data == b"new"


def test_housekeeping_does_not_uncover_an_older_snapshot_that_was_given_up(hidden: Checkpoints) -> None:
    hidden.objects.clock_ahead = timedelta(days=15)
    assert hidden.store.snapshots.lists.remove_given_up(timedelta(days=14)) == 0
    check_awake(hidden)
    hidden.remove(FLAT)
    assert hidden.store.snapshots.lists.remove_given_up(timedelta(days=14)) == 1
    assert hidden.names() == []
