"""What a store in a bucket is asked to do while its requests fail: small objects, and such as go in parts."""

import hashlib
from dataclasses import dataclass

from holdfast_server.objects.base import OVERWRITE, ListQuery, NamedByContent, ObjectStore
from holdfast_server.objects.body import Body, Chunk, Declared
from holdfast_server.objects.conditions import Condition, CreateOnly, IfMatch, ObjectExists
from holdfast_server.objects.info import Attributes
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.ranges import ByteRange, Range, Suffix
from holdfast_server.objects.s3.layout import PLAIN_BYTES
from tests.support.disk_operations import KEY, SOURCE, Operation, content, read
from tests.support.samples import MIB, sample

OLD = sample(2000, seed=1)
NEW = sample(3000, seed=2)
COPIED = sample(4000, seed=3)
LARGE = sample(PLAIN_BYTES + 1, seed=4)
"""Two parts: they are more than that in the bucket."""

LISTED = tuple(f"listed/{name}" for name in ("a", "b", "c/1", "c/2", "d"))

_ATTRIBUTES = Attributes("text/plain", {"name": "välue"})


@dataclass(frozen=True)
class Prepared(Operation):
    """An operation, and what it finds."""

    def prepare(self, store: ObjectStore) -> None:
        """Put what the operation finds, and nothing else under its key."""
        if self.before is None:
            store.delete(KEY)
        elif self.writes or content(store, KEY) != self.before:
            store.put(KEY, Body.of(self.before), attributes=_ATTRIBUTES)


def prepare_for_all(store: ObjectStore) -> None:
    """Put what operations find and leave alone."""
    store.put(SOURCE, Body.of(COPIED), attributes=_ATTRIBUTES)
    for name in LISTED:
        store.put(ObjectKey(name), Body.of(b""))


def put(store: ObjectStore, data: bytes, condition: Condition = OVERWRITE, *, declared: bool = True) -> bytes:
    """Put KEY, with the sha256 declared or not, and return the sha256 that the store found."""
    sha256 = hashlib.sha256(data).digest() if declared else None
    body = Body([Chunk(data)], Declared(len(data), sha256))
    return store.put(KEY, body, condition=condition, attributes=_ATTRIBUTES).sha256


def _put_if_match(store: ObjectStore, data: bytes = NEW) -> bytes:
    return put(store, data, IfMatch(store.stat(KEY).etag))


def _put_by_content(store: ObjectStore) -> bytes:
    try:
        return store.put(NamedByContent(lambda _: KEY), Body.of(NEW), condition=CreateOnly()).sha256
    except ObjectExists as found:
        return found.existing.sha256


def _delete_if_match(store: ObjectStore) -> bool:
    return store.delete(KEY, condition=IfMatch(store.stat(KEY).etag))


def _copy(condition: Condition) -> Prepared:
    before = OLD if condition == OVERWRITE else None
    return Prepared(lambda store: store.copy(SOURCE, KEY, condition=condition).sha256, _sha256(COPIED), before, COPIED)


def _get(data: bytes, wanted: Range, expected: bytes) -> Prepared:
    return Prepared(lambda store: read(store, KEY, wanted), expected, data, data, writes=False)


def _list(expected: list[str], query: ListQuery) -> Prepared:
    return Prepared(lambda store: [item.name for item in store.list(query)], expected, OLD, OLD, writes=False)


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


_NEW, _LARGE = _sha256(NEW), _sha256(LARGE)

SMALL = {
    "put": Prepared(lambda store: put(store, NEW), _NEW, OLD, NEW),
    "put that only creates": Prepared(lambda store: put(store, NEW, CreateOnly()), _NEW, None, NEW),
    "put if match": Prepared(_put_if_match, _NEW, OLD, NEW),
    "put named by content": Prepared(_put_by_content, _NEW, None, NEW),
    "put named by content that is there": Prepared(_put_by_content, _NEW, NEW, NEW),
    "copy": _copy(OVERWRITE),
    "copy under a condition": _copy(CreateOnly()),
    "delete": Prepared(lambda store: store.delete(KEY), answer=True, before=OLD, after=None),
    "delete if match": Prepared(_delete_if_match, answer=True, before=OLD, after=None),
    "delete of nothing": Prepared(lambda store: store.delete(KEY), answer=False, before=None, after=None),
    "stat": Prepared(lambda store: store.stat(KEY).sha256, _sha256(OLD), OLD, OLD, writes=False),
    "get": _get(OLD, ByteRange(), OLD),
    "ranged get": _get(OLD, ByteRange(10, 1000), OLD[10:1010]),
    "suffix get": _get(OLD, Suffix(1000), OLD[-1000:]),
    "list over pages": _list(list(LISTED), ListQuery("listed/")),
    "list with delimiter": _list(
        ["listed/a", "listed/b", "listed/c/", "listed/d"], ListQuery("listed/", delimiter=True)
    ),
}
"""By what they are called in the names of tests. Those who list set the size of pages."""

LARGE_PUTS = {
    "declared": Prepared(lambda store: put(store, LARGE), _LARGE, OLD, LARGE),
    "declared that only creates": Prepared(lambda store: put(store, LARGE, CreateOnly()), _LARGE, None, LARGE),
    "declared if match": Prepared(lambda store: _put_if_match(store, LARGE), _LARGE, OLD, LARGE),
    "spooled": Prepared(lambda store: put(store, LARGE, declared=False), _LARGE, OLD, LARGE),
    "spooled that only creates": Prepared(
        lambda store: put(store, LARGE, CreateOnly(), declared=False), _LARGE, None, LARGE
    ),
}

LARGE_READS = {
    "get": _get(LARGE, ByteRange(), LARGE),
    "ranged get": _get(LARGE, ByteRange(MIB - 5, MIB + 10), LARGE[MIB - 5 : 2 * MIB + 5]),
}
