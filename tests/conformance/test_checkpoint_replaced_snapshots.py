"""What stands in a snapshot's place and cannot be read: it is replaced by who says so, and by nobody else."""

import hashlib
from collections.abc import Callable
from functools import partial

import pytest

from holdfast_server.checkpoints.key_ring import KeyRing
from holdfast_server.objects.key import ObjectKey
from tests.support.any_checkpoints import ON_EACH_BACKEND, Checkpoints, pointer_name, refused, snapshot_name
from tests.support.meddled_store import meanwhile

pytestmark = ON_EACH_BACKEND

ROOM = "arena"
NAME = snapshot_name(ROOM)


def asleep(checkpoints: Checkpoints) -> None:
    """Let a room sleep."""
    checkpoints.hibernate(ROOM, b"state", writer_id="a")


def given_up(checkpoints: Checkpoints) -> None:
    """Let it be woken."""
    info = checkpoints.hibernate(ROOM, b"state", writer_id="a")
    checkpoints.confirm(ROOM, info.etag, hashlib.sha256(b"state").digest(), "b")


def foreign(checkpoints: Checkpoints) -> None:
    """Put something sealed for another purpose there."""
    checkpoints.save(ROOM, 1)
    checkpoints.put(NAME, checkpoints.stored(pointer_name(ROOM)))
    checkpoints.remove(pointer_name(ROOM))


def damaged(checkpoints: Checkpoints, what: Callable[[Checkpoints], None]) -> str:
    """Damage it, and return its etag."""
    what(checkpoints)
    checkpoints.flip(NAME, -20)
    return checkpoints.objects.inner.stat(ObjectKey(NAME)).etag


WHAT = pytest.mark.parametrize("what", [asleep, given_up, foreign])


@WHAT
@pytest.mark.parametrize("writer", ["a", ""])
@pytest.mark.parametrize("create_only", [False, True])
def test_damage_is_not_replaced_unless_that_is_said(
    checkpoints: Checkpoints, what: Callable[[Checkpoints], None], writer: str, create_only: bool
) -> None:
    """It may have said that another one has the room."""
    etag = damaged(checkpoints, what)
    there = checkpoints.stored(NAME)
    (entry,) = checkpoints.hibernated()
    assert entry.status.details["etag"] == etag
    with refused("SEAL_INVALID", "DATA_LOSS") as refusal:
        checkpoints.hibernate(ROOM, b"new", writer_id=writer, create_only=create_only)
    assert refusal.names == {"room_id": ROOM, "etag": etag}
    assert "see that it is not, and set replace_damaged" in refusal.message
    assert checkpoints.stored(NAME) == there
    checkpoints.hibernate(ROOM, b"new", writer_id=writer, create_only=create_only, replace_damaged=True)
    assert checkpoints.restore(ROOM).data == b"new"


@WHAT
def test_who_names_just_what_is_there_replaces_damage(
    checkpoints: Checkpoints, what: Callable[[Checkpoints], None]
) -> None:
    etag = damaged(checkpoints, what)
    there = checkpoints.stored(NAME)
    for replace_damaged in (False, True):
        with refused("PRECONDITION_FAILED", "FAILED_PRECONDITION"):
            checkpoints.hibernate(ROOM, b"new", if_match_etag="other", replace_damaged=replace_damaged)
    assert checkpoints.stored(NAME) == there
    checkpoints.hibernate(ROOM, b"new", if_match_etag=etag)
    assert checkpoints.restore(ROOM).data == b"new"


def test_what_is_good_is_treated_as_ever_by_who_would_replace_damage(checkpoints: Checkpoints) -> None:
    given_up(checkpoints)
    with refused("CONCURRENT_MODIFICATION", "ABORTED"):
        checkpoints.hibernate(ROOM, b"state", writer_id="a", replace_damaged=True)
    checkpoints.hibernate(ROOM, b"new", replace_damaged=True)
    with refused("ALREADY_EXISTS"):
        checkpoints.hibernate(ROOM, b"newer", create_only=True, replace_damaged=True)
    checkpoints.hibernate("other", b"new", replace_damaged=True)
    assert checkpoints.restore(ROOM).data == checkpoints.restore("other").data == b"new"


@pytest.mark.parametrize("at", ["get", "put"])
def test_what_has_come_in_the_place_of_damage_stays(checkpoints: Checkpoints, at: str) -> None:
    damaged(checkpoints, asleep)
    with checkpoints.beside() as other:
        come = partial(other.hibernate, ROOM, b"theirs", replace_damaged=True)
        checkpoints.objects.before = meanwhile(at, NAME, come)
        if at == "put":
            with refused("CONCURRENT_MODIFICATION", "ABORTED"):
                checkpoints.hibernate(ROOM, b"mine", replace_damaged=True)
        else:  # it was read, and is an unconfirmed snapshot like others
            checkpoints.hibernate(ROOM, b"mine", replace_damaged=True)
    assert checkpoints.restore(ROOM).data == (b"theirs" if at == "put" else b"mine")


def with_another_ring(checkpoints: Checkpoints) -> None:
    checkpoints.keys.now = KeyRing.fresh()


def by_a_newer_server(checkpoints: Checkpoints) -> None:
    sealed = bytearray(checkpoints.stored(NAME))
    start = sealed.index(b"HOLDSEAL", 1)
    sealed[start + 8] = 9
    checkpoints.put(NAME, bytes(sealed))


@pytest.mark.parametrize("what", [asleep, given_up])
@pytest.mark.parametrize(
    ("how", "reason"), [(with_another_ring, "SEAL_KEY_UNAVAILABLE"), (by_a_newer_server, "SEAL_TOO_NEW")]
)
def test_what_this_server_cannot_open_is_no_damage_and_replaced_only_by_its_etag(
    checkpoints: Checkpoints, what: Callable[[Checkpoints], None], how: Callable[[Checkpoints], None], reason: str
) -> None:
    what(checkpoints)
    how(checkpoints)
    there, etag = checkpoints.stored(NAME), checkpoints.objects.inner.stat(ObjectKey(NAME)).etag
    for fields in ({}, {"create_only": True}, {"writer_id": "a"}):
        for replace_damaged in (False, True):
            with refused(reason, "FAILED_PRECONDITION") as refusal:
                checkpoints.hibernate(ROOM, b"new", replace_damaged=replace_damaged, **fields)
            assert (refusal.names["room_id"], refusal.names["etag"]) == (ROOM, etag)
            assert f"only if_match_etag {etag!r} replaces it" in refusal.message
    assert checkpoints.stored(NAME) == there
    (entry,) = checkpoints.hibernated()
    assert entry.status.details["etag"] == etag
    checkpoints.hibernate(ROOM, b"new", if_match_etag=etag)
    assert checkpoints.restore(ROOM).data == b"new"


def test_without_a_key_ring_nothing_is_advised(checkpoints: Checkpoints) -> None:
    asleep(checkpoints)
    checkpoints.keys.now = None
    with refused("SEAL_KEY_UNAVAILABLE", "FAILED_PRECONDITION") as refusal:
        checkpoints.hibernate(ROOM, b"new")
    assert refusal.message == "there is no ring"
