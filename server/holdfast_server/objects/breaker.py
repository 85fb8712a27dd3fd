"""The gate before a remote backend: while it is away its callers are told so at once, and only one thread asks it."""

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from holdfast_server.errors import BackendRefused, HoldfastError, Reason, Unavailable
from holdfast_server.objects.base import Listener
from holdfast_server.objects.remote_metrics import BackendMetrics

_log = logging.getLogger(__name__)

E = TypeVar("E", bound=HoldfastError)

_Kind = tuple[type[Exception], Reason | None]
"""What makes two errors the same to the listener and to the log."""

Wait = Callable[[threading.Event, float | None], object]
"""Waits until the event is set or the seconds have passed (None: however long that takes), as `Event.wait` does."""

DEFAULT_FAILURES_TO_OPEN = 5
DEFAULT_CHECK_SECONDS = 1.0

CLOSE_SECONDS = 5.0
"""How long `Breaker.close` waits for a `mend` that is at work."""


class AnsweredFailure(Unavailable):
    """The backend answered, and failed: it is there, and may be well for all other requests."""


class Breaker:
    """The gate before a remote backend. Closed: calls pass. Open: they are refused at once, with the error behind it.

    It begins open, and only `mend` closes it: its own thread calls that at the start, and then `check_seconds` after
    each time that it failed, until it returns. `mend` is given why the breaker is open (None until it was closed for
    the first time) and raises a `HoldfastError`, which is what callers get from then on. It may take as long as it
    needs: nobody waits for it.

    `failures_to_open` requests in a row without an answer open it; the first check is then `check_seconds` later, so
    that a backend with too much to do gets a rest. One request that was refused opens nothing, for it may be that one
    object is forbidden; nor do as many in a row that were answered with a failure, for it may be that the backend fails
    at one key, or at writing alone. They have the thread check at once (but not within `check_seconds` of the last
    check), and what that check finds holds.

    May be used by many threads at once. `name` is the backend's, for people. Clock and wait come by constructor.
    """

    def __init__(
        self,
        mend: Callable[[HoldfastError | None], None],
        *,
        failures_to_open: int = DEFAULT_FAILURES_TO_OPEN,
        check_seconds: float = DEFAULT_CHECK_SECONDS,
        name: str = "remote",
        metrics: BackendMetrics | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait: Wait = threading.Event.wait,
    ) -> None:
        self._mend = mend
        self._failures_to_open = failures_to_open
        self._check_seconds = check_seconds
        self._name = name
        self._metrics = metrics
        self._clock = clock
        self._wait = wait
        self._thread = threading.Thread(target=self._run, name=f"{name} breaker", daemon=True)
        self._wake = threading.Event()

        self._lock = threading.Lock()
        """Guards what follows, for moments: neither `mend` nor the listener nor the log is called under it."""
        self._error: HoldfastError | None = Unavailable(
            Reason.BACKEND_UNAVAILABLE, f"the {name} backend has not answered yet", check_seconds
        )
        """Why it is open; read without the lock."""
        self._failures = 0
        self._suspicion: HoldfastError | None = None
        """What a request met while the breaker was closed, and no check has looked into yet."""
        self._open_since = clock()
        self._check_at: float | None = self._open_since
        """When the next check is due, by the clock. None: not at all."""
        self._rest_until = self._open_since
        """No check begins before this."""
        self._was_closed = False
        self._ending = False
        self._logged: set[_Kind] = set()
        """What the log has been told since the breaker opened, so that it is told once and not with each check."""

        self._listener: Listener = _nobody
        self._told: _Kind | None = None

    def start(self, listener: Listener) -> None:
        """Begin to look for the backend; to be called once.

        The listener is told why the backend cannot be used, or None: now, and from the breaker's thread whenever that
        is no longer the same reason.
        """
        self._listener = listener
        self._tell()
        self._thread.start()

    @property
    def reason(self) -> Reason | None:
        """Why it is open. None: it is closed."""
        error = self._error
        return None if error is None else error.reason

    def check(self) -> None:
        """Raise the error of an open breaker; takes microseconds."""
        error = self._error
        if error is not None:
            raise _fresh(error)

    def succeeded(self) -> None:
        """Note a request that was answered, be it in the negative."""
        if self._failures:
            with self._lock:
                self._failures = 0

    def failed(self, error: HoldfastError) -> None:
        """Note a request that was not answered (`Unavailable`), or refused (`BackendRefused`); others say nothing."""
        if isinstance(error, BackendRefused):
            self._note_refusal(error)
        elif isinstance(error, Unavailable):
            self._note_failure(error)

    def close(self) -> None:
        """End the thread, waiting at most `CLOSE_SECONDS` for a check at work; harmless when repeated.

        The breaker stays as it is, and its listener is told nothing more.
        """
        with self._lock:
            self._ending = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_SECONDS)

    def _note_refusal(self, error: BackendRefused) -> None:
        with self._lock:
            self._failures = 0  # it answers
            self._suspect(error)
        self._wake.set()

    def _note_failure(self, error: Unavailable) -> None:
        is_news = False
        with self._lock:
            self._failures += 1
            if self._error is not None or self._failures < self._failures_to_open:
                return
            if isinstance(error, AnsweredFailure):
                self._failures = 0
                self._suspect(error)
            else:
                is_news = self._open(error)
                self._rest()
        self._wake.set()
        if is_news:
            self._log_opening(error)

    def _suspect(self, error: HoldfastError) -> None:
        """Have the thread look into an error, unless it is about to look into one. The lock is held."""
        if self._error is None and self._suspicion is None:
            self._suspicion = _fresh(error)
            self._check_at = max(self._clock(), self._rest_until)

    def _run(self) -> None:
        while not self._ending:
            self._tell()
            with self._lock:
                seconds = None if self._check_at is None else self._check_at - self._clock()
            if seconds is not None and seconds <= 0:
                self._check()
            else:
                self._wait(self._wake, seconds)
                self._wake.clear()

    def _tell(self) -> None:
        why = self._error
        kind = None if why is None else (type(why), why.reason)
        if kind == self._told:
            return
        self._told = kind
        try:
            self._listener(None if why is None else _fresh(why))
        except Exception as error:  # noqa: BLE001 (the thread has to live on, whatever the listener does)
            _log.error("Listener failed", exc_info=error, extra={"fields": {"backend": self._name}})

    def _check(self) -> None:
        with self._lock:
            why = self._suspicion if self._error is None else self._error if self._was_closed else None
            self._suspicion = None
        try:
            self._mend(None if why is None else _fresh(why))
        except HoldfastError as error:
            self._found(error)
        except Exception as error:  # noqa: BLE001 (the thread has to live on, whatever `mend` does)
            self._found_nothing(error)
        else:
            self._found_usable()

    def _found(self, error: HoldfastError) -> None:
        with self._lock:
            if self._ending:
                return
            is_news = self._open(error)
            self._rest()
        if is_news:
            self._log_opening(error)

    def _found_usable(self) -> None:
        with self._lock:
            if self._ending:
                return
            is_news = self._error is not None and bool(self._logged)
            seconds_away = self._clock() - self._open_since
            self._logged.clear()
            self._error = None
            self._failures = 0
            self._was_closed = True
            self._rest()
            if self._metrics is not None:
                self._metrics.set_ready(ready=True)
        if is_news:
            fields = {"backend": self._name, "seconds": round(seconds_away, 3)}
            _log.info("Backend is back", extra={"fields": fields})

    def _found_nothing(self, error: Exception) -> None:
        """Leave all as it is after a check that went wrong."""
        with self._lock:
            self._rest()
            is_news = self._is_news((type(error), None))
        if is_news:
            fields = {"backend": self._name}
            _log.error("Check of the backend failed unexpectedly", exc_info=error, extra={"fields": fields})

    def _open(self, error: HoldfastError) -> bool:
        """Open, or stay open with another error; tells whether that is news for the log. The lock is held."""
        if self._error is None:
            self._open_since = self._clock()
            if self._metrics is not None:
                self._metrics.count_opening()
                self._metrics.set_ready(ready=False)
        self._error = _fresh(error)
        if isinstance(self._error, Unavailable):
            self._error.retry_after_seconds = self._check_seconds
        self._suspicion = None
        return self._is_news((type(error), error.reason))

    def _rest(self) -> None:
        """Have the next check, if one is needed, `check_seconds` from now. The lock is held."""
        self._rest_until = self._clock() + self._check_seconds
        self._check_at = None if self._error is None and self._suspicion is None else self._rest_until

    def _is_news(self, kind: _Kind) -> bool:
        """Tell whether the log has not heard of this since the breaker opened; it will have now. The lock is held."""
        is_news = kind not in self._logged
        self._logged.add(kind)
        return is_news

    def _log_opening(self, error: HoldfastError) -> None:
        fields = {"backend": self._name, "reason": error.reason.value, "error": error.message}
        _log.warning("Backend is refused", extra={"fields": fields})


def _fresh(error: E) -> E:
    """Return an error like this one that was never raised.

    One that is raised again and again, by many threads, gathers all their tracebacks, and keeps alive what they held.
    """
    fresh = type(error).__new__(type(error), *error.args)
    fresh.__dict__.update(error.__dict__)
    return fresh


def _nobody(_error: HoldfastError | None) -> None:
    """Be told nothing, before `start`."""
