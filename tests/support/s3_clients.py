"""Clients of the S3 backend for tests of that file alone, and what to ask them."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import pytest
from prometheus_client import CollectorRegistry

from holdfast_server.errors import HoldfastError, Reason, Unavailable
from holdfast_server.objects.remote_metrics import RemoteMetrics
from holdfast_server.objects.s3.client import S3Client
from holdfast_server.objects.s3.messages import Request, S3Refusal
from holdfast_server.objects.s3.options import S3Options
from holdfast_server.objects.s3.requests import MeasuredClient

SECRET = "hunter2-secret"
TOKEN = "hunter2-token"

GET = Request("get", "GET", "key")
HEAD = Request("head", "HEAD", "key")
PUT = Request("put", "PUT", "key", body=b"body")
COMPLETE = Request("complete_upload", "POST", "key", {"uploadId": "1"}, body=b"<CompleteMultipartUpload/>")
HEAD_BUCKET = Request("head_bucket", "HEAD")

Connect = Callable[..., S3Client]
"""Makes a client of an endpoint; further arguments are options."""


@contextmanager
def connecting() -> Iterator[Connect]:
    """Yield what makes clients, which are closed at the end of the block."""
    with ExitStack() as stack:

        def connect(endpoint: str, **changes: object) -> S3Client:
            options = S3Options(endpoint, "bucket", "AKID", SECRET, TOKEN, secure=False)
            client = S3Client(replace(options, **changes))  # type: ignore[arg-type]
            stack.callback(client.close)
            return client

        yield connect


def measured(client: S3Client) -> MeasuredClient:
    """Return what the backend asks, and what asks the client why a HEAD was refused."""
    return MeasuredClient(client, RemoteMetrics(CollectorRegistry()).of_backend("s3"))


def failure(client: S3Client | MeasuredClient, request: Request) -> Exception:
    """Return what sending a request raises."""
    with pytest.raises((HoldfastError, S3Refusal)) as raised:
        client.send(request)
    return raised.value


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Check that the block takes no longer."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < seconds


@dataclass(frozen=True)
class Meaning:
    """What an answer becomes."""

    kind: type[Exception]
    reason: Reason | None = None
    is_missing: bool = False
    is_conflict: bool = False

    def check(self, error: Exception) -> None:
        """Check that an error is that."""
        assert isinstance(error, self.kind)
        if isinstance(error, S3Refusal):
            assert (error.is_missing, error.is_conflict) == (self.is_missing, self.is_conflict)
        else:
            assert isinstance(error, HoldfastError)
            assert error.reason == self.reason


AWAY = Meaning(Unavailable, Reason.BACKEND_UNAVAILABLE)
