"""The connection to a server."""

from types import TracebackType
from typing import Self

import grpc

from holdfast.blobs import Blobs
from holdfast.calls import Calls
from holdfast.checkpoints import Checkpoints
from holdfast.retrying import (
    DEFAULT_RETRIES,
    DEFAULT_TIMEOUT_SECONDS,
    FIRST_BACKOFF_SECONDS,
    MAX_BACKOFF_SECONDS,
    Retrier,
)
from holdfast.server_info import ServerInfo, server_info
from holdfast.v1 import server_pb2, server_pb2_grpc
from holdfast.watchdog import Watchdog

_CHANNEL_OPTIONS = (
    # A sidecar is called directly, whatever `http_proxy` says about the web.
    ("grpc.enable_http_proxy", 0),
    # Else gRPC refuses every call for a second or more after a failed connect, and further tries would be in vain.
    # (`min_reconnect_backoff_ms` is another thing, the least time for connecting, and stays at its 20 seconds.)
    ("grpc.initial_reconnect_backoff_ms", round(FIRST_BACKOFF_SECONDS / 2 * 1000)),
    ("grpc.max_reconnect_backoff_ms", round(MAX_BACKOFF_SECONDS / 2 * 1000)),
)
"""Message sizes keep gRPC's default of 4 MiB: no message of Holdfast comes near it."""

KEEPALIVE_SECONDS = 20.0
"""A connection that is silent for so long during a call is pinged, and given up if the ping is not answered in as long.

A server lets clients ping every 5 seconds (`rpc.min_ping_seconds`).
"""


def connect(
    address: str, *, timeout: float | None = DEFAULT_TIMEOUT_SECONDS, retries: int = DEFAULT_RETRIES
) -> "Client":
    """Return a client of the server at `address`: `host:port` or `unix:/path`.

    It connects with the first call. `timeout` in seconds (None: no bound) is the longest that an operation may take,
    its tries included; for uploads and downloads, which take as long as their bytes do, the longest that they may stand
    still. `retries` are the tries after the first one of what is safe to repeat. Raises `ValueError` for values that
    make no sense.
    """
    return Client(address, Retrier(retries, timeout))


class Client:
    """A client of one server: a context manager, and safe to use from several threads.

    `blobs` are its blobs, `checkpoints` the checkpoints and snapshots of its rooms.
    """

    def __init__(self, address: str, retrier: Retrier, *, keepalive_seconds: float = KEEPALIVE_SECONDS) -> None:
        if not address:
            raise ValueError("the address is empty: give host:port or unix:/path")
        self.address = address
        self._calls = Calls(address, retrier, Watchdog(retrier.timeout_seconds))
        self._channel = grpc.insecure_channel(address, options=(*_CHANNEL_OPTIONS, *_keepalive(keepalive_seconds)))
        self._server = server_pb2_grpc.ServerStub(self._channel)
        self.blobs = Blobs(self._channel, self._calls)
        self.checkpoints = Checkpoints(self._channel, self._calls)

    def server_info(self) -> ServerInfo:
        """Return what the server is and what it can do. Raises `Unavailable`, `Overloaded`, `DeadlineExceeded`."""
        request = server_pb2.GetServerInfoRequest()
        return server_info(self._calls.unary(self._server.GetServerInfo, request))

    def close(self) -> None:
        """Close the connection; calls at work are cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _keepalive(seconds: float) -> tuple[tuple[str, int], ...]:
    milliseconds = round(seconds * 1000)
    return (
        ("grpc.keepalive_time_ms", milliseconds),
        ("grpc.keepalive_timeout_ms", milliseconds),
        # Of a connection that is quiet anyway, such as a watch's, it is this that counts, and a minute unless it is
        # given; and after two pings without data there would be but one a minute.
        ("grpc.http2.ping_timeout_ms", milliseconds),
        ("grpc.http2.max_pings_without_data", 0),
    )
