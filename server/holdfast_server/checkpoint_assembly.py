"""CheckpointStore put together: a part of the diagram that `app.py` is."""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from prometheus_client import CollectorRegistry

from holdfast_server.checkpoints import key_file
from holdfast_server.checkpoints.fitness import Fitness
from holdfast_server.checkpoints.housekeeping import Housekeeping
from holdfast_server.checkpoints.key_ring import FixedKeys, KeyRing, KeyRingError, Keys, NoKeys
from holdfast_server.checkpoints.legacy import LegacyTags, read_pointer
from holdfast_server.checkpoints.metrics import CheckpointMetrics
from holdfast_server.checkpoints.names import HIBERNATED, SNAPSHOTS
from holdfast_server.checkpoints.opening import OpensFiles, WaitingRoom
from holdfast_server.checkpoints.pruning import Retention
from holdfast_server.checkpoints.service import CheckpointStoreService
from holdfast_server.checkpoints.store import CheckpointStore, LegacyForms, StoreOptions
from holdfast_server.checkpoints.watching import Watches
from holdfast_server.config import Settings
from holdfast_server.errors import HoldfastError, SealKeyUnavailable
from holdfast_server.objects.base import Description, ListQuery, ObjectStore
from holdfast_server.workers import Workers

_LOOK_SECONDS = 2.0
"""How soon it shows that an operator has mended the key ring."""

_log = logging.getLogger(__name__)


class CheckpointParts:
    """CheckpointStore and what goes with it. A thread looks whether an operator has mended what it lacks."""

    def __init__(
        self, settings: Settings, objects: ObjectStore, spool: OpensFiles, workers: Workers, registry: CollectorRegistry
    ) -> None:
        chosen = settings.checkpoint_store
        self._objects = objects
        keys = _keys(settings, objects)
        self._fitness = Fitness(objects, keys, single_writer=settings.s3 is not None and settings.s3.single_writer)
        store = CheckpointStore(
            objects,
            keys,
            WaitingRoom(spool, chosen.load_memory_bytes, settings.spool_max_bytes),
            workers,
            StoreOptions(
                max_bytes=chosen.max_checkpoint_bytes,
                encrypt=chosen.encrypt,
                tombstone_seconds=chosen.tombstone_seconds,
                legacy=LegacyForms(read_pointer, LegacyTags(keys)) if chosen.legacy else None,
            ),
            check_write=self._fitness.check,
            metrics=CheckpointMetrics(registry),
        )
        self._watches = Watches(
            store.pointers,
            workers,
            interval_seconds=chosen.watch_interval_seconds,
            most=max(settings.rpc.max_concurrent_calls // 2, 1),
            at_once=objects.describe().reads_at_once,
        )
        age = timedelta(seconds=chosen.keep_seconds)
        self._housekeeping = Housekeeping(
            store,
            retention=Retention(chosen.keep_last, age) if chosen.keep_last else None,
            interval_seconds=chosen.prune_interval_seconds,
            tombstone_seconds=chosen.tombstone_seconds,
        )
        self.service = CheckpointStoreService(store, self._watches)
        self._withhold: Callable[[bool], None] = lambda _withheld: None
        self._lock = threading.Lock()
        self._is_withheld: bool | None = None
        self._is_ring_told_of = False
        self._closing = threading.Event()
        self._looker = threading.Thread(target=self._look_now_and_then, name="checkpoint fitness", daemon=True)

    def describe(self) -> Description:
        """Describe the backend, and say why CheckpointStore cannot be used where it is not the backend."""
        description = self._objects.describe()
        problem = self._fitness.problem
        if description.not_ready is not None or problem is None:
            return description
        return replace(description, not_ready=problem.reason)

    def start(self, withhold: Callable[[bool], None]) -> None:
        """Begin to look; `withhold` is told now, and whenever it changes, whether the service must not be used."""
        self._withhold = withhold
        self.look()
        self._looker.start()
        self._housekeeping.start()

    def look(self) -> None:
        """Look now whether it can be used, the state of its backend aside."""
        problem = self._fitness.problem
        with self._lock:
            self._tell_of_a_lost_ring(problem)
            if (problem is not None) is self._is_withheld:
                return
            self._is_withheld = problem is not None
            if problem is not None:
                fields = {"reason": problem.reason.value, "error": problem.message}
                _log.warning("CheckpointStore cannot be used", extra={"fields": fields})
            self._withhold(self._is_withheld)

    def _tell_of_a_lost_ring(self, problem: HoldfastError | None) -> None:
        """Warn once, as soon as the backend can tell, if there are checkpoints: a new ring would not read them."""
        if not isinstance(problem, SealKeyUnavailable) or self._is_ring_told_of:
            return
        if self._objects.describe().not_ready is not None:
            return
        with suppress(HoldfastError):
            if _holds_checkpoints(self._objects):
                advice = "bring it back from its backup: a new one does not read them"
                fields = {"error": problem.message, "advice": advice}
                _log.warning("Checkpoints are stored, and no key ring to read them with", extra={"fields": fields})
            self._is_ring_told_of = True

    def end_watches(self) -> None:
        """End the calls that would last for ever."""
        self._watches.close()

    def close(self) -> None:
        """End all threads."""
        self._closing.set()
        self._watches.close()
        self._housekeeping.close()
        if self._looker.is_alive():
            self._looker.join()

    def _look_now_and_then(self) -> None:
        while not self._closing.wait(_LOOK_SECONDS):
            self.look()


def _keys(settings: Settings, objects: ObjectStore) -> Keys:
    """Return where the key ring comes from; a missing one is made where its data are files beside it, and new."""
    path = settings.checkpoint_store.key_ring
    backend = settings.backend_of(settings.checkpoint_store.backend)
    if path is None:
        if backend == "memory":
            return FixedKeys(KeyRing.fresh())
        return NoKeys("the server has no sealing key ring: set checkpoint_store.key_ring")
    if backend == "filesystem" and not _holds_checkpoints(objects):
        try:
            key_file.make_if_missing(path)
        except KeyRingError as error:
            _log.error("The sealing key ring cannot be made", extra={"fields": {"error": str(error)}})
    if backend == "memory" and not path.exists():
        return FixedKeys(KeyRing.fresh())
    return key_file.RingFile(path)


def _holds_checkpoints(objects: ObjectStore) -> bool:
    """Tell whether there are checkpoints already: with a new ring, what was sealed would not be read again."""
    return any(next(iter(objects.list(ListQuery(prefix))), None) is not None for prefix in (SNAPSHOTS, HIBERNATED))
