"""What rooms and epochs may be called, and where their objects lie."""

import base64
import binascii
import re
from dataclasses import dataclass
from functools import cached_property

from holdfast_server.errors import HoldfastError, InvalidArgument, Reason
from holdfast_server.objects.key import MAX_KEY_BYTES, ObjectKey

MAX_ROOM_ID_BYTES = 512
MAX_EPOCH = (1 << 63) - 2
"""So that the next one is a number of 64 bits, too."""
MAX_RISE = 1 << 62
"""How far above what was deleted a room can be saved: a save by mistake at the end of all epochs would close it."""

MAX_WRITER_CHARACTERS = 128

SNAPSHOTS = "snapshots/"
"""Checkpoints lie under `snapshots/<room>/`, a name that shellcade gave them."""

HIBERNATED = "hibernated/"

EPOCH_DIGITS = 20
EPOCH_ZEROS = "0" * 10
"""What the names of checkpoints begin with as long as epochs stay below 10^10: no room's segment does."""

LATEST = "latest"

_EPOCH = re.compile(r"[0-9]{20}\Z")
_WRITER = re.compile(r"[\x20-\x7e]{0,128}\Z")
_REQUEST_ID = re.compile(r"[\x20-\x7e]{0,64}\Z")
_SEGMENT_CHARACTERS = 199
"""Of the longest segment of a key, less the mark of one that goes on."""
_GOES_ON = "%"
_PACKED = "%~"
_PLAIN_CHARACTERS = 64
"""Of a room's id that are percent-encoded in the name of its snapshot, whatever comes after them."""


@dataclass(frozen=True)
class RoomId:
    """The name of a room, valid by construction.

    UTF-8, 1 to 512 bytes, with the rules of keys; and no segment is `latest`, 20 digits, or begins with ten zeros:
    those are the names of what lies under a room. Raises `InvalidArgument` (INVALID_ROOM) naming `field`.
    """

    text: str
    field: str = "room_id"

    def __post_init__(self) -> None:
        """Check the rules."""
        if not self.text:
            raise self._refusal("is empty")
        try:
            size = len(self.text.encode())
        except UnicodeEncodeError:
            raise self._refusal("is not valid Unicode: it has a lone surrogate") from None
        if size > MAX_ROOM_ID_BYTES:
            raise self._refusal(f"of {size} bytes is longer than {MAX_ROOM_ID_BYTES} bytes", named=False)
        try:
            key = ObjectKey(self.text)
        except InvalidArgument as broken:
            raise InvalidArgument(
                Reason.INVALID_ROOM, self.field, f"{self.field}: {broken.message.removeprefix('key ')}"
            ) from None
        for segment in key.segments:
            if segment == LATEST or _EPOCH.match(segment) or segment.startswith(EPOCH_ZEROS):
                rule = "the names of checkpoints: 'latest', 20 digits, or ten zeros at the start"
                raise self._refusal(f"has the segment {segment!r}, one of {rule}")

    def __str__(self) -> str:
        """Return the id as text."""
        return self.text

    def __eq__(self, other: object) -> bool:
        """Tell whether it is the same room."""
        return isinstance(other, RoomId) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    @cached_property
    def prefix(self) -> str:
        """What the names of all objects of the room's checkpoints begin with."""
        return f"{SNAPSHOTS}{self.text}/"

    @cached_property
    def pointer_key(self) -> ObjectKey:
        """Where the pointer to the latest checkpoint lies; it sorts behind all epochs."""
        return ObjectKey(self.prefix + LATEST)

    def epoch_key(self, epoch: int) -> ObjectKey:
        """Return where the checkpoint of an epoch lies; the order of names is that of epochs."""
        return ObjectKey(f"{self.prefix}{epoch:0{EPOCH_DIGITS}}")

    @cached_property
    def snapshot_key(self) -> ObjectKey:
        """Where the snapshot of the hibernated room lies: flat, with `%` and `/` percent-encoded.

        What is longer than a segment may be goes on in the next one, and says so by a `%` at its end, as no last
        segment has: so no snapshot's key is another's parent. Where that is longer than a key may be, all but the first
        64 characters is in base64.
        """
        name = HIBERNATED + "/".join(_cut(_escaped(self.text)))
        if len(name.encode()) > MAX_KEY_BYTES:
            head, rest = self.text[:_PLAIN_CHARACTERS], self.text[_PLAIN_CHARACTERS:]
            packed = base64.urlsafe_b64encode(rest.encode()).decode()
            name = HIBERNATED + "/".join(_cut(_escaped(head) + _PACKED + packed))
        return ObjectKey(name)

    @cached_property
    def flat_key(self) -> ObjectKey:
        """Where shellcade keeps the snapshot of a hibernated room."""
        return ObjectKey(SNAPSHOTS + self.text)

    def _refusal(self, rule: str, *, named: bool = True) -> InvalidArgument:
        name = f"{self.field} {self.text!r}" if named and self.text else self.field
        return InvalidArgument(Reason.INVALID_ROOM, self.field, f"{name} {rule}")


