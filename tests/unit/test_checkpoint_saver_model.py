"""A room's saver against every order of failures: what is restored is never older than what was told to be saved."""

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
    ]
)


class SaverMachine(RuleBasedStateMachine):
    """States are numbers that count up; another writer's are empty."""

    @initialize()
    def begin(self) -> None:
        self.store = RoomStore()
        self.clock = FakeClock()
        self.state = 0
        self.acknowledged = -1
        """The newest state that was told to be saved, since the room was deleted."""
        self.deleted = False
        self.saver = self._saver(0)

    def _saver(self, start_epoch: int | None) -> CheckpointSaver:
        return CheckpointSaver(
            self.store,
            "room",
            lambda: str(self.state).encode(),
            start_epoch=start_epoch,
            clock=self.clock,
            random=lambda: 0.5,
        )

    @rule(faults=st.lists(_FAULTS, max_size=3), plays=st.booleans())
    def step(self, faults: list[Flaw], plays: bool) -> None:
        """A period passes."""
        self.state += plays
        self.store.faults = list(faults)
        before = self.saver.epoch
        saved = self.saver.step()
        self.store.faults.clear()
        if saved is not None:
            self._acknowledge(saved, before)

    def _acknowledge(self, saved: holdfast.Saved, before: int | None) -> None:
        assert saved.is_there
        assert before is None or saved.latest_epoch >= before
        assert self.saver.epoch is not None
        assert self.saver.epoch > saved.latest_epoch
        assert self.store.latest == saved.latest_epoch
        assert self.store.payloads[self.store.latest] == str(self.state).encode()
        self.acknowledged = self.state

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

    @rule()
    def delete(self) -> None:
        """An operator deletes the room."""
        self.store.delete()
        self.acknowledged = -1

    @rule(asks=st.booleans())
    def restart(self, asks: bool) -> None:
        """The game server is killed, and restores the room."""
        restored = self.store.payloads.get(self.store.latest, b"")
        # It plays on with numbers that were not used, so that what is newer can be told.
        self.state += 1
        if restored and not self.store.damaged:
            assert int(restored) >= self.acknowledged
        self.saver = self._saver(None if asks else self.store.above)

    @rule(faults=st.lists(_FAULTS.filter(lambda flaw: isinstance(flaw, Fault)), max_size=3), plays=st.booleans())
    def drain(self, faults: list[Flaw], plays: bool) -> None:
        """The room closes, and is opened again."""
        self.state += plays
        before = self.saver.epoch
        self.store.faults = list(faults)
        drained = self.saver.drain()
        self.store.faults.clear()
        assert drained.error is None
        assert drained.saved is not None
        self._acknowledge(drained.saved, before)
        tried = len(self.store.tried)
        self.state += 1
        assert self.saver.step() is None
        assert len(self.store.tried) == tried
        self.saver = self._saver(drained.saved.next_epoch)

    @precondition(lambda self: hasattr(self, "store"))
    @invariant()
    def no_older_state_is_at_a_higher_epoch(self) -> None:
        """Whatever the order in which saves arrive."""
        ours = [int(payload) for _, payload in sorted(self.store.payloads.items()) if payload]
        assert ours == sorted(ours)

    @precondition(lambda self: hasattr(self, "store"))
    @invariant()
    def what_is_restored_is_not_older_than_what_was_told_to_be_saved(self) -> None:
        """Unless it is another writer's."""
        restored = self.store.payloads.get(self.store.latest)
        if restored:
            assert int(restored) >= self.acknowledged


TestSavers = SaverMachine.TestCase
