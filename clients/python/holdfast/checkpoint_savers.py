"""Saving many rooms with a few threads."""

import heapq
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import count
from types import TracebackType
from typing import Self, TypedDict, Unpack

from holdfast.checkpoint_saver import DRAIN_TIMEOUT_SECONDS, CheckpointSaver, Clock, Drained, SystemClock
from holdfast.checkpoint_writer import Store

_THREADS = 16
_QUIET_SECONDS = 3600.0


class SaverOptions(TypedDict, total=False):
    """The options of a `CheckpointSaver`."""

    start_epoch: int | None
    changed: Callable[[], bool] | None
    only_when_marked: bool
    period_seconds: float
    jitter: float
    writer_id: str
    save_timeout_seconds: float
    on_failure: Callable[[BaseException], None] | None
    random: Callable[[], float]


class CheckpointSavers:
    """Savers of a node's rooms: each room as by a `CheckpointSaver`, at most `threads` of them at a time.

    The savers of all rooms have the `options` given here, unless the room has its own. `on_room_failure(room_id,
    error)` is what tells of the rooms that have no `on_failure`, whose `error` alone does not say of which room it is.
    It works from the first room on. A room whose saver is stopped, as after the room was deleted, is kept until
    `remove` or `drain` tells what became of it. As a context manager it drains at the end.
    """

    def __init__(
        self,
        checkpoints: Store,
        *,
        threads: int = _THREADS,
        on_room_failure: Callable[[str, BaseException], None] | None = None,
        clock: Clock | None = None,
        **options: Unpack[SaverOptions],
    ) -> None:
        self._checkpoints = checkpoints
        self._clock = clock or SystemClock()
        self._options = options
        self._on_room_failure = on_room_failure
        self._threads = threads
        self._workers = ThreadPoolExecutor(threads, "checkpoint-saver")
        self._lock = threading.Lock()
        """Of all that follows; held for moments only."""
        self._savers: dict[str, CheckpointSaver] = {}
        self._waiting: list[tuple[float, int, CheckpointSaver]] = []
        self._order = count()
        self._is_stopped = False
        self._wakeup = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, room_id: str, snapshot: Callable[[], bytes], **options: Unpack[SaverOptions]) -> CheckpointSaver:
        """Save a room from now on; `options` are those of its `CheckpointSaver`. Raises `ValueError` for one that is.

        Its saver's `step` and `start` are not to be called; its `mark_changed` is.
        """
        chosen: SaverOptions = self._options | options
        if self._on_room_failure is not None and chosen.get("on_failure") is None:
            chosen["on_failure"] = partial(self._on_room_failure, room_id)
        saver = CheckpointSaver(self._checkpoints, room_id, snapshot, clock=self._clock, **chosen)
        with self._lock:
            if self._is_stopped or room_id in self._savers:
                raise ValueError(f"room {room_id!r} is saved already" if room_id in self._savers else "it was drained")
            self._savers[room_id] = saver
            heapq.heappush(self._waiting, (saver.due, next(self._order), saver))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="checkpoint-savers", daemon=True)
                self._thread.start()
        self._wakeup.set()
        return saver

    def remove(self, room_id: str, timeout: float = DRAIN_TIMEOUT_SECONDS) -> Drained:
        """Drain a room that closes, and forget it. Raises `KeyError` for one that is not saved."""
        with self._lock:
            saver = self._savers[room_id]
        drained = saver.drain(timeout)
        with self._lock:
            self._savers.pop(room_id, None)
        return drained

    def drain(self, timeout: float = DRAIN_TIMEOUT_SECONDS) -> dict[str, Drained]:
        """Drain all rooms within `timeout` seconds, and tell what became of each. Then it takes no more rooms.

        Every room has one try of its last save, before those that failed have more. Draining again tells the same.
        """
        deadline = self._clock.monotonic() + timeout
        with self._lock:
            if self._is_stopped:
                return {saver.room_id: saver.drain(timeout) for saver in self._savers.values()}
            self._is_stopped = True
            savers = list(self._savers.values())
        self._wakeup.set()
        for saver in savers:
            saver.stop()
        tries = _LastTries(self._clock, deadline, savers)
        try:
            for worker in [self._workers.submit(tries.work) for _ in range(min(self._threads, len(savers)))]:
                worker.result()
        finally:
            tries.give_up()
            self._workers.shutdown(wait=False)
        return tries.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drain()

    def _run(self) -> None:
        while True:
            self._wakeup.clear()
            now = self._clock.monotonic()
            with self._lock:
                if self._is_stopped:
                    return
                while self._waiting and self._waiting[0][0] <= now:
                    self._workers.submit(self._step, heapq.heappop(self._waiting)[2])
                seconds = self._waiting[0][0] - now if self._waiting else _QUIET_SECONDS
            self._clock.wait(self._wakeup, seconds)

    def _step(self, saver: CheckpointSaver) -> None:
        with suppress(BaseException):  # the saver has noted it
            saver.step()
        with self._lock:
            # One that is stopped has nothing more to do but to be drained, and would be due for ever.
            if not (self._is_stopped or saver.is_stopped) and self._savers.get(saver.room_id) is saver:
                heapq.heappush(self._waiting, (saver.due, next(self._order), saver))
        self._wakeup.set()


class _LastTries:
    """The tries of the last saves of many rooms, by as many threads as do `work`. None is held by a pause.

    A thread waits only where nothing is due, and leaves only where nothing is left: so it takes care itself of what it
    has to try again, and needs not be woken by others.
    """

    def __init__(self, clock: Clock, deadline: float, savers: list[CheckpointSaver]) -> None:
        self._clock = clock
        self._deadline = deadline
        self._savers = savers
        self._lock = threading.Lock()
        """Of what follows; held for moments only."""
        self._order = count()
        self._waiting = [(-math.inf, next(self._order), saver) for saver in savers]  # a heap: it is sorted
        self._drained: dict[str, Drained] = {}
        self._raised: BaseException | None = None

    def work(self) -> None:
        """Try one room after the other, until none is left that nobody is at."""
        while (due := self._next()) is not None:
            if isinstance(due, CheckpointSaver):
                self._try(due)
            else:
                self._clock.wait(threading.Event(), due)

    def give_up(self) -> None:
        """Begin no further try."""
        with self._lock:
            self._waiting.clear()

    def result(self) -> dict[str, Drained]:
        """Return what became of each room. Raises what ended a try as no failure does, such as `SystemExit`."""
        if self._raised is not None:
            raise self._raised
        return {saver.room_id: self._drained[saver.room_id] for saver in self._savers}

    def _next(self) -> CheckpointSaver | float | None:
        """Take the room that is to be tried next; if it is not due yet, return in how many seconds it is."""
        with self._lock:
            if not self._waiting:
                return None
            seconds = self._waiting[0][0] - self._clock.monotonic()
            return seconds if seconds > 0 else heapq.heappop(self._waiting)[2]

    def _try(self, saver: CheckpointSaver) -> None:
        try:
            outcome = saver.try_to_drain(self._deadline)
        except BaseException as error:  # noqa: BLE001 (it is raised once the others are done)
            self._raised = error
            return
        with self._lock:
            if isinstance(outcome, Drained):
                self._drained[saver.room_id] = outcome
            else:
                heapq.heappush(self._waiting, (self._clock.monotonic() + outcome, next(self._order), saver))
