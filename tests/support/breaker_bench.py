"""A breaker on the bench: time and backend are the test's, the thread is real."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

from prometheus_client import CollectorRegistry

from holdfast_server.errors import BackendRefused, HoldfastError, Reason, Unavailable
from holdfast_server.objects.breaker import Breaker
from holdfast_server.objects.remote_metrics import RemoteMetrics
from tests.support.waiting import wait_until

LIMIT_SECONDS = 120
"""Nothing here takes long; what does, hangs."""


def away(message: str = "away") -> Unavailable:
    return Unavailable(Reason.BACKEND_UNAVAILABLE, message, 7.0)


def refused(message: str = "wrong key") -> BackendRefused:
    return BackendRefused(Reason.BACKEND_AUTH, message, bucket="b")


class Time:
    """A clock that only the test moves; waits last until it did, or until they are ended."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: SimpleQueue[float | None] = SimpleQueue()
        """The seconds of each wait that began."""

    def wait(self, event: threading.Event, seconds: float | None) -> None:
        end = None if seconds is None else self.now + seconds
        self.waits.put(seconds)
        wait_until(lambda: event.is_set() or (end is not None and self.now >= end), LIMIT_SECONDS)


class Backend:
    """What the breaker watches: `mend` hangs until the test says how it ends."""

    def __init__(self) -> None:
        self.asked: SimpleQueue[HoldfastError | None] = SimpleQueue()
        self._outcomes: SimpleQueue[Exception | None] = SimpleQueue()

    def mend(self, error: HoldfastError | None) -> None:
        self.asked.put(error)
        outcome = self._outcomes.get(timeout=LIMIT_SECONDS)
        if outcome is not None:
            raise outcome

    def answer(self, outcome: Exception | None = None) -> HoldfastError | None:
        """Wait for a check, end it with this (None: well), and return what it was asked with."""
        asked = self.asked.get(timeout=LIMIT_SECONDS)
        self._outcomes.put(outcome)
        return asked

    def end(self) -> None:
        """Let a check that is at work end, and those to come."""
        for _ in range(10):
            self._outcomes.put(None)


class Told:
    """A listener, and the threads that it was called from."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[HoldfastError | None, str]] = SimpleQueue()

    def __call__(self, error: HoldfastError | None) -> None:
        self._calls.put((error, threading.current_thread().name))

    def next(self) -> tuple[Reason | None, str]:
        """Return the reason told next (None: usable), and the thread that told it."""
        error, thread = self._calls.get(timeout=LIMIT_SECONDS)
        return None if error is None else error.reason, thread

    @property
    def is_empty(self) -> bool:
        return self._calls.empty()


class Bench:
    """A breaker that watches a `Backend` in given time."""

    def __init__(self, registry: CollectorRegistry, **options: Any) -> None:
        self.time = Time()
        self.backend = Backend()
        self.told = Told()
        self.breaker = Breaker(
            self.backend.mend,
            name="s3",
            metrics=RemoteMetrics(registry).of_backend("s3"),
            clock=lambda: self.time.now,
            wait=self.time.wait,
            **options,
        )

    def start(self) -> None:
        self.breaker.start(self.told)
        assert self.told.next()[0] is Reason.BACKEND_UNAVAILABLE

    def start_well(self) -> None:
        """Start, find the backend, and let the second pass in which no further check would begin."""
        self.start()
        self.backend.answer()
        assert self.told.next()[0] is None
        assert self.waited() is None
        self.time.now += 1

    def waited(self) -> float | None:
        """Return how long the breaker's thread wants to wait, once it does."""
        return self.time.waits.get(timeout=LIMIT_SECONDS)

    def open(self) -> None:
        """Let so many requests fail that the breaker opens."""
        while self.breaker.reason is None:
            self.breaker.failed(away())
        assert self.told.next()[0] is Reason.BACKEND_UNAVAILABLE
        assert self.waited() == 1.0

    def check_fails(self, outcome: Exception) -> HoldfastError | None:
        """End a check with a failure, and wait until the thread waits for the next."""
        asked = self.backend.answer(outcome)
        while self.waited() is None:
            pass
        return asked

    def mended(self) -> None:
        """End a check well, and wait until the thread waits again."""
        self.backend.answer()
        while self.waited() is not None:
            pass


@contextmanager
def on_the_bench(registry: CollectorRegistry, **options: Any) -> Iterator[Bench]:
    """Yield a breaker that is not started yet, and end its thread behind the block."""
    bench = Bench(registry, **options)
    try:
        yield bench
    finally:
        bench.backend.end()
        bench.breaker.close()
        if bench.breaker._thread.ident is not None:
            bench.breaker._thread.join(LIMIT_SECONDS)  # `close` does not wait for as long
    assert not bench.breaker._thread.is_alive()


def error_of(call: Callable[[], object]) -> HoldfastError:
    """Return the error that a call raises."""
    try:
        call()
    except HoldfastError as error:
        return error
    raise AssertionError("it raised nothing")


def within(seconds: float, *functions: Callable[[], object]) -> list[Any]:
    """Return what the functions return, each called in one thread that must not hang."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.extend(function() for function in functions), daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "a request waits"
    return results
