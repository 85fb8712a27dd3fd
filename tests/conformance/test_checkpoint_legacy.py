"""A store that shellcade filled: served where that is switched on, migrated, and then served where it is off."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

import pytest

from holdfast_server.checkpoints.migration import Plan
from holdfast_server.objects.base import ObjectStore
from holdfast_server.objects.filesystem import FilesystemStore
from holdfast_server.objects.memory import MemoryStore
from holdfast_server.transfer.outcome import Done, Outcome
from tests.support.any_checkpoints import (
    DIFFERENT,
    SAME,
    STORED,
    Checkpoints,
    ServedCheckpoints,
    epoch_name,
    pointer_name,
    refused,
    snapshot_name,
)
from tests.support.legacy_forms import flat, forms, lay, legacy_keys, migrate, room_of, tagged
from tests.support.s3_servers import S3Server
from tests.support.s3_stores import OpenedStore
from tests.support.samples import MIB, sample
from tests.support.tombstones import anew_after
from tests.support.transfers import put_all

LARGE = 6 * MIB + 5
"""Beyond what a load holds in memory here, and what we would write with sums between its bytes."""

EPOCHS = {0: b"", 41: sample(LARGE), 42: b"newest"}
ROOMS = room_of("a", {1: b"one"}) | room_of("author/name-1", EPOCHS)
SLEEPERS = flat("sleeper", sample(2 * MIB)) | flat("deep/sleeper", b"zzz")


class Place:
    """A store, a way past it by which others write, and CheckpointStores on it."""

    def __init__(
        self, adopting: ObjectStore, plain: ObjectStore, lay_down: Callable[[Mapping[str, bytes]], None], kind: type
    ) -> None:
        self.objects = adopting
        self.lay = lay_down
        self.keys = legacy_keys()
        self._plain = plain
        self._kind = kind
        self.stack = ExitStack()

    def served(self, *, legacy: bool, encrypt: bool = False) -> Checkpoints:
        """Return a CheckpointStore that has seen nothing."""
        objects = self.objects if legacy else self._plain
        checkpoints: Checkpoints = self._kind(
            objects, self.keys, encrypt=encrypt, legacy=forms(self.keys) if legacy else None
        )
        self.stack.callback(checkpoints.close)
        return checkpoints

    def migrated(self, *, dry_run: bool = False, encrypt: bool = False) -> list[Done]:
        return migrate(self.objects, self.keys, Plan(encrypt=encrypt, dry_run=dry_run), jobs=4)


@pytest.fixture(
    scope="module", params=["direct memory", "direct filesystem", "direct moto", "direct minio", "grpc memory"]
)
def places(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Place]]:
    """What makes an empty place."""
    how, backend = request.param.split()
    kind = Checkpoints if how == "direct" else ServedCheckpoints
    with ExitStack() as stack:
        if backend in {"moto", "minio"}:
            server: S3Server = request.getfixturevalue(backend)
            adopting = stack.enter_context(OpenedStore(server, adopt_prefix="snapshots/"))
            plain = stack.enter_context(OpenedStore(server, bucket=adopting.bucket)).store

            def on_s3() -> Place:
                adopting.empty()
                return Place(adopting.store, plain, lambda objects: lay(server, adopting.bucket, objects), kind)

            yield on_s3
            return

        def local() -> Place:
            store: ObjectStore = MemoryStore()
            if backend == "filesystem":
                store = FilesystemStore(tmp_path_factory.mktemp("objects") / "objects")
            stack.callback(store.close)
            return Place(store, store, lambda objects: put_all(store, objects), kind)

        yield local


@pytest.fixture
def place(places: Callable[[], Place]) -> Iterator[Place]:
    made = places()
    with made.stack:
        yield made


def counts(done: list[Done]) -> dict[Outcome, int]:
    outcomes = [each.outcome for each in done]
    return {outcome: outcomes.count(outcome) for outcome in set(outcomes)}


def check_rooms(rooms: Checkpoints, *, legacy: bool) -> None:
    """Check that every checkpoint of `ROOMS` is there."""
    assert [(room.room_id, room.latest_epoch) for room in rooms.rooms()] == [("a", 1), ("author/name-1", 42)]
    for epoch, payload in EPOCHS.items():
        loaded = rooms.load("author/name-1", epoch=epoch)
        assert loaded.data == payload
        assert (loaded.info.size_bytes, loaded.info.sha256) == (len(payload), hashlib.sha256(payload).digest())
        assert (loaded.info.latest_epoch, loaded.info.next_epoch, loaded.info.legacy) == (42, 43, legacy)
        told = rooms.stat("author/name-1", epoch=epoch)
        assert (told.size_bytes, told.legacy, told.HasField("create_time")) == (len(payload), legacy, not legacy)
    assert rooms.load("author/name-1").data == b"newest"
    listed = rooms.listed("author/name-1")
    assert [(entry.epoch, entry.checkpoint.size_bytes) for entry in listed] == [
        (epoch, len(payload)) for epoch, payload in EPOCHS.items()
    ]
    assert {entry.checkpoint.legacy for entry in listed} == {legacy}
    assert rooms.load("a", min_epoch=1).data == b"one"
    with refused("EPOCH_TOO_OLD"):
        rooms.load("a", min_epoch=2)


class TestServing:
    def test_its_rooms_are_read_as_they_are(self, place: Place) -> None:
        place.lay(ROOMS)
        check_rooms(place.served(legacy=True), legacy=True)

    def test_switched_off_they_are_damage(self, place: Place) -> None:
        place.lay(ROOMS | SLEEPERS)
        rooms = place.served(legacy=False)
        for fields in ({}, {"epoch": 1}, {"fallback": True}):
            with pytest.raises(Exception, match=r"POINTER_INVALID|SEAL_INVALID|INTEGRITY_FAILED"):
                rooms.load("a", **fields)
        with refused("POINTER_INVALID", "DATA_LOSS"):
            rooms.save("a", 2)
        with refused("SNAPSHOT_NOT_FOUND"):
            rooms.restore("sleeper")
        assert rooms.hibernated() == []

    def test_saves_are_sealed_and_move_the_pointer(self, place: Place) -> None:
        place.lay(ROOMS)
        rooms = place.served(legacy=True)
        saved = rooms.save("author/name-1", 43, b"ours")
        assert (saved.outcome, saved.pointer_moved, saved.checkpoint.legacy) == (STORED, True, False)
        late = rooms.save("author/name-1", 40, b"late")
        assert (late.outcome, late.pointer_moved, late.latest_epoch) == (STORED, False, 43)
        for other in (rooms, place.served(legacy=False)):
            loaded = other.load("author/name-1")
            assert (loaded.data, loaded.info.legacy) == (b"ours", False)
        assert [entry.checkpoint.legacy for entry in rooms.listed("author/name-1")] == [True, False, True, True, False]
        assert rooms.load("author/name-1", epoch=42).data == b"newest"

    def test_what_is_there_stays_and_is_told_apart(self, place: Place) -> None:
        place.lay(ROOMS)
        rooms = place.served(legacy=True)
        assert rooms.save("a", 1, b"one").outcome == SAME
        assert rooms.save("a", 1, b"other").outcome == DIFFERENT
        assert rooms.load("a").data == b"one"

    def test_a_bad_one_is_passed_over(self, place: Place) -> None:
        place.lay(ROOMS | {epoch_name("author/name-1", 42): tagged(b"newest")[:-1]})
        rooms = place.served(legacy=True)
        with refused("SEAL_INVALID", "DATA_LOSS"):
            rooms.load("author/name-1")
        loaded = rooms.load("author/name-1", fallback=True)
        assert (loaded.data, [skipped.epoch for skipped in loaded.info.skipped]) == (EPOCHS[41], [42])
        assert loaded.info.next_epoch == 43

    def test_without_its_secret_no_older_one_is_taken_instead(self, place: Place) -> None:
        place.lay(ROOMS)
        place.keys = type(place.keys)()
        with refused("SEAL_KEY_UNAVAILABLE", "FAILED_PRECONDITION"):
            place.served(legacy=True).load("author/name-1", fallback=True)

    def test_old_ones_are_pruned_once_the_pointer_is_sealed(self, place: Place) -> None:
        place.lay(ROOMS)
        rooms = place.served(legacy=True)
        with refused("PRECONDITION_FAILED", "FAILED_PRECONDITION"):
            rooms.prune("author/name-1")
        assert rooms.epochs("author/name-1") == list(EPOCHS)
        rooms.save("author/name-1", 43, b"ours")
        assert rooms.prune("author/name-1", keep_last=2)[-1].deleted == 2
        assert rooms.epochs("author/name-1") == [42, 43]
        assert rooms.load("author/name-1").data == b"ours"

    def test_a_plain_pointer_in_the_place_of_a_sealed_one_is_refused(self, place: Place) -> None:
        rooms = place.served(legacy=True)
        for epoch in range(3):
            rooms.save("a", epoch, b"%d" % epoch)
        place.lay(room_of("a", {99: b"of another room"}))
        for server in (rooms, place.served(legacy=True)):
            with refused("POINTER_INVALID", "DATA_LOSS"):
                server.load("a")
            with refused("POINTER_INVALID", "DATA_LOSS"):
                server.prune("a")
        assert rooms.load("a", epoch=2).data == b"2"

    def test_a_room_is_deleted(self, place: Place) -> None:
        place.lay(ROOMS)
        rooms = place.served(legacy=True)
        assert rooms.delete_room("author/name-1").next_epoch == anew_after(42)
        assert [room.room_id for room in rooms.rooms()] == ["a"]
        assert {done.outcome for done in place.migrated() if "author" in done.name} == {Outcome.PRESENT}

    def test_a_watcher_sees_its_pointer_move(self, place: Place) -> None:
        place.lay(ROOMS)
        rooms = place.served(legacy=True)
        with rooms.watch("author/name-1") as watcher:
            assert watcher.next().epoch == 42
            rooms.save("author/name-1", 43, b"ours")
            assert watcher.next().epoch == 43

    def test_who_sleeps_is_listed_restored_and_given_up(self, place: Place) -> None:
        place.lay(ROOMS | SLEEPERS)
        rooms = place.served(legacy=True)
        rooms.hibernate("ours", b"ours")
        found = {entry.room_id: entry.snapshot.legacy for entry in rooms.hibernated()}
        assert found == {"ours": False, "deep/sleeper": True, "sleeper": True}
        restored = rooms.restore("sleeper")
        assert (restored.data, restored.info.legacy) == (sample(2 * MIB), True)
        rooms.confirm("sleeper", restored.info.etag, restored.info.sha256)
        with refused("SNAPSHOT_NOT_FOUND"):
            rooms.restore("sleeper")
        assert [entry.room_id for entry in rooms.hibernated()] == ["ours", "deep/sleeper"]
        assert "snapshots/sleeper" not in rooms.names()


class TestMigrating:
    def test_all_of_it_is_good_where_the_older_forms_are_off(self, place: Place) -> None:
        place.lay(ROOMS | SLEEPERS)
        assert counts(place.migrated()) == {Outcome.REPLACED: 8}
        for legacy in (False, True):
            rooms = place.served(legacy=legacy)
            check_rooms(rooms, legacy=False)
            assert [entry.room_id for entry in rooms.hibernated()] == ["deep/sleeper", "sleeper"]
            assert rooms.restore("sleeper").data == sample(2 * MIB)
        assert sorted(rooms.names()) == sorted([*ROOMS, snapshot_name("sleeper"), snapshot_name("deep/sleeper")])
        assert counts(place.migrated()) == {Outcome.PRESENT: 6}

    def test_it_is_sealed_as_saves_are(self, place: Place) -> None:
        place.lay(room_of("a", {1: b"needle" * 10}) | flat("b", b"needle" * 10))
        place.migrated(encrypt=True)
        rooms = place.served(legacy=False)
        assert rooms.load("a").info.encrypted
        assert rooms.restore("b").info.encrypted
        assert all(b"needle" not in rooms.stored(name) for name in rooms.names())

    def test_a_pointer_names_the_very_one(self, place: Place) -> None:
        place.lay(ROOMS)
        place.migrated()
        rooms = place.served(legacy=True)
        before = rooms.stored(epoch_name("a", 1))
        place.migrated()
        assert rooms.stored(epoch_name("a", 1)) == before
        rooms.put(epoch_name("a", 1), tagged(b"one"))
        with refused("SEAL_INVALID"):
            rooms.load("a")

    def test_times_are_kept(self, place: Place) -> None:
        place.lay(ROOMS | SLEEPERS)
        served = place.served(legacy=True)
        before = served.stat("a").update_time, served.restore("sleeper").info.update_time
        place.migrated()
        served.restart()
        assert (served.stat("a").create_time, served.restore("sleeper").info.create_time) == before

    def test_a_dry_run_tells_the_same_and_changes_nothing(self, place: Place) -> None:
        place.lay(ROOMS | SLEEPERS | {epoch_name("bad", 1): b"x" * 40})
        rooms = place.served(legacy=True)
        before = {name: rooms.stored(name) for name in rooms.names()}
        assert counts(place.migrated(dry_run=True)) == {Outcome.REPLACED: 8, Outcome.FAILED: 1}
        assert {name: rooms.stored(name) for name in rooms.names()} == before
        assert counts(place.migrated()) == {Outcome.REPLACED: 8, Outcome.FAILED: 1}

    def test_damage_stays_as_it_is_and_the_rest_is_done(self, place: Place) -> None:
        damaged = {
            epoch_name("author/name-1", 42): tagged(b"newest")[:-1] + b"?",
            pointer_name("a"): b"snapshots/b/00000000000000000001",
            "snapshots/sleeper": b"",
        }
        place.lay(ROOMS | SLEEPERS | damaged)
        left = [epoch_name("a", 1), *(epoch_name("author/name-1", epoch) for epoch in EPOCHS)]
        for rewritten in (1, 0):
            done = place.migrated()
            assert {each.name for each in done if each.outcome is Outcome.FAILED} == {
                *damaged,
                *left,
                pointer_name("author/name-1"),
            }
            assert counts(done).get(Outcome.REPLACED, 0) == rewritten
        rooms = place.served(legacy=True)
        assert {name: rooms.stored(name) for name in damaged} == damaged
        assert rooms.load("author/name-1", fallback=True).data == EPOCHS[41]
        assert rooms.load("a", epoch=1).info.legacy

    def test_a_flat_snapshot_does_not_hide_the_checkpoints_below_it(self, place: Place) -> None:
        place.lay(ROOMS)
        place.lay(flat("a", b"asleep") | flat("author", b"asleep") | flat("author/name-1", b"asleep"))
        assert counts(place.migrated()) == {Outcome.REPLACED: 9}
        rooms = place.served(legacy=False)
        assert rooms.load("author/name-1").data == b"newest"
        assert rooms.load("a").data == b"one"
        assert rooms.restore("author").data == b"asleep"

    def test_names_that_no_room_may_have_are_told_of(self, place: Place) -> None:
        names = [epoch_name("latest", 1), "snapshots/a/99999999999999999999"]
        place.lay(ROOMS | dict.fromkeys(names, b"x"))
        failed = [done.name for done in place.migrated() if done.outcome is Outcome.FAILED]
        assert sorted(failed) == sorted(names)
