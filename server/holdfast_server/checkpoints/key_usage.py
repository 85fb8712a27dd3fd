"""With which keys what is stored was sealed: who retires a key wants to know what it still opens.

Heads are read, and nothing is verified: so this tells also of keys that are retired already, or not at hand.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain, islice

from holdfast_server.checkpoints import seal
from holdfast_server.checkpoints.names import HIBERNATED, SNAPSHOTS, flat_room, room_in, room_of_snapshot
from holdfast_server.checkpoints.pointer_form import MAX_POINTER_BYTES, is_tombstone
from holdfast_server.checkpoints.seal import MAX_FOOTER_BYTES, Purpose, SealBroken
from holdfast_server.errors import IntegrityFailed, SealTooNew
from holdfast_server.objects.base import ListQuery, ObjectNotFound, ObjectStore
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.ranges import Tail
from holdfast_server.workers import Workers

MOST_ROOMS = 10
"""Named of each kind."""

_BATCH = 512
_MOST_KEYS = 1000
"""Told apart: who writes to the store can put any id there."""


class Kind(StrEnum):
    """What is sealed."""

    CHECKPOINTS = "checkpoints"
    POINTERS = "pointers"
    TOMBSTONES = "tombstones"
    SNAPSHOTS = "snapshots"
    WAKE_MARKS = "wake marks"


_KINDS = {
    Purpose.CHECKPOINT: Kind.CHECKPOINTS,
    Purpose.POINTER: Kind.POINTERS,
    Purpose.SNAPSHOT: Kind.SNAPSHOTS,
    Purpose.RESTORED: Kind.WAKE_MARKS,
}


@dataclass(slots=True)
class Use:
    """How many objects, and whose: the first `MOST_ROOMS` rooms."""

    count: int = 0
    rooms: list[str] = field(default_factory=list)
    has_more_rooms: bool = False

    def add(self, room: str) -> None:
        """Count one."""
        self.count += 1
        if room in self.rooms:
            return
        if len(self.rooms) < MOST_ROOMS:
            self.rooms.append(room)
        else:
            self.has_more_rooms = True


Uses = dict[Kind, Use]


@dataclass(slots=True)
class KeyUsage:
    """What each key sealed, by its id. `unread`: what has no head, of an older system for one, or a damaged one."""

    keys: dict[bytes, Uses] = field(default_factory=dict)
    unread: Uses = field(default_factory=dict)

    def add(self, found: "_Found") -> None:
        """Count one."""
        uses = self.unread
        if found.key_id is not None and (found.key_id in self.keys or len(self.keys) < _MOST_KEYS):
            uses = self.keys.setdefault(found.key_id, {})
        uses.setdefault(found.kind, Use()).add(found.room)


@dataclass(frozen=True, slots=True)
class _Named:
    """An object, by its name."""

    name: str
    room: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class _Found:
    """An object, and the key that sealed it; None: that cannot be told."""

    key_id: bytes | None
    kind: Kind
    room: str


def key_usage(objects: ObjectStore, workers: Workers, of: Iterable[bytes] = ()) -> KeyUsage:
    """Go through all that CheckpointStore keeps, and read the end of each object. `of`: keys to count in any case."""
    usage = KeyUsage({key_id: {} for key_id in of})
    names = _names(objects)
    at_once = objects.describe().reads_at_once

    def look(named: _Named) -> _Found | None:
        return _found(objects, named)

    while held := list(islice(names, _BATCH)):
        for found in workers.each(held, look, at_once):
            if found is not None:
                usage.add(found)
    return usage


def _names(objects: ObjectStore) -> Iterator[_Named]:
    listed = (objects.list(ListQuery(prefix)) for prefix in (SNAPSHOTS, HIBERNATED))
    for name in (item.name for item in chain.from_iterable(listed)):
        if name.startswith(HIBERNATED):
            if (sleeper := room_of_snapshot(name)) is not None:
                yield _Named(name, sleeper.text, Kind.SNAPSHOTS)
        elif (found := room_in(name)) is not None:
            yield _Named(name, found[0], Kind.CHECKPOINTS if found[1] else Kind.POINTERS)
        elif (flat := flat_room(name)) is not None:
            yield _Named(name, flat.text, Kind.SNAPSHOTS)


def _found(objects: ObjectStore, named: _Named) -> _Found | None:
    """Return what there is under a name; None: it is gone."""
    tail = Tail(MAX_POINTER_BYTES if named.kind is Kind.POINTERS else MAX_FOOTER_BYTES)
    try:
        with objects.get(ObjectKey(named.name), tail) as reader:
            end = b"".join(chunk.data for chunk in reader)
        head = seal.head_in(end)
    except ObjectNotFound:
        return None
    except (SealBroken, SealTooNew, IntegrityFailed):
        return _Found(None, named.kind, named.room)
    kind = Kind.TOMBSTONES if head.purpose is Purpose.POINTER and is_tombstone(end) else _KINDS[head.purpose]
    return _Found(head.key_id, kind, named.room)
