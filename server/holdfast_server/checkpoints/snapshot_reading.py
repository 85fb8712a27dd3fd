"""One snapshot of a room at a time: read whole and verified, or only its verified footer."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from holdfast_server.checkpoints import seal
from holdfast_server.checkpoints.confirmations import CONFIRMED
from holdfast_server.checkpoints.key_ring import Keys
from holdfast_server.checkpoints.names import RoomId
from holdfast_server.checkpoints.opening import OpenLegacy, Payload, WaitingRoom, open_payload
from holdfast_server.checkpoints.seal import (
    HEAD_BYTES,
    MAX_FOOTER_BYTES,
    Footer,
    OtherPurpose,
    Purpose,
    SealBroken,
    SealedAs,
)
from holdfast_server.checkpoints.unreadable import unreadable_named
from holdfast_server.errors import HoldfastError, IntegrityFailed, SealInvalid, SealKeyUnavailable, SealTooNew
from holdfast_server.objects.base import ObjectNotFound, ObjectStore
from holdfast_server.objects.body import Chunk
from holdfast_server.objects.info import ObjectInfo
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.ranges import Tail


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is known of a snapshot. `footer` is None, and `sha256` empty, as for a `Checkpoint`."""

    room: RoomId
    size_bytes: int
    info: ObjectInfo
    footer: Footer | None
    sha256: bytes = b""


@dataclass(frozen=True, slots=True)
class ListedSnapshot:
    """A snapshot in a list, or why nothing can be said of it."""

    room: RoomId
    snapshot: Snapshot | HoldfastError


class Restored:
    """A snapshot that was verified whole, and its bytes. A context manager; iterate it once."""

    def __init__(self, snapshot: Snapshot, payload: Payload) -> None:
        self.snapshot = snapshot
        self._payload = payload

    def __iter__(self) -> Iterator[Chunk]:
        return iter(self._payload)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give back what the payload takes."""
        self._payload.close()


class GivenUp(Exception):
    """A snapshot was there, and was given up."""

    def __init__(self, info: ObjectInfo, footer: Footer) -> None:
        super().__init__(info.key.text)
        self.info = info
        self.footer = footer

    def was_by(self, writer_id: str, etag: str) -> bool:
        """Tell whether this writer, which has a name, confirmed the snapshot that had this etag."""
        by = self.footer.subject
        return bool(writer_id) and by.writer_id == writer_id and by.metadata.get(CONFIRMED) == etag


class Snapshots:
    """Reads snapshots from an `ObjectStore`.

    Raises `ObjectNotFound`, `GivenUp`, `SealInvalid`, `IntegrityFailed` (whose details name the room),
    `SealKeyUnavailable`, `SealTooNew`.
    """

    def __init__(self, objects: ObjectStore, keys: Keys, waiting_room: WaitingRoom) -> None:
        self._objects = objects
        self._keys = keys
        self._waiting_room = waiting_room

    def open(self, room: RoomId, key: ObjectKey, legacy: OpenLegacy | None = None) -> Restored:
        """Return the snapshot under a key, verified whole; the caller closes it."""
        with _damage_named(room), self._objects.get(key) as reader:
            info = reader.info
            if info.size_bytes > self._waiting_room.memory_bytes and legacy is None:
                with suppress(SealKeyUnavailable, SealTooNew):  # as with checkpoints
                    self.look(room)
            try:
                sealed_as = SealedAs(Purpose.SNAPSHOT, room.text)
                payload = open_payload(reader, self._waiting_room, self._keys, sealed_as, legacy=legacy, leaves=True)
            except OtherPurpose as other:
                if other.footer.head.purpose is Purpose.RESTORED:
                    raise GivenUp(info, other.footer) from None
                raise
        return Restored(Snapshot(room, payload.size_bytes, info, payload.footer, payload.sha256), payload)

    def look(self, room: RoomId) -> tuple[ObjectInfo, Footer]:
        """Return what the verified footer of a room's snapshot says.

        Of what was read and is not good the error's details have the etag.
        """
        with (
            _damage_named(room),
            self._objects.get(room.snapshot_key, Tail(MAX_FOOTER_BYTES)) as reader,
        ):
            info = reader.info
            end = b"".join(chunk.data for chunk in reader)
        with _damage_named(room, etag=info.etag):
            try:
                footer = seal.open_footer(end, self._keys, SealedAs(Purpose.SNAPSHOT, room.text))
            except OtherPurpose as other:
                if other.footer.head.purpose is Purpose.RESTORED:
                    raise GivenUp(info, other.footer) from None
                raise
            if footer.stored_bytes != info.size_bytes - HEAD_BYTES - seal.footer_length(end):
                raise SealBroken("it has not the size that was sealed")
        return info, footer

    def is_there(self, key: ObjectKey) -> bool:
        """Tell whether there is anything under a key."""
        try:
            self._objects.stat(key)
        except ObjectNotFound:
            return False
        return True


@contextmanager
def _damage_named(room: RoomId, **known: str) -> Iterator[None]:
    """Say of damage whose it is, and of what cannot be read, what is known of it."""
    what = f"the snapshot of room {room.text!r}"
    try:
        with unreadable_named(what, room, **known):
            yield
    except SealBroken as broken:
        raise SealInvalid(what, str(broken), room_id=room.text, **known) from broken
    except IntegrityFailed as damage:
        damage.details |= {"room_id": room.text}
        raise
