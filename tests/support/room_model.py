"""The rules of CheckpointStore once more: a plain dictionary, written without the code under test.

Each method says what a call must answer: what it returns, or `Reason` for a refusal. Damage is what a test did.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from tests.support.tombstones import tombstone_of

REMEMBERED = 8
"""So many snapshots that others have confirmed are known, should they be hibernated once more."""


class Reason(str):
    """A refusal, by the name of its reason."""

    __slots__ = ()


class Outcome(Enum):
    STORED = 1
    SAME = 2
    DIFFERENT = 3
    DAMAGED = 4


class Saved(NamedTuple):
    outcome: Outcome
    moved: bool
    latest: int
    next_epoch: int


class Found(NamedTuple):
    epoch: int
    data: bytes
    latest: int | None
    next_epoch: int
    skipped: list[tuple[int | None, str]]


class Pruned(NamedTuple):
    rooms: int
    deleted: int
    kept: int
    failed: list[str]


class Deleted(NamedTuple):
    deleted: int
    existed: bool
    next_epoch: int


@dataclass
class Room:
    """A room's checkpoints, and its pointer: the epoch that it names, or that of the tombstone in its place (-1: none).

    What is at or below `floor` was deleted before the room was begun anew.
    """

    payloads: dict[int, bytes] = field(default_factory=dict)
    writers: dict[int, str] = field(default_factory=dict)
    """Of the payloads; empty: it told no name."""
    damaged: set[int] = field(default_factory=set)
    latest: int = -1
    buried: int = -1
    floor: int = -1

    @property
    def shown(self) -> dict[int, bytes]:
        return {epoch: data for epoch, data in self.payloads.items() if epoch > max(self.floor, self.buried)}

    @property
    def is_live(self) -> bool:
        return self.latest >= 0

    @property
    def highest(self) -> int:
        return max([self.latest, self.buried, *self.payloads])

    def save(self, epoch: int, data: bytes, if_latest: int | None, *, require_new: bool, writer: str) -> Saved | Reason:
        is_elsewhere = if_latest is not None and self.latest not in {if_latest, epoch}
        # A room that has lost its pointer would be set back, too.
        has_no_pointer = not self.is_live and self.buried < 0
        if epoch <= max(self.buried, self.floor) or (has_no_pointer and epoch < self.highest and not is_elsewhere):
            return Reason("EPOCH_TOO_OLD")
        if is_elsewhere:
            return Reason("CONCURRENT_MODIFICATION")
        outcome = Outcome.STORED
        if epoch in self.payloads:
            if require_new:
                return Reason("ALREADY_EXISTS")
            is_anothers = if_latest is not None and self.writers.get(epoch, "") != writer
            is_same, is_damaged = self.payloads[epoch] == data and not is_anothers, epoch in self.damaged
            if (not is_same or is_damaged) and if_latest not in {None, self.latest}:
                return Reason("CONCURRENT_MODIFICATION")
            if not is_same or is_damaged:
                taken = Outcome.DAMAGED if is_damaged else Outcome.DIFFERENT
                return Saved(taken, moved=False, latest=self.latest, next_epoch=self.highest + 1)
            outcome = Outcome.SAME
        else:
            self.writers[epoch] = writer
        self.payloads[epoch] = data
        moved = epoch > self.latest
        if moved:
            self.latest, self.buried, self.floor = epoch, -1, max(self.floor, self.buried)
        return Saved(outcome, moved, self.latest, self.latest + 1)

    def load(self, epoch: int | None, min_epoch: int | None, *, fallback: bool) -> Found | Reason:
        skipped: list[tuple[int | None, str]] = []
        start = epoch
        if self.buried >= 0:
            return Reason("ROOM_NOT_FOUND")
        if start is None:
            start = self.latest
            if not self.is_live:
                if not fallback or not self.payloads:
                    return Reason("ROOM_NOT_FOUND")
                skipped.append((None, "ROOM_NOT_FOUND"))
                start = max(self.payloads)
        older = sorted((each for each in self.shown if each < start), reverse=True)
        refusal: Reason | None = None
        for each in [start, *older] if fallback else [start]:
            if min_epoch is not None and each < min_epoch:
                return refusal or Reason("EPOCH_TOO_OLD")
            if each in self.shown and each not in self.damaged:
                latest = self.latest if self.is_live else None
                return Found(each, self.payloads[each], latest, self.highest + 1, skipped)
            reason = Reason("SEAL_INVALID" if each in self.shown else "CHECKPOINT_NOT_FOUND")
            refusal = refusal or reason
            skipped.append((each, reason))
        return refusal or Reason("ROOM_NOT_FOUND")

    def prune(self, keep_last: int, *, is_old: bool, dry_run: bool) -> Pruned | Reason:
        if not self.is_live:
            return Reason("ROOM_NOT_FOUND")
        gone = [each for each in self.payloads if each <= self.floor]
        older = sorted(each for each in self.shown if each < self.latest)
        keep = keep_last - 1
        bad = len(self.damaged.intersection(older[-keep:])) if keep else 0
        keep += bad
        condemned = gone + ((older[:-keep] if keep else older) if is_old else [])
        if condemned and self.latest in self.damaged:
            return Reason("SEAL_INVALID")
        for each in condemned if not dry_run else ():
            self.remove(each)
        return Pruned(1, len(condemned), 1 + len(gone) + len(older) - len(condemned), [])

    def delete(self) -> Deleted:
        existed = self.is_live or (self.buried < 0 and bool(self.payloads))
        if existed or self.highest > self.buried:
            self.buried, self.latest, self.floor = tombstone_of(self.highest), -1, -1
        gone = [each for each in self.payloads if each <= self.buried]
        for each in gone:
            self.remove(each)
        return Deleted(len(gone), existed, self.buried + 1)

    def remove(self, epoch: int) -> None:
        del self.payloads[epoch]
        self.writers.pop(epoch, None)
        self.damaged.discard(epoch)


@dataclass
class Snapshot:
    """A room's snapshot; `given_up` is by whom, once it was."""

    data: bytes
    etag: str
    writer: str = ""
    given_up: str | None = None


