"""A room that is hibernated again: what another one confirmed stays given up, also once it has slept again."""

import hashlib
import string
from functools import partial
from itertools import product
from typing import Any

import pytest

from holdfast_server.checkpoints.key_ring import KeyRing
from tests.support.any_checkpoints import ON_EACH_BACKEND, Checkpoints, refused, snapshot_name
from tests.support.meddled_store import meanwhile

pytestmark = ON_EACH_BACKEND

ROOM = "arena"

REMEMBERED = 8
"""So many snapshots that were confirmed are known, as `docs/formats.md` says."""


def wake(checkpoints: Checkpoints, info: Any, writer_id: str) -> None:
    """Confirm a snapshot."""
    checkpoints.confirm(info.room_id, info.etag, info.sha256, writer_id)


def check_refused(checkpoints: Checkpoints, data: bytes, writer_id: str) -> None:
    """Check that a hibernation is known to be a repeated one."""
    with refused("CONCURRENT_MODIFICATION", "ABORTED") as refusal:
        checkpoints.hibernate(ROOM, data, writer_id=writer_id)
    assert "confirmed by another writer already" in refusal.message


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


def test_what_was_confirmed_without_a_name_may_have_been_by_its_writer(checkpoints: Checkpoints) -> None:
    wake(checkpoints, checkpoints.hibernate(ROOM, b"state", writer_id="a"), "")
    checkpoints.hibernate(ROOM, b"state", writer_id="a", create_only=True)
    assert checkpoints.restore(ROOM).data == b"state"


def test_a_hibernation_that_races_the_removal_of_what_was_given_up_is_told_to_try_again(
    checkpoints: Checkpoints,
) -> None:
    info = checkpoints.hibernate(ROOM, b"state")
    checkpoints.confirm(ROOM, info.etag, hashlib.sha256(b"state").digest())
    checkpoints.objects.before = meanwhile("put", snapshot_name(ROOM), lambda: checkpoints.remove(snapshot_name(ROOM)))
    with refused("CONCURRENT_MODIFICATION", "ABORTED"):
        checkpoints.hibernate(ROOM, b"other", create_only=True)
    checkpoints.hibernate(ROOM, b"other", create_only=True)


# After the room has slept again.


@pytest.mark.parametrize("writer", ["b/1", ""])
def test_a_repeated_hibernation_does_not_replace_a_newer_snapshot(checkpoints: Checkpoints, writer: str) -> None:
    wake(checkpoints, checkpoints.hibernate(ROOM, b"monday", writer_id="a/1"), "b")
    checkpoints.hibernate(ROOM, b"tuesday", writer_id=writer)
    check_refused(checkpoints, b"monday", "a/1")
    with refused("ALREADY_EXISTS"):
        checkpoints.hibernate(ROOM, b"monday", writer_id="a/1", create_only=True)
    assert checkpoints.restore(ROOM).data == b"tuesday"


@pytest.mark.parametrize("writer", ["b/1", ""])
@pytest.mark.parametrize("confirmer", ["c", ""])
def test_a_repeated_hibernation_does_not_wake_a_room_that_slept_again_and_woke(
    checkpoints: Checkpoints, writer: str, confirmer: str
) -> None:
    wake(checkpoints, checkpoints.hibernate(ROOM, b"monday", writer_id="a/1"), "b")
    wake(checkpoints, checkpoints.hibernate(ROOM, b"tuesday", writer_id=writer), confirmer)
    for _ in range(2):
        check_refused(checkpoints, b"monday", "a/1")
        assert checkpoints.hibernated() == []
        checkpoints.restart()


def test_who_hibernates_under_a_condition_forgets_nothing(checkpoints: Checkpoints) -> None:
    wake(checkpoints, checkpoints.hibernate(ROOM, b"monday", writer_id="a/1"), "b")
    info = checkpoints.hibernate(ROOM, b"tuesday", create_only=True)
    checkpoints.hibernate(ROOM, b"wednesday", if_match_etag=info.etag)
    check_refused(checkpoints, b"monday", "a/1")


def test_the_last_eight_that_were_confirmed_are_remembered(checkpoints: Checkpoints) -> None:
    for day in range(REMEMBERED + 1):
        wake(checkpoints, checkpoints.hibernate(ROOM, b"%d" % day, writer_id=f"a/{day}"), "b")
    for asleep in (False, True):
        if asleep:
            # What its writer says is not taken for what we do.
            checkpoints.hibernate(ROOM, b"last", writer_id="c", metadata={"hibernated-by": "d", "payload": "e"})
        for day in range(1, REMEMBERED + 1):
            check_refused(checkpoints, b"%d" % day, f"a/{day}")
    checkpoints.hibernate(ROOM, b"0", writer_id="a/0")


