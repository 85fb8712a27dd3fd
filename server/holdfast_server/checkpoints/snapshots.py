"""Hibernation: one snapshot of a room that sleeps. It goes only when somebody confirms that it arrived."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime

from holdfast_server.checkpoints import confirmations, seal
from holdfast_server.checkpoints.confirmations import CONFIRMED, HIBERNATED_BY, PAYLOAD
from holdfast_server.checkpoints.key_ring import Keys
from holdfast_server.checkpoints.metrics import CheckpointMetrics
from holdfast_server.checkpoints.names import RoomId
from holdfast_server.checkpoints.opening import OpenLegacy, WaitingRoom
from holdfast_server.checkpoints.seal import Footer, Purpose, Subject
from holdfast_server.checkpoints.sealing import Sealing
from holdfast_server.checkpoints.snapshot_lists import SnapshotLists
from holdfast_server.checkpoints.snapshot_reading import GivenUp, Restored, Snapshot, Snapshots
from holdfast_server.errors import (
    AlreadyExists,
    ConcurrentModification,
    HoldfastError,
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
from holdfast_server.objects.conditions import Condition, CreateOnly, IfMatch, ObjectExists
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
        replace_damaged: bool = False,
    ) -> Snapshot:
        """Store the snapshot of a room, in the place of one that is there unless the condition forbids that.

        What is damaged there is replaced with `replace_damaged`, or under its etag. Raises `BrokenUpload`,
        `InvalidArgument`, `AlreadyExists`, `PreconditionFailed`, `ConcurrentModification` (what others have confirmed
        comes again; or others were quicker), `SealInvalid`, `IntegrityFailed`, `SealKeyUnavailable`, `SealTooNew` (what
        is there cannot be read), and what `ObjectStore.put` raises.
        """
        self._check_write()
        _ = self._keys.ring.signing  # before anything is read
        with self._metrics.reporting():
            stays, given = self._found(room, condition, replace_damaged=replace_damaged)
            return self._store(
                room, Body(parts, declared, max_bytes=self._max_bytes), subject, (condition, stays), given
            )

    def _store(
        self,
        room: RoomId,
        upload: Body,
        subject: Subject,
        conditions: tuple[Condition, Condition],
        given: tuple[str, ...],
    ) -> Snapshot:
        asked, stays = conditions

        def check(sha256: bytes) -> None:
            if confirmations.is_among(given, self._keys.ring, room, subject.writer_id, sha256):
                raise _given_away(room)

        said = replace(subject, metadata={**subject.metadata, **confirmations.listed(given)})
        try:
            sealing = Sealing(
                upload, self._keys, Purpose.SNAPSHOT, said, self._clock(), encrypt=self._encrypt, check=check
            )
            info = self._objects.put(room.snapshot_key, sealing.body, condition=stays)
        except (ObjectExists, PreconditionFailed):
            if isinstance(asked, IfMatch):
                raise
            if isinstance(asked, CreateOnly):
                self._found(room, asked)  # refuses, if it is hibernated by now
            raise _changed(room) from None
        finally:
            upload.close()
        self._keys.ring.verifying(sealing.footer.head.key_id)  # it may have been retired while the store took the bytes
        return Snapshot(room, sealing.footer.size_bytes, info, sealing.footer, upload.digests.sha256)

    def _found(
        self, room: RoomId, asked: Condition, *, replace_damaged: bool = False
    ) -> tuple[Condition, tuple[str, ...]]:
        """Return the condition that what is there stays while the bytes come, and what others have of the room's.

        What comes there meanwhile must not be replaced unseen: it may say that others have what comes now.
        """
        named = asked if isinstance(asked, IfMatch) else None
        try:
            info, footer = self._snapshots.look(room)
        except ObjectNotFound:
            self._check_legacy(room, asked)
            return named or CreateOnly(), ()
        except GivenUp as given_up:  # that is nothing
            info, footer = given_up.info, given_up.footer
        except (IntegrityFailed, SealKeyUnavailable, SealTooNew) as unreadable:
            if named is not None:
                return named, ()
            if not (replace_damaged and isinstance(unreadable, IntegrityFailed)):
                _advise(unreadable)
                raise
            self._metrics.report(unreadable)
            self._check_legacy(room, asked)
            etag = unreadable.details.get("etag")
            # Without one not even the backend can tell it from what comes meanwhile: its record is damaged.
            return IfMatch(etag) if etag else OVERWRITE, ()
        else:
            if isinstance(asked, CreateOnly):
                raise _is_hibernated(room, info.etag)
        return named or IfMatch(info.etag), confirmations.given_away(footer)

    def _check_legacy(self, room: RoomId, asked: Condition) -> None:
        """Refuse to create where the room has a snapshot of an older system."""
        if self._legacy is None or not isinstance(asked, CreateOnly):
            return
        try:
            raise _is_hibernated(room, self._objects.stat(room.flat_key).etag)
        except ObjectNotFound:
            pass

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
        self._give_up(room, etag, writer_id, condition, (footer, sha256))

    def _confirm_legacy(self, room: RoomId, etag: str, sha256: bytes, writer_id: str) -> None:
        with self.restore(room) as restored:
            snapshot = restored.snapshot
        if snapshot.info.etag != etag:
            raise _lost(room)
        if snapshot.sha256 != sha256:
            raise _other_bytes(room)
        # What stands where snapshots of ours do decides who won, and hides the older one until it is gone, too.
        self._give_up(room, etag, writer_id, CreateOnly(), (None, sha256))
        self._objects.delete(snapshot.info.key)

    def _give_up(
        self, room: RoomId, etag: str, writer_id: str, condition: Condition, snapshot: tuple[Footer | None, bytes]
    ) -> None:
        footer, sha256 = snapshot
        key = self._keys.ring.signing
        said = {CONFIRMED: etag, HIBERNATED_BY: "", PAYLOAD: confirmations.mark(key, room, sha256)}
        if footer is not None:
            said |= {HIBERNATED_BY: footer.subject.writer_id}
            said |= confirmations.listed(confirmations.given_away(footer))
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


def _advise(unreadable: HoldfastError) -> None:
    """Say of what stands in a snapshot's place and cannot be read how it can be replaced all the same."""
    etag = unreadable.details.get("etag", "")
    if isinstance(unreadable, IntegrityFailed):
        unreadable.message += "; it may have said that the room is awake: see that it is not, and set replace_damaged"
    elif etag:
        unreadable.message += f"; only if_match_etag {etag!r} replaces it"
