"""How a checkpoint is removed, by pruning and by deletion alike: where it is unsure, it is kept."""

from holdfast_server.checkpoints.pointers import Pointers
from holdfast_server.checkpoints.reading import Checkpoints
from holdfast_server.checkpoints.seen_pointers import Pointer
from holdfast_server.errors import ConditionUnsupported, IntegrityFailed, PointerInvalid, PreconditionFailed
from holdfast_server.objects.base import ObjectNotFound, ObjectStore
from holdfast_server.objects.conditions import IfMatch
from holdfast_server.objects.key import ObjectKey

PROGRESS = 100
"""Deletions between two messages."""


def is_latest_good(pointers: Pointers, checkpoints: Checkpoints, pointer: Pointer) -> bool:
    """Read what the pointer names whole: where that is not good, an older one may be the last good state.

    False: the pointer has moved meanwhile. Raises what is wrong with it.
    """
    room = pointer.room
    try:
        _, payload = checkpoints.open(room, pointer.epoch, pointer.tag)
    except (ObjectNotFound, IntegrityFailed) as error:
        if pointers.read(room, remember=False) != pointer:
            return False
        if isinstance(error, IntegrityFailed):
            raise
        what = f"names epoch {pointer.epoch}, and that is not there"
        raise PointerInvalid(room.text, what, epoch=str(pointer.epoch)) from None
    payload.close()
    return True


def sweep(objects: ObjectStore, key: ObjectKey, etag: str) -> bool:
    """Delete just this object, and tell whether it was there.

    Others may have deleted it, or removed the tombstone, and a save have put another one there since.
    """
    try:
        return objects.delete(key, condition=IfMatch(etag))
    except PreconditionFailed:
        return False
    except ConditionUnsupported:
        return objects.delete(key)  # there no tombstone is ever removed, for the same reason
