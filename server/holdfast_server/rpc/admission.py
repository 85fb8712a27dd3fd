"""Who gets in: at most so many calls at once, and none while the server drains."""

import threading
import time

from holdfast_server.errors import Overloaded, Reason, Unavailable


class Admission:
    """Counts the calls at work. `limit` is the most at once."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._idle = threading.Condition()
        self._at_work = 0
        self._draining = False

    @property
    def at_work(self) -> int:
        """How many calls are at work."""
        return self._at_work

    def enter(self) -> None:
        """Let a call in. Raises `Overloaded`, or `Unavailable` (DRAINING)."""
        with self._idle:
            if self._draining:
                raise Unavailable(Reason.DRAINING, "the server is shutting down")
            if self._at_work >= self.limit:
                raise Overloaded(f"{self.limit} calls are at work, the most that this server takes at once")
            self._at_work += 1

    def leave(self) -> None:
        """Note that a call is done."""
        with self._idle:
            self._at_work -= 1
            if self._draining and not self._at_work:
                self._idle.notify_all()

    def close(self) -> None:
        """Let no more calls in."""
        with self._idle:
            self._draining = True

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait until no call is at work, and tell whether it came to that in time."""
        end = time.monotonic() + seconds
        with self._idle:
            while self._at_work:
                left = end - time.monotonic()
                if left <= 0:
                    return False
                self._idle.wait(left)
        return True
