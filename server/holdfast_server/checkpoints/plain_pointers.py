"""Whether a pointer in plain text, as an older system wrote it, may be believed: not after the room was sealed.

Who writes plain pointers stops before anything is sealed. So one that is younger than a sealed checkpoint of its room
was written by an older system that runs on, or by somebody who wants to pass other bytes for this room's.
"""

from holdfast_server.checkpoints.epochs import epochs_of
from holdfast_server.checkpoints.seal import SealBroken
from holdfast_server.checkpoints.sealed_ends import is_there_sealed
from holdfast_server.checkpoints.seen_pointers import Pointer
from holdfast_server.objects.base import ObjectStore


def check_plain(objects: ObjectStore, pointer: Pointer) -> None:
    """Refuse a plain pointer if what was sealed in its room before it is found. Raises `SealBroken`.

    That takes a list of the room's epochs, and the ends of at most four: on either side of the one that it names the
    nearest and the furthest. What is sealed, and younger, is of a save that was broken off, of one at a lower epoch, or
    of a migration.
    """
    older = [
        epoch
        for epoch, entry in epochs_of(objects, pointer.room)
        if entry.record is not None and entry.record.update_time <= pointer.update_time
    ]
    below = [epoch for epoch in older if epoch < pointer.epoch]
    above = [epoch for epoch in older if epoch > pointer.epoch]
    for epoch in sorted({*below[:1], *below[-1:], *above[:1], *above[-1:]}):
        if is_there_sealed(objects, pointer.room.epoch_key(epoch)):
            raise SealBroken(f"it is plain text that was written after epoch {epoch} had been sealed")
