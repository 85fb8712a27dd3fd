"""An `ObjectStore` that a test can meddle with: it counts, fails when it is told to, and its clock can be moved on."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
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

Meddle = Callable[[str, str], None]
"""Is given an operation and the name that it is about: a prefix for a list, the target for a copy."""


def nothing(_operation: str, _name: str) -> None:
    """Let it pass."""


class MeddledStore(ObjectStore):
    """Passes all on to `inner`, and counts it.

    `before` and `after` are called with each operation and its name, and may raise: `after` when it is done, and only
    if it succeeded. Both may call the store again, which is not meddled with. A list begins when its first item is
    asked for, and is done when there are no more.
    """

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner
        self._counting = threading.Lock()
        self.calm()

    def calm(self) -> None:
        """Meddle no more, and count from zero."""
        self.calls: Counter[str] = Counter()
        """How many operations there were, by name."""
        self.entries_listed = 0
        self.bytes_read = 0
        self.before: Meddle = nothing
        self.after: Meddle = nothing
        self.clock_ahead = timedelta(0)
        """How far its clock is ahead of the objects' times."""
        self._meddling = threading.local()

    @contextmanager
    def costing(self, **expected: int) -> Iterator[None]:
        """Check which operations the block takes, and that there are no others."""
        before = self.calls.copy()
        yield
        assert dict(self.calls - before) == expected

    @contextmanager
    def _operation(self, operation: str, name: str) -> Iterator[None]:
        with self._counting:  # which several threads may do at once
            self.calls[operation] += 1
        self._meddle(self.before, operation, name)
        yield
        self._meddle(self.after, operation, name)

    def _meddle(self, meddle: Meddle, operation: str, name: str) -> None:
        if getattr(self._meddling, "is_at_it", False):
            return
        self._meddling.is_at_it = True
        try:
            meddle(operation, name)
        finally:
            self._meddling.is_at_it = False

    def describe(self) -> Description:
        return self.inner.describe()

    def start(self, listener: Listener) -> None:
        self.inner.start(listener)

    def now(self) -> datetime:
        return self.inner.now() + self.clock_ahead

    def put(
        self,
        name: ObjectKey | NamedByContent,
        body: Body,
        *,
        condition: Condition = OVERWRITE,
        attributes: Attributes = NO_ATTRIBUTES,
    ) -> ObjectInfo:
        with self._operation("put", str(name)):
            return self.inner.put(name, body, condition=condition, attributes=attributes)

    def get(self, key: ObjectKey, wanted: Range = WHOLE, *, condition: Condition = OVERWRITE) -> ObjectReader:
        with self._operation("get", key.text):
            return _CountedReader(self, self.inner.get(key, wanted, condition=condition))

    def stat(self, key: ObjectKey) -> ObjectInfo:
        with self._operation("stat", key.text):
            return self.inner.stat(key)

    def stat_many(self, keys: Sequence[ObjectKey]) -> "list[ObjectInfo | HoldfastError | None]":
        with self._operation("stat_many", ""):
            return self.inner.stat_many(keys)

    def delete(self, key: ObjectKey, *, condition: Condition = OVERWRITE) -> bool:
        with self._operation("delete", key.text):
            return self.inner.delete(key, condition=condition)

    def list(self, query: ListQuery) -> Iterator[Entry | CommonPrefix]:
        with self._operation("list", query.prefix):
            for item in self.inner.list(query):
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
        with self._operation("copy", target.text):
            return self.inner.copy(
                source, target, condition=condition, source_condition=source_condition, attributes=attributes
            )

    def close(self) -> None:
        self.inner.close()


class _CountedReader(ObjectReader):
    def __init__(self, counter: MeddledStore, reader: ObjectReader) -> None:
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


def meanwhile(operation: str, ending: str, work: Callable[[], object]) -> Meddle:
    """Return what does the work at the next such operation on a name with this ending, and only then."""
    left = [work]

    def meddle(done: str, name: str) -> None:
        if done == operation and name.endswith(ending) and left:
            left.pop()()

    return meddle


def once(operation: str, ending: str) -> Meddle:
    """Return what fails the next such operation on a name with this ending, and only that."""

    def fail() -> None:
        raise Unavailable(Reason.BACKEND_UNAVAILABLE, "the backend is away")

    return meanwhile(operation, ending, fail)
