"""What one object costs does not grow with how many there are: counted in system calls and keys, not in seconds."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sortedcontainers import SortedDict

from holdfast_server.blobs.address import BlobKey
from holdfast_server.blobs.lists import BlobQuery
from holdfast_server.blobs.store import BlobStore
from holdfast_server.data_directory import open_data_directory
from holdfast_server.objects.body import Body, Chunk, Declared
from holdfast_server.objects.filesystem import FilesystemStore
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.memory import MemoryStore
from tests.support.audited_server import audited
from tests.support.counting_disk import CountingDisk
from tests.support.filled_trees import fill
from tests.support.server_process import ServerProcess

MANY, FEW = 20_000, 1000
"""Prefixes: ten keys under the one that is looked at, and one under each other; and a tenth as many keys under one."""

DATA = b"a small object"
PREFIX = "prefix-00500/"

Operation = Callable[[BlobStore], None]


def keys(prefixes: int) -> Iterator[str]:
    for number in range(prefixes):
        prefix = f"prefix-{number:05}/"
        yield from (f"{prefix}key-{count}" for count in range(10 if prefix == PREFIX else 1))
    yield from (f"wide/key-{number}" for number in range(prefixes // 10))


def page(blobs: BlobStore) -> None:
    assert len(blobs.list(BlobQuery(prefix=PREFIX)).entries) == 10


def part_of_a_page(blobs: BlobStore) -> None:
    query = BlobQuery(prefix=PREFIX, start_after=f"{PREFIX}key-3", page_size=3)
    assert [entry.name[-1] for entry in blobs.list(query).entries] == ["4", "5", "6"]


def page_below_a_prefix_of_prefixes(blobs: BlobStore) -> None:
    assert blobs.list(BlobQuery(prefix=f"{PREFIX}deeper/and/deeper/")).entries == []


def stat(blobs: BlobStore) -> None:
    blobs.stat(BlobKey(f"{PREFIX}key-5"))


def get(blobs: BlobStore) -> None:
    with blobs.get(BlobKey(f"{PREFIX}key-5")) as reader:
        assert b"".join(chunk.data for chunk in reader) == DATA


def put(blobs: BlobStore, key: str) -> None:
    blobs.put(BlobKey(key), [Chunk(DATA)], declared=Declared(len(DATA)))


def create_and_delete(blobs: BlobStore) -> None:
    put(blobs, f"{PREFIX}new")
    assert blobs.delete(BlobKey(f"{PREFIX}new"))


def overwrite(blobs: BlobStore) -> None:
    put(blobs, f"{PREFIX}key-5")


def copy_and_delete(blobs: BlobStore) -> None:
    blobs.copy(BlobKey(f"{PREFIX}key-5"), BlobKey(f"{PREFIX}copy"))
    assert blobs.delete(BlobKey(f"{PREFIX}copy"))


def make_a_prefix_and_remove_it(blobs: BlobStore) -> None:
    put(blobs, "prefix-00010x/first")
    assert blobs.delete(BlobKey("prefix-00010x/first"))


def change_a_wide_prefix(blobs: BlobStore) -> None:
    blobs.stat(BlobKey("wide/key-5"))
    put(blobs, "wide/new")
    assert blobs.delete(BlobKey("wide/new"))


def page_amid_all(blobs: BlobStore) -> None:
    assert len(blobs.list(BlobQuery(start_after=PREFIX, page_size=50)).entries) == 50


def page_of_ten_thousand(blobs: BlobStore) -> None:
    assert len(blobs.list(BlobQuery(page_size=10_000)).entries) == 10_000


def page_of_prefixes(blobs: BlobStore) -> None:
    assert len(blobs.list(BlobQuery(delimiter="/", page_size=50)).common_prefixes) == 50


ON_ALL: tuple[Operation, ...] = (
    page,
    part_of_a_page,
    page_below_a_prefix_of_prefixes,
    stat,
    get,
    create_and_delete,
    overwrite,
    copy_and_delete,
    make_a_prefix_and_remove_it,
    change_a_wide_prefix,
)
IN_MEMORY: tuple[Operation, ...] = (*ON_ALL, page_amid_all, page_of_prefixes)
"""On files the last two read all names in one directory; `docs/decisions/0002-files.md` tells why."""


class CountedIndex(SortedDict[str, Any]):
    """Counts the keys that were looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.looked_at = 0
        found_in = self.irange
        # Where the index itself has it: in the instance.
        vars(self)["irange"] = lambda *args, **kwargs: self._counted(found_in(*args, **kwargs))

    def __iter__(self) -> Iterator[str]:
        return self._counted(super().__iter__())

    def _counted(self, found: Iterable[str]) -> Iterator[str]:
        for key in found:
            self.looked_at += 1
            yield key


