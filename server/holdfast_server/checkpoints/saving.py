"""Saving: two writes, the checkpoint and then the pointer, and no read where the pointer is remembered."""

from collections.abc import Callable, Iterable
from datetime import datetime

from holdfast_server.checkpoints.checkpoint import NO_CHECKPOINT, Checkpoint, Outcome, Saved, SaveOptions
from holdfast_server.checkpoints.epochs import highest_epoch
from holdfast_server.checkpoints.key_ring import Keys
from holdfast_server.checkpoints.metrics import CheckpointMetrics
from holdfast_server.checkpoints.names import RoomId
from holdfast_server.checkpoints.pointers import LEGACY_TAG, Pointer, Pointers, deleted
from holdfast_server.checkpoints.reading import Checkpoints
from holdfast_server.checkpoints.seal import Purpose, Subject
from holdfast_server.checkpoints.sealing import Sealing
from holdfast_server.errors import (
    AlreadyExists,
    ConcurrentModification,
    IntegrityFailed,
    InvalidArgument,
    PointerInvalid,
    Reason,
)
from holdfast_server.objects.base import ObjectNotFound, ObjectStore
from holdfast_server.objects.body import Body, Chunk, Declared
from holdfast_server.objects.conditions import CreateOnly, ObjectExists


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
        key = self._keys.ring.signing
        known = self._known(room, epoch, options)
        upload = Body(parts, declared, max_bytes=self._max_bytes)
        subject = Subject(room.text, epoch, options.writer_id, options.metadata)
        sealing = Sealing(upload, key, Purpose.CHECKPOINT, subject, self._clock(), encrypt=self._encrypt)
        try:
            info = self._objects.put(room.epoch_key(epoch), sealing.body, condition=CreateOnly())
        except ObjectExists:
            is_damaged = False
        except IntegrityFailed:
            is_damaged = True  # something is there, and not even its record can be read
        else:
            footer = sealing.footer
            checkpoint = Checkpoint(room, epoch, footer.size_bytes, info, footer, upload.digests.sha256)
            return self._pointed(checkpoint, Outcome.STORED, known, options)
        sha256 = upload.read_to_end().sha256  # what arrived must be what was declared even where it is not needed
        if options.require_new:
            message = f"room {room.text!r}: epoch {epoch} already exists, and require_new was asked for"
            raise AlreadyExists(Reason.ALREADY_EXISTS, message, room_id=room.text, epoch=str(epoch))
        if is_damaged:
            return self._not_stored(room, epoch, Outcome.EXISTS_DAMAGED, None, options)
        return self._exists(room, epoch, sha256, known, options)

    def _known(self, room: RoomId, epoch: int, options: SaveOptions) -> Pointer | None:
        """Return where the pointer is before anything is written, or refuse the save."""
        expected = options.if_latest_epoch
        try:
            # What is remembered does for a save: where it is old, the condition of the pointer's put tells.
            known = self._pointers.known(room) if expected is None else self._pointers.read(room)
            if known is not None and known.is_deleted and epoch <= known.epoch:
                known = self._pointers.read(room)
        except PointerInvalid:
            if not options.replace_damaged_pointer:
                raise
            stored = highest_epoch(self._objects, room)
            highest = max(stored, self._pointers.highest(room))
            if epoch < highest or stored < epoch == highest:  # one that is stored may be of a try that failed later on
                raise _not_above(room, epoch, highest) from None
            return None
        if known is not None and known.is_deleted and epoch <= known.epoch:
            raise deleted(room, epoch, known)
        latest = _latest(known)
        if expected is not None and latest not in (
            expected,
            epoch,
        ):  # at the epoch, a try before this may have moved it
            raise _not_latest(room, expected, latest)
        return known

    def _exists(
        self,
        room: RoomId,
        epoch: int,
        sha256: bytes,
        known: Pointer | None,
        options: SaveOptions,
        *,
        tag: bytes = LEGACY_TAG,
    ) -> Saved:
        """Answer a save whose epoch has a checkpoint: perhaps this one's, from a try that failed later on."""
        try:
            checkpoint, payload = self._checkpoints.open(room, epoch, tag)
            payload.close()
        except IntegrityFailed as damage:
            self._metrics.report(damage)
            return self._not_stored(room, epoch, Outcome.EXISTS_DAMAGED, None, options)
        except ObjectNotFound:
            message = f"room {room.text!r}: epoch {epoch} was deleted while it was saved"
            raise ConcurrentModification(message, room_id=room.text, epoch=str(epoch)) from None
        if checkpoint.sha256 != sha256:
            if options.if_latest_epoch not in (None, latest := _latest(known)):
                raise _not_latest(room, options.if_latest_epoch, latest)
            return self._not_stored(room, epoch, Outcome.EXISTS_DIFFERENT, checkpoint, options)
        saved = self._pointed(checkpoint, Outcome.EXISTS_SAME, known, options)
        if checkpoint.footer is None and saved.latest_epoch == epoch:
            named = self._pointers.known(room)
            if named is not None and named.epoch == epoch and named.tag != LEGACY_TAG:
                # It was sealed meanwhile; or somebody has replaced what the pointer names.
                return self._exists(room, epoch, sha256, named, options, tag=named.tag)
        return saved

    def _pointed(self, checkpoint: Checkpoint, outcome: Outcome, known: Pointer | None, options: SaveOptions) -> Saved:
        """Move the pointer to a checkpoint that is stored."""
        room, epoch = checkpoint.room, checkpoint.epoch
        tag = LEGACY_TAG if checkpoint.footer is None else checkpoint.footer.tag
        expected = options.if_latest_epoch

        def check(pointer: Pointer | None) -> None:
            if expected is not None and (latest := _latest(pointer)) not in (expected, epoch):
                raise _not_latest(room, expected, latest)

        moved, pointer = self._pointers.advance(
            room, epoch, tag, known, check=check, replace_damaged=options.replace_damaged_pointer
        )
        return Saved(outcome, checkpoint, moved, pointer.epoch, max(pointer.epoch, epoch) + 1)

    def _not_stored(
        self, room: RoomId, epoch: int, outcome: Outcome, there: Checkpoint | None, options: SaveOptions
    ) -> Saved:
        """Answer that the payload was not stored; the pointer stays, since nobody was told of what is there."""
        try:
            pointer = self._pointers.read(room)
        except PointerInvalid:
            if not options.replace_damaged_pointer:
                raise
            raise _not_above(room, epoch, max(highest_epoch(self._objects, room), epoch)) from None
        highest = highest_epoch(self._objects, room, epoch if pointer is None else max(epoch, pointer.epoch))
        return Saved(outcome, there, pointer_moved=False, latest_epoch=_latest(pointer), next_epoch=highest + 1)


def _latest(pointer: Pointer | None) -> int:
    return NO_CHECKPOINT if pointer is None or pointer.is_deleted else pointer.epoch


def _not_above(room: RoomId, epoch: int, highest: int) -> InvalidArgument:
    message = f"epoch {epoch} is not above {highest}, and the pointer of room {room.text!r} is damaged"
    return InvalidArgument(Reason.INVALID_EPOCH, "epoch", message, next_epoch=str(highest + 1))


def _not_latest(room: RoomId, expected: int | None, latest: int) -> ConcurrentModification:
    message = f"room {room.text!r}: the latest epoch is {latest}, and if_latest_epoch is {expected}"
    return ConcurrentModification(message, room_id=room.text, latest_epoch=str(latest))
