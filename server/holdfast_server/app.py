"""Puts the parts together: this is the house, from the bottom up."""

import ipaddress
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

from prometheus_client import CollectorRegistry, Gauge, PlatformCollector, ProcessCollector, disable_created_metrics

from holdfast.v1 import blob_store_pb2_grpc, checkpoint_store_pb2_grpc, server_pb2, server_pb2_grpc
from holdfast_server import __version__, logs
from holdfast_server.blobs.batches import MAX_BATCH_BYTES, MAX_BATCH_ITEMS, MAX_FIND_ITEMS, Batches
from holdfast_server.blobs.service import SERVICE_NAME as BLOB_STORE
from holdfast_server.blobs.service import BlobStoreService
from holdfast_server.blobs.store import BlobStore
from holdfast_server.checkpoint_assembly import CheckpointParts
from holdfast_server.checkpoints.names import MAX_ROOM_ID_BYTES, SNAPSHOTS
from holdfast_server.checkpoints.service import SERVICE_NAME as CHECKPOINT_STORE
from holdfast_server.checkpoints.watching import MAX_WATCHED_ROOMS
from holdfast_server.config import Settings, split_address
from holdfast_server.data_directory import DataDirectory, DataDirectoryError, open_data_directory
from holdfast_server.errors import HoldfastError, Reason, Unavailable
from holdfast_server.objects.base import Description, ObjectStore
from holdfast_server.objects.body import PIECE_BYTES
from holdfast_server.objects.info import MAX_METADATA_BYTES
from holdfast_server.objects.key import MAX_KEY_BYTES, MAX_SEGMENT_BYTES
from holdfast_server.objects.measured import MeasuredStore, ObjectMetrics
from holdfast_server.objects.registry import BACKENDS, BackendOptions, not_opened
from holdfast_server.objects.remote_metrics import RemoteMetrics
from holdfast_server.objects.s3 import S3Options
from holdfast_server.objects.spool import Spool, SpooledFile
from holdfast_server.pages import MAX_PAGE_SIZE
from holdfast_server.rpc.allocator import AllocatorOptions, tune
from holdfast_server.rpc.handlers import CALL_FINISHED, LogCall, access_log
from holdfast_server.rpc.probes import Probes
from holdfast_server.rpc.server import BindError, Register, RpcServer, ServerOptions
from holdfast_server.rpc.uploads import MAX_CHUNK_BYTES
from holdfast_server.server_info.service import SERVICE_NAME as SERVER
from holdfast_server.server_info.service import ServerInfoService
from holdfast_server.workers import Workers

_log = logging.getLogger(__name__)

_ENDING = frozenset({signal.SIGTERM, signal.SIGINT})
"""The signals that end a server."""


@dataclass(frozen=True)
class App:
    """A running server: where it listens, and its parts."""

    rpc: RpcServer
    probes: Probes | None
    end_watches: Callable[[], None]
    """Ends the calls that would last for ever."""

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
        stores = _Stores(settings, directory, registry, stack)
        services: dict[str, Register] = {}
        workers = Workers()
        stack.callback(workers.close)

        if settings.blob_store.enabled:
            objects = stores.open_for(BLOB_STORE, settings.backend_of(settings.blob_store.backend))
            blobs = BlobStore(objects, max_blob_bytes=settings.blob_store.max_blob_bytes)
            service = BlobStoreService(blobs, Batches(blobs, workers))
            services[BLOB_STORE] = partial(blob_store_pb2_grpc.add_BlobStoreServicer_to_server, service)

        checkpoints = None
        if settings.checkpoint_store.enabled:
            objects = stores.open_for(CHECKPOINT_STORE, settings.backend_of(settings.checkpoint_store.backend))
            with _looks_at(settings):  # whether there are checkpoints already
                checkpoints = CheckpointParts(settings, objects, _LateSpool(stores.spool), workers, registry)
            stack.callback(checkpoints.close)
            services[CHECKPOINT_STORE] = partial(
                checkpoint_store_pb2_grpc.add_CheckpointStoreServicer_to_server, checkpoints.service
            )
            stores.descriptions[CHECKPOINT_STORE] = checkpoints.describe

        info = ServerInfoService(__version__, _limits(settings), stores.descriptions)
        services[SERVER] = partial(server_pb2_grpc.add_ServerServicer_to_server, info)

        rpc = RpcServer(_server_options(settings), services, registry, log=_log_call(settings))
        try:
            probes = _probes(settings, registry, rpc)
            if probes is not None:
                stack.callback(probes.close)
            _log_settings(settings, stores.descriptions)
            readiness = _Readiness(rpc, _addresses(settings, rpc, probes))
            rpc.announce([SERVER], serving=True)
            if checkpoints is not None:
                checkpoints.start(lambda withheld: rpc.withhold(CHECKPOINT_STORE, withheld=withheld))

            def tell(names: Sequence[str], error: HoldfastError | None) -> None:
                if checkpoints is not None:
                    checkpoints.look()  # before it is said that all is well: it may ask more of a backend
                readiness.tell(names, error)

            stores.start(tell)
            readiness.begin()
            yield App(rpc, probes, _nothing if checkpoints is None else checkpoints.end_watches)
        finally:
            if not rpc.stop():
                # A call hangs in the kernel, and may wake up: what it holds must stay open until the process ends.
                stack.pop_all()


