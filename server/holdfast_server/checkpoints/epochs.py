"""Which epochs of a room are there: their names, read in order."""

from collections.abc import Iterator

from holdfast_server.checkpoints.names import EPOCH_DIGITS, MAX_EPOCH, RoomId, epoch_in
from holdfast_server.objects.base import CommonPrefix, Entry, ListQuery, ObjectStore

_BEYOND = "0" + ":"
"""Behind every epoch: they are below 2^63, and so all begin with a zero."""


def epochs_of(
    objects: ObjectStore, room: RoomId, after: int = -1, up_to: int = MAX_EPOCH
) -> Iterator[tuple[int, Entry]]:
    """Yield the epochs of a room above `after` and up to `up_to` by rising number, with their entries in the list.

    Rooms whose ids begin with this one's lie among them, and are passed over by their prefix.
    """
    start = f"{room.prefix}{after:0{EPOCH_DIGITS}}" if after >= 0 else ""
    for item in objects.list(ListQuery(room.prefix, start, delimiter=True)):
        if item.name >= room.prefix + _BEYOND:
            return
        if not isinstance(item, CommonPrefix) and (epoch := epoch_in(item.name, room)) is not None:
            if epoch > up_to:
                return
            yield epoch, item


def highest_epoch(objects: ObjectStore, room: RoomId, after: int = -1) -> int:
    """Return the highest epoch that there is above `after`, or else `after`."""
    highest = after
    for epoch, _ in epochs_of(objects, room, after):
        highest = epoch
    return highest
