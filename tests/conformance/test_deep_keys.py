"""A key of hundreds of segments is a key like any other, and costs no more to list."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast_server.objects.base import CommonPrefix, ListQuery, ObjectStore
from holdfast_server.objects.body import Body
from holdfast_server.objects.filesystem import FilesystemStore
from holdfast_server.objects.filesystem.disk import Disk
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.memory import MemoryStore
from tests.support.disk_operations import content
from tests.support.faulty_disk import open_files_below

DEEP = "/".join(["a"] * 450)
SHALLOW = "b"


class QuickDisk(Disk):
    """Syncs nothing: 450 directories take their time, and nothing here has to last."""

    def fsync(self, fd: int) -> None:
        pass


@pytest.fixture(params=["memory", "filesystem"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    """A store that holds a deep key and a shallow one."""
    made = MemoryStore() if request.param == "memory" else FilesystemStore(tmp_path / "objects", disk=QuickDisk())
    for key in (DEEP, SHALLOW):
        made.put(ObjectKey(key), Body.of(key.encode()))
    yield made
    made.close()


def listed(store: ObjectStore, query: ListQuery) -> list[str]:
    return [item.name for item in store.list(query)]


def open_files(directory: Path) -> int:
    return len(open_files_below(directory))  # and no others: what earlier tests have left may close meanwhile


def test_a_deep_key_is_read_and_deleted(store: ObjectStore) -> None:
    assert content(store, ObjectKey(DEEP)) == DEEP.encode()
    assert store.stat(ObjectKey(DEEP)).size_bytes == len(DEEP)
    assert store.delete(ObjectKey(DEEP))
    assert content(store, ObjectKey(DEEP)) is None
    assert listed(store, ListQuery()) == listed(store, ListQuery(delimiter=True)) == [SHALLOW]


def test_a_deep_key_is_listed(store: ObjectStore) -> None:
    assert listed(store, ListQuery()) == [DEEP, SHALLOW]
    assert listed(store, ListQuery(DEEP[:-1])) == [DEEP]
    assert listed(store, ListQuery(after=DEEP[:-2])) == [DEEP, SHALLOW]
    assert listed(store, ListQuery(after=DEEP)) == [SHALLOW]


def test_a_deep_key_is_rolled_up(store: ObjectStore) -> None:
    first, second = store.list(ListQuery(delimiter=True))
    assert (first, second.name) == (CommonPrefix("a/"), SHALLOW)
    assert listed(store, ListQuery(after=DEEP[:-2], delimiter=True)) == ["a/", SHALLOW]
    assert listed(store, ListQuery(after=DEEP, delimiter=True)) == [SHALLOW]


@pytest.mark.parametrize("delimiter", [False, True])
def test_a_list_that_is_read_slowly_holds_a_handful_of_files(
    store: ObjectStore, tmp_path: Path, delimiter: bool
) -> None:
    before = open_files(tmp_path)
    under_way = store.list(ListQuery(delimiter=delimiter))
    next(under_way)
    assert open_files(tmp_path) - before < 6
    assert [item.name for item in under_way] == [SHALLOW]
    assert open_files(tmp_path) == before
