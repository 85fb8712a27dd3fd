"""What CopyBlob promises, on the store itself and over gRPC, on every backend."""

import hashlib

import pytest

from holdfast import Attributes, Content, Layout
from tests.support.any_blobs import Blobs, keys, read
from tests.support.direct_blobs import refused
from tests.support.infos import alike
from tests.support.samples import MIB, sample

DATA = b"hello world"
SHA256 = hashlib.sha256(DATA).digest()


@pytest.mark.parametrize("size", [0, 11, 6 * MIB + 5])
def test_a_copy_has_the_bytes_and_the_attributes_of_its_source(blobs: Blobs, size: int) -> None:
    data = sample(size)
    source = blobs.put("from/a", data, content_type="text/plain", metadata={"who": "mé"}).blob
    copy = blobs.copy("from/a", "to/b")
    assert copy.created is True
    assert (copy.blob.key, copy.blob.size_bytes, copy.blob.sha256) == ("to/b", size, source.sha256)
    assert (copy.blob.content_type, copy.blob.metadata) == ("text/plain", {"who": "mé"})
    assert alike(blobs.stat("to/b"), copy.blob)
    assert read(blobs, "to/b") == read(blobs, "from/a") == data


def test_a_copy_is_a_blob_of_its_own(blobs: Blobs) -> None:
    blobs.put("a", b"1")
    blobs.copy("a", "b")
    blobs.put("a", b"2")
    assert read(blobs, "b") == b"1"
    blobs.delete("a")
    assert read(blobs, "b") == b"1"


def test_new_attributes_replace_all_of_the_old(blobs: Blobs) -> None:
    blobs.put("a", DATA, content_type="text/plain", metadata={"old": "1"})
    copy = blobs.copy("a", "b", attributes=Attributes(metadata={"new": "2"})).blob
    assert (copy.content_type, copy.metadata) == ("", {"new": "2"})
    assert (blobs.stat("b").content_type, blobs.stat("b").metadata) == ("", {"new": "2"})
    assert blobs.stat("a").metadata == {"old": "1"}


def test_a_copy_onto_itself_changes_the_attributes_only(blobs: Blobs) -> None:
    blobs.put("a", DATA, metadata={"old": "1"})
    blobs.copy("a", "a", attributes=Attributes("text/x"))
    assert (blobs.stat("a").content_type, blobs.stat("a").metadata) == ("text/x", {})
    assert read(blobs, "a") == DATA


def test_a_missing_source_is_not_found(blobs: Blobs) -> None:
    blobs.put("b", b"stays")
    with refused("BLOB_NOT_FOUND"):
        blobs.copy("a", "b")
    with refused("BLOB_NOT_FOUND"):
        blobs.copy("a", Content())
    assert read(blobs, "b") == b"stays"


def test_conditions_are_on_the_target(blobs: Blobs) -> None:
    blobs.put("a", DATA)
    taken = blobs.put("b", b"taken").blob
    with refused("ALREADY_EXISTS"):
        blobs.copy("a", "b", create_only=True)
    with refused("PRECONDITION_FAILED"):
        blobs.copy("a", "b", if_match_etag="another")
    with refused("PRECONDITION_FAILED"):
        blobs.copy("a", "missing", if_match_etag=taken.etag)
    assert read(blobs, "b") == b"taken"
    blobs.copy("a", "b", if_match_etag=taken.etag)
    blobs.copy("a", "c", create_only=True)
    assert read(blobs, "b") == read(blobs, "c") == DATA


def test_the_source_can_be_pinned_by_its_etag(blobs: Blobs) -> None:
    old = blobs.put("a", b"old").blob
    new = blobs.put("a", b"new").blob
    with refused("PRECONDITION_FAILED"):
        blobs.copy("a", "b", source_if_match_etag=old.etag)
    with refused("PRECONDITION_FAILED"):
        blobs.copy("a", Content(), source_if_match_etag=old.etag)
    assert keys(blobs) == ["a"]
    blobs.copy("a", "b", source_if_match_etag=new.etag)
    assert read(blobs, "b") == b"new"


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("layout", Layout)
def test_a_copy_to_a_content_address_is_stored_once(blobs: Blobs, layout: Layout, known: bool) -> None:
    blobs.put("a", DATA, metadata={"n": "1"})
    full = Content("content/", layout=layout, sha256=SHA256)
    target = full if known else Content("content/", layout=layout)
    first = blobs.copy("a", target)
    again = blobs.copy("a", target)
    assert (first.created, again.created) == (True, False)
    assert alike(again.blob, first.blob)
    assert read(blobs, full) == DATA
    assert blobs.stat(full).metadata == {"n": "1"}


def test_a_copy_to_the_content_address_of_other_bytes_is_refused(blobs: Blobs) -> None:
    blobs.put("a", DATA)
    with refused("INVALID_DIGEST"):
        blobs.copy("a", Content(sha256=hashlib.sha256(b"other").digest()))
    assert keys(blobs) == ["a"]


def test_other_bytes_under_the_content_address_are_a_conflict(blobs: Blobs) -> None:
    blobs.put("a", DATA)
    blobs.put(SHA256.hex(), b"not those")
    with refused("CONTENT_CONFLICT"):
        blobs.copy("a", Content())
    assert read(blobs, SHA256.hex()) == b"not those"


def test_a_content_address_as_source_is_never_other_bytes(blobs: Blobs) -> None:
    blobs.put(SHA256.hex(), b"not those")
    with refused("INTEGRITY_FAILED"):
        blobs.copy(Content(sha256=SHA256), "b")
    with refused("INVALID_DIGEST"):
        blobs.copy(Content(), "b")
    blobs.put(SHA256.hex(), DATA)
    blobs.copy(Content(sha256=SHA256), "b")
    assert read(blobs, "b") == DATA


def test_if_match_on_a_content_address_is_refused(blobs: Blobs) -> None:
    blobs.put("a", DATA)
    with refused("INVALID_CONDITION"):
        blobs.copy("a", Content(), if_match_etag="x")


@pytest.mark.parametrize("key", ["", "/a", "a/../b", "chunks/x", "a\nb"])
def test_a_key_that_breaks_the_rules_is_refused_as_source_and_target(blobs: Blobs, key: str) -> None:
    blobs.put("a", DATA)
    with refused("INVALID_KEY"):
        blobs.copy("a", key)
    with refused("INVALID_KEY"):
        blobs.copy(key, "b")
    assert keys(blobs) == ["a"]


def test_attributes_that_break_the_rules_are_refused(blobs: Blobs) -> None:
    blobs.put("a", DATA)
    with refused("INVALID_METADATA"):
        blobs.copy("a", "b", attributes=Attributes(metadata={"UPPER": "x"}))
    with refused("INVALID_CONTENT_TYPE"):
        blobs.copy("a", "b", attributes=Attributes("a\nb"))
    assert keys(blobs) == ["a"]
