"""Hibernation: one snapshot of a room that sleeps. It goes only when somebody confirms that it arrived."""

import hmac
from collections.abc import Callable, Iterable
from datetime import datetime

from holdfast_server.checkpoints import seal
from holdfast_server.checkpoints.key_ring import Keys, SealKey
from holdfast_server.checkpoints.metrics import CheckpointMetrics
from holdfast_server.checkpoints.names import RoomId
from holdfast_server.checkpoints.opening import OpenLegacy, WaitingRoom
from holdfast_server.checkpoints.seal import Purpose, Subject
from holdfast_server.checkpoints.sealing import Sealing
from holdfast_server.checkpoints.snapshot_lists import SnapshotLists
from holdfast_server.checkpoints.snapshot_reading import (
    CONFIRMED,
    HIBERNATED_BY,
    PAYLOAD,
    GivenUp,
    Restored,
    Snapshot,
    Snapshots,
)
from holdfast_server.errors import (
    AlreadyExists,
    ConcurrentModification,
    IntegrityFailed,
    InvalidArgument,
    NotFound,
    PreconditionFailed,
    Reason,
    SealKeyUnavailable,
    SealTooNew,
)
from holdfast_server.objects.base import OVERWRITE, ObjectNotFound, ObjectStore
from holdfast_server.objects.body import SHA256_BYTES, Body, Chunk, Declared
from holdfast_server.objects.conditions import Condition, CreateOnly, IfMatch, ObjectExists, Overwrite
from holdfast_server.workers import Workers


class SnapshotStore:
    """Snapshots of hibernated rooms, on an `ObjectStore`; all as in `CheckpointStore`. `lists` goes through them.

    Where `legacy` is given, a room without a snapshot of ours is looked for at the flat name of an older system.
    """

    def __init__(
        self,
        objects: ObjectStore,
        keys: Keys,
        waiting_room: WaitingRoom,
        workers: Workers,
        *,
        max_bytes: int,
        encrypt: bool,
        legacy: OpenLegacy | None,
        check_write: Callable[[], None],
        metrics: CheckpointMetrics,
        clock: Callable[[], datetime],
    ) -> None:
        self._objects = objects
        self._keys = keys
        self._snapshots = Snapshots(objects, keys, waiting_room)
        self.lists = SnapshotLists(objects, self._snapshots, workers, legacy)
        self._max_bytes = max_bytes
        self._encrypt = encrypt
        self._legacy = legacy
        self._check_write = check_write
        self._metrics = metrics
        self._clock = clock

    def hibernate(
        self,
        room: RoomId,
        parts: Iterable[Chunk | Declared],
        declared: Declared,
        *,
        subject: Subject,
        condition: Condition = OVERWRITE,
    ) -> Snapshot:
        """Store the snapshot of a room, in the place of one that is there unless the condition forbids that.

        Raises `BrokenUpload`, `InvalidArgument`, `AlreadyExists`, `PreconditionFailed`, `SealKeyUnavailable`, and what
        `ObjectStore.put` raises.
        """
        self._check_write()
        is_asked_for = isinstance(condition, IfMatch)
        _ = self._keys.ring.signing  # before anything is read
        upload = Body(parts, declared, max_bytes=self._max_bytes)
        create_only = isinstance(condition, CreateOnly)
        if create_only:
            condition = self._if_free(room)
        gone: GivenUp | None = None
        if subject.writer_id:
            gone, found = self._found(room)
            # What is given away while the bytes come must not be overwritten by a repeated call.
            condition = found if isinstance(condition, Overwrite) else condition

        def check(sha256: bytes) -> None:
            if gone is not None and self._is_given_away(gone, room, subject.writer_id, sha256):
                raise _given_away(room)

        now, encrypt = self._clock(), self._encrypt
        sealing = Sealing(upload, self._keys, Purpose.SNAPSHOT, subject, now, encrypt=encrypt, check=check)
        try:
            info = self._objects.put(room.snapshot_key, sealing.body, condition=condition)
        except ObjectExists as there:
            if not create_only:
                raise _changed(room) from None
            raise _is_hibernated(room, there.existing.etag) from None
        except PreconditionFailed:
            if is_asked_for:
                raise
            if create_only:
                self._if_free(room)  # refuses, if it is hibernated by now
            raise _changed(room) from None
        finally:
            upload.close()
        self._keys.ring.verifying(sealing.footer.head.key_id)  # it may have been retired while the store took the bytes
        return Snapshot(room, sealing.footer.size_bytes, info, sealing.footer, upload.digests.sha256)

    def _found(self, room: RoomId) -> tuple[GivenUp | None, Condition]:
        """Return what was given up there, if anything was, and the condition that what is there stays."""
        try:
            info, _ = self._snapshots.look(room)
        except GivenUp as given_up:
            return given_up, IfMatch(given_up.info.etag)
        except ObjectNotFound:
            return None, CreateOnly()
        except (IntegrityFailed, SealKeyUnavailable, SealTooNew):
            return None, OVERWRITE  # it is replaced, whatever it is
        return None, IfMatch(info.etag)

    def _is_given_away(self, gone: GivenUp, room: RoomId, writer_id: str, sha256: bytes) -> bool:
        """Tell whether a payload is what this writer hibernated before, and another one has confirmed."""
        by = gone.footer.subject
        if by.writer_id in ("", writer_id) or by.metadata.get(HIBERNATED_BY) != writer_id:
            return False
        key = self._keys.ring.verifying(gone.footer.head.key_id)
        return hmac.compare_digest(by.metadata.get(PAYLOAD, ""), _mark(key, room, sha256))

    def _if_free(self, room: RoomId) -> Condition:
        """Return the condition that the room is still not hibernated; what was given up is nothing."""
        try:
            info, _ = self._snapshots.look(room)
        except GivenUp as given_up:
            return IfMatch(given_up.info.etag)
        except ObjectNotFound:
            if self._legacy is None:
                return CreateOnly()
        else:
            raise _is_hibernated(room, info.etag)
        try:
            raise _is_hibernated(room, self._objects.stat(room.flat_key).etag)
        except ObjectNotFound:
            return CreateOnly()

    def restore(self, room: RoomId) -> Restored:
        """Return a room's snapshot, verified whole; the caller closes it. It stays where it is.

        Raises `NotFound` (SNAPSHOT_NOT_FOUND), `SealInvalid`, `IntegrityFailed`, `SealKeyUnavailable`.
        """
        with self._metrics.reporting():
            return self._restored_of(room)

    def _restored_of(self, room: RoomId) -> Restored:
        try:
            return self._snapshots.open(room, room.snapshot_key)
        except GivenUp:
            raise _not_found(room) from None
        except ObjectNotFound:
            if self._legacy is None:
                raise _not_found(room) from None
        try:
            return self._snapshots.open(room, room.flat_key, self._legacy)
        except (ObjectNotFound, GivenUp):
            raise _not_found(room) from None

    def confirm(self, room: RoomId, etag: str, sha256: bytes, writer_id: str = "") -> None:
        """Give up a snapshot that arrived, in one step: of several who confirm it, one does.

        The same `writer_id` (unless empty) may confirm again. Raises `NotFound` (SNAPSHOT_NOT_FOUND),
        `ConcurrentModification` if it is another one by now or was given up, `InvalidArgument` (INVALID_DIGEST,
        CHECKSUM_MISMATCH, INVALID_CONDITION), and as `restore`.
        """
        self._check_write()
        if not etag:
            raise InvalidArgument(Reason.INVALID_CONDITION, "etag", "etag is empty")
        condition = IfMatch(etag)
        if len(sha256) != SHA256_BYTES:
            message = f"sha256 has {len(sha256)} bytes, not {SHA256_BYTES}"
            raise InvalidArgument(Reason.INVALID_DIGEST, "sha256", message)
        try:
            info, footer = self._snapshots.look(room)
        except GivenUp as given_up:
            if given_up.was_by(writer_id, etag):
                return
            raise _lost(room) from None
        except ObjectNotFound:
            if self._legacy is None:
                raise _not_found(room) from None
            self._confirm_legacy(room, etag, sha256, writer_id)
            return
        if info.etag != etag:
            raise _lost(room)
        if not footer.is_of(sha256, self._keys.ring.verifying(footer.head.key_id)):
            raise _other_bytes(room)
        self._give_up(room, etag, writer_id, condition, (footer.subject.writer_id, sha256))

    def _confirm_legacy(self, room: RoomId, etag: str, sha256: bytes, writer_id: str) -> None:
        with self.restore(room) as restored:
            snapshot = restored.snapshot
        if snapshot.info.etag != etag:
            raise _lost(room)
        if snapshot.sha256 != sha256:
            raise _other_bytes(room)
        # What stands where snapshots of ours do decides who won, and hides the older one until it is gone, too.
        self._give_up(room, etag, writer_id, CreateOnly(), ("", sha256))
        self._objects.delete(snapshot.info.key)

    def _give_up(
        self, room: RoomId, etag: str, writer_id: str, condition: Condition, snapshot: tuple[str, bytes]
    ) -> None:
        hibernated_by, sha256 = snapshot
        key = self._keys.ring.signing
        said = {CONFIRMED: etag, HIBERNATED_BY: hibernated_by, PAYLOAD: _mark(key, room, sha256)}
        subject = Subject(room.text, writer_id=writer_id, metadata=said)
        sealed, _ = seal.seal_bytes(key, Purpose.RESTORED, subject, b"", self._clock())
        try:
            self._objects.put(room.snapshot_key, Body.of(sealed), condition=condition)
        except (ObjectExists, PreconditionFailed, ConcurrentModification):
            try:
                self._snapshots.look(room)
            except GivenUp as given_up:
                if given_up.was_by(writer_id, etag):
                    return  # another try of the same caller was quicker
            except ObjectNotFound:
                pass
            raise _lost(room) from None


