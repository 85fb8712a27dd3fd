"""What is done now and then: old checkpoints are pruned, if that is configured, and old tombstones removed.

What stays of tombstones, pointers and wake marks is sealed with the signing key, where an older one sealed it.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from datetime import timedelta

from holdfast_server import calls
from holdfast_server.calls import Call
from holdfast_server.checkpoints.pruning import Pruned, Retention
from holdfast_server.checkpoints.store import CheckpointStore
from holdfast_server.errors import Cancelled, HoldfastError

_log = logging.getLogger(__name__)

_MOST_TOMBSTONES_SECONDS = 6 * 3600.0
"""Between two looks for tombstones, which read every room's pointer. The first one is soon after the start: a server
that is replaced more often would never come to it."""

_JITTER = 0.2
"""So that servers on one backend do not all begin at once."""


class Housekeeping:
    """A thread that tidies up each `interval_seconds`, from `start` to `close`. `retention` None: nothing is pruned."""

    def __init__(
        self,
        store: CheckpointStore,
        *,
        retention: Retention | None,
        interval_seconds: float,
        tombstone_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._retention = retention
        self._interval_seconds = interval_seconds
        self._tombstone_age = timedelta(seconds=tombstone_seconds)
        self._tombstones_seconds = min(max(interval_seconds, tombstone_seconds / 4), _MOST_TOMBSTONES_SECONDS)
        self._clock = clock
        self._tombstones_due = clock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoint housekeeping", daemon=True)

    def start(self) -> None:
        """Begin, after the first pause."""
        self._thread.start()

    def close(self) -> None:
        """End the thread, after what it deletes now."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def tidy(self) -> None:
        """Do it once; what takes long ends when this is closed."""
        with calls.working_for(Call(is_active=lambda: not self._closing.is_set())):
            if self._clock() >= self._tombstones_due:
                self._tombstones_due = self._clock() + self._tombstones_seconds
                self._tidy_tombstones()
            if self._retention is not None:
                self._prune(self._retention)

    def _tidy_tombstones(self) -> None:
        resealing = self._store.resealing()
        try:
            removed = self._store.deleting.tidy_tombstones(self._tombstone_age, resealing.pointer)
            marks = resealing.mark if resealing.is_of_use else None
            removed += self._store.snapshots.lists.remove_given_up(self._tombstone_age, marks)
            if removed:
                _log.info("Old tombstones were removed", extra={"fields": {"tombstones": removed}})
        finally:
            if resealing.count:
                _log.info("Pointers were sealed with the signing key", extra={"fields": {"objects": resealing.count}})

    def _prune(self, retention: Retention) -> None:
        sums = Pruned()
        for sums in self._store.prune(None, retention):
            for room in sums.failed:
                error = "" if room.error is None else room.error.message
                _log.warning("A room was not pruned", extra={"fields": {"room_id": room.room.text, "error": error}})
        if sums.deleted:
            fields = {"checkpoints": sums.deleted, "bytes": sums.deleted_bytes, "rooms": sums.rooms}
            _log.info("Old checkpoints were pruned", extra={"fields": fields})

    def _run(self) -> None:
        while not self._closing.wait(self._interval_seconds * random.uniform(1 - _JITTER, 1 + _JITTER)):  # noqa: S311
            try:
                self.tidy()
            except Cancelled:
                return
            except HoldfastError as error:
                # The backend is away or busy: the next time will do.
                _log.warning("Housekeeping was broken off", extra={"fields": {"error": error.message}})
            except Exception:  # noqa: BLE001 (the thread has to live on, whatever the store answers)
                _log.exception("Housekeeping failed")
