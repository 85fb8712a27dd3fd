"""Seals under the signing key what would hold an older one for ever: pointers, tombstones, and wake marks.

Checkpoints and snapshots go in their time, and their key with them. The pointer of a room that rests, a tombstone, and
what stands for a snapshot that was given up may stay, and are small: so they are sealed anew, with the same content.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from holdfast_server.checkpoints import confirmations, seal
from holdfast_server.checkpoints.key_ring import Keys, KeyState
from holdfast_server.checkpoints.names import RoomId
from holdfast_server.checkpoints.pointer_form import MAX_POINTER_BYTES
from holdfast_server.checkpoints.seal import Footer, Purpose, SealBroken
from holdfast_server.checkpoints.seen_pointers import Pointer
from holdfast_server.errors import ConcurrentModification, PreconditionFailed, SealInvalid
from holdfast_server.objects.base import ConditionMode, ObjectNotFound, ObjectStore
from holdfast_server.objects.body import Body
from holdfast_server.objects.conditions import IfMatch
from holdfast_server.objects.info import ObjectInfo
from holdfast_server.objects.key import ObjectKey

_SETTLED = timedelta(days=1)
"""Until then a copy of the ring, in which an older key signs still, is replaced on all servers."""


class Resealing:
    """Seals anew what it is shown, where another key than the signing one sealed it; `count` is how many it did.

    Each is one conditional put on just what was read: whoever saves, deletes or hibernates meanwhile was quicker, and
    it stays as they left it. Nothing is done where the backend does not keep conditions among all who write.
    """

    def __init__(self, objects: ObjectStore, keys: Keys) -> None:
        self._objects = objects
        self._keys = keys
        self.count = 0

    @property
    def is_of_use(self) -> bool:
        """Whether there may be anything that another key sealed, and that can be read."""
        if self._keys.problem is not None or not self._is_safe:
            return False
        return any(key.state is KeyState.VERIFYING for key in self._keys.ring.keys)

    def pointer(self, pointer: Pointer) -> bool:
        """Seal a pointer or a tombstone anew if that is due, and tell whether this did. Raises `SealKeyUnavailable`."""
        if not self._is_due(pointer.key_id, pointer.update_time):
            return False
        return self._seal(pointer.room, pointer.room.pointer_key, pointer.etag, Purpose.POINTER)

    def mark(self, room: RoomId, info: ObjectInfo, footer: Footer) -> bool:
        """Do the same with what stands for a snapshot that was given up."""
        if not self._is_due(footer.head.key_id, info.update_time):
            return False
        return self._seal(room, room.snapshot_key, info.etag, Purpose.RESTORED)

    @property
    def _is_safe(self) -> bool:
        return self._objects.describe().conditions.put is ConditionMode.ATOMIC

    def _is_due(self, key_id: bytes, update_time: datetime) -> bool:
        ring = self._keys.ring
        signing = ring.signing
        if key_id == signing.id or not self._is_safe:
            return False
        places = {key.id: place for place, key in enumerate(ring.keys) if key.state is not KeyState.RETIRED}
        if key_id not in places:
            return False  # of an older system; or it is retired just now
        # While a rotation goes from server to server, those that were not reached must not undo what others did.
        return places[key_id] < places[signing.id] or update_time < self._objects.now() - _SETTLED

    def _seal(self, room: RoomId, key: ObjectKey, etag: str, purpose: Purpose) -> bool:
        try:
            with self._objects.get(key, condition=IfMatch(etag)) as reader:
                if reader.info.size_bytes > MAX_POINTER_BYTES:
                    raise SealBroken("it is too long")
                data = b"".join(chunk.data for chunk in reader)
            payload, footer = seal.open_bytes(data, self._keys, purpose, room.text)
            subject = footer.subject
            if purpose is Purpose.RESTORED:
                subject = replace(subject, metadata=confirmations.kept(footer))
            sealed, _ = seal.seal_bytes(self._keys.ring.signing, purpose, subject, payload, footer.create_time)
            self._objects.put(key, Body.of(sealed), condition=IfMatch(etag))
        except (ObjectNotFound, PreconditionFailed, ConcurrentModification):
            return False
        except SealBroken as broken:
            what = f"the {purpose.name.lower()} of room {room.text!r}"
            raise SealInvalid(what, str(broken), room_id=room.text) from broken
        self.count += 1
        return True
