"""The deletion of a room: a tombstone takes its pointer's place, and goes in its time, after what came too late."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta

from holdfast_server import calls
from holdfast_server.checkpoints.epochs import epochs_of, highest_epoch
from holdfast_server.checkpoints.lists import rooms_of
from holdfast_server.checkpoints.metrics import CheckpointMetrics
from holdfast_server.checkpoints.names import MAX_RISE, RoomId
from holdfast_server.checkpoints.pointer_form import tombstone_epoch
from holdfast_server.checkpoints.pointers import BadPointer, Pointers
from holdfast_server.checkpoints.reading import Checkpoints, Failures
from holdfast_server.checkpoints.seen_pointers import NO_FLOOR, Pointer
from holdfast_server.checkpoints.sweeping import PROGRESS, is_latest_good, sweep
from holdfast_server.errors import (
    ConcurrentModification,
    ConditionUnsupported,
    HoldfastError,
    SealKeyUnavailable,
    SealTooNew,
)
from holdfast_server.objects.base import Entry, ObjectStore

_TRIES = 100

_SETTLED = timedelta(hours=1)
"""No save is under way for longer, between its two writes."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """How far the deletion of a room is. `next_epoch` is where it can be begun anew."""

    deleted: int
    existed: bool
    next_epoch: int
    is_done: bool = False


class Deleting:
    """Deletes rooms, and tidies up after their deletion."""

    def __init__(
        self, objects: ObjectStore, pointers: Pointers, checkpoints: Checkpoints, metrics: CheckpointMetrics
    ) -> None:
        self._objects = objects
        self._pointers = pointers
        self._checkpoints = checkpoints
        self._metrics = metrics

    def delete_room(self, room: RoomId, *, without_key: bool = False, request_id: str = "") -> Iterator[Deletion]:
        """Do what `CheckpointStore.delete_room` promises."""
        pointer, existed = self._bury(room, request_id, without_key=without_key)
        if pointer is None:
            yield Deletion(0, existed=False, next_epoch=0, is_done=True)
            return
        progress = Deletion(0, existed, pointer.next_epoch)
        yield progress
        for epoch, _ in epochs_of(self._objects, room, up_to=pointer.floor):
            calls.check("deleting a room")
            if self._objects.delete(room.epoch_key(epoch)):
                progress = replace(progress, deleted=progress.deleted + 1)
                if progress.deleted % PROGRESS == 0:
                    yield progress
        yield replace(progress, is_done=True)

    def _bury(self, room: RoomId, request_id: str, *, without_key: bool) -> tuple[Pointer | None, bool]:
        """Return the room's tombstone, and whether this request made it; None: there is nothing to delete.

        Where this request is repeated, and the room was begun anew in between, the pointer that it has now.
        """
        for _ in range(_TRIES):
            known = self._met(room, without_key=without_key)
            seen = known if isinstance(known, Pointer) else self._pointers.furthest(room)
            if (
                request_id
                and seen is not None
                and seen.deletion == request_id
                and (known is seen or not seen.is_deleted)
            ):
                return seen, True
            highest = highest_epoch(self._objects, room, -1 if seen is None else seen.epoch)
            if isinstance(known, BadPointer):
                # It may be a tombstone of which nothing else is left; but nobody vouches for what it says.
                highest = max(highest, min(known.said_epoch, MAX_RISE))
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
                return self._pointers.bury(room, epoch, known, request_id), not is_deleted
            except ConcurrentModification:
                continue  # it was saved meanwhile
        message = f"room {room.text!r} was saved each time that it was to be deleted"
        raise ConcurrentModification(message, room_id=room.text)

    def _met(self, room: RoomId, *, without_key: bool) -> Pointer | BadPointer | None:
        """Return the pointer, whatever it is: whoever deletes a room need not know what it was."""
        try:
            return self._pointers.read(room)
        except BadPointer as bad:
            return bad
        except (SealKeyUnavailable, SealTooNew) as error:
            if not without_key:
                _advise(error)
                raise
            return self._pointers.unread(room, error)

    def tidy_tombstones(self, age: timedelta, renew: Callable[[Pointer], bool] = lambda _pointer: False) -> int:
        """Remove the tombstones that are older than that, and return how many; their rooms' epochs begin anew.

        What saves have left that came too late, up to the epoch of a tombstone, goes after an hour; so does what a
        deletion has left that broke off, where the room was begun anew. What lies above a tombstone is left for who
        deletes the room once more: it may be what a room is begun anew with.

        `renew` is shown each pointer that stays, and tells whether it replaced it by the same.
        """
        removed = 0
        failures = Failures()
        for room in rooms_of(self._objects):
            calls.check("looking for tombstones")
            try:
                # Not what was rolled back: behind an old tombstone that was put there is a room that lives.
                pointer = self._pointers.read(room, remember=False)
                if pointer is not None:
                    removed += self._tidied(pointer, age, renew)
                failures.forget()
            except HoldfastError as error:
                self._metrics.report(error)
                failures.count(error)
        return removed

    def _tidied(self, pointer: Pointer, age: timedelta, renew: Callable[[Pointer], bool]) -> bool:
        """Tidy up behind a pointer, and tell whether it was a tombstone that went."""
        if not pointer.is_deleted:
            if not renew(pointer) and pointer.floor != NO_FLOOR:
                self._tidy_below(pointer)
            return False
        with suppress(ConditionUnsupported):  # then it stays: what was replaced meanwhile must not go
            if self._tidy(pointer, age):
                return True
        renew(pointer)
        return False

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
        if left and is_latest_good(self._pointers, self._checkpoints, pointer):
            self._sweep_deleted(pointer, left)

    def _sweep_deleted(self, pointer: Pointer, left: list[tuple[int, Entry]]) -> None:
        settled = self._objects.now() - _SETTLED
        for epoch, entry in left:
            record = entry.record
            if epoch <= pointer.floor and record is not None and record.update_time < settled:
                sweep(self._objects, pointer.room.epoch_key(epoch), record.etag)


def _advise(error: HoldfastError) -> None:
    """Say how a room is deleted all the same whose key is lost."""
    if isinstance(error, SealKeyUnavailable):
        how = "without_key (`holdfast checkpoint rm --without-key`)"
        error.message += f"; {how} deletes a room whose key is lost for good"
