"""What CheckpointStore's messages mean: requests read into values of the domain, results written into messages."""

from collections.abc import Iterable
from datetime import timedelta

from holdfast.v1 import checkpoint_store_pb2 as pb
from holdfast_server.checkpoints.checkpoint import (
    NO_CHECKPOINT,
    Checkpoint,
    Found,
    Listed,
    ListedRoom,
    Outcome,
    Saved,
    SaveOptions,
    Skipped,
)
from holdfast_server.checkpoints.confirmations import GIVEN_AWAY
from holdfast_server.checkpoints.deleting import Deletion
from holdfast_server.checkpoints.lists import PageQuery
from holdfast_server.checkpoints.names import RoomId, checked_epoch, checked_writer
from holdfast_server.checkpoints.pruning import Pruned, Retention
from holdfast_server.checkpoints.seal import Footer, Subject
from holdfast_server.checkpoints.snapshot_reading import ListedSnapshot, Snapshot
from holdfast_server.checkpoints.watching import MAX_WATCHED_ROOMS, Seen
from holdfast_server.errors import HoldfastError, InvalidArgument, Reason
from holdfast_server.objects.base import OVERWRITE
from holdfast_server.objects.conditions import Condition, CreateOnly, IfMatch
from holdfast_server.objects.info import Attributes
from holdfast_server.rpc.batches import Statuses, check_count
from holdfast_server.rpc.timestamps import timestamp

MAX_WATCH_BYTES = 2 << 20

_STATUS_BYTES = 512 << 10
"""For the texts of the entries that failed: beside those of a full page they fit into an answer of 2 MiB."""

_MOST_SECONDS = 100 * 366 * 86_400
"""A century."""

_OUTCOMES = {
    Outcome.STORED: pb.SAVE_OUTCOME_STORED,
    Outcome.EXISTS_SAME: pb.SAVE_OUTCOME_EXISTS_SAME,
    Outcome.EXISTS_DIFFERENT: pb.SAVE_OUTCOME_EXISTS_DIFFERENT,
    Outcome.EXISTS_DAMAGED: pb.SAVE_OUTCOME_EXISTS_DAMAGED,
}


def epoch(message: pb.SaveCheckpointHeader | pb.LoadCheckpointRequest | pb.StatCheckpointRequest) -> int | None:
    """Read the epoch; None: it is not set. Raises `InvalidArgument` (INVALID_EPOCH)."""
    return checked_epoch(message.epoch) if message.HasField("epoch") else None


def min_epoch(request: pb.LoadCheckpointRequest | pb.StatCheckpointRequest) -> int | None:
    """Read the oldest epoch that will do; None: any. Raises `InvalidArgument` (INVALID_EPOCH)."""
    return checked_epoch(request.min_epoch, "min_epoch") if request.HasField("min_epoch") else None


def save_options(header: pb.SaveCheckpointHeader) -> SaveOptions:
    """Read how to save. Raises `InvalidArgument` (INVALID_METADATA, INVALID_WRITER, INVALID_EPOCH)."""
    expected = None
    if header.HasField("if_latest_epoch"):
        expected = checked_epoch(header.if_latest_epoch, "if_latest_epoch", least=NO_CHECKPOINT)
    return SaveOptions(
        metadata=Attributes(metadata=dict(header.metadata)).metadata,
        writer_id=checked_writer(header.writer_id),
        if_latest_epoch=expected,
        require_new=header.require_new,
        replace_damaged_pointer=header.replace_damaged_pointer,
    )


def snapshot_subject(header: pb.HibernateRoomHeader, room: RoomId) -> Subject:
    """Read what a snapshot's writer says of it. Raises `InvalidArgument` (INVALID_METADATA, INVALID_WRITER)."""
    metadata = Attributes(metadata=dict(header.metadata)).metadata
    return Subject(room.text, writer_id=checked_writer(header.writer_id), metadata=metadata)


def snapshot_condition(header: pb.HibernateRoomHeader) -> Condition:
    """Read when to refuse a snapshot. Raises `InvalidArgument` (INVALID_CONDITION)."""
    if header.WhichOneof("precondition") == "if_match_etag":
        return IfMatch(header.if_match_etag)
    return CreateOnly() if header.create_only else OVERWRITE


def page_query(request: pb.ListRoomsRequest | pb.ListHibernatedRoomsRequest) -> PageQuery:
    """Read which page is wanted. Raises `InvalidArgument`."""
    return PageQuery(request.prefix, request.page_size, request.page_token)


