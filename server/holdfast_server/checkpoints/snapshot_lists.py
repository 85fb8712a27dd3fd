"""Lists of hibernated rooms, a page at a time; and the end of what stands for snapshots that were given up."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from holdfast_server import calls, page_token
from holdfast_server.checkpoints.legacy import flat_names
from holdfast_server.checkpoints.lists import ENTRY_BYTES, PageQuery, page_of
from holdfast_server.checkpoints.names import (
    HIBERNATED,
    SNAPSHOTS,
    RoomId,
    flat_room,
    room_of_snapshot,
    snapshots_prefix,
)
from holdfast_server.checkpoints.opening import OpenLegacy
from holdfast_server.checkpoints.reading import Failures, concerns_one
from holdfast_server.checkpoints.seal import HEAD_BYTES, MAX_FOOTER_BYTES, Footer
from holdfast_server.checkpoints.snapshot_reading import GivenUp, ListedSnapshot, Snapshot, Snapshots
from holdfast_server.errors import ConditionUnsupported, HoldfastError, PreconditionFailed
from holdfast_server.objects.base import Entry, ListQuery, ObjectNotFound, ObjectStore
from holdfast_server.objects.conditions import IfMatch
from holdfast_server.objects.info import ObjectInfo
from holdfast_server.pages import checked_page_size
from holdfast_server.workers import Workers

Renew = Callable[[RoomId, ObjectInfo, Footer], bool]
"""Replaces what stands for a snapshot that was given up by the same, where that is due."""


class SnapshotLists:
    """Goes through the snapshots of an `ObjectStore`. `legacy`: what verifies those of an older system, if any."""

    def __init__(self, objects: ObjectStore, snapshots: Snapshots, workers: Workers, legacy: OpenLegacy | None) -> None:
        self._objects = objects
        self._snapshots = snapshots
        self._workers = workers
        self._legacy = legacy

    def page(self, query: PageQuery) -> tuple[list[ListedSnapshot], str]:
        """Return a page of hibernated rooms, and the token of the next one. Raises `InvalidArgument`."""
        binding = ("hibernated", query.prefix)
        after = page_token.decode(binding, query.page_token) if query.page_token else ""
        if query.page_token and (flat_room if after.startswith(SNAPSHOTS) else room_of_snapshot)(after) is None:
            raise page_token.refusal()
        page, last = page_of(
            self._names(query.prefix, after),
            self._listed,
            checked_page_size(query.page_size),
            size_of=_size_of,
            workers=self._workers,
            at_once=self._objects.describe().reads_at_once,
        )
        return page, "" if not last else page_token.encode(binding, last[0][0])

    def remove_given_up(self, age: timedelta, renew: Renew | None = None) -> int:
        """Remove what stands for snapshots that were given up longer ago than that, and return how many.

        `renew` is shown what stays; without it, what is too young to go is not looked at.
        """
        removed = 0
        failures = Failures()
        for entry in self._objects.list(ListQuery(HIBERNATED)):
            calls.check("looking for tombstones")
            room = room_of_snapshot(entry.name)
            if room is None or not isinstance(entry, Entry) or entry.record is None:
                continue
            if entry.record.size_bytes > MAX_FOOTER_BYTES + HEAD_BYTES:
                continue
            if renew is None and not self._is_older(entry.record.update_time, age):
                continue
            try:
                removed += self._tidied(room, entry.record.etag, age, renew)
                failures.forget()
            except HoldfastError as error:
                failures.count(error)
        return removed

    def _is_older(self, time: datetime, age: timedelta) -> bool:
        return time < self._objects.now() - age

    def _tidied(self, room: RoomId, etag: str, age: timedelta, renew: Renew | None) -> bool:
        """Remove what a list has shown under this etag, if it is still that, and old: the list may be long ago."""
        try:
            self._snapshots.look(room)
        except ObjectNotFound:
            return False
        except GivenUp as given_up:
            if self._is_older(given_up.info.update_time, age) and self._removed(room, etag):
                return True
            if renew is not None:
                renew(room, given_up.info, given_up.footer)
        return False

    def _removed(self, room: RoomId, etag: str) -> bool:
        if self._legacy is not None and self._snapshots.is_there(room.flat_key):
            return False  # it hides that one
        try:
            return self._objects.delete(room.snapshot_key, condition=IfMatch(etag))
        except (PreconditionFailed, ConditionUnsupported):
            return False  # hibernated again, or given up once more; or nobody could tell that

    def _names(self, prefix: str, after: str) -> Iterator[tuple[str, RoomId]]:
        """Yield the names of snapshots after one, and whose they are; those of an older system last."""
        if not after.startswith(SNAPSHOTS):
            for entry in self._objects.list(ListQuery(snapshots_prefix(prefix), after)):
                room = room_of_snapshot(entry.name)
                if room is not None and room.text.startswith(prefix):
                    yield entry.name, room
        if self._legacy is None:
            return
        after = after if after.startswith(SNAPSHOTS) else ""
        for name in flat_names(self._objects, prefix, after):
            if (flat := flat_room(name)) is not None:
                yield name, flat

    def _listed(self, named: tuple[str, RoomId]) -> ListedSnapshot | None:
        name, room = named
        try:
            if name == room.snapshot_key.text:
                info, footer = self._snapshots.look(room)
                return ListedSnapshot(room, Snapshot(room, footer.size_bytes, info, footer))
            if self._snapshots.is_there(room.snapshot_key):
                return None  # that one counts
            with self._snapshots.open(room, room.flat_key, self._legacy) as restored:
                return ListedSnapshot(room, replace(restored.snapshot, sha256=b""))
        except (ObjectNotFound, GivenUp):
            return None
        except HoldfastError as error:
            if not concerns_one(error):
                raise
            return ListedSnapshot(room, error.with_traceback(None))


def _size_of(listed: ListedSnapshot) -> int:
    footer = listed.snapshot.footer if isinstance(listed.snapshot, Snapshot) else None
    return ENTRY_BYTES + (0 if footer is None else footer.subject.size_bytes)
