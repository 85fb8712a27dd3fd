"""What CheckpointStore answers with: frozen values, as those of blobs are.

Where a value stands beside an `error`, one of the two is None: the error is why the other cannot be told. Digests are
32 raw bytes, times are UTC, epochs are 0 to 2^63 - 2.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.errors import HoldfastError, InternalError, from_item_status
from holdfast.results import moment_of
from holdfast.v1 import checkpoint_store_pb2 as pb
from holdfast.v1.types_pb2 import ItemStatus


@dataclass(frozen=True, slots=True)
class Skipped:
    """A checkpoint that a load with `fallback` passed over, and why. `epoch` None: the pointer is not good."""

    epoch: int | None
    error: HoldfastError


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is known of a checkpoint.

    `sha256` is told by saves and loads only: what is stored is a keyed digest. `create_time` is the sealing server's
    clock, `update_time` the backend's. `key_id` is the sealing key's; empty for `legacy` ones, whose seal binds the
    bytes and neither room nor epoch. Told by `load` and `stat`: `latest_epoch`, which the room's pointer names (None:
    it is not good), and `next_epoch`, to go on at. `skipped`, newest first, is what a load with `fallback` passed over.
    """

    room_id: str
    epoch: int
    size_bytes: int
    etag: str
    sha256: bytes | None
    writer_id: str
    metadata: Mapping[str, str] = field(hash=False)
    create_time: datetime | None
    update_time: datetime | None
    key_id: str
    encrypted: bool
    legacy: bool
    latest_epoch: int | None = None
    next_epoch: int | None = None
    skipped: tuple[Skipped, ...] = ()


class SaveOutcome(StrEnum):
    """What became of a payload."""

    STORED = "stored"
    EXISTS_SAME = "exists_same"
    """The epoch was there already, with the same payload: as good as stored."""
    EXISTS_DIFFERENT = "exists_different"
    """The epoch was there already, with another payload, which stays. This one is not stored."""
    EXISTS_DAMAGED = "exists_damaged"
    """The epoch was there already, and is damaged. This payload is not stored."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What became of a save. `next_epoch` is where to go on, and where to save again what is not there.

    `checkpoint` is the one of that epoch, whosever payload it has; None where it is damaged. `pointer_moved`: by this
    call; not if the pointer named this epoch or a higher one, which is `latest_epoch`.
    """

    outcome: SaveOutcome
    checkpoint: Checkpoint | None
    pointer_moved: bool
    latest_epoch: int
    next_epoch: int

    @property
    def is_there(self) -> bool:
        """Whether the payload is stored: by this call, or before with the same bytes."""
        return self.outcome in {SaveOutcome.STORED, SaveOutcome.EXISTS_SAME}


@dataclass(frozen=True, slots=True)
class CheckpointEntry:
    """A checkpoint as lists show it."""

    epoch: int
    checkpoint: Checkpoint | None
    error: HoldfastError | None = None


@dataclass(frozen=True, slots=True)
class Room:
    """A room as lists show it: the epoch that its pointer names, and when the pointer was moved."""

    room_id: str
    latest_epoch: int | None
    update_time: datetime | None
    error: HoldfastError | None = None


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was deleted, or would be: rooms looked at, checkpoints, stored bytes; and the rooms that were left alone."""

    rooms: int
    deleted: int
    kept: int
    deleted_bytes: int
    failed: tuple[Room, ...]


@dataclass(frozen=True, slots=True)
class DeletedRoom:
    """What was deleted with a room. `existed`: it was this call that did. It can be begun anew from `next_epoch` on."""

    deleted: int
    existed: bool
    next_epoch: int


@dataclass(frozen=True, slots=True)
class Watched:
    """A room and the epoch that its pointer names now. `epoch` None without an error: it has no checkpoint."""

    room_id: str
    epoch: int | None
    error: HoldfastError | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is known of the snapshot of a room that sleeps; the fields are those of `Checkpoint`.

    `sha256` is told by `hibernate` and `restore` only; with `etag` it is what `confirm_restore` takes.
    """

    room_id: str
    size_bytes: int
    etag: str
    sha256: bytes | None
    writer_id: str
    metadata: Mapping[str, str] = field(hash=False)
    create_time: datetime | None
    update_time: datetime | None
    key_id: str
    encrypted: bool
    legacy: bool


