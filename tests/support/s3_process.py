"""A server process whose bucket lies behind a fault proxy, and what it tells of its health."""

import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import grpc
from grpc_health.v1 import health_pb2

from tests.support.fault_proxy import FaultProxy
from tests.support.raw_blobs import stub_of
from tests.support.s3_servers import S3Server
from tests.support.s3_stores import fresh_bucket, s3_environment
from tests.support.server_process import ServerProcess

WAITING = r"Server waiting for its backend .*grpc=(\S+) http=(\S+)"
"""The log line of a start without a backend."""

_TIMEOUT_SECONDS = 60


def _leave(_proxy: FaultProxy) -> None:
    pass


class FaultyProcess:
    """A server on a bucket of its own, with `settings` of the section `s3`. A context manager.

    `spoil` is done to the proxy before the server starts; `ready` is the log line to wait for.
    """

    def __init__(
        self,
        s3: S3Server,
        *,
        spoil: Callable[[FaultProxy], None] = _leave,
        ready: str = "Server ready .*grpc=(\\S+) http=(\\S+)",
        **settings: object,
    ) -> None:
        self.bucket = fresh_bucket()
        with ExitStack() as undo:
            self.proxy = undo.enter_context(FaultProxy(s3.endpoint))
            spoil(self.proxy)
            env = s3_environment(s3, self.bucket, endpoint=f"http://{self.proxy.endpoint}", **settings)
            self.server = undo.enter_context(ServerProcess(env=env, ready=ready))
            self.channel = undo.enter_context(grpc.insecure_channel(self.server.address))
            self.stub = stub_of(self.channel)
            self._undo = undo.pop_all()

    def is_serving(self, service: str = "BlobStore") -> bool:
        """Ask the health service for one of ours; empty for all."""
        check = self.channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )
        request = health_pb2.HealthCheckRequest(service=service and f"holdfast.v1.{service}")
        status: int = check(request, timeout=_TIMEOUT_SECONDS).status
        return status == health_pb2.HealthCheckResponse.SERVING

    def is_ready(self) -> bool:
        """Ask `/readyz`."""
        return self._answers("/readyz")

    def is_alive(self) -> bool:
        """Ask `/healthz`."""
        return self._answers("/healthz")

    def _answers(self, path: str) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.server.http}{path}", timeout=_TIMEOUT_SECONDS):
                return True
        except urllib.error.HTTPError as error:
            with error:
                return False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()
