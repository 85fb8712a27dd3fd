"""Puts the parts together: this is the house, from the bottom up."""

import ipaddress
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue

from prometheus_client import CollectorRegistry, Gauge, PlatformCollector, ProcessCollector, disable_created_metrics

from holdfast.v1 import blob_store_pb2_grpc, server_pb2, server_pb2_grpc
from holdfast_server import __version__, logs
from holdfast_server.blobs.service import SERVICE_NAME as BLOB_STORE
from holdfast_server.blobs.service import BlobStoreService
from holdfast_server.blobs.store import MAX_PAGE_SIZE, BlobStore
from holdfast_server.config import Settings, split_address
from holdfast_server.data_directory import DataDirectory, DataDirectoryError, open_data_directory
from holdfast_server.objects.base import Description, ObjectStore
from holdfast_server.objects.body import PIECE_BYTES
from holdfast_server.objects.info import MAX_METADATA_BYTES
from holdfast_server.objects.key import MAX_KEY_BYTES, MAX_SEGMENT_BYTES
from holdfast_server.objects.measured import MeasuredStore, ObjectMetrics
from holdfast_server.objects.registry import BACKENDS, BackendOptions
from holdfast_server.rpc.allocator import AllocatorOptions, tune
from holdfast_server.rpc.handlers import CALL_FINISHED, LogCall, access_log
from holdfast_server.rpc.probes import Probes
from holdfast_server.rpc.server import BindError, Register, RpcServer, ServerOptions
from holdfast_server.rpc.uploads import MAX_CHUNK_BYTES
from holdfast_server.server_info.service import SERVICE_NAME as SERVER
from holdfast_server.server_info.service import ServerInfoService

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class App:
    """A running server: where it listens, and its parts."""

    rpc: RpcServer
    probes: Probes | None

    @property
    def addresses(self) -> tuple[str, ...]:
        """The gRPC addresses, with the ports that were picked."""
        return self.rpc.addresses


@contextmanager
def running(settings: Settings) -> Iterator[App]:
    """Run a server within the block. Raises `DataDirectoryError`, `BindError`."""
    with ExitStack() as stack:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # else each series has a second one: when it was new
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        Gauge("holdfast_build_info", "Constant 1.", ("version",), registry=registry).labels(__version__).set(1)

        directory = open_data_directory(settings.data_dir) if settings.data_dir else None
        stores = _Stores(settings, directory, ObjectMetrics(registry), stack)
        services: dict[str, Register] = {}
        descriptions: dict[str, Description] = {}

        if settings.blob_store.enabled:
            objects = stores.open(settings.backend_of(settings.blob_store.backend))
            blobs = BlobStore(objects, max_blob_bytes=settings.blob_store.max_blob_bytes)
            services[BLOB_STORE] = partial(blob_store_pb2_grpc.add_BlobStoreServicer_to_server, BlobStoreService(blobs))
            descriptions[BLOB_STORE] = blobs.describe()

        info = ServerInfoService(__version__, _limits(settings), descriptions)
        services[SERVER] = partial(server_pb2_grpc.add_ServerServicer_to_server, info)

        rpc = RpcServer(_server_options(settings), services, registry, log=_log_call(settings))
        try:
            probes = _probes(settings, registry, rpc)
            if probes is not None:
                stack.callback(probes.close)
            rpc.announce_ready()
            _log_start(settings, rpc, probes, descriptions)
            yield App(rpc, probes)
        finally:
            if not rpc.stop():
                # A call hangs in the kernel, and may wake up: what it holds must stay open until the process ends.
                stack.pop_all()


def serve(settings: Settings) -> int:
    """Run a server until SIGTERM or SIGINT, and return the exit code.

    The first signal drains: NOT_SERVING first, then no new calls, then those at work finish. A second stops at once.
    """
    if settings.allocator.tune:
        options = settings.allocator
        tune(AllocatorOptions(options.mmap_threshold, options.trim_threshold, options.top_pad, options.arenas))
    # A queue, since its `put` may come in the middle of anything; a handler that takes a lock or logs may not.
    signals: SimpleQueue[int] = SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: signals.put(number))
    with running(settings) as app:
        _await_signal(signals)
        hurry = threading.Event()

        def second() -> None:
            _await_signal(signals)
            hurry.set()

        threading.Thread(target=second, name="second signal", daemon=True).start()
        finished = _drain(app.rpc, settings, hurry)
    _log.info("Server stopped", extra={"fields": {"all_calls_finished": finished}})
    if app.rpc.admission.at_work:
        logging.shutdown()
        os._exit(0)  # an ordinary exit would wait for the threads of calls that hang
    return 0


