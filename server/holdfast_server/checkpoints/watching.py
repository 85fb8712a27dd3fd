"""Watching: whoever waits for a room's next epoch is told of it, whichever process saved it."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from holdfast_server import calls
from holdfast_server.checkpoints.names import RoomId
from holdfast_server.checkpoints.pointers import Pointers
from holdfast_server.checkpoints.reading import concerns_one
from holdfast_server.checkpoints.seen_pointers import Pointer
from holdfast_server.errors import HoldfastError, Overloaded, Reason, Unavailable
from holdfast_server.workers import Workers

MAX_WATCHED_ROOMS = 10_000
"""Of one call."""

MOST_WATCHED_ROOMS = 200_000
"""Of all calls together: a room counts as often as it is watched."""

_ALIVE_SECONDS = 0.5
"""How often a watch looks whether its caller is still there."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a room's pointer names: an epoch, nothing (None), or why that cannot be told."""

    room: RoomId
    epoch: int | None
    error: HoldfastError | None = None

    @property
    def is_end(self) -> bool:
        """Whether the room has no checkpoint (any more)."""
        return self.epoch is None and self.error is None


class _Watch:
    """One caller: what was seen and not told yet, the newest for each room, and what was told last."""

    def __init__(self, rooms: Sequence[RoomId]) -> None:
        self.news: OrderedDict[RoomId, list[Seen]] = OrderedDict()
        self.rooms = rooms
        self._told: dict[RoomId, Seen] = {}

    def is_new(self, seen: Seen) -> bool:
        """Tell whether the caller is to be told, and note that it is."""
        told = self._told.get(seen.room)
        if told is not None and _same(told, seen):
            return False
        if seen.epoch is not None and told is not None and told.epoch is not None and seen.epoch <= told.epoch:
            return False
        self._told[seen.room] = seen
        return True

    def note(self, seen: Seen) -> None:
        """Note what is to be told next, in the place of what was not told yet; but for an end, which is told before."""
        pending = self.news.setdefault(seen.room, [])
        if pending and not pending[-1].is_end:
            pending.pop()
        if not (seen.is_end and pending):
            pending.append(seen)


class _WatchedRoom:
    """A room and who watches it. `last` is what was spread last: what is the same concerns nobody."""

    def __init__(self) -> None:
        self.watches: set[_Watch] = set()
        self.last: Seen | None = None


class Watches:
    """All callers that watch. What this process sees of pointers wakes them; others' saves are looked for.

    Every watched pointer is read each `interval_seconds`, once however many watch it. At most `most` watch at once.
    """

    def __init__(
        self, pointers: Pointers, workers: Workers, *, interval_seconds: float, most: int, at_once: int = 1
    ) -> None:
        self._pointers = pointers
        self._workers = workers
        self._interval_seconds = interval_seconds
        self._most = most
        self._at_once = at_once
        self._changed = threading.Condition()
        self._rooms: dict[RoomId, _WatchedRoom] = {}
        self._count = 0
        self._room_count = 0
        self._poller: threading.Thread | None = None
        self._is_closed = False
        pointers.observer = self._observe

    def watch(self, rooms: Sequence[RoomId]) -> Iterator[Seen]:
        """Yield for each room first what its pointer names now, and then strictly higher epochs as they come.

        Ends with `Unavailable` (DRAINING) when the server stops. Raises `Overloaded`, and as `calls.check` does.
        """
        rooms = list(dict.fromkeys(rooms))
        watch = _Watch(rooms)
        self._begin(watch)
        try:
            for seen in self._workers.each(rooms, self._look, self._at_once):
                if seen.error is not None:
                    self._spread(seen)  # else what comes after it passed for the same as before
                self._tell(watch, seen)
            while True:
                yield from self._news(watch)
        finally:
            self._end(watch)

    def close(self) -> None:
        """End all watches."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            poller = self._poller
        if poller is not None:
            poller.join(1.0)

    def _news(self, watch: _Watch) -> Iterator[Seen]:
        with self._changed:
            while not watch.news:
                calls.check("watching")
                if self._is_closed:
                    raise Unavailable(Reason.DRAINING, "the server is shutting down")
                left = calls.time_left()
                self._changed.wait(_ALIVE_SECONDS if left is None else min(left, _ALIVE_SECONDS))
            news = [seen for pending in watch.news.values() for seen in pending]
            watch.news.clear()
        for seen in news:
            if watch.is_new(seen):
                yield seen

    def _begin(self, watch: _Watch) -> None:
        with self._changed:
            if self._is_closed:
                raise Unavailable(Reason.DRAINING, "the server is shutting down")
            if self._count >= self._most:
                raise Overloaded(f"{self._most} calls watch already, which is the most")
            if self._room_count + len(watch.rooms) > MOST_WATCHED_ROOMS:
                raise Overloaded(f"all calls together watch at most {MOST_WATCHED_ROOMS} rooms")
            self._count += 1
            self._room_count += len(watch.rooms)
            for room in watch.rooms:
                self._rooms.setdefault(room, _WatchedRoom()).watches.add(watch)
            if self._poller is None:
                self._poller = threading.Thread(target=self._poll, name="watched pointers", daemon=True)
                self._poller.start()

    def _end(self, watch: _Watch) -> None:
        with self._changed:
            self._count -= 1
            self._room_count -= len(watch.rooms)
            for room in watch.rooms:
                watched = self._rooms[room]
                watched.watches.discard(watch)
                if not watched.watches:
                    del self._rooms[room]

    def _tell(self, watch: _Watch, seen: Seen) -> None:
        with self._changed:
            # Something newer may have been seen since this was read.
            watch.news.setdefault(seen.room, [seen])

    def _observe(self, room: RoomId, pointer: Pointer | None) -> None:
        seen = Seen(room, None if pointer is None or pointer.is_deleted else pointer.epoch)
        self._spread(seen)

    def _spread(self, seen: Seen) -> None:
        with self._changed:
            watched = self._rooms.get(seen.room)
            if watched is None or (watched.last is not None and _same(watched.last, seen)):
                return
            watched.last = seen
            for watch in watched.watches:
                watch.note(seen)
            self._changed.notify_all()

    def _look(self, room: RoomId) -> Seen:
        try:
            pointer = self._pointers.read(room)
        except HoldfastError as error:
            if not concerns_one(error):
                raise
            return Seen(room, None, error.with_traceback(None))
        return Seen(room, None if pointer is None or pointer.is_deleted else pointer.epoch)

    def _poll_one(self, room: RoomId) -> None:
        try:
            seen = self._look(room)
        except HoldfastError:
            return  # the backend is away, of which others tell, or just this pointer; the next round tries again
        except Exception:  # noqa: BLE001 (the others have to be read, whatever is with this one)
            _log.exception("Watched pointer could not be read", extra={"fields": {"room_id": room.text}})
            return
        if seen.error is not None:
            self._spread(seen)

    def _poll(self) -> None:
        while True:
            begun = time.monotonic()
            with self._changed:
                rooms = list(self._rooms)
            self._workers.each(rooms, self._poll_one, self._at_once)
            with self._changed:
                left = begun + self._interval_seconds - time.monotonic()
                self._changed.wait_for(lambda: self._is_closed, max(left, self._interval_seconds / 10))
                if self._is_closed:
                    return
                if not self._rooms:
                    self._poller = None
                    return


def _same(one: Seen, other: Seen) -> bool:
    reasons = [None if seen.error is None else seen.error.reason for seen in (one, other)]
    return one.epoch == other.epoch and reasons[0] is reasons[1]
