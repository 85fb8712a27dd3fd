"""The call that this thread works for: how long its caller waits, and whether it still does.

Every wait below a service asks here, so that no lock, queue or backend holds a thread past its caller's deadline. It
is ambient (a context variable) because it concerns every wait and no meaning; outside a call nothing is bounded.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from holdfast_server.errors import Cancelled, DeadlineExceeded


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Call:
    """A caller's patience: a deadline on the monotonic clock in seconds (None: no deadline), and a sign of life."""

    deadline: float | None = None
    is_active: Callable[[], bool] = _always


_UNBOUNDED = Call()
_current: ContextVar[Call] = ContextVar("holdfast_call", default=_UNBOUNDED)


def enter(call: Call) -> None:
    """Make `call` the one that this thread works for from now on; the next call on the thread replaces it."""
    _current.set(call)


@contextmanager
def working_for(call: Call) -> Iterator[None]:
    """Make `call` the one that this thread works for within the block."""
    token = _current.set(call)
    try:
        yield
    finally:
        _current.reset(token)


def time_left() -> float | None:
    """Return how many seconds the caller still waits, at least 0; None: no deadline."""
    deadline = _current.get().deadline
    return None if deadline is None else max(deadline - time.monotonic(), 0.0)


def check(doing: str = "working") -> None:
    """Raise `DeadlineExceeded` or `Cancelled` if the caller no longer waits. To be asked within long work."""
    call = _current.get()
    if not call.is_active():
        raise Cancelled
    if call.deadline is not None and time.monotonic() >= call.deadline:
        raise DeadlineExceeded(f"the deadline passed while {doing}")


def pause(seconds: float, waiting_for: str) -> None:
    """Wait a little (at most a second) on behalf of the current call; raises as `check` does."""
    check(f"waiting for {waiting_for}")
    left = time_left()
    time.sleep(min(seconds, 1.0 if left is None else left, 1.0))
