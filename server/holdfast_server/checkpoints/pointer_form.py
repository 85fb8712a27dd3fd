"""What the bytes of a room's pointer say: its sealed form, as `docs/formats.md` has it."""

import struct
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from holdfast_server.checkpoints import seal
from holdfast_server.checkpoints.key_ring import Keys, SealKey
from holdfast_server.checkpoints.names import MAX_EPOCH, RoomId
from holdfast_server.checkpoints.seal import Purpose, Subject
from holdfast_server.checkpoints.seen_pointers import NO_FLOOR, Pointer
from holdfast_server.objects.info import ObjectInfo

TOMBSTONE_GAP = 1_000_000
"""How far a tombstone lies above the highest epoch that there was: who has not heard of the deletion stays below it.

A node that runs the room counts on by one, and no further while it is refused. Where epochs are milliseconds, it is 16
minutes.
"""

_PAYLOAD = struct.Struct(f"<B{seal.TAG_BYTES}s")
_LIVE = 1
_DELETED = 2
_NO_TAG = bytes(seal.TAG_BYTES)
_DELETED_TO = "deleted-to"
"""The metadata entry of a pointer that has a floor."""
_DELETED_BY = "deleted-by"
"""That of a tombstone, or of a pointer that has a floor, where the request of the deletion had an id."""

MAX_POINTER_BYTES = seal.HEAD_BYTES + _PAYLOAD.size + seal.MAX_FOOTER_BYTES


def tombstone_epoch(highest: int) -> int:
    """Return where the tombstone of a room goes whose highest epoch that is; above it is one more to begin anew with.

    At the very end of all epochs there may be none: then the room can be begun anew when the tombstone is removed.
    """
    return max(highest, min(highest + TOMBSTONE_GAP, MAX_EPOCH - 1))


@dataclass(frozen=True, slots=True)
class Said:
    """What a pointer is to say: as in `Pointer`."""

    room: RoomId
    epoch: int
    tag: bytes = b""
    is_deleted: bool = False
    floor: int = NO_FLOOR
    deletion: str = ""

    def sealed(self, key: SealKey) -> bytes:
        """Return it in its sealed form."""
        metadata = {} if self.is_deleted or self.floor == NO_FLOOR else {_DELETED_TO: str(self.floor)}
        if self.deletion:
            metadata[_DELETED_BY] = self.deletion
        subject = Subject(self.room.text, self.epoch, metadata=metadata)
        payload = _PAYLOAD.pack(_DELETED if self.is_deleted else _LIVE, self.tag or _NO_TAG)
        return seal.seal_bytes(key, Purpose.POINTER, subject, payload, datetime.now(UTC))[0]

    def stored(self, info: ObjectInfo) -> Pointer:
        """Return it as it was stored."""
        floor = self.epoch if self.is_deleted else self.floor
        return Pointer(
            self.room, self.epoch, self.tag, self.is_deleted, info.etag, info.update_time, floor, self.deletion
        )


def is_tombstone(sealed: bytes) -> bool:
    """Tell whether a whole sealed pointer is a tombstone; it is not verified."""
    return sealed[seal.HEAD_BYTES : seal.HEAD_BYTES + 1] == bytes([_DELETED])


def opened(sealed: bytes, keys: Keys, room: RoomId, info: ObjectInfo) -> Pointer:
    """Return what a sealed pointer of this room says. Raises `SealBroken`, `SealKeyUnavailable`, `SealTooNew`."""
    payload, footer = seal.open_bytes(sealed, keys, Purpose.POINTER, room.text)
    state, tag = _PAYLOAD.unpack(payload)
    floor = int(footer.subject.metadata.get(_DELETED_TO, NO_FLOOR))
    deletion = footer.subject.metadata.get(_DELETED_BY, "")
    said = Said(room, footer.subject.epoch, tag if tag != _NO_TAG else b"", state == _DELETED, floor, deletion)
    return replace(said.stored(info), key_id=footer.head.key_id)