@dataclass(frozen=True, slots=True)
class SnapshotEntry:
    """A snapshot as lists show it."""

    room_id: str
    snapshot: Snapshot | None
    error: HoldfastError | None = None


def checkpoint(message: pb.CheckpointInfo) -> Checkpoint:
    """Return what a message says of a checkpoint."""
    return Checkpoint(
        room_id=message.room_id,
        epoch=message.epoch,
        size_bytes=message.size_bytes,
        etag=message.etag,
        sha256=message.sha256 or None,
        writer_id=message.writer_id,
        metadata=dict(message.metadata),
        create_time=_time(message.create_time, known=message.HasField("create_time")),
        update_time=_time(message.update_time, known=message.HasField("update_time")),
        key_id=message.key_id,
        encrypted=message.encrypted,
        legacy=message.legacy,
        latest_epoch=message.latest_epoch if message.HasField("latest_epoch") else None,
        next_epoch=message.next_epoch if message.HasField("next_epoch") else None,
        skipped=tuple(
            Skipped(each.epoch if each.HasField("epoch") else None, from_item_status(each.status))
            for each in message.skipped
        ),
    )


def snapshot(message: pb.SnapshotInfo) -> Snapshot:
    """Return what a message says of a snapshot."""
    return Snapshot(
        room_id=message.room_id,
        size_bytes=message.size_bytes,
        etag=message.etag,
        sha256=message.sha256 or None,
        writer_id=message.writer_id,
        metadata=dict(message.metadata),
        create_time=_time(message.create_time, known=message.HasField("create_time")),
        update_time=_time(message.update_time, known=message.HasField("update_time")),
        key_id=message.key_id,
        encrypted=message.encrypted,
        legacy=message.legacy,
    )


def saved(message: pb.SaveCheckpointResponse) -> Saved:
    """Return what a message says of a save. Raises `InternalError` for an outcome that is none."""
    if (outcome := _OUTCOMES.get(message.outcome)) is None:
        raise InternalError("INTERNAL", f"the server answered a save with an unknown outcome, {message.outcome}")
    known = checkpoint(message.checkpoint) if message.HasField("checkpoint") else None
    return Saved(outcome, known, message.pointer_moved, message.latest_epoch, message.next_epoch)


def checkpoint_entry(message: pb.CheckpointEntry) -> CheckpointEntry:
    """Return what a list says of a checkpoint."""
    error = _error(message.status)
    return CheckpointEntry(message.epoch, None if error else checkpoint(message.checkpoint), error)


def snapshot_entry(message: pb.SnapshotEntry) -> SnapshotEntry:
    """Return what a list says of a snapshot."""
    error = _error(message.status)
    return SnapshotEntry(message.room_id, None if error else snapshot(message.snapshot), error)


def room(message: pb.RoomEntry) -> Room:
    """Return what a list says of a room."""
    return Room(
        message.room_id,
        message.latest_epoch if message.HasField("latest_epoch") else None,
        _time(message.update_time, known=message.HasField("update_time")),
        _error(message.status),
    )


def watched(message: pb.WatchCheckpointsResponse) -> Watched:
    """Return what an event says."""
    return Watched(message.room_id, message.epoch if message.HasField("epoch") else None, _error(message.status))


def _error(status: ItemStatus) -> HoldfastError | None:
    return from_item_status(status) if status.code else None


def _time(message: Timestamp, *, known: bool) -> datetime | None:
    return moment_of(message) if known else None


_OUTCOMES: dict[int, SaveOutcome] = {
    pb.SAVE_OUTCOME_STORED: SaveOutcome.STORED,
    pb.SAVE_OUTCOME_EXISTS_SAME: SaveOutcome.EXISTS_SAME,
    pb.SAVE_OUTCOME_EXISTS_DIFFERENT: SaveOutcome.EXISTS_DIFFERENT,
    pb.SAVE_OUTCOME_EXISTS_DAMAGED: SaveOutcome.EXISTS_DAMAGED,
}
