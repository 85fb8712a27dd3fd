"""An `ObjectStore` whose operations are counted, and of which one fails: before it is done, or after."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

from holdfast_server.errors import HoldfastError, Reason, Unavailable
from holdfast_server.objects.base import (
    NO_ATTRIBUTES,
    OVERWRITE,
    WHOLE,
    CommonPrefix,
    Description,
    Entry,
    Listener,
    ListQuery,
    NamedByContent,
    ObjectReader,
    ObjectStore,
)
from holdfast_server.objects.body import Body, Chunk
from holdfast_server.objects.conditions import Condition
from holdfast_server.objects.info import Attributes, ObjectInfo
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.ranges import Range


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


class FailingStore(ObjectStore):
    """Passes everything on to `store` and counts it, but the operation chosen with `fail` raises, once."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._left = 0
        self._after = False
        self._kill = False
        self.operations: Counter[str] = Counter()
        """How many there were, by name."""
        self.bytes_read = 0
        self.entries_listed = 0
        self.ahead = timedelta(0)
        """How far its clock is ahead of the objects' times."""

    def fail(self, nth: int, *, after: bool, kill: bool = False) -> None:
        """Let the `nth` operation from now on, counted from 1, raise: before or `after` it was done.

        What it raises is `Unavailable`; with `kill` it is `Killed`.
        """
        self._left, self._after, self._kill = nth, after, kill

    def heal(self) -> bool:
        """Let nothing fail any more, and tell whether what was chosen has failed."""
        met = self._left <= 0
        self._left = 0
        return met

    @contextmanager
    def costing(self, **expected: int) -> Iterator[None]:
        """Check which operations the block takes, and that there are no others."""
        before = self.operations.copy()
        yield
        assert dict(self.operations - before) == expected

    @contextmanager
    def _operation(self, name: str) -> Iterator[None]:
        self.operations[name] += 1
        self._left -= 1
        fails = self._left == 0
        if fails and not self._after:
            self._raise()
        yield
        if fails:
            self._raise()

    def _raise(self) -> None:
        if self._kill:
            raise Killed
        raise Unavailable(Reason.BACKEND_UNAVAILABLE, "the backend failed, as the test asked")

    def describe(self) -> Description:
        return self._store.describe()

    def start(self, listener: Listener) -> None:
        self._store.start(listener)

    def now(self) -> datetime:
        return self._store.now() + self.ahead

    def put(
        self,
        name: ObjectKey | NamedByContent,
        body: Body,
        *,
        condition: Condition = OVERWRITE,
        attributes: Attributes = NO_ATTRIBUTES,
    ) -> ObjectInfo:
        with self._operation("put"):
            return self._store.put(name, body, condition=condition, attributes=attributes)

    def get(self, key: ObjectKey, wanted: Range = WHOLE, *, condition: Condition = OVERWRITE) -> ObjectReader:
        with self._operation("get"):
            return _CountedReader(self, self._store.get(key, wanted, condition=condition))

    def stat(self, key: ObjectKey) -> ObjectInfo:
        with self._operation("stat"):
            return self._store.stat(key)

    def stat_many(self, keys: Sequence[ObjectKey]) -> list[ObjectInfo | HoldfastError | None]:
        with self._operation("stat_many"):
            return self._store.stat_many(keys)

    def delete(self, key: ObjectKey, *, condition: Condition = OVERWRITE) -> bool:
        with self._operation("delete"):
            return self._store.delete(key, condition=condition)

    def list(self, query: ListQuery) -> Iterator[Entry | CommonPrefix]:
        with self._operation("list"):
            for item in self._store.list(query):
                self.entries_listed += 1
                yield item

    def copy(
        self,
        source: ObjectKey,
        target: ObjectKey,
        *,
        condition: Condition = OVERWRITE,
        source_condition: Condition = OVERWRITE,
        attributes: Attributes | None = None,
    ) -> ObjectInfo:
        with self._operation("copy"):
            return self._store.copy(
                source, target, condition=condition, source_condition=source_condition, attributes=attributes
            )

    def close(self) -> None:
        self._store.close()


class _CountedReader(ObjectReader):
    def __init__(self, counter: FailingStore, reader: ObjectReader) -> None:
        self.info = reader.info
        self.extent = reader.extent
        self._counter = counter
        self._reader = reader

    def __iter__(self) -> Iterator[Chunk]:
        for chunk in self._reader:
            self._counter.bytes_read += len(chunk.data)
            yield chunk

    def close(self) -> None:
        self._reader.close()
