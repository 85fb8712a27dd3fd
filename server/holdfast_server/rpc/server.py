"""The gRPC server: its options, its listeners, its health, and how it stops."""

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from prometheus_client import CollectorRegistry, Gauge

from holdfast_server.rpc.admission import Admission
from holdfast_server.rpc.handlers import CallMetrics, LogCall, guarded, log_call
from holdfast_server.rpc.stalls import Stalls

MAX_MESSAGE_BYTES = 4 << 20
"""gRPC's own default for what a server takes. Above our largest chunk, so a larger one is refused by name."""

_RESERVE_THREADS = 16
"""Threads beyond the admitted calls: they refuse the rest at once instead of letting it wait."""

_QUEUED_CALLS = 1024
"""Calls that gRPC itself lets wait for a reserve thread; beyond, it refuses without any details."""

_STOP_SECONDS = 0.2
_STUCK_SECONDS = 2.0
"""How long a call that was cut off may take to notice: every wait looks within a second."""

_REFLECTION_THREADS = 8
_SECONDS_IN_MS = 1000
_UNIX_SOCKET_UMASK = 0o177
_MAX_UNIX_PATH_BYTES = 107
"""Of `sockaddr_un` in Linux's un.h, whose last byte is a zero."""

_log = logging.getLogger(__name__)

Register = Callable[[grpc.Server], None]


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How the server takes calls.

    `listen`: addresses as `host:port` (port 0 picks a free one) or `unix:/path`. `max_concurrent_calls`: beyond it
    calls are OVERLOADED. `keepalive_seconds`: a silent connection is pinged after it; `min_ping_seconds`: clients may
    ping no more often. `stall_timeout_seconds`: calls whose peers do nothing for so long are ended; 0: never.
    `window_bytes`: how much of an upload may be on its way beyond what was asked for; more is for remote clients: a
    stream gets at most a window for each round trip.
    """

    listen: tuple[str, ...] = ("127.0.0.1:4653",)
    max_concurrent_calls: int = 240
    keepalive_seconds: float = 60.0
    keepalive_timeout_seconds: float = 20.0
    min_ping_seconds: float = 5.0
    stall_timeout_seconds: float = 300.0
    window_bytes: int = 512 << 10


class BindError(Exception):
    """An address could not be listened on."""


class _Registrar:
    """Stands in for `grpc.Server` where generated code registers handlers, and wraps each of them."""

    def __init__(self, server: grpc.Server, wrap: "Callable[[Any, str], Any]") -> None:
        self._server = server
        self._wrap = wrap

    def add_generic_rpc_handlers(self, _handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Pass over them: generated code gives the same handlers by name, too."""

    def add_registered_method_handlers(self, service: str, handlers: "Mapping[str, Any]") -> None:
        wrapped = {name: self._wrap(handler, f"/{service}/{name}") for name, handler in handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, wrapped),))
        self._server.add_registered_method_handlers(service, wrapped)