def test_one_that_was_replaced_before_anybody_confirmed_it_may_come_again(checkpoints: Checkpoints) -> None:
    checkpoints.hibernate(ROOM, b"monday", writer_id="a/1")
    checkpoints.hibernate(ROOM, b"tuesday", writer_id="b/1")
    checkpoints.hibernate(ROOM, b"monday", writer_id="a/1")
    assert checkpoints.restore(ROOM).data == b"monday"


@pytest.mark.parametrize("retire", [False, True])
def test_keys_that_are_rotated_and_retired_hide_nothing_of_it(checkpoints: Checkpoints, retire: bool) -> None:
    old = checkpoints.keys.ring.signing.id
    wake(checkpoints, checkpoints.hibernate(ROOM, b"monday", writer_id="a/1"), "b")
    checkpoints.keys.rotate()
    checkpoints.hibernate(ROOM, b"tuesday", writer_id="b/1")
    if retire:
        checkpoints.keys.ring = checkpoints.keys.ring.retired(old)
    check_refused(checkpoints, b"monday", "a/1")


def test_a_key_that_is_gone_hinders_no_room_from_sleeping(checkpoints: Checkpoints) -> None:
    old = checkpoints.keys.ring.signing.id
    wake(checkpoints, checkpoints.hibernate(ROOM, b"monday", writer_id="a/1"), "b")
    checkpoints.keys.rotate()
    checkpoints.hibernate(ROOM, b"tuesday", writer_id="b/1")
    checkpoints.keys.ring = KeyRing(tuple(key for key in checkpoints.keys.ring.keys if key.id != old))
    checkpoints.hibernate(ROOM, b"wednesday", writer_id="a/2")
    assert checkpoints.restore(ROOM).data == b"wednesday"


def test_what_is_remembered_is_not_shown_as_the_writers_own(checkpoints: Checkpoints) -> None:
    wake(checkpoints, checkpoints.hibernate(ROOM, b"monday", writer_id="a/1"), "b")
    info = checkpoints.hibernate(ROOM, b"tuesday", metadata={"map": "dust"})
    (entry,) = checkpoints.hibernated()
    for shown in (info, checkpoints.restore(ROOM).info, entry.snapshot):
        assert dict(shown.metadata) == {"map": "dust"}


LONGEST = "/".join(["%" * 200, "%" * 200, "%" * 110])
"""A room's id of 512 bytes."""

LETTERS = string.ascii_lowercase + string.digits + "-"

MOST_METADATA = dict.fromkeys([*LETTERS, *map("".join, list(product(LETTERS, LETTERS))[:493])], "")
"""As many entries as 1,024 bytes have room for."""


def test_what_is_remembered_fits_beside_the_longest_names_and_the_most_metadata(checkpoints: Checkpoints) -> None:
    assert (len(LONGEST), sum(map(len, MOST_METADATA))) == (512, 1023)
    for day in range(REMEMBERED + 1):
        writer = f"{day}".ljust(128, "w")
        info = checkpoints.hibernate(LONGEST, b"%d" % day, writer_id=writer, metadata=MOST_METADATA)
        restored = checkpoints.restore(LONGEST)
        assert (restored.data, dict(restored.info.metadata)) == (b"%d" % day, MOST_METADATA)
        (entry,) = checkpoints.hibernated()
        assert entry.snapshot.etag == info.etag
        wake(checkpoints, info, "c" * 128)
    for day in range(1, REMEMBERED + 1):
        with refused("CONCURRENT_MODIFICATION", "ABORTED"):
            checkpoints.hibernate(LONGEST, b"%d" % day, writer_id=f"{day}".ljust(128, "w"))


@pytest.mark.parametrize("writer", ["c", ""])
def test_what_comes_while_a_room_is_hibernated_is_not_replaced_unseen(checkpoints: Checkpoints, writer: str) -> None:
    checkpoints.hibernate(ROOM, b"old")
    with checkpoints.beside() as other:
        come = partial(other.hibernate, ROOM, b"theirs", writer_id="b")
        checkpoints.objects.before = meanwhile("put", snapshot_name(ROOM), come)
        with refused("CONCURRENT_MODIFICATION", "ABORTED"):
            checkpoints.hibernate(ROOM, b"mine", writer_id=writer)
    assert checkpoints.restore(ROOM).data == b"theirs"
