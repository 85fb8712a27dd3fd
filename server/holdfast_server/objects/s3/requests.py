"""Requests to the store as the backend makes them: each one measured, tried again where that helps, and gated."""

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from holdfast_server.errors import BackendRefused, Reason, Unavailable
from holdfast_server.objects.remote_metrics import BackendMetrics, Outcome
from holdfast_server.objects.retrying import Retrying
from holdfast_server.objects.s3.client import Download, S3Client
from holdfast_server.objects.s3.messages import Answer, Request, S3Refusal, Unexplained, why

T = TypeVar("T")


class MeasuredClient:
    """Sends requests once, and counts them by their name.

    Why a HEAD was refused is asked of the store in a second request, which counts too: no `Unexplained` leaves it.
    """

    def __init__(self, client: S3Client, metrics: BackendMetrics) -> None:
        self._client = client
        self._metrics = metrics

    def send(self, request: Request) -> Answer:
        """See `S3Client.send`."""
        return self._explained(request, self._client.send)

    def open(self, request: Request) -> Download:
        """See `S3Client.open`; counts the time until the body begins."""
        return self._explained(request, self._client.open)

    def ask(
        self,
        name: str,
        method: str,
        path: str = "",
        query: Mapping[str, str] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_seconds: float | None = None,
    ) -> Answer:
        """Send a request that is made here of its parts."""
        return self.send(Request(name, method, path, query or {}, headers or {}, body, timeout_seconds))

    def _explained(self, request: Request, act: Callable[[Request], T]) -> T:
        try:
            return self._measured(request, act)
        except Unexplained:
            self._measured(why(request), self._client.open).close()
            message = "the S3 store says of one thing that it is there and is not"
            raise Unavailable(Reason.BACKEND_UNAVAILABLE, message) from None

    def _measured(self, request: Request, act: Callable[[Request], T]) -> T:
        begun = time.perf_counter()
        outcome: Outcome = "failed"
        try:
            result = act(request)
            outcome = "ok"
        except S3Refusal as refusal:
            outcome = "missing" if refusal.is_missing else "conflict" if refusal.is_conflict else "refused"
            raise
        except BackendRefused:
            outcome = "refused"
            raise
        finally:
            self._metrics.count(request.name, time.perf_counter() - begun, outcome)
        return result


Act = Callable[[MeasuredClient, int], T]
"""What is tried again as one request, with the number of the try, from 0."""


class NotDone(Unavailable):
    """The store refused to do what any store does, and has not done it."""


class Requests:
    """Sends requests through breaker and retries.

    Beside what `S3Client` raises there is the breaker's error while that is open. An `S3Refusal` is for what is
    missing, for a conflict or for a range; any other is `NotDone`.
    """

    def __init__(self, client: MeasuredClient, retrying: Retrying) -> None:
        self._client = client
        self._retrying = retrying

    def send(self, request: Request) -> Answer:
        """Send a request that can be repeated without harm; see `S3Client.send`."""
        return self.retry(lambda client, _number: client.send(request))

    def open(self, request: Request) -> Download:
        """See `S3Client.open`. What breaks off later is not tried again here."""
        return self.retry(lambda client, _number: client.open(request))

    def retry(self, act: Act[T]) -> T:
        """Have `act` try again whatever it does with the client, as one request."""
        try:
            return self._retrying.call(lambda number: act(self._client, number))
        except S3Refusal as refusal:
            if refusal.is_missing or refusal.is_conflict or refusal.is_out_of_range:
                raise
            message = f"the S3 store does not do what was asked of it: {refusal}"
            raise NotDone(Reason.BACKEND_UNAVAILABLE, message) from refusal
