"""Loading: what the pointer names, or an epoch, or the newest good one; nothing before it is verified whole."""

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from holdfast_server.checkpoints.checkpoint import Checkpoint, Found, Skipped
from holdfast_server.checkpoints.epochs import epochs_of, highest_epoch
from holdfast_server.checkpoints.metrics import CheckpointMetrics
from holdfast_server.checkpoints.names import RoomId
from holdfast_server.checkpoints.opening import Payload
from holdfast_server.checkpoints.pointers import LEGACY_TAG, Pointers
from holdfast_server.checkpoints.reading import Checkpoints
from holdfast_server.checkpoints.seen_pointers import Pointer
from holdfast_server.errors import (
    ConcurrentModification,
    EpochTooOld,
    HoldfastError,
    IntegrityFailed,
    NotFound,
    PointerInvalid,
    Reason,
    SealKeyUnavailable,
    SealTooNew,
)
from holdfast_server.objects.base import ObjectNotFound, ObjectStore
from holdfast_server.objects.body import Chunk

_TRIES = 5
"""Of a load whose checkpoint is pruned after its pointer was read: the pointer has moved then."""


class Loaded:
    """A checkpoint that was verified whole, and its bytes; `skipped` is what was passed over, newest first.

    A context manager; iterate it once.
    """

    def __init__(self, found: Found, skipped: list[Skipped], payload: Payload) -> None:
        self.found = found
        self.skipped = skipped
        self._payload = payload

    def __iter__(self) -> Iterator[Chunk]:
        return iter(self._payload)

    def close(self) -> None:
        """Give back what the payload takes; harmless when repeated."""
        self._payload.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the checkpoint."""
        self.close()


class _Pruned(Exception):
    """The pointer had moved on when what it had named was to be read."""


class Loading:
    """Loads checkpoints, and tells what is known of them."""

    def __init__(
        self, objects: ObjectStore, pointers: Pointers, checkpoints: Checkpoints, metrics: CheckpointMetrics
    ) -> None:
        self._objects = objects
        self._pointers = pointers
        self._checkpoints = checkpoints
        self._metrics = metrics

    def load(self, room: RoomId, epoch: int | None, *, min_epoch: int | None, fallback: bool) -> Loaded:
        """Do what `CheckpointStore.load` promises."""
        for _ in range(_TRIES):
            place = _Place(self._objects, self._pointers, room)
            start = place.start(epoch, fallback=fallback)
            skipped = [] if place.problem is None or epoch is not None else [Skipped(None, place.problem)]
            try:
                return self._newest_good(place, start, skipped, min_epoch, is_latest=epoch is None, fallback=fallback)
            except _Pruned:
                continue
        raise _pruned_each_time(room)

    def stat(self, room: RoomId, epoch: int | None, *, min_epoch: int | None) -> Found:
        """Do what `CheckpointStore.stat` promises."""
        for _ in range(_TRIES):
            place = _Place(self._objects, self._pointers, room)
            start = place.start(epoch, fallback=False)
            place.check_min(start, min_epoch)
            try:
                place.check_not_deleted(start)
                return place.found(self._checkpoints.stat(room, start, place.tag_of(start)))
            except ObjectNotFound:
                if epoch is not None or not place.has_moved():
                    raise place.absent(start) from None
            except IntegrityFailed:
                if epoch is not None or not place.has_moved():
                    raise
        raise _pruned_each_time(room)

    def _newest_good(
        self,
        place: "_Place",
        start: int,
        skipped: list[Skipped],
        min_epoch: int | None,
        *,
        is_latest: bool,
        fallback: bool,
    ) -> Loaded:
        """Return the checkpoint at `start`, or with `fallback` the newest older one that is good."""
        error: HoldfastError | None = None
        for epoch in place.from_epoch_down(start) if fallback else (start,):
            if error is not None and min_epoch is not None and epoch < min_epoch:
                break
            place.check_min(epoch, min_epoch)
            try:
                place.check_not_deleted(epoch)
                checkpoint, payload = self._checkpoints.open(place.room, epoch, place.tag_of(epoch), leaves=True)
            except ObjectNotFound:
                if is_latest and epoch == start and place.has_moved():
                    raise _Pruned from None
                failure: HoldfastError = place.absent(epoch)
            except IntegrityFailed as damage:
                if is_latest and epoch == start and place.has_moved():
                    raise _Pruned from None  # the room was deleted, and the epoch stored anew
                failure = damage
            else:
                for each in skipped:
                    self._metrics.report(each.error)
                try:
                    return Loaded(place.found(checkpoint), skipped, payload)
                except BaseException:
                    payload.close()
                    raise
            error = error or failure
            skipped.append(Skipped(epoch, failure.with_traceback(None)))
        raise error or place.nothing()


class _Place:
    """Where a room's pointer is, read once: `pointer`, or why it cannot be read or is not there (`problem`)."""

    def __init__(self, objects: ObjectStore, pointers: Pointers, room: RoomId) -> None:
        self.room = room
        self.pointer: Pointer | None = None
        self.problem: HoldfastError | None = None
        self._objects = objects
        self._pointers = pointers
        try:
            self.pointer = pointers.read(room)
        except (PointerInvalid, SealKeyUnavailable, SealTooNew) as error:
            self.problem = error.with_traceback(None)
        else:
            if self.pointer is None or self.pointer.is_deleted:
                self.problem = self.nothing()
        # Where the pointer is not good: as far as this server has seen.
        self._floor = pointers.floor(room) if self.pointer is None else self.pointer.floor

    def start(self, epoch: int | None, *, fallback: bool) -> int:
        """Return the epoch to begin with, where this one is asked for, or (None) the latest."""
        pointer = self.pointer
        if epoch is not None and not (pointer is not None and pointer.is_deleted):
            return epoch
        if self.problem is None and pointer is not None:
            return pointer.epoch
        problem = self.problem or self.nothing()
        # What is deleted is not to be had, and what an unknown key has sealed is no damage.
        if not fallback or pointer is not None or isinstance(problem, SealKeyUnavailable | SealTooNew):
            raise problem
        highest = highest_epoch(self._objects, self.room)
        if highest <= self._floor:
            raise problem
        return highest

    def check_not_deleted(self, epoch: int) -> None:
        """Refuse what was deleted with the room that was there before. Raises `ObjectNotFound`."""
        if epoch <= self._floor:
            raise ObjectNotFound(self.room.epoch_key(epoch))

    def check_min(self, epoch: int, min_epoch: int | None) -> None:
        """Refuse an epoch that is too old. Raises `EpochTooOld`."""
        if min_epoch is not None and epoch < min_epoch:
            message = f"room {self.room.text!r}: epoch {epoch} is older than min_epoch {min_epoch}"
            latest = epoch if self.pointer is None else self.pointer.epoch
            raise EpochTooOld(message, room_id=self.room.text, epoch=str(epoch), latest_epoch=str(latest))

    def tag_of(self, epoch: int) -> bytes:
        """Return the seal that the checkpoint of an epoch must have, if the pointer names it."""
        return self.pointer.tag if self.pointer is not None and self.pointer.epoch == epoch else LEGACY_TAG

    def from_epoch_down(self, start: int) -> Iterator[int]:
        """Yield `start`, and the older epochs that are there, newest first."""
        yield start
        older = [epoch for epoch, _ in epochs_of(self._objects, self.room, self._floor, up_to=start - 1)]
        yield from reversed(older)

    def has_moved(self) -> bool:
        """Tell whether the pointer is another one by now."""
        return self.pointer is not None and self._pointers.read(self.room) != self.pointer

    def found(self, checkpoint: Checkpoint) -> Found:
        """Return the checkpoint and where the room is."""
        latest = None if self.problem is not None or self.pointer is None else self.pointer.epoch
        known = checkpoint.epoch if self.pointer is None else self.pointer.epoch
        highest = highest_epoch(self._objects, self.room, known)
        return Found(checkpoint, latest, highest + 1)

    def absent(self, epoch: int) -> HoldfastError:
        """Return the error that there is no checkpoint of an epoch."""
        if self.pointer is not None and self.pointer.epoch == epoch and not self.has_moved():
            what = f"names epoch {epoch}, and that is not there"
            return PointerInvalid(self.room.text, what, epoch=str(epoch))
        message = f"room {self.room.text!r} has no checkpoint of epoch {epoch}"
        return NotFound(Reason.CHECKPOINT_NOT_FOUND, message, room_id=self.room.text, epoch=str(epoch))

    def nothing(self) -> HoldfastError:
        """Return the error that the room has no checkpoint."""
        if self.pointer is None:
            message = f"room {self.room.text!r} has no checkpoint"
            if (highest := highest_epoch(self._objects, self.room)) < 0:
                return NotFound(Reason.ROOM_NOT_FOUND, message, room_id=self.room.text)
            # Of a first save that was broken off; or the pointer was lost.
            message = f"room {self.room.text!r} has no pointer, but checkpoints up to epoch {highest}: see fallback"
            return NotFound(Reason.ROOM_NOT_FOUND, message, room_id=self.room.text, next_epoch=str(highest + 1))
        next_epoch = str(self.pointer.next_epoch)
        message = f"room {self.room.text!r} was deleted: it can be begun anew from epoch {next_epoch} on"
        return NotFound(Reason.ROOM_NOT_FOUND, message, room_id=self.room.text, next_epoch=next_epoch)


def _pruned_each_time(room: RoomId) -> ConcurrentModification:
    message = f"room {room.text!r}: the pointer moved, and what it had named was pruned, each time that it was read"
    return ConcurrentModification(message, room_id=room.text)
