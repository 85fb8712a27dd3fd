"""A list on files goes straight where its prefix leads, and that may be nowhere."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast_server.objects.base import ListQuery
from holdfast_server.objects.body import Body
from holdfast_server.objects.filesystem import FilesystemStore
from holdfast_server.objects.key import MAX_SEGMENT_BYTES, ObjectKey
from tests.support.counting_disk import CountingDisk

LONGEST = "s" * MAX_SEGMENT_BYTES


@pytest.fixture
def disk() -> CountingDisk:
    return CountingDisk()


@pytest.fixture
def store(disk: CountingDisk, tmp_path: Path) -> Iterator[FilesystemStore]:
    store = FilesystemStore(tmp_path / "root", disk=disk)
    for key in ("a/b/c", "a/b/d", "a/other", "b", f"{LONGEST}/x", *(f"many/{number}/x" for number in range(30))):
        store.put(ObjectKey(key), Body.of(b"data"))
    yield store
    store.close()


def listed(store: FilesystemStore, query: ListQuery) -> list[str]:
    return [item.name for item in store.list(query)]


@pytest.mark.parametrize(
    "prefix",
    [
        "/",
        "//",
        "a//",
        "./",
        "../",
        "a/../a/",
        "a/b/c/",
        "b/",
        "none/",
        f"{LONGEST}s/",
        f"a/{'é' * 300}/b/",
        "x/" * 400,
    ],
    ids=lambda prefix: prefix if len(prefix) < 20 else f"{len(prefix)} characters",
)
@pytest.mark.parametrize("delimiter", [False, True])
def test_a_prefix_that_no_key_has_lists_nothing(store: FilesystemStore, prefix: str, *, delimiter: bool) -> None:
    assert listed(store, ListQuery(prefix, delimiter=delimiter)) == []


def test_a_prefix_of_the_longest_segment_lists_what_is_below(store: FilesystemStore) -> None:
    assert listed(store, ListQuery(f"{LONGEST}/")) == [f"{LONGEST}/x"]


def test_a_prefix_below_one_to_skip_is_skipped(store: FilesystemStore) -> None:
    assert listed(store, ListQuery("a/b/", skip=frozenset({"a/"}))) == []


def test_a_list_reads_only_the_directories_that_its_prefix_leads_to(store: FilesystemStore, disk: CountingDisk) -> None:
    before = disk.names_read
    assert listed(store, ListQuery("many/7/")) == ["many/7/x"]
    assert disk.names_read - before == 1
