"""Writing one state of a room after the other: at which epoch, and what counts as written."""

from collections.abc import Callable
from typing import Protocol

from holdfast.checkpoint_results import Saved, SaveOutcome
from holdfast.errors import (
    AlreadyExists,
    ConcurrentModification,
    EpochTooOld,
    HoldfastError,
    SealKeyUnavailable,
    SealTooNew,
)

_MOST_EPOCHS = 5
"""How many are tried at once, where one after the other is taken."""


class Store(Protocol):
    """What a writer needs of `Checkpoints`."""

    def save(self, room_id: str, epoch: int, source: bytes, *, writer_id: str, timeout: float | None) -> Saved:
        """Store a checkpoint."""

    def next_epoch(self, room_id: str, *, timeout: float | None) -> int:
        """Return the epoch to go on at."""


class CheckpointWriter:
    """Writes a room's states, each at an epoch above those before. Not for several threads at once.

    `epoch` is the next one; None: the server is asked first. It advances once a state is written, or the epoch is found
    to be another's; after any other failure the state may be there or not, and the next one is tried at the same epoch:
    so it can only be the newer of the two that ends at the higher epoch.

    A room that is deleted once it was written here, or restored (`epoch` was above 0), is not brought back: `ended_by`
    is the refusal then, and nothing is to be written any more. One that is about to begin does so above what was
    deleted.
    """

    def __init__(self, store: Store, room_id: str, writer_id: str, epoch: int | None) -> None:
        self.epoch = epoch
        self.ended_by: EpochTooOld | None = None
        self._is_begun = bool(epoch)
        self._store = store
        self._room_id = room_id
        self._writer_id = writer_id

    def write(self, payload: bytes, seconds_left: Callable[[], float]) -> Saved:
        """Store a state that the room will be restored from: it is there, and the latest.

        `seconds_left` is asked before each call, and raises once there is no time. Raises what `Checkpoints.save` and
        `next_epoch` raise; `AlreadyExists` and `ConcurrentModification` for epochs that are taken as fast as they are
        tried.
        """
        if self.epoch is None:
            self.epoch = self._store.next_epoch(self._room_id, timeout=seconds_left())
        tried = 0
        while True:
            epoch = self.epoch
            left = seconds_left()
            problem: HoldfastError | None
            try:
                saved = self._store.save(self._room_id, epoch, payload, writer_id=self._writer_id, timeout=left)
            except (EpochTooOld, SealKeyUnavailable, SealTooNew) as error:
                problem, next_epoch = error, self._way_on(error)
            else:
                problem, next_epoch = self._problem(saved, epoch), saved.next_epoch
            self.epoch = max(epoch + 1, next_epoch)
            if problem is None:
                self._is_begun = True
                return saved
            tried += 1
            if tried == _MOST_EPOCHS:
                raise problem

    def _way_on(self, error: EpochTooOld | SealKeyUnavailable | SealTooNew) -> int:
        """Return the epoch to go on at after this refusal, or raise it."""
        if isinstance(error, EpochTooOld):
            if error.deleted and self._is_begun:
                self.ended_by = error
                raise error
            if error.next_epoch is None:
                self.epoch = None  # to be asked
        if error.next_epoch is None:  # of a seal: more cannot be read than what has the epoch, or nothing be sealed
            raise error
        return error.next_epoch

    def _problem(self, saved: Saved, epoch: int) -> HoldfastError | None:
        """Return why the room would not be restored from this; None: it would."""
        where = f"room {self._room_id!r}: epoch {epoch}"
        if saved.outcome is SaveOutcome.EXISTS_DIFFERENT:
            return AlreadyExists("ALREADY_EXISTS", f"{where} is taken by another payload")
        if saved.outcome is SaveOutcome.EXISTS_DAMAGED:
            return AlreadyExists("ALREADY_EXISTS", f"{where} is there already, and damaged")
        if saved.latest_epoch != epoch:
            what = f"{where} is not the latest, which is {saved.latest_epoch}: another writer was faster"
            return ConcurrentModification("CONCURRENT_MODIFICATION", what)
        return None
