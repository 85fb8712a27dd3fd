"""Plain pointers, as shellcade writes them: believed over what it wrote, and never over what was sealed before."""

from collections.abc import Callable, Iterator

import pytest

from holdfast_server.errors import IntegrityFailed
from holdfast_server.objects.base import ObjectNotFound
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.memory import MemoryStore
from holdfast_server.transfer.outcome import Outcome
from tests.support.any_checkpoints import STORED, Checkpoints, epoch_name, pointer_name, refused
from tests.support.legacy_forms import legacy_keys, migrate, reading_legacy, room_of
from tests.support.meddled_store import meanwhile, once
from tests.support.transfers import put_all

ROOM = "poor"
SEALED = range(5)


@pytest.fixture
def rooms() -> Iterator[Checkpoints]:
    """A store that reads the older forms."""
    checkpoints = reading_legacy(MemoryStore())
    yield checkpoints
    checkpoints.close()


def forge(rooms: Checkpoints, epoch: int) -> None:
    """Put what shellcade has tagged once, for whatever room, at an epoch, and a plain pointer to it."""
    put_all(rooms.objects.inner, room_of(ROOM, {epoch: b"treasure of another room"}))


def check_refused(rooms: Checkpoints, *, why: str) -> None:
    """Check that the room is damaged for everybody, and stays as it is."""
    there = {name: rooms.stored(name) for name in rooms.names()}
    calls: list[Callable[[], object]] = [
        lambda: rooms.load(ROOM),
        lambda: rooms.load(ROOM, min_epoch=0),
        lambda: rooms.stat(ROOM),
        lambda: rooms.save(ROOM, 1000, b"next"),
        lambda: rooms.prune(ROOM),
    ]
    for call in calls:
        with refused("POINTER_INVALID", "DATA_LOSS") as refusal:
            call()
        assert refusal.names["room_id"] == ROOM
        assert why in refusal.message
    assert [room.room_id for room in rooms.prune()[0].failed] == [ROOM]
    (listed,) = rooms.rooms()
    assert why in str(listed.status)
    assert {name: rooms.stored(name) for name in rooms.names()} == there


# After a sealed pointer.


@pytest.mark.parametrize("epoch", [0, 4, 99])
def test_it_is_refused_by_who_has_seen_a_sealed_one(rooms: Checkpoints, epoch: int) -> None:
    rooms.save(ROOM, 4, b"four")
    rooms.remove(epoch_name(ROOM, 4))
    forge(rooms, epoch)
    with refused("POINTER_INVALID", "DATA_LOSS") as refusal:
        rooms.load(ROOM)
    assert "and this server has seen it at epoch 4" in refusal.message
    rooms.restart()
    assert rooms.load(ROOM).data == b"treasure of another room", "nobody else can tell: all that was sealed is gone"


def test_it_is_refused_by_who_has_seen_the_room_deleted(rooms: Checkpoints) -> None:
    rooms.save(ROOM, 4, b"four")
    gone = rooms.delete_room(ROOM).next_epoch
    forge(rooms, gone + 5)
    check_refused(rooms, why="is plain text, and this server has seen it deleted up to epoch")


def test_who_moves_the_pointer_without_reading_it_notices(rooms: Checkpoints) -> None:
    rooms.save(ROOM, 4, b"four")
    forge(rooms, 99)
    with refused("POINTER_INVALID", "DATA_LOSS"):
        rooms.save(ROOM, 100, b"one hundred")
    assert rooms.stored(pointer_name(ROOM)) == epoch_name(ROOM, 99).encode()


# After anything sealed.


@pytest.mark.parametrize("epoch", [0, 2, 4, 99])
def test_it_is_refused_where_anything_was_sealed_before(rooms: Checkpoints, epoch: int) -> None:
    for sealed in SEALED:
        rooms.save(ROOM, sealed, b"%d" % sealed)
    forge(rooms, epoch)
    rooms.restart()
    check_refused(rooms, why="is damaged: it is plain text that was written after epoch")


@pytest.mark.parametrize("sealed", [0, 98, 100, 200])
def test_one_sealed_epoch_is_enough_on_either_side(rooms: Checkpoints, sealed: int) -> None:
    put_all(rooms.objects.inner, room_of(ROOM, dict.fromkeys([*range(10, 90), *range(110, 190)], b"theirs")))
    rooms.remove(pointer_name(ROOM))
    rooms.save(ROOM, sealed, b"ours")
    forge(rooms, 99)
    rooms.restart()
    check_refused(rooms, why=f"written after epoch {sealed} had been sealed")


def test_what_an_older_system_that_runs_on_has_saved_is_told_of(rooms: Checkpoints) -> None:
    put_all(rooms.objects.inner, room_of(ROOM, {1: b"theirs"}))
    rooms.save(ROOM, 2, b"ours")
    put_all(rooms.objects.inner, room_of(ROOM, {3: b"theirs again"}))
    rooms.restart()
    check_refused(rooms, why="written after epoch 2 had been sealed")


def test_the_room_is_brought_back_as_with_any_damaged_pointer(rooms: Checkpoints) -> None:
    for sealed in SEALED:
        rooms.save(ROOM, sealed, b"%d" % sealed)
    forge(rooms, 99)
    rooms.restart()
    good = rooms.load(ROOM, epoch=4)
    assert (good.data, good.info.legacy) == (b"4", False)
    assert rooms.save(ROOM, 100, good.data, replace_damaged_pointer=True).pointer_moved
    rooms.restart()
    assert rooms.load(ROOM).data == b"4"
    forge(rooms, 101)
    assert rooms.delete_room(ROOM).existed


