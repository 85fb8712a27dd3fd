"""`S3Store`s on the test servers, opened and emptied."""

import threading
import uuid
from dataclasses import replace
from typing import Self

from prometheus_client import CollectorRegistry

from holdfast_server.errors import HoldfastError
from holdfast_server.objects.remote_metrics import RemoteMetrics
from holdfast_server.objects.retrying import DEFAULT_POLICY, RetryPolicy
from holdfast_server.objects.s3 import S3Options
from holdfast_server.objects.s3.store import S3Store
from holdfast_server.objects.spool import Spool
from tests.support.s3_servers import S3Server

_READY_SECONDS = 30
PART_BYTES = 5 << 20
"""S3's smallest, so that tests meet uploads in parts early."""


def options_for(server: S3Server, bucket: str, **changes: object) -> S3Options:
    """Return the options of a bucket on a server, made by the store if it is missing."""
    options = S3Options(
        endpoint=server.endpoint,
        bucket=bucket,
        access_key=server.access_key,
        secret_key=server.secret_key,
        secure=False,
        create_bucket=True,
        part_bytes=PART_BYTES,
    )
    return replace(options, **changes)  # type: ignore[arg-type]


def s3_environment(server: S3Server, bucket: str = "", **changes: object) -> dict[str, str]:
    """Return the variables for a Holdfast server on a bucket, of its own if none is named; `changes` are settings."""
    settings: dict[str, object] = {
        "endpoint": f"http://{server.endpoint}",
        "bucket": bucket or fresh_bucket(),
        "access_key": server.access_key,
        "secret_key": server.secret_key,
        "create_bucket": "true",
        "part_bytes": PART_BYTES,
    }
    return {f"HOLDFAST_S3__{name.upper()}": str(value) for name, value in (settings | changes).items()}


def fresh_bucket() -> str:
    """Return a name that no bucket has."""
    return f"test-{uuid.uuid4().hex}"


class OpenedStore:
    """An `S3Store` on a bucket (without one: its own), ready to be used. A context manager, or to be closed."""

    def __init__(
        self,
        server: S3Server,
        *,
        bucket: str = "",
        spool: Spool | None = None,
        policy: RetryPolicy = DEFAULT_POLICY,
        **changes: object,
    ) -> None:
        self.server = server
        self.bucket = bucket or fresh_bucket()
        self.registry = CollectorRegistry()
        self.metrics = RemoteMetrics(self.registry).of_backend("s3")
        self.options = options_for(server, self.bucket, **changes)
        self.store = S3Store(self.options, spool or Spool(), self.metrics, policy)
        self._usable = threading.Event()
        self._error: HoldfastError | None = None
        self.store.start(self._listen)
        if not self._usable.wait(_READY_SECONDS):
            self.store.close()
            raise RuntimeError(f"the store did not become ready: {self._error}")

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listen(self, error: HoldfastError | None) -> None:
        self._error = error
        if error is None:
            self._usable.set()

    def empty(self) -> None:
        """Delete all objects, those too that show in lists when those above them are gone."""
        while list(self.server.client().list_objects(self.bucket, recursive=True)):
            self.server.empty_bucket(self.bucket)
