"""Lists of blobs against a model: any keys, any query, any size of pages, on memory and files."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast_server.blobs.address import BlobKey
from holdfast_server.blobs.lists import BlobQuery
from holdfast_server.blobs.store import BlobStore
from holdfast_server.errors import InvalidArgument, Reason
from holdfast_server.objects.base import ObjectStore
from holdfast_server.objects.body import Body, Chunk, Declared
from holdfast_server.objects.filesystem import FilesystemStore
from holdfast_server.objects.filesystem.disk import Disk
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.memory import MemoryStore

RESERVED = ("blocks", "chunks", "hibernated", "holdfast", "snapshots")

segments = st.sampled_from(["a", "b", "a!", "a0", "ab", "é", "chunks", "chunk", "snapshots", "z"])
keys = st.lists(segments, min_size=1, max_size=4).map("/".join).filter(lambda key: key not in RESERVED)
positions = st.one_of(
    st.just(""), keys, keys.map(lambda key: key + "/"), st.sampled_from(["a", "chunks/", "s", "/", "zz"])
)


class NoSync(Disk):
    """Lists read; nothing here has to survive."""

    def fsync(self, fd: int) -> None:
        pass


def stores(directory: str) -> Iterator[ObjectStore]:
    yield MemoryStore()
    yield FilesystemStore(Path(directory) / "objects", disk=NoSync())


def expected(stored: set[str], prefix: str, delimiter: str, start_after: str) -> list[str]:
    """Say what a list has, from the words of the proto alone."""
    names = set()
    for key in stored:
        if key.split("/")[0] in RESERVED or not key.startswith(prefix):
            continue
        beyond = key[len(prefix) :]
        rolled = delimiter and "/" in beyond
        if key > start_after:
            names.add(prefix + beyond.split("/")[0] + "/" if rolled else key)
    return sorted(names, key=str.encode)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    stored=st.sets(keys, max_size=12),
    prefix=positions,
    delimiter=st.sampled_from(["", "/"]),
    start_after=positions,
    page_size=st.integers(1, 5),
)
def test_pages_put_together_are_the_whole_list(
    stored: set[str], prefix: str, delimiter: str, start_after: str, page_size: int
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        for objects in stores(directory):
            for key in stored:
                objects.put(ObjectKey(key), Body.of(b""))
            blobs = BlobStore(objects)
            found: list[str] = []
            token = ""
            while True:
                page = blobs.list(BlobQuery(prefix, delimiter, start_after, page_size, token))
                assert len(page.entries) + len(page.common_prefixes) <= page_size
                found += sorted([*(entry.name for entry in page.entries), *page.common_prefixes], key=str.encode)
                token = page.next_page_token
                if not token:
                    break
                assert len(page.entries) + len(page.common_prefixes) == page_size
            assert found == expected(stored, prefix, delimiter, start_after)
            objects.close()


@pytest.fixture
def blobs() -> BlobStore:
    return BlobStore(MemoryStore())


def put(blobs: BlobStore, key: str) -> None:
    blobs.put(BlobKey(key), [Chunk(b"x"), Declared()])


def test_ten_keys_at_three_a_page(blobs: BlobStore) -> None:
    for number in range(10):
        put(blobs, f"key/{number}")
    sizes, token = [], ""
    while True:
        page = blobs.list(BlobQuery(page_size=3, page_token=token))
        sizes.append(len(page.entries))
        token = page.next_page_token
        if not token:
            break
    assert sizes == [3, 3, 3, 1]


def test_a_full_last_page_has_no_token(blobs: BlobStore) -> None:
    for number in range(4):
        put(blobs, f"key/{number}")
    page = blobs.list(BlobQuery(page_size=4))
    assert (len(page.entries), page.next_page_token) == (4, "")


def test_a_page_of_long_keys_ends_at_about_a_mebibyte(blobs: BlobStore) -> None:
    tail = "/".join(["x" * 198] * 4)
    for number in range(1500):
        put(blobs, f"{number:05d}/{tail}")
    page = blobs.list(BlobQuery(page_size=10_000))
    assert 1000 < len(page.entries) < 1500
    rest = blobs.list(BlobQuery(page_size=10_000, page_token=page.next_page_token))
    assert len(page.entries) + len(rest.entries) == 1500


def test_a_list_without_a_size_has_a_thousand(blobs: BlobStore) -> None:
    for number in range(1001):
        put(blobs, f"{number:05d}")
    assert len(blobs.list(BlobQuery()).entries) == 1000


def test_blobs_put_and_deleted_between_pages_do_not_disturb_the_rest(blobs: BlobStore) -> None:
    for number in range(6):
        put(blobs, f"{number}")
    first = blobs.list(BlobQuery(page_size=2))
    blobs.delete(BlobKey("1"))
    blobs.delete(BlobKey("2"))
    put(blobs, "0a")
    put(blobs, "4a")
    second = blobs.list(BlobQuery(page_token=first.next_page_token))
    assert [entry.name for entry in second.entries] == ["3", "4", "4a", "5"]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"page_size": -1}, Reason.INVALID_PAGE_SIZE),
        ({"page_size": 10_001}, Reason.INVALID_PAGE_SIZE),
        ({"delimiter": "-"}, Reason.INVALID_DELIMITER),
        ({"prefix": "a\0"}, Reason.INVALID_KEY),
        ({"prefix": "a" * 901}, Reason.INVALID_KEY),
        ({"start_after": "\x1f"}, Reason.INVALID_KEY),
        ({"page_token": "nonsense"}, Reason.INVALID_PAGE_TOKEN),
    ],
)
def test_a_query_that_cannot_be_is_refused_by_field(
    blobs: BlobStore, query: dict[str, str | int], reason: Reason
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        blobs.list(BlobQuery(**query))  # type: ignore[arg-type]
    assert (refused.value.reason, refused.value.field) == (reason, next(iter(query)))
