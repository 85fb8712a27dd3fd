"""What FindMissingBlobs and the batches promise, on the store itself and over gRPC, on every backend.

Over gRPC it is the client's helpers, which cut into requests; the limits of one request are `test_batches_wire.py`'s.
"""

import hashlib
from collections.abc import Iterable

import pytest

import holdfast
from holdfast import Blob, Content, Layout, NewBlob, PutResult
from holdfast_server.errors import HoldfastError
from tests.support.any_blobs import Blobs, keys, read
from tests.support.infos import alike

DATA = b"hello world"
SHA256 = hashlib.sha256(DATA).digest()
OTHER = hashlib.sha256(b"other").digest()

BAD_KEYS = ["", "/a", "a//b", "a/../b", "chunks/x", "a\nb", "x" * 201]


def outcomes(results: Iterable[object]) -> list[object]:
    """The reason in place of each error."""
    return [
        result.reason if isinstance(result, HoldfastError | holdfast.HoldfastError) else result for result in results
    ]


def test_a_batch_stores_and_gets_blobs_by_position(blobs: Blobs) -> None:
    new = [
        NewBlob("b/1", DATA, "text/plain", {"who": "mé"}),
        NewBlob("b/empty", b""),
        NewBlob(Content("c/"), DATA),
        NewBlob("b/nul", b"\0\0\n"),
    ]
    put = list(blobs.put_many(new))
    infos = [result.blob for result in put if isinstance(result, PutResult)]
    assert [info.key for info in infos] == ["b/1", "b/empty", f"c/{SHA256.hex()}", "b/nul"]
    assert (infos[0].content_type, infos[0].metadata) == ("text/plain", {"who": "mé"})
    got = list(blobs.get_many(["b/nul", "b/1", Content("c/", sha256=SHA256), "b/empty", "b/1"]))
    assert all(isinstance(one, Blob) for one in got)
    assert [one.data for one in got if isinstance(one, Blob)] == [b"\0\0\n", DATA, DATA, b"", DATA]
    assert all(alike(one.info, blobs.stat(one.info.key)) for one in got if isinstance(one, Blob))
    assert keys(blobs) == ["b/1", "b/empty", "b/nul", f"c/{SHA256.hex()}"]


def test_nothing_is_a_batch_too(blobs: Blobs) -> None:
    assert list(blobs.get_many([])) == list(blobs.put_many([])) == list(blobs.delete_many([])) == []
    assert list(blobs.find_missing([])) == []


@pytest.mark.parametrize("bad", BAD_KEYS)
def test_a_bad_item_fails_its_position_and_not_the_others(blobs: Blobs, bad: str) -> None:
    assert outcomes(blobs.put_many([NewBlob("a", b"1"), NewBlob(bad, b"2"), NewBlob("z", b"3")]))[1] == "INVALID_KEY"
    assert keys(blobs) == ["a", "z"]
    got = outcomes(blobs.get_many(["a", bad, "z"]))
    assert [one.data if isinstance(one, Blob) else one for one in got] == [b"1", "INVALID_KEY", b"3"]
    assert outcomes(blobs.find_missing(["a", bad, "m"])) == [False, "INVALID_KEY", True]
    assert outcomes(blobs.delete_many(["a", bad, "z", "m"])) == [True, "INVALID_KEY", True, False]
    assert keys(blobs) == []


def test_a_missing_blob_fails_its_position(blobs: Blobs) -> None:
    blobs.put("a", DATA)
    got = outcomes(blobs.get_many(["m", "a", Content(sha256=OTHER)]))
    assert (got[0], got[2]) == ("BLOB_NOT_FOUND", "BLOB_NOT_FOUND")
    assert isinstance(got[1], Blob)


def test_metadata_of_one_item_does_not_fail_another(blobs: Blobs) -> None:
    put = outcomes(
        blobs.put_many([NewBlob("a", b"", metadata={"UPPER": ""}), NewBlob("b", b"", "a\nb"), NewBlob("c", b"")])
    )
    assert put[:2] == ["INVALID_METADATA", "INVALID_CONTENT_TYPE"]
    assert keys(blobs) == ["c"]


