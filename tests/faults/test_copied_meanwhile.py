"""A source that is replaced while it is copied to a content address: other bytes never get there."""

import hashlib
from typing import Any

import pytest

from holdfast_server.blobs.address import BlobKey, ContentAddress
from holdfast_server.blobs.store import BlobStore
from holdfast_server.errors import ConcurrentModification, NotFound
from holdfast_server.objects.base import ListQuery
from holdfast_server.objects.body import Body
from holdfast_server.objects.info import ObjectInfo
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.memory import MemoryStore

SOURCE = BlobKey("source")
TARGET = ContentAddress("content/")


class Busy(MemoryStore):
    """Somebody replaces the source (None: deletes it) just before each of the next copies."""

    def __init__(self, *replacements: bytes | None) -> None:
        super().__init__()
        self.put(SOURCE.object_key, Body.of(b"first"))
        self._replacements = list(replacements)

    def copy(self, source: ObjectKey, target: ObjectKey, **options: Any) -> ObjectInfo:
        if self._replacements:
            data = self._replacements.pop(0)
            if data is None:
                self.delete(SOURCE.object_key)
            else:
                self.put(SOURCE.object_key, Body.of(data))
        return super().copy(source, target, **options)

    @property
    def contents(self) -> list[str]:
        return [entry.name for entry in self.list(ListQuery("content/"))]


def address(data: bytes) -> str:
    return f"content/{hashlib.sha256(data).hexdigest()}"


def test_a_source_that_is_replaced_once_is_copied_as_it_is_then() -> None:
    objects = Busy(b"second")
    put = BlobStore(objects).copy(SOURCE, TARGET)
    assert put.blob.sha256 == hashlib.sha256(b"second").digest()
    assert objects.contents == [address(b"second")]


def test_a_source_that_is_always_replaced_is_given_up_and_nothing_is_stored() -> None:
    objects = Busy(*(b"%d" % number for number in range(100)))
    with pytest.raises(ConcurrentModification):
        BlobStore(objects).copy(SOURCE, TARGET)
    assert objects.contents == []


def test_a_source_that_is_deleted_meanwhile_is_not_found() -> None:
    objects = Busy(None)
    with pytest.raises(NotFound):
        BlobStore(objects).copy(SOURCE, TARGET)
    assert objects.contents == []


def test_a_content_address_as_source_is_never_copied_as_other_bytes() -> None:
    objects = Busy()
    store = BlobStore(objects)
    source = ContentAddress("content/", sha256=hashlib.sha256(b"first").digest())
    store.copy(SOURCE, TARGET)

    class Replacing(Busy):
        def copy(self, source: ObjectKey, target: ObjectKey, **options: Any) -> ObjectInfo:
            self.put(source, Body.of(b"other"))
            return super().copy(source, target, **options)

    replacing = Replacing()
    replacing.put(source.key.object_key, Body.of(b"first"))
    with pytest.raises(Exception, match="other bytes stand under this content address"):
        BlobStore(replacing).copy(source, BlobKey("copy"))
    assert [entry.name for entry in replacing.list(ListQuery("copy"))] == []
