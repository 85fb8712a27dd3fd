"""Hibernation: one snapshot of a room that sleeps. It goes only when somebody confirms that it arrived."""

import hmac
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from holdfast_server import page_token
from holdfast_server.checkpoints import seal
from holdfast_server.checkpoints.key_ring import Keys
from holdfast_server.checkpoints.legacy import flat_names
from holdfast_server.checkpoints.lists import ENTRY_BYTES, PageQuery, page_of
from holdfast_server.checkpoints.metrics import CheckpointMetrics
from holdfast_server.checkpoints.names import (
    HIBERNATED,
    SNAPSHOTS,
    RoomId,
    flat_room,
    room_of_snapshot,
    snapshots_prefix,
)
from holdfast_server.checkpoints.opening import OpenLegacy, Payload, WaitingRoom, open_payload
from holdfast_server.checkpoints.reading import concerns_one
from holdfast_server.checkpoints.seal import (
    HEAD_BYTES,
    MAX_FOOTER_BYTES,
    Footer,
    OtherPurpose,
    Purpose,
    SealBroken,
    SealedAs,
    Subject,
)
from holdfast_server.checkpoints.sealing import Sealing
from holdfast_server.errors import (
    AlreadyExists,
    ConcurrentModification,
    ConditionUnsupported,
    HoldfastError,
    IntegrityFailed,
    InvalidArgument,
    NotFound,
    PreconditionFailed,
    Reason,
    SealInvalid,
    SealKeyUnavailable,
    SealTooNew,
)
from holdfast_server.objects.base import OVERWRITE, Entry, ListQuery, ObjectNotFound, ObjectStore
from holdfast_server.objects.body import SHA256_BYTES, Body, Chunk, Declared
from holdfast_server.objects.conditions import Condition, CreateOnly, IfMatch, ObjectExists
from holdfast_server.objects.info import ObjectInfo
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.ranges import Tail
from holdfast_server.pages import checked_page_size
from holdfast_server.workers import Workers

_CONFIRMED = "etag"
_HIBERNATED_BY = "hibernated-by"
_PAYLOAD = "payload"
"""In what stands for a snapshot that was given up: the etag that was confirmed, its writer, and a keyed digest."""


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


