"""Trying again: which failures pass by themselves, and how long to wait for that."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from holdfast.errors import (
    BrokenUpload,
    Cancelled,
    ConditionUnsupported,
    InvalidArgument,
    Overloaded,
    ReadOnly,
    SealTooNew,
    Unavailable,
)

T = TypeVar("T")

DEFAULT_RETRIES = 4
DEFAULT_TIMEOUT_SECONDS = 60.0

FIRST_BACKOFF_SECONDS = 0.2
MAX_BACKOFF_SECONDS = 5.0

MAX_TIMEOUT_SECONDS = 1e9
"""About 32 years. With 9.2e9, the most that threads can wait, gRPC finds unary calls late as soon as they begin."""

PASSING = (Unavailable, Overloaded)
"""The failures after which the same call may succeed."""

_LASTING = (InvalidArgument, ReadOnly, ConditionUnsupported, SealTooNew, TypeError, ValueError)
"""What the request, the store, or this version of the server would have to be another one for; the last two are a
program's own mistakes: a state of the wrong kind, a client that is closed."""

_LASTING_REASONS = {"UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED"}
"""The same, as gRPC itself or a proxy says it."""


def may_pass(error: BaseException) -> bool:
    """Tell whether the same call may end otherwise within a minute, for who would rather try in vain than give up.

    So of everything but what is known to last: also of a full disk or spool (others may free it, or it is pruned), of
    races lost, calls cancelled and faults of the server, of keys, credentials and buckets (they are mended while the
    server runs), of a damage that may be one of reading, and of what a program's own callables raise.
    """
    if isinstance(error, BrokenUpload):  # sent once more it may arrive whole
        return True
    return not isinstance(error, _LASTING) and getattr(error, "reason", None) not in _LASTING_REASONS


@dataclass(frozen=True, slots=True)
class Retrier:
    """How often and how patiently a failed call is tried again.

    `retries` are the tries after the first one; `timeout_seconds` (None: no bound) is the longest that an operation may
    take or, if it has steps, go without progress, waiting included. Before each further try there is a pause: a random
    part of 0.2 s, doubled each time up to 5 s ("full jitter"), on top of what the server asks for. What passes the time
    comes by constructor.
    """

    retries: int = DEFAULT_RETRIES
    timeout_seconds: float | None = DEFAULT_TIMEOUT_SECONDS
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    random: Callable[[], float] = field(default=random.random, repr=False)
    """From 0 to 1."""

    def __post_init__(self) -> None:
        """Refuse what could never work. Raises `ValueError`."""
        if self.retries < 0:
            raise ValueError(f"retries {self.retries} is negative")
        if self.timeout_seconds is None:
            return
        if not self.timeout_seconds > 0:  # nor is NaN
            raise ValueError(f"timeout {self.timeout_seconds} is not above 0")
        if self.timeout_seconds > MAX_TIMEOUT_SECONDS:  # as infinity is
            raise ValueError(f"timeout {self.timeout_seconds} is above {MAX_TIMEOUT_SECONDS:g}")

    def call(self, attempt: Callable[[float | None], T]) -> T:
        """Return what `attempt` returns; it is given the seconds left (None: no bound), and tried again if it may be.

        For operations that can be repeated without harm. Raises what the last attempt raised.
        """
        tries = self.begin()
        while True:
            try:
                return attempt(tries.seconds_left)
            except PASSING as error:
                tries.pause_after(error)

    def begin(self) -> "Tries":
        """Return the account of the tries of one operation."""
        return Tries(self)


class Tries:
    """The tries of one operation so far, and the time left for more."""

    def __init__(self, retrier: Retrier) -> None:
        self._retrier = retrier
        self._made = 0
        self.extend()

    def extend(self) -> None:
        """Note progress: the time begins anew."""
        timeout = self._retrier.timeout_seconds
        self._end = None if timeout is None else self._retrier.clock() + timeout

    @property
    def seconds_left(self) -> float | None:
        """The time left, at least 0; None: no bound."""
        return None if self._end is None else max(0.0, self._end - self._retrier.clock())

    def pause_after(self, error: Unavailable | Overloaded | Cancelled) -> None:
        """Wait before the next try, or raise the error if no try or not enough time is left."""
        retrier = self._retrier
        if self._made >= retrier.retries:
            raise error
        backoff = min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2**self._made)
        advised = None if isinstance(error, Cancelled) else error.retry_after_seconds
        pause = (advised or 0.0) + retrier.random() * backoff
        left = self.seconds_left
        if left is not None and pause >= left:
            raise error
        self._made += 1
        retrier.sleep(pause)
