"""What a reviewer found in CheckpointStore, and does not find again."""

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial

import pytest

from holdfast.v1 import checkpoint_store_pb2 as pb
from holdfast_server import page_token
from tests.support.any_checkpoints import (
    STORED,
    Checkpoints,
    epoch_name,
    pointer_name,
    refused,
    snapshot_name,
    tried,
)
from tests.support.meddled_store import once
from tests.support.statuses import Refusal

ROOM = "arena"
HOUR = timedelta(hours=1)
YEARS_10_000 = 315_576_000_000
HEAD_BYTES = 56
VERSION_AT = 8
DIGEST_AT = HEAD_BYTES + 32
"""In the footer, behind the head once more, epoch, time and sizes."""


def meanwhile(operation: str, ending: str, work: Callable[[], object]) -> Callable[[str, str], None]:
    """Return what does the work at the next such operation on a name with this ending."""
    left = [work]

    def meddle(done: str, name: str) -> None:
        if done == operation and name.endswith(ending) and left:
            left.pop()()

    return meddle


def footer_of(data: bytes) -> int:
    """Return where the footer of sealed bytes begins."""
    return len(data) - int.from_bytes(data[-12:-8], "little")


def runs_of(data: bytes) -> set[bytes]:
    """Return all runs of 16 bytes."""
    return {data[at : at + 16] for at in range(len(data) - 15)}


def newer(data: bytes) -> bytes:
    """Return sealed bytes as a later version of the form would have them."""
    changed = bytearray(data)
    for at in (VERSION_AT, footer_of(data) + VERSION_AT):
        changed[at] = 2
    return bytes(changed)


# The pointer as it is, and not as it was.


def test_a_save_below_a_pointer_that_another_server_buried_is_too_old(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 100, b"data")
    with checkpoints.beside() as other:
        other.delete_room(ROOM)
        with refused("EPOCH_TOO_OLD", "FAILED_PRECONDITION") as refusal:
            checkpoints.save(ROOM, 50, b"late")
        assert refusal.names["next_epoch"] == "101"
        other.save(ROOM, 101, b"anew")
    assert checkpoints.load(ROOM).data == b"anew"


def test_what_is_acknowledged_below_a_pointer_in_memory_is_there(checkpoints: Checkpoints) -> None:
    """A late save lands below the pointer, which is another one by now."""
    checkpoints.save(ROOM, 5, b"data")
    with checkpoints.beside() as other:
        other.save(ROOM, 9, b"newer")
        answer = checkpoints.save(ROOM, 4, b"late")
    assert (answer.outcome, answer.pointer_moved, answer.latest_epoch, answer.next_epoch) == (STORED, False, 9, 10)
    assert checkpoints.load(ROOM, epoch=4).data == b"late"


def test_a_damaged_pointer_is_replaced_only_while_it_is_that_one(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 10, b"ten")
    checkpoints.put(pointer_name(ROOM), b"garbage")
    checkpoints.restart()
    with checkpoints.beside() as other:
        checkpoints.objects.before = meanwhile(
            "put", pointer_name(ROOM), lambda: other.save(ROOM, 12, b"twelve", replace_damaged_pointer=True)
        )
        with refused("CONCURRENT_MODIFICATION", "ABORTED"):
            checkpoints.save(ROOM, 11, b"eleven", replace_damaged_pointer=True)
        for each in (checkpoints, other):
            assert each.load(ROOM).info.epoch == 12


def test_a_deletion_sees_what_replaced_a_damaged_pointer_meanwhile(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 10, b"ten")
    checkpoints.put(pointer_name(ROOM), b"garbage")
    checkpoints.restart()
    with checkpoints.beside() as other:
        checkpoints.objects.before = meanwhile(
            "put", pointer_name(ROOM), lambda: other.save(ROOM, 12, b"twelve", replace_damaged_pointer=True)
        )
        summary = checkpoints.delete_room(ROOM)
        assert (summary.existed, summary.next_epoch) == (True, 13)
        assert checkpoints.names() == [pointer_name(ROOM)]
        with refused("EPOCH_TOO_OLD"):
            other.save(ROOM, 12, b"twelve")


