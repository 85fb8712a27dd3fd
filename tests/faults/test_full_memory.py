"""The memory backend at its cap: what does not fit leaves nothing, and what is gone counts no more."""

from collections.abc import Callable, Iterator

import pytest

from holdfast_server.errors import BrokenUpload, Cancelled, Reason, StorageFull
from holdfast_server.objects.base import ListQuery, NamedByContent
from holdfast_server.objects.body import Body, Chunk, Declared
from holdfast_server.objects.conditions import CreateOnly, IfMatch, ObjectExists
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.memory import OBJECT_OVERHEAD_BYTES, MemoryStore
from tests.support.disk_operations import content
from tests.support.samples import MIB, sample

CAP = 3 * MIB
KEY = ObjectKey("a/key")
KEY_OVERHEAD_BYTES = OBJECT_OVERHEAD_BYTES + 4 * len(KEY.text)
OTHER = ObjectKey("another/key")
DATA = sample(2 * MIB + 1)


@pytest.fixture
def store() -> MemoryStore:
    """A store with room for one object of `DATA`, and not for two."""
    return MemoryStore(CAP)


def names(store: MemoryStore) -> list[str]:
    return [item.name for item in store.list(ListQuery())]


def interrupted(error: Exception) -> Body:
    def parts() -> Iterator[Chunk]:
        yield Chunk(DATA)
        raise error

    return Body(parts(), Declared(2 * len(DATA)))


def test_an_object_just_as_large_as_the_cap_fits(store: MemoryStore) -> None:
    largest = sample(CAP - KEY_OVERHEAD_BYTES)
    store.put(KEY, Body.of(largest))
    assert content(store, KEY) == largest
    assert store._used_bytes == CAP


def test_an_object_a_byte_larger_is_refused_and_leaves_nothing(store: MemoryStore) -> None:
    with pytest.raises(StorageFull) as refused:
        store.put(KEY, Body.of(sample(CAP - KEY_OVERHEAD_BYTES + 1)))
    assert refused.value.reason is Reason.STORAGE_FULL
    assert names(store) == []
    assert store._used_bytes == 0


def test_even_empty_objects_fill_the_store(store: MemoryStore) -> None:
    def fill() -> None:
        for number in range(CAP // OBJECT_OVERHEAD_BYTES + 1):
            store.put(ObjectKey(str(number)), Body.of(b""))

    with pytest.raises(StorageFull):
        fill()
    assert len(names(store)) > CAP // OBJECT_OVERHEAD_BYTES * 0.9


def test_a_copy_that_does_not_fit_leaves_nothing(store: MemoryStore) -> None:
    store.put(KEY, Body.of(DATA))
    used = store._used_bytes
    with pytest.raises(StorageFull):
        store.copy(KEY, OTHER)
    assert names(store) == [KEY.text]
    assert store._used_bytes == used


def test_an_overwrite_that_does_not_fit_beside_the_old_object_leaves_that(store: MemoryStore) -> None:
    store.put(KEY, Body.of(DATA))
    used = store._used_bytes
    with pytest.raises(StorageFull):
        store.put(KEY, Body.of(sample(len(DATA), seed=1)))
    assert content(store, KEY) == DATA
    assert store._used_bytes == used


def test_room_is_usable_again_after_a_delete(store: MemoryStore) -> None:
    for _ in range(3):
        store.put(KEY, Body.of(DATA))
        with pytest.raises(StorageFull):
            store.put(OTHER, Body.of(DATA))
        assert store.delete(KEY)
    assert store._used_bytes == 0


def broken_off(store: MemoryStore) -> None:
    with pytest.raises(Cancelled):
        store.put(KEY, interrupted(Cancelled()))


def short(store: MemoryStore) -> None:
    with pytest.raises(BrokenUpload):
        store.put(KEY, Body([Chunk(DATA)], Declared(len(DATA) + 1)))


def too_large(store: MemoryStore) -> None:
    with pytest.raises(StorageFull):
        store.put(KEY, Body.of(DATA + DATA))


def named_badly(store: MemoryStore) -> None:
    def no_name(_sha256: bytes) -> ObjectKey:
        raise ValueError("no such name")

    with pytest.raises(ValueError, match="no such name"):
        store.put(NamedByContent(no_name), Body.of(DATA))


def lost_to_another(store: MemoryStore) -> None:
    def another_wins() -> Iterator[Chunk]:
        yield Chunk(b"mine")
        store.put(KEY, Body.of(b"another's"))

    with pytest.raises(ObjectExists):
        store.put(KEY, Body(another_wins(), Declared(4)), condition=CreateOnly())
    store.delete(KEY)


def replaced_in_between(store: MemoryStore) -> None:
    def another_wins() -> Iterator[Chunk]:
        yield Chunk(b"mine")
        store.put(KEY, Body.of(b"another's"))

    etag = store.put(KEY, Body.of(b"first")).etag
    with pytest.raises(Exception, match="etag"):
        store.put(KEY, Body(another_wins(), Declared(4)), condition=IfMatch(etag))
    store.delete(KEY)


@pytest.mark.parametrize("fail", [broken_off, short, too_large, named_badly, lost_to_another, replaced_in_between])
def test_failed_puts_do_not_use_room_up(store: MemoryStore, fail: Callable[[MemoryStore], None]) -> None:
    for _ in range(3):
        fail(store)
        assert names(store) == []
        assert store._used_bytes == 0
    store.put(KEY, Body.of(DATA))
    assert content(store, KEY) == DATA
