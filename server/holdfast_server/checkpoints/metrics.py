"""What an operator sees of CheckpointStore: saves by outcome, damage by reason, and what was pruned."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter

from holdfast_server.checkpoints.checkpoint import Outcome
from holdfast_server.errors import HoldfastError, IntegrityFailed

_log = logging.getLogger(__name__)


class CheckpointMetrics:
    """The metrics, and the line in the log that goes with damage."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._saves = Counter(
            "holdfast_checkpoint_saves",
            "Saves that were answered, by what became of the payload: stored, exists_same (a repeated save), "
            "exists_different (two writers, or an epoch used again), exists_damaged.",
            ("outcome",),
            registry=registry,
        )
        self._damage = Counter(
            "holdfast_checkpoint_damage",
            "Checkpoints and pointers that were found not good, by reason: each time one was met.",
            ("reason",),
            registry=registry,
        )
        self._pruned = Counter("holdfast_checkpoints_pruned", "Checkpoints that pruning deleted.", registry=registry)
        for outcome in Outcome:
            self._saves.labels(outcome.name.lower())  # shown from the start

    def count_save(self, outcome: Outcome) -> None:
        """Count a save."""
        self._saves.labels(outcome.name.lower()).inc()

    def count_pruned(self) -> None:
        """Count a checkpoint that was pruned."""
        self._pruned.inc()

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Report what is raised within the block."""
        try:
            yield
        except HoldfastError as error:
            self.report(error)
            raise

    def report(self, error: HoldfastError) -> None:
        """Log and count damage: it is one room's, and an operator should know. Other errors are none."""
        if not isinstance(error, IntegrityFailed):
            return
        self._damage.labels(error.reason.value).inc()
        fields = {"reason": error.reason.value, **error.details, "error": error.message}
        _log.warning("A checkpoint is not good", extra={"fields": fields})