def _mark(key: SealKey, room: RoomId, sha256: bytes) -> str:
    """Return what tells a payload of a room, to those who have the key."""
    return hmac.digest(key.derive("restored/mark"), room.text.encode() + sha256, "sha256").hex()


def _not_found(room: RoomId) -> NotFound:
    return NotFound(Reason.SNAPSHOT_NOT_FOUND, f"room {room.text!r} is not hibernated", room_id=room.text)


def _lost(room: RoomId) -> ConcurrentModification:
    message = f"room {room.text!r}: this snapshot was confirmed by another, or replaced by a newer one"
    return ConcurrentModification(message, room_id=room.text)


def _changed(room: RoomId) -> ConcurrentModification:
    message = f"room {room.text!r}: what stands there of its last snapshot was changed meanwhile; try again"
    return ConcurrentModification(message, room_id=room.text)


def _given_away(room: RoomId) -> ConcurrentModification:
    message = f"room {room.text!r}: this snapshot was confirmed by another writer already: the room is theirs"
    return ConcurrentModification(message, room_id=room.text)


def _is_hibernated(room: RoomId, etag: str) -> AlreadyExists:
    message = f"room {room.text!r} is hibernated already, and create_only was asked for"
    return AlreadyExists(Reason.ALREADY_EXISTS, message, room_id=room.text, etag=etag)


def _other_bytes(room: RoomId) -> InvalidArgument:
    message = f"room {room.text!r}: the snapshot has another sha256: what arrived is not what was sent"
    return InvalidArgument(Reason.CHECKSUM_MISMATCH, "sha256", message, room_id=room.text)
