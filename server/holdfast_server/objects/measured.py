"""The adjective *measured*: counts what every call to a store does, how long it takes, and the bytes that it moves."""

import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from types import TracebackType

from prometheus_client import CollectorRegistry, Counter, Histogram

from holdfast_server.errors import (
    AlreadyExists,
    BackendRefused,
    Cancelled,
    ConcurrentModification,
    DeadlineExceeded,
    HoldfastError,
    IntegrityFailed,
    PreconditionFailed,
    ReadOnly,
    StorageFull,
    Unavailable,
)
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
    ObjectNotFound,
    ObjectReader,
    ObjectStore,
)
from holdfast_server.objects.body import Body, Chunk
from holdfast_server.objects.conditions import Condition
from holdfast_server.objects.info import Attributes, ObjectInfo
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.ranges import Range

_SECONDS = (0.00001, 0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300)
_OPERATIONS = ("put", "get", "stat", "stat_many", "delete", "list", "copy")
_OUTCOMES = ("ok", "missing", "conflict", "refused", "cancelled", "failed")


class ObjectMetrics:
    """The metrics of all measured stores."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.operations = Counter(
            "holdfast_object_operations",
            "Operations on backends. Outcomes: ok, missing (an answer), conflict (a condition did not hold), refused "
            "(the caller's fault), cancelled (the caller is gone), failed (the backend's).",
            ("backend", "operation", "outcome"),
            registry=registry,
        )
        self.seconds = Histogram(
            "holdfast_object_operation_seconds",
            "Time that operations on backends took. Of a get, the time to open the object.",
            ("backend", "operation"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.bytes = Counter(
            "holdfast_object_bytes",
            "Bytes that backends stored (direction in) and delivered (out).",
            ("backend", "direction"),
            registry=registry,
        )


class MeasuredStore(ObjectStore):
    """Passes everything on to `store`, and counts it under the backend's name."""

    def __init__(self, store: ObjectStore, metrics: ObjectMetrics) -> None:
        self._store = store
        name = store.describe().name
        self._outcomes = {
            (operation, outcome): metrics.operations.labels(name, operation, outcome)
            for operation in _OPERATIONS
            for outcome in _OUTCOMES
        }
        self._seconds = {operation: metrics.seconds.labels(name, operation) for operation in _OPERATIONS}
        self._bytes_in = metrics.bytes.labels(name, "in")
        self._bytes_out = metrics.bytes.labels(name, "out")

    def describe(self) -> Description:
        """Tell what the measured store is."""
        return self._store.describe()

    def start(self, listener: Listener) -> None:
        """Start the measured store."""
        self._store.start(listener)

    def now(self) -> datetime:
        """Return the measured store's time; that is not counted."""
        return self._store.now()

    def put(
        self,
        name: ObjectKey | NamedByContent,
        body: Body,
        *,
        condition: Condition = OVERWRITE,
        attributes: Attributes = NO_ATTRIBUTES,
    ) -> ObjectInfo:
        """Count a put, and the bytes that it stored."""
        with self._measured("put"):
            info = self._store.put(name, body, condition=condition, attributes=attributes)
        self._bytes_in.inc(info.size_bytes)
        return info

    def get(self, key: ObjectKey, wanted: Range = WHOLE, *, condition: Condition = OVERWRITE) -> ObjectReader:
        """Count a get, and the bytes that it delivers."""
        with self._measured("get"):
            reader = self._store.get(key, wanted, condition=condition)
        return _MeasuredReader(reader, self)

    def stat(self, key: ObjectKey) -> ObjectInfo:
        """Count a stat."""
        with self._measured("stat"):
            return self._store.stat(key)

    def stat_many(self, keys: Sequence[ObjectKey]) -> list[ObjectInfo | HoldfastError | None]:
        """Count one operation, and a stat for each object of which it could not be told."""
        with self._measured("stat_many"):
            found = self._store.stat_many(keys)
        for one in found:
            if isinstance(one, HoldfastError):
                self._outcomes["stat", _outcome("stat", one)].inc()
        return found

    def delete(self, key: ObjectKey, *, condition: Condition = OVERWRITE) -> bool:
        """Count a deletion."""
        with self._measured("delete"):
            return self._store.delete(key, condition=condition)

    def list(self, query: ListQuery) -> Iterator[Entry | CommonPrefix]:
        """Count a list, from its first item to where its reader stops."""
        with self._measured("list"):
            yield from self._store.list(query)

    def copy(
        self,
        source: ObjectKey,
        target: ObjectKey,
        *,
        condition: Condition = OVERWRITE,
        source_condition: Condition = OVERWRITE,
        attributes: Attributes | None = None,
    ) -> ObjectInfo:
        """Count a copy."""
        with self._measured("copy"):
            return self._store.copy(
                source, target, condition=condition, source_condition=source_condition, attributes=attributes
            )

    def close(self) -> None:
        """Close the measured store."""
        self._store.close()

    def count_out(self, size: int) -> None:
        """Count bytes that a reader delivered."""
        self._bytes_out.inc(size)

    def count_failure(self, error: HoldfastError) -> None:
        """Count a get that failed after it was opened."""
        self._outcomes["get", _outcome("get", error)].inc()

    def count(self, operation: str, seconds: float, outcome: str) -> None:
        """Count an operation that ended."""
        self._seconds[operation].observe(seconds)
        self._outcomes[operation, outcome].inc()

    def _measured(self, operation: str) -> "_Measured":
        return _Measured(self, operation)


class _Measured:
    """Measures a block. A class: a generator's context manager is slower, and this is around every operation."""

    __slots__ = ("_begun", "_operation", "_store")

    def __init__(self, store: MeasuredStore, operation: str) -> None:
        self._store = store
        self._operation = operation

    def __enter__(self) -> None:
        self._begun = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._begun
        # GeneratorExit: the reader of a list has enough.
        outcome = "ok" if error is None or isinstance(error, GeneratorExit) else _outcome(self._operation, error)
        self._store.count(self._operation, seconds, outcome)


class _MeasuredReader(ObjectReader):
    def __init__(self, reader: ObjectReader, store: MeasuredStore) -> None:
        self.info = reader.info
        self.extent = reader.extent
        self._reader = reader
        self._store = store

    def __iter__(self) -> Iterator[Chunk]:
        sent = 0
        try:
            for chunk in self._reader:
                yield chunk
                sent += len(chunk.data)
        except HoldfastError as error:
            self._store.count_failure(error)
            raise
        finally:
            self._store.count_out(sent)

    def close(self) -> None:
        self._reader.close()


def _outcome(operation: str, error: BaseException) -> str:
    if isinstance(error, ObjectNotFound):
        return "missing"
    if isinstance(error, AlreadyExists | PreconditionFailed | ConcurrentModification):
        return "conflict"
    if isinstance(error, IntegrityFailed | ReadOnly | StorageFull | BackendRefused | Unavailable):
        return "failed"
    if isinstance(error, Cancelled | DeadlineExceeded):
        return "cancelled"
    if isinstance(error, HoldfastError):
        return "refused"
    # Backends raise errors of ours: anything else comes from a body whose sender is gone, or is a fault of the server.
    return "cancelled" if operation == "put" else "failed"
