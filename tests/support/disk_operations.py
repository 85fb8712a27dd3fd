"""What a store is asked to do while its disk fails."""

from collections.abc import Callable
from dataclasses import dataclass

from holdfast_server.objects.base import WHOLE, ListQuery, NamedByContent, ObjectNotFound, ObjectStore
from holdfast_server.objects.body import Body
from holdfast_server.objects.conditions import CreateOnly, IfMatch, ObjectExists
from holdfast_server.objects.info import Attributes
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.ranges import ByteRange, Range
from tests.support.samples import MIB, sample

KEY = ObjectKey("some/where/object")
SOURCE = ObjectKey("source")
OLD = sample(1000, seed=1)
NEW = sample(2 * MIB + 1, seed=2)
"""Three pieces, so that a thread does the hashing."""
COPIED = sample(2000, seed=3)
TWO_PIECES = sample(MIB + 1, seed=4)

_LONG_RECORD = Attributes(metadata={"note": "x" * 1000})
"""Makes a record too long for the one read that does for most."""


@dataclass(frozen=True)
class Operation:
    """Something done to a store in which KEY holds `before`; done without a failure KEY holds `after`."""

    run: Callable[[ObjectStore], object]
    answer: object
    before: bytes | None = OLD
    after: bytes | None = OLD
    writes: bool = True

    def prepare(self, store: ObjectStore) -> None:
        """Put what the operation finds."""
        store.put(SOURCE, Body.of(COPIED), attributes=_LONG_RECORD)
        if self.before is not None:
            store.put(KEY, Body.of(self.before), attributes=_LONG_RECORD)


def read(store: ObjectStore, key: ObjectKey, wanted: Range = WHOLE) -> bytes:
    """Return an object's bytes, or a range of them."""
    with store.get(key, wanted) as reader:
        return b"".join(chunk.data for chunk in reader)


def content(store: ObjectStore, key: ObjectKey) -> bytes | None:
    """Return an object's bytes; None if there is no object."""
    try:
        return read(store, key)
    except ObjectNotFound:
        return None


def _put(store: ObjectStore) -> bytes:
    return store.put(KEY, Body.of(NEW)).sha256


def _put_if_free(store: ObjectStore) -> bytes:
    return store.put(KEY, Body.of(NEW), condition=CreateOnly()).sha256


def _put_if_match(store: ObjectStore) -> bytes:
    return store.put(KEY, Body.of(NEW), condition=IfMatch(store.stat(KEY).etag)).sha256


def _put_by_content(store: ObjectStore) -> bytes:
    try:
        return store.put(NamedByContent(lambda _: KEY), Body.of(NEW), condition=CreateOnly()).sha256
    except ObjectExists as found:
        return found.existing.sha256


def _copy(store: ObjectStore) -> int:
    return store.copy(SOURCE, KEY).size_bytes


def _delete(store: ObjectStore) -> bool:
    return store.delete(KEY)


def _delete_if_match(store: ObjectStore) -> bool:
    return store.delete(KEY, condition=IfMatch(store.stat(KEY).etag))


def _stat(store: ObjectStore) -> int:
    return store.stat(KEY).size_bytes


def _get(store: ObjectStore) -> bytes:
    return read(store, KEY)


def _get_range(store: ObjectStore) -> bytes:
    return read(store, KEY, ByteRange(MIB - 5, 100))


def _list(store: ObjectStore) -> list[str]:
    return [item.name for item in store.list(ListQuery())]


def _list_with_delimiter(store: ObjectStore) -> list[str]:
    return [item.name for item in store.list(ListQuery(delimiter=True))]


_NEW_SHA256 = Body.of(NEW).read_to_end().sha256

OPERATIONS = {
    "put that creates": Operation(_put, _NEW_SHA256, None, NEW),
    "put that overwrites": Operation(_put, _NEW_SHA256, OLD, NEW),
    "put that only creates": Operation(_put_if_free, _NEW_SHA256, None, NEW),
    "put if match": Operation(_put_if_match, _NEW_SHA256, OLD, NEW),
    "put named by content": Operation(_put_by_content, _NEW_SHA256, None, NEW),
    "put named by content that is there": Operation(_put_by_content, _NEW_SHA256, NEW, NEW),
    "copy that creates": Operation(_copy, len(COPIED), None, COPIED),
    "copy that overwrites": Operation(_copy, len(COPIED), OLD, COPIED),
    "delete": Operation(_delete, answer=True, after=None),
    "delete if match": Operation(_delete_if_match, answer=True, after=None),
    "delete of nothing": Operation(_delete, answer=False, before=None, after=None),
    "get": Operation(_get, OLD, writes=False),
    "ranged get": Operation(_get_range, TWO_PIECES[-6:], TWO_PIECES, TWO_PIECES, writes=False),
    "stat": Operation(_stat, len(OLD), writes=False),
    "list": Operation(_list, [KEY.text, SOURCE.text], writes=False),
    "list with delimiter": Operation(_list_with_delimiter, ["some/", SOURCE.text], writes=False),
}
"""By what they are called in the names of tests."""
