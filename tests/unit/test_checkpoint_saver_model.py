"""A room's saver against every order of failures: what is restored is never older than what was told to be saved."""

from collections.abc import Sequence
from enum import Enum
from itertools import groupby

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import holdfast
from holdfast import CheckpointSaver
from tests.support.room_store import FakeClock, Fault, Flaw, RoomStore

_FAULTS: st.SearchStrategy[Flaw] = st.sampled_from(
    [
        *Fault,
        holdfast.Overloaded("OVERLOADED", "busy"),
        holdfast.StorageFull("STORAGE_FULL", "full"),
        holdfast.EpochTooOld("EPOCH_TOO_OLD", "no more is said"),
        holdfast.SealTooNew("SEAL_TOO_NEW", "the pointer"),
    ]
)


class Move(Enum):
    """What becomes of the state of a room."""

    STAYS = "nothing"
    IS_NEW = "it was not there before"
    RETURNS = "it is again as when it was told to be saved: a door was opened, and closed"


class SaverMachine(RuleBasedStateMachine):
    """States are numbers: each new one is higher, and a room may return to an old one. Another writer's are empty."""

    @initialize()
    def begin(self) -> None:
        self.store = RoomStore()
        self.clock = FakeClock()
        self.state = self.highest = 0
        self.taken: list[int] = []
        """The states that were to be saved, in order."""
        self.acknowledged = 0
        """How many of them lie before the last that was told to be saved."""
        self.failures: list[BaseException] = []
        self.saver = self._saver(0)

    def _saver(self, start_epoch: int | None) -> CheckpointSaver:
        self.is_begun = bool(start_epoch)
        self.has_saved = False
        self.taken_before = len(self.taken)
        return CheckpointSaver(
            self.store,
            "room",
            self._snapshot,
            start_epoch=start_epoch,
            on_failure=self.failures.append,
            clock=self.clock,
            random=lambda: 0.5,
        )

    def _snapshot(self) -> bytes:
        self.taken.append(self.state)
        return str(self.state).encode()

    def _play(self) -> None:
        self.state = self.highest = self.highest + 1

    @property
    def _is_ended(self) -> bool:
        """Whether the room of this saver is deleted, and it has to notice when it saves next."""
        return self.is_begun and self.saver.epoch is not None and self.saver.epoch < self.store.floor

    @property
    def _is_not_to_begin(self) -> bool:
        """Whether the room has no pointer, but what may be newer than all that this saver has, and it has to notice."""
        epoch, store = self.saver.epoch, self.store
        if self.has_saved or store.latest >= 0:
            return False
        if epoch is None:
            return bool(store.payloads)
        if epoch < store.floor or epoch in store.locked:
            return False  # it goes on above all
        ours = {str(state).encode() for state in [*self.taken[self.taken_before :], self.state]}
        is_taken = epoch in store.payloads and (epoch in store.damaged or store.payloads[epoch] not in ours)
        return is_taken or any(higher > epoch for higher in store.settled)

    def _move(self, move: Move) -> None:
        if move is Move.IS_NEW:
            self._play()
        elif move is Move.RETURNS and self.taken:
            self.state = self.taken[self.acknowledged]

    @rule(faults=st.lists(_FAULTS, max_size=3), move=st.sampled_from(Move))
    def step(self, faults: list[Flaw], move: Move) -> None:
        """A period passes."""
        self._step(faults, move)

    @rule(fault=st.sampled_from(Fault))
    def return_after_a_fault(self, fault: Fault) -> None:
        """Two pass, and the state in between is not told to be saved."""
        self._step([fault], Move.IS_NEW)
        self._step([], Move.RETURNS)

    def _step(self, faults: list[Flaw], move: Move) -> None:
        self._move(move)
        self.store.faults = list(faults)
        before, is_ended, failures = self.saver.epoch, self._is_ended or self._is_not_to_begin, len(self.failures)
        saved = self.saver.step()
        self.store.faults.clear()
        if saved is not None:
            assert not is_ended
            self._acknowledge(saved, before)
        elif len(self.failures) == failures and not self.saver.is_stopped and not is_ended:
            self.acknowledged = len(self.taken) - 1  # it was idle, which tells as much

    def _acknowledge(self, saved: holdfast.Saved, before: int | None) -> None:
        assert saved.is_there
        assert before is None or saved.latest_epoch >= before
        assert self.saver.epoch is not None
        assert self.saver.epoch > saved.latest_epoch
        assert self.store.latest == saved.latest_epoch
        assert self.store.payloads[self.store.latest] == str(self.state).encode()
        self.acknowledged = len(self.taken) - 1
        self.is_begun = self.has_saved = True

    @rule()
    def land(self) -> None:
        """What was held up on its way arrives."""
        self.store.land_late()

    @rule(ahead=st.integers(0, 2), moves=st.booleans())
    def another_writes(self, ahead: int, moves: bool) -> None:
        """Another writer saves, or leaves an orphan."""
        self.store.done(self.store.above + ahead, b"", moves=moves)

    @rule(ahead=st.integers(0, 1))
    def damage(self, ahead: int) -> None:
        """An orphan is damaged."""
        epoch = self.store.above + ahead
        self.store.done(epoch, b"", moves=False)
        self.store.damaged.add(epoch)

    @rule(ahead=st.integers(0, 1))
    def lock(self, ahead: int) -> None:
        """The key of an orphan is retired."""
        epoch = self.store.above + ahead
        self.store.done(epoch, b"", moves=False)
        self.store.locked.add(epoch)

    @rule()
    def delete(self) -> None:
        """An operator deletes the room."""
        self.store.delete()
        self.acknowledged = 0

    @rule()
    def lose_pointer(self) -> None:
        """Somebody deletes the pointer, and nobody remembers it."""
        self.store.lose_pointer()

    @rule(asks=st.booleans())
    def restart(self, asks: bool) -> None:
        """The game server is killed, and restores the room."""
        self._play()  # to a state that was not there before, so that it can be told
        self.saver = self._saver(None if asks else self.store.above)

    @rule(faults=st.lists(_FAULTS.filter(lambda flaw: isinstance(flaw, Fault)), max_size=3), move=st.sampled_from(Move))
    def drain(self, faults: list[Flaw], move: Move) -> None:
        """The room closes, and is opened again."""
        self._move(move)
        before, is_ended, is_not_to_begin = self.saver.epoch, self._is_ended, self._is_not_to_begin
        has_ended, latest = self.saver.is_stopped, self.store.latest
        payloads = dict(self.store.payloads)
        self.store.faults = list(faults)
        drained = self.saver.drain()
        self.store.faults.clear()
        if is_ended or is_not_to_begin or has_ended:
            assert isinstance(drained.error, holdfast.EpochTooOld)
            assert has_ended or drained.error.deleted == is_ended
            assert (self.store.payloads, self.store.latest) == (payloads, latest)
        else:
            assert drained.error is None
            assert drained.saved is not None
            self._acknowledge(drained.saved, before)
        tried = len(self.store.tried)
        self._play()
        assert self.saver.step() is None
        assert len(self.store.tried) == tried
        self.saver = self._saver(None if drained.saved is None else drained.saved.next_epoch)

    @precondition(lambda self: hasattr(self, "store"))
    @invariant()
    def no_older_state_is_at_a_higher_epoch(self) -> None:
        """Whatever the order in which saves arrive."""
        ours = [int(payload) for _, payload in sorted(self.store.payloads.items()) if payload]
        left = iter(_without_repeats(self.taken))
        assert all(state in left for state in _without_repeats(ours))

    @precondition(lambda self: hasattr(self, "store"))
    @invariant()
    def what_is_restored_is_not_older_than_what_was_told_to_be_saved(self) -> None:
        """Unless it is another writer's."""
        restored = self.store.payloads.get(self.store.latest)
        if restored:
            assert int(restored) in self.taken[self.acknowledged :]


def _without_repeats(states: Sequence[int]) -> list[int]:
    return [state for state, _ in groupby(states)]


TestSavers = SaverMachine.TestCase
