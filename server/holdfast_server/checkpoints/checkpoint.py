"""What the store says of checkpoints: the values that go in and out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto

from holdfast_server.checkpoints.names import RoomId
from holdfast_server.checkpoints.seal import Footer
from holdfast_server.errors import HoldfastError
from holdfast_server.objects.info import ObjectInfo

NO_CHECKPOINT = -1
"""Where an epoch is expected: the room has none."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is known of a checkpoint.

    `footer` is what its seal says; None for what an older system wrote. `sha256` is that of the payload where it was
    read or written, and empty otherwise.
    """

    room: RoomId
    epoch: int
    size_bytes: int
    info: ObjectInfo
    footer: Footer | None
    sha256: bytes = b""


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint, and where its room is.

    `latest_epoch` is the one that the pointer names (None: there is no good pointer), `next_epoch` the one to go on at.
    """

    checkpoint: Checkpoint
    latest_epoch: int | None
    next_epoch: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """What a load with fallback passed over: an epoch, or (None) the pointer."""

    epoch: int | None
    error: HoldfastError


@dataclass(frozen=True, slots=True)
class Listed:
    """A checkpoint in a list, or why nothing can be said of it."""

    epoch: int
    checkpoint: Checkpoint | HoldfastError


@dataclass(frozen=True, slots=True)
class ListedRoom:
    """A room in a list: the epoch that its pointer names and when that was moved, or why that cannot be told."""

    room: RoomId
    latest_epoch: int | None
    update_time: datetime | None
    error: HoldfastError | None = None


class Outcome(Enum):
    """What became of the payload of a save."""

    STORED = auto()
    EXISTS_SAME = auto()
    EXISTS_DIFFERENT = auto()
    EXISTS_DAMAGED = auto()


@dataclass(frozen=True, slots=True)
class SaveOptions:
    """How to save. `metadata` and `writer_id` are bound in the seal.

    `if_latest_epoch`: only if the pointer names this epoch, or `NO_CHECKPOINT`. `require_new`: refuse an epoch that is
    there. `replace_damaged_pointer`: go on where the pointer is not good, above all epochs that there are.
    """

    metadata: Mapping[str, str] = field(default_factory=dict)
    writer_id: str = ""
    if_latest_epoch: int | None = None
    require_new: bool = False
    replace_damaged_pointer: bool = False


@dataclass(frozen=True, slots=True)
class Saved:
    """The answer to a save. `checkpoint` is the one that has the epoch; None if that is damaged."""

    outcome: Outcome
    checkpoint: Checkpoint | None
    pointer_moved: bool
    latest_epoch: int
    next_epoch: int
