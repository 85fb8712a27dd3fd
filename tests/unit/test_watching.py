"""Watches by themselves: who is woken by what, and what comes after a deletion or damage."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta

import pytest

from holdfast_server import calls
from holdfast_server.checkpoints import watching
from holdfast_server.checkpoints.key_ring import FixedKeys, KeyRing
from holdfast_server.checkpoints.names import RoomId
from holdfast_server.checkpoints.pointers import Pointers, Target
from holdfast_server.checkpoints.watching import Seen, Watches
from holdfast_server.errors import Overloaded, Reason
from holdfast_server.objects.body import Body
from holdfast_server.objects.memory import MemoryStore
from holdfast_server.workers import Workers
from tests.support.meddled_store import MeddledStore
from tests.support.waiting import wait_until

ROOM = RoomId("duel")
TAG = b"t" * 32
FORGET_SECONDS = 100.0
NEVER = 3600.0
SOON = 0.01


class CountedNews(Watches):
    """Counts how often a watch is woken with something."""

    woken = 0

    def _news(self, watch: "watching._Watch") -> Iterator[Seen]:
        yield from super()._news(watch)
        self.woken += 1


@pytest.fixture
def objects() -> MeddledStore:
    return MeddledStore(MemoryStore())


@pytest.fixture
def pointers(objects: MeddledStore) -> Pointers:
    return Pointers(objects, FixedKeys(KeyRing.fresh()), forget_seconds=FORGET_SECONDS)


@pytest.fixture
def workers() -> Iterator[Workers]:
    with closing(Workers()) as threads:
        yield threads


Watching = Callable[..., "Told"]


class Told:
    """What a watch was told so far."""

    def __init__(self, watches: Watches, rooms: list[RoomId]) -> None:
        self.seen: list[Seen] = []
        self._is_over = threading.Event()
        self._watches = watches
        self._rooms = rooms
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        wait_until(lambda: len(self.seen) >= len(set(rooms)))

    def _run(self) -> None:
        with calls.working_for(calls.Call(is_active=lambda: not self._is_over.is_set())):
            try:
                for seen in self._watches.watch(self._rooms):
                    self.seen.append(seen)
            except Exception:  # noqa: BLE001 (that it is over)
                return

    @property
    def epochs(self) -> "list[int | Reason | None]":
        """The epochs, or why there was none."""
        return [seen.epoch if seen.error is None else seen.error.reason for seen in self.seen]

    def wait_for(self, *epochs: "int | Reason | None") -> None:
        """Return when just these were told."""
        wait_until(lambda: len(self.seen) >= len(epochs))
        assert self.epochs == list(epochs)

    def close(self) -> None:
        self._is_over.set()
        self._thread.join(60)


@pytest.fixture
def watch(pointers: Pointers, workers: Workers) -> Iterator[Watching]:
    """Watch rooms; pointers are read each `interval_seconds`, from the first watch on."""
    opened: list[Told] = []
    made: list[Watches] = []

    def begin(*rooms: RoomId, interval_seconds: float = SOON) -> Told:
        if not made:
            made.append(CountedNews(pointers, workers, interval_seconds=interval_seconds, most=4))
        opened.append(Told(made[0], list(rooms)))
        return opened[-1]

    begin.made = made  # type: ignore[attr-defined]
    yield begin
    for told in opened:
        told.close()
    for watches in made:
        watches.close()


def move(pointers: Pointers, epoch: int, room: RoomId = ROOM) -> None:
    pointers.advance(Target(room, epoch, TAG), pointers.read(room))


def polled(objects: MeddledStore, more: int = 20) -> None:
    """Return when watched pointers were read so many times more."""
    most = objects.calls["get"] + more
    wait_until(lambda: objects.calls["get"] >= most)


def test_a_pointer_that_is_the_same_wakes_nobody(watch: Watching, pointers: Pointers, objects: MeddledStore) -> None:
    move(pointers, 5)
    told = [watch(ROOM), watch(ROOM)]
    (watches,) = watch.made  # type: ignore[attr-defined]
    wait_until(lambda: watches.woken >= len(told))  # which is counted after it was told
    polled(objects)
    assert watches.woken == len(told)
    move(pointers, 6)
    for each in told:
        each.wait_for(5, 6)
    wait_until(lambda: watches.woken >= 2 * len(told))
    polled(objects)
    assert watches.woken == 2 * len(told)


def test_damage_that_stays_wakes_nobody(watch: Watching, pointers: Pointers, objects: MeddledStore) -> None:
    move(pointers, 5)
    told = watch(ROOM)
    objects.inner.put(ROOM.pointer_key, Body.of(b"garbage"))
    told.wait_for(5, Reason.POINTER_INVALID)
    (watches,) = watch.made  # type: ignore[attr-defined]
    wait_until(lambda: watches.woken >= 2)
    polled(objects)
    assert watches.woken == 2


def test_a_room_begun_anew_below_is_told_after_its_deletion(
    watch: Watching, pointers: Pointers, objects: MeddledStore
) -> None:
    move(pointers, 5)
    told = watch(ROOM)
    pointers.bury(ROOM, 5, pointers.read(ROOM))
    told.wait_for(5, None)
    objects.clock_ahead = timedelta(seconds=FORGET_SECONDS + 10)
    objects.inner.delete(ROOM.pointer_key)
    polled(objects)
    move(pointers, 0)
    told.wait_for(5, None, 0)
    move(pointers, 1)
    told.wait_for(5, None, 0, 1)


def test_an_epoch_is_told_again_after_damage(watch: Watching, pointers: Pointers, objects: MeddledStore) -> None:
    move(pointers, 5)
    with objects.inner.get(ROOM.pointer_key) as reader:
        good = b"".join(chunk.data for chunk in reader)
    told = watch(ROOM)
    objects.inner.put(ROOM.pointer_key, Body.of(b"garbage"))
    told.wait_for(5, Reason.POINTER_INVALID)
    objects.inner.put(ROOM.pointer_key, Body.of(good))
    told.wait_for(5, Reason.POINTER_INVALID, 5)


def test_a_watch_that_began_with_damage_is_told_when_it_is_gone(
    watch: Watching, pointers: Pointers, objects: MeddledStore
) -> None:
    """Though nobody else had noticed the damage, and the epoch is the one that was there before."""
    move(pointers, 5)
    with objects.inner.get(ROOM.pointer_key) as reader:
        good = b"".join(chunk.data for chunk in reader)
    first = watch(ROOM, interval_seconds=NEVER)
    objects.inner.put(ROOM.pointer_key, Body.of(b"garbage"))
    second = watch(ROOM)
    first.wait_for(5, Reason.POINTER_INVALID)
    objects.inner.put(ROOM.pointer_key, Body.of(good))
    pointers.read(ROOM)
    second.wait_for(Reason.POINTER_INVALID, 5)
    first.wait_for(5, Reason.POINTER_INVALID, 5)


def test_too_many_watched_rooms_in_all_are_refused(
    watch: Watching, pointers: Pointers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "MOST_WATCHED_ROOMS", 5)
    rooms = [RoomId(f"room/{number}") for number in range(4)]
    first = watch(*rooms[:3])
    (watches,) = watch.made  # type: ignore[attr-defined]
    with pytest.raises(Overloaded, match="5 rooms"):
        next(watches.watch(rooms[:3]))
    second = watch(*rooms[2:], rooms[3])
    first.close()
    third = watch(*rooms[:3])
    for room in rooms:
        move(pointers, 1, room)
    for told in (second, third):
        wait_until(lambda told=told: {seen.epoch for seen in told.seen} == {None, 1})  # type: ignore[misc]


def test_an_end_is_told_before_what_comes_after_it_though_the_caller_is_slow(
    watch: Watching, pointers: Pointers, objects: MeddledStore
) -> None:
    move(pointers, 5)
    watch(ROOM)
    (watches,) = watch.made  # type: ignore[attr-defined]
    slow = watches.watch([ROOM])
    assert next(slow).epoch == 5
    move(pointers, 6)
    pointers.bury(ROOM, 6, pointers.read(ROOM))
    objects.clock_ahead = timedelta(seconds=FORGET_SECONDS + 10)
    objects.inner.delete(ROOM.pointer_key)
    for epoch in (0, 1):
        move(pointers, epoch)
    assert [next(slow).epoch for _ in range(2)] == [None, 1]
    slow.close()
