"""An `ObjectStore` that a test can meddle with: it counts, fails when it is told to, and its clock can be moved on."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

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
from holdfast_server.objects.body import Body
from holdfast_server.objects.conditions import Condition
from holdfast_server.objects.info import Attributes, ObjectInfo
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.ranges import Range

T = TypeVar("T")


class MeddledStore(ObjectStore):
    """Passes all on to `inner`.

    `before` and `after` are called with each operation and its name, and may raise: `after` when it is done, and only
    if it succeeded. Both may call the store again, which is not meddled with.
    """

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner
        self.calm()

    def calm(self) -> None:
        """Meddle no more, and count from zero."""
        self.calls: Counter[str] = Counter()
        self.before: Callable[[str, str], None] = lambda _operation, _name: None
        self.after: Callable[[str, str], None] = lambda _operation, _name: None
        self.clock_ahead = timedelta(0)
        self._meddling = threading.local()

    def _do(self, operation: str, name: str, work: Callable[[], T]) -> T:
        self.calls[operation] += 1
        self._meddle(self.before, operation, name)
        result = work()
        self._meddle(self.after, operation, name)
        return result

    def _meddle(self, meddle: Callable[[str, str], None], operation: str, name: str) -> None:
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
        return self._do(
            "put", str(name), lambda: self.inner.put(name, body, condition=condition, attributes=attributes)
        )

    def get(self, key: ObjectKey, wanted: Range = WHOLE, *, condition: Condition = OVERWRITE) -> ObjectReader:
        return self._do("get", key.text, lambda: self.inner.get(key, wanted, condition=condition))

    def stat(self, key: ObjectKey) -> ObjectInfo:
        return self._do("stat", key.text, lambda: self.inner.stat(key))

    def stat_many(self, keys: Sequence[ObjectKey]) -> "list[ObjectInfo | HoldfastError | None]":
        return self._do("stat_many", "", lambda: self.inner.stat_many(keys))

    def delete(self, key: ObjectKey, *, condition: Condition = OVERWRITE) -> bool:
        return self._do("delete", key.text, lambda: self.inner.delete(key, condition=condition))

    def list(self, query: ListQuery) -> Iterator[Entry | CommonPrefix]:
        return self._do("list", query.prefix, lambda: self._counted(self.inner.list(query)))

    def _counted(self, items: Iterator[Entry | CommonPrefix]) -> Iterator[Entry | CommonPrefix]:
        for item in items:
            self.calls["listed"] += 1
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
        raise NotImplementedError("checkpoints are never copied")

    def close(self) -> None:
        self.inner.close()


def once(operation: str, ending: str) -> Callable[[str, str], None]:
    """Return what fails the next such operation on a name with this ending, and only that."""
    left = [1]

    def meddle(done: str, name: str) -> None:
        if done == operation and name.endswith(ending) and left:
            left.pop()
            raise Unavailable(Reason.BACKEND_UNAVAILABLE, "the backend is away")

    return meddle
