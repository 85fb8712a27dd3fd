"""Snapshots of rooms that sleep: one for each room, given up only by who has it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from secrets import token_hex

import grpc

from holdfast.calls import Calls, checked
from holdfast.checkpoint_results import Snapshot, SnapshotEntry, snapshot, snapshot_entry
from holdfast.conditions import condition_fields
from holdfast.errors import IntegrityFailed
from holdfast.incoming import Incoming
from holdfast.payloads import PayloadReader
from holdfast.sources import Data, source_of
from holdfast.uploads import Progress, upload
from holdfast.v1 import checkpoint_store_pb2 as pb
from holdfast.v1 import checkpoint_store_pb2_grpc


class SnapshotReader(PayloadReader[Snapshot]):
    """The bytes of a snapshot, as a `PayloadReader` has them. `is_confirmed`: it was given up, and the room is ours."""

    is_confirmed = False


class Snapshots:
    """The snapshots of a server's rooms; what is said of `Checkpoints` holds here too."""

    def __init__(self, channel: grpc.Channel, calls: Calls) -> None:
        self._stub = checkpoint_store_pb2_grpc.CheckpointStoreStub(channel)
        self._calls = calls

    def hibernate(
        self,
        room_id: str,
        source: Data,
        *,
        metadata: Mapping[str, str] | None = None,
        writer_id: str = "",
        create_only: bool = False,
        if_match_etag: str | None = None,
        replace_damaged: bool = False,
        size_bytes: int | None = None,
        progress: Progress | None = None,
    ) -> Snapshot:
        """Store the snapshot of a room that goes to sleep, durably, in place of the one that it has; or change nothing.

        `source`, `size_bytes` and `progress` are as for `Blobs.put`, as is when it is tried again: unless there is a
        condition. Without a `writer_id` one is made up for this call, so that a try after a lost answer does not bring
        back a room that another writer has restored meanwhile: that is `ConcurrentModification`. Who repeats the call
        gives one, and a new one each time that the room goes to sleep.

        What is damaged in the snapshot's place is `SealInvalid` or `IntegrityFailed`, and stays: it may have said that
        the room is awake. See that it is not, and give `replace_damaged`, or its etag as `if_match_etag`, which takes
        the place of what a missing key has sealed, too. Raises `AlreadyExists` (`create_only`), `PreconditionFailed`
        (`if_match_etag`), `ConcurrentModification` (or others changed the snapshot meanwhile), `BrokenUpload`,
        `StorageFull`, `ReadOnly`, `SealKeyUnavailable`, `SealTooNew`.
        """
        condition = condition_fields(create_only=create_only, if_match_etag=if_match_etag)
        with checked():
            header = pb.HibernateRoomHeader(
                room_id=room_id,
                metadata=metadata,
                writer_id=writer_id or f"hibernate-{token_hex(8)}",
                size_bytes=size_bytes,
                replace_damaged=replace_damaged,
                **condition,
            )
        data = source_of(source)
        calls = self._calls if data.can_rewind and not condition else self._calls.once()
        sent = upload(calls, self._stub.HibernateRoom, pb.HibernateRoomRequest, header, data, progress=progress)
        if sent.answer.snapshot.sha256 != sent.sha256:
            what = f"room {room_id!r}: the server stored other bytes than those sent"
            raise IntegrityFailed("INTEGRITY_FAILED", what, {"room_id": room_id})
        return snapshot(sent.answer.snapshot)

    def restore(self, room_id: str) -> SnapshotReader:
        """Open a room's snapshot for reading; the caller closes it. It stays until it is confirmed.

        Raises `NotFound`, `SealInvalid` and `IntegrityFailed` (nothing of it was sent), `SealKeyUnavailable`.
        """
        with checked():
            request = pb.RestoreRoomRequest(room_id=room_id)

        def start(_: Snapshot | None) -> tuple[Snapshot, Incoming[pb.SnapshotInfo]]:
            incoming = Incoming(self._calls, self._stub.RestoreRoom(request), f"room {room_id!r}")
            return snapshot(incoming.info), incoming

        return SnapshotReader(self._calls, start)

    def confirm_restore(self, room_id: str, etag: str, sha256: bytes, *, writer_id: str = "") -> None:
        """Give up a snapshot that arrived: from then on the room is the caller's.

        `etag` is that of the `Snapshot`, `sha256` that of the bytes which arrived. It is tried again only with a
        `writer_id`: the same one's confirmation is answered again. Raises `ConcurrentModification` if another one
        confirmed it or it was hibernated again, `NotFound`, `InvalidArgument` (`CHECKSUM_MISMATCH`: other bytes
        arrived), and what `restore` raises; the snapshot stays in each of these cases. After `Unavailable` and
        `DeadlineExceeded` the outcome is unknown.
        """
        with checked():
            request = pb.ConfirmRestoreRequest(room_id=room_id, etag=etag, sha256=sha256, writer_id=writer_id)
        calls = self._calls if writer_id else self._calls.once()
        calls.unary(self._stub.ConfirmRestore, request)

    @contextmanager
    def restoring(self, room_id: str, *, writer_id: str = "") -> Iterator[SnapshotReader]:
        """Open a room's snapshot, and confirm it when the block ends well and all of it was read and verified.

            with client.checkpoints.restoring("duel-7") as snapshot:
                room = Room(snapshot.read())

        Not after an exception, nor if bytes were left unread: then the snapshot stays; `is_confirmed` tells. So the
        block does all that can fail. Without a `writer_id` one is made up for this call, so that it can be repeated.
        Raises what `restore`, reading and `confirm_restore` raise: `ConcurrentModification` at the end of the block
        means that the room is another one's.
        """
        with self.restore(room_id) as reader:
            yield reader
            info = reader.info
            if reader.is_complete and info.sha256 is not None:
                confirmed_by = writer_id or f"restore-{token_hex(8)}"
                self.confirm_restore(room_id, info.etag, info.sha256, writer_id=confirmed_by)
                reader.is_confirmed = True

    def hibernated(self, prefix: str = "", page_size: int = 0) -> Iterator[SnapshotEntry]:
        """Yield the snapshots of rooms whose ids start with `prefix`, asking for pages as it goes.

        In the byte order of the ids with `%` and `/` written as `%25` and `%2F`. `page_size`: 1 to 10,000, or 0 for
        1,000.
        """
        with checked():
            request = pb.ListHibernatedRoomsRequest(prefix=prefix, page_size=page_size)
        while True:
            page = self._calls.unary(self._stub.ListHibernatedRooms, request)
            yield from map(snapshot_entry, page.snapshots)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token
