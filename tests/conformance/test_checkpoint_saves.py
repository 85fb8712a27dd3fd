"""What SaveCheckpoint promises: an epoch is written once, the pointer moves forward only, and a retry converges."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from holdfast.v1 import checkpoint_store_pb2 as pb
from holdfast.v1.types_pb2 import DataChunk
from tests.support.any_checkpoints import (
    DAMAGED,
    DIFFERENT,
    SAME,
    STORED,
    Checkpoints,
    epoch_name,
    pointer_name,
    refused,
    tried,
)
from tests.support.meddled_store import meanwhile, once
from tests.support.samples import MIB, sample
from tests.support.statuses import Refusal

ROOM = "duel/7"
MAX_EPOCH = (1 << 63) - 2
"""So that there is one above it to tell of."""
MAX_RISE = 1 << 62


@pytest.mark.parametrize("size", [0, 1, MIB, 3 * MIB + 7])
def test_a_checkpoint_comes_back_as_it_was_saved(checkpoints: Checkpoints, size: int) -> None:
    data = sample(size)
    saved = checkpoints.save(ROOM, 7, data, writer_id="node 1", metadata={"who": "mé", "empty": ""})
    assert (saved.outcome, saved.pointer_moved, saved.latest_epoch, saved.next_epoch) == (STORED, True, 7, 8)
    info = saved.checkpoint
    assert (info.room_id, info.epoch, info.size_bytes) == (ROOM, 7, size)
    assert info.sha256 == hashlib.sha256(data).digest()
    assert (info.writer_id, dict(info.metadata)) == ("node 1", {"who": "mé", "empty": ""})
    assert (info.key_id, info.encrypted) == (checkpoints.keys.ring.signing.id.hex(), checkpoints.options.encrypt)
    assert not info.legacy
    assert not info.HasField("latest_epoch")
    loaded = checkpoints.load(ROOM)
    assert loaded.data == data
    assert (loaded.info.latest_epoch, loaded.info.next_epoch) == (7, 8)
    for each in (loaded.info, info):
        each.ClearField("latest_epoch")
        each.ClearField("next_epoch")
        each.ClearField("update_time")
    assert loaded.info == info


def test_names_are_those_of_the_documents_and_sort_by_epoch(checkpoints: Checkpoints) -> None:
    for epoch in (42, 9, 10, MAX_RISE):
        checkpoints.save("room", epoch)
    assert checkpoints.names() == [
        "snapshots/room/00000000000000000009",
        "snapshots/room/00000000000000000010",
        "snapshots/room/00000000000000000042",
        "snapshots/room/04611686018427387904",
        "snapshots/room/latest",
    ]


def test_ten_and_then_nine_keeps_both_and_the_pointer_stays(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 10, b"ten")
    late = checkpoints.save(ROOM, 9, b"nine")
    assert (late.outcome, late.pointer_moved, late.latest_epoch, late.next_epoch) == (STORED, False, 10, 11)
    assert checkpoints.load(ROOM).data == b"ten"
    assert checkpoints.load(ROOM, epoch=9).data == b"nine"


def test_the_same_epoch_twice_with_the_same_bytes_is_no_error(checkpoints: Checkpoints) -> None:
    first = checkpoints.save(ROOM, 7, b"data", writer_id="first")
    again = checkpoints.save(ROOM, 7, b"data", writer_id="again")
    assert (again.outcome, again.pointer_moved, again.latest_epoch, again.next_epoch) == (SAME, False, 7, 8)
    assert (again.checkpoint.etag, again.checkpoint.writer_id) == (first.checkpoint.etag, "first")


def test_the_same_epoch_twice_with_other_bytes_keeps_the_first_and_says_so(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 7, b"first")
    again = checkpoints.save(ROOM, 7, b"second")
    assert (again.outcome, again.pointer_moved, again.latest_epoch, again.next_epoch) == (DIFFERENT, False, 7, 8)
    assert again.checkpoint.sha256 == hashlib.sha256(b"first").digest()
    assert checkpoints.load(ROOM).data == b"first"


def test_require_new_refuses_an_epoch_that_is_there(checkpoints: Checkpoints) -> None:
    assert checkpoints.save(ROOM, 7, b"data", require_new=True).outcome == STORED
    for data in (b"data", b"other"):
        with refused("ALREADY_EXISTS", "ALREADY_EXISTS") as refusal:
            checkpoints.save(ROOM, 7, data, require_new=True)
        assert refusal.names == {"room_id": ROOM, "epoch": "7"}


def test_if_latest_epoch_refuses_a_save_on_top_of_another(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 1, b"1", if_latest_epoch=-1)
    with refused("CONCURRENT_MODIFICATION", "ABORTED") as refusal:
        checkpoints.save(ROOM, 2, b"2", if_latest_epoch=-1)
    assert refusal.names == {"room_id": ROOM, "latest_epoch": "1"}
    assert checkpoints.save(ROOM, 2, b"2", if_latest_epoch=1).pointer_moved
    with refused("CONCURRENT_MODIFICATION", "ABORTED"):
        checkpoints.save(ROOM, 3, b"3", if_latest_epoch=1)
    assert checkpoints.epochs(ROOM) == [1, 2]


@pytest.mark.parametrize("is_damaged", [False, True])
def test_if_latest_epoch_refuses_also_where_the_epoch_is_taken(checkpoints: Checkpoints, is_damaged: bool) -> None:
    checkpoints.save(ROOM, 5)

    def overtake() -> None:
        with checkpoints.beside() as other:
            other.save(ROOM, 6, b"theirs", if_latest_epoch=5)
        if is_damaged:
            checkpoints.put(epoch_name(ROOM, 6), b"damaged")

    checkpoints.objects.before = meanwhile("put", epoch_name(ROOM, 6), overtake)
    for _ in range(2):
        with refused("CONCURRENT_MODIFICATION", "ABORTED") as refusal:
            checkpoints.save(ROOM, 6, b"mine", if_latest_epoch=5)
        assert refusal.names["latest_epoch"] == "6"


def test_if_latest_epoch_lets_one_go_on_of_two_that_save_the_same(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 5, b"state")
    assert checkpoints.save(ROOM, 6, b"state", if_latest_epoch=5, writer_id="one").outcome == STORED
    with refused("CONCURRENT_MODIFICATION", "ABORTED") as refusal:
        checkpoints.save(ROOM, 6, b"state", if_latest_epoch=5, writer_id="other")
    assert refusal.names["latest_epoch"] == "6"
    assert checkpoints.save(ROOM, 6, b"state", if_latest_epoch=5, writer_id="one").outcome == SAME
    assert checkpoints.save(ROOM, 6, b"state", writer_id="other").outcome == SAME, "without a condition it is no matter"


def test_if_latest_epoch_goes_on_above_what_another_has_not_finished(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 5, b"state")
    checkpoints.objects.before = once("put", pointer_name(ROOM))
    with refused("BACKEND_UNAVAILABLE"):
        checkpoints.save(ROOM, 6, b"state", if_latest_epoch=5, writer_id="one")
    saved = checkpoints.save(ROOM, 6, b"state", if_latest_epoch=5, writer_id="other")
    assert (saved.outcome, saved.pointer_moved, saved.next_epoch) == (DIFFERENT, False, 7)
    assert checkpoints.save(ROOM, 7, b"state", if_latest_epoch=5, writer_id="other").pointer_moved
    with refused("CONCURRENT_MODIFICATION", "ABORTED"):
        checkpoints.save(ROOM, 6, b"state", if_latest_epoch=5, writer_id="one")


def test_if_latest_epoch_looks_at_the_pointer_and_not_at_what_is_remembered(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 1)
    with checkpoints.beside() as other:
        other.save(ROOM, 2)
    with refused("CONCURRENT_MODIFICATION"):
        checkpoints.save(ROOM, 3, if_latest_epoch=1)
    assert checkpoints.epochs(ROOM) == [1, 2]
    assert checkpoints.save(ROOM, 3, if_latest_epoch=2).pointer_moved


def test_if_latest_epoch_holds_when_the_pointer_is_moved_and_not_only_before(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 1)
    with checkpoints.beside() as other:

        def meddle(operation: str, name: str) -> None:
            if operation == "put" and name == epoch_name(ROOM, 3):
                other.save(ROOM, 2)

        checkpoints.objects.before = meddle
        with refused("CONCURRENT_MODIFICATION", "ABORTED"):
            checkpoints.save(ROOM, 3, if_latest_epoch=1)
    assert checkpoints.stat(ROOM).epoch == 2


def test_a_save_with_if_latest_epoch_is_repeated_without_harm(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 1)
    assert checkpoints.save(ROOM, 2, b"2", if_latest_epoch=1).outcome == STORED
    again = checkpoints.save(ROOM, 2, b"2", if_latest_epoch=1)
    assert (again.outcome, again.latest_epoch) == (SAME, 2)
    with refused("CONCURRENT_MODIFICATION"):
        checkpoints.save(ROOM, 2, b"other", if_latest_epoch=1)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", [epoch_name(ROOM, 2), pointer_name(ROOM)])
def test_a_save_that_failed_at_a_write_converges_when_it_is_repeated(
    checkpoints: Checkpoints, what: str, when: str
) -> None:
    checkpoints.save(ROOM, 1, b"1")
    setattr(checkpoints.objects, when, once("put", what))
    with refused("BACKEND_UNAVAILABLE", "UNAVAILABLE"):
        checkpoints.save(ROOM, 2, b"2")
    retried = checkpoints.save(ROOM, 2, b"2")
    was_stored = (what, when) != (epoch_name(ROOM, 2), "before")
    assert retried.outcome == (SAME if was_stored else STORED)
    assert (retried.latest_epoch, retried.next_epoch) == (2, 3)
    assert checkpoints.load(ROOM).data == b"2"
    assert checkpoints.epochs(ROOM) == [1, 2]


def test_a_save_whose_every_operation_fails_in_turn_leaves_the_room_good(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 0, b"0")
    failures = 0
    for nth in range(1, 30):
        checkpoints.restart()
        left = [nth]

        def meddle(operation: str, name: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                once(operation, name)(operation, name)

        checkpoints.objects.before = meddle
        answer = tried(partial(checkpoints.save, ROOM, nth, b"%d" % nth))
        if isinstance(answer, Refusal):
            assert answer.reason == "BACKEND_UNAVAILABLE"
            failures += 1
        checkpoints.objects.calm()
        before = checkpoints.stat(ROOM).epoch
        assert before in {nth - 1, nth}
        assert checkpoints.save(ROOM, nth, b"%d" % nth).outcome in {SAME, STORED}
        assert checkpoints.load(ROOM).data == b"%d" % nth
        if left[0] > 0:
            break
    assert failures >= 3, "the pointer's read, and two writes"
    assert left[0] > 0, "no end was found"


def test_an_orphan_of_an_unacknowledged_save_does_not_win_in_silence(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 6, b"6")
    checkpoints.objects.before = once("put", pointer_name(ROOM))
    with refused("BACKEND_UNAVAILABLE"):
        checkpoints.save(ROOM, 7, b"orphan")
    taken = checkpoints.save(ROOM, 7, b"new")
    assert (taken.outcome, taken.pointer_moved, taken.latest_epoch, taken.next_epoch) == (DIFFERENT, False, 6, 8)
    assert checkpoints.load(ROOM).data == b"6"
    assert (checkpoints.stat(ROOM).latest_epoch, checkpoints.stat(ROOM).next_epoch) == (6, 8)
    assert checkpoints.save(ROOM, taken.next_epoch, b"new").pointer_moved
    assert checkpoints.load(ROOM).data == b"new"


def test_an_epoch_that_is_there_and_damaged_is_told_and_not_named_by_the_pointer(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 6, b"6")
    checkpoints.put(epoch_name(ROOM, 7), b"garbage")
    taken = checkpoints.save(ROOM, 7, b"7")
    assert (taken.outcome, taken.pointer_moved, taken.latest_epoch, taken.next_epoch) == (DAMAGED, False, 6, 8)
    assert not taken.HasField("checkpoint")
    assert checkpoints.load(ROOM).data == b"6"
    assert checkpoints.stored(epoch_name(ROOM, 7)) == b"garbage"


def test_a_damaged_pointer_stops_saves_until_it_is_replaced_above_all_epochs(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 5, b"5")
    checkpoints.put(pointer_name(ROOM), b"garbage")
    checkpoints.restart()
    with refused("POINTER_INVALID", "DATA_LOSS") as refusal:
        checkpoints.save(ROOM, 6, b"6")
    assert refusal.names["room_id"] == ROOM
    assert checkpoints.stored(pointer_name(ROOM)) == b"garbage"
    for epoch, data in ((4, b"4"), (5, b"another")):
        with refused("INVALID_EPOCH", "INVALID_ARGUMENT") as refusal:
            checkpoints.save(ROOM, epoch, data, replace_damaged_pointer=True)
        assert (refusal.fields, refusal.names) == (["epoch"], {"next_epoch": "6"})
    assert checkpoints.stored(pointer_name(ROOM)) == b"garbage"
    assert checkpoints.save(ROOM, 6, b"6", replace_damaged_pointer=True).pointer_moved
    assert checkpoints.load(ROOM).data == b"6"


def test_a_save_that_replaces_a_damaged_pointer_is_repeated_without_harm(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 5, b"5")
    checkpoints.put(pointer_name(ROOM), b"garbage")
    checkpoints.restart()
    checkpoints.objects.before = once("put", pointer_name(ROOM))
    with refused("BACKEND_UNAVAILABLE", "UNAVAILABLE"):
        checkpoints.save(ROOM, 6, b"6", replace_damaged_pointer=True)
    retried = checkpoints.save(ROOM, 6, b"6", replace_damaged_pointer=True)
    assert (retried.outcome, retried.pointer_moved, retried.latest_epoch) == (SAME, True, 6)
    assert checkpoints.load(ROOM).data == b"6"


def test_replace_damaged_pointer_changes_nothing_where_the_pointer_is_good(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 5, b"5")
    saved = checkpoints.save(ROOM, 4, b"4", replace_damaged_pointer=True)
    assert (saved.outcome, saved.pointer_moved, saved.latest_epoch) == (STORED, False, 5)


def test_a_save_far_above_all_others_does_not_close_the_room_for_good(checkpoints: Checkpoints) -> None:
    for beyond in (MAX_EPOCH + 1, MAX_EPOCH, MAX_RISE + 1, -1):
        with refused("INVALID_EPOCH", "INVALID_ARGUMENT") as refusal:
            checkpoints.save(ROOM, beyond)
        assert refusal.fields == ["epoch"]
    assert checkpoints.save(ROOM, MAX_RISE, b"by mistake").pointer_moved
    with refused("INVALID_EPOCH"):
        checkpoints.save(ROOM, MAX_RISE + 1)
    whole = checkpoints.stored(pointer_name(ROOM))
    checkpoints.put(pointer_name(ROOM), b"damaged")
    with refused("INVALID_EPOCH"):
        checkpoints.save(ROOM, MAX_RISE + 1, replace_damaged_pointer=True)
    checkpoints.put(pointer_name(ROOM), whole)
    anew = checkpoints.delete_room(ROOM).next_epoch
    checkpoints.restart()
    assert checkpoints.save(ROOM, anew, b"anew").next_epoch == anew + 1
    assert checkpoints.save(ROOM, anew + 1, b"and on").pointer_moved


def test_the_highest_epoch_is_an_epoch(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, MAX_RISE)
    checkpoints.delete_room(ROOM)
    saved = checkpoints.save(ROOM, MAX_EPOCH, b"last")
    assert (saved.outcome, saved.latest_epoch, saved.next_epoch) == (STORED, MAX_EPOCH, MAX_EPOCH + 1)
    loaded = checkpoints.load(ROOM)
    assert (loaded.data, loaded.info.next_epoch) == (b"last", MAX_EPOCH + 1)
    assert checkpoints.epochs(ROOM) == [MAX_EPOCH]
    assert checkpoints.save(ROOM, MAX_EPOCH, b"other").outcome == DIFFERENT
    assert checkpoints.delete_room(ROOM).next_epoch == MAX_EPOCH + 1, "there is none above it to begin anew with"


def test_an_upload_that_breaks_off_leaves_the_room_as_it_was(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 1, b"1")
    there = checkpoints.names()
    header = pb.SaveCheckpointHeader(room_id=ROOM, epoch=2)
    parts = [
        pb.SaveCheckpointRequest(header=header),
        *[pb.SaveCheckpointRequest(chunk=DataChunk(data=sample(MIB)))] * 2,
    ]
    with refused("UPLOAD_INCOMPLETE", "INVALID_ARGUMENT"):
        checkpoints.call("SaveCheckpoint", iter(parts))
    assert checkpoints.names() == there
    assert checkpoints.load(ROOM).data == b"1"


def test_what_arrives_must_be_what_was_declared_also_where_the_epoch_is_there(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 1, b"1")
    for epoch in (1, 2):
        with refused("CHECKSUM_MISMATCH", "INVALID_ARGUMENT"):
            checkpoints.save(ROOM, epoch, b"1", sha256=bytes(32))
        with refused("SIZE_MISMATCH", "INVALID_ARGUMENT"):
            checkpoints.save(ROOM, epoch, b"1", size_bytes=2)
    assert checkpoints.epochs(ROOM) == [1]


def test_a_save_is_two_writes_and_no_read_where_the_pointer_is_remembered(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 1)
    checkpoints.objects.calm()
    checkpoints.save(ROOM, 2, sample(3 * MIB))
    assert checkpoints.objects.calls == {"put": 2}


def test_sixteen_writers_of_one_room_in_two_servers_lose_nothing(checkpoints: Checkpoints) -> None:
    with checkpoints.beside() as other, ThreadPoolExecutor(16) as pool:

        def write(writer: int) -> list[tuple[int, bytes]]:
            mine = (checkpoints, other)[writer % 2]
            acknowledged = []
            for step in range(4):
                epoch = step * 16 + writer
                saved = mine.save(ROOM, epoch, b"%d" % epoch)
                assert saved.outcome == STORED
                assert saved.latest_epoch >= epoch
                acknowledged.append((epoch, b"%d" % epoch))
            return acknowledged

        told = [each for found in pool.map(write, range(16)) for each in found]
        for epoch, data in told:
            assert other.load(ROOM, epoch=epoch).data == data
        assert checkpoints.load(ROOM).data == other.load(ROOM).data == b"63"


def test_of_two_servers_that_save_the_same_epoch_one_is_told_that_it_was_taken(checkpoints: Checkpoints) -> None:
    with checkpoints.beside() as other:
        checkpoints.save(ROOM, 1)
        other.save(ROOM, 1)
        with ThreadPoolExecutor(2) as pool:
            for epoch in range(2, 8):
                first = pool.submit(checkpoints.save, ROOM, epoch, b"a")
                second = pool.submit(other.save, ROOM, epoch, b"b")
                outcomes = [first.result(60).outcome, second.result(60).outcome]
                assert sorted(outcomes) == sorted([STORED, DIFFERENT])
                assert checkpoints.load(ROOM).data == (b"a" if outcomes[0] == STORED else b"b")


def test_plain_bytes_are_at_rest_only_where_nothing_is_encrypted(checkpoints: Checkpoints) -> None:
    secret = b"the hidden position of every player" * 4
    checkpoints.save(ROOM, 1, secret)
    checkpoints.hibernate(ROOM, secret)
    found = [secret in checkpoints.stored(name) for name in checkpoints.names() if not name.endswith("latest")]
    assert found == [not checkpoints.options.encrypt] * 2
    digest = hashlib.sha256(secret).digest()
    assert not any(digest in checkpoints.stored(name) for name in checkpoints.names())


def test_a_store_whose_keys_are_unavailable_takes_nothing_and_loses_nothing(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 1, b"1")
    ring, checkpoints.keys.now = checkpoints.keys.now, None
    with refused("SEAL_KEY_UNAVAILABLE", "FAILED_PRECONDITION"):
        checkpoints.save(ROOM, 2, b"2")
    with refused("SEAL_KEY_UNAVAILABLE", "FAILED_PRECONDITION"):
        checkpoints.load(ROOM)
    checkpoints.keys.now = ring
    assert checkpoints.epochs(ROOM) == [1]
    assert checkpoints.load(ROOM).data == b"1"
