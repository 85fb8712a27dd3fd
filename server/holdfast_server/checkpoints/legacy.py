"""What shellcade wrote, and we read where that is switched on: payloads with a tag behind them, and plain pointers.

`docs/formats.md` describes the forms. Nothing binds such a payload to its room and its epoch, and nothing guards the
pointer: so these are for taking over what is there, and nothing is written in them.
"""

import hashlib
import hmac
from collections.abc import Callable, Iterator

from holdfast_server import calls
from holdfast_server.checkpoints.key_ring import Keys
from holdfast_server.checkpoints.names import EPOCH_ZEROS, SNAPSHOTS, RoomId, epoch_in, room_in
from holdfast_server.checkpoints.pointers import LEGACY_TAG
from holdfast_server.checkpoints.seal import MAGIC, SealBroken
from holdfast_server.checkpoints.seen_pointers import Pointer
from holdfast_server.errors import SealKeyUnavailable
from holdfast_server.objects.base import ListQuery, ObjectStore
from holdfast_server.objects.body import PIECE_BYTES
from holdfast_server.objects.info import ObjectInfo

TAG_BYTES = 32
"""HMAC-SHA256 of the payload, under the one secret that the older system has."""

_EPOCHS_READ_ON = 64
"""So many checkpoints of a room are passed over one by one, before the rest of them by a new list."""


def read_pointer(room: RoomId, data: bytes, info: ObjectInfo) -> Pointer:
    """Read a pointer: the name of a checkpoint of just this room, and nothing else. Raises `SealBroken`."""
    try:
        epoch = epoch_in(data.decode(), room)
    except UnicodeDecodeError:
        epoch = None
    if epoch is None:
        raise SealBroken("it is neither sealed nor the name of a checkpoint of this room")
    return Pointer(
        room, epoch, LEGACY_TAG, is_deleted=False, etag=info.etag, update_time=info.update_time, is_plain=True
    )


class LegacyTags:
    """Verifies payloads that have their tag behind them, made with any of the legacy secrets of the key ring."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def __call__(self, read_at: Callable[[int, int], bytes], size_bytes: int) -> tuple[int, bytes]:
        """Return size and SHA-256 of the payload that an object of `size_bytes` begins with.

        Raises `SealBroken`, and `SealKeyUnavailable` where the ring has no such secret.
        """
        payload_bytes = size_bytes - TAG_BYTES
        if payload_bytes < 0:
            raise SealBroken("it is neither sealed nor long enough for a tag")
        secrets = self._keys.ring.legacy
        if not secrets:
            if read_at(0, len(MAGIC)) == MAGIC:
                raise SealBroken("its end is not that of a seal")
            message = "it is not sealed, and no secret of an older system is in the key ring: `keys add-legacy` adds it"
            raise SealKeyUnavailable(message)
        sha256 = hashlib.sha256()
        tags = [hmac.new(secret, digestmod="sha256") for secret in secrets]
        for offset in range(0, payload_bytes, PIECE_BYTES):
            calls.check("verifying what is stored")
            piece = read_at(offset, min(PIECE_BYTES, payload_bytes - offset))
            sha256.update(piece)
            for tag in tags:
                tag.update(piece)
        found = read_at(payload_bytes, TAG_BYTES)
        if not any([hmac.compare_digest(tag.digest(), found) for tag in tags]):  # noqa: C419 (all take the same time)
            raise SealBroken("it is not sealed, and no legacy secret verifies the tag at its end")
        return payload_bytes, sha256.digest()


def flat_names(objects: ObjectStore, prefix: str = "", after: str = "") -> Iterator[str]:
    """Yield the names under `snapshots/` that are of neither a checkpoint nor a pointer, in byte order.

    Those of rooms whose ids begin with the prefix, after a name. Checkpoints are passed over by seeking, where they are
    many.
    """
    start: str | None = after
    while start is not None:
        begun, start = start, None
        passed = 0
        for item in objects.list(ListQuery(SNAPSHOTS + prefix, begun)):
            if (found := room_in(item.name)) is None:
                yield item.name
                continue
            room, is_epoch = found
            passed = passed + 1 if is_epoch else 0
            if passed > _EPOCHS_READ_ON and item.name.startswith(f"{SNAPSHOTS}{room}/{EPOCH_ZEROS}"):
                start = f"{SNAPSHOTS}{room}/{EPOCH_ZEROS}:"  # behind all that begin with these zeros
                break
