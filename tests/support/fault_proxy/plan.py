"""Which of the requests to come meet which faults, and those that came."""

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Lock

from tests.support.fault_proxy.exchange import Fault, Seen

FOREVER = sys.maxsize
"""As many times as there are requests."""


def always(_request: Seen) -> bool:
    """Match every request."""
    return True


@dataclass
class Injection:
    """A fault that `times` matching requests meet, beginning with the `nth` from now on, counted from 1."""

    fault: Fault
    when: Callable[[Seen], bool]
    nth: int = 1
    times: int = 1
    matched: int = 0
    """The matching requests so far."""

    @property
    def met(self) -> int:
        """The requests so far that met the fault."""
        return max(0, min(self.matched - self.nth + 1, self.times))

    def will_meet(self, request: Seen) -> bool:
        """Tell whether this request would meet the fault if it came now."""
        return self.nth <= self.matched + 1 < self.nth + self.times and self.when(request)

    def meets(self, request: Seen) -> bool:
        """Tell whether this request meets the fault, and count it."""
        if not self.when(request):
            return False
        self.matched += 1
        return self.nth <= self.matched < self.nth + self.times


class Plan:
    """The faults to come and the requests so far, for all connections of a proxy."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._injections: list[Injection] = []
        self._released = Event()
        self._requests: list[Seen] = []

    @property
    def requests(self) -> list[Seen]:
        """Copies of what is known of each request now, in the order in which they came."""
        with self._lock:
            return [copy.copy(seen) for seen in self._requests]

    def add(self, injection: Injection) -> None:
        """Let it count from now on."""
        with self._lock:
            self._injections.append(injection)

    def clear(self) -> None:
        """Forget the faults, and release what waits because of them."""
        with self._lock:
            self._injections.clear()
            self._released.set()
            self._released = Event()

    def will_meet(self, request: Seen) -> bool:
        """Tell whether a request would meet a fault if it came now."""
        with self._lock:
            return any(injection.will_meet(request) for injection in self._injections)

    def meet(self, request: Seen) -> tuple[Fault, Event]:
        """Note a request, and return what it meets and the event that releases it. Of two faults, the older one."""
        with self._lock:
            found = [injection.fault for injection in self._injections if injection.meets(request)]
            request.fault = found[0] if found else None
            self._requests.append(request)
            return request.fault or Fault(), self._released
