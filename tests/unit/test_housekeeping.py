"""Housekeeping by itself: it ends when it is told to, and forgets nothing that is remembered of rooms at work."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest

from holdfast_server.checkpoints import lists, seen_pointers
from holdfast_server.checkpoints.housekeeping import Housekeeping
from holdfast_server.checkpoints.lists import PageQuery
from holdfast_server.checkpoints.names import RoomId
from holdfast_server.checkpoints.pruning import Retention
from holdfast_server.checkpoints.store import CheckpointStore
from holdfast_server.errors import PointerInvalid
from holdfast_server.objects.base import OVERWRITE, WHOLE, ListQuery, ObjectNotFound, ObjectReader
from holdfast_server.objects.body import Body
from holdfast_server.objects.conditions import Condition
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.memory import MemoryStore
from holdfast_server.objects.ranges import Range
from holdfast_server.workers import Workers
from tests.support.checkpoint_stores import checkpoint_store, load, save
from tests.support.meddled_store import MeddledStore
from tests.support.waiting import wait_until

ROOMS = 300
HOUR = 3600.0
AGE = timedelta(days=14)
ROOM = RoomId("aaa")
ONE = Retention(1, timedelta(0))


@pytest.fixture
def workers() -> Iterator[Workers]:
    with closing(Workers()) as threads:
        yield threads


@pytest.fixture
def objects() -> MeddledStore:
    return MeddledStore(MemoryStore())


def fill(objects: MeddledStore, workers: Workers, rooms: int = ROOMS, epochs: int = 1) -> None:
    store = checkpoint_store(objects.inner, workers)
    for number in range(rooms):
        for epoch in range(epochs):
            save(store, RoomId(f"room{number}"), epoch, b"data")


def always() -> Callable[[], float]:
    """Return a clock by which tombstones are due each time."""
    times = iter(range(0, 10**9, 10**6))
    return lambda: float(next(times))


@pytest.mark.parametrize("retention", [None, ONE, Retention(5, timedelta(days=1))], ids=["tidy", "prune", "keep"])
def test_it_ends_within_an_operation_whatever_is_left_to_do(
    objects: MeddledStore, workers: Workers, retention: Retention | None
) -> None:
    """Each operation on the objects waits until the test lets it go on: after the end was asked for it is one more."""
    fill(objects, workers, epochs=2)
    objects.clock_ahead = timedelta(hours=1)
    begun, ended, go_on = threading.Event(), threading.Event(), threading.Event()
    after: list[str] = []

    def wait(operation: str, name: str) -> None:
        begun.set()
        if ended.is_set():
            after.append(f"{operation} {name}")
        go_on.wait(60)

    store = checkpoint_store(objects, workers)
    housekeeping = Housekeeping(
        store, retention=retention, interval_seconds=0.001, tombstone_seconds=HOUR, clock=always()
    )
    housekeeping.start()
    objects.before = wait
    begun.clear()
    assert begun.wait(60)
    closer = threading.Thread(target=housekeeping.close)
    closer.start()
    wait_until(housekeeping._closing.is_set)
    ended.set()
    go_on.set()
    closer.join(60)
    assert not closer.is_alive()
    # The room that is at work is gone through: its pointer, its list, and what was read of it.
    assert len(after) <= 5, after


def with_an_old_tombstone(objects: MeddledStore, workers: Workers) -> CheckpointStore:
    store = checkpoint_store(objects, workers)
    save(store, ROOM, 1, b"data")
    list(store.delete_room(ROOM))
    objects.clock_ahead = AGE + timedelta(hours=1)
    return store


def test_a_server_that_is_often_replaced_looks_at_tombstones_all_the_same(
    objects: MeddledStore, workers: Workers
) -> None:
    """Its thread does so after the first pause: the clock, by which they are due, does not go on here."""
    housekeeping = Housekeeping(
        with_an_old_tombstone(objects, workers),
        retention=None,
        interval_seconds=0.001,
        tombstone_seconds=AGE.total_seconds(),
        clock=lambda: 7.0,
    )
    with closing(housekeeping):
        housekeeping.start()
        wait_until(lambda: not list(objects.inner.list(ListQuery())))


def test_after_the_first_look_tombstones_are_looked_at_every_six_hours(objects: MeddledStore, workers: Workers) -> None:
    now = 1000.0
    housekeeping = Housekeeping(
        with_an_old_tombstone(objects, workers),
        retention=None,
        interval_seconds=600,
        tombstone_seconds=AGE.total_seconds(),
        clock=lambda: now,
    )
    looked = []
    for _ in range(2 * 36 + 1):
        objects.calls.clear()
        housekeeping.tidy()
        if objects.calls:
            looked.append(now)
        now += 600
    assert looked == [1000, 1000 + 6 * HOUR, 1000 + 12 * HOUR]


Walk = Callable[[CheckpointStore], object]
WALKS: dict[str, Walk] = {
    "a list of rooms": lambda store: store.rooms(PageQuery()),
    "a prune": lambda store: list(store.prune(None, Retention(1, AGE))),
    "a prune that deletes": lambda store: list(store.prune(None, ONE)),
    "a look for tombstones": lambda store: store.deleting.tidy_tombstones(AGE),
}


@pytest.mark.parametrize("walk", WALKS)
def test_who_goes_through_all_rooms_pushes_none_out_of_memory(
    objects: MeddledStore, workers: Workers, walk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen_pointers, "_ROOMS", 50)
    fill(objects, workers, epochs=2)
    store = checkpoint_store(objects, workers)
    save(store, ROOM, 1, b"old")
    with objects.inner.get(ROOM.pointer_key) as reader:
        old = b"".join(chunk.data for chunk in reader)
    save(store, ROOM, 2, b"new")
    objects.clock_ahead = timedelta(hours=1)
    WALKS[walk](store)
    objects.inner.put(ROOM.pointer_key, Body.of(old))
    with pytest.raises(PointerInvalid, match="rolled back"):
        load(store, ROOM)


def test_a_page_of_rooms_ends_early_among_many_tombstones(objects: MeddledStore, workers: Workers) -> None:
    store = checkpoint_store(objects.inner, workers)
    for number in range(10_000):
        store.pointers.bury(RoomId(f"gone/{number:05}"), 0, None)
    there = ["a", "gone/05000", "z"]
    for room in there:
        save(store, RoomId(room), 1, b"data")
    store = checkpoint_store(objects, workers)
    found: list[str] = []
    token, pages = "", 0
    while pages == 0 or token:
        objects.calls.clear()
        page, token = store.rooms(PageQuery("", 100, token))
        assert objects.calls["get"] <= lists._LOOKED_AT + 128
        found += [listed.room.text for listed in page]
        pages += 1
    assert found == there
    assert pages == 3


def test_a_prune_of_all_rooms_tells_every_hundred_how_far_it_is(objects: MeddledStore, workers: Workers) -> None:
    fill(objects, workers, 250)
    store = checkpoint_store(objects, workers)
    told = [(sums.rooms, sums.deleted, sums.is_done) for sums in store.prune(None, ONE)]
    assert told == [(100, 0, False), (200, 0, False), (250, 0, True)]


class OldPointers(MeddledStore):
    """Says of pointers that they were written two hours earlier."""

    def get(self, key: ObjectKey, wanted: Range = WHOLE, *, condition: Condition = OVERWRITE) -> ObjectReader:
        reader = super().get(key, wanted, condition=condition)
        if key == ROOM.pointer_key:
            reader.info = replace(reader.info, update_time=reader.info.update_time - timedelta(hours=2))
        return reader


def test_what_came_too_late_just_now_beside_an_old_tombstone_stays(workers: Workers) -> None:
    """It may be of a save between its two writes, which has not been told yet."""
    objects = OldPointers(MemoryStore())
    store = checkpoint_store(objects, workers)
    save(store, ROOM, 5, b"data")
    list(store.delete_room(ROOM))
    objects.inner.put(ROOM.epoch_key(3), Body.of(b"left"))
    for ahead in (timedelta(0), timedelta(minutes=59)):
        objects.clock_ahead = ahead
        assert store.deleting.tidy_tombstones(timedelta(seconds=1)) == 0
        objects.inner.stat(ROOM.epoch_key(3))
    objects.clock_ahead = timedelta(minutes=61)
    assert store.deleting.tidy_tombstones(timedelta(seconds=1)) == 0
    with pytest.raises(ObjectNotFound):
        objects.inner.stat(ROOM.epoch_key(3))
    assert store.deleting.tidy_tombstones(timedelta(seconds=1)) == 1