class Rooms:
    """All rooms, and their snapshots."""

    def __init__(self) -> None:
        self.rooms: dict[str, Room] = {}
        self.snapshots: dict[str, Snapshot] = {}
        self.given_away: dict[str, list[tuple[str, bytes]]] = {}
        """The writers and payloads of the snapshots that others have confirmed, newest first."""

    def __getitem__(self, room: str) -> Room:
        return self.rooms.setdefault(room, Room())

    def listed(self) -> dict[str, int]:
        live = {name: room.latest for name, room in self.rooms.items() if room.is_live}
        return dict(sorted(live.items(), key=lambda item: (item[0] + "/").encode()))

    def prune(self, keep_last: int, *, is_old: bool, dry_run: bool) -> Pruned:
        rooms = deleted = kept = 0
        failed = []
        for name in self.listed():
            answer = self[name].prune(keep_last, is_old=is_old, dry_run=dry_run)
            rooms += 1
            if isinstance(answer, Pruned):
                deleted, kept = deleted + answer.deleted, kept + answer.kept
            else:
                failed.append(name)
                # What it counted before it found the damage: all that is outside is condemned, and not kept.
                kept += 1 + len([each for each in self[name].payloads if each < self[name].latest][: keep_last - 1])
        return Pruned(rooms, deleted, kept, failed)

    def asleep(self, room: str) -> Snapshot | None:
        snapshot = self.snapshots.get(room)
        return None if snapshot is None or snapshot.given_up is not None else snapshot

    def hibernate(
        self, room: str, data: bytes, writer: str, *, create_only: bool, etag: str | None
    ) -> Snapshot | Reason:
        """Return what is there then; its etag is for the caller to fill in."""
        snapshot = self.asleep(room)
        if create_only and snapshot is not None:
            return Reason("ALREADY_EXISTS")
        if etag is not None and (snapshot is None or snapshot.etag != etag):
            return Reason("PRECONDITION_FAILED")
        if writer and (writer, data) in self.given_away.get(room, [])[:REMEMBERED]:
            return Reason("CONCURRENT_MODIFICATION")
        self.snapshots[room] = Snapshot(data, "", writer)
        return self.snapshots[room]

    def confirm(self, room: str, etag: str, data: bytes, writer: str) -> Reason | None:
        snapshot = self.snapshots.get(room)
        if snapshot is None:
            return Reason("SNAPSHOT_NOT_FOUND")
        if snapshot.given_up is not None:
            is_again = bool(writer) and (snapshot.given_up, snapshot.etag) == (writer, etag)
            return None if is_again else Reason("CONCURRENT_MODIFICATION")
        if snapshot.etag != etag:
            return Reason("CONCURRENT_MODIFICATION")
        if snapshot.data != data:
            return Reason("CHECKSUM_MISMATCH")
        snapshot.given_up = writer
        if writer and snapshot.writer not in {"", writer}:
            self.given_away.setdefault(room, []).insert(0, (snapshot.writer, snapshot.data))
        return None
