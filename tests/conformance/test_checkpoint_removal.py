"""What PruneCheckpoints and DeleteRoom promise: where it is unsure, what is there is kept."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from holdfast_server.errors import Reason, Unavailable
from tests.support.any_checkpoints import (
    STORED,
    Checkpoints,
    epoch_name,
    pointer_name,
    refused,
    snapshot_name,
)
from tests.support.meddled_store import once
from tests.support.tombstones import anew_after

ROOM = "arena"
HOUR = 3600
YEARS_10_000 = 315_576_000_000


def ten(checkpoints: Checkpoints, room: str = ROOM) -> None:
    """Save ten checkpoints, an hour before now."""
    for epoch in range(10):
        checkpoints.save(room, epoch, b"%d" % epoch)
    checkpoints.objects.clock_ahead = timedelta(hours=1)


def test_what_is_not_among_the_newest_is_deleted(checkpoints: Checkpoints) -> None:
    ten(checkpoints)
    sizes = [len(checkpoints.stored(epoch_name(ROOM, epoch))) for epoch in range(7)]
    summary = checkpoints.prune(ROOM, keep_last=3)[-1]
    assert (summary.rooms, summary.deleted, summary.kept, list(summary.failed)) == (1, 7, 3, [])
    assert summary.deleted_bytes == sum(sizes)
    assert checkpoints.epochs(ROOM) == [7, 8, 9]
    assert checkpoints.load(ROOM).data == b"9"
    assert checkpoints.prune(ROOM, keep_last=3)[-1].deleted == 0


def test_what_is_young_is_kept_whatever_its_number(checkpoints: Checkpoints) -> None:
    ten(checkpoints)
    assert checkpoints.prune(ROOM, keep_last=1, older_than=HOUR + 60)[-1].deleted == 0
    checkpoints.objects.clock_ahead = timedelta(0)
    assert checkpoints.prune(ROOM, keep_last=1, older_than=HOUR)[-1].deleted == 0
    checkpoints.objects.clock_ahead = timedelta(hours=1)
    assert checkpoints.prune(ROOM, keep_last=4, older_than=HOUR - 60)[-1].deleted == 6
    assert checkpoints.epochs(ROOM) == [6, 7, 8, 9]


def test_what_is_old_beyond_all_measure_is_counted_with(checkpoints: Checkpoints) -> None:
    for epoch in range(3):
        checkpoints.save(ROOM, epoch)
    checkpoints.objects.clock_ahead = timedelta(hours=1)
    for room in (ROOM, ""):
        assert checkpoints.prune(room, older_than=YEARS_10_000)[-1].deleted == 0
        with refused("INVALID_RETENTION", "INVALID_ARGUMENT"):
            checkpoints.prune(room, older_than=-YEARS_10_000)


@pytest.mark.parametrize("damaged", [(3, 4), (2, 3, 4), (1, 3)], ids=str)
def test_damaged_checkpoints_do_not_count_among_those_that_are_kept(
    checkpoints: Checkpoints, damaged: tuple[int, ...]
) -> None:
    for epoch in range(7):
        checkpoints.save(ROOM, epoch, b"data")
    for epoch in damaged:
        checkpoints.flip(epoch_name(ROOM, epoch))
    checkpoints.objects.clock_ahead = timedelta(hours=1)
    checkpoints.prune(ROOM, keep_last=3)
    oldest = sorted(set(range(7)) - set(damaged))[-3]
    assert checkpoints.epochs(ROOM) == list(range(oldest, 7))
    for epoch in (5, 6):
        if epoch not in damaged:
            checkpoints.flip(epoch_name(ROOM, epoch))
    assert checkpoints.load(ROOM, fallback=True).info.epoch == oldest


def test_neither_the_latest_nor_what_is_above_it_is_deleted(checkpoints: Checkpoints) -> None:
    ten(checkpoints)
    for epoch in (10, 11):
        checkpoints.objects.before = once("put", pointer_name(ROOM))
        with refused("BACKEND_UNAVAILABLE"):
            checkpoints.save(ROOM, epoch)
    summary = checkpoints.prune(ROOM, keep_last=1)[-1]
    assert (summary.deleted, summary.kept) == (9, 1)
    assert checkpoints.epochs(ROOM) == [9, 10, 11]
    assert checkpoints.stat(ROOM).epoch == 9


def test_a_dry_run_tells_the_same_and_deletes_nothing(checkpoints: Checkpoints) -> None:
    ten(checkpoints)
    there = checkpoints.names()
    told = checkpoints.prune(ROOM, keep_last=3, dry_run=True)[-1]
    assert checkpoints.names() == there
    assert told == checkpoints.prune(ROOM, keep_last=3)[-1]


DAMAGE: dict[str, tuple[Callable[[Checkpoints], None], str]] = {
    "damaged": (lambda checkpoints: checkpoints.flip(epoch_name(ROOM, 9), 60), "SEAL_INVALID"),
    "another's": (
        lambda checkpoints: checkpoints.put(epoch_name(ROOM, 9), checkpoints.stored(epoch_name(ROOM, 8))),
        "SEAL_INVALID",
    ),
    "gone": (lambda checkpoints: checkpoints.remove(epoch_name(ROOM, 9)), "POINTER_INVALID"),
    "not named": (lambda checkpoints: checkpoints.put(pointer_name(ROOM), b"garbage"), "POINTER_INVALID"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_nothing_is_deleted_where_the_latest_is_not_good(checkpoints: Checkpoints, how: str) -> None:
    damage, reason = DAMAGE[how]
    ten(checkpoints)
    damage(checkpoints)
    there = checkpoints.names()
    for dry_run in (True, False):
        with refused(reason, "DATA_LOSS") as refusal:
            checkpoints.prune(ROOM, dry_run=dry_run)
        assert refusal.names["room_id"] == ROOM
    assert checkpoints.names() == there


def test_pruning_all_rooms_goes_on_past_one_that_is_not_good(checkpoints: Checkpoints) -> None:
    for room in ("a", ROOM, "b/c"):
        ten(checkpoints, room)
    checkpoints.delete_room("b/c")
    for room in ("b/c/d", "never/pointed"):
        ten(checkpoints, room)
    checkpoints.remove(pointer_name("never/pointed"))
    checkpoints.restart()
    checkpoints.flip(epoch_name(ROOM, 9), 60)
    answers = checkpoints.prune(keep_last=2)
    summary = answers[-1]
    assert (summary.rooms, summary.deleted) == (3, 16)
    (failed,) = [room for answer in answers for room in answer.failed]
    assert (failed.room_id, failed.status.code, failed.status.details["epoch"]) == (ROOM, 15, "9")
    assert [checkpoints.epochs(room) for room in ("a", "b/c/d")] == [[8, 9]] * 2
    for untouched in (ROOM, "never/pointed"):
        assert checkpoints.epochs(untouched) == list(range(10))


def test_pruning_all_rooms_goes_on_where_the_backend_failed_once(checkpoints: Checkpoints) -> None:
    for room in ("a", "b"):
        ten(checkpoints, room)
    checkpoints.objects.before = once("delete", epoch_name("a", 3))
    assert checkpoints.prune(keep_last=1)[-1].deleted == 3 + 9
    assert checkpoints.epochs("a") == list(range(3, 10))
    assert checkpoints.epochs("b") == [9]


def test_pruning_all_rooms_ends_where_the_backend_is_away(checkpoints: Checkpoints) -> None:
    for room in "abcdefgh":
        for epoch in range(2):
            checkpoints.save(room, epoch, b"")
    tried = []

    def fail(operation: str, name: str) -> None:
        if operation == "delete":
            tried.append(name)
            raise Unavailable(Reason.BACKEND_UNAVAILABLE, "away")

    checkpoints.objects.clock_ahead = timedelta(hours=1)
    checkpoints.objects.before = fail
    with refused("BACKEND_UNAVAILABLE", "UNAVAILABLE"):
        checkpoints.prune(keep_last=1)
    assert tried == [epoch_name(room, 0) for room in "abcde"]


def test_a_load_that_began_before_a_prune_is_not_harmed(checkpoints: Checkpoints) -> None:
    ten(checkpoints)
    pruned = []

    def meddle(operation: str, name: str) -> None:
        if operation == "get" and name == epoch_name(ROOM, 2):
            checkpoints.objects.after = lambda _operation, _name: None
            pruned.append(checkpoints.prune(ROOM, keep_last=1)[-1])

    checkpoints.objects.after = meddle
    assert checkpoints.load(ROOM, epoch=2).data == b"2"
    assert (pruned[0].deleted, pruned[0].kept) == (8, 2)
    assert checkpoints.epochs(ROOM) == [2, 9]


def test_a_prune_while_the_room_is_saved_leaves_what_the_pointer_names(checkpoints: Checkpoints) -> None:
    ten(checkpoints)
    with checkpoints.beside() as other:

        def meddle(operation: str, _name: str) -> None:
            if operation == "list":
                checkpoints.objects.before = lambda _operation, _name: None
                other.save(ROOM, 20, b"20")

        checkpoints.objects.before = meddle
        assert checkpoints.prune(ROOM, keep_last=1)[-1].deleted == 9
    assert checkpoints.load(ROOM).data == b"20"
    assert checkpoints.epochs(ROOM) == [9, 20]


def test_pruning_a_missing_room_is_not_found(checkpoints: Checkpoints) -> None:
    with refused("ROOM_NOT_FOUND", "NOT_FOUND"):
        checkpoints.prune(ROOM)
    checkpoints.save(ROOM, 1)
    checkpoints.delete_room(ROOM)
    with refused("ROOM_NOT_FOUND", "NOT_FOUND"):
        checkpoints.prune(ROOM)
    assert checkpoints.prune()[-1].rooms == 0


# Deleting.


def test_a_deleted_room_is_gone_and_its_epochs_go_on_above(checkpoints: Checkpoints) -> None:
    ten(checkpoints)
    checkpoints.hibernate(ROOM, b"sleeping")
    done = checkpoints.delete_room(ROOM)
    anew = anew_after(9)
    assert (done.deleted, done.existed, done.next_epoch) == (10, True, anew)
    assert checkpoints.names() == [snapshot_name(ROOM), pointer_name(ROOM)]
    for _ in range(2):
        for call in (checkpoints.load, checkpoints.stat):
            with refused("ROOM_NOT_FOUND", "NOT_FOUND"):
                call(ROOM)
        with refused("ROOM_NOT_FOUND", "NOT_FOUND"):
            checkpoints.load(ROOM, fallback=True)
        for epoch in (0, 9, 10, anew - 1):
            with refused("EPOCH_TOO_OLD", "FAILED_PRECONDITION") as refusal:
                checkpoints.save(ROOM, epoch)
            assert refusal.names == {
                "room_id": ROOM,
                "latest_epoch": str(anew - 1),
                "next_epoch": str(anew),
                "deleted": "true",
            }
        assert checkpoints.epochs(ROOM) == []
        checkpoints.restart()
    saved = checkpoints.save(ROOM, anew, b"new", if_latest_epoch=-1)
    assert (saved.outcome, saved.pointer_moved, saved.latest_epoch) == (STORED, True, anew)
    assert checkpoints.load(ROOM).data == b"new"
    assert checkpoints.restore(ROOM).data == b"sleeping"


def test_deleting_what_is_not_there_or_once_more_is_no_error(checkpoints: Checkpoints) -> None:
    never = checkpoints.delete_room(ROOM)
    assert (never.deleted, never.existed, never.next_epoch) == (0, False, 0)
    assert checkpoints.names() == []
    checkpoints.save(ROOM, 4)
    checkpoints.delete_room(ROOM)
    again = checkpoints.delete_room(ROOM)
    assert (again.deleted, again.existed, again.next_epoch) == (0, False, anew_after(4)), "it stays where it is"


def test_a_deletion_that_broke_off_is_finished_by_the_next(checkpoints: Checkpoints) -> None:
    ten(checkpoints)
    checkpoints.objects.before = once("delete", epoch_name(ROOM, 4))
    with refused("BACKEND_UNAVAILABLE", "UNAVAILABLE"):
        checkpoints.delete_room(ROOM)
    with refused("ROOM_NOT_FOUND"):
        checkpoints.load(ROOM, epoch=7)
    done = checkpoints.delete_room(ROOM)
    assert (done.deleted, done.existed) == (6, False)
    assert checkpoints.names() == [pointer_name(ROOM)]


def test_rooms_below_and_beside_are_not_touched(checkpoints: Checkpoints) -> None:
    for room in ("a", "a/b", "ab", "a-b"):
        checkpoints.save(room, 1, room.encode())
    checkpoints.delete_room("a")
    for room in ("a/b", "ab", "a-b"):
        assert checkpoints.load(room).data == room.encode()


def test_orphans_above_the_pointer_go_with_their_room_and_count_for_its_epochs(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 1)
    checkpoints.objects.before = once("put", pointer_name(ROOM))
    with refused("BACKEND_UNAVAILABLE"):
        checkpoints.save(ROOM, 8)
    assert checkpoints.delete_room(ROOM).next_epoch == anew_after(8)
    assert checkpoints.names() == [pointer_name(ROOM)]


@pytest.mark.parametrize("knows", [True, False])
def test_a_room_with_a_damaged_pointer_can_be_deleted(checkpoints: Checkpoints, knows: bool) -> None:
    ten(checkpoints)
    checkpoints.put(pointer_name(ROOM), b"garbage")
    if not knows:
        checkpoints.restart()
    done = checkpoints.delete_room(ROOM)
    assert (done.deleted, done.existed, done.next_epoch) == (10, True, anew_after(9))


def test_a_save_during_a_deletion_is_either_deleted_or_refused(checkpoints: Checkpoints) -> None:
    ten(checkpoints)
    with checkpoints.beside() as other:
        other.stat(ROOM)

        def meddle(operation: str, name: str) -> None:
            if operation == "put" and name == pointer_name(ROOM):
                checkpoints.objects.before = lambda _operation, _name: None
                other.save(ROOM, 10, b"10")

        checkpoints.objects.before = meddle
        done = checkpoints.delete_room(ROOM)
        assert (done.deleted, done.next_epoch) == (11, anew_after(10))
        with refused("EPOCH_TOO_OLD"):
            other.save(ROOM, 10, b"10")


def test_a_save_that_was_under_way_when_its_room_was_deleted_does_not_bring_it_back(checkpoints: Checkpoints) -> None:
    ten(checkpoints)
    with checkpoints.beside() as other:

        def meddle(operation: str, name: str) -> None:
            if operation == "put" and name == pointer_name(ROOM):
                checkpoints.objects.before = lambda _operation, _name: None
                other.delete_room(ROOM)

        checkpoints.objects.before = meddle
        with refused("EPOCH_TOO_OLD", "FAILED_PRECONDITION"):
            checkpoints.save(ROOM, 10, b"10")
    with refused("ROOM_NOT_FOUND"):
        checkpoints.load(ROOM)


def test_a_watermark_of_a_deleted_room_is_no_damage_to_other_servers(checkpoints: Checkpoints) -> None:
    with checkpoints.beside() as other:
        checkpoints.save(ROOM, 5)
        other.stat(ROOM)
        checkpoints.delete_room(ROOM)
        with refused("ROOM_NOT_FOUND", "NOT_FOUND"):
            other.load(ROOM)
        with refused("EPOCH_TOO_OLD", "FAILED_PRECONDITION"):
            other.save(ROOM, 6)
        assert other.save(ROOM, anew_after(5)).pointer_moved
