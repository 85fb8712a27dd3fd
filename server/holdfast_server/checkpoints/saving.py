"""Saving: two writes, the checkpoint and then the pointer, and no read where the pointer is remembered."""

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from holdfast_server.checkpoints.checkpoint import NO_CHECKPOINT, Checkpoint, Outcome, Saved, SaveOptions
from holdfast_server.checkpoints.epochs import epochs_of, highest_epoch
from holdfast_server.checkpoints.key_ring import Keys
from holdfast_server.checkpoints.metrics import CheckpointMetrics
from holdfast_server.checkpoints.names import MAX_EPOCH, MAX_RISE, RoomId
from holdfast_server.checkpoints.pointers import LEGACY_TAG, BadPointer, Pointers, Target, deleted
from holdfast_server.checkpoints.reading import Checkpoints
from holdfast_server.checkpoints.seal import Purpose, Subject
from holdfast_server.checkpoints.sealing import Sealing
from holdfast_server.checkpoints.seen_pointers import Pointer
from holdfast_server.errors import (
    AlreadyExists,
    ConcurrentModification,
    EpochTooOld,
    IntegrityFailed,
    InvalidArgument,
    Reason,
    SealKeyUnavailable,
    SealTooNew,
)
from holdfast_server.objects.base import ObjectNotFound, ObjectStore
from holdfast_server.objects.body import Body, Chunk, Declared, Digests
from holdfast_server.objects.conditions import CreateOnly, IfMatch, ObjectExists

_BEGINNING = timedelta(seconds=30)
"""Between the two writes of a room's first save, at the most."""


