"""The metrics of backends beyond this machine: every request that is sent, where `measured.py` counts what callers ask.

An operation can take several requests, and a request several tries; each try counts as one.
"""

from collections.abc import Callable, Iterable
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

Outcome = Literal["ok", "missing", "conflict", "refused", "failed"]
"""What became of a request; the names are those of `measured.py`."""

_OUTCOMES: tuple[Outcome, ...] = ("ok", "missing", "conflict", "refused", "failed")

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class RemoteMetrics:
    """The metrics of all remote backends."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "holdfast_remote_requests",
            "Requests sent to remote backends. Outcomes: ok, missing (an answer), conflict (a condition did not hold), "
            "refused (ours was not accepted), failed (no answer, or the backend's fault).",
            ("backend", "request", "outcome"),
            registry=registry,
        )
        self.seconds = Histogram(
            "holdfast_remote_request_seconds",
            "Time that requests to remote backends took.",
            ("backend", "request"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.retries = Counter(
            "holdfast_remote_retries",
            "Requests that were tried again.",
            ("backend",),
            registry=registry,
        )
        self.ready = Gauge(
            "holdfast_remote_ready",
            "1 while a remote backend can be used, 0 while its breaker is open.",
            ("backend",),
            registry=registry,
        )
        self.breaker_openings = Counter(
            "holdfast_remote_breaker_openings",
            "How often a remote backend that could be used could not any more.",
            ("backend",),
            registry=registry,
        )
        self.finding = Gauge(
            "holdfast_remote_finding",
            "What the probe found of a remote backend: 1 if it does this, 0 if not.",
            ("backend", "finding"),
            registry=registry,
        )
        self.spool_used_bytes = Gauge(
            "holdfast_spool_used_bytes",
            "Bytes in the spool.",
            registry=registry,
        )

    def of_backend(self, backend: str, requests: Iterable[str] = ()) -> "BackendMetrics":
        """Return what one backend counts with. Those of `requests` are there from the start, at 0."""
        return BackendMetrics(self, backend, requests)

    def watch_spool(self, used_bytes: Callable[[], int]) -> None:
        """Have the spool's size asked of `used_bytes` whenever somebody looks."""
        self.spool_used_bytes.set_function(used_bytes)


class BackendMetrics:
    """The metrics of one remote backend. What a request counts with is looked up by its name alone."""

    def __init__(self, metrics: RemoteMetrics, backend: str, requests: Iterable[str]) -> None:
        self._metrics = metrics
        self._backend = backend
        self._retries = metrics.retries.labels(backend)
        self._ready = metrics.ready.labels(backend)
        self._openings = metrics.breaker_openings.labels(backend)
        self._requests = {request: self._bound(request) for request in requests}

    def count(self, request: str, seconds: float, outcome: Outcome) -> None:
        """Count a request, a short name such as `upload_part`, that ended."""
        bound = self._requests.get(request)
        if bound is None:
            bound = self._requests[request] = self._bound(request)
        histogram, counters = bound
        histogram.observe(seconds)
        counters[outcome].inc()

    def count_retry(self) -> None:
        """Count a request that is tried again."""
        self._retries.inc()

    def count_opening(self) -> None:
        """Count that the breaker opened."""
        self._openings.inc()

    def set_ready(self, *, ready: bool) -> None:
        """Show whether the backend can be used."""
        self._ready.set(ready)

    def set_finding(self, finding: str, *, holds: bool) -> None:
        """Show what the probe found, under a short name such as `delete_if_match`."""
        self._metrics.finding.labels(self._backend, finding).set(holds)

    def _bound(self, request: str) -> tuple[Histogram, dict[Outcome, Counter]]:
        counters = {outcome: self._metrics.requests.labels(self._backend, request, outcome) for outcome in _OUTCOMES}
        return self._metrics.seconds.labels(self._backend, request), counters
