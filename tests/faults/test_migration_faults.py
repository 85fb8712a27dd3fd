"""A migration that is killed at every write, and among servers that write, prune and delete meanwhile."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from holdfast_server.checkpoints.migration import Plan
from holdfast_server.errors import HoldfastError, Reason, Unavailable
from holdfast_server.objects.base import ObjectStore
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.memory import MemoryStore
from holdfast_server.transfer.outcome import Done, Outcome
from holdfast_server.transfer.work import Stopped
from tests.support.any_checkpoints import (
    SAME,
    ChangingKeys,
    Checkpoints,
    epoch_name,
    pointer_name,
    refused,
    snapshot_name,
)
from tests.support.failing_store import Killed
from tests.support.legacy_forms import flat, legacy_keys, migrate, reading_legacy, room_of, tagged
from tests.support.meddled_store import MeddledStore, meanwhile
from tests.support.transfers import put_all

EPOCHS = {1: b"one", 2: b"two", 3: b"three"}
OBJECTS = room_of("a", EPOCHS) | room_of("b", {7: b""}) | flat("sleeper", b"zzz") | flat("other", b"hmm")
WRITES = {"put", "delete"}


class Place:
    """A store that shellcade filled, and what one can do with it."""

    def __init__(self) -> None:
        self.objects = MeddledStore(MemoryStore())
        self.keys = legacy_keys()
        self.legacy = reading_legacy(self.objects.inner, self.keys)
        self.plain = Checkpoints(self.objects.inner, self.keys)
        put_all(self.objects.inner, OBJECTS)

    def migrate(self, jobs: int = 1) -> list[Done]:
        return migrate(self.objects, self.keys, jobs=jobs)

    def failures(self) -> list[tuple[str, str]]:
        return [(done.name, done.why) for done in self.migrate() if done.outcome is Outcome.FAILED]

    def when(self, operation: str, name: str, act: Callable[[], object]) -> None:
        """Do something once, just before the migration does this."""
        self.objects.before = meanwhile(operation, name, act)

    def check(self, *, legacy: bool) -> None:
        """Check that all of it is there for a server that has seen nothing."""
        rooms = self.legacy if legacy else self.plain
        rooms.restart()
        assert rooms.load("a").data == b"three"
        assert [rooms.load("a", epoch=epoch).data for epoch in EPOCHS] == list(EPOCHS.values())
        assert rooms.load("b").data == b""
        assert {entry.room_id for entry in rooms.hibernated()} == {"other", "sleeper"}
        assert rooms.restore("sleeper").data == b"zzz"


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    yield made
    made.legacy.close()
    made.plain.close()


@contextmanager
def failing(objects: MeddledStore, number: int, moment: str, error: BaseException) -> Iterator[list[str]]:
    """Fail just before or just after a write; yields the writes that there were."""
    writes: list[str] = []

    def meddle(operation: str, name: str) -> None:
        if operation in WRITES:
            writes.append(name)
            if len(writes) == number:
                raise error

    setattr(objects, moment, meddle)
    yield writes
    objects.calm()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_any_write_it_goes_on_and_all_is_there_throughout(moment: str) -> None:
    number = 1
    while True:
        place = Place()
        with failing(place.objects, number, moment, Killed()) as writes, suppress(Killed):
            place.migrate()
        place.check(legacy=True)
        assert place.failures() == []
        place.check(legacy=False)
        place.check(legacy=True)
        if len(writes) < number:
            break
        number += 1
    assert number > 10


def test_a_copy_of_what_is_half_migrated_is_all_there() -> None:
    """Its times are its own, so that a pointer, which is copied behind its epochs, is younger than all of them."""
    number, writes = 0, [""]
    while len(writes) >= number:
        number += 1
        place = Place()
        with failing(place.objects, number, "after", Killed()) as writes, suppress(Killed):
            place.migrate()
        copy = MemoryStore()
        for name in place.plain.names():
            put_all(copy, {name: place.plain.stored(name)})
        rooms = reading_legacy(copy, place.keys)
        assert (rooms.load("a").data, rooms.load("b").data) == (b"three", b"")
        rooms.close()
    assert number > 10


def test_killed_again_and_again_it_comes_to_its_end(place: Place) -> None:
    for _ in range(10):
        with failing(place.objects, 3, "before", Killed()), suppress(Killed):
            place.migrate()
        place.check(legacy=True)
    place.check(legacy=False)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_write_that_fails_is_told_of_and_done_by_the_next_run(moment: str) -> None:
    for number in range(1, 11):
        place = Place()
        away = Unavailable(Reason.BACKEND_UNAVAILABLE, "away")
        with failing(place.objects, number, moment, away) as writes:
            failed = [done for done in place.migrate() if done.outcome is Outcome.FAILED]
        assert len(writes) >= number
        assert failed
        assert failed[0].why == "away"
        place.check(legacy=True)
        assert place.failures() == []
        place.check(legacy=False)


def test_two_at_once_do_it_together(place: Place) -> None:
    done: list[Done] = []
    threads = [threading.Thread(target=lambda: done.extend(place.migrate(jobs=4))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each for each in done if each.outcome is Outcome.FAILED] == []
    place.check(legacy=False)


class TestMeanwhile:
    def test_a_save_moves_the_pointer_and_that_stays(self, place: Place) -> None:
        place.when("put", pointer_name("a"), lambda: place.legacy.save("a", 4, b"four"))
        assert place.failures() == []
        assert place.plain.load("a").data == b"four"

    def test_a_save_of_what_is_being_rewritten_finds_it(self, place: Place) -> None:
        saved = []
        place.when("put", epoch_name("a", 3), lambda: saved.append(place.legacy.save("a", 3, b"three")))
        assert place.failures() == []
        assert not saved[0].pointer_moved
        place.check(legacy=False)

    def test_a_save_that_read_the_older_form_takes_no_seal_from_the_pointer(self, place: Place) -> None:
        server = reading_legacy(MeddledStore(place.objects.inner), place.keys)
        server.put(epoch_name("a", 5), tagged(b"five"))  # the older system was killed before it wrote the pointer
        migrated: list[Done] = []
        server.objects.before = meanwhile("put", pointer_name("a"), lambda: migrated.extend(place.migrate()))
        saved = server.save("a", 5, b"five")
        assert (saved.outcome, saved.pointer_moved, bool(migrated)) == (SAME, True, True)
        server.objects.calm()
        place.migrate()
        bound = server.stored(epoch_name("a", 5))
        assert place.plain.load("a").data == b"five"
        server.put(epoch_name("a", 5), tagged(b"five"))
        with refused("SEAL_INVALID"):
            server.load("a")
        server.put(epoch_name("a", 5), bound)
        assert server.load("a").data == b"five"
        server.close()

    def test_a_prune_is_not_undone(self, place: Place) -> None:
        place.when("put", epoch_name("a", 1), lambda: place.legacy.prune("a"))
        assert place.failures() == []
        assert place.plain.epochs("a") == [3]

    def test_a_room_that_is_deleted_does_not_come_back(self, place: Place) -> None:
        for name in (epoch_name("a", 3), pointer_name("a")):
            place = Place()
            place.when("put", name, lambda: place.legacy.delete_room("a"))  # noqa: B023 (called in the loop)
            assert place.failures() == []
            assert place.plain.epochs("a") == []
            with refused("ROOM_NOT_FOUND"):
                place.plain.load("a")

    def test_a_load_that_has_begun_ends_well(self, place: Place) -> None:
        def before(operation: str, name: str) -> None:
            if (operation, name) == ("get", epoch_name("a", 3)):
                place.migrate()

        place.legacy.objects.before = before
        assert place.legacy.load("a").data == b"three"

    def test_a_snapshot_that_was_confirmed_does_not_come_back(self, place: Place) -> None:
        def give_up() -> None:
            restored = place.legacy.restore("sleeper")
            place.legacy.confirm("sleeper", restored.info.etag, restored.info.sha256)

        place.when("put", snapshot_name("sleeper"), give_up)
        assert place.failures() == []
        assert [entry.room_id for entry in place.plain.hibernated()] == ["other"]
        assert "snapshots/sleeper" not in place.plain.names()

    def test_a_restore_that_has_begun_is_told_that_it_was_replaced_and_can_be_repeated(self, place: Place) -> None:
        restored = place.legacy.restore("sleeper")
        place.migrate()
        with refused("CONCURRENT_MODIFICATION"):
            place.legacy.confirm("sleeper", restored.info.etag, restored.info.sha256)
        again = place.legacy.restore("sleeper")
        assert again.data == restored.data
        place.legacy.confirm("sleeper", again.info.etag, again.info.sha256)


class TestSnapshotsTwice:
    """A flat snapshot where one of ours is."""

    def test_one_of_ours_that_came_later_replaces_it(self, place: Place) -> None:
        place.legacy.hibernate("sleeper", b"later")
        assert place.failures() == []
        assert place.plain.restore("sleeper").data == b"later"
        assert "snapshots/sleeper" not in place.plain.names()

    @pytest.mark.parametrize("is_given_up", [False, True])
    def test_one_that_the_older_system_wrote_later_is_left_to_the_operator(
        self, place: Place, is_given_up: bool
    ) -> None:
        place.migrate()
        if is_given_up:
            restored = place.plain.restore("sleeper")
            place.plain.confirm("sleeper", restored.info.etag, restored.info.sha256)
        put_all(place.objects.inner, flat("sleeper", b"of the older system"))
        ((name, why),) = place.failures()
        assert (name, "is another one, and older" in why) == ("snapshots/sleeper", True)
        assert place.plain.stored("snapshots/sleeper") == tagged(b"of the older system")

    def test_the_same_one_again_goes(self, place: Place) -> None:
        place.migrate()
        put_all(place.objects.inner, flat("sleeper", b"zzz"))
        assert place.failures() == []
        assert "snapshots/sleeper" not in place.plain.names()
        place.check(legacy=False)

    def test_a_damaged_one_of_ours_keeps_it(self, place: Place) -> None:
        place.legacy.hibernate("sleeper", b"later")
        place.legacy.flip(snapshot_name("sleeper"))
        assert [name for name, _ in place.failures()] == ["snapshots/sleeper"]
        assert place.plain.stored("snapshots/sleeper") == tagged(b"zzz")


class TestBadPointers:
    """A room whose pointer is damaged or gone is left as it is, so that its pointer may be put back."""

    @pytest.mark.parametrize("damage", [b"garbage", epoch_name("a", 9).encode(), None])
    def test_put_back_from_a_backup_it_is_migrated_by_the_next_run(self, place: Place, damage: bytes | None) -> None:
        objects = place.objects.inner
        objects.delete(ObjectKey(pointer_name("a")))
        if damage is not None:
            put_all(objects, {pointer_name("a"): damage})
        before = {name: place.plain.stored(name) for name in place.plain.names() if name.startswith("snapshots/a/")}
        dry = {done.name for done in migrate(objects, place.keys, Plan(dry_run=True)) if done.outcome is Outcome.FAILED}
        assert dry == {name for name, _ in place.failures()} == {*before, *(epoch_name("a", epoch) for epoch in EPOCHS)}
        assert {name: place.plain.stored(name) for name in before} == before
        assert place.plain.load("b").data == b""
        put_all(objects, {pointer_name("a"): OBJECTS[pointer_name("a")]})
        assert place.failures() == []
        place.check(legacy=False)

    def test_without_a_backup_a_checkpoint_is_loaded_and_saved_above_the_others(self, place: Place) -> None:
        place.objects.inner.delete(ObjectKey(pointer_name("a")))
        assert "has no pointer" in place.failures()[0][1]
        good = place.legacy.load("a", epoch=3).data
        assert place.legacy.save("a", 4, good).pointer_moved
        assert place.failures() == []
        assert place.plain.load("a").data == b"three"


class TestRefusals:
    def test_what_replaces_a_sealed_checkpoint_is_not_sealed_anew(self, place: Place) -> None:
        place.migrate()
        put_all(place.objects.inner, {epoch_name("a", 3): tagged(b"forged with the old secret")})
        ((name, why),) = place.failures()
        assert (name, "not the one that the pointer names" in why) == (epoch_name("a", 3), True)
        assert place.plain.stored(epoch_name("a", 3)) == tagged(b"forged with the old secret")

    def test_without_a_secret_it_stops_at_the_first(self, place: Place) -> None:
        with pytest.raises(Stopped, match="add-legacy"):
            migrate(place.objects, ChangingKeys())
        assert {name: place.plain.stored(name) for name in place.plain.names()} == OBJECTS

    def test_with_another_secret_nothing_is_rewritten(self, place: Place) -> None:
        outcomes = {done.outcome for done in migrate(place.objects, legacy_keys(b"another"))}
        assert outcomes == {Outcome.FAILED}
        assert {name: place.plain.stored(name) for name in place.plain.names()} == OBJECTS

    def test_a_store_without_anything_old_needs_no_secret(self) -> None:
        objects: ObjectStore = MemoryStore()
        keys = ChangingKeys()
        rooms = Checkpoints(objects, keys)
        rooms.save("a", 1)
        rooms.hibernate("b")
        assert {done.outcome for done in migrate(objects, keys, Plan())} == {Outcome.PRESENT}
        rooms.close()

    def test_a_pointer_that_never_stands_still_is_told_of(self, place: Place) -> None:
        epochs = iter(range(100, 200))

        def before(operation: str, name: str) -> None:
            if (operation, name) == ("put", pointer_name("a")):
                epoch = next(epochs)
                put_all(place.objects.inner, room_of("a", {epoch: b"x"}))

        place.objects.before = before
        with suppress(HoldfastError):
            assert place.failures()[0][0] == pointer_name("a")
