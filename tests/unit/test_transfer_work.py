"""Tasks are done a few at once, ended when somebody wants that, and tried again where that may help."""

import threading
from collections.abc import Iterator
from functools import partial

import pytest

from holdfast_server import calls
from holdfast_server.errors import (
    BackendRefused,
    ConcurrentModification,
    HoldfastError,
    IntegrityFailed,
    ReadOnly,
    Reason,
    StorageFull,
    Unavailable,
)
from holdfast_server.objects.base import CommonPrefix, Entry, ListQuery
from holdfast_server.objects.body import Body
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.memory import MemoryStore
from holdfast_server.transfer.nesting import Nesting
from holdfast_server.transfer.outcome import Done, Outcome, Task, printable
from holdfast_server.transfer.work import Stopped, attempted, listed, work_off

AWAY = Unavailable(Reason.BACKEND_UNAVAILABLE, "the store is away")


class Returning:
    """A `Patience` with a store that comes back each time, or with one of which nothing can be awaited."""

    def __init__(self, *, comes_back: bool = True) -> None:
        self.waits = 0
        self._comes_back = comes_back

    def wait(self) -> bool:
        self.waits += 1
        return self._comes_back


def never() -> bool:
    return False


def copied(name: str) -> Done:
    return Done(name, Outcome.COPIED)


def test_every_task_is_done_and_told_of() -> None:
    told: list[Done] = []
    work_off((partial(copied, str(number)) for number in range(1000)), 4, told.append, never)
    assert sorted(int(done.name) for done in told) == list(range(1000))


def test_no_more_than_a_few_tasks_are_taken_ahead() -> None:
    taken = 0
    told: list[Done] = []
    most = 0

    def tasks() -> Iterator[Task]:
        nonlocal taken, most
        for number in range(500):
            taken += 1
            most = max(most, taken - len(told))
            yield partial(copied, str(number))

    work_off(tasks(), 3, told.append, never)
    assert len(told) == 500
    assert most <= 3 * 2 + 2


def test_that_many_tasks_are_at_work_at_once() -> None:
    meeting = threading.Barrier(5, timeout=60)

    def meet() -> Done:
        meeting.wait()
        return copied("")

    told: list[Done] = []
    work_off(iter([meet] * 5), 5, told.append, never)
    assert len(told) == 5


def test_a_wish_to_stop_ends_what_is_at_work_and_begins_nothing() -> None:
    stopping = threading.Event()
    begun = 0

    def long() -> Done:
        nonlocal begun
        begun += 1
        stopping.set()
        while True:
            calls.pause(0.01, "nothing")

    told: list[Done] = []
    work_off(iter([long] * 100), 2, told.append, stopping.is_set)
    assert told == []
    assert begun <= 2


def test_what_stops_one_task_stops_all_and_the_finished_ones_are_told_of() -> None:
    others_done = threading.Event()

    def stop() -> Done:
        others_done.wait(20)
        raise Stopped("the disk is full")

    def last() -> Done:
        others_done.set()
        return copied("last")

    told: list[Done] = []
    with pytest.raises(Stopped, match="the disk is full"):
        work_off(iter([stop, *[partial(copied, "x")] * 3, last, *[stop] * 1000]), 4, told.append, never)
    assert [done.name for done in told].count("last") == 1


def test_a_list_that_fails_ends_the_work_and_the_finished_tasks_are_told_of() -> None:
    def tasks() -> Iterator[Task]:
        yield partial(copied, "a")
        raise AWAY

    told: list[Done] = []
    with pytest.raises(Unavailable):
        work_off(tasks(), 2, told.append, never)
    assert told == [copied("a")]


@pytest.mark.parametrize(
    "error",
    [
        StorageFull("the disk is full"),
        ReadOnly(),
        BackendRefused(Reason.BACKEND_AUTH, "the keys are refused"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_all_others_would_meet_stops_the_work(error: HoldfastError) -> None:
    def fail() -> Done:
        raise error

    with pytest.raises(Stopped, match=error.message):
        attempted("a", fail, Returning())


def test_what_one_object_meets_fails_that_one() -> None:
    def fail() -> Done:
        raise IntegrityFailed("a", "it is damaged")

    assert attempted("a", fail, Returning()) == Done("a", Outcome.FAILED, why="key 'a': it is damaged")


def test_an_object_is_tried_again_when_the_store_is_back() -> None:
    errors: list[HoldfastError] = [AWAY, ConcurrentModification("others were at it"), AWAY]

    def fail_at_first() -> Done:
        if errors:
            raise errors.pop()
        return copied("a")

    patience = Returning()
    assert attempted("a", fail_at_first, patience) == copied("a")
    assert patience.waits == 2


@pytest.mark.parametrize(("comes_back", "tries", "waits"), [(True, 5, 4), (False, 1, 1)])
def test_an_object_that_fails_again_and_again_is_given_up_without_another_wait(
    comes_back: bool, tries: int, waits: int
) -> None:
    patience = Returning(comes_back=comes_back)
    tried = 0

    def fail() -> Done:
        nonlocal tried
        tried += 1
        raise AWAY

    assert attempted("a", fail, patience) == Done("a", Outcome.FAILED, why="the store is away")
    assert (tried, patience.waits) == (tries, waits)


class Interrupted(MemoryStore):
    """A memory store whose lists break off after two items, so many times."""

    breaks = 0

    def list(self, query: ListQuery) -> Iterator[Entry | CommonPrefix]:
        for number, item in enumerate(super().list(query)):
            if self.breaks and number == 2:
                self.breaks -= 1
                raise AWAY
            yield item


def test_a_list_goes_on_behind_its_last_item() -> None:
    store = Interrupted()
    for name in "abcdefgh":
        store.put(ObjectKey(f"x/{name}"), Body.of(b""))
    store.put(ObjectKey("skipped/a"), Body.of(b""))
    store.breaks = 3
    query = ListQuery(skip=frozenset({"skipped/"}))
    assert [entry.name for entry in listed(store, query, Returning())] == [f"x/{name}" for name in "abcdefgh"]
    store.breaks = 1
    with pytest.raises(Unavailable):
        list(listed(store, query, Returning(comes_back=False)))


def test_keys_below_other_keys_are_found_also_where_others_stand_between() -> None:
    keys = sorted(["a", "a!", "a-b", "a.b/c", "a/b", "a/b/c", "a/bc", "ab", "ab/c", "b/c", "b/c/d"])
    nesting = Nesting()
    found = {key: parent for key in keys if (parent := nesting.parent_of(key)) is not None}
    assert found == {"a/b": "a", "a/b/c": "a/b", "a/bc": "a", "ab/c": "ab", "b/c/d": "b/c"}


def test_nesting_remembers_no_more_than_it_needs() -> None:
    nesting = Nesting()
    for number in range(10_000):
        assert nesting.parent_of(f"k{number:05}") is None
    assert len(nesting._above) == 1


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("maps/größe 🦉", "maps/größe 🦉"),
        ("a\x1b[2Jb\n", "a\\x1b[2Jb\\n"),
        ("\u202e\u2028\u200b", "\\u202e\\u2028\\u200b"),
        (b"\xff\xc3".decode(errors="surrogateescape"), "\\xff\\xc3"),
        ("\ud800", "\\ud800"),
    ],
)
def test_names_are_shown_without_what_moves_a_cursor(name: str, shown: str) -> None:
    assert printable(name) == shown