class RpcServer:
    """A running gRPC server. `services` are full names with what registers each.

    Raises `BindError` if an address cannot be listened on.
    """

    def __init__(
        self,
        options: ServerOptions,
        services: Mapping[str, Register],
        registry: CollectorRegistry,
        *,
        log: LogCall = log_call,
    ) -> None:
        self.admission = Admission(options.max_concurrent_calls)
        metrics = CallMetrics(registry, self.admission)
        threads = options.max_concurrent_calls + _RESERVE_THREADS
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="call")
        self._server = grpc.server(
            self._pool,
            options=tuple(channel_options(options).items()),
            maximum_concurrent_rpcs=threads + _QUEUED_CALLS,
        )
        self._stalls = Stalls(options.stall_timeout_seconds, registry)

        def wrap(handler: Any, path: str) -> Any:
            return guarded(handler, path, metrics, self.admission, stalls=self._stalls, log=log)

        registrar = _Registrar(self._server, wrap)
        for register in services.values():
            register(cast("grpc.Server", registrar))
        # Health and reflection have threads of their own: a probe must not wait behind a full pool, and strangers who
        # leave their reflection open must not fill it.
        self._health = health.HealthServicer(
            experimental_non_blocking=True, experimental_thread_pool=ThreadPoolExecutor(2, thread_name_prefix="health")
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._lock = threading.Lock()
        self._serving = dict.fromkeys(services, False)
        self._withheld: set[str] = set()
        self._is_stopping = False
        self._is_serving = Gauge(
            "holdfast_service_serving",
            "1: the service is SERVING, as its health says. 0: NOT_SERVING.",
            ("service",),
            registry=registry,
        )
        self._announce()
        names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(  # type: ignore[no-untyped-call]
            reflection.ReflectionServicer(names), cast("grpc.Server", _Registrar(self._server, _with_own_threads))
        )
        self.addresses = tuple(_listen(self._server, address) for address in options.listen)
        """What is listened on, with the ports that were picked."""
        self._server.start()

    @property
    def is_ready(self) -> bool:
        """Whether every service is SERVING that is not withheld."""
        return not self._is_stopping and self._all_serving()

    def announce(self, names: Iterable[str], *, serving: bool) -> None:
        """Say of these services whether they are SERVING. The server as a whole is where all of them are."""
        with self._lock:
            self._serving |= dict.fromkeys(names, serving)
            self._announce()

    def withhold(self, name: str, *, withheld: bool) -> None:
        """Say of a service whether it is not SERVING for a reason of its own: the server as a whole is without it."""
        with self._lock:
            (self._withheld.add if withheld else self._withheld.discard)(name)
            self._announce()

    def announce_shutdown(self) -> None:
        """Say NOT_SERVING for every service, for good; calls are still taken."""
        with self._lock:
            self._is_stopping = True
            self._announce()
        self._health.enter_graceful_shutdown()

    def drain(self, seconds: float) -> bool:
        """Refuse new calls with DRAINING, and wait for those at work; tells whether all of them finished in time."""
        self.admission.close()
        return self.admission.wait_until_idle(seconds)

    def _announce(self) -> None:
        status = health_pb2.HealthCheckResponse
        self._health.set("", status.SERVING if self.is_ready else status.NOT_SERVING)
        for name, serving in self._serving.items():
            serves = serving and name not in self._withheld and not self._is_stopping
            self._health.set(name, status.SERVING if serves else status.NOT_SERVING)
            self._is_serving.labels(name).set(serves)

    def _all_serving(self) -> bool:
        return all(serving for name, serving in self._serving.items() if name not in self._withheld)

    def stop(self) -> bool:
        """Cut off what is left, and stop; tells whether no call is at work any more."""
        self.admission.close()
        self._server.stop(grace=_STOP_SECONDS).wait()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._stalls.close()
        return self.admission.wait_until_idle(_STUCK_SECONDS)


class _OwnThreads:
    """A handler's behavior that gRPC runs in a pool of its own."""

    def __init__(self, behavior: Callable[..., Any]) -> None:
        self._behavior = behavior
        self.experimental_thread_pool = ThreadPoolExecutor(_REFLECTION_THREADS, thread_name_prefix="reflection")

    def __call__(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._behavior(request, context)


def _with_own_threads(handler: Any, _path: str) -> Any:
    return handler._replace(stream_stream=_OwnThreads(handler.stream_stream))


def channel_options(options: ServerOptions) -> dict[str, int]:
    """Return what the options mean to gRPC."""
    return {
        # On by default, and then two servers share one port in silence.
        "grpc.so_reuseport": 0,
        "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
        "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
        "grpc.keepalive_time_ms": round(options.keepalive_seconds * _SECONDS_IN_MS),
        "grpc.keepalive_timeout_ms": round(options.keepalive_timeout_seconds * _SECONDS_IN_MS),
        # Of a connection that is quiet anyway it is this that counts, and a minute unless it is given.
        "grpc.http2.ping_timeout_ms": round(options.keepalive_timeout_seconds * _SECONDS_IN_MS),
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.min_ping_interval_without_data_ms": round(options.min_ping_seconds * _SECONDS_IN_MS),
        # gRPC's own estimate of the window took 200 to 590 MiB for 8 uploads on one connection, and this takes 54.
        "grpc.http2.bdp_probe": 0,
        "grpc.http2.lookahead_bytes": options.window_bytes,
    }


def _listen(server: grpc.Server, address: str) -> str:
    # gRPC makes a socket file with the process's umask: nobody but the owner may call by default.
    is_unix = address.startswith("unix:")
    if is_unix and _answers(address.removeprefix("unix:")):
        raise BindError(f"cannot listen on {address}: a server is listening there")
    if is_unix and (obstacle := _obstacle(address.removeprefix("unix:"))):
        raise BindError(f"cannot listen on {address}: {obstacle}")
    umask = os.umask(_UNIX_SOCKET_UMASK) if is_unix else None
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    finally:
        if umask is not None:
            os.umask(umask)
    if port == 0:
        raise BindError(f"cannot listen on {address}: it is in use, not allowed, or not an address of this machine")
    return address if is_unix else f"{address.rpartition(':')[0]}:{port}"


def _obstacle(path: str) -> str:
    """Return why a Unix socket cannot be made there, as far as that can be told: gRPC says it to nobody but the log."""
    if len(os.fsencode(path)) > _MAX_UNIX_PATH_BYTES:
        return f"its path has more than {_MAX_UNIX_PATH_BYTES} bytes"
    directory = os.path.dirname(path) or "."  # noqa: PTH120 (a Path would make `unix:s` and `unix:./s` one)
    try:
        os.stat(f"{directory}/")  # noqa: PTH116 (a Path would take off the slash, which asks for a directory)
    except OSError as error:
        return f"{directory}: {error.strerror}"
    return "" if os.access(directory, os.W_OK | os.X_OK) else f"{directory} cannot be written"


def _answers(path: str) -> bool:
    """Tell whether somebody listens on a Unix socket: gRPC would take it from them in silence."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
        return True