def checked_epoch(epoch: int | None, field: str = "epoch", *, least: int = 0) -> int:
    """Return an epoch: `least` to 2^63 - 2. Raises `InvalidArgument` (INVALID_EPOCH)."""
    if epoch is None:
        raise InvalidArgument(Reason.INVALID_EPOCH, field, f"{field} is not set")
    if not least <= epoch <= MAX_EPOCH:
        rule = f"is above {MAX_EPOCH}" if epoch > MAX_EPOCH else f"is below {least}" if least else "is negative"
        raise InvalidArgument(Reason.INVALID_EPOCH, field, f"{field} {epoch} {rule}")
    return epoch


def checked_writer(writer_id: str) -> str:
    """Return a writer id: at most 128 printable ASCII characters. Raises `InvalidArgument` (INVALID_WRITER)."""
    if not _WRITER.match(writer_id):
        rule = f"at most {MAX_WRITER_CHARACTERS} printable ASCII characters"
        raise InvalidArgument(Reason.INVALID_WRITER, "writer_id", f"writer_id {writer_id[:80]!r} is not {rule}")
    return writer_id


def checked_request_id(request_id: str) -> str:
    """Return a request's id: at most 64 printable ASCII characters. Raises `InvalidArgument` (INVALID_CONDITION)."""
    if not _REQUEST_ID.match(request_id):
        message = f"request_id {request_id[:80]!r} is not at most 64 printable ASCII characters"
        raise InvalidArgument(Reason.INVALID_CONDITION, "request_id", message)
    return request_id


def epoch_in(name: str, room: RoomId) -> int | None:
    """Return the epoch whose checkpoint has this name. None: it is no checkpoint of the room."""
    last = name.removeprefix(room.prefix)
    return int(last) if name.startswith(room.prefix) and _EPOCH.match(last) and int(last) <= MAX_EPOCH else None


def room_in(name: str) -> tuple[str, bool] | None:
    """Return the id of the room whose checkpoint or pointer has this name, and whether it is a checkpoint.

    None: it is neither.
    """
    room, _, last = name.removeprefix(SNAPSHOTS).rpartition("/")
    is_epoch = _EPOCH.match(last) is not None
    return (room, is_epoch) if room and name.startswith(SNAPSHOTS) and (is_epoch or last == LATEST) else None


def room_of_snapshot(name: str) -> RoomId | None:
    """Return the room whose snapshot has this name. None: it is nobody's."""
    *parts, last = name.removeprefix(HIBERNATED).split("/")
    text = "".join(part.removesuffix(_GOES_ON) for part in parts) + last
    head, _, packed = text.partition(_PACKED)
    try:
        rest = base64.urlsafe_b64decode(packed).decode()
        room = RoomId(head.replace("%2F", "/").replace("%25", "%") + rest)
    except (HoldfastError, binascii.Error, ValueError):
        return None
    return room if room.snapshot_key.text == name else None


def flat_room(name: str) -> RoomId | None:
    """Return the room whose snapshot shellcade keeps under this name. None: it is nobody's."""
    try:
        return RoomId(name.removeprefix(SNAPSHOTS))
    except HoldfastError:
        return None


def snapshots_prefix(prefix: str) -> str:
    """Return what the names of all snapshots begin with whose rooms' ids begin with `prefix`; others' may, too."""
    # Behind these characters a name may be cut, or packed, anywhere.
    head = _escaped(prefix)[:_PLAIN_CHARACTERS]
    return HIBERNATED + (head if len(head.encode()) < _SEGMENT_CHARACTERS // 2 else head[: _PLAIN_CHARACTERS // 4])


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("/", "%2F")


def _cut(name: str) -> list[str]:
    """Cut a name into segments of at most 200 bytes, all but the last marked."""
    segments = []
    while len(name.encode()) > _SEGMENT_CHARACTERS:
        head = name.encode()[:_SEGMENT_CHARACTERS].decode(errors="ignore")  # no half of a character
        if name[len(head) :] in (".", ".."):
            head = head[:-2]  # those are no segments
        segments.append(head + _GOES_ON)
        name = name[len(head) :]
    return [*segments, name]
