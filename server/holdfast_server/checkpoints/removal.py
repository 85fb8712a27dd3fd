"""What removes checkpoints: pruning, and the deletion of a room. Where it is unsure, it keeps."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta

from holdfast_server import calls
from holdfast_server.checkpoints.checkpoint import ListedRoom
from holdfast_server.checkpoints.epochs import epochs_of, highest_epoch
from holdfast_server.checkpoints.lists import rooms_of
from holdfast_server.checkpoints.metrics import CheckpointMetrics
from holdfast_server.checkpoints.names import RoomId
from holdfast_server.checkpoints.pointers import Pointer, Pointers
from holdfast_server.checkpoints.reading import Checkpoints, concerns_one
from holdfast_server.errors import (
    ConcurrentModification,
    ConditionUnsupported,
    HoldfastError,
    InvalidArgument,
    NotFound,
    PointerInvalid,
    Reason,
    SealKeyUnavailable,
)
from holdfast_server.objects.base import ObjectNotFound, ObjectStore

_PROGRESS = 100
"""Deletions between two messages."""

_TRIES = 10


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


@dataclass(frozen=True, slots=True)
class Deletion:
    """How far the deletion of a room is. `next_epoch` is where it can be begun anew."""

    deleted: int
    existed: bool
    next_epoch: int
    is_done: bool = False


class Removal:
    """Removes checkpoints."""

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
                    if sums.deleted - told.deleted >= _PROGRESS:
                        told = sums
                        yield sums
            except NotFound:
                if room is not None:
                    raise
                continue  # deleted, or nobody's
            except HoldfastError as error:
                if room is not None or not concerns_one(error):
                    raise
                self._metrics.report(error)
                sums = replace(sums, rooms=sums.rooms + 1, failed=[ListedRoom(each, None, None, error)])
                yield sums
                sums = replace(sums, failed=[])
                continue
            sums = replace(sums, rooms=sums.rooms + 1)
        yield replace(sums, is_done=True)

    def _prune(self, room: RoomId, retention: Retention, *, dry_run: bool) -> Iterator[Pruned]:
        pointer = self._pointers.read(room)
        if pointer is None or pointer.is_deleted:
            raise NotFound(Reason.ROOM_NOT_FOUND, f"room {room.text!r} has no checkpoint", room_id=room.text)
        older = [(epoch, entry.record) for epoch, entry in epochs_of(self._objects, room, up_to=pointer.epoch - 1)]
        outside = older[: max(len(older) - retention.keep_last + 1, 0)]
        kept = 1 + len(older) - len(outside)
        if not outside:
            yield Pruned(kept=kept)
            return
        limit = self._objects.now() - retention.age
        condemned = [
            (epoch, record)
            for epoch, record in outside
            # What cannot be read has no age, and may still be what somebody wants to look at.
            if record is not None and record.update_time < limit and not self._checkpoints.is_in_use(room, epoch)
        ]
        yield Pruned(kept=kept + len(outside) - len(condemned))
        if not condemned:
            return
        self._check_latest(room, pointer)
        deleted = size = 0
        for epoch, record in condemned:
            calls.check("pruning")
            if not dry_run:
                if not self._objects.delete(room.epoch_key(epoch)):
                    continue
                self._metrics.count_pruned()
            deleted, size = deleted + 1, size + record.size_bytes
            if deleted == _PROGRESS:
                yield Pruned(deleted=deleted, deleted_bytes=size)
                deleted = size = 0
        yield Pruned(deleted=deleted, deleted_bytes=size)

    def _check_latest(self, room: RoomId, pointer: Pointer) -> None:
        """Read what the pointer names whole: where that is not good, an older one may be the last good state."""
        try:
            _, payload = self._checkpoints.open(room, pointer.epoch, pointer.tag)
        except ObjectNotFound:
            what = f"names epoch {pointer.epoch}, and that is not there"
            raise PointerInvalid(room.text, what, epoch=str(pointer.epoch)) from None
        payload.close()

    def delete_room(self, room: RoomId) -> Iterator[Deletion]:
        """Do what `CheckpointStore.delete_room` promises."""
        tombstone, existed = self._bury(room)
        if tombstone is None:
            yield Deletion(0, existed=False, next_epoch=0, is_done=True)
            return
        progress = Deletion(0, existed, tombstone.next_epoch)
        yield progress
        for epoch, _ in epochs_of(self._objects, room, up_to=tombstone.epoch):
            calls.check("deleting a room")
            if self._objects.delete(room.epoch_key(epoch)):
                progress = replace(progress, deleted=progress.deleted + 1)
                if progress.deleted % _PROGRESS == 0:
                    yield progress
        yield replace(progress, is_done=True)

    def _bury(self, room: RoomId) -> tuple[Pointer | None, bool]:
        """Return the room's tombstone, and whether this made it; None: there is nothing to delete."""
        for _ in range(_TRIES):
            try:
                pointer = self._pointers.read(room)
            except PointerInvalid:
                # Whoever deletes a room need not know what it was.
                highest = max(highest_epoch(self._objects, room), self._pointers.highest(room), 0)
                return self._pointers.bury_damaged(room, highest), True
            if pointer is not None and pointer.is_deleted:
                return pointer, False
            highest = highest_epoch(self._objects, room, -1 if pointer is None else pointer.epoch)
            if highest < 0:
                return None, False
            try:
                return self._pointers.bury(room, highest, pointer), True
            except ConcurrentModification:
                continue  # it was saved meanwhile
        message = f"room {room.text!r} was saved each time that it was to be deleted"
        raise ConcurrentModification(message, room_id=room.text)

    def remove_tombstones(self, age: timedelta) -> int:
        """Remove the tombstones that are older than that, and return how many; their rooms' epochs begin anew."""
        removed = 0
        for room in rooms_of(self._objects):
            try:
                pointer = self._pointers.read(room)
            except (PointerInvalid, SealKeyUnavailable):
                continue
            if pointer is None or not pointer.is_deleted or pointer.update_time >= self._objects.now() - age:
                continue
            if next(epochs_of(self._objects, room), None) is None:
                try:
                    removed += self._pointers.remove(pointer)
                except ConditionUnsupported:
                    return removed  # then they stay: one that was replaced meanwhile must not go
        return removed
