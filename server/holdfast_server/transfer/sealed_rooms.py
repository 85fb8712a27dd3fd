"""What Holdfast has sealed of rooms, where files of an older system come in: what would leave a room unreadable."""

import os
from datetime import UTC, datetime
from functools import lru_cache

from holdfast_server.checkpoints.epochs import epochs_of
from holdfast_server.checkpoints.names import EPOCH_DIGITS, RoomId, epoch_in, room_in
from holdfast_server.checkpoints.plain_pointers import check_plain
from holdfast_server.checkpoints.seal import SealBroken
from holdfast_server.checkpoints.sealed_ends import is_there_sealed
from holdfast_server.checkpoints.seen_pointers import Pointer
from holdfast_server.errors import InvalidArgument
from holdfast_server.objects.base import ObjectStore
from holdfast_server.objects.filesystem.paths import Place
from holdfast_server.objects.key import ObjectKey
from holdfast_server.transfer.tree import Kind, OpenFile, Tree

_ROOMS = 1000
_NO_EPOCH = -1
_WAY_OUT = "`checkpoint load --epoch`, then `checkpoint save --replace-damaged-pointer` above all that there is"


class SealedRooms:
    """The rooms of `target` that files of `tree` come into. May be used by many threads at once."""

    def __init__(self, tree: Tree, target: ObjectStore) -> None:
        self._tree = tree
        self._target = target
        self._lacking = lru_cache(_ROOMS)(self._look_for_lacking)

    def why_not_plain(self, key: ObjectKey, file: OpenFile) -> str:
        """Return why a plain pointer, written now, would be refused by servers; empty: it would not, or is none."""
        room = _room_of(key)
        if room is None or key != room.pointer_key:
            return ""
        name = b"".join(chunk.data for chunk in file.chunks(lambda _size: None))
        epoch = epoch_in(name.decode(errors="replace"), room)
        latest = datetime.max.replace(tzinfo=UTC)
        pointer = Pointer(
            room, _NO_EPOCH if epoch is None else epoch, b"", is_deleted=False, etag="", update_time=latest
        )
        try:
            check_plain(self._target, pointer)
        except SealBroken:
            return f"Holdfast has sealed checkpoints of the room, and its pointer is not; instead of this: {_WAY_OUT}"
        return ""

    def why_not_replaced(self, place: Place, key: ObjectKey) -> str:
        """Return why what was sealed of the room is not replaced by a file of this directory; empty: it may be."""
        room = _room_of(key)
        if room is None or not (name := self._lacking(place, room)):
            return ""
        return f"Holdfast has sealed {name!r}, and the directory has no such file: nothing of the room is replaced"

    def _look_for_lacking(self, place: Place, room: RoomId) -> str:
        """Return the name of an epoch that was sealed, and that the directory lacks; empty: there is none."""
        names = {found.name for found in self._tree.names(place) if found.kind is Kind.FILE}
        for epoch, _ in epochs_of(self._target, room):
            key = room.epoch_key(epoch)
            if os.fsencode(f"{epoch:0{EPOCH_DIGITS}}") not in names and is_there_sealed(self._target, key):
                return key.text
        return ""


def _room_of(key: ObjectKey) -> RoomId | None:
    """Return the room whose checkpoint or pointer has this key."""
    found = room_in(key.text)
    try:
        return None if found is None else RoomId(found[0])
    except InvalidArgument:
        return None
