"""Writing one state of a room after the other: at which epoch, and what counts as written."""

from collections.abc import Callable
from hashlib import sha256
from typing import Protocol

from holdfast.checkpoint_results import Saved, SaveOutcome
from holdfast.errors import (
    AlreadyExists,
    ConcurrentModification,
    EpochTooOld,
    HoldfastError,
    NotFound,
    PointerInvalid,
    SealKeyUnavailable,
    SealTooNew,
)

_MOST_EPOCHS = 5
"""How many are tried at once, where one after the other is taken."""


class Store(Protocol):
    """What a writer needs of `Checkpoints`."""

    def save(self, room_id: str, epoch: int, source: bytes, *, writer_id: str, timeout: float | None) -> Saved:
        """Store a checkpoint."""

    def next_epoch(self, room_id: str, *, need_pointer: bool, timeout: float | None) -> int:
        """Return the epoch to go on at. `NotFound`: it is beyond checkpoints that no pointer names, and need be."""


class CheckpointWriter:
    """Writes a room's states, each at an epoch above those before. Not for several threads at once.

    `epoch` is the next one; None: the server is asked first. It advances once a state is written, or the epoch is found
    to be another's; after any other failure the state may be there or not, and the next one is tried at the same epoch:
    so it can only be the newer of the two that ends at the higher epoch.

    A room that is deleted once it was written here, or restored (`epoch` was above 0), is not brought back: `ended_by`
    is the refusal then, and nothing is to be written any more. One that is about to begin does so above what was
    deleted. Nor is the first state written over a room that has no pointer, but checkpoints at `epoch` or above that
    are not of this writer: nobody can tell that they are not newer. Whatever else is in the way of the first state is
    passed by, as it is later, but `passed_by` is told of it: it may be that another writer has the room.
    """

    def __init__(
        self,
        store: Store,
        room_id: str,
        writer_id: str,
        epoch: int | None,
        passed_by: Callable[[HoldfastError], None] = lambda _: None,
    ) -> None:
        self.epoch = epoch
        self.ended_by: EpochTooOld | None = None
        self._passed_by = passed_by
        self._is_begun = bool(epoch)
        self._has_written = False
        self._tried: set[bytes] = set()
        """SHA-256 of the states that may be there since a try, until one is written."""
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
            self.epoch = self._asked(seconds_left())
        if not self._has_written:
            self._tried.add(sha256(payload).digest())
        tried = 0
        while True:
            epoch = self.epoch
            left = seconds_left()
            problem: HoldfastError | None
            try:
                saved = self._store.save(self._room_id, epoch, payload, writer_id=self._writer_id, timeout=left)
            except (EpochTooOld, PointerInvalid, SealKeyUnavailable, SealTooNew) as error:
                problem, next_epoch = error, self._way_on(error)
            else:
                problem, next_epoch = self._problem(saved, epoch), saved.next_epoch
                self._check_pointer(saved)
            self.epoch = max(epoch + 1, next_epoch)
            if problem is None:
                self._is_begun = self._has_written = True
                self._tried.clear()
                return saved
            tried += 1
            if tried == _MOST_EPOCHS:
                raise problem
            if not self._has_written:
                self._passed_by(problem)

    def _asked(self, timeout: float) -> int:
        try:
            return self._store.next_epoch(self._room_id, need_pointer=not self._has_written, timeout=timeout)
        except NotFound as error:
            self.ended_by = EpochTooOld("EPOCH_TOO_OLD", error.message, error.details)
            raise self.ended_by from error

    def _check_pointer(self, saved: Saved) -> None:
        """Refuse to go on where the first state finds its epoch taken in a room without a pointer."""
        if self._has_written or saved.is_there or saved.latest_epoch >= 0:
            return
        there = saved.checkpoint
        if there is None or there.sha256 not in self._tried:
            message = f"room {self._room_id!r} has no pointer, but checkpoints up to epoch {saved.next_epoch - 1}"
            details = {"room_id": self._room_id, "next_epoch": str(saved.next_epoch)}
            self.ended_by = EpochTooOld("EPOCH_TOO_OLD", message, details)
            raise self.ended_by

    def _way_on(self, error: EpochTooOld | PointerInvalid | SealKeyUnavailable | SealTooNew) -> int:
        """Return the epoch to go on at after this refusal, or raise it."""
        if isinstance(error, PointerInvalid):
            # Only of a pointer whose very epoch this is, and is gone: a good save above it mends it.
            said = error.details.get("next_epoch", "")
            if not (self._is_begun and said.isdecimal()):
                raise error
            return int(said)
        if isinstance(error, EpochTooOld):
            # Who has written goes on: what he has is no blank state, whatever became of the pointer.
            if self._is_begun if error.deleted else not self._has_written:
                self.ended_by = error
                raise error
            if error.next_epoch is None:
                self.epoch = None  # to be asked
        if error.next_epoch is None:  # of a seal: more cannot be read than what has the epoch, or nothing be sealed
            raise error
        is_seal = not isinstance(error, EpochTooOld)
        if is_seal and not self._has_written and error.details.get("latest_epoch") == "-1":
            # There is no pointer. As in `_check_pointer`, but whose state has the epoch cannot be told.
            self.ended_by = EpochTooOld("EPOCH_TOO_OLD", error.message, error.details)
            raise self.ended_by from error
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