class SnapshotStore:
    """Snapshots of hibernated rooms, on an `ObjectStore`; all as in `CheckpointStore`.

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
        self._waiting_room = waiting_room
        self._workers = workers
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
        key = self._keys.ring.signing
        upload = Body(parts, declared, max_bytes=self._max_bytes)
        create_only = isinstance(condition, CreateOnly)
        if create_only:
            condition = self._if_free(room)
        gone = self._gone_payload(room, subject.writer_id)

        def check(sha256: bytes) -> None:
            if gone is not None and hmac.compare_digest(gone, self._mark(room, sha256)):
                raise _given_away(room)

        sealing = Sealing(upload, key, Purpose.SNAPSHOT, subject, self._clock(), encrypt=self._encrypt, check=check)
        try:
            info = self._objects.put(room.snapshot_key, sealing.body, condition=condition)
        except ObjectExists as there:
            raise _is_hibernated(room, there.existing.etag) from None
        except PreconditionFailed:
            if not create_only:
                raise
            self._if_free(room)  # refuses, if it is hibernated by now
            raise _changed(room) from None
        return Snapshot(room, sealing.footer.size_bytes, info, sealing.footer, upload.digests.sha256)

    def _gone_payload(self, room: RoomId, writer_id: str) -> str | None:
        """Return the mark of what this writer hibernated, if another one has confirmed it: it is no longer theirs."""
        if not writer_id:
            return None
        try:
            self._look(room)
        except _GivenUp as given_up:
            by = given_up.footer.subject
            if by.writer_id not in ("", writer_id) and by.metadata.get(_HIBERNATED_BY) == writer_id:
                return by.metadata.get(_PAYLOAD)
        except (ObjectNotFound, IntegrityFailed, SealKeyUnavailable, SealTooNew):
            pass  # it is replaced, whatever it is
        return None

    def _mark(self, room: RoomId, sha256: bytes) -> str:
        """Return what tells a payload of a room, to those who have the key."""
        key = self._keys.ring.signing.derive("restored/mark")
        return hmac.digest(key, room.text.encode() + sha256, "sha256").hex()

    def _if_free(self, room: RoomId) -> Condition:
        """Return the condition that the room is still not hibernated; what was given up is nothing."""
        try:
            info, _ = self._look(room)
        except _GivenUp as given_up:
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
            return self._restored(room, room.snapshot_key, None)
        except _GivenUp:
            raise _not_found(room) from None
        except ObjectNotFound:
            if self._legacy is None:
                raise _not_found(room) from None
        try:
            return self._restored(room, room.flat_key, self._legacy)
        except ObjectNotFound:
            raise _not_found(room) from None

    def _restored(self, room: RoomId, key: ObjectKey, legacy: OpenLegacy | None) -> Restored:
        with _damage_named(room), self._objects.get(key) as reader:
            info = reader.info
            try:
                payload = open_payload(
                    reader, self._waiting_room, self._keys, SealedAs(Purpose.SNAPSHOT, room.text), legacy=legacy
                )
            except OtherPurpose as other:
                if other.footer.head.purpose is Purpose.RESTORED:
                    raise _GivenUp(info, other.footer) from None
                raise
        return Restored(Snapshot(room, payload.size_bytes, info, payload.footer, payload.sha256), payload)

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
            info, footer = self._look(room)
        except _GivenUp as given_up:
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
        said = {_CONFIRMED: etag, _HIBERNATED_BY: hibernated_by, _PAYLOAD: self._mark(room, sha256)}
        subject = Subject(room.text, writer_id=writer_id, metadata=said)
        sealed, _ = seal.seal_bytes(self._keys.ring.signing, Purpose.RESTORED, subject, b"", self._clock())
        try:
            self._objects.put(room.snapshot_key, Body.of(sealed), condition=condition)
        except (ObjectExists, PreconditionFailed, ConcurrentModification):
            try:
                self._look(room)
            except _GivenUp as given_up:
                if given_up.was_by(writer_id, etag):
                    return  # another try of the same caller was quicker
            except ObjectNotFound:
                pass
            raise _lost(room) from None

    def page(self, query: PageQuery) -> tuple[list[ListedSnapshot], str]:
        """Return a page of hibernated rooms, and the token of the next one. Raises `InvalidArgument`."""
        binding = ("hibernated", query.prefix)
        after = page_token.decode(binding, query.page_token) if query.page_token else ""
        page, last = page_of(
            self._names(query.prefix, after),
            self._listed,
            checked_page_size(query.page_size),
            size_of=_size_of,
            workers=self._workers,
            at_once=self._objects.describe().reads_at_once,
        )
        return page, "" if not last else page_token.encode(binding, last[0][0])

    def remove_given_up(self, age: timedelta) -> int:
        """Remove what stands for snapshots that were given up longer ago than that, and return how many."""
        removed = 0
        for entry in self._objects.list(ListQuery(HIBERNATED)):
            room = room_of_snapshot(entry.name)
            if room is None or not isinstance(entry, Entry) or entry.record is None:
                continue
            if (
                entry.record.update_time >= self._objects.now() - age
                or entry.record.size_bytes > MAX_FOOTER_BYTES + HEAD_BYTES
            ):
                continue
            try:
                self._look(room)
            except _GivenUp as given_up:
                if self._legacy is not None and self._is_there(room.flat_key):
                    continue  # it hides that one
                try:
                    removed += self._objects.delete(room.snapshot_key, condition=IfMatch(given_up.info.etag))
                except PreconditionFailed:
                    continue  # hibernated again
                except ConditionUnsupported:
                    return removed  # then they stay
            except (ObjectNotFound, HoldfastError) as error:
                if isinstance(error, HoldfastError) and not concerns_one(error):
                    raise
        return removed

    def _names(self, prefix: str, after: str) -> Iterator[tuple[str, RoomId]]:
        """Yield the names of snapshots after one, and whose they are; those of an older system last."""
        if not after.startswith(SNAPSHOTS):
            for entry in self._objects.list(ListQuery(snapshots_prefix(prefix), after)):
                room = room_of_snapshot(entry.name)
                if room is not None and room.text.startswith(prefix):
                    yield entry.name, room
        if self._legacy is None:
            return
        after = after if after.startswith(SNAPSHOTS) else ""
        for name in flat_names(self._objects, prefix, after):
            if (flat := flat_room(name)) is not None:
                yield name, flat

    def _listed(self, named: tuple[str, RoomId]) -> ListedSnapshot | None:
        name, room = named
        try:
            if name == room.snapshot_key.text:
                info, footer = self._look(room)
                return ListedSnapshot(room, Snapshot(room, footer.size_bytes, info, footer))
            if self._is_there(room.snapshot_key):
                return None  # that one counts
            with self._restored(room, room.flat_key, self._legacy) as restored:
                return ListedSnapshot(room, replace(restored.snapshot, sha256=b""))
        except (ObjectNotFound, _GivenUp):
            return None
        except HoldfastError as error:
            if not concerns_one(error):
                raise
            return ListedSnapshot(room, error.with_traceback(None))

    def _look(self, room: RoomId) -> tuple[ObjectInfo, Footer]:
        """Return what the verified footer of a room's snapshot says. Raises `ObjectNotFound`, `_GivenUp`."""
        with _damage_named(room):
            with self._objects.get(room.snapshot_key, Tail(MAX_FOOTER_BYTES)) as reader:
                info = reader.info
                end = b"".join(chunk.data for chunk in reader)
            try:
                footer = seal.open_footer(end, self._keys, SealedAs(Purpose.SNAPSHOT, room.text))
            except OtherPurpose as other:
                if other.footer.head.purpose is Purpose.RESTORED:
                    raise _GivenUp(info, other.footer) from None
                raise
            if footer.stored_bytes != info.size_bytes - HEAD_BYTES - seal.footer_length(end):
                raise SealBroken("it has not the size that was sealed")
        return info, footer

    def _is_there(self, key: ObjectKey) -> bool:
        try:
            self._objects.stat(key)
        except ObjectNotFound:
            return False
        return True