def retention(request: pb.PruneCheckpointsRequest) -> Retention:
    """Read what is to be kept. Raises `InvalidArgument` (INVALID_RETENTION)."""
    # What is older than all is as good as any larger number, which could not be counted with.
    seconds = max(min(request.older_than.seconds, _MOST_SECONDS), -_MOST_SECONDS)
    return Retention(request.keep_last, timedelta(seconds=seconds, microseconds=request.older_than.nanos // 1000))


def watched_rooms(request: pb.WatchCheckpointsRequest) -> list[RoomId]:
    """Read which rooms to watch. Raises `InvalidArgument` (TOO_LARGE, INVALID_ROOM)."""
    check_count(request.room_ids, MAX_WATCHED_ROOMS, "room_ids")
    if request.ByteSize() > MAX_WATCH_BYTES:
        message = f"the request has {request.ByteSize()} bytes, and {MAX_WATCH_BYTES} are the most"
        raise InvalidArgument(Reason.TOO_LARGE, "room_ids", message)
    if not request.room_ids:
        raise InvalidArgument(Reason.INVALID_ROOM, "room_ids", "room_ids is empty")
    return [RoomId(text, "room_ids") for text in request.room_ids]


def saved(result: Saved) -> pb.SaveCheckpointResponse:
    """Write the answer to a save."""
    return pb.SaveCheckpointResponse(
        outcome=_OUTCOMES[result.outcome],
        checkpoint=None if result.checkpoint is None else checkpoint(result.checkpoint),
        pointer_moved=result.pointer_moved,
        latest_epoch=result.latest_epoch,
        next_epoch=result.next_epoch,
    )


def found(result: Found, skipped: Iterable[Skipped] = ()) -> pb.CheckpointInfo:
    """Write what is known of a checkpoint and of its room."""
    info = checkpoint(result.checkpoint)
    if result.latest_epoch is not None:
        info.latest_epoch = result.latest_epoch
    info.next_epoch = result.next_epoch
    statuses = Statuses(_STATUS_BYTES)
    for each in skipped:
        info.skipped.append(pb.SkippedCheckpoint(epoch=each.epoch, status=statuses.of(each.error)))
    return info


def checkpoint(what: Checkpoint) -> pb.CheckpointInfo:
    """Write what is known of a checkpoint."""
    footer = what.footer
    info = pb.CheckpointInfo(
        room_id=what.room.text,
        epoch=what.epoch,
        size_bytes=what.size_bytes,
        etag=what.info.etag,
        sha256=what.sha256,
        update_time=timestamp(what.info.update_time),
        legacy=footer is None,
    )
    if footer is not None:
        _describe(info, footer)
    return info


def snapshot(what: Snapshot) -> pb.SnapshotInfo:
    """Write what is known of a snapshot."""
    footer = what.footer
    info = pb.SnapshotInfo(
        room_id=what.room.text,
        size_bytes=what.size_bytes,
        etag=what.info.etag,
        sha256=what.sha256,
        update_time=timestamp(what.info.update_time),
        legacy=footer is None,
    )
    if footer is not None:
        _describe(info, footer)
        info.metadata.pop(GIVEN_AWAY, None)  # that is ours
    return info


def checkpoints_page(page: tuple[list[Listed], str]) -> pb.ListCheckpointsResponse:
    """Write a page of a room's checkpoints."""
    statuses = Statuses(_STATUS_BYTES)
    entries = [
        pb.CheckpointEntry(epoch=each.epoch, status=statuses.of(each.checkpoint))
        if isinstance(each.checkpoint, HoldfastError)
        else pb.CheckpointEntry(epoch=each.epoch, checkpoint=checkpoint(each.checkpoint))
        for each in page[0]
    ]
    return pb.ListCheckpointsResponse(checkpoints=entries, next_page_token=page[1])


def rooms_page(page: tuple[list[ListedRoom], str]) -> pb.ListRoomsResponse:
    """Write a page of rooms."""
    return pb.ListRoomsResponse(rooms=_rooms(page[0]), next_page_token=page[1])


def snapshots_page(page: tuple[list[ListedSnapshot], str]) -> pb.ListHibernatedRoomsResponse:
    """Write a page of hibernated rooms."""
    statuses = Statuses(_STATUS_BYTES)
    entries = [
        pb.SnapshotEntry(room_id=each.room.text, status=statuses.of(each.snapshot))
        if isinstance(each.snapshot, HoldfastError)
        else pb.SnapshotEntry(room_id=each.room.text, snapshot=snapshot(each.snapshot))
        for each in page[0]
    ]
    return pb.ListHibernatedRoomsResponse(snapshots=entries, next_page_token=page[1])


def pruned(sums: Pruned) -> pb.PruneCheckpointsResponse:
    """Write the progress of pruning."""
    return pb.PruneCheckpointsResponse(
        rooms=sums.rooms,
        deleted=sums.deleted,
        kept=sums.kept,
        deleted_bytes=sums.deleted_bytes,
        failed=_rooms(sums.failed),
        done=sums.is_done,
    )


def deletion(progress: Deletion) -> pb.DeleteRoomResponse:
    """Write the progress of a deletion."""
    return pb.DeleteRoomResponse(
        deleted=progress.deleted, existed=progress.existed, next_epoch=progress.next_epoch, done=progress.is_done
    )


def seen(what: Seen) -> pb.WatchCheckpointsResponse:
    """Write what a watched room's pointer names."""
    status = None if what.error is None else Statuses(_STATUS_BYTES).of(what.error)
    return pb.WatchCheckpointsResponse(room_id=what.room.text, epoch=what.epoch, status=status)


def _rooms(listed: Iterable[ListedRoom]) -> list[pb.RoomEntry]:
    statuses = Statuses(_STATUS_BYTES)
    return [
        pb.RoomEntry(
            room_id=each.room.text,
            latest_epoch=each.latest_epoch,
            update_time=None if each.update_time is None else timestamp(each.update_time),
            status=None if each.error is None else statuses.of(each.error),
        )
        for each in listed
    ]


def _describe(info: pb.CheckpointInfo | pb.SnapshotInfo, footer: Footer) -> None:
    info.writer_id = footer.subject.writer_id
    info.metadata.update(footer.subject.metadata)
    info.create_time.CopyFrom(timestamp(footer.create_time))
    info.key_id = footer.head.key_id.hex()
    info.encrypted = footer.head.is_encrypted
