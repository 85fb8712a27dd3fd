"""A room's pointer: which checkpoint is its latest. It moves forward only, in one step, whoever moves it.

It is a small sealed object of its own, and binds the epoch and the seal of that epoch's checkpoint. A room that was
deleted has a tombstone in its place, which holds the highest epoch that there was: epochs go on above it.
"""

import logging
import random
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from holdfast_server import calls
from holdfast_server.checkpoints import seal
from holdfast_server.checkpoints.key_ring import Keys
from holdfast_server.checkpoints.limits import DEFAULT_TOMBSTONE_SECONDS
from holdfast_server.checkpoints.names import RoomId
from holdfast_server.checkpoints.seal import Purpose, SealBroken, Subject
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
from holdfast_server.objects.conditions import Condition, CreateOnly, IfMatch, ObjectExists
from holdfast_server.objects.info import ObjectInfo

_PAYLOAD = struct.Struct(f"<B{seal.TAG_BYTES}s")
_LIVE = 1
_DELETED = 2
_NO_TAG = bytes(seal.TAG_BYTES)
LEGACY_TAG = b""
"""Of a pointer, or of a checkpoint, that an older system wrote: it binds none."""

_MAX_POINTER_BYTES = seal.HEAD_BYTES + _PAYLOAD.size + seal.MAX_FOOTER_BYTES

_TRIES = 100
_PAUSE_SECONDS = 0.05
_ALIVE_SECONDS = 0.5
"""How often one who waits looks whether its caller still does."""

_STRIPES = 256
_REMEMBERED_ROOMS = 50_000
"""About 1 KiB each."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pointer:
    """What a room's pointer says. `epoch` of a tombstone is the highest that was deleted."""

    room: RoomId
    epoch: int
    tag: bytes
    """The seal of the checkpoint that it names; empty where an older system wrote one of both."""
    is_deleted: bool
    etag: str
    update_time: datetime

    @property
    def next_epoch(self) -> int:
        """The lowest epoch that moves it."""
        return self.epoch + 1


