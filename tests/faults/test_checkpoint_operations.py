"""What CheckpointStore's calls cost: operations on the backend, and the bytes that they read."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta

import pytest

from holdfast_server.checkpoints.lists import PageQuery
from holdfast_server.checkpoints.names import RoomId
from holdfast_server.checkpoints.pruning import Retention
from holdfast_server.checkpoints.seal import MAX_FOOTER_BYTES
from holdfast_server.checkpoints.store import CheckpointStore
from holdfast_server.errors import HoldfastError
from holdfast_server.objects.memory import MemoryStore
from holdfast_server.workers import Workers
from tests.support.checkpoint_stores import checkpoint_store, confirm, hibernate, load, restore, save
from tests.support.meddled_store import MeddledStore
from tests.support.s3_stores import OpenedStore
from tests.support.samples import MIB, sample

ROOM = RoomId("arena/7")
DATA = sample(3 * MIB)


@pytest.fixture
def objects() -> MeddledStore:
    """A backend that counts."""
    return MeddledStore(MemoryStore())


@pytest.fixture
def workers() -> Iterator[Workers]:
    """Threads."""
    workers = Workers()
    yield workers
    workers.close()


@pytest.fixture
def store(objects: MeddledStore, workers: Workers) -> CheckpointStore:
    """A store on it that knows of nothing yet."""
    return checkpoint_store(objects, workers)


def test_the_first_save_of_a_room_is_two_puts_and_a_look_at_what_is_there(
    objects: MeddledStore, store: CheckpointStore
) -> None:
    with objects.costing(get=1, list=1, put=2):
        save(store, ROOM, 1, DATA)


def test_a_save_is_two_puts_and_nothing_else(objects: MeddledStore, store: CheckpointStore) -> None:
    save(store, ROOM, 1, DATA)
    for epoch in range(2, 10):
        with objects.costing(put=2):
            save(store, ROOM, epoch, DATA)


def test_the_first_save_after_a_load_is_two_puts(
    objects: MeddledStore, store: CheckpointStore, workers: Workers
) -> None:
    save(store, ROOM, 1, DATA)
    restarted = checkpoint_store(objects, workers)
    load(restarted, ROOM)
    with objects.costing(put=2):
        save(restarted, ROOM, 2, DATA)


def test_a_save_with_an_expected_epoch_looks_at_the_pointer(objects: MeddledStore, store: CheckpointStore) -> None:
    save(store, ROOM, 1, DATA)
    with objects.costing(get=1, put=2):
        save(store, ROOM, 2, DATA, if_latest_epoch=1)


def test_a_late_save_is_one_put_and_a_look_at_the_pointer(objects: MeddledStore, store: CheckpointStore) -> None:
    save(store, ROOM, 10, DATA)
    with objects.costing(put=1, get=1):  # the room may have been deleted elsewhere
        save(store, ROOM, 9, DATA)


def test_a_save_after_another_server_moved_the_pointer_is_a_put_and_a_look_more(
    objects: MeddledStore, store: CheckpointStore, workers: Workers
) -> None:
    save(store, ROOM, 1, DATA)
    save(checkpoint_store(objects, workers), ROOM, 2, DATA)
    with objects.costing(put=3, get=1):
        save(store, ROOM, 3, DATA)
    with objects.costing(put=2):
        save(store, ROOM, 4, DATA)


def test_a_repeated_save_reads_what_is_there(objects: MeddledStore, store: CheckpointStore) -> None:
    save(store, ROOM, 1, b"x")
    with objects.costing(put=1, get=2, stat=1):
        save(store, ROOM, 1, b"x")


def test_a_load_reads_pointer_checkpoint_and_one_list(objects: MeddledStore, store: CheckpointStore) -> None:
    for epoch in range(300):
        save(store, ROOM, epoch, b"x")
    objects.bytes_read = 0
    for wanted in (None, 299, 3):
        with objects.costing(get=2, list=1):
            load(store, ROOM, wanted)
    assert objects.bytes_read < 3 * 2 * MAX_FOOTER_BYTES


def test_a_load_reads_no_byte_twice(objects: MeddledStore, store: CheckpointStore) -> None:
    save(store, ROOM, 1, DATA)
    objects.bytes_read = 0
    load(store, ROOM)
    assert objects.bytes_read < len(DATA) + 2 * MAX_FOOTER_BYTES


def test_stats_and_lists_read_the_ends_alone(objects: MeddledStore, store: CheckpointStore) -> None:
    for epoch in range(30):
        save(store, ROOM, epoch, sample(MIB))
    objects.bytes_read = 0
    with objects.costing(get=2, list=1):
        store.stat(ROOM, 7, min_epoch=None)
    assert objects.bytes_read <= 2 * MAX_FOOTER_BYTES
    objects.bytes_read = 0
    with objects.costing(get=30, list=1):
        page, token = store.checkpoints_of(ROOM, from_epoch=0, page_size=0, page_token="")
    assert (len(page), token) == (30, "")
    assert objects.bytes_read <= 30 * MAX_FOOTER_BYTES


def test_a_list_of_rooms_reads_each_pointer_once(objects: MeddledStore, store: CheckpointStore) -> None:
    rooms = [RoomId(f"arena/{number}") for number in range(50)]
    for room in rooms:
        save(store, room, 1, b"x")
    with objects.costing(get=50, list=1, stat=1):  # the stat asks whether `arena` is a room
        page, _ = store.rooms(PageQuery())
    assert {each.room for each in page} == set(rooms)


def test_a_room_of_thousands_of_epochs_costs_a_list_of_rooms_one_list_more(
    objects: MeddledStore, store: CheckpointStore
) -> None:
    many = RoomId("many")
    for epoch in range(5_000):
        save(store, many, epoch, b"")
    for room in ("a", "z"):
        save(store, RoomId(room), 1, b"x")
    objects.entries_listed = 0
    with objects.costing(get=3, list=2):
        page, _ = store.rooms(PageQuery())
    assert [each.room.text for each in page] == ["a", "many", "z"]
    assert objects.entries_listed < 100


def test_pruning_reads_the_latest_and_the_footers_of_what_it_keeps(
    objects: MeddledStore, store: CheckpointStore
) -> None:
    for epoch in range(20):
        save(store, ROOM, epoch, sample(MIB))
    objects.bytes_read = 0
    # The pointer, the footers of the two older ones that are kept, and the latest: its footer first, as it is large.
    with objects.costing(get=5, list=1, delete=17):
        list(store.prune(ROOM, Retention(3, timedelta(0))))
    assert objects.bytes_read < MIB + 5 * MAX_FOOTER_BYTES
    with objects.costing(get=1, list=1):  # where there is nothing to prune, nothing is read
        list(store.prune(ROOM, Retention(3, timedelta(0))))


def test_hibernating_is_a_get_and_a_put_and_restoring_a_large_snapshot_two_gets(
    objects: MeddledStore, store: CheckpointStore
) -> None:
    for _ in range(2):
        objects.bytes_read = 0
        with objects.costing(get=1, put=1):  # what is there: the footer
            hibernate(store, ROOM, DATA)
        assert objects.bytes_read <= MAX_FOOTER_BYTES
    with objects.costing(get=2):  # its footer first, before so much waits in the room that all share
        snapshot, _ = restore(store, ROOM)
    objects.bytes_read = 0
    with objects.costing(get=1, put=1):
        confirm(store, snapshot, DATA)
    assert objects.bytes_read <= MAX_FOOTER_BYTES


def test_a_refused_save_costs_no_more_than_one_that_is_done(objects: MeddledStore, store: CheckpointStore) -> None:
    save(store, ROOM, 1, DATA)
    with objects.costing(get=1), suppress(HoldfastError):
        save(store, ROOM, 2, DATA, if_latest_epoch=7)


@pytest.fixture(params=["moto", "minio"])
def opened(request: pytest.FixtureRequest) -> Iterator[OpenedStore]:
    """A bucket."""
    with OpenedStore(request.getfixturevalue(request.param)) as opened:
        yield opened


def requests_of(opened: OpenedStore) -> Counter[str]:
    """Return how many requests of which kind there were, but for those of the threads that look after the bucket."""
    return Counter(
        {
            found.labels["request"]: int(found.value)
            for family in opened.registry.collect()
            for found in family.samples
            if found.name == "holdfast_remote_requests_total"
            and found.labels["request"] not in ("head_bucket", "list_uploads")
            and found.labels["outcome"] == "ok"
        }
    )


def test_on_s3_each_operation_is_one_request(opened: OpenedStore, workers: Workers) -> None:
    store = checkpoint_store(opened.store, workers)

    def cost(do: Callable[[], object]) -> dict[str, int]:
        before = requests_of(opened)
        do()
        return dict(requests_of(opened) - before)

    save(store, ROOM, 1, DATA)
    for epoch, data in ((2, DATA), (3, b"small")):
        assert cost(lambda epoch=epoch, data=data: save(store, ROOM, epoch, data)) == {"put": 2}  # type: ignore[misc]
    assert cost(lambda: load(store, ROOM)) == {"get": 2, "list": 1}
    # Of a large one the footer comes first: what nobody has a key for need not come whole.
    assert cost(lambda: load(store, ROOM, 2)) == {"get": 3, "list": 1}
    assert cost(lambda: store.stat(ROOM, None, min_epoch=None)) == {"get": 2, "list": 1}
    assert cost(lambda: save(store, ROOM, 0, DATA)) == {"put": 1, "get": 1}
    hibernate(store, ROOM, DATA)
    assert cost(lambda: hibernate(store, ROOM, DATA)) == {"get": 1, "put": 1}