def test_a_live_pointer_put_back_in_a_tombstones_place_is_noticed(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 5, b"data")
    live = checkpoints.stored(pointer_name(ROOM)), checkpoints.stored(epoch_name(ROOM, 5))
    with checkpoints.beside() as other:
        other.delete_room(ROOM)
        for each in (checkpoints, other):
            with refused("ROOM_NOT_FOUND"):
                each.load(ROOM)
        for name, data in zip((pointer_name(ROOM), epoch_name(ROOM, 5)), live, strict=True):
            checkpoints.put(name, data)
        for each in (checkpoints, other):
            with refused("POINTER_INVALID", "DATA_LOSS"):
                each.load(ROOM)


@pytest.mark.parametrize("look", ["load", "stat"])
def test_an_epoch_that_was_pruned_meanwhile_is_gone_and_its_pointer_good(checkpoints: Checkpoints, look: str) -> None:
    checkpoints.save(ROOM, 1, b"one")
    with checkpoints.beside() as other:

        def move_on() -> None:
            other.save(ROOM, 2, b"two")
            other.objects.clock_ahead = HOUR
            assert other.prune(ROOM)[-1].deleted == 1

        checkpoints.objects.before = meanwhile("get", epoch_name(ROOM, 1), move_on)
        with refused("CHECKPOINT_NOT_FOUND", "NOT_FOUND"):
            getattr(checkpoints, look)(ROOM, epoch=1)


@pytest.mark.parametrize("room", [ROOM, ""], ids=["one room", "all rooms"])
def test_a_prune_against_a_moving_pointer_is_no_alarm(checkpoints: Checkpoints, room: str) -> None:
    for epoch in range(3):
        checkpoints.save(ROOM, epoch, b"data")
    checkpoints.objects.clock_ahead = HOUR
    with checkpoints.beside() as other:

        def move_on() -> None:
            other.save(ROOM, 3, b"three")
            other.objects.clock_ahead = HOUR
            assert other.prune(ROOM)[-1].deleted == 3

        checkpoints.objects.before = meanwhile("get", epoch_name(ROOM, 2), move_on)
        assert [list(answer.failed) for answer in checkpoints.prune(room)] == [[]]
    assert checkpoints.load(ROOM).data == b"three"


# What a late save leaves beside a tombstone.


def leave_orphans(checkpoints: Checkpoints, *epochs: int) -> None:
    """Leave checkpoints beside a tombstone at epoch 5: their saves were broken off, or told that they were too late."""
    checkpoints.save(ROOM, 5, b"data")
    orphans = {}
    for epoch in epochs:
        checkpoints.objects.before = once("put", pointer_name(ROOM))
        tried(partial(checkpoints.save, ROOM, epoch, b"orphan"))
        orphans[epoch_name(ROOM, epoch)] = checkpoints.stored(epoch_name(ROOM, epoch))
        if epoch > 5:
            checkpoints.remove(epoch_name(ROOM, epoch))
    checkpoints.objects.calm()
    assert checkpoints.delete_room(ROOM).next_epoch == 6
    for name, data in orphans.items():
        checkpoints.put(name, data)


def test_a_room_deleted_again_loses_what_late_saves_left(checkpoints: Checkpoints) -> None:
    leave_orphans(checkpoints, 3, 4, 6, 8)
    summary = checkpoints.delete_room(ROOM)
    assert (summary.deleted, summary.existed, summary.next_epoch) == (4, False, 9)
    assert checkpoints.names() == [pointer_name(ROOM)]