class _GivenUp(Exception):
    """A snapshot was there, and was given up."""

    def __init__(self, info: ObjectInfo, footer: Footer) -> None:
        super().__init__(info.key.text)
        self.info = info
        self.footer = footer

    def was_by(self, writer_id: str, etag: str) -> bool:
        """Tell whether this writer, which has a name, confirmed the snapshot that had this etag."""
        by = self.footer.subject
        return bool(writer_id) and by.writer_id == writer_id and by.metadata.get(_CONFIRMED) == etag


def _not_found(room: RoomId) -> NotFound:
    return NotFound(Reason.SNAPSHOT_NOT_FOUND, f"room {room.text!r} is not hibernated", room_id=room.text)


def _lost(room: RoomId) -> ConcurrentModification:
    message = f"room {room.text!r}: this snapshot was confirmed by another, or replaced by a newer one"
    return ConcurrentModification(message, room_id=room.text)


def _changed(room: RoomId) -> ConcurrentModification:
    message = f"room {room.text!r}: what stood for its last snapshot was removed meanwhile; try again"
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


@contextmanager
def _damage_named(room: RoomId) -> Iterator[None]:
    """Say of damage whose it is."""
    try:
        yield
    except SealBroken as broken:
        raise SealInvalid(f"the snapshot of room {room.text!r}", str(broken), room_id=room.text) from broken
    except IntegrityFailed as damage:
        damage.details |= {"room_id": room.text}
        raise


def _size_of(listed: ListedSnapshot) -> int:
    footer = listed.snapshot.footer if isinstance(listed.snapshot, Snapshot) else None
    return ENTRY_BYTES + (0 if footer is None else footer.subject.size_bytes)
