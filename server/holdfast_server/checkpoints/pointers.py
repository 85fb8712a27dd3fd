"""A room's pointer: which checkpoint is its latest. It moves forward only, in one step, whoever moves it.

It is a small sealed object of its own, and binds the epoch and the seal of that epoch's checkpoint. A room that was
deleted has a tombstone in its place, at an epoch well above the highest that there was: the room is begun anew above
it. From then on the pointer carries the tombstone's epoch as its floor: what is at or below it was deleted.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

from holdfast_server import calls
from holdfast_server.checkpoints import seal
from holdfast_server.checkpoints.key_ring import Keys
from holdfast_server.checkpoints.limits import DEFAULT_TOMBSTONE_SECONDS
from holdfast_server.checkpoints.names import RoomId, epoch_in
from holdfast_server.checkpoints.plain_pointers import check_plain
from holdfast_server.checkpoints.pointer_form import MAX_POINTER_BYTES, Said, opened
from holdfast_server.checkpoints.seal import SealBroken
from holdfast_server.checkpoints.seen_pointers import NO_FLOOR, Pointer, SeenPointers
from holdfast_server.checkpoints.unreadable import unreadable_named
from holdfast_server.errors import (
    ConcurrentModification,
    EpochTooOld,
    HoldfastError,
    IntegrityFailed,
    PointerInvalid,
    PreconditionFailed,
)
from holdfast_server.objects.base import OVERWRITE, ObjectNotFound, ObjectStore
from holdfast_server.objects.body import Body
from holdfast_server.objects.conditions import Condition, CreateOnly, IfMatch, ObjectExists, Overwrite
from holdfast_server.objects.info import ObjectInfo
from holdfast_server.objects.ranges import Tail

LEGACY_TAG = b""
"""Of a pointer, or of a checkpoint, that an older system wrote: it binds none."""

_TRIES = 100
_PAUSE_SECONDS = 0.05
_ALIVE_SECONDS = 0.5
"""How often one who waits looks whether its caller still does."""

_CLOCKS_SECONDS = 60.0
"""How far apart the times of one tombstone may be that two servers are told."""

_STRIPES = 256


@dataclass(frozen=True, slots=True)
class Target:
    """The checkpoint that a pointer is to name: it is stored."""

    room: RoomId
    epoch: int
    tag: bytes

    def needs(self, pointer: Pointer) -> bool:
        """Tell whether the pointer has to be moved to name it.

        An epoch is stored once, and named once: no pointer is given another seal than the one that it binds.
        """
        return pointer.epoch < self.epoch

    def is_other_than(self, pointer: Pointer) -> bool:
        """Tell whether the pointer names this epoch, and another checkpoint. What has no seal cannot be told apart."""
        return pointer.names(self.epoch) and LEGACY_TAG not in (self.tag, pointer.tag) and self.tag != pointer.tag


class BadPointer(PointerInvalid):
    """A pointer that must not be gone by; `condition` is on just what was found there, for who replaces it."""

    def __init__(self, room: RoomId, what: str, condition: Condition, **details: str) -> None:
        super().__init__(room.text, what, **details)
        self.condition = condition
        self.said_epoch = -1
        """The epoch of one that cannot be verified, as it says itself; -1: it does not."""


Observer = Callable[[RoomId, Pointer | None], None]
"""Is told what a pointer says (None: there is none), whenever that was read or written."""

Check = Callable[[Pointer | None], None]
"""Looks at a pointer, and raises what it has against it."""

ReadLegacy = Callable[[RoomId, bytes, ObjectInfo], Pointer]
"""Reads the pointer of an older system. Raises `SealBroken`."""


class Pointers:
    """The pointers of all rooms. May be used by many threads at once, and beside other processes.

    `forget_seconds`: how long it is remembered how high a room's pointer was; no longer than tombstones are kept.
    """

    def __init__(
        self,
        objects: ObjectStore,
        keys: Keys,
        *,
        read_legacy: ReadLegacy | None = None,
        forget_seconds: float = DEFAULT_TOMBSTONE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._objects = objects
        self._keys = keys
        self._read_legacy = read_legacy
        self._forget_seconds = forget_seconds
        self._seen = SeenPointers(forget_seconds, clock)
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]
        self._observing = threading.Lock()
        self.observer: Observer = lambda _room, _pointer: None

    def known(self, room: RoomId) -> Pointer | None:
        """Return the pointer as this process saw it last, or else as it is."""
        return self._seen.current(room) or self.read(room)

    def read(self, room: RoomId, *, remember: bool = True) -> Pointer | None:
        """Return the pointer as it is now; None: the room has none.

        `remember`: also that of a room that was not met before; who goes through all rooms leaves that. Raises
        `BadPointer` if it is damaged, or behind where this process has seen it; `SealKeyUnavailable`.
        """
        furthest = self._seen.furthest(room)
        pointer = self.look(room)
        is_behind = furthest is not None and (pointer is None or pointer.is_behind(furthest))
        if furthest is not None and is_behind and not self._is_over(furthest):
            self._seen.doubt(room)
            where = f"{'deleted up to' if furthest.is_deleted else 'at'} epoch {furthest.epoch}"
            seen = f"and this server has seen it {where}"
            if pointer is None:
                raise BadPointer(room, f"is gone, {seen}", CreateOnly())
            if pointer.is_plain and not furthest.is_plain:
                raise BadPointer(room, f"is plain text, {seen}, sealed", IfMatch(pointer.etag))
            hint = "; files put back undo no deletion: delete it again and save it anew" if furthest.is_deleted else ""
            what = f"names epoch {pointer.epoch}, {seen}: it was rolled back{hint}"
            raise BadPointer(room, what, IfMatch(pointer.etag))
        if is_behind:
            self._seen.forget(room)
        self._observed(room, pointer, remember=remember)
        return pointer

    def look(self, room: RoomId) -> Pointer | None:
        """Return the pointer as it is now, and remember nothing of it. Raises `BadPointer` if it is damaged."""
        condition: Condition = OVERWRITE  # not even its etag can be told
        try:
            with self._objects.get(room.pointer_key) as reader:
                info = reader.info
                condition = IfMatch(info.etag)
                if info.size_bytes > MAX_POINTER_BYTES:
                    raise SealBroken("it is too long for a pointer")
                data = b"".join(chunk.data for chunk in reader)
            with unreadable_named(f"the latest pointer of room {room.text!r}", room):
                return self._decoded(room, data, info)
        except ObjectNotFound:
            return None
        except (SealBroken, IntegrityFailed) as error:
            self._seen.doubt(room)
            what = error.message if isinstance(error, HoldfastError) else str(error)
            raise BadPointer(room, f"is damaged: {what}", condition) from error

    def unread(self, room: RoomId, error: HoldfastError) -> BadPointer:
        """Return a pointer that cannot be read for this reason, to be replaced by somebody who means it."""
        what = f"cannot be read: {error.message}"
        try:
            with self._objects.get(room.pointer_key, Tail(seal.MAX_FOOTER_BYTES)) as reader:
                bad = BadPointer(room, what, IfMatch(reader.info.etag))
                end = b"".join(chunk.data for chunk in reader)
        except ObjectNotFound:
            return BadPointer(room, what, CreateOnly())
        with suppress(SealBroken):
            bad.said_epoch = seal.epoch_in(end)
        return bad

    def furthest(self, room: RoomId) -> Pointer | None:
        """Return the pointer when this process saw it furthest; None: it remembers none."""
        return self._seen.furthest(room)

    def furthest_epoch(self, room: RoomId) -> int:
        """Return the highest epoch that this process has seen the pointer at; -1: none."""
        furthest = self._seen.furthest(room)
        return -1 if furthest is None else furthest.epoch

    def floor(self, room: RoomId) -> int:
        """Return the highest epoch that was deleted with the room, as far as this process has seen; -1: none."""
        furthest = self._seen.furthest(room)
        return NO_FLOOR if furthest is None else furthest.floor

    def advance(
        self,
        target: Target,
        known: Pointer | None,
        *,
        check: Check = lambda _pointer: None,
        replacing: BadPointer | None = None,
    ) -> tuple[bool, Pointer]:
        """Move a pointer to a checkpoint that is stored, unless it is there or beyond.

        `known` is where it was seen before that was stored: while it is still there, nobody began to delete the room
        meanwhile. Each pointer that it would be moved from is shown to `check`, which may refuse. `replacing`: the bad
        one that is to be replaced. Returns whether this moved it, and the pointer. Raises `EpochTooOld` if the epoch
        was deleted with its room, or lies below a tombstone; `BadPointer`, `ConcurrentModification`,
        `DeadlineExceeded`.
        """
        room = target.room
        with _held(self._stripes[hash(room) % _STRIPES]):
            if replacing is not None:
                return True, self._replace(target, replacing)
            # Others of this process may have moved it meanwhile: then the first try would be in vain.
            newer = self._seen.current(room)
            if newer is not None and (known is None or newer.rank >= known.rank):
                known = newer
            return self._advance(target, known, check)

    def _advance(self, target: Target, known: Pointer | None, check: Check) -> tuple[bool, Pointer]:
        room = target.room
        is_fresh = False
        for _ in range(_TRIES):
            if known is not None and not target.needs(known):
                if is_fresh:
                    check(known)
                    if target.epoch <= known.floor:
                        raise deleted(room, target.epoch, known)
                    if target.is_other_than(known):
                        what = f"names a checkpoint of epoch {known.epoch} that is not there any more"
                        raise BadPointer(room, what, IfMatch(known.etag))
                    return False, known
                # What was remembered may be gone by now, and an answer that rests on it has to be true.
                known, is_fresh = self.read(room), True
                continue
            check(known)
            try:
                condition: Condition = CreateOnly() if known is None else IfMatch(known.etag)
                return True, self._write(_saying(target, known), condition)
            except (ObjectExists, PreconditionFailed, ConcurrentModification, IntegrityFailed) as lost:
                known, is_fresh = self.read(room), True
                if isinstance(lost, ConcurrentModification):
                    calls.pause(random.uniform(0, _PAUSE_SECONDS), "the room's pointer")  # noqa: S311 (no secret)
        message = f"room {room.text!r}: the pointer was moved by others each time that it was tried"
        raise ConcurrentModification(message, room_id=room.text)

    def _replace(self, target: Target, bad: BadPointer) -> Pointer:
        room = target.room
        try:
            return self._write(_saying(target, self.furthest(room)), self._still(room, bad))
        except (ObjectExists, PreconditionFailed):
            message = f"room {room.text!r}: its damaged pointer was replaced by others"
            raise ConcurrentModification(message, room_id=room.text) from None

    def bury(self, room: RoomId, epoch: int, known: Pointer | BadPointer | None, deletion: str = "") -> Pointer:
        """Replace the pointer, if it is still the known one, by a tombstone at this epoch: see `tombstone_epoch`.

        `deletion`: the id of the request, or empty. Raises `ConcurrentModification` if it is another one.
        """
        condition: Condition = CreateOnly()
        try:
            if known is not None:
                condition = self._still(room, known) if isinstance(known, BadPointer) else IfMatch(known.etag)
            return self._write(Said(room, epoch, is_deleted=True, deletion=deletion), condition)
        except (ObjectExists, PreconditionFailed):
            message = f"room {room.text!r} was saved while it was deleted"
            raise ConcurrentModification(message, room_id=room.text) from None

    def _still(self, room: RoomId, bad: BadPointer) -> Condition:
        """Return what holds while a bad pointer is still that one. Raises `ObjectExists` if it is not.

        One whose etag cannot be told either may be replaced by others in the moment after this.
        """
        if isinstance(bad.condition, Overwrite):
            try:
                with self._objects.get(room.pointer_key) as reader:
                    raise ObjectExists(reader.info)
            except ObjectNotFound:
                return CreateOnly()
            except IntegrityFailed:
                pass
        return bad.condition

    def remove(self, tombstone: Pointer) -> bool:
        """Remove a tombstone, if it is still there."""
        try:
            removed = self._objects.delete(tombstone.room.pointer_key, condition=IfMatch(tombstone.etag))
        except PreconditionFailed:
            return False
        self._seen.forget(tombstone.room)
        return removed

    def rewrite(self, pointer: Pointer, tag: bytes) -> Pointer:
        """Write the pointer of an older system in its new form, if it is still this one."""
        return self._write(_saying(Target(pointer.room, pointer.epoch, tag), pointer), IfMatch(pointer.etag))

    def _write(self, said: Said, condition: Condition) -> Pointer:
        sealed = said.sealed(self._keys.ring.signing)
        try:
            info = self._objects.put(said.room.pointer_key, Body.of(sealed), condition=condition)
        except HoldfastError:
            self._seen.doubt(said.room)  # it may have been written, or is another one
            raise
        pointer = said.stored(info)
        self._observed(said.room, pointer)
        return pointer

    def _decoded(self, room: RoomId, data: bytes, info: ObjectInfo) -> Pointer:
        if data.startswith(seal.MAGIC):
            return opened(data, self._keys, room, info)
        if self._read_legacy is None:
            if epoch_in(data.decode(errors="replace"), room) is not None:
                raise SealBroken("it is in the form of shellcade, and checkpoint_store.legacy is off")
            return opened(data, self._keys, room, info)
        pointer = self._read_legacy(room, data, info)
        if self._seen.furthest(room) != pointer:  # else it was looked into
            check_plain(self._objects, pointer)
        return pointer

    def _observed(self, room: RoomId, pointer: Pointer | None, *, remember: bool = True) -> None:
        with self._observing:  # so that what is told comes in the order in which it was seen
            if self._seen.see(room, pointer, remember=remember):
                self.observer(room, pointer)

    def _is_over(self, tombstone: Pointer) -> bool:
        """Tell whether a room was deleted so long ago that another server may have removed its tombstone."""
        # A little less: the times of puts are told in whole seconds, and in two ways.
        oldest = self._objects.now() - timedelta(
            seconds=self._forget_seconds - min(_CLOCKS_SECONDS, self._forget_seconds / 10)
        )
        return tombstone.is_deleted and tombstone.update_time < oldest


def _saying(target: Target, before: Pointer | None) -> Said:
    """Return what names a checkpoint, and goes on with what was deleted before."""
    floor, deletion = (NO_FLOOR, "") if before is None else (before.floor, before.deletion)
    return Said(target.room, target.epoch, target.tag, floor=floor, deletion=deletion)


def deleted(room: RoomId, epoch: int, pointer: Pointer) -> EpochTooOld:
    """Return the refusal to save an epoch that was, or may have been, deleted with its room.

    `pointer`: the tombstone, or what the room has that was begun anew.
    """
    begun = "it can be begun anew from" if pointer.is_deleted else "it was begun anew, and goes on from"
    message = f"room {room.text!r} was deleted: {begun} epoch {pointer.next_epoch} on, and epoch {epoch} is below"
    return EpochTooOld(
        message,
        room_id=room.text,
        latest_epoch=str(pointer.epoch),
        next_epoch=str(pointer.next_epoch),
        deleted="true",
    )


@contextmanager
def _held(lock: threading.Lock) -> Iterator[None]:
    """Hold a lock for the block; wait no longer than the caller does. Raises `DeadlineExceeded`, `Cancelled`."""
    while not lock.acquire(timeout=_ALIVE_SECONDS):
        calls.check("waiting for another save of the room")
    try:
        yield
    finally:
        lock.release()