@pytest.mark.parametrize("above", [(), (6, 8)], ids=["nothing above", "and above"])
def test_housekeeping_sweeps_what_came_too_late_once_it_is_old(
    checkpoints: Checkpoints, backend: str, above: tuple[int, ...]
) -> None:
    """What lies above may be what the room is begun anew with: that is for who deletes it once more."""
    leave_orphans(checkpoints, 3, 4, *above)
    tidy = checkpoints.store.removal.tidy_tombstones
    for ahead in (timedelta(0), HOUR - timedelta(minutes=1)):
        checkpoints.objects.clock_ahead = ahead
        assert tidy(timedelta(days=14)) == 0
        assert checkpoints.epochs(ROOM) == [3, 4, *above], "what is young may be of a save at work"
    checkpoints.objects.clock_ahead = HOUR + timedelta(minutes=1)
    assert tidy(timedelta(days=14)) == 0
    assert checkpoints.epochs(ROOM) == [*above]
    if above:
        checkpoints.delete_room(ROOM)
    assert checkpoints.names() == [pointer_name(ROOM)]
    checkpoints.objects.clock_ahead = timedelta(days=15)
    is_removed = backend != "minio"  # MinIO keeps no condition of a deletion, so tombstones stay
    assert tidy(timedelta(days=14)) == is_removed
    assert checkpoints.names() == ([] if is_removed else [pointer_name(ROOM)])


# A room that lost its pointer.


def lose_pointer(checkpoints: Checkpoints) -> None:
    """Save two epochs, a minute before now, and lose the pointer; nobody who is there has seen it."""
    for epoch in (4, 5):
        checkpoints.save(ROOM, epoch, b"%d" % epoch)
    checkpoints.remove(pointer_name(ROOM))
    checkpoints.restart()
    checkpoints.objects.clock_ahead = timedelta(minutes=1)


def test_a_room_without_its_pointer_says_where_it_goes_on(checkpoints: Checkpoints) -> None:
    lose_pointer(checkpoints)
    for look in (checkpoints.load, checkpoints.stat):
        with refused("ROOM_NOT_FOUND", "NOT_FOUND") as refusal:
            look(ROOM)
        assert refusal.names["next_epoch"] == "6"
        assert "no pointer, but checkpoints up to epoch 5" in refusal.message
    loaded = checkpoints.load(ROOM, fallback=True)
    assert (loaded.info.epoch, loaded.data, loaded.info.next_epoch) == (5, b"5", 6)


def test_a_room_without_its_pointer_is_not_begun_below_what_it_has(checkpoints: Checkpoints) -> None:
    lose_pointer(checkpoints)
    for epoch in (0, 3):
        with refused("EPOCH_TOO_OLD", "FAILED_PRECONDITION") as refusal:
            checkpoints.save(ROOM, epoch, b"anew")
        assert (refusal.names["latest_epoch"], refusal.names["next_epoch"]) == ("5", "6")
    assert checkpoints.epochs(ROOM) == [4, 5]
    assert checkpoints.save(ROOM, 6, b"6").pointer_moved
    assert checkpoints.load(ROOM).data == b"6"


def test_a_first_save_is_not_refused_for_what_others_begin_with(checkpoints: Checkpoints) -> None:
    begin = threading.Barrier(8)

    def first(epoch: int) -> pb.SaveCheckpointResponse:
        begin.wait()
        return checkpoints.save(ROOM, epoch, b"%d" % epoch)

    with ThreadPoolExecutor(8) as pool:
        assert {answer.outcome for answer in pool.map(first, range(8))} == {STORED}
    assert checkpoints.load(ROOM).info.epoch == 7


def test_the_pointer_that_is_not_there_yet_refuses_nobody(checkpoints: Checkpoints) -> None:
    """Another's first checkpoint lies there already, and its pointer does not."""
    checkpoints.objects.before = once("put", pointer_name(ROOM))
    with refused("BACKEND_UNAVAILABLE"):
        checkpoints.save(ROOM, 7, b"seven")
    assert checkpoints.save(ROOM, 3, b"three").pointer_moved


# Snapshots.


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


# Keys, and the form.


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
        checkpoints.objects.clock_ahead = HOUR
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


def test_a_room_whose_key_is_lost_is_deleted_when_that_is_asked_for(checkpoints: Checkpoints) -> None:
    for epoch in (4, 5):
        checkpoints.save(ROOM, epoch, b"data")
    old = checkpoints.keys.rotate()
    checkpoints.keys.ring = checkpoints.keys.ring.retired(old)
    checkpoints.restart()
    with refused("SEAL_KEY_UNAVAILABLE"):
        checkpoints.delete_room(ROOM)
    assert len(checkpoints.names()) == 3
    *_, last = checkpoints.messages("DeleteRoom", pb.DeleteRoomRequest(room_id=ROOM, without_key=True))
    assert (last.deleted, last.existed, last.next_epoch, last.done) == (2, True, 6, True)
    assert checkpoints.names() == [pointer_name(ROOM)]
    with refused("EPOCH_TOO_OLD"):
        checkpoints.save(ROOM, 5, b"late")
    assert checkpoints.save(ROOM, 6, b"anew").pointer_moved


