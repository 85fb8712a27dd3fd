"""The end of stalls: who neither sends nor takes the next message must not keep a slot, a thread and room for ever.

Keepalive notices peers that are gone. Those that are there and do nothing are noticed here: of a call only the time
counts for which its peer is awaited, and what a handler takes for its own work does not.
"""

import logging
import threading
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter

from holdfast_server.errors import DeadlineExceeded

_CHECKS = 8
"""In the time allowed: a stall is noticed at most an eighth of it late."""

_log = logging.getLogger(__name__)


class Wait:
    """What a call waits for its peer: a context manager, entered for each wait.

    Leaving it raises `DeadlineExceeded` where `has_stalled`: the peer took too long, and another thread has called
    `give_up`, which ends the wait.
    """

    __slots__ = ("_stalls", "began", "give_up", "has_stalled", "method")

    def __init__(self, stalls: "Stalls", method: str, give_up: Callable[[], object]) -> None:
        self._stalls = stalls
        self.method = method
        self.give_up = give_up
        self.began = 0.0
        self.has_stalled = False

    @property
    def error(self) -> DeadlineExceeded:
        """What there is to say of a peer that has stalled."""
        seconds = self._stalls.seconds
        message = f"the client neither sent nor took a message for {seconds:g} s (rpc.stall_timeout_seconds)"
        return DeadlineExceeded(message)

    def __enter__(self) -> None:
        self.began = time.monotonic()
        self._stalls.begin(self)

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: object) -> None:
        """Await the peer no more."""
        self._stalls.end(self)
        if self.has_stalled and kind is not GeneratorExit:  # which is to end a generator, and nothing else may
            raise self.error


class Stalls:
    """Ends calls whose peers keep them waiting for longer than `seconds`; 0: never.

    One thread watches all waits, and lives only while there are any when it looks.
    """

    def __init__(self, seconds: float, registry: CollectorRegistry) -> None:
        self.seconds = seconds
        self._lock = threading.Lock()
        self._waits: set[Wait] = set()
        self._is_running = False
        self._closed = threading.Event()
        self._ended = Counter(
            "holdfast_stalled_calls",
            "Calls that were ended since their clients neither sent nor took the next message.",
            ("grpc_service", "grpc_method"),
            registry=registry,
        )

    def begin(self, wait: Wait) -> None:
        """Watch over a wait that begins."""
        if not self.seconds:
            return
        with self._lock:
            self._waits.add(wait)
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._run, name="stalls", daemon=True).start()

    def end(self, wait: Wait) -> None:
        """Watch over it no more. After this `has_stalled` does not change."""
        with self._lock:
            self._waits.discard(wait)

    def close(self) -> None:
        """End the thread."""
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.wait(self.seconds / _CHECKS):
            now = time.monotonic()
            with self._lock:
                if not self._waits:
                    self._is_running = False
                    return
                overdue = [wait for wait in self._waits if wait.began <= now - self.seconds]
                for wait in overdue:
                    wait.has_stalled = True
                    self._waits.discard(wait)
            for wait in overdue:
                try:
                    self._report(wait, now - wait.began)
                    wait.give_up()
                except Exception:  # noqa: BLE001 (the others are watched on, whatever is with this one)
                    _log.exception("A stalled call could not be ended", extra={"fields": {"method": wait.method}})

    def _report(self, wait: Wait, seconds: float) -> None:
        _, service, method = wait.method.split("/")
        self._ended.labels(service, method).inc()
        fields = {"method": wait.method, "seconds": round(seconds, 3)}
        _log.warning("A call was ended since its client had stalled", extra={"fields": fields})
