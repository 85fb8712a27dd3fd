"""An `S3Store` behind a fault proxy, and what shows that its operations leave nothing behind."""

import math
import threading
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from holdfast_server.objects.retrying import RetryPolicy, _Budget
from holdfast_server.objects.s3.client import S3Client
from holdfast_server.objects.s3.messages import Request
from holdfast_server.objects.spool import Spool
from tests.support.fault_proxy import FaultProxy, Seen
from tests.support.s3_servers import S3Server
from tests.support.s3_stores import OpenedStore
from tests.support.waiting import wait_until

TWO_ATTEMPTS = RetryPolicy(attempts=2, first_seconds=0.002, most_seconds=0.01)
"""One failure passes, two are seen; and what one operation can fail does not open the breaker."""

_SETTLE_SECONDS = 60
_WORKERS = ("upload", "sha256")


class FaultyStore:
    """`store` reaches its bucket through `proxy`; `direct` is another store on it, to which nothing happens.

    `silence_seconds`: the read time-out of requests that are about to meet a fault, where it is shorter than that of
    the others. So a silence ends soon, and a server that stands still for a while is not taken for a silent one. A
    context manager.
    """

    def __init__(
        self,
        server: S3Server,
        *,
        policy: RetryPolicy = TWO_ATTEMPTS,
        silence_seconds: float = math.inf,
        **changes: object,
    ) -> None:
        self.server = server
        self.spool = Spool()
        with ExitStack() as undo:
            self.proxy = undo.enter_context(FaultProxy(server.endpoint))
            opened = undo.enter_context(OpenedStore(server))
            through = undo.enter_context(
                OpenedStore(
                    server,
                    bucket=opened.bucket,
                    endpoint=self.proxy.endpoint,
                    spool=self.spool,
                    policy=policy,
                    **changes,
                )
            )
            self.bucket = opened.bucket
            self.direct = opened.store
            self.store = through.store
            self._shorten_silences(self.store._client, silence_seconds)
            self._undo = undo.pop_all()

    def _shorten_silences(self, client: S3Client, seconds: float) -> None:
        usual = client._timeout

        def timeout(request: Request) -> Any:
            seen = Seen(request.method, f"/{self.bucket}/{request.key}", dict(request.query), {})
            found = usual(request)
            return replace(found, read=min(found.read, seconds)) if self.proxy.will_meet(seen) else found

        if seconds < math.inf:
            client._timeout = timeout  # type: ignore[method-assign]

    def rest(self) -> None:
        """Heal the proxy, and have the store forget what went wrong, and afford all retries again."""
        self.proxy.heal()
        wait_until(lambda: self.store.describe().not_ready is None, _SETTLE_SECONDS)
        self.store._breaker.succeeded()
        self.store._requests._retrying._budget = _Budget()

    @property
    def requests(self) -> list[Seen]:
        """The requests that came by: the very list, for a copy of thousands takes longer than most operations."""
        return self.proxy._plan._requests

    def uploads(self, key: str) -> int:
        """Return how many uploads in parts were begun under a key, and neither completed nor aborted."""
        return uploads(self.server, self.bucket, key)

    def check_settled(self) -> None:
        """Check that no room, thread or connection is held by an operation that is over."""
        assert self.spool.used_bytes == 0
        workers = [thread.name for thread in threading.enumerate() if thread.name.startswith(_WORKERS)]
        assert workers == [], workers
        self.wait_for_connections()

    def wait_for_connections(self) -> None:
        """Wait until the proxy has seen that the store has hung up, so that it passes nothing on that was given up."""
        self.proxy.accept_all()
        wait_until(lambda: self.proxy.open_connections <= self._idle_connections(), _SETTLE_SECONDS)

    def _idle_connections(self) -> int:
        pools: Any = self.store._client._pool.pools
        kept = [connection for key in pools.keys() for connection in pools[key].pool.queue]  # noqa: SIM118 (no dict)
        return len([connection for connection in kept if connection is not None and connection.sock is not None])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()


def uploads(server: S3Server, bucket: str, key: str) -> int:
    """Return how many uploads in parts were begun under a key, and neither completed nor aborted."""
    # By its whole name: MinIO does not tell of uploads below a prefix.
    listed: Any = server.client()._list_multipart_uploads(bucket, prefix=key)
    return len([upload for upload in listed.uploads if upload.object_name == key])


def is_callers(request: Seen) -> bool:
    """Tell whether a request is of an operation, and not of the threads that look after the bucket."""
    is_sweep = request.method == "GET" and "uploads" in request.query
    is_check = request.method == "HEAD" and "/" not in request.path.strip("/")
    return not is_sweep and not is_check
