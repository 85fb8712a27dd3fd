"""Blobs in words, for people, and in plain values, for machines."""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from holdfast.results import BlobEntry, BlobInfo, CommonPrefix


def described(info: BlobInfo) -> dict[str, Any]:
    """Return what is known of a blob, as JSON has it."""
    return asdict(info) | {"sha256": info.sha256.hex(), "update_time": info.update_time.isoformat()}


def listed(item: BlobEntry | CommonPrefix) -> dict[str, Any]:
    """Return an item of a list, as JSON has it."""
    if isinstance(item, CommonPrefix):
        return asdict(item)
    return asdict(item) | {"update_time": item.update_time and item.update_time.isoformat()}


def list_line(item: BlobEntry | CommonPrefix) -> str:
    """Return the line of an item of a list."""
    if isinstance(item, CommonPrefix):
        time, size, name = "", "PRE", item.prefix
    elif item.update_time is None:
        time, size, name = "", "DAMAGED", item.key
    else:
        time, size, name = moment(item.update_time), str(item.size_bytes), item.key
    return f"{time:<20} {size:>14} {name}"


def moment(time: datetime) -> str:
    """Return a time (UTC) to the second."""
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"


def size_of(size_bytes: int) -> str:
    """Return a size with its unit."""
    return f"{size_bytes} byte{'' if size_bytes == 1 else 's'}"
