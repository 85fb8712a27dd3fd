"""The end of silence: gRPC's deadlines bound a whole stream, and a stream may take as long as its bytes do."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

_CHECKS = 4
"""In the time allowed: silence is noticed at most a quarter of it late."""


class Cancellable(Protocol):
    """A call at work."""

    def cancel(self) -> object:
        """Give it up."""


class Wait:
    """A wait for the next message of a call. `expired`: it took too long, and the call was cancelled for that."""

    __slots__ = ("began", "call", "expired")

    def __init__(self, call: Cancellable) -> None:
        self.call = call
        self.began = time.monotonic()
        self.expired = False


class Watchdog:
    """Cancels calls whose next message takes longer than `seconds` to come. None: never.

    Only the waiting counts: a caller may take its time between messages. One thread watches all waits, and lives only
    while there are any: to start one for each download would make small ones a fifth slower.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._waits: set[Wait] = set()
        self._is_running = False

    @contextmanager
    def watching(self, call: Cancellable) -> Iterator[Wait]:
        """Watch over a wait for this call's next message."""
        wait = Wait(call)
        if self._seconds is None:
            yield wait
            return
        with self._lock:
            self._waits.add(wait)
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._run, args=(self._seconds,), name="watchdog", daemon=True).start()
        try:
            yield wait
        finally:
            with self._lock:
                self._waits.discard(wait)

    def _run(self, seconds: float) -> None:
        while True:
            time.sleep(seconds / _CHECKS)
            oldest = time.monotonic() - seconds
            with self._lock:
                if not self._waits:
                    self._is_running = False
                    return
                overdue = [wait for wait in self._waits if wait.began <= oldest]
            for wait in overdue:
                wait.expired = True
                wait.call.cancel()