@contextmanager
def _looks_at(settings: Settings) -> Iterator[None]:
    """Raise what a store says that cannot be read, while there is no caller to be told, as what a start ends with."""
    try:
        yield
    except HoldfastError as error:
        raise DataDirectoryError(f"data directory {settings.data_dir} cannot be used: {error.message}") from error


def serve(settings: Settings) -> int:
    """Run a server until SIGTERM or SIGINT, and return the exit code.

    The first signal drains: NOT_SERVING first, then no new calls, then those at work finish. A second stops at once.
    """
    # Blocked in every thread from here on, they stay pending until they are waited for. A handler would be run by the
    # main thread between two steps of Python, and not when it comes in the moment before that thread begins to wait.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    if settings.allocator.tune:
        options = settings.allocator
        tune(AllocatorOptions(options.mmap_threshold, options.trim_threshold, options.top_pad, options.arenas))
    with running(settings) as app:
        _await_signal()
        hurry = threading.Event()

        def second() -> None:
            _await_signal()
            hurry.set()

        threading.Thread(target=second, name="second signal", daemon=True).start()
        finished = _drain(app, settings, hurry)
    _log.info("Server stopped", extra={"fields": {"all_calls_finished": finished}})
    if app.rpc.admission.at_work:
        logging.shutdown()
        os._exit(0)  # an ordinary exit would wait for the threads of calls that hang
    return 0


def _await_signal() -> None:
    number = signal.sigwait(_ENDING)
    _log.info("Signal received", extra={"fields": {"signal": signal.Signals(number).name}})


def _nothing() -> None:
    pass


def _drain(app: App, settings: Settings, hurry: threading.Event) -> bool:
    rpc = app.rpc
    rpc.announce_shutdown()
    _log.info("Draining", extra={"fields": {"calls_at_work": rpc.admission.at_work, "seconds": settings.drain_seconds}})
    hurry.wait(settings.drain_notice_seconds)
    app.end_watches()
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
        self, settings: Settings, directory: DataDirectory | None, registry: CollectorRegistry, stack: ExitStack
    ) -> None:
        self._settings = settings
        self._remote_metrics = RemoteMetrics(registry)
        self._spool: Spool | None = None
        self._spool_lock = threading.Lock()
        self._options = BackendOptions(
            memory_max_bytes=settings.memory.max_bytes,
            lock_timeout_seconds=settings.filesystem.lock_timeout_seconds,
            remote_metrics=self._remote_metrics,
            objects_dir=None if directory is None else directory.objects,
            store_id="" if directory is None else directory.store_id,
            s3=_s3_options(settings),
            open_spool=self.spool,
        )
        self._metrics = ObjectMetrics(registry)
        self._stack = stack
        self._open: dict[str, ObjectStore] = {}
        self._users: dict[str, list[str]] = {}
        self.descriptions: dict[str, Callable[[], Description]] = {}
        """What describes the backend of a service, by the service's name."""

    def open_for(self, service: str, backend: str) -> ObjectStore:
        if backend not in self._open:
            # Outermost: measure what callers wait for, retries included.
            try:
                store = MeasuredStore(BACKENDS[backend](self._options), self._metrics)
            except OSError as error:
                raise DataDirectoryError(not_opened(backend, self._options, error)) from error
            self._stack.callback(store.close)
            self._open[backend] = store
        self._users.setdefault(backend, []).append(service)
        self.descriptions[service] = self._open[backend].describe
        return self._open[backend]

    def spool(self) -> Spool:
        """Return where bytes wait that must be known whole; all share its room."""
        with self._spool_lock:  # calls that are the first to need it come at once
            if self._spool is None:
                try:
                    self._spool = Spool(self._settings.spool_dir, self._settings.spool_max_bytes)
                except OSError as error:
                    raise DataDirectoryError(f"{error.strerror}") from error
                spool = self._spool
                self._remote_metrics.watch_spool(lambda: spool.used_bytes)
            return self._spool

    def start(self, tell: Callable[[Sequence[str], HoldfastError | None], None]) -> None:
        """Start all of them; `tell` hears which services can or cannot be used."""
        for backend, store in self._open.items():
            store.start(partial(tell, self._users[backend]))


