"""A lock that tells who waits for it: so a test lets two threads meet, and neither sleeps nor guesses."""

import threading
from types import TracebackType


class Turnstile:
    """A lock in place of another one. `waited` is set as soon as somebody finds it held, or comes another way in."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.waited = threading.Event()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self.waited.set()
            self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the next one in."""
        self._lock.release()