@dataclass(slots=True)
class _Remembered:
    """What this process knows of a room's pointer."""

    highest: int
    """The highest epoch that it was seen at."""
    seen_at: float
    pointer: Pointer | None = None
    """As it was last seen; None: it has to be read before it is moved."""
    buried: datetime | None = None
    """When the tombstone was made that it was seen as; None: it was none."""


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
        self._clock = clock
        self._lock = threading.Lock()
        self._rooms: OrderedDict[RoomId, _Remembered] = OrderedDict()
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]
        self.observer: Observer = lambda _room, _pointer: None

    def known(self, room: RoomId) -> Pointer | None:
        """Return the pointer as this process saw it last, or else as it is."""
        with self._lock:
            remembered = self._rooms.get(room)
            pointer = None if remembered is None else remembered.pointer
        return self.read(room) if pointer is None else pointer

    def read(self, room: RoomId) -> Pointer | None:
        """Return the pointer as it is now; None: the room has none.

        Raises `PointerInvalid` if it is damaged, or below where this process has seen it; `SealKeyUnavailable`.
        """
        highest = self.highest(room)
        pointer = self._read(room)
        if pointer is None and highest >= 0 and not self._is_over(room):
            self._forget(room)
            raise PointerInvalid(room.text, f"is gone, and this server has seen it at epoch {highest}")
        if pointer is not None and pointer.epoch < highest:
            self._forget(room)
            what = f"names epoch {pointer.epoch}, and this server has seen it at epoch {highest}: it was rolled back"
            raise PointerInvalid(room.text, what, latest_epoch=str(pointer.epoch))
        self._observed(room, pointer)
        return pointer

    def advance(
        self,
        room: RoomId,
        epoch: int,
        tag: bytes,
        known: Pointer | None,
        *,
        check: Check = lambda _pointer: None,
        replace_damaged: bool = False,
    ) -> tuple[bool, Pointer]:
        """Move the pointer to a checkpoint that is stored, unless it is there or beyond.

        `known` is where it was seen before that was stored: while it is still there, nobody began to delete the room
        meanwhile. Each pointer that it would be moved from is shown to `check`, which may refuse. Returns whether this
        moved it, and the pointer. Raises `EpochTooOld` if the room was deleted at this epoch or a higher one,
        `PointerInvalid` unless `replace_damaged`, `ConcurrentModification`, `DeadlineExceeded`.
        """
        with _held(self._stripes[hash(room) % _STRIPES]):
            return self._advance(room, epoch, tag, known, check, replace_damaged=replace_damaged)

    def _advance(
        self, room: RoomId, epoch: int, tag: bytes, known: Pointer | None, check: Check, *, replace_damaged: bool
    ) -> tuple[bool, Pointer]:
        with self._lock:
            # Others of this process may have moved it meanwhile, and then nothing needs to be tried.
            remembered = self._rooms.get(room)
            newer = None if remembered is None else remembered.pointer
        if newer is not None and (known is None or newer.epoch >= known.epoch):
            known = newer
        condition: Condition = CreateOnly() if known is None else IfMatch(known.etag)
        for _ in range(_TRIES):
            check(known)
            if known is not None and known.epoch >= epoch:
                if known.is_deleted:
                    raise deleted(room, epoch, known)
                # An epoch is stored once. One that was lost, and stored anew, is named anew.
                # What an older system wrote has no tag, and takes from no pointer the one that it binds.
                if known.epoch > epoch or LEGACY_TAG in (tag, known.tag) or known.tag == tag:
                    return False, known
            try:
                return True, self._write(room, epoch, tag, condition)
            except (ObjectExists, PreconditionFailed, ConcurrentModification, IntegrityFailed) as lost:
                try:
                    known = self.read(room)
                    condition = CreateOnly() if known is None else IfMatch(known.etag)
                except PointerInvalid:
                    if not replace_damaged:
                        raise
                    known, condition = None, self._condition_on_damaged(room)
                if isinstance(lost, ConcurrentModification):
                    calls.pause(random.uniform(0, _PAUSE_SECONDS), "the room's pointer")  # noqa: S311 (no secret)
        message = f"room {room.text!r}: the pointer was moved by others each time that it was tried"
        raise ConcurrentModification(message, room_id=room.text)

    def bury(self, room: RoomId, epoch: int, known: Pointer | None) -> Pointer:
        """Replace the pointer, if it is still the known one, by a tombstone that holds this epoch.

        Raises `ConcurrentModification` if it is another one.
        """
        condition: Condition = CreateOnly() if known is None else IfMatch(known.etag)
        try:
            return self._write(room, epoch, _NO_TAG, condition, state=_DELETED)
        except (ObjectExists, PreconditionFailed):
            message = f"room {room.text!r} was saved while it was deleted"
            raise ConcurrentModification(message, room_id=room.text) from None

    def bury_damaged(self, room: RoomId, epoch: int) -> Pointer:
        """Replace a pointer that cannot be read by a tombstone."""
        return self._write(room, epoch, _NO_TAG, self._condition_on_damaged(room), state=_DELETED)

    def remove(self, tombstone: Pointer) -> bool:
        """Remove a tombstone, if it is still there."""
        try:
            removed = self._objects.delete(tombstone.room.pointer_key, condition=IfMatch(tombstone.etag))
        except PreconditionFailed:
            return False
        with self._lock:
            self._rooms.pop(tombstone.room, None)
        return removed

    def rewrite(self, pointer: Pointer, tag: bytes) -> Pointer:
        """Write the pointer of an older system in its new form, if it is still this one."""
        return self._write(pointer.room, pointer.epoch, tag, IfMatch(pointer.etag))

    def _write(self, room: RoomId, epoch: int, tag: bytes, condition: Condition, *, state: int = _LIVE) -> Pointer:
        key = self._keys.ring.signing
        subject = Subject(room.text, epoch)
        sealed, _ = seal.seal_bytes(
            key, Purpose.POINTER, subject, _PAYLOAD.pack(state, tag or _NO_TAG), datetime.now(UTC)
        )
        try:
            info = self._objects.put(room.pointer_key, Body.of(sealed), condition=condition)
        except HoldfastError:
            self._forget(room)  # it may have been written, or is another one
            raise
        pointer = _pointer(room, epoch, tag or _NO_TAG, state, info)
        self._observed(room, pointer)
        return pointer

    def _read(self, room: RoomId) -> Pointer | None:
        try:
            with self._objects.get(room.pointer_key) as reader:
                info = reader.info
                if info.size_bytes > _MAX_POINTER_BYTES:
                    raise SealBroken("it is too long for a pointer")
                data = b"".join(chunk.data for chunk in reader)
            return self._decoded(room, data, info)
        except ObjectNotFound:
            return None
        except (SealBroken, IntegrityFailed) as error:
            self._forget(room)
            what = error.message if isinstance(error, HoldfastError) else str(error)
            raise PointerInvalid(room.text, f"is damaged: {what}") from error

    def _decoded(self, room: RoomId, data: bytes, info: ObjectInfo) -> Pointer:
        if self._read_legacy is not None and not data.startswith(seal.MAGIC):
            return self._read_legacy(room, data, info)
        payload, footer = seal.open_bytes(data, self._keys, Purpose.POINTER, room.text)
        state, tag = _PAYLOAD.unpack(payload)
        return _pointer(room, footer.subject.epoch, tag, state, info)

    def _condition_on_damaged(self, room: RoomId) -> Condition:
        try:
            return IfMatch(self._objects.stat(room.pointer_key).etag)
        except ObjectNotFound:
            return CreateOnly()
        except IntegrityFailed:
            return OVERWRITE  # not even its etag can be told

    def highest(self, room: RoomId) -> int:
        """Return the highest epoch that this process has seen the pointer at; -1: none."""
        with self._lock:
            remembered = self._rooms.get(room)
            if remembered is None:
                return -1
            if self._clock() - remembered.seen_at > self._forget_seconds:
                del self._rooms[room]
                return -1
            return remembered.highest

    def _observed(self, room: RoomId, pointer: Pointer | None) -> None:
        """Remember a pointer that was seen, unless another thread has seen a later one meanwhile."""
        epoch = -1 if pointer is None else pointer.epoch
        with self._lock:
            remembered = self._rooms.get(room)
            if remembered is not None and epoch < remembered.highest:
                return
            if pointer is not None:
                buried = pointer.update_time if pointer.is_deleted else None
                self._rooms[room] = _Remembered(epoch, self._clock(), pointer, buried)
                self._rooms.move_to_end(room)
                while len(self._rooms) > _REMEMBERED_ROOMS:
                    self._rooms.popitem(last=False)
        self.observer(room, pointer)

    def _is_over(self, room: RoomId) -> bool:
        """Tell whether the room had a tombstone that is so old that another server may have removed it; forget it."""
        with self._lock:
            remembered = self._rooms.get(room)
            buried = None if remembered is None else remembered.buried
        if buried is None or buried >= self._objects.now() - timedelta(seconds=self._forget_seconds):
            return False
        with self._lock:
            self._rooms.pop(room, None)
        return True

    def _forget(self, room: RoomId) -> None:
        """Forget the pointer, but not how high it was."""
        with self._lock:
            if (remembered := self._rooms.get(room)) is not None:
                remembered.pointer = None


def deleted(room: RoomId, epoch: int, tombstone: Pointer) -> EpochTooOld:
    """Return the refusal to save an epoch that was, or may have been, deleted with its room."""
    message = f"room {room.text!r} was deleted at epoch {tombstone.epoch}: epoch {epoch} is not above it"
    return EpochTooOld(
        message, room_id=room.text, latest_epoch=str(tombstone.epoch), next_epoch=str(tombstone.next_epoch)
    )


def _pointer(room: RoomId, epoch: int, tag: bytes, state: int, info: ObjectInfo) -> Pointer:
    return Pointer(room, epoch, tag if tag != _NO_TAG else LEGACY_TAG, state == _DELETED, info.etag, info.update_time)


@contextmanager
def _held(lock: threading.Lock) -> Iterator[None]:
    """Hold a lock for the block; wait no longer than the caller does. Raises `DeadlineExceeded`, `Cancelled`."""
    while not lock.acquire(timeout=_ALIVE_SECONDS):
        calls.check("waiting for another save of the room")
    try:
        yield
    finally:
        lock.release()
