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
from holdfast_server.checkpoints.pointer_form import tombstone_epoch
from holdfast_server.checkpoints.pointers import BadPointer, Pointers
from holdfast_server.checkpoints.reading import Checkpoints, Failures
from holdfast_server.checkpoints.seen_pointers import NO_FLOOR, Pointer
from holdfast_server.errors import (
    ConcurrentModification,
    ConditionUnsupported,
    HoldfastError,
    IntegrityFailed,
    InvalidArgument,
    NotFound,
    PointerInvalid,
    PreconditionFailed,
    Reason,
    SealKeyUnavailable,
    SealTooNew,
)
from holdfast_server.objects.base import Entry, EntryRecord, ObjectNotFound, ObjectStore
from holdfast_server.objects.conditions import IfMatch
from holdfast_server.objects.key import ObjectKey

_PROGRESS = 100
"""Deletions between two messages."""

_TRIES = 100

_LOOKED_AT = 8
"""Of the newest checkpoints that are kept, whose footers are verified before older ones go."""

_SETTLED = timedelta(hours=1)
"""No save is under way for longer, between its two writes."""

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
                    if sums.deleted - told.deleted >= _PROGRESS:
                        told = sums
                        yield sums
                sums = replace(sums, rooms=sums.rooms + 1)
            except NotFound:
                if room is not None:
                    raise  # else it is deleted, or nobody's
            except HoldfastError as error:
                if room is not None:
                    raise
                failures.count(error)
                self._metrics.report(error)
                sums = replace(sums, rooms=sums.rooms + 1)
                yield replace(sums, failed=[ListedRoom(each, None, None, error.with_traceback(None))])
            else:
                failures.forget()
            if sums.rooms - told.rooms >= _PROGRESS:
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
        if condemned and not self._is_latest_good(room, pointer):
            condemned = []  # the pointer has moved on: the next time will do
        yield Pruned(kept=1 + len(found) - len(condemned))
        for epoch, record in condemned:
            calls.check("pruning")
            if self._checkpoints.is_in_use(room, epoch):
                yield Pruned(kept=1)  # somebody has begun to load it since it was chosen
                continue
            if not dry_run:
                if not self._sweep(room.epoch_key(epoch), record.etag):
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

    def _is_latest_good(self, room: RoomId, pointer: Pointer) -> bool:
        """Read what the pointer names whole: where that is not good, an older one may be the last good state.

        False: the pointer has moved meanwhile. Raises what is wrong with it.
        """
        try:
            _, payload = self._checkpoints.open(room, pointer.epoch, pointer.tag)
        except (ObjectNotFound, IntegrityFailed) as error:
            if self._pointers.read(room, remember=False) != pointer:
                return False
            if isinstance(error, IntegrityFailed):
                raise
            what = f"names epoch {pointer.epoch}, and that is not there"
            raise PointerInvalid(room.text, what, epoch=str(pointer.epoch)) from None
        payload.close()
        return True

    def delete_room(self, room: RoomId, *, without_key: bool = False) -> Iterator[Deletion]:
        """Do what `CheckpointStore.delete_room` promises."""
        tombstone, existed = self._bury(room, without_key=without_key)
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

    def _bury(self, room: RoomId, *, without_key: bool) -> tuple[Pointer | None, bool]:
        """Return the room's tombstone, and whether this made it; None: there is nothing to delete."""
        for _ in range(_TRIES):
            known: Pointer | BadPointer | None
            try:
                known = self._pointers.read(room)
            except BadPointer as bad:
                known = bad  # whoever deletes a room need not know what it was
            except (SealKeyUnavailable, SealTooNew) as error:
                if not without_key:
                    raise
                known = self._pointers.unread(room, error)
            seen = known if isinstance(known, Pointer) else self._pointers.furthest(room)
            highest = highest_epoch(self._objects, room, -1 if seen is None else seen.epoch)
            if known is None and highest < 0:
                return None, False
            is_deleted = isinstance(known, Pointer) and known.is_deleted
            epoch = tombstone_epoch(max(highest, 0))
            if seen is not None and seen.is_deleted and highest == seen.epoch:
                epoch = highest  # it is above all that there was
                if isinstance(known, Pointer):
                    return known, False
            try:
                # Also over a tombstone: above it lies what a save left that was broken off.
                return self._pointers.bury(room, epoch, known), not is_deleted
            except ConcurrentModification:
                continue  # it was saved meanwhile
        message = f"room {room.text!r} was saved each time that it was to be deleted"
        raise ConcurrentModification(message, room_id=room.text)

    def tidy_tombstones(self, age: timedelta) -> int:
        """Remove the tombstones that are older than that, and return how many; their rooms' epochs begin anew.

        What saves have left that came too late, up to the epoch of a tombstone, goes after an hour; so does what a
        deletion has left that broke off, where the room was begun anew. What lies above a tombstone is left for who
        deletes the room once more: it may be what a room is begun anew with.
        """
        removed = 0
        failures = Failures()
        for room in rooms_of(self._objects):
            calls.check("looking for tombstones")
            try:
                # Not what was rolled back: behind an old tombstone that was put there is a room that lives.
                pointer = self._pointers.read(room, remember=False)
                if pointer is not None and pointer.is_deleted:
                    removed += self._tidy(pointer, age)
                elif pointer is not None and pointer.floor != NO_FLOOR:
                    self._tidy_below(pointer)
                failures.forget()
            except ConditionUnsupported:
                continue  # then it stays: what was replaced meanwhile must not go
            except HoldfastError as error:
                failures.count(error)
        return removed

    def _tidy(self, tombstone: Pointer, age: timedelta) -> bool:
        room, now = tombstone.room, self._objects.now()
        if tombstone.update_time >= now - min(age, _SETTLED):
            return False
        left = list(epochs_of(self._objects, room))
        if not left:
            return tombstone.update_time < now - age and self._pointers.remove(tombstone)
        self._sweep_deleted(tombstone, left)
        return False

    def _tidy_below(self, pointer: Pointer) -> None:
        """Sweep what was deleted before the room was begun anew; not where what the pointer names is not good."""
        left = list(epochs_of(self._objects, pointer.room, up_to=pointer.floor))
        if left and self._is_latest_good(pointer.room, pointer):
            self._sweep_deleted(pointer, left)

    def _sweep_deleted(self, pointer: Pointer, left: list[tuple[int, Entry]]) -> None:
        settled = self._objects.now() - _SETTLED
        for epoch, entry in left:
            record = entry.record
            if epoch <= pointer.floor and record is not None and record.update_time < settled:
                self._sweep(pointer.room.epoch_key(epoch), record.etag)

    def _sweep(self, key: ObjectKey, etag: str) -> bool:
        """Delete just this object, and tell whether it was there.

        Others may have deleted it, or removed the tombstone, and a save have put another one there since.
        """
        try:
            return self._objects.delete(key, condition=IfMatch(etag))
        except PreconditionFailed:
            return False
        except ConditionUnsupported:
            return self._objects.delete(key)  # there no tombstone is ever removed, for the same reason