def _await_signal(signals: "SimpleQueue[int]") -> None:
    number = signals.get()
    _log.info("Signal received", extra={"fields": {"signal": signal.Signals(number).name}})


def _drain(rpc: RpcServer, settings: Settings, hurry: threading.Event) -> bool:
    rpc.announce_shutdown()
    _log.info("Draining", extra={"fields": {"calls_at_work": rpc.admission.at_work, "seconds": settings.drain_seconds}})
    hurry.wait(settings.drain_notice_seconds)
    finished = threading.Event()

    def drain() -> None:
        if rpc.drain(settings.drain_seconds):
            finished.set()
        hurry.set()

    threading.Thread(target=drain, name="drain", daemon=True).start()
    hurry.wait()
    return finished.is_set()


class _Stores:
    """The object stores that are open: one for each backend in use, measured outermost."""

    def __init__(
        self, settings: Settings, directory: DataDirectory | None, metrics: ObjectMetrics, stack: ExitStack
    ) -> None:
        self._options = BackendOptions(
            memory_max_bytes=settings.memory.max_bytes,
            lock_timeout_seconds=settings.filesystem.lock_timeout_seconds,
            objects_dir=None if directory is None else directory.objects,
            store_id="" if directory is None else directory.store_id,
        )
        self._metrics = metrics
        self._stack = stack
        self._open: dict[str, ObjectStore] = {}

    def open(self, backend: str) -> ObjectStore:
        if backend not in self._open:
            # Outermost: measure what callers wait for.
            try:
                store = MeasuredStore(BACKENDS[backend](self._options), self._metrics)
            except OSError as error:
                raise DataDirectoryError(f"the {backend} backend cannot be opened: {error.strerror}") from error
            self._stack.callback(store.close)
            self._open[backend] = store
        return self._open[backend]


def _log_call(settings: Settings) -> LogCall:
    if settings.log_level in ("debug", "info"):
        return logs.line_writer(CALL_FINISHED, access_log.name, settings.log_format)
    return lambda _fields: None


def _server_options(settings: Settings) -> ServerOptions:
    return ServerOptions(
        listen=settings.listen,
        max_concurrent_calls=settings.rpc.max_concurrent_calls,
        keepalive_seconds=settings.rpc.keepalive_seconds,
        keepalive_timeout_seconds=settings.rpc.keepalive_timeout_seconds,
        min_ping_seconds=settings.rpc.min_ping_seconds,
        window_bytes=settings.rpc.window_bytes,
    )


def _limits(settings: Settings) -> server_pb2.ServerLimits:
    return server_pb2.ServerLimits(
        max_blob_bytes=settings.blob_store.max_blob_bytes,
        max_chunk_bytes=MAX_CHUNK_BYTES,
        download_chunk_bytes=PIECE_BYTES,
        max_key_bytes=MAX_KEY_BYTES,
        max_key_segment_bytes=MAX_SEGMENT_BYTES,
        max_metadata_bytes=MAX_METADATA_BYTES,
        max_page_size=MAX_PAGE_SIZE,
        max_concurrent_calls=settings.rpc.max_concurrent_calls,
    )


def _probes(settings: Settings, registry: CollectorRegistry, rpc: RpcServer) -> Probes | None:
    if not settings.http:
        return None
    host, port = split_address(settings.http)
    try:
        return Probes(host, port, registry, lambda: rpc.is_ready)
    except OSError as error:
        raise BindError(f"cannot listen on {settings.http} for HTTP: {error.strerror}") from None


def _log_start(settings: Settings, rpc: RpcServer, probes: Probes | None, descriptions: dict[str, Description]) -> None:
    _log.info("Settings in force", extra={"fields": settings.model_dump(mode="json", exclude_none=True)})
    for name, description in descriptions.items():
        if description.name == "memory":
            _log.warning("Nothing in memory survives this process", extra={"fields": {"service": name}})
    http = "" if probes is None else f"{settings.http.rpartition(':')[0]}:{probes.port}"
    for address in (*rpc.addresses, *filter(None, [http])):
        if not _is_local(address):
            _log.warning("Listening beyond this machine, without authentication", extra={"fields": {"at": address}})
    fields = {
        "version": __version__,
        "python": sys.version.split()[0],
        "grpc": ",".join(rpc.addresses),
        "http": http,
    }
    _log.info("Server ready", extra={"fields": fields})


def _is_local(address: str) -> bool:
    if address.startswith("unix:"):
        return True
    host, _ = split_address(address)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