def _s3_options(settings: Settings) -> S3Options | None:
    """Return what the S3 backend is made of; what an older system put among the checkpoints is read where asked for."""
    options = settings.s3_options
    if options is None or not settings.checkpoint_store.legacy:
        return options
    return replace(options, adopt_prefix=SNAPSHOTS)


class _LateSpool:
    """The spool, opened when it is first needed: a server must start on a full disk, too."""

    def __init__(self, spool: Callable[[], Spool]) -> None:
        self._spool = spool

    def open(self) -> SpooledFile:
        """Return a new, empty file; see `Spool.open`."""
        try:
            spool = self._spool()
        except DataDirectoryError as error:
            message = "the server's spool cannot be used; its log says why"
            raise Unavailable(Reason.BACKEND_UNAVAILABLE, message) from error
        return spool.open()


class _Readiness:
    """Announces which services can be used, and logs when all of them can for the first time."""

    def __init__(self, rpc: RpcServer, addresses: Mapping[str, str]) -> None:
        self._rpc = rpc
        self._fields = {"version": __version__, "python": sys.version.split()[0], **addresses}
        self._lock = threading.Lock()
        self._is_logged = False
        self._has_begun = False

    def tell(self, services: Sequence[str], error: HoldfastError | None) -> None:
        """Announce services that can be used, or cannot because of the error."""
        self._rpc.announce(services, serving=error is None)
        with self._lock:
            if self._has_begun:
                self._log_ready()

    def begin(self) -> None:
        """Log that the server is ready, or that it waits; and then when it is ready."""
        with self._lock:
            self._has_begun = True
            self._log_ready()
            if not self._is_logged:
                _log.info("Server waiting for its backend", extra={"fields": self._fields})

    def _log_ready(self) -> None:
        if self._rpc.is_ready and not self._is_logged:
            self._is_logged = True
            _log.info("Server ready", extra={"fields": self._fields})


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
        stall_timeout_seconds=settings.rpc.stall_timeout_seconds,
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
        max_batch_items=MAX_BATCH_ITEMS,
        max_batch_bytes=MAX_BATCH_BYTES,
        max_find_items=MAX_FIND_ITEMS,
        max_checkpoint_bytes=settings.checkpoint_store.max_checkpoint_bytes,
        max_room_id_bytes=MAX_ROOM_ID_BYTES,
        max_watched_rooms=MAX_WATCHED_ROOMS,
    )


def _probes(settings: Settings, registry: CollectorRegistry, rpc: RpcServer) -> Probes | None:
    if not settings.http:
        return None
    host, port = split_address(settings.http)
    try:
        return Probes(host, port, registry, lambda: rpc.is_ready)
    except OSError as error:
        raise BindError(f"cannot listen on {settings.http} for HTTP: {error.strerror}") from None


def _log_settings(settings: Settings, descriptions: Mapping[str, Callable[[], Description]]) -> None:
    _log.info("Settings in force", extra={"fields": settings.model_dump(mode="json", exclude_none=True)})
    for name, describe in descriptions.items():
        if describe().name == "memory":
            _log.warning("Nothing in memory survives this process", extra={"fields": {"service": name}})


def _addresses(settings: Settings, rpc: RpcServer, probes: Probes | None) -> dict[str, str]:
    """Return what is listened on, and warn where that is more than this machine."""
    http = "" if probes is None else f"{settings.http.rpartition(':')[0]}:{probes.port}"
    for address in (*rpc.addresses, *filter(None, [http])):
        if not _is_local(address):
            _log.warning("Listening beyond this machine, without authentication", extra={"fields": {"at": address}})
    return {"grpc": ",".join(rpc.addresses), "http": http}


def _is_local(address: str) -> bool:
    if address.startswith("unix:"):
        return True
    host, _ = split_address(address)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
