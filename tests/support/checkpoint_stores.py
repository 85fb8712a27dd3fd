"""CheckpointStores in this process on given objects: as they are, or behind a real gRPC server."""

import hashlib
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import grpc
from prometheus_client import CollectorRegistry

from holdfast.v1 import checkpoint_store_pb2_grpc
from holdfast_server.checkpoints.checkpoint import Saved, SaveOptions
from holdfast_server.checkpoints.key_ring import FixedKeys, KeyRing
from holdfast_server.checkpoints.names import RoomId
from holdfast_server.checkpoints.opening import WaitingRoom
from holdfast_server.checkpoints.seal import Subject
from holdfast_server.checkpoints.service import SERVICE_NAME, CheckpointStoreService
from holdfast_server.checkpoints.snapshot_reading import Snapshot
from holdfast_server.checkpoints.store import CheckpointStore, StoreOptions
from holdfast_server.checkpoints.watching import Watches
from holdfast_server.objects.base import OVERWRITE, ObjectStore
from holdfast_server.objects.body import NOTHING_DECLARED, Chunk, Declared
from holdfast_server.objects.conditions import Condition
from holdfast_server.objects.spool import Spool
from holdfast_server.rpc.server import RpcServer, ServerOptions
from holdfast_server.workers import Workers
from tests.support.checkpoint_calls import stub_of

RING = KeyRing.fresh()

_OPTIONS = StoreOptions()
_STOP_SECONDS = 10


def checkpoint_store(
    objects: ObjectStore,
    workers: Workers,
    *,
    ring: KeyRing = RING,
    options: StoreOptions = _OPTIONS,
    spool: Spool | None = None,
    memory_bytes: int = 1 << 20,
) -> CheckpointStore:
    """Return a `CheckpointStore` that knows nothing yet of what is on the objects, as after a restart."""
    return CheckpointStore(objects, FixedKeys(ring), WaitingRoom(spool or Spool(), memory_bytes), workers, options)


def save(store: CheckpointStore, room: RoomId, epoch: int, data: bytes, **options: Any) -> Saved:
    """Save a checkpoint; `options` are those of `SaveOptions`."""
    return store.save(room, epoch, _parts(data), declared=NOTHING_DECLARED, options=SaveOptions(**options))


def load(store: CheckpointStore, room: RoomId, epoch: int | None = None, **options: Any) -> tuple[int, bytes]:
    """Return a checkpoint's epoch and its bytes."""
    with store.load(room, epoch, **{"min_epoch": None, "fallback": False, **options}) as loaded:
        return loaded.found.checkpoint.epoch, b"".join(chunk.data for chunk in loaded)


def hibernate(
    store: CheckpointStore,
    room: RoomId,
    data: bytes,
    condition: Condition = OVERWRITE,
    *,
    replace_damaged: bool = False,
) -> Snapshot:
    """Store a room's snapshot."""
    return store.snapshots.hibernate(
        room,
        _parts(data),
        NOTHING_DECLARED,
        subject=Subject(room.text),
        condition=condition,
        replace_damaged=replace_damaged,
    )


def restore(store: CheckpointStore, room: RoomId) -> tuple[Snapshot, bytes]:
    """Return a snapshot and its bytes."""
    with store.snapshots.restore(room) as restored:
        return restored.snapshot, b"".join(chunk.data for chunk in restored)


def confirm(store: CheckpointStore, snapshot: Snapshot, data: bytes, writer_id: str = "") -> None:
    """Confirm the restore of a snapshot that had these bytes."""
    store.snapshots.confirm(snapshot.room, snapshot.info.etag, hashlib.sha256(data).digest(), writer_id)


def _parts(data: bytes) -> "list[Chunk | Declared]":
    return [Chunk(data), NOTHING_DECLARED]


class ServedCheckpoints:
    """A `CheckpointStore` on these objects behind a gRPC server of this process: `stub` reaches it. A context manager.

    `load_memory_bytes`: what a load may hold in memory; the rest goes through `spool`.
    """

    def __init__(
        self,
        objects: ObjectStore,
        *,
        ring: KeyRing = RING,
        options: StoreOptions = _OPTIONS,
        spool: Spool | None = None,
        memory_bytes: int = 1 << 20,
    ) -> None:
        self.objects = objects
        with ExitStack() as undo:
            workers = Workers()
            undo.callback(workers.close)
            self.store = checkpoint_store(
                objects, workers, ring=ring, options=options, spool=spool, memory_bytes=memory_bytes
            )
            watches = Watches(self.store.pointers, workers, interval_seconds=1, most=10)
            undo.callback(watches.close)
            service = CheckpointStoreService(self.store, watches)

            def register(server: grpc.Server) -> None:
                checkpoint_store_pb2_grpc.add_CheckpointStoreServicer_to_server(service, server)

            options_of_server = ServerOptions(listen=("127.0.0.1:0",))
            rpc = RpcServer(options_of_server, {SERVICE_NAME: register}, CollectorRegistry(), log=lambda _fields: None)
            undo.callback(rpc.stop)
            undo.callback(rpc.drain, _STOP_SECONDS)
            rpc.announce([SERVICE_NAME], serving=True)
            self.address = rpc.addresses[0]
            self.stub = stub_of(undo.enter_context(grpc.insecure_channel(self.address)))
            self._undo = undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()