def test_no_migration_takes_it_for_the_rooms_own(rooms: Checkpoints) -> None:
    for sealed in SEALED:
        rooms.save(ROOM, sealed, b"%d" % sealed)
    forge(rooms, 99)
    for _ in range(2):
        done = migrate(rooms.objects.inner, rooms.keys)
        failed = {each.name for each in done if each.outcome is Outcome.FAILED}
        assert failed == {pointer_name(ROOM), epoch_name(ROOM, 99)}
    rooms.restart()
    check_refused(rooms, why="it is plain text that was written after epoch")


# Where it is right.


def test_it_goes_on_while_only_the_older_system_has_written(rooms: Checkpoints) -> None:
    for epoch in range(3):
        put_all(rooms.objects.inner, room_of(ROOM, {epoch: b"%d" % epoch}))
        assert rooms.load(ROOM).data == b"%d" % epoch
    rooms.restart()
    assert rooms.load(ROOM).data == b"2"


@pytest.mark.parametrize("failure", [IntegrityFailed("key", "its end is damaged"), ObjectNotFound(ObjectKey("key"))])
def test_a_neighbour_that_is_damaged_or_gone_by_now_is_not_held_against_it(
    rooms: Checkpoints, failure: Exception
) -> None:
    put_all(rooms.objects.inner, room_of(ROOM, {1: b"its neighbour", 2: b"theirs"}))
    met = []

    def fail(operation: str, name: str) -> None:
        if (operation, name) == ("get", epoch_name(ROOM, 1)):
            met.append(name)
            raise failure

    rooms.objects.before = fail
    assert rooms.load(ROOM).data == b"theirs"
    assert met


def test_a_save_that_was_broken_off_or_came_late_is_not_held_against_it(rooms: Checkpoints) -> None:
    put_all(rooms.objects.inner, room_of(ROOM, {42: b"theirs"}))
    rooms.objects.before = once("put", pointer_name(ROOM))
    with refused("BACKEND_UNAVAILABLE"):
        rooms.save(ROOM, 43, b"cut off")
    late = rooms.save(ROOM, 7, b"late")
    assert (late.outcome, late.pointer_moved, late.latest_epoch) == (STORED, False, 42)
    rooms.restart()
    assert rooms.load(ROOM).data == b"theirs"
    assert rooms.load(ROOM).info.next_epoch == 44
    assert rooms.save(ROOM, 44, b"ours").pointer_moved


def test_what_is_pruned_while_it_is_looked_into_hides_no_pointer(rooms: Checkpoints) -> None:
    put_all(rooms.objects.inner, room_of(ROOM, {1: b"one", 2: b"two"}))
    name = epoch_name(ROOM, 1)
    rooms.objects.before = meanwhile("get", name, lambda: rooms.remove(name))
    assert rooms.load(ROOM).data == b"two"


def test_it_is_looked_into_once(rooms: Checkpoints) -> None:
    put_all(rooms.objects.inner, room_of(ROOM, dict.fromkeys(range(20), b"")))
    with rooms.objects.costing(get=2 + 2, list=1 + 1):  # it names the last: nothing lies above
        rooms.load(ROOM)
    with rooms.objects.costing(get=2, list=1):
        rooms.load(ROOM)
    put_all(rooms.objects.inner, room_of(ROOM, {5: b""}))
    rooms.restart()
    with rooms.objects.costing(get=2 + 4, list=1 + 1):
        rooms.load(ROOM)


# Pruning.


def test_nothing_is_pruned_beneath_it(rooms: Checkpoints) -> None:
    legacy = [f"room-{number}" for number in range(12)]
    for room in legacy:
        put_all(rooms.objects.inner, room_of(room, {1: b"one", 2: b"two"}))
    for epoch in (1, 2):
        rooms.save("sealed", epoch)
    with refused("PRECONDITION_FAILED", "FAILED_PRECONDITION") as refusal:
        rooms.prune(legacy[0])
    assert "is plain text: migrate the room before it is pruned" in refusal.message
    assert rooms.prune(legacy[0], keep_last=2)[-1].kept == 2, "where nothing would be deleted, nothing is refused"
    answers = rooms.prune()
    assert sorted(room.room_id for answer in answers for room in answer.failed) == sorted(legacy)
    assert (answers[-1].rooms, answers[-1].deleted) == (13, 1)
    assert rooms.epochs(legacy[0]) == [1, 2]
    migrate(rooms.objects.inner, rooms.keys)
    rooms.restart()
    assert rooms.prune()[-1].deleted == len(legacy)


# Switched off.


def test_switched_off_its_form_is_recognized(rooms: Checkpoints) -> None:
    plain = Checkpoints(rooms.objects.inner, legacy_keys())
    put_all(plain.objects.inner, room_of(ROOM, {1: b"one"}))
    for call in (lambda: plain.load(ROOM), lambda: plain.save(ROOM, 2)):
        with refused("POINTER_INVALID", "DATA_LOSS") as refusal:
            call()
        assert "in the form of shellcade, and checkpoint_store.legacy is off" in refusal.message
    plain.put(pointer_name(ROOM), epoch_name("another", 1).encode())
    with refused("POINTER_INVALID", "DATA_LOSS") as refusal:
        plain.load(ROOM)
    assert "shellcade" not in refusal.message
    plain.close()
