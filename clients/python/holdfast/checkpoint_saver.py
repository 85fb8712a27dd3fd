"""Saving a room every so often, and once more when it closes: what a game server does with CheckpointStore.

latest = client.checkpoints.load("duel-7", fallback=True)  # or NotFound: a new room, unless it has a `next_epoch`
room = Room(latest.read())
saver = CheckpointSaver(client.checkpoints, "duel-7", room.to_bytes, start_epoch=latest.info.next_epoch)
with saver:  # saves in a thread of its own
    room.play()
# saved once more, at a higher epoch than all before
"""

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from types import TracebackType
from typing import Protocol, Self

from holdfast.checkpoint_results import Saved
from holdfast.checkpoint_writer import CheckpointWriter, Store
from holdfast.errors import DeadlineExceeded
from holdfast.retrying import PASSING, may_pass

PERIOD_SECONDS = 30.0
JITTER = 0.1
SAVE_TIMEOUT_SECONDS = 30.0
DRAIN_TIMEOUT_SECONDS = 60.0

_PASSING = (*PASSING, DeadlineExceeded)
"""After these the same save is tried again soon; after others in the next period. A drain has none: see `may_pass`."""

_FIRST_BACKOFF_SECONDS = 1.0
"""On top of the client's own tries."""


class Clock(Protocol):
    """What passes the time."""

    def monotonic(self) -> float:
        """Return the seconds since some moment."""

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until the event is set, or so many seconds are over, and tell whether it is set."""


class SystemClock:
    """The machine's clock."""

    def monotonic(self) -> float:
        """Return the seconds since some moment."""
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until the event is set, or so many seconds are over, and tell whether it is set."""
        return event.wait(max(0.0, seconds))


@dataclass(frozen=True, slots=True)
class Drained:
    """What became of the last save: one of the two is None. After an error the last state may not be there."""

    saved: Saved | None
    error: BaseException | None


class CheckpointSaver:
    """Saves the state of one room every period, at most one save at a time, and never holds its caller up.

    `snapshot()` returns the state, as bytes, in the saver's thread; one that fails is a failed save. `start_epoch` is
    `next_epoch` of the checkpoint that the room was restored from, or 0 for a new room; None: the server is asked. The
    epoch advances only after success: the payload is there, and the room's pointer names it. A save that fails is tried
    again at the same epoch, with the state of then: soon if that may help, else in the next period. An epoch that is
    taken by another payload, is damaged, sealed so that the server cannot read it, or lies below another writer's, is
    tried at the server's `next_epoch` at once; so is the pointer's own, whose checkpoint is gone, but not by a saver
    that begins a room.

    **A room that somebody deletes meanwhile is not brought back.** For a saver that has saved it, or was started above
    epoch 0, that is the end: it stops, `last_error` is the `EpochTooOld` that says `deleted`, and `drain` tells it and
    saves nothing. To begin the room anew on purpose, take a new saver with that error's `next_epoch`, or None, as
    `start_epoch`. A saver that has saved nothing yet, of a new room, goes on above what was deleted by itself.

    **A room that lost its pointer is not begun over what it has.** If a saver that has saved nothing yet finds
    checkpoints that are not its own, at `start_epoch` or above, or any with None, and no pointer, its state is older
    than theirs, as far as anybody can tell. It stops in the same way; the `EpochTooOld` is not `deleted`. So does the
    slower of two that begin a room in the same moment. Load the room with `fallback`, and take a new saver with what
    that says; or to begin all the same, with the error's `next_epoch`. Where there is a pointer it goes on at
    `next_epoch`, above another writer's, since this is no lock. But until its first success `on_failure` is told of
    everything that is passed by so.

    An idle room is not saved: `changed()` says whether the state is another one than at the last `snapshot()`, or with
    `only_when_marked` it is saved if `mark_changed` was called since; else the bytes are compared with the last ones.
    No room is idle after a save that failed: whether that state is there, nobody knows.

    The period's length is random by `jitter` of it (0 to 1) each time, and the first one by all of it: so the rooms of
    a node are not saved all at once. `save_timeout_seconds` bounds a save with its tries. `on_failure(error)` is called
    in the saver's thread; `last_error` keeps the error until a save succeeds, `last_saved` the last success.

    As a context manager it saves in a thread of its own, and drains at the end. Without `start` nothing is done but
    what `step` does, which `CheckpointSavers` calls for many rooms.
    """

    def __init__(
        self,
        checkpoints: Store,
        room_id: str,
        snapshot: Callable[[], bytes],
        *,
        start_epoch: int | None = None,
        changed: Callable[[], bool] | None = None,
        only_when_marked: bool = False,
        period_seconds: float = PERIOD_SECONDS,
        jitter: float = JITTER,
        writer_id: str = "",
        save_timeout_seconds: float = SAVE_TIMEOUT_SECONDS,
        on_failure: Callable[[BaseException], None] | None = None,
        clock: Clock | None = None,
        random: Callable[[], float] = random.random,
    ) -> None:
        if not (period_seconds > 0 and save_timeout_seconds > 0 and 0 <= jitter <= 1):
            raise ValueError("period and time-out are above 0, and jitter is 0 to 1")
        self.room_id = room_id
        self.last_saved: Saved | None = None
        self.last_error: BaseException | None = None
        self._writer = CheckpointWriter(checkpoints, room_id, writer_id, start_epoch, self._tell)
        self._snapshot = snapshot
        self._changed = changed
        self._only_when_marked = only_when_marked
        self._period = period_seconds
        self._jitter = jitter
        self._save_timeout = save_timeout_seconds
        self._on_failure = on_failure
        self._clock = clock or SystemClock()
        self._random = random
        self._marked = threading.Event()
        self._is_unsaved = not start_epoch  # a new room has nothing saved
        self._saved_sha256: bytes | None = None
        self._failures = 0
        self._due = self._clock.monotonic() + self._period * self._random()
        self._lock = threading.Lock()
        """Of `_is_saving`; held for moments only."""
        self._is_saving = False
        self._idle = threading.Event()
        self._idle.set()
        self._stopping = threading.Event()
        self._drained: Drained | None = None
        self._last_tries = 0
        """Those of a drain that failed."""
        self._thread: threading.Thread | None = None

    @property
    def epoch(self) -> int | None:
        """The epoch of the next save; None: the server has not been asked yet."""
        return self._writer.epoch

    @property
    def due(self) -> float:
        """When the next step is due, by the clock."""
        return self._due

    @property
    def is_stopped(self) -> bool:
        """Whether no periodic save begins any more: it was stopped or drained, or stopped by itself."""
        return self._stopping.is_set()

    def mark_changed(self) -> None:
        """Note that the state has changed. Never waits."""
        self._marked.set()

    def start(self) -> None:
        """Save every period from now on, in a thread of its own. Starting twice is no error."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"checkpoint-saver-{self.room_id}", daemon=True)
            self._thread.start()

    def step(self) -> Saved | None:
        """Do what is due once a period, and tell what was saved: None for nothing, also where one is at it already.

        A failure is not raised: see `last_error`.
        """
        if not self._begin(periodic=True):
            if self._due <= self._clock.monotonic():  # the save at work takes longer than a period
                self._due = self._next_due()
            return None
        self._due = self._next_due()
        try:
            if not self._is_wanted():
                return None
            return self._save(self._clock.monotonic() + self._save_timeout, even_if_same=False)
        except Exception as error:  # noqa: BLE001 (the caller's callables may raise whatever, and the room is saved on)
            self._failed(error)
            return None
        except BaseException as error:
            self._failed(error)
            raise
        finally:
            self._end()

    def stop(self) -> None:
        """Begin no further periodic save. Does not wait."""
        self._stopping.set()

    def drain(self, timeout: float = DRAIN_TIMEOUT_SECONDS) -> Drained:
        """Stop the periodic saves, wait for the one at work, and save once more, also an idle room.

        At a higher epoch than all that were saved before; not a room whose saver stopped by itself. What fails is tried
        again until `timeout` seconds are over, but for what no repetition mends, such as a store that is read-only:
        `retrying.may_pass` has which. After that nothing is saved any more; a save whose answer has not come may still
        become one. Draining again tells the same.
        """
        deadline = self._clock.monotonic() + timeout
        while not isinstance(outcome := self.try_to_drain(deadline), Drained):
            self._clock.wait(threading.Event(), outcome)
        return outcome

    def try_to_drain(self, deadline: float) -> Drained | float:
        """Do what `drain` does, but one try of its save only; where another is due, return in how many seconds."""
        self.stop()
        while not self._begin(periodic=False):
            if not self._clock.wait(self._idle, deadline - self._clock.monotonic()):
                message = f"room {self.room_id!r} was not drained in time: a save is still at work"
                self._drained = self._drained or Drained(None, DeadlineExceeded("DEADLINE_EXCEEDED", message))
                return self._drained
        try:
            if self._drained is None:
                outcome = self._save_once_more(deadline)
                if not isinstance(outcome, Drained):
                    return outcome
                self._drained = outcome
            return self._drained
        finally:
            self._end()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drain()

    def _run(self) -> None:
        while not self._clock.wait(self._stopping, self._due - self._clock.monotonic()):
            with suppress(BaseException):  # `step` has noted it
                self.step()

    def _begin(self, *, periodic: bool) -> bool:
        with self._lock:
            if self._is_saving or (periodic and self._stopping.is_set()):
                return False
            self._is_saving = True
            self._idle.clear()
            return True

    def _end(self) -> None:
        with self._lock:
            self._is_saving = False
            self._idle.set()

    def _next_due(self) -> float:
        return self._clock.monotonic() + self._period * (1 + self._jitter * (2 * self._random() - 1))

    def _is_wanted(self) -> bool:
        if self._is_unsaved or self._marked.is_set():
            return True
        return not self._only_when_marked if self._changed is None else self._changed()

    def _save(self, deadline: float, *, even_if_same: bool) -> Saved | None:
        """Save the state of now; None: it is the one that was saved last."""
        self._is_unsaved = True
        self._marked.clear()  # before the state is taken: what changes from here on is for the next save
        payload = self._state()
        digest = sha256(payload).digest()
        compares = self._changed is None and not self._only_when_marked
        if compares and digest == self._saved_sha256 and not even_if_same:
            self._is_unsaved = False
            return None
        self._saved_sha256 = None  # until this one succeeds: it may be there even if it fails
        saved = self._writer.write(payload, lambda: self._left(deadline))
        self.last_saved, self.last_error = saved, None
        self._saved_sha256 = digest
        self._is_unsaved = False
        self._failures = 0
        return saved

    def _state(self) -> bytes:
        state: object = self._snapshot()
        if not isinstance(state, bytes | bytearray | memoryview):
            kind = type(state).__name__
            raise TypeError(f"snapshot() of room {self.room_id!r} has to return the state as bytes, not {kind}")
        return bytes(state)  # a copy of what the caller could change

    def _save_once_more(self, deadline: float) -> Drained | float:
        """Return what became of the last save, or the pause before its next try."""
        if (ended_by := self._writer.ended_by) is not None:
            return Drained(None, ended_by)
        if self._last_tries and self._clock.monotonic() >= deadline:
            return Drained(None, self.last_error)  # it says more than that the time is up
        try:
            return Drained(self._save(deadline, even_if_same=True), None)
        except Exception as error:  # noqa: BLE001 (as in `step`)
            self._failed(error)
            pause = self._pause_after(error, self._last_tries)
            self._last_tries += 1
            is_over = self._drained is not None or self._clock.monotonic() + pause >= deadline
            if is_over or self._writer.ended_by is not None or not may_pass(error):
                return Drained(None, error)
            return pause

    def _left(self, deadline: float) -> float:
        """Return the seconds left. Raises `DeadlineExceeded` if none are, or who drains has waited in vain."""
        left = deadline - self._clock.monotonic()
        if left <= 0 or self._drained is not None:
            raise DeadlineExceeded("DEADLINE_EXCEEDED", f"room {self.room_id!r} was not saved in time")
        return left

    def _failed(self, error: BaseException) -> None:
        self.last_error = error
        if self._writer.ended_by is not None:
            self.stop()
        if isinstance(error, _PASSING):
            self._due = min(self._due, self._clock.monotonic() + self._pause_after(error, self._failures))
            self._failures += 1
        self._tell(error)

    def _tell(self, error: BaseException) -> None:
        if self._on_failure is not None:
            with suppress(Exception):  # it is told, and what it makes of that is its own
                self._on_failure(error)

    def _pause_after(self, error: Exception, failures: int) -> float:
        backoff = min(self._period, _FIRST_BACKOFF_SECONDS * 2.0 ** min(failures, 32))
        advised = error.retry_after_seconds if isinstance(error, PASSING) else None
        return max(advised or 0.0, backoff * (0.5 + self._random() / 2))
