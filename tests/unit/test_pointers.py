"""Pointers by themselves: what is remembered, what a rollback is noticed by, and who wins a race."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from holdfast_server import calls
from holdfast_server.checkpoints.key_ring import FixedKeys, KeyRing
from holdfast_server.checkpoints.names import RoomId
from holdfast_server.checkpoints.pointers import BadPointer, Pointers, Target
from holdfast_server.checkpoints.seen_pointers import Pointer
from holdfast_server.errors import (
    ConcurrentModification,
    DeadlineExceeded,
    EpochTooOld,
    HoldfastError,
    PointerInvalid,
    Unavailable,
)
from holdfast_server.objects.body import Body
from holdfast_server.objects.memory import MemoryStore
from tests.support.meddled_store import MeddledStore, once

ROOM = RoomId("duel/7")
FORGET_SECONDS = 1000.0


def seal_of(epoch: int) -> bytes:
    return bytes([epoch % 251 + 1]) * 32


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def objects() -> MeddledStore:
    return MeddledStore(MemoryStore())


@pytest.fixture
def keys() -> FixedKeys:
    return FixedKeys(KeyRing.fresh())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pointers(objects: MeddledStore, keys: FixedKeys, clock: Clock) -> Pointers:
    return Pointers(objects, keys, forget_seconds=FORGET_SECONDS, clock=clock)


@pytest.fixture
def others(objects: MeddledStore, keys: FixedKeys, clock: Clock) -> Pointers:
    """Those of another server."""
    return Pointers(objects, keys, forget_seconds=FORGET_SECONDS, clock=clock)


def stored(objects: MeddledStore) -> bytes:
    with objects.inner.get(ROOM.pointer_key) as reader:
        return b"".join(chunk.data for chunk in reader)


def put(objects: MeddledStore, data: bytes) -> None:
    objects.inner.put(ROOM.pointer_key, Body.of(data))


def move(pointers: Pointers, epoch: int) -> tuple[bool, Pointer]:
    return advance(pointers, epoch, pointers.known(ROOM))


def advance(pointers: Pointers, epoch: int, known: Pointer | None, tag: bytes = b"") -> tuple[bool, Pointer]:
    return pointers.advance(Target(ROOM, epoch, tag or seal_of(epoch)), known)


def replace(pointers: Pointers, epoch: int) -> tuple[bool, Pointer]:
    """Replace what is damaged."""
    with pytest.raises(BadPointer) as bad:
        pointers.read(ROOM)
    return pointers.advance(Target(ROOM, epoch, seal_of(epoch)), None, replacing=bad.value)


def test_a_room_without_a_pointer_has_none(pointers: Pointers) -> None:
    assert pointers.read(ROOM) is None
    assert pointers.known(ROOM) is None
    assert pointers.furthest_epoch(ROOM) == -1


def test_a_pointer_says_what_it_was_moved_to(pointers: Pointers, others: Pointers) -> None:
    for epoch in (0, 1, 7, (1 << 63) - 2):
        moved, pointer = move(pointers, epoch)
        assert (moved, pointer.epoch, pointer.tag, pointer.is_deleted) == (True, epoch, seal_of(epoch), False)
        assert pointer.next_epoch == epoch + 1
        assert others.read(ROOM) == pointers.read(ROOM) == pointer


def test_it_moves_forward_only(pointers: Pointers) -> None:
    move(pointers, 10)
    for epoch in (9, 10, 0):
        moved, pointer = move(pointers, epoch)
        assert (moved, pointer.epoch) == (False, 10)


def test_a_pointer_that_is_remembered_is_not_read(pointers: Pointers, objects: MeddledStore) -> None:
    move(pointers, 1)
    objects.calm()
    for epoch in (2, 3):
        move(pointers, epoch)
    assert objects.calls == {"put": 2}


def test_what_is_remembered_and_old_is_found_out(pointers: Pointers, others: Pointers, objects: MeddledStore) -> None:
    move(pointers, 1)
    move(others, 5)
    assert move(pointers, 4) == (False, others.read(ROOM))
    move(others, 6)
    moved, pointer = move(pointers, 7)
    assert (moved, pointer.epoch) == (True, 7)
    assert others.read(ROOM) == pointer


def test_a_write_that_may_have_been_done_makes_it_be_read_again(pointers: Pointers, objects: MeddledStore) -> None:
    move(pointers, 1)
    for epoch, when in ((2, "before"), (3, "after")):
        setattr(objects, when, once("put", "latest"))
        with pytest.raises(Unavailable):
            move(pointers, epoch)
        objects.calm()
        assert move(pointers, epoch)[1].epoch == epoch
        assert objects.calls["get"] in {1, 2}, "once, and once more before it is said that nothing was to be done"


def test_a_pointer_is_given_no_other_seal_of_its_epoch(pointers: Pointers, others: Pointers) -> None:
    """What it names was said to be saved: where that is gone, nothing takes its place without a word."""
    move(pointers, 1)
    for each, known in ((pointers, pointers.known(ROOM)), (others, None)):
        with pytest.raises(BadPointer, match="a checkpoint of epoch 1 that is not there any more"):
            advance(each, 1, known, bytes([9]) * 32)
    found = pointers.read(ROOM)
    assert found is not None
    assert found.tag == seal_of(1)


# Rollbacks.


def test_a_rollback_is_noticed_by_who_has_seen_the_higher_one(
    pointers: Pointers, others: Pointers, objects: MeddledStore
) -> None:
    move(pointers, 1)
    old = stored(objects)
    move(pointers, 2)
    put(objects, old)
    for _ in range(2):
        with pytest.raises(PointerInvalid) as noticed:
            pointers.read(ROOM)
        assert noticed.value.details["room_id"] == "duel/7"
    assert pointers.furthest_epoch(ROOM) == 2
    found = others.read(ROOM)
    assert found is not None
    assert found.epoch == 1
    with pytest.raises(PointerInvalid):
        move(pointers, 3)


def test_a_rollback_is_noticed_at_the_write_where_nobody_read(pointers: Pointers, objects: MeddledStore) -> None:
    move(pointers, 1)
    old = stored(objects)
    move(pointers, 2)
    put(objects, old)
    with pytest.raises(PointerInvalid):
        advance(pointers, 3, pointers.known(ROOM))
    assert stored(objects) == old


def test_a_pointer_that_is_gone_is_noticed(pointers: Pointers, objects: MeddledStore) -> None:
    move(pointers, 2)
    objects.inner.delete(ROOM.pointer_key)
    for _ in range(2):
        with pytest.raises(PointerInvalid, match="gone"):
            pointers.read(ROOM)
    with pytest.raises(PointerInvalid):
        move(pointers, 3)


def test_what_was_seen_is_forgotten_after_the_tombstones_time(
    pointers: Pointers, objects: MeddledStore, clock: Clock
) -> None:
    move(pointers, 2)
    objects.inner.delete(ROOM.pointer_key)
    clock.now += FORGET_SECONDS
    with pytest.raises(PointerInvalid):
        pointers.read(ROOM)
    clock.now += 1
    assert pointers.read(ROOM) is None
    assert move(pointers, 0)[0]


def test_what_is_seen_again_is_remembered_again(pointers: Pointers, objects: MeddledStore, clock: Clock) -> None:
    move(pointers, 1)
    old = stored(objects)
    move(pointers, 2)
    clock.now += FORGET_SECONDS - 1
    pointers.read(ROOM)
    clock.now += FORGET_SECONDS - 1
    put(objects, old)
    with pytest.raises(PointerInvalid):
        pointers.read(ROOM)


def test_a_rollback_goes_on_being_one_until_it_is_replaced(pointers: Pointers, objects: MeddledStore) -> None:
    move(pointers, 1)
    old = stored(objects)
    move(pointers, 2)
    put(objects, old)
    moved, pointer = replace(pointers, 3)
    assert (moved, pointer.epoch) == (True, 3)
    found = pointers.read(ROOM)
    assert found is not None
    assert found.epoch == 3


@pytest.mark.parametrize("damage", [b"", b"garbage", bytes(500), b"x" * 10_000])
def test_damage_is_no_pointer_and_is_replaced_only_when_that_is_asked_for(
    pointers: Pointers, others: Pointers, objects: MeddledStore, damage: bytes
) -> None:
    move(pointers, 1)
    put(objects, damage)
    for each in (pointers, others):
        with pytest.raises(PointerInvalid):
            each.read(ROOM)
    with pytest.raises(PointerInvalid):
        advance(others, 2, None)
    assert stored(objects) == damage
    assert replace(others, 2)[0]


# Tombstones.


def test_a_tombstone_keeps_the_epochs_that_were(pointers: Pointers, others: Pointers) -> None:
    _, pointer = move(pointers, 4)
    tombstone = pointers.bury(ROOM, 6, pointer)
    assert (tombstone.is_deleted, tombstone.epoch, tombstone.next_epoch) == (True, 6, 7)
    assert others.read(ROOM) == tombstone
    for epoch in (4, 5, 6):
        with pytest.raises(EpochTooOld) as refused:
            move(others, epoch)
        assert refused.value.details == {
            "room_id": "duel/7",
            "latest_epoch": "6",
            "next_epoch": "7",
            "deleted": "true",
        }
    assert move(others, 7)[0]


def test_all_pointers_after_a_tombstone_carry_its_epoch(
    pointers: Pointers, others: Pointers, objects: MeddledStore
) -> None:
    _, pointer = move(pointers, 4)
    assert pointer.floor == pointers.floor(ROOM) == -1
    assert pointers.bury(ROOM, 6, pointer).floor == 6
    for epoch in (7, 8, 9):
        _, pointer = move(others, epoch)
        assert pointer.floor == others.floor(ROOM) == 6
        assert pointers.read(ROOM) == pointer
    assert pointers.rewrite(pointer, seal_of(10)).floor == 6
    put(objects, b"garbage")
    assert replace(pointers, 10)[1].floor == 6
    found = pointers.read(ROOM)
    assert found is not None
    assert others.read(ROOM) == found
    assert pointers.bury(ROOM, 20, found).floor == 20
    assert move(others, 21)[1].floor == 20


def test_nothing_is_saved_at_or_below_the_epoch_of_a_tombstone_that_was_replaced(
    pointers: Pointers, others: Pointers
) -> None:
    _, pointer = move(pointers, 4)
    pointers.bury(ROOM, 6, pointer)
    for epoch in (9, 10):
        move(pointers, epoch)
    for each in (others, pointers):
        for epoch in (4, 6):
            with pytest.raises(EpochTooOld) as refused:
                move(each, epoch)
            assert refused.value.details["next_epoch"] == "11"
            assert "was begun anew, and goes on from epoch 11 on" in refused.value.message
        assert move(each, 7)[0] is False


def test_only_the_pointer_that_was_looked_at_is_buried(pointers: Pointers, others: Pointers) -> None:
    _, pointer = move(pointers, 4)
    move(others, 5)
    with pytest.raises(ConcurrentModification):
        pointers.bury(ROOM, 4, pointer)
    with pytest.raises(ConcurrentModification):
        pointers.bury(ROOM, 4, None)
    found = pointers.read(ROOM)
    assert found is not None
    assert (found.epoch, found.is_deleted) == (5, False)


def test_a_tombstone_is_removed_only_while_it_is_there(pointers: Pointers, others: Pointers) -> None:
    _, pointer = move(pointers, 4)
    tombstone = pointers.bury(ROOM, 4, pointer)
    move(others, 5)
    assert pointers.remove(tombstone) is False
    found = pointers.read(ROOM)
    assert found is not None
    second = pointers.bury(ROOM, 5, found)
    assert pointers.remove(second) is True
    assert pointers.read(ROOM) is None


def test_a_tombstone_that_another_server_removed_in_time_is_no_rollback(
    pointers: Pointers, others: Pointers, objects: MeddledStore
) -> None:
    _, pointer = move(pointers, 4)
    tombstone = pointers.bury(ROOM, 4, pointer)
    assert others.remove(tombstone)
    with pytest.raises(PointerInvalid):
        pointers.read(ROOM)
    objects.clock_ahead = timedelta(seconds=FORGET_SECONDS + 60)
    assert pointers.read(ROOM) is None
    assert move(pointers, 0)[0]


# Who is told.


@pytest.fixture
def told(pointers: Pointers) -> list[int | None]:
    found: list[int | None] = []

    def observe(room: RoomId, pointer: Pointer | None) -> None:
        assert room == ROOM
        found.append(None if pointer is None else pointer.epoch)

    pointers.observer = observe
    return found


def test_all_that_is_read_or_written_is_told(pointers: Pointers, others: Pointers, told: list[int | None]) -> None:
    pointers.read(ROOM)
    move(others, 1)
    pointers.read(ROOM)
    move(pointers, 2)
    pointers.read(ROOM)
    assert told == [None, 1, 2, 2]


def test_what_was_read_before_it_was_moved_is_not_told_afterwards(
    pointers: Pointers, objects: MeddledStore, told: list[int | None]
) -> None:
    move(pointers, 1)
    old = pointers.known(ROOM)
    assert old is not None

    def meddle(operation: str, _name: str) -> None:
        if operation == "get":
            objects.calm()
            advance(pointers, 2, old)

    objects.after = meddle  # the read has the pointer of epoch 1 by then
    stale = pointers.read(ROOM)
    assert stale is not None
    assert stale.epoch == 1, "it is no rollback either: it was so when the read began"
    assert told == [None, 1, 2]
    known = pointers.known(ROOM)
    assert known is not None
    assert known.epoch == pointers.furthest_epoch(ROOM) == 2


# Races.


def test_two_servers_race_and_the_highest_is_there_at_the_end(pointers: Pointers, others: Pointers) -> None:
    def work(number: int) -> int:
        mine = (pointers, others)[number % 2]
        moved, pointer = advance(mine, number, mine.known(ROOM))
        assert pointer.epoch >= number
        return number if moved else -1

    with ThreadPoolExecutor(8) as pool:
        moved = list(pool.map(work, range(200)))
    last = pointers.read(ROOM)
    assert last is not None
    assert (last.epoch, last.tag) == (199, seal_of(199))
    assert max(moved) == 199


def test_who_waits_for_another_waits_no_longer_than_its_caller(pointers: Pointers, objects: MeddledStore) -> None:
    move(pointers, 1)
    is_in, may_go = threading.Event(), threading.Event()

    def meddle(operation: str, _name: str) -> None:
        if operation == "put" and not is_in.is_set():
            is_in.set()
            assert may_go.wait(30)

    objects.before = meddle
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(move, pointers, 2)
        assert is_in.wait(30)
        with calls.working_for(calls.Call(0.0)), pytest.raises(DeadlineExceeded):
            advance(pointers, 3, None)
        may_go.set()
        assert first.result(30)[0]


def test_who_loses_each_time_is_told_so(pointers: Pointers, others: Pointers, objects: MeddledStore) -> None:
    epochs = iter(range(1, 1000))

    def meddle(operation: str, _name: str) -> None:
        if operation == "put":
            move(others, next(epochs))

    objects.before = meddle
    with pytest.raises(HoldfastError) as lost:
        advance(pointers, 5000, None)
    assert isinstance(lost.value, ConcurrentModification)
