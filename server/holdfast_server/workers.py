"""Many pieces of work for one caller, a few of them at once."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from contextvars import copy_context
from itertools import count
from typing import TypeVar

from holdfast_server import calls

T = TypeVar("T")
R = TypeVar("R")

DEFAULT_THREADS = 128


class Workers:
    """Threads that help callers who have much to do; they are shared, and started when they are first needed."""

    def __init__(self, threads: int = DEFAULT_THREADS) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="worker")

    def each(self, items: Sequence[T], work: Callable[[T], R], at_once: int) -> list[R]:
        """Return what `work` returns for each item, in their order; up to `at_once` are worked on at once.

        The caller's own thread is one of those who work, so this ends also where all others are busy. Asks between
        items whether the caller still waits. The first error that `work` raises ends all of it, once those at work are
        done.
        """
        if at_once == 1 or len(items) <= 1:
            return [_checked(work, item) for item in items]
        results: dict[int, R] = {}
        errors: list[BaseException] = []
        numbers = count()  # `next` of it is atomic

        def run() -> None:
            while not errors and (number := next(numbers)) < len(items):
                try:
                    results[number] = _checked(work, items[number])
                except BaseException as error:  # noqa: BLE001 (it is the caller's, who raises it)
                    errors.append(error)

        helpers = []
        try:
            with suppress(RuntimeError):  # no more threads can be had: those there are will do
                for _ in range(min(at_once, len(items)) - 1):
                    # Each works for the caller: its deadline is in the context.
                    helpers.append(self._pool.submit(copy_context().run, run))  # noqa: PERF401 (some may be enough)
            run()
        finally:
            wait([helper for helper in helpers if not helper.cancel()])
        if errors:
            raise errors.pop()  # and not kept: its traceback leads back here
        return [results[number] for number in range(len(items))]

    def close(self) -> None:
        """Let the threads end."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _checked(work: Callable[[T], R], item: T) -> R:
    calls.check()
    return work(item)
