"""The adjective *retrying*: tries a request again after failures that pass by themselves, within bounds.

Tries stack up where such calls are nested: around one request is the place, and nowhere else.
"""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from holdfast_server import calls
from holdfast_server.errors import BackendRefused, Cancelled, DeadlineExceeded, Reason, Unavailable
from holdfast_server.objects.breaker import Breaker
from holdfast_server.objects.remote_metrics import BackendMetrics

T = TypeVar("T")

_WAITING_FOR = "the backend"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how patiently a request is tried again; valid by construction. Raises `ValueError`."""

    attempts: int = 4
    """The first one counted."""
    first_seconds: float = 0.1
    """The longest pause before the first retry; before each further one it is twice as long."""
    most_seconds: float = 2.0
    """No pause is longer."""
    total_seconds: float = 30.0
    """No attempt begins later than this after the first."""

    def __post_init__(self) -> None:
        """Check the rules."""
        if self.attempts < 1:
            raise ValueError(f"attempts {self.attempts} is below 1")
        for name in ("first_seconds", "most_seconds", "total_seconds"):
            seconds = getattr(self, name)
            if not seconds >= 0:  # nor is NaN
                raise ValueError(f"{name} {seconds} is below 0")


DEFAULT_POLICY = RetryPolicy()


class SilentBackend(DeadlineExceeded):
    """The caller's deadline passed, and the backend had said nothing for so long that it counts as a failure of its."""


class Retrying:
    """Tries the requests of one backend again, through its breaker. May be used by many threads at once.

    Before each retry there is a pause: a random part of `first_seconds`, doubled each time up to `most_seconds` ("full
    jitter"). All requests share a budget of 10 retries that each answer refills by a tenth, so that a backend in
    trouble is not sent several times what it cannot serve once. Luck (from 0 to 1), clock and sleep come by
    constructor; like `calls.pause`, `sleep` may sleep for less than it is told, and raises where the caller is gone.
    """

    def __init__(
        self,
        breaker: Breaker,
        policy: RetryPolicy = DEFAULT_POLICY,
        *,
        metrics: BackendMetrics | None = None,
        luck: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float, str], None] = calls.pause,
    ) -> None:
        self._breaker = breaker
        self._policy = policy
        self._metrics = metrics
        self._luck = luck
        self._clock = clock
        self._sleep = sleep
        self._budget = _Budget()

    def call(self, attempt: Callable[[int], T]) -> T:
        """Return what `attempt` returns; it is given its number, from 0, and tried again where it raises `Unavailable`.

        For requests that can be repeated without harm. Raises the breaker's error at once while that is open; what the
        last attempt raised, as it was, if no further one is due or could begin before the caller's deadline; and
        `Cancelled` or `DeadlineExceeded` if the caller goes away during a pause.
        """
        begun = self._clock()
        number = 0
        while True:
            self._breaker.check()
            if number and self._metrics is not None:
                self._metrics.count_retry()
            try:
                result = attempt(number)
            except Unavailable as error:
                self._breaker.failed(error)
                pause = self._pause_before_next(number, begun)
                if pause is None:
                    raise
            except BackendRefused as error:
                self._breaker.failed(error)
                raise
            except SilentBackend as error:
                self._breaker.failed(Unavailable(Reason.BACKEND_UNAVAILABLE, error.message))
                raise
            except (Cancelled, DeadlineExceeded):
                raise  # the caller's patience was the shorter one: whether the backend is well is not known
            except Exception:
                self._answered()  # with something that the caller has to make sense of
                raise
            else:
                self._answered()
                return result
            self._wait(pause)
            number += 1

    def _answered(self) -> None:
        self._breaker.succeeded()
        self._budget.refill()

    def _pause_before_next(self, number: int, begun: float) -> float | None:
        """Return how many seconds to wait after attempt `number`, and pay for the next one. None: there is none."""
        policy = self._policy
        if number + 1 >= policy.attempts or self._breaker.reason is not None:
            return None
        pause = self._luck() * min(policy.most_seconds, policy.first_seconds * 2**number)
        left = calls.time_left()
        if self._clock() + pause - begun > policy.total_seconds or (left is not None and pause >= left):
            return None
        return pause if self._budget.spend() else None

    def _wait(self, seconds: float) -> None:
        end = self._clock() + seconds
        while (left := end - self._clock()) > 0:
            self._sleep(left, _WAITING_FOR)
        calls.check(f"waiting for {_WAITING_FOR}")


class _Budget:
    """Retries that are left, in tenths: 10 at the start and at most; each answer gives one tenth."""

    _RETRY = 10
    _ANSWER = 1
    _MOST = 10 * _RETRY

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tenths = self._MOST

    def spend(self) -> bool:
        """Pay for a retry, and tell whether that could be paid."""
        with self._lock:
            if self._tenths < self._RETRY:
                return False
            self._tenths -= self._RETRY
            return True

    def refill(self) -> None:
        """Note an answer."""
        if self._tenths < self._MOST:  # a look without the lock: nearly always it is full
            with self._lock:
                self._tenths = min(self._MOST, self._tenths + self._ANSWER)
