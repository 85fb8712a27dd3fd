"""What BlobStore promises, run on the store itself and over gRPC through the client, on every backend.

The suite speaks the client's language; `DirectBlobs` gives the bare store the same methods. Errors of the two sides are
two families with one set of reasons, so reasons are what is compared.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

import holdfast
import holdfast_server.errors
from holdfast import BlobEntry, CommonPrefix, Content, Layout
from tests.support.any_blobs import Blobs, keys, read
from tests.support.direct_blobs import refused
from tests.support.infos import alike
from tests.support.samples import MIB, sample

DATA = b"hello world"
SHA256 = hashlib.sha256(DATA).digest()


@pytest.mark.parametrize("size", [0, 1, MIB, 3 * MIB + 7])
def test_a_blob_comes_back_as_it_was_put(blobs: Blobs, size: int) -> None:
    data = sample(size)
    put = blobs.put("a/blob", data, content_type="text/plain", metadata={"who": "mé", "empty": ""})
    assert put.created is True
    assert put.blob.sha256 == hashlib.sha256(data).digest()
    assert (put.blob.content_type, put.blob.metadata) == ("text/plain", {"who": "mé", "empty": ""})
    assert alike(blobs.stat("a/blob"), put.blob)
    assert read(blobs, "a/blob") == data


def test_a_missing_blob_is_not_found(blobs: Blobs) -> None:
    with refused("BLOB_NOT_FOUND"):
        read(blobs, "missing")
    with refused("BLOB_NOT_FOUND"):
        blobs.stat("missing")
    assert blobs.delete("missing") is False


def test_nul_bytes_come_back(blobs: Blobs) -> None:
    blobs.put("k", b"\0a\0\0b\n\r\0")
    assert read(blobs, "k") == b"\0a\0\0b\n\r\0"


def test_an_overwrite_wins(blobs: Blobs) -> None:
    first = blobs.put("k", b"first, and longer").blob
    second = blobs.put("k", b"second").blob
    assert read(blobs, "k") == b"second"
    assert first.etag != second.etag


def test_create_only_and_if_match(blobs: Blobs, backend: str) -> None:
    # MinIO ignores the condition of a deletion, so we do not pretend to keep it.
    deletion_refused = "CONDITION_UNSUPPORTED" if backend == "minio" else "PRECONDITION_FAILED"
    first = blobs.put("k", b"1", create_only=True).blob
    with refused("ALREADY_EXISTS"):
        blobs.put("k", b"2", create_only=True)
    second = blobs.put("k", b"2", if_match_etag=first.etag).blob
    with refused("PRECONDITION_FAILED"):
        blobs.put("k", b"3", if_match_etag=first.etag)
    with refused(deletion_refused):
        blobs.delete("k", if_match_etag=first.etag)
    with refused("PRECONDITION_FAILED"):
        blobs.get("k", if_match_etag=first.etag)
    assert read(blobs, "k") == b"2"
    if backend == "minio":
        blobs.delete("k")
    else:
        assert blobs.delete("k", if_match_etag=second.etag) is True
    with refused(deletion_refused):
        blobs.delete("k", if_match_etag=second.etag)
    with refused("PRECONDITION_FAILED"):
        blobs.put("k", b"4", if_match_etag=second.etag)
    with refused("BLOB_NOT_FOUND"):
        blobs.get("k", if_match_etag=second.etag)


def test_eight_create_only_writers_have_one_winner(blobs: Blobs) -> None:
    def write(number: int) -> bool:
        try:
            blobs.put("one", b"%d" % number, create_only=True)
        except (holdfast_server.errors.AlreadyExists, holdfast.AlreadyExists):
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(8)))
    assert won.count(True) == 1
    assert read(blobs, "one") == b"%d" % won.index(True)


def test_ten_concurrent_puts_and_gets_do_not_mix(blobs: Blobs) -> None:
    def work(number: int) -> bool:
        data = sample(MIB + number, seed=number)
        blobs.put(f"many/{number}", data)
        return read(blobs, f"many/{number}") == data

    with ThreadPoolExecutor(10) as pool:
        assert all(pool.map(work, range(10)))
    assert len(keys(blobs, "many/")) == 10


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"offset": 10}, b"abcdefghij"),
        ({"offset": 10, "length": 10}, b"abcdefghij"),
        ({"length": 5}, b"01234"),
        ({"offset": 19, "length": 1}, b"j"),
        ({"offset": 19, "length": 9}, b"j"),
        ({"suffix_length": 3}, b"hij"),
        ({"suffix_length": 99}, b"0123456789abcdefghij"),
        ({"length": 20, "exact": True}, b"0123456789abcdefghij"),
    ],
)
def test_ranges(blobs: Blobs, wanted: dict[str, int], expected: bytes) -> None:
    blobs.put("k", b"0123456789abcdefghij")
    with blobs.get("k", **wanted) as reader:  # type: ignore[arg-type]
        assert reader.read() == expected
        assert reader.info.size_bytes == 20
        assert reader.range.length == len(expected)


@pytest.mark.parametrize(
    "wanted", [{"offset": 20}, {"offset": 21, "length": 1}, {"offset": 19, "length": 2, "exact": True}]
)
def test_a_range_outside_is_refused(blobs: Blobs, wanted: dict[str, int]) -> None:
    blobs.put("k", b"0123456789abcdefghij")
    with refused("RANGE_NOT_SATISFIABLE"):
        read(blobs, "k", **wanted)


@pytest.mark.parametrize("wanted", [{"offset": -1}, {"length": 0}, {"length": -1}, {"suffix_length": 0}])
def test_a_range_that_cannot_be_is_refused(blobs: Blobs, wanted: dict[str, int]) -> None:
    blobs.put("k", b"data")
    with refused("INVALID_RANGE"):
        read(blobs, "k", **wanted)


def test_an_empty_blob_has_all_its_ranges(blobs: Blobs) -> None:
    blobs.put("empty", b"")
    assert read(blobs, "empty") == b""
    assert read(blobs, "empty", length=5) == b""
    assert read(blobs, "empty", suffix_length=5) == b""
    with refused("RANGE_NOT_SATISFIABLE"):
        read(blobs, "empty", offset=1)


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (Content("artifacts/", ".wasm"), f"artifacts/{SHA256.hex()}.wasm"),
        (
            Content("", "", Layout.BASE32_MULTIHASH),
            "ciqlstjhxgju2pqiuuxffv62pwv7vree57rxuu4a52iir55m4lx432i",
        ),
        (Content("", "", Layout.FLATFS), "32/ciqlstjhxgju2pqiuuxffv62pwv7vree57rxuu4a52iir55m4lx432i.data"),
    ],
)
@pytest.mark.parametrize("known", [False, True])
def test_a_content_address_is_stored_once(blobs: Blobs, content: Content, key: str, known: bool) -> None:
    full = Content(content.prefix, content.suffix, content.layout, SHA256)
    address = full if known else content
    first = blobs.put(address, DATA)
    again = blobs.put(address, DATA)
    assert (first.blob.key, first.created, again.created) == (key, True, False)
    assert alike(again.blob, first.blob)
    assert read(blobs, full) == read(blobs, key) == DATA
    assert blobs.delete(full) is True
    assert keys(blobs) == []


def test_wrong_bytes_for_a_content_address_store_nothing(blobs: Blobs) -> None:
    with refused("CHECKSUM_MISMATCH"):
        blobs.put(Content(sha256=bytes(32)), DATA)
    assert keys(blobs) == []


def test_other_bytes_under_a_content_address_are_a_conflict(blobs: Blobs) -> None:
    blobs.put(SHA256.hex(), b"not those")
    with refused("CONTENT_CONFLICT"):
        blobs.put(Content(), DATA)
    assert read(blobs, SHA256.hex()) == b"not those"


def test_a_content_address_without_digest_can_only_be_put(blobs: Blobs) -> None:
    for call in (blobs.get, blobs.stat, blobs.delete):
        with refused("INVALID_DIGEST"):
            call(Content("a/"))


def test_if_match_on_a_content_address_is_refused(blobs: Blobs) -> None:
    with refused("INVALID_CONDITION"):
        blobs.put(Content(), DATA, if_match_etag="x")


BAD_KEYS = ["", "/a", "a/", "a//b", ".", "..", "a/./b", "../x", "a/x/../b", "a\0b", "a\nb", "x" * 201, "a/" * 450 + "b"]
RESERVED_KEYS = ["snapshots/a", "hibernated/a", "chunks/a/b", "blocks/x", "holdfast/store", "snapshots"]


@pytest.mark.parametrize("key", [*BAD_KEYS, *RESERVED_KEYS])
def test_a_key_that_breaks_the_rules_is_refused_by_every_method(blobs: Blobs, key: str) -> None:
    with refused("INVALID_KEY"):
        blobs.put(key, b"x")
    for call in (blobs.get, blobs.stat, blobs.delete):
        with refused("INVALID_KEY"):
            call(key)
    assert keys(blobs) == []


@pytest.mark.parametrize("key", ["a b", ".hidden", "...", "ünï/ключ/鍵", "🎲", "a\\..\\b", "%2e%2e/x", "x" * 200])
def test_odd_keys_are_keys(blobs: Blobs, backend: str, key: str) -> None:
    if backend == "minio" and "\\" in key:
        # MinIO takes a backslash for a slash, and refuses what would climb.
        with refused("INVALID_KEY"):
            blobs.put(key, b"")
        with refused("INVALID_KEY"):
            blobs.stat(key)
        assert keys(blobs) == []
        return
    blobs.put(key, key.encode())
    assert keys(blobs) == [key]
    assert read(blobs, key) == key.encode()


def test_a_key_and_keys_below_it_live_side_by_side(blobs: Blobs, backend: str) -> None:
    for key in ("s/a", "s/a/x"):
        blobs.put(key, key.encode())
    # MinIO hides what is below a key from lists, and nested_keys of the server's info says so.
    assert keys(blobs) == (["s/a"] if backend == "minio" else ["s/a", "s/a/x"])
    blobs.delete("s/a")
    assert read(blobs, "s/a/x") == b"s/a/x"


def test_lists_are_in_byte_order_and_by_string_prefix(blobs: Blobs) -> None:
    for key in ("b", "a/2", "a/1", "a!", "ab", "é", "a#"):
        blobs.put(key, b"")
    assert keys(blobs) == ["a!", "a#", "a/1", "a/2", "ab", "b", "é"]
    assert keys(blobs, "a/") == ["a/1", "a/2"]
    assert [item.key for item in blobs.list(start_after="a/1") if isinstance(item, BlobEntry)] == [
        "a/2",
        "ab",
        "b",
        "é",
    ]


def test_ten_keys_come_in_order_at_three_a_page(blobs: Blobs) -> None:
    for number in reversed(range(10)):
        blobs.put(f"page/{number}", b"")
    assert [item.key for item in blobs.list(page_size=3) if isinstance(item, BlobEntry)] == [
        f"page/{number}" for number in range(10)
    ]


def test_a_delimiter_rolls_keys_up(blobs: Blobs) -> None:
    for key in ("a", "b/1", "b/2", "c/d/e", "z"):
        blobs.put(key, b"")
    items = [item.prefix if isinstance(item, CommonPrefix) else item.key for item in blobs.list("", "/", page_size=2)]
    assert items == ["a", "b/", "c/", "z"]


def test_entries_say_what_stat_says(blobs: Blobs) -> None:
    blobs.put("k", DATA)
    info = blobs.stat("k")
    (entry,) = blobs.list()
    assert entry == BlobEntry("k", 11, info.etag, info.update_time)


@pytest.mark.parametrize("metadata", [{"UPPER": "x"}, {"": "x"}, {"a_b": "x"}, {"a" * 65: ""}, {"k": "x" * 1024}])
def test_metadata_that_breaks_the_rules_is_refused(blobs: Blobs, metadata: dict[str, str]) -> None:
    with refused("INVALID_METADATA"):
        blobs.put("k", b"", metadata=metadata)


@pytest.mark.parametrize("content_type", ["a\nb", "é", "x" * 256, " a/b", "a/b "])
def test_a_content_type_that_breaks_the_rules_is_refused(blobs: Blobs, content_type: str) -> None:
    with refused("INVALID_CONTENT_TYPE"):
        blobs.put("k", b"", content_type=content_type)