class Saving:
    """Saves checkpoints of at most `max_bytes`, sealed with the key that signs; `clock` tells when."""

    def __init__(
        self,
        objects: ObjectStore,
        keys: Keys,
        pointers: Pointers,
        checkpoints: Checkpoints,
        metrics: CheckpointMetrics,
        *,
        max_bytes: int,
        encrypt: bool,
        clock: Callable[[], datetime],
    ) -> None:
        self._objects = objects
        self._keys = keys
        self._pointers = pointers
        self._checkpoints = checkpoints
        self._metrics = metrics
        self._max_bytes = max_bytes
        self._encrypt = encrypt
        self._clock = clock

    def save(
        self, room: RoomId, epoch: int, parts: Iterable[Chunk | Declared], declared: Declared, options: SaveOptions
    ) -> Saved:
        """Do what `CheckpointStore.save` promises."""
        _ = self._keys.ring.signing  # before anything is read
        place = self._place(room, epoch, options)
        with closing(Body(parts, declared, max_bytes=self._max_bytes)) as upload:
            return self._save(place, upload, options)

    def _save(self, place: "_Place", upload: Body, options: SaveOptions) -> Saved:
        room, epoch = place.room, place.epoch
        subject = Subject(room.text, epoch, options.writer_id, options.metadata)
        sealing = Sealing(upload, self._keys, Purpose.CHECKPOINT, subject, self._clock(), encrypt=self._encrypt)
        try:
            info = self._objects.put(room.epoch_key(epoch), sealing.body, condition=CreateOnly())
        except ObjectExists:
            is_damaged = False
        except IntegrityFailed:
            is_damaged = True  # something is there, and not even its record can be read
        else:
            footer = sealing.footer
            self._keys.ring.verifying(footer.head.key_id)  # it may have been retired while the store took the bytes
            checkpoint = Checkpoint(room, epoch, footer.size_bytes, info, footer, upload.digests.sha256)
            return self._pointed(place, checkpoint, Outcome.STORED)
        digests = upload.read_to_end()  # what arrived must be what was declared even where it is not needed
        if options.require_new:
            message = f"room {room.text!r}: epoch {epoch} already exists, and require_new was asked for"
            raise AlreadyExists(Reason.ALREADY_EXISTS, message, room_id=room.text, epoch=str(epoch))
        if is_damaged:
            return self._not_stored(place, Outcome.EXISTS_DAMAGED, None)
        tag = place.known.tag if place.known is not None and place.known.names(epoch) else LEGACY_TAG
        return self._exists(place, digests, tag)

    def _place(self, room: RoomId, epoch: int, options: SaveOptions) -> "_Place":
        """Return where the pointer is before anything is written, or refuse the save."""
        expected = options.if_latest_epoch
        try:
            # What is remembered does for a save: where it is old, the condition of the pointer's put tells.
            is_remembered_enough = expected is None and not options.replace_damaged_pointer
            known = self._pointers.known(room) if is_remembered_enough else self._pointers.read(room)
            if known is not None and epoch <= known.floor:
                known = self._pointers.read(room)
            if known is not None and known.names(epoch):
                known = self._still_there(known)
        except BadPointer as bad:
            if not options.replace_damaged_pointer or expected is not None:
                raise  # where it should be cannot be told of a pointer that is not good
            furthest = self._pointers.furthest(room)
            if furthest is not None and epoch <= furthest.floor:
                raise deleted(room, epoch, furthest) from None
            _check_rise(room, epoch, furthest)
            stored = highest_epoch(self._objects, room)
            highest = max(stored, self._pointers.furthest_epoch(room))
            if epoch < highest or stored < epoch == highest:  # one that is stored may be of a try that failed later on
                raise _not_above(room, epoch, highest) from None
            return _Place(room, epoch, options, None, bad)
        if known is not None and epoch <= known.floor:
            raise deleted(room, epoch, known)
        _check_rise(room, epoch, known)
        place = _Place(room, epoch, options, known)
        place.check(known)
        if known is None:
            self._check_new(room, epoch)
        return place

    def _still_there(self, pointer: Pointer) -> Pointer:
        """Return the pointer of a room that is to be saved at the very epoch that it names.

        What it names was said to be saved. Where that is gone, nothing is put in its place without a word: raises
        `BadPointer`.
        """
        room = pointer.room
        try:
            self._objects.stat(room.epoch_key(pointer.epoch))
        except ObjectNotFound:
            fresh = self._pointers.read(room)  # what was remembered may have moved on, and this have been pruned
            if fresh is None or not fresh.names(pointer.epoch):
                return fresh or pointer
            what = f"names epoch {pointer.epoch}, and that is not there"
            above = highest_epoch(self._objects, room, pointer.epoch) + 1
            gone = {"epoch": str(pointer.epoch), "next_epoch": str(above)}
            raise BadPointer(room, what, IfMatch(fresh.etag), **gone) from None
        except IntegrityFailed:
            pass  # it is there
        return pointer

    def _check_new(self, room: RoomId, epoch: int) -> None:
        """Refuse to begin a room that has higher epochs: it has lost its pointer, and would be set back by this.

        Those that were stored just now may be of others who begin it, too; those that are of a time to come are not,
        but of a clock that was put right since. Raises `EpochTooOld`.
        """
        now = self._objects.now()
        for higher, entry in epochs_of(self._objects, room, epoch):
            if entry.record is None or abs(entry.record.update_time - now) > _BEGINNING:
                raise _no_pointer(room, epoch, highest_epoch(self._objects, room, higher))

    def _exists(self, place: "_Place", digests: Digests, tag: bytes = LEGACY_TAG) -> Saved:
        """Answer a save whose epoch has a checkpoint: perhaps this one's, from a try that failed later on."""
        room, epoch = place.room, place.epoch
        try:
            checkpoint, payload = self._checkpoints.open(room, epoch, tag)
            payload.close()
        except IntegrityFailed as damage:
            self._metrics.report(damage)
            return self._not_stored(place, Outcome.EXISTS_DAMAGED, None)
        except (SealKeyUnavailable, SealTooNew) as unread:
            # What it is cannot be told, but the room must not be stuck there.
            if place.replacing is not None:
                raise _not_above(room, epoch, highest_epoch(self._objects, room, epoch)) from unread
            pointer, next_epoch = self._after(place)
            there = {"latest_epoch": str(_latest(pointer)), "next_epoch": str(next_epoch)}
            raise type(unread)(unread.message, **unread.details, **there) from unread
        except ObjectNotFound:
            message = f"room {room.text!r}: epoch {epoch} was deleted while it was saved"
            raise ConcurrentModification(message, room_id=room.text, epoch=str(epoch)) from None
        is_same = (checkpoint.size_bytes, checkpoint.sha256) == (digests.size_bytes, digests.sha256)
        if not is_same or place.is_anothers(checkpoint):
            return self._not_stored(place, Outcome.EXISTS_DIFFERENT, checkpoint)
        saved = self._pointed(place, checkpoint, Outcome.EXISTS_SAME)
        if checkpoint.footer is None and saved.latest_epoch == epoch:
            named = self._pointers.known(room)
            if named is not None and named.epoch == epoch and named.tag != LEGACY_TAG:
                # It was sealed meanwhile; or somebody has replaced what the pointer names.
                return self._exists(replace(place, known=named), digests, named.tag)
        return saved

    def _pointed(self, place: "_Place", checkpoint: Checkpoint, outcome: Outcome) -> Saved:
        """Move the pointer to a checkpoint that is stored."""
        tag = LEGACY_TAG if checkpoint.footer is None else checkpoint.footer.tag
        moved, pointer = self._pointers.advance(
            Target(place.room, place.epoch, tag), place.known, check=place.check, replacing=place.replacing
        )
        return Saved(outcome, checkpoint, moved, pointer.epoch, max(pointer.epoch, place.epoch) + 1)

    def _not_stored(self, place: "_Place", outcome: Outcome, there: Checkpoint | None) -> Saved:
        """Answer that the payload was not stored; the pointer stays, since nobody was told of what is there."""
        if place.replacing is not None:
            raise _not_above(place.room, place.epoch, highest_epoch(self._objects, place.room, place.epoch))
        pointer, next_epoch = self._after(place)
        place.check_strictly(pointer)
        return Saved(outcome, there, pointer_moved=False, latest_epoch=_latest(pointer), next_epoch=next_epoch)

    def _after(self, place: "_Place") -> tuple[Pointer | None, int]:
        """Return the pointer as it is now, and the epoch at which a save would find nothing in its way.

        Raises `EpochTooOld` if the room was deleted meanwhile.
        """
        room, epoch = place.room, place.epoch
        pointer = self._pointers.read(room)
        if pointer is not None and epoch <= pointer.floor:
            raise deleted(room, epoch, pointer)
        highest = highest_epoch(self._objects, room, epoch if pointer is None else max(epoch, pointer.epoch))
        return pointer, highest + 1


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a save goes, and where the pointer was before: `known`, or what is to be replaced."""

    room: RoomId
    epoch: int
    options: SaveOptions
    known: Pointer | None
    replacing: BadPointer | None = None

    def check(self, pointer: Pointer | None) -> None:
        """Refuse the save if the pointer must be elsewhere. Raises `ConcurrentModification`."""
        if _latest(pointer) != self.epoch:  # else a try before this may have moved it there
            self.check_strictly(pointer)

    def check_strictly(self, pointer: Pointer | None) -> None:
        """Do the same where the payload is not what has the epoch."""
        expected = self.options.if_latest_epoch
        if expected not in (None, latest := _latest(pointer)):
            message = f"room {self.room.text!r}: the latest epoch is {latest}, and if_latest_epoch is {expected}"
            raise ConcurrentModification(message, room_id=self.room.text, latest_epoch=str(latest))

    def is_anothers(self, checkpoint: Checkpoint) -> bool:
        """Tell whether another writer saved what has the epoch. It matters where only one may go on from the latest."""
        footer = checkpoint.footer
        if self.options.if_latest_epoch is None or footer is None:
            return False
        return footer.subject.writer_id != self.options.writer_id


def _check_rise(room: RoomId, epoch: int, pointer: Pointer | None) -> None:
    highest = min(MAX_EPOCH, MAX_RISE + (0 if pointer is None else max(0, pointer.floor)))
    if epoch > highest:
        message = f"epoch {epoch} is above {highest}, the highest at which room {room.text!r} can be saved"
        raise InvalidArgument(Reason.INVALID_EPOCH, "epoch", message)


def _latest(pointer: Pointer | None) -> int:
    return NO_CHECKPOINT if pointer is None or pointer.is_deleted else pointer.epoch


def _not_above(room: RoomId, epoch: int, highest: int) -> InvalidArgument:
    message = f"epoch {epoch} is not above {highest}, and the pointer of room {room.text!r} is damaged"
    return InvalidArgument(Reason.INVALID_EPOCH, "epoch", message, next_epoch=str(highest + 1))


def _no_pointer(room: RoomId, epoch: int, highest: int) -> EpochTooOld:
    message = f"room {room.text!r} has no pointer, and a checkpoint of epoch {highest}: epoch {epoch} is not above it"
    return EpochTooOld(message, room_id=room.text, latest_epoch=str(highest), next_epoch=str(highest + 1))
