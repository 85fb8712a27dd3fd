"""A room that is hibernated again: what another one confirmed meanwhile stays given up."""

import hashlib
from functools import partial

import pytest

from tests.support.any_checkpoints import Checkpoints, refused, snapshot_name
from tests.support.meddled_store import meanwhile

ROOM = "arena"


def test_a_repeated_hibernation_does_not_take_back_what_another_confirmed(checkpoints: Checkpoints) -> None:
    data = b"state"
    info = checkpoints.hibernate(ROOM, data, writer_id="a")
    checkpoints.confirm(ROOM, info.etag, hashlib.sha256(data).digest(), "b")
    for create_only in (True, False):
        with refused("CONCURRENT_MODIFICATION", "ABORTED"):
            checkpoints.hibernate(ROOM, data, writer_id="a", create_only=create_only)
        assert checkpoints.hibernated() == []
        with refused("SNAPSHOT_NOT_FOUND"):
            checkpoints.restore(ROOM)


def test_a_rotation_of_keys_does_not_hide_what_another_confirmed(checkpoints: Checkpoints) -> None:
    info = checkpoints.hibernate(ROOM, b"state", writer_id="a")
    checkpoints.confirm(ROOM, info.etag, hashlib.sha256(b"state").digest(), "b")
    checkpoints.keys.rotate()
    with refused("CONCURRENT_MODIFICATION", "ABORTED"):
        checkpoints.hibernate(ROOM, b"state", writer_id="a")


def test_what_another_confirms_while_its_hibernation_is_repeated_stays_confirmed(checkpoints: Checkpoints) -> None:
    info = checkpoints.hibernate(ROOM, b"state", writer_id="a")
    with checkpoints.beside() as other:
        sha256 = hashlib.sha256(b"state").digest()
        confirm = partial(other.confirm, ROOM, info.etag, sha256, "b")
        checkpoints.objects.before = meanwhile("put", snapshot_name(ROOM), confirm)
        for _ in range(2):
            with refused("CONCURRENT_MODIFICATION", "ABORTED"):
                checkpoints.hibernate(ROOM, b"state", writer_id="a")
        assert other.hibernated() == []


@pytest.mark.parametrize(
    ("writer", "data"), [("a", b"other"), ("b", b"state"), ("c", b"state")], ids=["other bytes", "confirmer", "third"]
)
def test_who_does_not_repeat_a_hibernation_may_hibernate(checkpoints: Checkpoints, writer: str, data: bytes) -> None:
    info = checkpoints.hibernate(ROOM, b"state", writer_id="a")
    checkpoints.confirm(ROOM, info.etag, hashlib.sha256(b"state").digest(), "b")
    checkpoints.hibernate(ROOM, data, writer_id=writer, create_only=True)
    assert checkpoints.restore(ROOM).data == data


def test_a_writer_who_confirmed_its_own_snapshot_hibernates_the_same_again(checkpoints: Checkpoints) -> None:
    for _ in range(2):
        info = checkpoints.hibernate(ROOM, b"state", writer_id="a", create_only=True)
        checkpoints.confirm(ROOM, info.etag, hashlib.sha256(b"state").digest(), "a")


def test_a_hibernation_that_races_the_removal_of_what_was_given_up_is_told_to_try_again(
    checkpoints: Checkpoints,
) -> None:
    info = checkpoints.hibernate(ROOM, b"state")
    checkpoints.confirm(ROOM, info.etag, hashlib.sha256(b"state").digest())
    checkpoints.objects.before = meanwhile("put", snapshot_name(ROOM), lambda: checkpoints.remove(snapshot_name(ROOM)))
    with refused("CONCURRENT_MODIFICATION", "ABORTED"):
        checkpoints.hibernate(ROOM, b"other", create_only=True)
    checkpoints.hibernate(ROOM, b"other", create_only=True)
