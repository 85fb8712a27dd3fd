"""Many pieces of work for one caller, a few of them at once."""

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from holdfast_server import calls
from holdfast_server.errors import Cancelled, DeadlineExceeded
from holdfast_server.workers import Workers
from tests.support.waiting import wait_until


@pytest.fixture
def workers() -> Iterator[Workers]:
    made = Workers(threads=4)
    yield made
    made.close()


@pytest.mark.parametrize("at_once", [1, 3, 100])
@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_results_come_in_the_order_of_the_items(workers: Workers, at_once: int, count: int) -> None:
    assert workers.each(range(count), lambda item: item * 2, at_once) == [item * 2 for item in range(count)]


def test_as_many_are_at_work_as_are_asked_for(workers: Workers) -> None:
    together = threading.Barrier(3, timeout=60)
    assert workers.each(range(6), lambda _: together.wait() >= 0, 3) == [True] * 6


def test_no_more_are_at_work_than_are_asked_for(workers: Workers) -> None:
    lock = threading.Lock()
    at_work = most = 0

    def work(_: int) -> None:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        sum(range(100_000))  # time for others to come in
        with lock:
            at_work -= 1

    workers.each(range(40), work, 2)
    assert most <= 2


def test_the_caller_does_all_where_the_others_are_busy(workers: Workers) -> None:
    busy, done = threading.Barrier(6, timeout=60), threading.Event()

    def hold(_: int) -> None:
        busy.wait()
        done.wait(60)

    holding = threading.Thread(target=workers.each, args=(range(5), hold, 5))
    holding.start()  # in its own thread and all four of the others
    try:
        busy.wait()
        assert set(workers.each(range(10), lambda _: threading.get_ident(), 4)) == {threading.get_ident()}
    finally:
        done.set()
        holding.join()


@pytest.mark.parametrize("at_once", [1, 4])
def test_the_first_error_ends_the_rest(workers: Workers, at_once: int) -> None:
    begun = []

    def work(item: int) -> None:
        begun.append(item)
        if item == 3:
            raise ValueError("three")

    with pytest.raises(ValueError, match="three"):
        workers.each(range(10_000), work, at_once)
    assert len(begun) < 10_000


@pytest.mark.parametrize("at_once", [1, 4])
def test_nobody_works_for_a_caller_who_is_late_or_gone(workers: Workers, at_once: int) -> None:
    begun: list[int] = []
    with calls.working_for(calls.Call(time.monotonic() - 1)), pytest.raises(DeadlineExceeded):
        workers.each(range(10), begun.append, at_once)
    with calls.working_for(calls.Call(is_active=lambda: False)), pytest.raises(Cancelled):
        workers.each(range(10), begun.append, at_once)
    assert begun == []


def test_all_threads_work_for_the_call_of_the_caller(workers: Workers) -> None:
    together = threading.Barrier(3, timeout=60)

    def work(_: int) -> bool:
        together.wait()
        left = calls.time_left()
        return left is not None and 500 < left <= 1000

    with calls.working_for(calls.Call(time.monotonic() + 1000)):
        assert workers.each(range(3), work, 3) == [True] * 3


def test_all_is_done_also_where_no_more_threads_can_be_had(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    submit = workers._pool.submit

    def one_only(*args: Any) -> "Future[Any]":
        if begun:
            raise RuntimeError("can't start new thread")
        begun.append(1)
        return submit(*args)

    monkeypatch.setattr(workers._pool, "submit", one_only)
    assert workers.each(range(100), lambda item: item * 2, 4) == [item * 2 for item in range(100)]


def test_nobody_is_at_work_any_more_when_an_error_comes_back(workers: Workers) -> None:
    at_work = threading.Semaphore(0)

    def work(item: int) -> None:
        if item == 0:
            raise ValueError("first")
        at_work.release()
        sum(range(100_000))
        at_work.acquire(blocking=False)

    with pytest.raises(ValueError, match="first"):
        workers.each(range(8), work, 4)
    assert not at_work.acquire(blocking=False)


def test_an_error_keeps_nothing_of_the_work_alive(workers: Workers) -> None:
    class Item:
        """Something to be kept alive."""

    items = [Item(), Item()]
    kept = [weakref.ref(item) for item in items]

    def fail(_: Item) -> None:
        raise ValueError

    gc.disable()
    try:
        with pytest.raises(ValueError):  # noqa: PT011 (it has no text)
            workers.each(items, fail, 2)
        del items
        wait_until(lambda: [one() for one in kept] == [None, None])  # another thread may still be on its way out
    finally:
        gc.enable()
