"""Lists from any position on, with and without a delimiter, on every backend: S3 stores differ just there."""

from itertools import product

import pytest

from holdfast import BlobEntry
from tests.support.any_blobs import Blobs, keys

KEYS = ["a!", "a.", "a/b/c", "a/b0", "a/d", "ab", "b/c", "chunk/x", "snapshots!", "z", "é/ü"]
POSITIONS = [
    "",
    "a",
    "a!",
    "a.",
    "a/",
    "a/b",
    "a/b/",
    "a/b/c",
    "a/b0",
    "b",
    "b/",
    "b/c",
    "chunk/",
    "chunks/",
    "zz",
    "é/",
]


@pytest.fixture
def filled(all_blobs: Blobs) -> Blobs:
    """A store with `KEYS` in it; the tests here only read."""
    if keys(all_blobs) != KEYS:
        for key in KEYS:
            all_blobs.put(key, b"")
    return all_blobs


def expected(prefix: str, delimiter: str, start_after: str) -> list[str]:
    """Say what the proto says: keys after the position, and what they are rolled up into."""
    found = []
    for key in KEYS:
        if key > start_after and key.startswith(prefix):
            head, slash, _ = key[len(prefix) :].partition("/")
            found.append(prefix + head + slash if delimiter and slash else key)
    return sorted(set(found))


@pytest.mark.parametrize("delimiter", ["", "/"])
def test_a_list_has_all_that_comes_after_a_position(filled: Blobs, delimiter: str) -> None:
    for prefix, start_after in product(("", "a", "a/", "a/b", "b/", "é", "chunk", "nothing"), POSITIONS):
        items = filled.list(prefix, delimiter, start_after)
        names = [item.key if isinstance(item, BlobEntry) else item.prefix for item in items]
        assert names == expected(prefix, delimiter, start_after), (prefix, start_after)


def test_a_list_by_pages_of_one_has_all_that_comes_after_a_position(filled: Blobs) -> None:
    for prefix, start_after in (("", "a/b"), ("", "a/b/"), ("a/", "a/b/"), ("", "b/"), ("é", "é/")):
        items = filled.list(prefix, "/", start_after, page_size=1)
        names = [item.key if isinstance(item, BlobEntry) else item.prefix for item in items]
        assert names == expected(prefix, "/", start_after), (prefix, start_after)
