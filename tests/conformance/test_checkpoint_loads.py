"""What LoadCheckpoint and StatCheckpoint promise: what is not good is never sent, nor taken for something else."""

import hashlib
from itertools import count

import pytest

from holdfast.v1 import checkpoint_store_pb2 as pb
from tests.support.any_checkpoints import (
    Checkpoints,
    Refused,
    epoch_name,
    pointer_name,
    refused,
    snapshot_name,
)
from tests.support.samples import MIB, sample

ROOM = "duel-7"
OTHER = "duel-8"


def skipped(info: pb.CheckpointInfo) -> list[tuple[int | None, str]]:
    """Return what a load passed over, and why."""
    reasons = pb.DESCRIPTOR.pool.FindEnumTypeByName("holdfast.v1.ErrorReason").values_by_number
    return [
        (each.epoch if each.HasField("epoch") else None, reasons[each.status.reason].name.removeprefix("ERROR_REASON_"))
        for each in info.skipped
    ]


def test_a_missing_room_is_not_found(checkpoints: Checkpoints) -> None:
    for call in (checkpoints.load, checkpoints.stat):
        with refused("ROOM_NOT_FOUND", "NOT_FOUND") as refusal:
            call(ROOM)
        assert refusal.names == {"room_id": ROOM}
        with refused("CHECKPOINT_NOT_FOUND", "NOT_FOUND"):
            call(ROOM, epoch=7)
    with refused("ROOM_NOT_FOUND", "NOT_FOUND"):
        checkpoints.load(ROOM, fallback=True)


def test_a_missing_epoch_is_not_found(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 7)
    for call in (checkpoints.load, checkpoints.stat):
        with refused("CHECKPOINT_NOT_FOUND", "NOT_FOUND") as refusal:
            call(ROOM, epoch=6)
        assert refusal.names == {"room_id": ROOM, "epoch": "6"}


def test_an_epoch_can_be_asked_for_whether_the_pointer_names_it_or_not(checkpoints: Checkpoints) -> None:
    for epoch in (5, 7, 6):
        checkpoints.save(ROOM, epoch, b"%d" % epoch)
    for epoch in (5, 6, 7):
        loaded = checkpoints.load(ROOM, epoch=epoch)
        assert (loaded.data, loaded.info.epoch) == (b"%d" % epoch, epoch)
        assert (loaded.info.latest_epoch, loaded.info.next_epoch) == (7, 8)


def test_a_stat_tells_what_a_load_does_without_the_digest(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 7, sample(MIB + 1), writer_id="me", metadata={"k": "v"})
    info = checkpoints.load(ROOM).info
    assert info.sha256 == hashlib.sha256(sample(MIB + 1)).digest()
    info.sha256 = b""
    assert checkpoints.stat(ROOM) == info
    assert checkpoints.stat(ROOM, epoch=7) == info


def test_min_epoch_refuses_what_is_older(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 7, b"7")
    for call in (checkpoints.load, checkpoints.stat):
        call(ROOM, min_epoch=7)
        with refused("EPOCH_TOO_OLD", "FAILED_PRECONDITION") as refusal:
            call(ROOM, min_epoch=8)
        assert refusal.names.items() >= {"room_id": ROOM, "latest_epoch": "7"}.items()
        with refused("EPOCH_TOO_OLD"):
            call(ROOM, epoch=7, min_epoch=8)


def test_a_payload_through_the_spool_is_the_same(checkpoints: Checkpoints) -> None:
    for size in (MIB - 1, MIB, 2 * MIB, 5 * MIB + 3):
        checkpoints.save(ROOM, size, sample(size))
        assert checkpoints.load(ROOM, epoch=size).data == sample(size)


def test_a_load_whose_checkpoint_is_pruned_under_it_finds_the_newer(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 1, b"1")
    with checkpoints.beside() as other:
        epochs = count(2)

        def meddle(operation: str, name: str) -> None:
            if operation == "get" and name.startswith("snapshots/") and not name.endswith("latest"):
                checkpoints.objects.calm()
                epoch = next(epochs)
                other.save(ROOM, epoch, b"%d" % epoch)
                checkpoints.remove(name)

        checkpoints.objects.before = meddle
        assert checkpoints.load(ROOM).data == b"2"
        checkpoints.objects.before = meddle
        assert checkpoints.stat(ROOM).epoch == 3


# What is copied, moved back or put in another's place.


def test_a_checkpoint_of_another_room_does_not_open(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 7, b"mine")
    checkpoints.save(OTHER, 7, b"other")
    checkpoints.put(epoch_name(ROOM, 7), checkpoints.stored(epoch_name(OTHER, 7)))
    _is_refused(checkpoints, "SEAL_INVALID", epoch="7")
    assert checkpoints.load(OTHER).data == b"other"


def test_a_checkpoint_of_another_epoch_does_not_open(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 5, b"5")
    checkpoints.save(ROOM, 6, b"6")
    checkpoints.put(epoch_name(ROOM, 6), checkpoints.stored(epoch_name(ROOM, 5)))
    _is_refused(checkpoints, "SEAL_INVALID", epoch="6")
    assert checkpoints.load(ROOM, epoch=5).data == b"5"


