"""What this process knows of pointers: so a save needs no read, and a pointer that is put back is noticed."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from holdfast_server.checkpoints.names import RoomId

NO_FLOOR = -1
"""Of a room of which nothing was deleted before."""

_ROOMS = 50_000
"""About 1 KiB each."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """What a room's pointer says. `epoch` of a tombstone lies well above all that were deleted."""

    room: RoomId
    epoch: int
    tag: bytes
    """The seal of the checkpoint that it names; empty where an older system wrote one of both."""
    is_deleted: bool
    etag: str
    update_time: datetime
    floor: int = NO_FLOOR
    """What is at or below was deleted with the room that was there before; of a tombstone its epoch."""
    deletion: str = ""
    """The request that deleted it; empty: it was not told, or nothing was deleted."""
    key_id: bytes = field(default=b"", compare=False)
    """Of the key that sealed what was read; empty where it was written just now, or by an older system."""
    is_plain: bool = False
    """Whether it has no seal, as an older system wrote it."""

    @property
    def next_epoch(self) -> int:
        """The lowest epoch that moves it."""
        return self.epoch + 1

    @property
    def rank(self) -> tuple[int, bool]:
        """How far it is: a pointer never falls back behind one that it was. A tombstone comes after its epoch."""
        return self.epoch, self.is_deleted

    def names(self, epoch: int) -> bool:
        """Tell whether this is the latest epoch; that of a tombstone is none."""
        return self.epoch == epoch and not self.is_deleted

    def is_behind(self, other: "Pointer") -> bool:
        """Tell whether this cannot have come after the other: it is less far, or has lost its seal."""
        return self.rank < other.rank or (self.is_plain and not other.is_plain)


@dataclass(slots=True)
class _Seen:
    furthest: Pointer
    at: float
    is_current: bool = True
    """Whether it may still be what it was; else it has to be read before it is moved."""


class SeenPointers:
    """The pointers that were seen, of the rooms that were met last; each for `forget_seconds`.

    `clock` counts seconds. May be used by many threads at once.
    """

    def __init__(self, forget_seconds: float, clock: Callable[[], float]) -> None:
        self._forget_seconds = forget_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._rooms: OrderedDict[RoomId, _Seen] = OrderedDict()

    def current(self, room: RoomId) -> Pointer | None:
        """Return the pointer as it was last; None: it has to be read."""
        with self._lock:
            seen = self._remembered(room)
            return seen.furthest if seen is not None and seen.is_current else None

    def furthest(self, room: RoomId) -> Pointer | None:
        """Return the pointer when it was furthest; None: it is not remembered."""
        with self._lock:
            seen = self._remembered(room)
            return None if seen is None else seen.furthest

    def _remembered(self, room: RoomId) -> _Seen | None:
        seen = self._rooms.get(room)
        if seen is not None and self._clock() - seen.at > self._forget_seconds:
            del self._rooms[room]
            return None
        return seen

    def see(self, room: RoomId, pointer: Pointer | None, *, remember: bool = True) -> bool:
        """Note what a pointer is, and tell whether nobody has seen it further meanwhile.

        `remember`: also that of a room that was not met before.
        """
        with self._lock:
            seen = self._rooms.get(room)
            if seen is not None and (pointer is None or pointer.is_behind(seen.furthest)):
                return False
            if pointer is not None and (remember or seen is not None):
                self._rooms[room] = _Seen(pointer, self._clock())
                self._rooms.move_to_end(room)
                while len(self._rooms) > _ROOMS:
                    self._rooms.popitem(last=False)
        return True

    def doubt(self, room: RoomId) -> None:
        """Forget what a pointer is, but not how far it was."""
        with self._lock:
            if (seen := self._rooms.get(room)) is not None:
                seen.is_current = False

    def forget(self, room: RoomId) -> None:
        """Forget a room."""
        with self._lock:
            self._rooms.pop(room, None)
