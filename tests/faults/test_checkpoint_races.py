"""Several servers at one room: deletions and prunings against saves and loads, and who gets a snapshot."""

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Self

import grpc
import pytest

from holdfast_server.checkpoints import key_file
from holdfast_server.checkpoints.checkpoint import Outcome
from holdfast_server.checkpoints.key_ring import KeyRing
from holdfast_server.checkpoints.limits import DEFAULT_TOMBSTONE_SECONDS
from holdfast_server.checkpoints.names import RoomId
from holdfast_server.checkpoints.pruning import Retention
from holdfast_server.checkpoints.store import CheckpointStore
from holdfast_server.errors import ConcurrentModification, EpochTooOld, NotFound, PointerInvalid
from holdfast_server.objects.base import ObjectStore
from holdfast_server.objects.filesystem import FilesystemStore
from holdfast_server.objects.memory import MemoryStore
from holdfast_server.workers import Workers
from tests.support.checkpoint_calls import confirm, hibernate, hibernated, restore, stub_of
from tests.support.checkpoint_stores import checkpoint_store, load, save
from tests.support.meddled_store import MeddledStore
from tests.support.s3_stores import fresh_bucket, s3_environment
from tests.support.server_process import ServerProcess
from tests.support.statuses import refusal_of
from tests.support.tombstones import anew_after
from tests.support.waiting import wait_until

ROOM = RoomId("arena/7")
KEEP_ONE = Retention(1, timedelta(0))
SAVERS = 4
DELETIONS = 40
LOADS = 300
CONFIRMERS = 16
TAKEN = 60


@pytest.fixture
def workers() -> Iterator[Workers]:
    """Threads."""
    workers = Workers()
    yield workers
    workers.close()


