"""Two servers at one room, each with what it remembers: what one is told holds, whatever the other did meanwhile."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from holdfast_server.checkpoints import key_file
from holdfast_server.checkpoints.checkpoint import Outcome
from holdfast_server.checkpoints.key_ring import FixedKeys, KeyRing
from holdfast_server.checkpoints.metrics import CheckpointMetrics
from holdfast_server.checkpoints.names import RoomId
from holdfast_server.checkpoints.opening import WaitingRoom
from holdfast_server.checkpoints.pruning import Retention
from holdfast_server.checkpoints.seen_pointers import SeenPointers
from holdfast_server.checkpoints.store import CheckpointStore, StoreOptions
from holdfast_server.errors import ConcurrentModification, EpochTooOld, NotFound, PointerInvalid, SealInvalid
from holdfast_server.objects.base import ObjectStore
from holdfast_server.objects.body import Body
from holdfast_server.objects.filesystem import FilesystemStore
from holdfast_server.objects.memory import MemoryStore
from holdfast_server.objects.spool import Spool
from holdfast_server.workers import Workers
from tests.support import checkpoint_calls
from tests.support.checkpoint_stores import RING, checkpoint_store, hibernate, load, restore, save
from tests.support.meddled_store import MeddledStore, meanwhile
from tests.support.s3_stores import fresh_bucket, s3_environment
from tests.support.samples import MIB
from tests.support.server_process import ServerProcess
from tests.support.statuses import refusal_of
from tests.support.tombstones import anew_after, tombstone_of

ROOM = RoomId("arena/7")
SHORT = 3600.0
LIFETIME = timedelta(seconds=SHORT)
ONE = Retention(1, timedelta(0))


@pytest.fixture
def workers() -> Iterator[Workers]:
    with closing(Workers()) as threads:
        yield threads


@pytest.fixture(params=["memory", "filesystem"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MeddledStore]:
    """What the servers share."""
    inner: ObjectStore = MemoryStore() if request.param == "memory" else FilesystemStore(tmp_path)
    with closing(inner):
        yield MeddledStore(inner)


Open = Callable[[], CheckpointStore]


@pytest.fixture
def server(objects: MeddledStore, workers: Workers) -> Open:
    """What opens one more server, which keeps tombstones for an hour. Time goes by as the test says."""

    def open_one() -> CheckpointStore:
        store = checkpoint_store(objects, workers, options=StoreOptions(tombstone_seconds=SHORT))
        store.pointers._seen = SeenPointers(SHORT, lambda: _seconds(objects))
        return store

    return open_one


def _seconds(objects: MeddledStore) -> float:
    return objects.clock_ahead.total_seconds()


def pointer_of(objects: MeddledStore) -> bytes:
    with objects.inner.get(ROOM.pointer_key) as reader:
        return b"".join(chunk.data for chunk in reader)


# A room that was deleted elsewhere.


def test_a_save_below_what_is_remembered_is_too_old_where_the_room_is_deleted(server: Open) -> None:
    one, other = server(), server()
    save(other, ROOM, 100, b"data")
    list(one.delete_room(ROOM))
    for each in (other, one):
        with pytest.raises(EpochTooOld) as refused:
            save(each, ROOM, 50, b"late")
        assert refused.value.details["next_epoch"] == str(anew_after(100))


@pytest.mark.parametrize("is_idle_first", [True, False])
def test_what_is_acknowledged_in_a_room_begun_anew_elsewhere_can_be_loaded(
    objects: MeddledStore, server: Open, *, is_idle_first: bool
) -> None:
    idle, one = server(), server()
    save(idle, ROOM, 100, b"data")
    list(one.delete_room(ROOM))
    objects.clock_ahead = LIFETIME + timedelta(seconds=1)
    assert one.deleting.tidy_tombstones(LIFETIME) == 1
    writers = (idle, one) if is_idle_first else (one, idle)
    for epoch in range(4):
        saved = save(writers[epoch % 2], ROOM, epoch, b"%d" % epoch)
        assert (saved.pointer_moved, saved.latest_epoch, saved.next_epoch) == (True, epoch, epoch + 1)
        for each in (*writers, server()):
            assert load(each, ROOM) == (epoch, b"%d" % epoch)


def test_a_room_begun_anew_is_no_rollback_to_who_saw_it_deleted(objects: MeddledStore, server: Open) -> None:
    one, other = server(), server()
    save(one, ROOM, 100, b"data")
    list(one.delete_room(ROOM))
    for at in (0, SHORT / 2, SHORT - 1):
        objects.clock_ahead = timedelta(seconds=at)
        assert other.deleting.tidy_tombstones(timedelta(days=1)) == 0
        with pytest.raises(NotFound):
            load(other, ROOM)
    objects.clock_ahead = LIFETIME + timedelta(seconds=1)
    assert one.deleting.tidy_tombstones(LIFETIME) == 1
    save(one, ROOM, 0, b"anew")
    for each in (one, other):
        assert load(each, ROOM) == (0, b"anew")
    save(other, ROOM, 1, b"more")
    assert load(one, ROOM) == (1, b"more")


def test_who_was_idle_for_long_does_not_set_back_a_room_that_lost_its_pointer(
    objects: MeddledStore, server: Open
) -> None:
    idle = server()
    for epoch in (4, 5):
        save(idle, ROOM, epoch, b"%d" % epoch)
    objects.inner.delete(ROOM.pointer_key)
    objects.clock_ahead = LIFETIME + timedelta(seconds=1)
    with pytest.raises(EpochTooOld) as refused:
        save(idle, ROOM, 3, b"late")
    assert refused.value.details["next_epoch"] == "6"
    assert save(idle, ROOM, 6, b"6").pointer_moved


def test_a_live_pointer_in_a_tombstones_place_is_noticed(objects: MeddledStore, server: Open) -> None:
    one, other = server(), server()
    save(one, ROOM, 5, b"data")
    live = pointer_of(objects)
    list(one.delete_room(ROOM))
    with pytest.raises(NotFound):
        load(other, ROOM)
    objects.inner.put(ROOM.pointer_key, Body.of(live))
    for each in (one, other):
        with pytest.raises(PointerInvalid, match=f"seen it deleted up to epoch {tombstone_of(5)}"):
            load(each, ROOM)


# A damaged pointer, replaced by two.


def damage(objects: MeddledStore, tmp_path: Path) -> None:
    """Damage a pointer: on files so that not even their record can be read."""
    objects.inner.put(ROOM.pointer_key, Body.of(b"garbage"))
    for file in tmp_path.rglob("latest.f"):
        file.write_bytes(file.read_bytes()[:-20])


def test_two_who_replace_a_damaged_pointer_do_not_set_each_other_back(
    objects: MeddledStore, server: Open, tmp_path: Path
) -> None:
    save(server(), ROOM, 10, b"ten")
    damage(objects, tmp_path)
    one, other = server(), server()

    def replace() -> None:
        assert save(other, ROOM, 12, b"twelve", replace_damaged_pointer=True).pointer_moved

    objects.before = meanwhile("put", ROOM.epoch_key(11).text, replace)  # while the bytes come
    with pytest.raises(ConcurrentModification):
        save(one, ROOM, 11, b"eleven", replace_damaged_pointer=True)
    for each in (one, other, server()):
        assert load(each, ROOM) == (12, b"twelve")


def test_a_deletion_of_a_damaged_pointer_goes_above_what_replaced_it(
    objects: MeddledStore, server: Open, tmp_path: Path
) -> None:
    save(server(), ROOM, 10, b"ten")
    damage(objects, tmp_path)
    one, other = server(), server()

    def replace() -> None:
        assert save(other, ROOM, 12, b"twelve", replace_damaged_pointer=True).pointer_moved

    lists = iter([lambda: None, replace])  # the second is that for the highest epoch
    objects.before = lambda operation, _name: next(lists, lambda: None)() if operation in {"get", "list"} else None
    *_, last = one.delete_room(ROOM)
    assert last.next_epoch == anew_after(12)
    with pytest.raises(EpochTooOld):
        save(other, ROOM, 12, b"twelve")
    assert save(other, ROOM, last.next_epoch, b"anew").pointer_moved


# What is not good, and what it costs.


def test_a_large_thing_without_a_seal_takes_no_spool(objects: MeddledStore, workers: Workers) -> None:
    save(checkpoint_store(objects, workers), ROOM, 1, b"data")
    objects.inner.put(ROOM.epoch_key(1), Body.of(b"z" * (8 * MIB)))
    store = checkpoint_store(objects, workers, spool=Spool(None, 1), memory_bytes=MIB)
    with pytest.raises(SealInvalid):
        load(store, ROOM)
    with pytest.raises(SealInvalid):
        load(store, ROOM, fallback=True)
    assert save(store, ROOM, 1, b"data").outcome is Outcome.EXISTS_DAMAGED
    objects.inner.put(ROOM.snapshot_key, Body.of(b"z" * (8 * MIB)))
    with pytest.raises(SealInvalid):
        restore(store, ROOM)


def test_damage_that_anybody_meets_is_counted(objects: MeddledStore, workers: Workers) -> None:
    registry = CollectorRegistry()
    store = CheckpointStore(
        objects, FixedKeys(RING), WaitingRoom(Spool(), MIB), workers, metrics=CheckpointMetrics(registry)
    )

    def counted() -> float:
        return sum(
            sample.value
            for metric in registry.collect()
            for sample in metric.samples
            if sample.name == "holdfast_checkpoint_damage_total"
        )

    for epoch in (1, 2):
        save(store, ROOM, epoch, b"data")
    hibernate(store, ROOM, b"state")
    for key in (ROOM.epoch_key(2), ROOM.snapshot_key):
        objects.inner.put(key, Body.of(b"garbage"))
    objects.clock_ahead = timedelta(hours=1)
    meets: list[Callable[[], object]] = [
        lambda: save(store, ROOM, 2, b"data"),
        lambda: store.stat(ROOM),
        lambda: load(store, ROOM),
        lambda: load(store, ROOM, fallback=True),
        lambda: list(store.prune(None, ONE)),
        lambda: list(store.prune(ROOM, ONE)),
        lambda: restore(store, ROOM),
        lambda: hibernate(store, ROOM, b"state"),
        lambda: hibernate(store, ROOM, b"state", replace_damaged=True),
    ]
    for number, meet in enumerate(meets, 1):
        with suppress(SealInvalid):
            meet()
        assert counted() == number
    objects.inner.put(ROOM.pointer_key, Body.of(b"garbage"))
    damaged: list[Callable[[], object]] = [
        lambda: store.stat(ROOM),
        lambda: save(store, ROOM, 0, b"data"),
        lambda: store.deleting.tidy_tombstones(timedelta(0)),
    ]
    for number, meet in enumerate(damaged, len(meets) + 1):
        with suppress(PointerInvalid):
            meet()
        assert counted() == number


# Real servers.


@pytest.fixture(params=["filesystem", "minio"])
def stubs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Any]]:
    """A stub of each of two servers on one directory, or one bucket."""
    environment: dict[str, str] = {}
    data: Path | None = tmp_path / "data"
    if request.param == "minio":
        key_file.create(tmp_path / "ring.json", KeyRing.fresh())
        environment = s3_environment(request.getfixturevalue("minio"), fresh_bucket())
        environment["HOLDFAST_CHECKPOINT_STORE__KEY_RING"] = str(tmp_path / "ring.json")
        data = None
    with ExitStack() as stack:
        servers = [stack.enter_context(ServerProcess(data, env=environment)) for _ in range(2)]
        yield [
            checkpoint_calls.stub_of(stack.enter_context(grpc.insecure_channel(server.address))) for server in servers
        ]


def test_two_processes_agree_on_a_room_that_one_deleted(stubs: list[Any]) -> None:
    one, other = stubs
    checkpoint_calls.save(other, ROOM.text, 100, b"data")
    anew = anew_after(100)
    assert checkpoint_calls.delete_room(one, ROOM.text).next_epoch == anew
    with pytest.raises(grpc.RpcError) as refused:
        checkpoint_calls.save(other, ROOM.text, 101, b"late")
    refusal = refusal_of(refused.value)
    assert (refusal.reason, refusal.names["next_epoch"]) == ("EPOCH_TOO_OLD", str(anew))
    assert checkpoint_calls.delete_room(one, ROOM.text).next_epoch == anew
    for stub in (one, other):
        assert checkpoint_calls.entries(stub, ROOM.text) == [], "of what came too late nothing is left"
    assert checkpoint_calls.save(other, ROOM.text, anew, b"anew").pointer_moved
    for stub in (one, other):
        info, data = checkpoint_calls.load(stub, ROOM.text)
        assert (info.epoch, data) == (anew, b"anew")
