"""Checkpoints of rooms: sealed, numbered by epochs, and never rolled back unnoticed."""

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from holdfast.calls import checked
from holdfast.checkpoint_results import (
    Checkpoint,
    CheckpointEntry,
    DeletedRoom,
    Pruned,
    Room,
    Saved,
    Watched,
    checkpoint,
    checkpoint_entry,
    room,
    saved,
)
from holdfast.errors import IntegrityFailed, InternalError, InvalidArgument, NotFound, PointerInvalid
from holdfast.incoming import Incoming, all_received
from holdfast.payloads import PayloadReader
from holdfast.snapshots import Snapshots
from holdfast.sources import Data, source_of
from holdfast.uploads import Progress, upload
from holdfast.v1 import checkpoint_store_pb2 as pb
from holdfast.watching import watch


class CheckpointReader(PayloadReader[Checkpoint]):
    """The bytes of a checkpoint, as a `PayloadReader` has them."""


class Checkpoints(Snapshots):
    """The checkpoints of a server's rooms, and their snapshots; safe to use from several threads.

    Every method raises `HoldfastError`s: `InvalidArgument` for what breaks a rule, `Unavailable`, `Overloaded` and
    `DeadlineExceeded` for a server that cannot answer, and those that it names. What is safe to repeat is tried again
    first. A sealing key that the server lacks is `SealKeyUnavailable`, a form that only a newer server knows
    `SealTooNew`: neither is damage.
    """

    def save(
        self,
        room_id: str,
        epoch: int,
        source: Data,
        *,
        metadata: Mapping[str, str] | None = None,
        writer_id: str = "",
        if_latest_epoch: int | None = None,
        require_new: bool = False,
        replace_damaged_pointer: bool = False,
        size_bytes: int | None = None,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> Saved:
        """Store a checkpoint, durably, and move the room's pointer to it; or leave the room as it was.

        An epoch that is there already keeps its first payload, and that is no error: look at the outcome, or
        `is_there`, before the epoch counts as saved. `source`, `size_bytes` and `progress` are as for `Blobs.put`.
        `timeout` in seconds is the longest that all of it may take; None: the client's, for standing still.

        A save can be repeated, and is tried again if the source can be read again, unless it has `require_new`. After
        `Unavailable` and `DeadlineExceeded` the outcome is unknown. Raises `ConcurrentModification` (the pointer names
        neither `if_latest_epoch`, -1 for no checkpoint, nor this epoch), `AlreadyExists` (`require_new`), `EpochTooOld`
        (the room was `deleted`: it can be begun anew at `next_epoch`; or it has lost its pointer), `PointerInvalid`
        (unless `replace_damaged_pointer`), `BrokenUpload`, `StorageFull`, `ReadOnly`, `SealKeyUnavailable`.
        """
        with checked():
            header = pb.SaveCheckpointHeader(
                room_id=room_id,
                epoch=epoch,
                size_bytes=size_bytes,
                metadata=metadata,
                writer_id=writer_id,
                if_latest_epoch=if_latest_epoch,
                require_new=require_new,
                replace_damaged_pointer=replace_damaged_pointer,
            )
        data = source_of(source)
        # With `require_new` it would turn down what the try before, whose answer was lost, has done.
        calls = self._calls if data.can_rewind and not require_new else self._calls.once()
        method, message = self._stub.SaveCheckpoint, pb.SaveCheckpointRequest
        sent = upload(calls, method, message, header, data, progress=progress, timeout_seconds=timeout)
        result = saved(sent.answer)
        if result.is_there and (result.checkpoint is None or result.checkpoint.sha256 != sent.sha256):
            what = f"room {room_id!r}: the server stored other bytes at epoch {epoch} than those sent"
            raise IntegrityFailed("INTEGRITY_FAILED", what, {"room_id": room_id, "epoch": str(epoch)})
        return result

    def load(
        self, room_id: str, epoch: int | None = None, *, min_epoch: int | None = None, fallback: bool = False
    ) -> CheckpointReader:
        """Open a checkpoint for reading, the latest unless an epoch is given; the caller closes it.

        `fallback`: where it is not good, the newest good one that is older comes instead; `info.skipped` says what was
        passed over, and `info.next_epoch` where to go on. Raises `NotFound` (a new room, unless it has a `next_epoch`:
        then it was deleted; or it has lost its pointer, and `fallback` finds it), `EpochTooOld` (there is none as new
        as `min_epoch`), `SealInvalid`, `PointerInvalid`, `IntegrityFailed`, `SealKeyUnavailable`.
        """
        with checked():
            asked = pb.LoadCheckpointRequest(room_id=room_id, epoch=epoch, min_epoch=min_epoch, fallback=fallback)

        def start(known: Checkpoint | None) -> tuple[Checkpoint, Incoming[pb.CheckpointInfo]]:
            request = asked if known is None else pb.LoadCheckpointRequest(room_id=room_id, epoch=known.epoch)
            incoming = Incoming(self._calls, self._stub.LoadCheckpoint(request), f"room {room_id!r}")
            return checkpoint(incoming.info), incoming

        return CheckpointReader(self._calls, start)

    def stat(
        self,
        room_id: str,
        epoch: int | None = None,
        *,
        min_epoch: int | None = None,
        timeout: float | None = None,
    ) -> Checkpoint:
        """Return what is known of a checkpoint, the latest unless an epoch is given, without its payload.

        Raises what `load` raises. `timeout` in seconds stands for the client's.
        """
        with checked():
            request = pb.StatCheckpointRequest(room_id=room_id, epoch=epoch, min_epoch=min_epoch)
        calls = self._calls if timeout is None else self._calls.within(timeout)
        return checkpoint(calls.unary(self._stub.StatCheckpoint, request).checkpoint)

    def next_epoch(self, room_id: str, *, need_pointer: bool = False, timeout: float | None = None) -> int:
        """Return the epoch to go on at, which is above all that exist: 0 for a new room.

        Also well above what was deleted with the room, and above what a room has that lost its pointer; with
        `need_pointer` that is `NotFound`, with the `next_epoch`: what such a room has is covered by what is saved
        above, so load it first, with `fallback`. Where the latest checkpoint is damaged it is only the one above that.
        Raises what `stat` raises, but `NotFound` only then.
        """
        try:
            known = self.stat(room_id, timeout=timeout)
        except NotFound as error:
            epoch_after = error.next_epoch or 0  # told of a room that was deleted, or has lost its pointer
            if need_pointer and epoch_after and self._has_any_below(room_id, epoch_after, timeout):
                raise
            return epoch_after
        except PointerInvalid:
            raise
        except IntegrityFailed as error:
            if not (epoch := error.details.get("epoch", "")).isdecimal():
                raise
            return int(epoch) + 1
        return known.epoch + 1 if known.next_epoch is None else known.next_epoch

    def _has_any_below(self, room_id: str, epoch: int, timeout: float | None) -> bool:
        """Tell whether a room has a checkpoint below an epoch. What was deleted is not listed."""
        calls = self._calls if timeout is None else self._calls.within(timeout)
        request = pb.ListCheckpointsRequest(room_id=room_id, page_size=1)
        while True:
            page = calls.unary(self._stub.ListCheckpoints, request)
            if page.checkpoints:
                return page.checkpoints[0].epoch < epoch
            if not page.next_page_token:
                return False
            request.page_token = page.next_page_token

    def list(self, room_id: str, *, from_epoch: int = 0, page_size: int = 0) -> Iterator[CheckpointEntry]:
        """Yield the checkpoints of a room by rising epoch, asking for pages as it goes.

        `page_size`: 1 to 10,000, or 0 for 1,000. One that comes or goes meanwhile may or may not be listed.
        """
        with checked():
            request = pb.ListCheckpointsRequest(room_id=room_id, from_epoch=from_epoch, page_size=page_size)
        while True:
            page = self._calls.unary(self._stub.ListCheckpoints, request)
            yield from map(checkpoint_entry, page.checkpoints)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def rooms(self, prefix: str = "", page_size: int = 0) -> Iterator[Room]:
        """Yield the rooms that have a pointer and whose ids start with `prefix`, asking for pages as it goes.

        In the byte order of the ids with a `/` at each one's end. `page_size`: 1 to 10,000, or 0 for 1,000; a page may
        have fewer, or none, and not be the last.
        """
        with checked():
            request = pb.ListRoomsRequest(prefix=prefix, page_size=page_size)
        while True:
            page = self._calls.unary(self._stub.ListRooms, request)
            yield from map(room, page.rooms)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def prune(
        self,
        room_id: str | None,
        *,
        keep_last: int,
        older_than: timedelta = timedelta(0),
        dry_run: bool = False,
        progress: Callable[[Pruned], None] | None = None,
    ) -> Pruned:
        """Delete checkpoints that are both outside a room's newest `keep_last` (>= 1) and older than `older_than`.

        `room_id` None: of all rooms; then `failed` are those that were left alone, and why. Never the one that the
        pointer names, or a newer one; of the newest few, those that are not good are not counted. `dry_run` only tells
        what would be deleted. `progress` is told the sums now and then. For a single room it raises `NotFound`,
        `PointerInvalid`, `SealInvalid`, `IntegrityFailed`, `SealKeyUnavailable`. What a broken call deleted stays
        deleted: just call again, as is done if nothing was told.
        """
        if room_id == "":
            raise InvalidArgument("INVALID_ROOM", "the room id is empty: None means all rooms", field="room_id")
        duration = Duration()
        with checked():
            duration.FromTimedelta(older_than)
            request = pb.PruneCheckpointsRequest(
                room_id=room_id or "", keep_last=keep_last, older_than=duration, dry_run=dry_run
            )
        failed: tuple[Room, ...] = ()
        for sums in all_received(self._calls, lambda: self._stub.PruneCheckpoints(request)):
            failed += tuple(map(room, sums.failed))
            pruned = Pruned(sums.rooms, sums.deleted, sums.kept, sums.deleted_bytes, failed)
            if sums.done:
                return pruned
            if progress is not None:
                progress(pruned)
        raise _unfinished("pruning")

    def delete_room(
        self,
        room_id: str,
        *,
        without_key: bool = False,
        progress: Callable[[DeletedRoom], None] | None = None,
    ) -> DeletedRoom:
        """Delete a room with all its checkpoints, but not its snapshot; a missing room is no error.

        For a while it can be begun anew only from `next_epoch` on, well above all that were deleted: a save below, as
        by who has not heard of it, is `EpochTooOld`. Deleting once more removes what late saves left. `without_key`:
        also where the key is not available that its pointer is sealed with; make sure that it is lost for good, and not
        the wrong key ring that is in place. Raises `ConcurrentModification`, `ReadOnly`, `SealKeyUnavailable`. A call
        that broke before anything was told is made again, under one id: it deletes nothing of a room that was begun
        anew in between. The sums may lack what the broken one deleted.
        """
        with checked():
            request = pb.DeleteRoomRequest(room_id=room_id, without_key=without_key, request_id=uuid.uuid4().hex)
        for sums in all_received(self._calls, lambda: self._stub.DeleteRoom(request)):
            deleted = DeletedRoom(sums.deleted, sums.existed, sums.next_epoch)
            if sums.done:
                return deleted
            if progress is not None:
                progress(deleted)
        raise _unfinished("deleting a room")

    def watch(self, room_ids: Iterable[str]) -> Iterator[Watched]:
        """Yield the latest epochs of rooms as they rise, without end: of each room first the current one.

        Epochs in between may be left out; the newest is not, and none comes that is not higher than the last one of its
        room, unless it was told in between that there is none, or that the pointer cannot be read. Where the connection
        breaks, or the server gives up a watch whose news nobody took, it is taken up again: as often as the client
        retries without any news. Raises what that ends with. Closing the iterator ends the call.
        """
        return watch(self._calls, self._stub.WatchCheckpoints, room_ids)


def _unfinished(what: str) -> InternalError:
    return InternalError("INTERNAL", f"the server ended {what} without a summary")