def test_a_save_whose_key_is_retired_while_its_bytes_come_is_not_acknowledged(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 1, b"one")
    checkpoints.keys.rotate()

    def retire() -> None:
        old = checkpoints.keys.rotate()
        checkpoints.keys.ring = checkpoints.keys.ring.retired(old)

    checkpoints.objects.after = meanwhile("put", epoch_name(ROOM, 2), retire)
    with refused("SEAL_KEY_UNAVAILABLE", "FAILED_PRECONDITION"):
        checkpoints.save(ROOM, 2, b"two")
    assert checkpoints.load(ROOM).info.epoch == 1


def test_a_snapshot_whose_key_is_retired_while_its_bytes_come_is_not_acknowledged(checkpoints: Checkpoints) -> None:
    def retire() -> None:
        old = checkpoints.keys.rotate()
        checkpoints.keys.ring = checkpoints.keys.ring.retired(old)

    checkpoints.objects.after = meanwhile("put", snapshot_name(ROOM), retire)
    with refused("SEAL_KEY_UNAVAILABLE", "FAILED_PRECONDITION"):
        checkpoints.hibernate(ROOM, b"asleep")


# What is asked for.


def test_what_is_old_beyond_all_measure_is_counted_with(checkpoints: Checkpoints) -> None:
    for epoch in range(3):
        checkpoints.save(ROOM, epoch)
    checkpoints.objects.clock_ahead = HOUR
    for room in (ROOM, ""):
        assert checkpoints.prune(room, older_than=YEARS_10_000)[-1].deleted == 0
        with refused("INVALID_RETENTION", "INVALID_ARGUMENT"):
            checkpoints.prune(room, older_than=-YEARS_10_000)


ROOMS_IN_TOKENS = ["abc", "-5", "٣", "²"]
NOTHING_IN_TOKENS = ["", "9" * 4000, "9" * 5000, "\0", "a\nb", "r/" * 400, "../..", "a//b"]


@pytest.mark.parametrize("position", [*ROOMS_IN_TOKENS, *NOTHING_IN_TOKENS])
def test_a_crafted_page_token_is_refused_unless_it_tells_where_to_go_on(
    checkpoints: Checkpoints, position: str
) -> None:
    checkpoints.save(ROOM, 1, b"data")
    checkpoints.hibernate(ROOM, b"data")
    queries = {
        "ListCheckpoints": (("checkpoints", ROOM, "0"), {"room_id": ROOM}),
        "ListRooms": (("rooms", ""), {}),
        "ListHibernatedRooms": (("hibernated", ""), {}),
    }
    for rpc, (binding, fields) in queries.items():
        token = page_token.encode(binding, position)
        answer = tried(partial(checkpoints.page, rpc, page_token=token, **fields))
        if rpc == "ListRooms" and position in ROOMS_IN_TOKENS:
            assert not isinstance(answer, Refusal)
        else:
            assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN")


@pytest.mark.parametrize("damaged", [(3, 4), (2, 3, 4), (1, 3)], ids=str)
def test_damaged_checkpoints_do_not_count_among_those_that_are_kept(
    checkpoints: Checkpoints, damaged: tuple[int, ...]
) -> None:
    for epoch in range(7):
        checkpoints.save(ROOM, epoch, b"data")
    for epoch in damaged:
        checkpoints.flip(epoch_name(ROOM, epoch))
    checkpoints.objects.clock_ahead = HOUR
    checkpoints.prune(ROOM, keep_last=3)
    oldest = sorted(set(range(7)) - set(damaged))[-3]
    assert checkpoints.epochs(ROOM) == list(range(oldest, 7))
    for epoch in (5, 6):
        if epoch not in damaged:
            checkpoints.flip(epoch_name(ROOM, epoch))
    assert checkpoints.load(ROOM, fallback=True).info.epoch == oldest