def test_a_snapshot_in_a_checkpoints_place_does_not_open(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 7, b"checkpoint")
    checkpoints.hibernate(ROOM, b"snapshot")
    checkpoints.put(epoch_name(ROOM, 7), checkpoints.stored(snapshot_name(ROOM)))
    _is_refused(checkpoints, "SEAL_INVALID", epoch="7")


def test_the_pointer_in_a_checkpoints_place_and_a_checkpoint_in_the_pointers_do_not_open(
    checkpoints: Checkpoints,
) -> None:
    checkpoints.save(ROOM, 7, b"7")
    pointer, checkpoint = (checkpoints.stored(name) for name in (pointer_name(ROOM), epoch_name(ROOM, 7)))
    checkpoints.put(epoch_name(ROOM, 7), pointer)
    _is_refused(checkpoints, "SEAL_INVALID", epoch="7")
    checkpoints.put(epoch_name(ROOM, 7), checkpoint)
    checkpoints.put(pointer_name(ROOM), checkpoint)
    _is_refused(checkpoints, "POINTER_INVALID")


def test_another_checkpoint_of_the_same_room_and_epoch_is_not_what_the_pointer_names(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 7, b"one timeline")
    first = checkpoints.stored(epoch_name(ROOM, 7))
    checkpoints.clear_but_keys()
    checkpoints.save(ROOM, 7, b"another")
    checkpoints.put(epoch_name(ROOM, 7), first)
    for call in (checkpoints.load, checkpoints.stat):
        with refused("SEAL_INVALID", "DATA_LOSS"):
            call(ROOM)


def test_a_pointer_of_another_room_is_refused(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 7, b"7")
    checkpoints.save(OTHER, 8, b"8")
    checkpoints.put(pointer_name(ROOM), checkpoints.stored(pointer_name(OTHER)))
    _is_refused(checkpoints, "POINTER_INVALID")


def _is_refused(checkpoints: Checkpoints, reason: str, **names: str) -> None:
    """Check that the room is damage to servers that knew it and to one that starts, and that no byte of it is sent."""
    for _ in range(2):
        with refused(reason, "DATA_LOSS") as refusal:
            checkpoints.load(ROOM)
        assert refusal.names["room_id"] == ROOM
        assert refusal.names.items() >= names.items()
        with refused(reason, "DATA_LOSS"):
            checkpoints.stat(ROOM)
        assert _sent_before_the_refusal(checkpoints, ROOM) == 0
        checkpoints.restart()


def _sent_before_the_refusal(checkpoints: Checkpoints, room: str) -> int:
    sent = 0
    try:
        for _ in checkpoints.messages("LoadCheckpoint", pb.LoadCheckpointRequest(room_id=room)):
            sent += 1
    except Refused:
        return sent
    pytest.fail("it was sent")


@pytest.mark.parametrize("size", [MIB, 3 * MIB])
@pytest.mark.parametrize("at", [60, -5000])
def test_nothing_of_a_payload_is_sent_that_is_damaged_anywhere(checkpoints: Checkpoints, size: int, at: int) -> None:
    checkpoints.save(ROOM, 7, sample(size))
    checkpoints.flip(epoch_name(ROOM, 7), at)
    assert _sent_before_the_refusal(checkpoints, ROOM) == 0
    with refused("SEAL_INVALID"):
        checkpoints.load(ROOM)


# The pointer.


def test_an_older_valid_pointer_is_noticed_by_who_gives_min_epoch(checkpoints: Checkpoints) -> None:
    _roll_back(checkpoints)
    checkpoints.restart()
    with refused("EPOCH_TOO_OLD", "FAILED_PRECONDITION"):
        checkpoints.load(ROOM, min_epoch=9)


def test_an_older_valid_pointer_is_noticed_by_a_server_that_has_seen_the_newer(checkpoints: Checkpoints) -> None:
    _roll_back(checkpoints)
    for _ in range(2):
        for call in (checkpoints.load, checkpoints.stat):
            with refused("POINTER_INVALID", "DATA_LOSS") as refusal:
                call(ROOM)
            assert refusal.names["room_id"] == ROOM
    with refused("POINTER_INVALID"):
        checkpoints.save(ROOM, 10, if_latest_epoch=8)
    assert checkpoints.epochs(ROOM) == [8, 9]
    loaded = checkpoints.load(ROOM, fallback=True)
    assert (loaded.data, skipped(loaded.info)) == (b"9", [(None, "POINTER_INVALID")])
    assert not loaded.info.HasField("latest_epoch")
    assert loaded.info.next_epoch == 10


def test_a_pointer_that_is_gone_is_noticed_by_a_server_that_has_seen_it(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 7, b"7")
    checkpoints.remove(pointer_name(ROOM))
    with refused("POINTER_INVALID", "DATA_LOSS"):
        checkpoints.load(ROOM)
    assert checkpoints.load(ROOM, fallback=True).data == b"7"
    checkpoints.restart()
    with refused("ROOM_NOT_FOUND", "NOT_FOUND"):
        checkpoints.load(ROOM)
    assert checkpoints.load(ROOM, fallback=True).data == b"7"


