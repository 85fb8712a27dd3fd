"""What a seal promises: which keys open it, what it shows of what is in it, and what a newer form of it means."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest

from holdfast.v1 import checkpoint_store_pb2 as pb
from holdfast_server.checkpoints.names import MAX_RISE
from tests.support.any_checkpoints import (
    DAMAGED,
    STORED,
    Checkpoints,
    epoch_name,
    footer_of,
    pointer_name,
    refused,
    snapshot_name,
)
from tests.support.meddled_store import meanwhile
from tests.support.tombstones import anew_after

ROOM = "arena"
HEAD_BYTES = 56
VERSION_AT = 8
DIGEST_AT = HEAD_BYTES + 32
"""In the footer, behind the head once more, epoch, time and sizes."""


def test_a_rotation_leaves_all_readable(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 1, b"1")
    checkpoints.hibernate(ROOM, b"sleeping")
    old = checkpoints.keys.rotate()
    assert checkpoints.load(ROOM).info.key_id == old.hex()
    assert checkpoints.save(ROOM, 1, b"1").latest_epoch == 1
    checkpoints.save(ROOM, 2, b"2")
    for _ in range(2):
        assert [checkpoints.load(ROOM, epoch=epoch).data for epoch in (1, 2)] == [b"1", b"2"]
        assert checkpoints.restore(ROOM).data == b"sleeping"
        checkpoints.restart()
    new = checkpoints.keys.ring.signing.id.hex()
    assert [entry.checkpoint.key_id for entry in checkpoints.listed(ROOM)] == [old.hex(), new]


def _retire(checkpoints: Checkpoints, key_id: bytes) -> None:
    checkpoints.keys.ring = checkpoints.keys.ring.retired(key_id)


def _drop(checkpoints: Checkpoints, key_id: bytes) -> None:
    ring = checkpoints.keys.ring
    checkpoints.keys.ring = replace(ring, keys=tuple(key for key in ring.keys if key.id != key_id))


LOSSES = {"retired": _retire, "unknown": _drop}
Lose = Callable[[Checkpoints, bytes], None]


@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES)
def test_a_key_that_is_not_available_is_never_taken_for_damage(checkpoints: Checkpoints, lose: Lose) -> None:
    checkpoints.save(ROOM, 1, b"1")
    checkpoints.hibernate(ROOM, b"sleeping")
    there = checkpoints.names()
    old = checkpoints.keys.rotate()
    lose(checkpoints, old)
    for _ in range(2):
        for call in (
            lambda: checkpoints.load(ROOM),
            lambda: checkpoints.load(ROOM, epoch=1),
            lambda: checkpoints.load(ROOM, fallback=True),
            lambda: checkpoints.stat(ROOM),
            lambda: checkpoints.save(ROOM, 1, b"1"),
            lambda: checkpoints.save(ROOM, 2, b"2", if_latest_epoch=1),
            lambda: checkpoints.save(ROOM, 2, b"2", if_latest_epoch=1, replace_damaged_pointer=True),
            lambda: checkpoints.prune(ROOM),
            lambda: checkpoints.delete_room(ROOM),
            lambda: checkpoints.restore(ROOM),
            lambda: checkpoints.hibernate(ROOM, create_only=True),
            lambda: checkpoints.confirm(ROOM, "etag", bytes(32)),
        ):
            with refused("SEAL_KEY_UNAVAILABLE", "FAILED_PRECONDITION") as refusal:
                call()
            assert refusal.names["key_id"] == old.hex()
        checkpoints.restart()
    assert checkpoints.names() == there


@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES)
def test_a_key_that_is_not_available_ends_a_fallback_walk(checkpoints: Checkpoints, lose: Lose) -> None:
    checkpoints.save(ROOM, 1, b"1")
    first = checkpoints.keys.rotate()
    checkpoints.save(ROOM, 2, b"2")
    second = checkpoints.keys.rotate()
    checkpoints.save(ROOM, 3, b"3")
    checkpoints.flip(epoch_name(ROOM, 3))
    assert checkpoints.load(ROOM, fallback=True).data == b"2"
    lose(checkpoints, second)
    with refused("SEAL_KEY_UNAVAILABLE", "FAILED_PRECONDITION") as refusal:
        checkpoints.load(ROOM, fallback=True)
    assert refusal.names["key_id"] == second.hex()
    assert first != second


def test_a_key_with_the_right_id_and_another_secret_opens_nothing(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 1, b"1")
    ring = checkpoints.keys.ring
    wrong = replace(ring.signing, secret=bytes(32))
    checkpoints.keys.ring = replace(ring, keys=(wrong,))
    with refused("POINTER_INVALID", "DATA_LOSS"):
        checkpoints.load(ROOM)
    with refused("SEAL_INVALID", "DATA_LOSS"):
        checkpoints.load(ROOM, epoch=1)
    with refused("POINTER_INVALID", "DATA_LOSS"):
        checkpoints.save(ROOM, 2, b"2")
    assert checkpoints.epochs(ROOM) == [1]
    assert checkpoints.save(ROOM, 2, b"2", replace_damaged_pointer=True).pointer_moved
    assert checkpoints.save(ROOM, 1, b"1").outcome == DAMAGED


def replace_key(checkpoints: Checkpoints) -> None:
    """Let a new key sign, and retire the one that did before."""
    _retire(checkpoints, checkpoints.keys.rotate())


def test_a_room_whose_key_is_lost_is_deleted_when_that_is_asked_for(checkpoints: Checkpoints) -> None:
    for epoch in (4, 5):
        checkpoints.save(ROOM, epoch, b"data")
    replace_key(checkpoints)
    checkpoints.restart()
    with refused("SEAL_KEY_UNAVAILABLE"):
        checkpoints.delete_room(ROOM)
    assert len(checkpoints.names()) == 3
    *_, last = checkpoints.messages("DeleteRoom", pb.DeleteRoomRequest(room_id=ROOM, without_key=True))
    assert (last.deleted, last.existed, last.next_epoch, last.done) == (2, True, anew_after(5), True)
    assert checkpoints.names() == [pointer_name(ROOM)]
    with refused("EPOCH_TOO_OLD"):
        checkpoints.save(ROOM, 5, b"late")
    assert checkpoints.save(ROOM, last.next_epoch, b"anew").pointer_moved


def test_a_room_deleted_twice_stays_deleted_where_the_key_of_its_tombstone_is_lost(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 5)
    second = checkpoints.delete_room(ROOM).next_epoch
    checkpoints.save(ROOM, second)
    third = checkpoints.delete_room(ROOM).next_epoch
    replace_key(checkpoints)
    checkpoints.restart()
    *_, last = checkpoints.messages("DeleteRoom", pb.DeleteRoomRequest(room_id=ROOM, without_key=True))
    assert last.next_epoch >= third
    with refused("EPOCH_TOO_OLD", "FAILED_PRECONDITION"):
        checkpoints.save(ROOM, second + 1, b"of one who has not heard of the second deletion")


def test_a_pointer_that_nobody_vouches_for_does_not_close_its_room(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, MAX_RISE)
    checkpoints.save(ROOM, checkpoints.delete_room(ROOM).next_epoch)
    checkpoints.delete_room(ROOM)
    checkpoints.save(ROOM, (1 << 63) - 3)
    checkpoints.remove(epoch_name(ROOM, (1 << 63) - 3))
    replace_key(checkpoints)
    checkpoints.restart()
    *_, last = checkpoints.messages("DeleteRoom", pb.DeleteRoomRequest(room_id=ROOM, without_key=True))
    for epoch in (last.next_epoch, last.next_epoch + 1):
        assert checkpoints.save(ROOM, epoch).pointer_moved


def test_a_save_whose_key_is_retired_while_its_bytes_come_is_not_acknowledged(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 1, b"one")
    checkpoints.keys.rotate()
    checkpoints.objects.after = meanwhile("put", epoch_name(ROOM, 2), partial(replace_key, checkpoints))
    with refused("SEAL_KEY_UNAVAILABLE", "FAILED_PRECONDITION"):
        checkpoints.save(ROOM, 2, b"two")
    assert checkpoints.load(ROOM).info.epoch == 1


def test_a_snapshot_whose_key_is_retired_while_its_bytes_come_is_not_acknowledged(checkpoints: Checkpoints) -> None:
    checkpoints.objects.after = meanwhile("put", snapshot_name(ROOM), partial(replace_key, checkpoints))
    with refused("SEAL_KEY_UNAVAILABLE", "FAILED_PRECONDITION"):
        checkpoints.hibernate(ROOM, b"asleep")


def test_a_key_that_is_retired_while_the_bytes_come_leaves_nothing_and_a_repeated_save_is_stored(
    checkpoints: Checkpoints,
) -> None:
    checkpoints.save(ROOM, 1, b"one")
    checkpoints.keys.rotate()
    checkpoints.objects.before = meanwhile("put", epoch_name(ROOM, 2), partial(replace_key, checkpoints))
    with refused("SEAL_KEY_UNAVAILABLE", "FAILED_PRECONDITION"):
        checkpoints.save(ROOM, 2, b"two")
    assert epoch_name(ROOM, 2) not in checkpoints.names()
    assert checkpoints.save(ROOM, 2, b"two").outcome == STORED


def test_a_key_that_is_retired_while_a_room_is_hibernated_leaves_the_snapshot_before(checkpoints: Checkpoints) -> None:
    checkpoints.keys.rotate()
    checkpoints.hibernate(ROOM, b"asleep")
    checkpoints.keys.rotate()
    retired = checkpoints.keys.ring.signing.id

    def retire() -> None:
        checkpoints.keys.rotate()
        _retire(checkpoints, retired)

    checkpoints.objects.before = meanwhile("put", snapshot_name(ROOM), retire)
    with refused("SEAL_KEY_UNAVAILABLE", "FAILED_PRECONDITION"):
        checkpoints.hibernate(ROOM, b"asleep again")
    assert checkpoints.restore(ROOM).data == b"asleep"


@pytest.mark.parametrize("reason", ["SEAL_KEY_UNAVAILABLE", "SEAL_TOO_NEW"])
def test_an_epoch_that_cannot_be_read_does_not_stop_its_room(checkpoints: Checkpoints, reason: str) -> None:
    checkpoints.save("other", 8, b"left by a save that broke off")
    replace_key(checkpoints)
    checkpoints.save(ROOM, 7, b"seven")
    left = checkpoints.stored(epoch_name("other", 8))
    checkpoints.put(epoch_name(ROOM, 8), newer(left) if reason == "SEAL_TOO_NEW" else left)
    for _ in range(2):
        with refused(reason, "FAILED_PRECONDITION") as refusal:
            checkpoints.save(ROOM, 8, b"eight")
    next_epoch = int(refusal.names["next_epoch"])
    assert next_epoch == 9
    assert checkpoints.save(ROOM, next_epoch, b"eight").outcome == STORED
    assert checkpoints.load(ROOM).data == b"eight"


# The form.


def runs_of(data: bytes) -> set[bytes]:
    """Return all runs of 16 bytes."""
    return {data[at : at + 16] for at in range(len(data) - 15)}


def newer(data: bytes) -> bytes:
    """Return sealed bytes as a later version of the form would have them."""
    changed = bytearray(data)
    for at in (VERSION_AT, footer_of(data) + VERSION_AT):
        changed[at] = 2
    return bytes(changed)


def test_equal_payloads_of_two_rooms_do_not_show_in_their_seals(checkpoints: Checkpoints) -> None:
    for room in ("alice", "bobby"):
        checkpoints.save(room, 9, b"secret state")
    one, other = (checkpoints.stored(epoch_name(room, 9)) for room in ("alice", "bobby"))
    assert not runs_of(one[footer_of(one) + DIGEST_AT : -12]) & runs_of(other[footer_of(other) + DIGEST_AT : -12])
    if checkpoints.options.encrypt:
        bodies = [data[HEAD_BYTES : footer_of(data)] for data in (one, other)]
        assert not runs_of(bodies[0]) & runs_of(bodies[1])


def test_a_newer_form_is_no_damage_and_ends_a_fallback_walk(checkpoints: Checkpoints) -> None:
    for epoch in (1, 2):
        checkpoints.save(ROOM, epoch, b"%d" % epoch)
    checkpoints.hibernate(ROOM, b"state")
    good = checkpoints.stored(epoch_name(ROOM, 2))
    for name in (epoch_name(ROOM, 2), snapshot_name(ROOM)):
        checkpoints.put(name, newer(checkpoints.stored(name)))
    for look in (
        lambda: checkpoints.load(ROOM),
        lambda: checkpoints.stat(ROOM),
        lambda: checkpoints.load(ROOM, fallback=True),
        lambda: checkpoints.save(ROOM, 2, b"2"),
        lambda: checkpoints.prune(ROOM, keep_last=1),
        lambda: checkpoints.restore(ROOM),
    ):
        checkpoints.objects.clock_ahead = timedelta(hours=1)
        with refused("SEAL_TOO_NEW", "FAILED_PRECONDITION"):
            look()
    checkpoints.put(pointer_name(ROOM), newer(checkpoints.stored(pointer_name(ROOM))))
    checkpoints.put(epoch_name(ROOM, 2), good)
    checkpoints.restart()
    for fallback in (False, True):
        with refused("SEAL_TOO_NEW", "FAILED_PRECONDITION"):
            checkpoints.load(ROOM, fallback=fallback)
    with refused("SEAL_TOO_NEW", "FAILED_PRECONDITION"):
        checkpoints.save(ROOM, 3, b"3", replace_damaged_pointer=True)
