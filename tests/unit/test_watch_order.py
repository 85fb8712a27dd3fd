"""The order in which watches are told: that in which pointers were seen, and no deletion is left out for being old."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise, product

import pytest

from holdfast_server import calls
from holdfast_server.checkpoints import watching
from holdfast_server.checkpoints.key_ring import FixedKeys, KeyRing
from holdfast_server.checkpoints.names import RoomId
from holdfast_server.checkpoints.pointers import Pointers, Target
from holdfast_server.checkpoints.seen_pointers import Pointer
from holdfast_server.checkpoints.watching import Seen, Watches
from holdfast_server.errors import PointerInvalid
from holdfast_server.objects.memory import MemoryStore
from holdfast_server.workers import Workers
from tests.support.turnstile import Turnstile

ROOM = RoomId("duel")
TAG = b"t" * 32
SECONDS = 30
NEVER = 3600.0


@pytest.fixture
def pointers() -> Pointers:
    return Pointers(MemoryStore(), FixedKeys(KeyRing.fresh()))


@pytest.fixture
def watches(pointers: Pointers) -> Iterator[Watches]:
    with closing(Workers()) as workers, closing(Watches(pointers, workers, interval_seconds=NEVER, most=4)) as made:
        yield made


def move(pointers: Pointers, epoch: int) -> None:
    pointers.advance(Target(ROOM, epoch, TAG), pointers.known(ROOM))


# Two threads that see one pointer.


class Overtaken:
    """Holds up whoever has seen a room at epoch 6, until another thread has deleted it: and told so, or is to wait."""

    def __init__(self, pointers: Pointers, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
        self._pointers = pointers
        self._pool = pool
        self._see, self._observe = pointers._seen.see, pointers.observer
        self._turnstile = Turnstile()
        self.burial: Future[Pointer] | None = None
        monkeypatch.setattr(pointers, "_observing", self._turnstile)
        monkeypatch.setattr(pointers, "observer", self.observe)
        monkeypatch.setattr(pointers._seen, "see", self.see)

    def see(self, room: RoomId, pointer: Pointer | None, *, remember: bool = True) -> bool:
        is_new = self._see(room, pointer, remember=remember)
        if self.burial is None and pointer is not None and pointer.rank == (6, False):
            self.burial = self._pool.submit(lambda: self._pointers.bury(room, 6, self._pointers.look(room)))
            assert self._turnstile.waited.wait(SECONDS)
        return is_new

    def observe(self, room: RoomId, pointer: Pointer | None) -> None:
        self._observe(room, pointer)
        if pointer is not None and pointer.is_deleted:
            self._turnstile.waited.set()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


def test_what_is_told_comes_in_the_order_in_which_it_was_seen(
    pointers: Pointers, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, bool] | None] = []
    pointers.observer = lambda _room, pointer: told.append(None if pointer is None else pointer.rank)
    move(pointers, 5)
    overtaken = Overtaken(pointers, pool, monkeypatch)
    move(pointers, 6)
    assert overtaken.burial is not None
    overtaken.burial.result(SECONDS)
    assert told == [None, (5, False), (6, False), (6, True)]


def test_a_room_that_was_deleted_just_after_it_was_saved_is_not_told_to_live(
    watches: Watches, pointers: Pointers, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    move(pointers, 5)
    with calls.working_for(calls.Call(time.monotonic() + SECONDS)):
        watch = watches.watch([ROOM])
        assert next(watch).epoch == 5
        overtaken = Overtaken(pointers, pool, monkeypatch)
        move(pointers, 6)
        assert overtaken.burial is not None
        overtaken.burial.result(SECONDS)
        told = [next(watch).epoch]
        move(pointers, 7)
        told.append(next(watch).epoch)
    assert told == [None, 7]


# Callers that are slow.

END = None
DAMAGE = PointerInvalid(ROOM.text, "is damaged")
State = int | PointerInvalid | None


def may_happen(states: Sequence[State]) -> bool:
    """Tell whether a pointer may be seen so: it falls back only where the room was deleted and begun anew."""
    highest = -1
    for before, state in pairwise((END, *states)):
        if state is END:
            if before is END:
                return False
            highest = -1
        elif isinstance(state, int):
            if state < highest or state == before:
                return False
            highest = state
        elif before is state:
            return False
    return True


def seen_as(state: State) -> Seen:
    return Seen(ROOM, None, state) if isinstance(state, PointerInvalid) else Seen(ROOM, state)


STATES = [
    [seen_as(state) for state in states]
    for length in range(1, 6)
    for states in product((0, 1, 2, DAMAGE, END), repeat=length)
    if may_happen(states)
]


def told_of(watches: Watches, states: list[Seen], taken_after: Sequence[bool]) -> list[Seen]:
    """Return what a caller is told who takes what there is after some of the states, and after the last."""
    watch = watching._Watch([ROOM])
    told: list[Seen] = []
    for state, is_taken in zip(states, (*taken_after, True), strict=True):
        watch.note(state)
        if is_taken:
            told += watches._news(watch)
    return told


def test_however_slow_a_caller_is_it_is_told_the_newest_and_each_end_that_epochs_follow(watches: Watches) -> None:
    for states in STATES:
        at = {id(state): number for number, state in enumerate(states)}
        for taken_after in product((False, True), repeat=len(states) - 1):
            told = told_of(watches, states, taken_after)
            case = [state.epoch if state.error is None else "damage" for state in states], taken_after
            assert watching._same(told[-1], states[-1]), case
            numbers = [at[id(each)] for each in told]
            assert numbers == sorted(numbers), case
            for one, other in pairwise(told):
                if one.epoch is None or other.epoch is None:
                    continue
                assert one.epoch < other.epoch, case
                assert not any(state.is_end for state in states[at[id(one)] : at[id(other)]]), case


def test_a_caller_who_takes_nothing_is_kept_little_for(watches: Watches) -> None:
    watch = watching._Watch([ROOM])
    for states in STATES:
        for state in states:
            watch.note(state)
            assert len(watch.news[ROOM]) <= 2


def test_two_threads_told_at_once_wake_a_watch_for_the_newest(watches: Watches, pointers: Pointers) -> None:
    with calls.working_for(calls.Call(time.monotonic() + SECONDS)):
        watch = watches.watch([ROOM])
        assert next(watch).epoch is None
        threads = [threading.Thread(target=move, args=(pointers, epoch)) for epoch in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        assert next(watch).epoch == 19