class CountedMemory:
    """A memory store of so many prefixes."""

    def __init__(self, prefixes: int) -> None:
        self._index = CountedIndex()
        store = MemoryStore()
        store._objects = self._index
        for key in keys(prefixes):
            store.put(ObjectKey(key), Body.of(DATA))
        self._blobs = BlobStore(store)

    def work_of(self, operation: Operation) -> int:
        before = self._index.looked_at
        operation(self._blobs)
        return self._index.looked_at - before


class CountedFiles:
    """A filesystem store of so many prefixes, on a disk that counts."""

    def __init__(self, data: Path) -> None:
        self._disk = CountingDisk()
        self._store = FilesystemStore(open_data_directory(data).objects, disk=self._disk)
        self._blobs = BlobStore(self._store)
        self.work_to_open = self._disk.work

    def work_of(self, operation: Operation) -> int:
        before = self._disk.work
        operation(self._blobs)
        return self._disk.work - before

    def close(self) -> None:
        self._store.close()


@pytest.fixture(scope="module")
def memories() -> tuple[CountedMemory, CountedMemory]:
    return CountedMemory(MANY), CountedMemory(FEW)


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    parent = tmp_path_factory.mktemp("crowded")
    many, few = parent / "many", parent / "few"
    for data, prefixes in ((many, MANY), (few, FEW)):
        fill(open_data_directory(data).objects, keys(prefixes), DATA)
    return many, few


@pytest.fixture(scope="module")
def files(directories: tuple[Path, Path]) -> Iterator[tuple[CountedFiles, CountedFiles]]:
    many, few = map(CountedFiles, directories)
    yield many, few
    many.close()
    few.close()


@pytest.mark.parametrize("operation", IN_MEMORY, ids=lambda operation: operation.__name__)
def test_a_memory_store_of_many_looks_at_no_more_keys_than_one_of_few(
    memories: tuple[CountedMemory, CountedMemory], operation: Operation
) -> None:
    many, few = memories
    assert many.work_of(operation) == few.work_of(operation)


def test_the_keys_that_a_memory_store_looks_at_are_counted(memories: tuple[CountedMemory, CountedMemory]) -> None:
    many, few = memories
    assert few.work_of(page) >= 10
    assert many.work_of(page_of_ten_thousand) >= 10_000


@pytest.mark.parametrize("operation", ON_ALL, ids=lambda operation: operation.__name__)
def test_a_filesystem_store_of_many_makes_no_more_system_calls_than_one_of_few(
    files: tuple[CountedFiles, CountedFiles], operation: Operation
) -> None:
    many, few = files
    work = few.work_of(operation)
    assert many.work_of(operation) == work
    assert work > 0


def test_a_filesystem_store_of_many_is_opened_by_no_more_system_calls_than_one_of_few(
    files: tuple[CountedFiles, CountedFiles],
) -> None:
    many, few = files
    assert many.work_to_open == few.work_to_open > 0


def test_a_server_starts_on_many_objects_without_looking_at_them(
    directories: tuple[Path, Path], tmp_path: Path
) -> None:
    many, _ = directories
    report = tmp_path / "report"
    with ServerProcess(many, wrapper=audited(report)) as server:
        assert server.stop() == 0
    read = report.read_text().splitlines()
    root = open_data_directory(many).objects
    assert str(root / "scratch") in read
    assert [directory for directory in read if directory.startswith(str(root / "tree"))] == []
