"""Requests to the store as the backend makes them: each one measured, tried again where that helps, and gated."""

import time
from collections.abc import Callable
from typing import TypeVar

from holdfast_server.errors import BackendRefused, Cancelled, DeadlineExceeded
from holdfast_server.objects.remote_metrics import BackendMetrics, Outcome
from holdfast_server.objects.retrying import Retrying
from holdfast_server.objects.s3.client import Answer, Download, Request, S3Client, S3Refusal

T = TypeVar("T")


class MeasuredClient:
    """Sends requests once, and counts them by their name."""

    def __init__(self, client: S3Client, metrics: BackendMetrics) -> None:
        self._client = client
        self._metrics = metrics

    def send(self, request: Request) -> Answer:
        """See `S3Client.send`."""
        return self._measured(request, self._client.send)

    def open(self, request: Request) -> Download:
        """See `S3Client.open`; counts the time until the body begins."""
        return self._measured(request, self._client.open)

    def _measured(self, request: Request, act: Callable[[Request], T]) -> T:
        begun = time.perf_counter()
        outcome: Outcome = "failed"
        try:
            result = act(request)
            outcome = "ok"
        except S3Refusal as refusal:
            outcome = "missing" if refusal.is_missing else "conflict" if refusal.is_conflict else "refused"
            raise
        except (BackendRefused, Cancelled, DeadlineExceeded):
            outcome = "refused"
            raise
        finally:
            self._metrics.count(request.name, time.perf_counter() - begun, outcome)
        return result


class Requests:
    """Sends requests through breaker and retries; all of them can be repeated without harm.

    Beside what `S3Client` raises there is the breaker's error while that is open.
    """

    def __init__(self, client: MeasuredClient, retrying: Retrying) -> None:
        self._client = client
        self._retrying = retrying

    def send(self, request: Request) -> Answer:
        """See `S3Client.send`."""
        return self._retrying.call(lambda _attempt: self._client.send(request))

    def open(self, request: Request) -> Download:
        """See `S3Client.open`. What breaks off later is not tried again here."""
        return self._retrying.call(lambda _attempt: self._client.open(request))

    def retry(self, act: Callable[[MeasuredClient], T]) -> T:
        """Have `act` try again whatever it does with the client, as one request."""
        return self._retrying.call(lambda _attempt: act(self._client))
