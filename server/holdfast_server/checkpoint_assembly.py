"""CheckpointStore put together: a part of the diagram that `app.py` is."""

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from typing import NamedTuple

from holdfast_server.checkpoints import key_file
from holdfast_server.checkpoints.fitness import Fitness
from holdfast_server.checkpoints.housekeeping import Housekeeping
from holdfast_server.checkpoints.key_ring import FixedKeys, KeyRing, KeyRingError, Keys, NoKeys
from holdfast_server.checkpoints.names import HIBERNATED, SNAPSHOTS
from holdfast_server.checkpoints.opening import WaitingRoom
from holdfast_server.checkpoints.removal import Retention
from holdfast_server.checkpoints.service import CheckpointStoreService
from holdfast_server.checkpoints.store import CheckpointStore, StoreOptions
from holdfast_server.checkpoints.watching import Watches
from holdfast_server.config import Settings
from holdfast_server.errors import HoldfastError
from holdfast_server.objects.base import Description, ListQuery, ObjectStore
from holdfast_server.objects.spool import Spool
from holdfast_server.workers import Workers

_LOOK_SECONDS = 2.0
"""How soon it shows that an operator has mended the key ring."""

_log = logging.getLogger(__name__)


class CheckpointParts(NamedTuple):
    """What the server needs to know of CheckpointStore. `fitness` tells why it cannot be used, its backend aside."""

    service: CheckpointStoreService
    fitness: Fitness
    watches: Watches
    start: Callable[[], None]
    """To be called once the backend was started."""


def checkpoint_parts(
    settings: Settings, objects: ObjectStore, spool: Spool, workers: Workers, stack: ExitStack
) -> CheckpointParts:
    """Put the parts together; `stack` closes them."""
    chosen = settings.checkpoint_store
    keys = _keys(settings, objects)
    options = StoreOptions(
        max_bytes=chosen.max_checkpoint_bytes, encrypt=chosen.encrypt, tombstone_seconds=chosen.tombstone_seconds
    )
    fitness = Fitness(objects, keys, single_writer=settings.s3 is not None and settings.s3.single_writer)
    store = CheckpointStore(
        objects, keys, WaitingRoom(spool, chosen.load_memory_bytes), workers, options, check_write=fitness.check
    )
    watches = Watches(
        store.pointers,
        workers,
        interval_seconds=chosen.watch_interval_seconds,
        most=max(settings.rpc.max_concurrent_calls // 2, 1),
        at_once=objects.describe().reads_at_once,
    )
    stack.callback(watches.close)
    retention = Retention(chosen.keep_last, timedelta(seconds=chosen.keep_seconds)) if chosen.keep_last else None
    housekeeping = Housekeeping(
        store,
        retention=retention,
        interval_seconds=chosen.prune_interval_seconds,
        tombstone_seconds=chosen.tombstone_seconds,
    )
    stack.callback(housekeeping.close)
    return CheckpointParts(CheckpointStoreService(store, watches), fitness, watches, housekeeping.start)


def described(describe: Callable[[], Description], fitness: Fitness) -> Callable[[], Description]:
    """Return what describes the backend, and says why CheckpointStore cannot be used where it is not the backend."""

    def describe_both() -> Description:
        description = describe()
        problem = fitness.problem
        if description.not_ready is not None or problem is None:
            return description
        return replace(description, not_ready=problem.reason)

    return describe_both


class FitnessWatch:
    """A thread that tells, first at once, whether there is a problem, and whenever that changes."""

    def __init__(self, fitness: Fitness, tell: Callable[[HoldfastError | None], None]) -> None:
        self._fitness = fitness
        self._tell = tell
        self._closing = threading.Event()
        self._told: HoldfastError | None = None
        self._thread = threading.Thread(target=self._run, name="checkpoint fitness", daemon=True)

    def start(self) -> None:
        """Tell, and begin to look."""
        self._look(first=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def _look(self, *, first: bool = False) -> None:
        problem = self._fitness.problem
        if first or (problem is None) is not (self._told is None):
            self._told = problem
            if problem is not None:
                fields = {"reason": problem.reason.value, "error": problem.message}
                _log.warning("CheckpointStore cannot be used", extra={"fields": fields})
            self._tell(problem)

    def _run(self) -> None:
        while not self._closing.wait(_LOOK_SECONDS):
            self._look()


def _keys(settings: Settings, objects: ObjectStore) -> Keys:
    """Return where the key ring comes from; a missing one is made where its data are files beside it, and new."""
    path = settings.checkpoint_store.key_ring
    backend = settings.backend_of(settings.checkpoint_store.backend)
    if path is None:
        if backend == "memory":
            return FixedKeys(KeyRing.fresh())
        return NoKeys("the server has no sealing key ring: set checkpoint_store.key_ring")
    if backend == "filesystem" and (settings.checkpoint_store.legacy or not _holds_checkpoints(objects)):
        try:
            key_file.make_if_missing(path)
        except KeyRingError as error:
            _log.error("The sealing key ring cannot be made", extra={"fields": {"error": str(error)}})
    if backend == "memory" and not path.exists():
        return FixedKeys(KeyRing.fresh())
    return key_file.RingFile(path)


def _holds_checkpoints(objects: ObjectStore) -> bool:
    """Tell whether anything was sealed already: a new ring would make it unreadable for good."""
    return any(next(iter(objects.list(ListQuery(prefix))), None) is not None for prefix in (SNAPSHOTS, HIBERNATED))