@pytest.fixture(params=["memory", "filesystem"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    """What the stores share."""
    store: ObjectStore = MemoryStore() if request.param == "memory" else FilesystemStore(tmp_path)
    with closing(store):
        yield store


class Savers:
    """Threads that save rising epochs until the block ends; `kept` is what was acknowledged.

    An epoch may be there twice: what was deleted does not stand in the way of one who comes late.
    """

    def __init__(self, stores: list[CheckpointStore]) -> None:
        self.kept: list[tuple[int, bytes]] = []
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(len(stores))
        self._done = [self._pool.submit(self._run, store, number) for number, store in enumerate(stores)]

    def _run(self, store: CheckpointStore, number: int) -> None:
        epoch = 0
        while not self._over.is_set():
            data = b"%d by %d" % (epoch, number)
            try:
                saved = save(store, ROOM, epoch, data)
            except EpochTooOld as error:
                epoch = int(error.details["next_epoch"])
            except ConcurrentModification:
                pass  # told to try again
            else:
                if saved.outcome in (Outcome.STORED, Outcome.EXISTS_SAME):
                    self.kept.append((epoch, data))
                epoch = saved.next_epoch

    def wait_for(self, more: int) -> None:
        """Return once so many more were acknowledged."""
        most = len(self.kept) + more
        wait_until(lambda: len(self.kept) >= most)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for done in self._done:
            done.result()
        self._pool.shutdown()


def test_nothing_above_the_tombstone_is_lost_to_a_deletion(objects: ObjectStore, workers: Workers) -> None:
    def fresh() -> CheckpointStore:
        return checkpoint_store(objects, workers)

    one, other, third = fresh(), fresh(), fresh()
    next_epoch = seen = 0
    with Savers([one, other] * (SAVERS // 2)) as savers:
        deleter = fresh()
        for _ in range(DELETIONS):
            savers.wait_for(SAVERS)
            *_, last = deleter.delete_room(ROOM)
            assert last.next_epoch >= next_epoch
            next_epoch = last.next_epoch
            for _ in range(3):
                seen += names_something_good(third)
        # Some that are acknowledged only now may be below.
        wait_until(lambda: any(epoch >= next_epoch for epoch, _ in savers.kept))
        seen += names_something_good(third)
    above = {epoch: data for epoch, data in savers.kept if epoch >= next_epoch}
    for store in (one, other, third, fresh()):
        for epoch, data in above.items():
            assert load(store, ROOM, epoch) == (epoch, data)
        assert load(store, ROOM)[0] == max(above)
    assert seen


def names_something_good(store: CheckpointStore) -> bool:
    """Look at the latest, and tell whether there is one. Damage is raised."""
    try:
        epoch, data = load(store, ROOM)
    except NotFound:
        return False
    assert data.startswith(b"%d by " % epoch)
    return True


def test_a_load_never_fails_because_of_pruning(objects: ObjectStore, workers: Workers) -> None:
    one, other, third, pruner = (checkpoint_store(objects, workers) for _ in range(4))
    save(one, ROOM, 0, b"0 by 0")
    over = threading.Event()
    deleted: list[int] = []

    def prune() -> None:
        while not over.is_set():
            *_, last = pruner.prune(ROOM, KEEP_ONE)
            deleted.append(last.deleted)

    with ThreadPoolExecutor(1) as pool:
        pruned = pool.submit(prune)
        try:
            with Savers([one, other]) as savers:
                for _ in range(LOADS):
                    assert names_something_good(third)
                    savers.wait_for(1)
                    found = third.stat(ROOM, None, min_epoch=None)
                    assert found.next_epoch > found.checkpoint.epoch
                    assert names_something_good(pruner)
                wait_until(lambda: sum(deleted) > 10 or pruned.done())
        finally:
            over.set()
        pruned.result()
    assert sum(deleted) > 10
    assert load(third, ROOM) == max(savers.kept)


def test_a_save_below_the_tombstone_of_another_server_is_refused(objects: ObjectStore, workers: Workers) -> None:
    one, other = checkpoint_store(objects, workers), checkpoint_store(objects, workers)
    save(one, ROOM, 5, b"data")
    save(other, ROOM, 9, b"data")
    list(other.delete_room(ROOM))
    anew = anew_after(9)
    for epoch in (7, 9, 10):
        with pytest.raises(EpochTooOld) as refused:
            save(one, ROOM, epoch, b"late")
        assert refused.value.details["next_epoch"] == str(anew)
    assert save(one, ROOM, anew, b"anew").pointer_moved
    assert load(other, ROOM) == (anew, b"anew")


def test_of_a_tombstone_that_another_server_removed_nothing_is_left(objects: ObjectStore, workers: Workers) -> None:
    clock = MeddledStore(objects)
    one, other = checkpoint_store(clock, workers), checkpoint_store(clock, workers)
    save(one, ROOM, 5, b"data")
    list(one.delete_room(ROOM))
    with pytest.raises(NotFound):
        load(other, ROOM)  # as its housekeeping does
    lifetime = timedelta(seconds=DEFAULT_TOMBSTONE_SECONDS)
    clock.clock_ahead = lifetime + timedelta(seconds=60)
    assert one.deleting.tidy_tombstones(lifetime) == 1
    assert save(other, ROOM, 0, b"anew").pointer_moved
    for store in (one, other):
        assert load(store, ROOM) == (0, b"anew")


def test_a_tombstone_that_went_too_early_is_noticed(objects: ObjectStore, workers: Workers) -> None:
    store = checkpoint_store(objects, workers)
    save(store, ROOM, 5, b"data")
    list(store.delete_room(ROOM))
    objects.delete(ROOM.pointer_key)
    with pytest.raises(PointerInvalid, match="is gone"):
        save(store, ROOM, 0, b"anew")


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
        yield [stub_of(stack.enter_context(grpc.insecure_channel(server.address))) for server in servers]


def outcome(do: Callable[[], object]) -> str:
    try:
        do()
    except grpc.RpcError as error:
        refusal = refusal_of(error)
        return f"{refusal.code} {refusal.reason}"
    return "OK"


def test_of_many_who_confirm_one_snapshot_one_does(stubs: list[Any]) -> None:
    data = b"the state of the room"
    for turn in range(6):
        hibernate(stubs[turn % 2], ROOM.text, data, create_only=True)
        info, restored = restore(stubs[1 - turn % 2], ROOM.text)
        assert restored == data
        begin = threading.Barrier(CONFIRMERS)

        def claim(number: int, info: Any = info, begin: threading.Barrier = begin) -> str:
            begin.wait()
            return outcome(lambda: confirm(stubs[number % 2], info, info.sha256, f"node-{number}"))

        with ThreadPoolExecutor(CONFIRMERS) as pool:
            came = list(pool.map(claim, range(CONFIRMERS)))
        assert Counter(came) == {"OK": 1, "ABORTED CONCURRENT_MODIFICATION": CONFIRMERS - 1}
        winner = came.index("OK")
        assert [claim_again(stubs, info, number) for number in (winner, winner + 1)] == [
            "OK",
            "ABORTED CONCURRENT_MODIFICATION",
        ]
        assert [hibernated(stub) for stub in stubs] == [[], []]


def test_one_who_confirms_once_more_before_the_answer_came_is_told_the_same(stubs: list[Any]) -> None:
    for turn in range(15):
        info = hibernate(stubs[turn % 2], ROOM.text, b"the state of the room")
        begin = threading.Barrier(8)

        def claim(number: int, info: Any = info, begin: threading.Barrier = begin) -> str:
            begin.wait()
            return outcome(lambda: confirm(stubs[number % 2], info, info.sha256, "node-1"))

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(claim, range(8))) == ["OK"] * 8


def claim_again(stubs: list[Any], info: Any, number: int) -> str:
    return outcome(lambda: confirm(stubs[1 - number % 2], info, info.sha256, f"node-{number}"))


def test_a_snapshot_that_comes_and_goes_through_both_is_confirmed_once_each_time(stubs: list[Any]) -> None:
    stored: list[bytes] = []
    confirmed: list[bytes] = []
    told: set[str] = set()

    def store(number: int) -> None:
        turn = 0
        while len(confirmed) < TAKEN:
            turn += 1
            data = b"%d of %d" % (turn, number)
            came = outcome(partial(hibernate, stubs[number % 2], ROOM.text, data, create_only=True))
            if came == "OK":
                stored.append(data)
            told.add(came)

    def take(number: int) -> None:
        while len(confirmed) < TAKEN:
            if (came := restored(stubs[number % 2])) is None:
                continue
            info, data = came
            confirmation = outcome(partial(confirm, stubs[1 - number % 2], info, hashlib.sha256(data).digest()))
            if confirmation == "OK":
                confirmed.append(data)
            told.add(confirmation)

    with ThreadPoolExecutor(8) as pool:
        for each in [pool.submit(do, number) for do in (store, take) for number in range(4)]:
            each.result()
    last = restored(stubs[0])
    assert sorted([*confirmed, *([] if last is None else [last[1]])]) == sorted(stored)
    # The last of these: while one came, the room was hibernated and restored by others.
    others = {"ABORTED CONCURRENT_MODIFICATION", "FAILED_PRECONDITION PRECONDITION_FAILED"}
    assert told <= {"OK", "ALREADY_EXISTS ALREADY_EXISTS", *others}


def restored(stub: Any) -> tuple[Any, bytes] | None:
    """Restore the snapshot; None: there is none."""
    try:
        return restore(stub, ROOM.text)
    except grpc.RpcError as error:
        if refusal_of(error).reason != "SNAPSHOT_NOT_FOUND":
            raise
        return None
