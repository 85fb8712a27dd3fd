"""One checkpoint of a room at a time: read whole and verified, or only its verified footer."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from holdfast_server.checkpoints import seal
from holdfast_server.checkpoints.checkpoint import Checkpoint
from holdfast_server.checkpoints.key_ring import Keys
from holdfast_server.checkpoints.names import RoomId
from holdfast_server.checkpoints.opening import OpenLegacy, Payload, WaitingRoom, open_payload
from holdfast_server.checkpoints.pointers import LEGACY_TAG
from holdfast_server.checkpoints.seal import (
    END_MAGIC,
    HEAD_BYTES,
    MAX_FOOTER_BYTES,
    Footer,
    Purpose,
    SealBroken,
    SealedAs,
)
from holdfast_server.checkpoints.unreadable import unreadable_named
from holdfast_server.errors import (
    BackendRefused,
    Cancelled,
    DeadlineExceeded,
    HoldfastError,
    IntegrityFailed,
    PreconditionFailed,
    SealInvalid,
    SealKeyUnavailable,
    SealTooNew,
)
from holdfast_server.objects.base import OVERWRITE, ObjectNotFound, ObjectStore
from holdfast_server.objects.conditions import Condition, IfMatch
from holdfast_server.objects.info import ObjectInfo
from holdfast_server.objects.ranges import Tail

_MOST_FAILURES = 5
"""In a row: then it is not one room's trouble."""


class Checkpoints:
    """Reads checkpoints from an `ObjectStore`. `legacy`: what opens the older form; None: that is damage.

    Raises `ObjectNotFound`, `SealInvalid`, `IntegrityFailed` (whose details name room and epoch), `SealKeyUnavailable`.
    """

    def __init__(
        self, objects: ObjectStore, keys: Keys, waiting_room: WaitingRoom, legacy: OpenLegacy | None = None
    ) -> None:
        self._objects = objects
        self._keys = keys
        self._waiting_room = waiting_room
        self._legacy = legacy
        self._lock = threading.Lock()
        self._in_use: Counter[tuple[RoomId, int]] = Counter()

    def open(
        self, room: RoomId, epoch: int, tag: bytes = LEGACY_TAG, *, leaves: bool = False
    ) -> tuple[Checkpoint, Payload]:
        """Return a checkpoint and its payload, verified whole, which the caller closes; `tag`: the seal to be found.

        `leaves`: the payload will wait for a reader.
        """
        with self._used(room, epoch), _damage_named(room, epoch), self._objects.get(room.epoch_key(epoch)) as reader:
            info = reader.info
            if info.size_bytes > self._waiting_room.memory_bytes and self._legacy is None:
                # Before anything of that size waits in the room that all share. What is no damage here may be damage
                # to whoever sees head and footer.
                with suppress(SealKeyUnavailable, SealTooNew):
                    self._footer(room, epoch, info)
            sealed_as = _sealed_as(room, epoch)
            payload = open_payload(
                reader, self._waiting_room, self._keys, sealed_as, legacy=self._legacy, leaves=leaves
            )
            try:
                _check_tag(payload.footer, tag)
            except SealBroken:
                payload.close()
                raise
        return Checkpoint(room, epoch, payload.size_bytes, info, payload.footer, payload.sha256), payload

    def stat(self, room: RoomId, epoch: int, tag: bytes = LEGACY_TAG) -> Checkpoint:
        """Return what is known of a checkpoint, from its verified footer alone; the older form is read whole."""
        with self._used(room, epoch), _damage_named(room, epoch):
            found = self._footer(room, epoch)
            if found is not None:
                info, footer = found
                _check_tag(footer, tag)
                return Checkpoint(room, epoch, footer.size_bytes, info, footer)
        checkpoint, payload = self.open(room, epoch, tag)
        payload.close()
        return checkpoint

    def is_in_use(self, room: RoomId, epoch: int) -> bool:
        """Tell whether a checkpoint is being read now."""
        with self._lock:
            return self._in_use[room, epoch] > 0

    def _footer(self, room: RoomId, epoch: int, info: ObjectInfo | None = None) -> tuple[ObjectInfo, Footer] | None:
        """Return the verified footer of an object, or of this one; None: it is in the older form."""
        condition: Condition = OVERWRITE if info is None else IfMatch(info.etag)
        try:
            with self._objects.get(room.epoch_key(epoch), Tail(MAX_FOOTER_BYTES), condition=condition) as reader:
                info = reader.info
                end = b"".join(chunk.data for chunk in reader)
        except PreconditionFailed:
            raise ObjectNotFound(room.epoch_key(epoch)) from None  # it was replaced, as no checkpoint is
        if self._legacy is not None and not end.endswith(END_MAGIC):
            return None
        footer = seal.open_footer(end, self._keys, _sealed_as(room, epoch))
        if footer.stored_bytes != info.size_bytes - HEAD_BYTES - seal.footer_length(end):
            raise SealBroken("it has not the size that was sealed")
        return info, footer

    @contextmanager
    def _used(self, room: RoomId, epoch: int) -> Iterator[None]:
        with self._lock:
            self._in_use[room, epoch] += 1
        try:
            yield
        finally:
            with self._lock:
                self._in_use[room, epoch] -= 1
                if not self._in_use[room, epoch]:
                    del self._in_use[room, epoch]


class Failures:
    """Counts what fails one after the other, of many that are gone through: one of them must not stop the others."""

    def __init__(self) -> None:
        self._in_a_row = 0

    def count(self, error: HoldfastError) -> None:
        """Count a failure, or raise it: if nobody waits any more, or it is the backend that is away."""
        self._in_a_row += not concerns_one(error)
        if isinstance(error, Cancelled | DeadlineExceeded | BackendRefused) or self._in_a_row >= _MOST_FAILURES:
            raise error

    def forget(self) -> None:
        """Begin anew: one went well."""
        self._in_a_row = 0


def concerns_one(error: HoldfastError) -> bool:
    """Tell whether an error is about one room or checkpoint, and not about the backend or the call."""
    return isinstance(error, IntegrityFailed | PreconditionFailed | SealKeyUnavailable | SealTooNew)


def _sealed_as(room: RoomId, epoch: int) -> SealedAs:
    return SealedAs(Purpose.CHECKPOINT, room.text, epoch)


def _check_tag(footer: Footer | None, tag: bytes) -> None:
    found = LEGACY_TAG if footer is None else footer.tag
    if tag not in (LEGACY_TAG, found):
        raise SealBroken("it is not the one that the pointer names")


@contextmanager
def _damage_named(room: RoomId, epoch: int) -> Iterator[None]:
    """Say of damage, and of what cannot be read, whose it is."""
    names = {"room_id": room.text, "epoch": str(epoch)}
    try:
        with unreadable_named(f"room {room.text!r}, epoch {epoch}", room, epoch=str(epoch)):
            yield
    except SealBroken as broken:
        raise SealInvalid(f"room {room.text!r}, epoch {epoch}", str(broken), **names) from broken
    except IntegrityFailed as damage:
        damage.details |= names
        raise
