"""Pruning: what a retention does not keep is deleted. Where it is unsure, it keeps."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta

from holdfast_server import calls
from holdfast_server.checkpoints.checkpoint import ListedRoom
from holdfast_server.checkpoints.epochs import epochs_of
from holdfast_server.checkpoints.lists import rooms_of
from holdfast_server.checkpoints.metrics import CheckpointMetrics
from holdfast_server.checkpoints.names import RoomId
from holdfast_server.checkpoints.pointers import Pointers
from holdfast_server.checkpoints.reading import Checkpoints, Failures
from holdfast_server.checkpoints.sweeping import PROGRESS, is_latest_good, sweep
from holdfast_server.errors import (
    HoldfastError,
    IntegrityFailed,
    InvalidArgument,
    NotFound,
    PreconditionFailed,
    Reason,
)
from holdfast_server.objects.base import EntryRecord, ObjectNotFound, ObjectStore

_LOOKED_AT = 8
"""Of the newest checkpoints that are kept, whose footers are verified before older ones go."""

_Found = tuple[int, EntryRecord | None]
_Old = tuple[int, EntryRecord]


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept: the newest `keep_last` checkpoints, and those not older than `age`; valid by construction.

    Raises `InvalidArgument` (INVALID_RETENTION).
    """

    keep_last: int
    age: timedelta

    def __post_init__(self) -> None:
        """Check the rules."""
        if self.keep_last < 1:
            message = f"keep_last {self.keep_last} is not above 0: the latest checkpoint is always kept"
            raise InvalidArgument(Reason.INVALID_RETENTION, "keep_last", message)
        if self.age < timedelta(0):
            raise InvalidArgument(Reason.INVALID_RETENTION, "older_than", f"older_than {self.age} is negative")


@dataclass(frozen=True, slots=True)
class Pruned:
    """The sums so far, and the rooms that were left alone since the last message."""

    rooms: int = 0
    deleted: int = 0
    kept: int = 0
    deleted_bytes: int = 0
    failed: list[ListedRoom] = field(default_factory=list)
    is_done: bool = False


class Pruning:
    """Prunes rooms."""

    def __init__(
        self, objects: ObjectStore, pointers: Pointers, checkpoints: Checkpoints, metrics: CheckpointMetrics
    ) -> None:
        self._objects = objects
        self._pointers = pointers
        self._checkpoints = checkpoints
        self._metrics = metrics

    def prune(self, room: RoomId | None, retention: Retention, *, dry_run: bool = False) -> Iterator[Pruned]:
        """Do what `CheckpointStore.prune` promises."""
        sums = told = Pruned()
        failures = Failures()
        for each in rooms_of(self._objects) if room is None else (room,):
            calls.check("pruning")
            try:
                for progress in self._prune(each, retention, dry_run=dry_run):
                    sums = replace(
                        sums,
                        deleted=sums.deleted + progress.deleted,
                        kept=sums.kept + progress.kept,
                        deleted_bytes=sums.deleted_bytes + progress.deleted_bytes,
                    )
                    if sums.deleted - told.deleted >= PROGRESS:
                        told = sums
                        yield sums
                sums = replace(sums, rooms=sums.rooms + 1)
            except NotFound:
                if room is not None:
                    raise  # else it is deleted, or nobody's
            except HoldfastError as error:
                self._metrics.report(error)
                if room is not None:
                    raise
                failures.count(error)
                sums = replace(sums, rooms=sums.rooms + 1)
                yield replace(sums, failed=[ListedRoom(each, None, None, error.with_traceback(None))])
            else:
                failures.forget()
            if sums.rooms - told.rooms >= PROGRESS:
                told = sums
                yield sums
        yield replace(sums, is_done=True)

    def _prune(self, room: RoomId, retention: Retention, *, dry_run: bool) -> Iterator[Pruned]:
        pointer = self._pointers.read(room, remember=False)
        if pointer is None or pointer.is_deleted:
            raise NotFound(Reason.ROOM_NOT_FOUND, f"room {room.text!r} has no checkpoint", room_id=room.text)
        found = [(epoch, entry.record) for epoch, entry in epochs_of(self._objects, room, up_to=pointer.epoch - 1)]
        older = [each for each in found if each[0] > pointer.floor]
        condemned = self._outside(room, older, retention, retention.keep_last)
        if condemned:
            keep = self._kept(room, [epoch for epoch, _ in older], retention.keep_last)
            condemned = self._outside(room, older, retention, keep)
        # What was deleted with the room goes, whatever is to be kept.
        condemned = [(epoch, record) for epoch, record in found if epoch <= pointer.floor and record] + condemned
        if condemned and pointer.is_plain:
            message = f"the latest pointer of room {room.text!r} is plain text: migrate the room before it is pruned"
            raise PreconditionFailed(Reason.PRECONDITION_FAILED, message, room_id=room.text)
        if condemned and not is_latest_good(self._pointers, self._checkpoints, pointer):
            condemned = []  # the pointer has moved on: the next time will do
        yield Pruned(kept=1 + len(found) - len(condemned))
        for epoch, record in condemned:
            calls.check("pruning")
            if self._checkpoints.is_in_use(room, epoch):
                yield Pruned(kept=1)  # somebody has begun to load it since it was chosen
                continue
            if not dry_run:
                if not sweep(self._objects, room.epoch_key(epoch), record.etag):
                    continue
                self._metrics.count_pruned()
            yield Pruned(deleted=1, deleted_bytes=record.size_bytes)

    def _outside(self, room: RoomId, older: list[_Found], retention: Retention, keep: int) -> list[_Old]:
        """Return what is neither among the newest so many, the latest included, nor too young."""
        limit = self._objects.now() - retention.age
        return [
            (epoch, record)
            for epoch, record in older[: max(len(older) - keep + 1, 0)]
            # What cannot be read has no age, and may still be what somebody wants to look at.
            if record is not None and record.update_time < limit and not self._checkpoints.is_in_use(room, epoch)
        ]

    def _kept(self, room: RoomId, older: list[int], keep_last: int) -> int:
        """Return how many of the newest are kept: what is not good is nothing to fall back to, and does not count."""
        keep = keep_last
        for number, epoch in enumerate(reversed(older[-_LOOKED_AT:]), 2):  # the first is the latest
            if number > keep:
                break
            try:
                self._checkpoints.stat(room, epoch)
            except ObjectNotFound:
                continue
            except IntegrityFailed:
                keep += 1
        return keep