def _roll_back(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 8, b"8")
    older = checkpoints.stored(pointer_name(ROOM))
    checkpoints.save(ROOM, 9, b"9")
    checkpoints.put(pointer_name(ROOM), older)


def test_a_pointer_to_nothing_is_damage_and_not_an_empty_room(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 7, b"7")
    checkpoints.remove(epoch_name(ROOM, 7))
    for fields in ({}, {"epoch": 7}):
        for call in (checkpoints.load, checkpoints.stat):
            with refused("POINTER_INVALID", "DATA_LOSS") as refusal:
                call(ROOM, **fields)
            assert refusal.names == {"room_id": ROOM, "epoch": "7"}


GARBAGE = {
    "nothing": b"",
    "text": b"00000000000000000007\n",
    "zeros": bytes(400),
    "much": b"x" * 10_000,
    "a seal's ends": b"HOLDSEAL" + bytes(300) + b"HOLDSEND",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_in_the_pointers_place_is_damage(checkpoints: Checkpoints, garbage: bytes) -> None:
    checkpoints.save(ROOM, 7, b"7")
    checkpoints.put(pointer_name(ROOM), garbage)
    _is_refused(checkpoints, "POINTER_INVALID")
    assert checkpoints.stored(pointer_name(ROOM)) == garbage
    assert checkpoints.load(ROOM, epoch=7).data == b"7"


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_in_a_checkpoints_place_is_damage_of_that_room_only(checkpoints: Checkpoints, garbage: bytes) -> None:
    checkpoints.save(ROOM, 7, b"7")
    checkpoints.save(OTHER, 7, b"other")
    checkpoints.put(epoch_name(ROOM, 7), garbage)
    _is_refused(checkpoints, "SEAL_INVALID", epoch="7")
    assert checkpoints.load(OTHER).data == b"other"


# Falling back.


def test_a_fallback_passes_over_all_that_is_not_good(checkpoints: Checkpoints) -> None:
    for epoch in range(1, 7):
        checkpoints.save(ROOM, epoch, b"%d" % epoch)
    checkpoints.remove(epoch_name(ROOM, 6))
    checkpoints.flip(epoch_name(ROOM, 5))
    checkpoints.put(epoch_name(ROOM, 4), checkpoints.stored(epoch_name(ROOM, 3)))
    loaded = checkpoints.load(ROOM, fallback=True)
    assert (loaded.data, loaded.info.epoch) == (b"3", 3)
    assert skipped(loaded.info) == [(6, "POINTER_INVALID"), (5, "SEAL_INVALID"), (4, "SEAL_INVALID")]
    assert (loaded.info.latest_epoch, loaded.info.next_epoch) == (6, 7)
    assert (loaded.info.skipped[1].status.code, loaded.info.skipped[1].status.details["epoch"]) == (15, "5")
    with refused("SEAL_INVALID"):
        checkpoints.load(ROOM, epoch=5)
    loaded = checkpoints.load(ROOM, epoch=5, fallback=True)
    assert (loaded.data, skipped(loaded.info)) == (b"3", [(5, "SEAL_INVALID"), (4, "SEAL_INVALID")])


def test_a_fallback_skips_nothing_where_all_is_good(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 1, b"1")
    loaded = checkpoints.load(ROOM, fallback=True)
    assert (loaded.data, skipped(loaded.info)) == (b"1", [])


def test_a_fallback_without_any_good_checkpoint_tells_of_the_newest(checkpoints: Checkpoints) -> None:
    for epoch in (1, 2):
        checkpoints.save(ROOM, epoch)
        checkpoints.flip(epoch_name(ROOM, epoch))
    with refused("SEAL_INVALID", "DATA_LOSS") as refusal:
        checkpoints.load(ROOM, fallback=True)
    assert refusal.names["epoch"] == "2"


def test_a_fallback_does_not_go_below_min_epoch(checkpoints: Checkpoints) -> None:
    for epoch in (1, 2, 3):
        checkpoints.save(ROOM, epoch, b"%d" % epoch)
    checkpoints.flip(epoch_name(ROOM, 3))
    with refused("SEAL_INVALID", "DATA_LOSS"):
        checkpoints.load(ROOM, fallback=True, min_epoch=3)
    assert checkpoints.load(ROOM, fallback=True, min_epoch=2).data == b"2"


def test_a_fallback_over_a_damaged_pointer_begins_with_the_newest_that_is_there(checkpoints: Checkpoints) -> None:
    for epoch in (1, 2):
        checkpoints.save(ROOM, epoch, b"%d" % epoch)
    checkpoints.put(pointer_name(ROOM), b"garbage")
    checkpoints.restart()
    loaded = checkpoints.load(ROOM, fallback=True)
    assert (loaded.data, skipped(loaded.info)) == (b"2", [(None, "POINTER_INVALID")])
    assert not loaded.info.HasField("latest_epoch")
    with refused("EPOCH_TOO_OLD"):
        checkpoints.load(ROOM, fallback=True, min_epoch=3)
