"""What a `CheckpointSaver` saves to, and a clock: in memory, with the failures that a distant store can have."""

import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from hashlib import sha256
from typing import TypeAlias

import holdfast
from holdfast import Checkpoint, Saved, SaveOutcome


class FakeClock:
    """A clock that a test moves; with `passes`, waiting takes no time and moves it."""

    def __init__(self, *, passes: bool = True) -> None:
        self.now = 1000.0
        self._passes = passes
        self._read = threading.local()
        """What each thread was told last: it counts from there, however long it stands still before it waits."""

    def monotonic(self) -> float:
        self._read.now = now = self.now
        return now

    def wait(self, event: threading.Event, seconds: float) -> bool:
        end = (self.now if self._passes else self._read.now) + seconds
        if self._passes and not event.is_set():
            self.now = max(self.now, end)
        while self.now < end:
            if event.wait(0.002):
                return True
        return event.is_set()


GAP = 1000
"""How far a room that was deleted is begun anew above what it had."""


class Fault(Enum):
    """What goes wrong with a save."""

    REFUSED = "nothing was done, and the caller knows no more than that the server is away"
    LOST = "all was done, and the answer is lost"
    ORPHAN = "the epoch is there, the pointer was not moved, and the answer is lost"
    LATE = "the answer is lost, and it is done later: by `land_late`"


Flaw: TypeAlias = Fault | Exception | None


class RoomStore:
    """One room of CheckpointStore, by its rules. `faults` are those of the next saves, in order."""

    def __init__(self) -> None:
        self.payloads: dict[int, bytes] = {}
        self.damaged: set[int] = set()
        self.locked: set[int] = set()
        """Epochs of these are sealed with a key that the server lacks."""
        self.latest = -1
        self.settled: set[int] = set()
        """Epochs that were there for a while: without a pointer, nothing is begun below."""
        self.floor = 0
        """Saves below are EPOCH_TOO_OLD: the room was deleted."""
        self.faults: list[Flaw] = []
        self.tried: list[tuple[int, bytes]] = []
        self.asked = 0
        self.late: list[tuple[int, bytes]] = []
        self.meanwhile: Callable[[], None] | None = None
        """Is called within each save, before it is done."""

    @property
    def above(self) -> int:
        return max([self.floor - 1, self.latest, *self.payloads]) + 1

    def next_epoch(self, room_id: str, *, need_pointer: bool, timeout: float | None) -> int:
        self.asked += 1
        self._fail()
        if need_pointer and self.latest < 0 and self.payloads:
            raise holdfast.NotFound("ROOM_NOT_FOUND", "it has no pointer", {"next_epoch": str(self.above)})
        return self.above

    def save(self, room_id: str, epoch: int, source: bytes, *, writer_id: str, timeout: float | None) -> Saved:
        assert timeout is not None
        assert timeout > 0
        self.tried.append((epoch, source))
        if self.meanwhile is not None:
            self.meanwhile()
        fault = self._fail()
        if fault is Fault.REFUSED:
            raise away()
        if fault is Fault.LATE:
            self.late.append((epoch, source))
            raise holdfast.DeadlineExceeded("DEADLINE_EXCEEDED", "no answer")
        saved = self.done(epoch, source, moves=fault is not Fault.ORPHAN)
        if fault in {Fault.LOST, Fault.ORPHAN}:
            raise away()
        return saved

    def done(self, epoch: int, payload: bytes, *, moves: bool = True) -> Saved:
        """Do a save."""
        if epoch < self.floor:
            raise holdfast.EpochTooOld("EPOCH_TOO_OLD", "deleted", {"next_epoch": str(self.above), "deleted": "true"})
        if epoch in self.locked:
            raise holdfast.SealKeyUnavailable("SEAL_KEY_UNAVAILABLE", "no key", {"next_epoch": str(self.above)})
        if self.latest < 0 and any(higher > epoch for higher in self.settled):
            raise holdfast.EpochTooOld("EPOCH_TOO_OLD", "it has no pointer", {"next_epoch": str(self.above)})
        outcome = SaveOutcome.STORED
        if epoch in self.damaged:
            outcome = SaveOutcome.EXISTS_DAMAGED
        elif epoch in self.payloads:
            same = self.payloads[epoch] == payload
            outcome = SaveOutcome.EXISTS_SAME if same else SaveOutcome.EXISTS_DIFFERENT
        else:
            self.payloads[epoch] = payload
        moved = moves and outcome in {SaveOutcome.STORED, SaveOutcome.EXISTS_SAME} and epoch > self.latest
        if moved:
            self.latest = epoch
        there = None if outcome is SaveOutcome.EXISTS_DAMAGED else _checkpoint(epoch, self.payloads[epoch])
        return Saved(outcome, there, moved, self.latest, self.above)

    def lose_pointer(self) -> None:
        """Have somebody delete the pointer, and nobody remember it."""
        self.latest = -1
        self.settled = set(self.payloads)

    def land_late(self) -> None:
        """Do the saves that were held up."""
        for epoch, payload in self.late:
            with suppress(holdfast.HoldfastError):
                self.done(epoch, payload)
        self.late.clear()

    def delete(self) -> None:
        """Delete the room."""
        self.floor = self.above + GAP
        self.payloads.clear()
        self.damaged.clear()
        self.locked.clear()
        self.settled.clear()
        self.latest = -1

    def _fail(self) -> Fault | None:
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, Exception):
            raise fault
        return fault


def _checkpoint(epoch: int, payload: bytes) -> Checkpoint:
    return Checkpoint(
        room_id="",
        epoch=epoch,
        size_bytes=len(payload),
        etag="",
        sha256=sha256(payload).digest(),
        writer_id="",
        metadata={},
        create_time=None,
        update_time=None,
        key_id="",
        encrypted=False,
        legacy=False,
    )


def away() -> holdfast.Unavailable:
    return holdfast.Unavailable("UNAVAILABLE", "away")
