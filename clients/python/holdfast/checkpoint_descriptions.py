"""Checkpoints and snapshots in words, for people, and in plain values, for machines."""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from holdfast.checkpoint_results import (
    Checkpoint,
    CheckpointEntry,
    Room,
    Saved,
    SaveOutcome,
    Skipped,
    Snapshot,
    SnapshotEntry,
    Watched,
)
from holdfast.descriptions import moment, size_of
from holdfast.errors import HoldfastError, IntegrityFailed, SealKeyUnavailable, SealTooNew


def described(known: Checkpoint | Snapshot) -> dict[str, Any]:
    """Return what is known of a checkpoint or a snapshot, as JSON has it."""
    values = asdict(known) | {
        "sha256": known.sha256.hex() if known.sha256 else None,
        "create_time": _iso(known.create_time),
        "update_time": _iso(known.update_time),
    }
    if isinstance(known, Checkpoint):
        values["skipped"] = [{"epoch": each.epoch, "error": described_error(each.error)} for each in known.skipped]
    return values


def described_save(saved: Saved) -> dict[str, Any]:
    """Return what became of a save, as JSON has it."""
    return {
        "outcome": str(saved.outcome),
        "checkpoint": described(saved.checkpoint) if saved.checkpoint else None,
        "pointer_moved": saved.pointer_moved,
        "latest_epoch": saved.latest_epoch,
        "next_epoch": saved.next_epoch,
    }


def described_entry(entry: CheckpointEntry | SnapshotEntry) -> dict[str, Any]:
    """Return an item of a list, as JSON has it."""
    if isinstance(entry, CheckpointEntry):
        values: dict[str, Any] = {"epoch": entry.epoch}
        values["checkpoint"] = entry.checkpoint and described(entry.checkpoint)
    else:
        values = {"room_id": entry.room_id, "snapshot": entry.snapshot and described(entry.snapshot)}
    return values | {"error": described_error(entry.error)}


def described_room(room: Room | Watched) -> dict[str, Any]:
    """Return a room of a list or an event, as JSON has it."""
    values: dict[str, Any] = {"room_id": room.room_id}
    if isinstance(room, Room):
        values |= {"latest_epoch": room.latest_epoch, "update_time": _iso(room.update_time)}
    else:
        values["epoch"] = room.epoch
    return values | {"error": described_error(room.error)}


def described_error(error: HoldfastError | None) -> dict[str, Any] | None:
    """Return an error beside a result, as JSON has it."""
    if error is None:
        return None
    return {"type": type(error).__name__, "reason": error.reason, "message": error.message, "details": error.details}


def rows(known: Checkpoint | Snapshot) -> dict[str, str]:
    """Return the table of what is known of a checkpoint or a snapshot."""
    values = {"room": known.room_id}
    if isinstance(known, Checkpoint):
        values["epoch"] = str(known.epoch)
        values["latest epoch"] = "NOT GOOD" if known.latest_epoch is None else str(known.latest_epoch)
        values["next epoch"] = "" if known.next_epoch is None else str(known.next_epoch)
    values |= {
        "size": size_of(known.size_bytes),
        "etag": known.etag,
        "writer": known.writer_id,
        "sealed": _moment(known.create_time),
        "updated": _moment(known.update_time),
        "key": known.key_id or "legacy",
        "encrypted": "yes" if known.encrypted else "no",
    }
    return values | {f"metadata {name}": value for name, value in sorted(known.metadata.items())}


def entry_line(entry: CheckpointEntry | SnapshotEntry) -> str:
    """Return the line of a checkpoint or a snapshot in a list."""
    if isinstance(entry, CheckpointEntry):
        known: Checkpoint | Snapshot | None = entry.checkpoint
        name = f"{entry.epoch} {entry.checkpoint.writer_id if entry.checkpoint else ''}"
    else:
        known, name = entry.snapshot, entry.room_id
    time, size = (None, None) if known is None else (known.update_time, known.size_bytes)
    return _list_line(time, size, name.rstrip(), entry.error)


def room_line(room: Room) -> str:
    """Return the line of a room in a list."""
    return _list_line(room.update_time, room.latest_epoch, room.room_id, room.error)


def outcome_line(room_id: str, epoch: int, saved: Saved) -> str:
    """Return the line of a save that ended well."""
    size = f" ({size_of(saved.checkpoint.size_bytes)})" if saved.checkpoint else ""
    verb = "stored" if saved.outcome is SaveOutcome.STORED else "was there already:"
    if saved.pointer_moved:
        where = "now the latest"
    else:
        where = "the latest" if saved.latest_epoch == epoch else f"the latest stays {saved.latest_epoch}"
    return f"{verb} {room_id} at epoch {epoch}{size}, {where}"


def refusal_line(room_id: str, epoch: int, saved: Saved) -> str:
    """Return the line of a save whose payload was not stored."""
    why = "is damaged" if saved.outcome is SaveOutcome.EXISTS_DAMAGED else "is taken by another payload, which stays"
    return f"{room_id}: epoch {epoch} {why}. NOT stored: save it at the next epoch, {saved.next_epoch}"


def skipped_line(room_id: str, skipped: Skipped) -> str:
    """Return the line of a checkpoint that was passed over."""
    what = "the pointer" if skipped.epoch is None else f"epoch {skipped.epoch}"
    return f"{room_id}: passed over {what}: {skipped.error.message}"


def _list_line(time: datetime | None, figure: int | None, name: str, error: HoldfastError | None) -> str:
    told = "" if figure is None else str(figure)
    return f"{_moment(time):<20} {_trouble(error) if error else told:>14} {name}"


def _trouble(error: HoldfastError) -> str:
    if isinstance(error, IntegrityFailed):
        return "DAMAGED"
    if isinstance(error, SealTooNew):
        return "TOO NEW"
    return "NO KEY" if isinstance(error, SealKeyUnavailable) else "UNKNOWN"


def _moment(time: datetime | None) -> str:
    return "" if time is None else moment(time)


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