def test_conditions_hold_item_by_item(blobs: Blobs) -> None:
    first = blobs.put("a", b"1").blob
    put = outcomes(
        blobs.put_many(
            [
                NewBlob("a", b"2", create_only=True),
                NewBlob("b", b"2", create_only=True),
                NewBlob("c", b"2", if_match_etag=first.etag),
            ]
        )
    )
    assert (put[0], put[2]) == ("ALREADY_EXISTS", "PRECONDITION_FAILED")
    assert read(blobs, "a") == b"1"
    assert read(blobs, "b") == b"2"
    assert isinstance(outcomes(blobs.put_many([NewBlob("a", b"3", if_match_etag=first.etag)]))[0], PutResult)
    assert read(blobs, "a") == b"3"


def test_a_conflict_tells_what_is_there(blobs: Blobs) -> None:
    there = blobs.put("a", DATA).blob
    [error] = blobs.put_many([NewBlob("a", b"2", create_only=True)])
    assert isinstance(error, HoldfastError | holdfast.HoldfastError)
    assert error.details == {"key": "a", "etag": there.etag, "sha256": SHA256.hex()}


def test_a_content_address_is_stored_once_in_a_batch(blobs: Blobs) -> None:
    put = list(blobs.put_many([NewBlob(Content("c/"), DATA)])) + list(blobs.put_many([NewBlob(Content("c/"), DATA)]))
    assert [one.created for one in put if isinstance(one, PutResult)] == [True, False]
    blobs.put(OTHER.hex(), DATA)
    assert outcomes(blobs.put_many([NewBlob(Content(), b"other")])) == ["CONTENT_CONFLICT"]
    assert outcomes(blobs.get_many([Content(sha256=OTHER)])) == ["INTEGRITY_FAILED"]
    assert outcomes(blobs.delete_many([Content(sha256=OTHER), Content()])) == ["INTEGRITY_FAILED", "INVALID_DIGEST"]


def test_missing_keys_are_found(blobs: Blobs) -> None:
    for key in ("a", "b/c", "é"):
        blobs.put(key, DATA)
    wanted = ["a", "b", "b/c", "b/c/d", "é", "z"]
    assert list(blobs.find_missing(wanted)) == [False, True, False, True, False, True]


def test_a_key_with_other_bytes_is_missing_where_the_digest_is_given(blobs: Blobs) -> None:
    blobs.put("a", DATA)
    found = blobs.find_missing(["a", "a", "a", "m"], [SHA256, OTHER, None, None])
    assert list(found) == [False, True, False, True]


@pytest.mark.parametrize("layout", Layout)
def test_missing_contents_are_found(blobs: Blobs, layout: Layout) -> None:
    blobs.put(Content("c/", layout=layout), DATA)
    wanted = [Content("c/", layout=layout, sha256=sha256) for sha256 in (SHA256, OTHER)]
    assert list(blobs.find_missing(wanted)) == [False, True]
    assert list(blobs.find_missing([Content("d/", layout=layout, sha256=SHA256)])) == [True]


def test_keys_and_contents_of_several_prefixes_are_found_in_order(blobs: Blobs) -> None:
    blobs.put("a", DATA)
    blobs.put(Content("c/", ".txt"), DATA)
    wanted: list[str | Content] = ["a", Content("c/", ".txt", sha256=SHA256), Content("d/", sha256=SHA256), "m", "a"]
    assert list(blobs.find_missing(wanted)) == [False, False, True, True, False]


def test_other_bytes_under_a_content_address_are_neither_there_nor_missing(blobs: Blobs) -> None:
    blobs.put(OTHER.hex(), DATA)
    assert outcomes(blobs.find_missing([Content(sha256=OTHER), Content(sha256=SHA256)])) == ["INTEGRITY_FAILED", True]


def test_a_deletion_of_many_tells_which_were_there(blobs: Blobs) -> None:
    blobs.put("a", b"")
    blobs.put(Content("c/"), DATA)
    wanted: list[str | Content] = ["m", "a", Content("c/", sha256=SHA256), Content("d/", sha256=SHA256)]
    assert list(blobs.delete_many(wanted)) == [False, True, True, False]
    assert keys(blobs) == []


def test_three_hundred_small_blobs_go_and_come(blobs: Blobs) -> None:
    new = [NewBlob(f"many/{number:03}", b"%d" % number * 50) for number in range(300)]
    assert all(isinstance(one, PutResult) for one in blobs.put_many(new))
    got = list(blobs.get_many([f"many/{number:03}" for number in range(300)]))
    assert [one.data for one in got if isinstance(one, Blob)] == [one.data for one in new]
    assert list(blobs.delete_many([f"many/{number:03}" for number in range(300)])) == [True] * 300
