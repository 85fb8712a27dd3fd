"""What every backend promises: `ObjectStore`.

`tests/conformance/test_object_store.py` is the same text as tests. In short: a reader sees a whole object or none; a
finished put is durable (as far as the backend is) and visible to every later read from any process; conditions hold
among all processes that share the store; a failed put leaves what was there before.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, IntEnum, auto
from types import TracebackType
from typing import Self

from holdfast_server import calls
from holdfast_server.errors import Cancelled, DeadlineExceeded, HoldfastError, Reason
from holdfast_server.objects.body import Body, Chunk
from holdfast_server.objects.conditions import Condition, Overwrite
from holdfast_server.objects.info import Attributes, ObjectInfo
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.ranges import Extent, Range, Whole

OVERWRITE = Overwrite()
WHOLE = Whole()
NO_ATTRIBUTES = Attributes()


class ObjectNotFound(LookupError):
    """There is no object under this key. Each store above says so in its own terms: this never leaves the server."""

    def __init__(self, key: ObjectKey) -> None:
        super().__init__(key.text)
        self.key = key


@dataclass(frozen=True, slots=True)
class NamedByContent:
    """A name that is known only once the bytes are: `key_of` makes the key from their sha256 (32 bytes)."""

    key_of: Callable[[bytes], ObjectKey]


@dataclass(frozen=True, slots=True)
class ListQuery:
    """Which objects to list.

    Only keys that start with `prefix` (a string, not a path), after `after` in byte order. With `delimiter`, keys that
    have a further `/` behind the prefix are rolled up into one `CommonPrefix`. An `after` that ends in `/`, as no key
    does, stands behind everything that starts with it. `skip`: prefixes ending in `/` to pass over unread.
    """

    prefix: str = ""
    after: str = ""
    delimiter: bool = False
    skip: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Entry:
    """An object in a list. `record` is None where the stored record is damaged."""

    name: str
    record: "EntryRecord | None"


@dataclass(frozen=True, slots=True)
class EntryRecord:
    """What lists show of an object beside its key."""

    size_bytes: int
    etag: str
    update_time: datetime


@dataclass(frozen=True, slots=True)
class CommonPrefix:
    """All keys that start with `name`, which ends in `/`."""

    name: str


class Durability(Enum):
    """What an acknowledged write survives."""

    PROCESS = auto()
    """Nothing: it is gone with the process."""
    DISK = auto()
    """Loss of power."""
    REMOTE = auto()
    """Loss of this machine: a remote store keeps it."""


class ConditionMode(IntEnum):
    """How conditions are kept; the weaker, the lower."""

    UNKNOWN = auto()
    """It has not been found out yet."""
    UNSUPPORTED = auto()
    """Not at all: such an operation raises `ConditionUnsupported`."""
    CHECKED = auto()
    """Looked at first, then written: atomic among the callers of this process only."""
    ATOMIC = auto()
    """Among all processes that share the store."""


@dataclass(frozen=True, slots=True)
class ConditionModes:
    """How conditions are kept, by operation; `large_put` is a put that the backend takes in parts."""

    put: ConditionMode
    large_put: ConditionMode
    delete: ConditionMode
    copy: ConditionMode


ALL_ATOMIC = ConditionModes(ConditionMode.ATOMIC, ConditionMode.ATOMIC, ConditionMode.ATOMIC, ConditionMode.ATOMIC)


@dataclass(frozen=True, slots=True)
class Description:
    """What a backend is, for people and for `GetServerInfo`. `not_ready`: why it cannot be used now.

    `reads_at_once`, `writes_at_once`: how many operations are better begun together than one after the other, where one
    caller wants many: as many as wait for something else than this process.
    """

    name: str
    durability: Durability
    conditions: ConditionModes
    nested_keys: bool
    store_id: str = ""
    not_ready: Reason | None = None
    reads_at_once: int = 1
    writes_at_once: int = 1


Listener = Callable[[HoldfastError | None], None]
"""Is told why a backend cannot be used; None: it can."""


class ObjectReader(ABC):
    """An open object: its info, and the verified bytes of the range asked for; of a `Tail` they are unverified.

    It goes on reading the object that it opened, whatever happens under the key meanwhile. A context manager; iterate
    it once.
    """

    info: ObjectInfo
    extent: Extent
    """The range served."""

    @abstractmethod
    def __iter__(self) -> Iterator[Chunk]:
        """Yield the bytes in order, at most 1 MiB at a time, each verified before it is yielded.

        Raises `IntegrityFailed` at the first byte that is not what was written. A `Tail` comes in one chunk, as it is
        stored.
        """

    @abstractmethod
    def close(self) -> None:
        """Release what the reader holds; harmless when repeated."""

    def __enter__(self) -> Self:
        """Return the reader itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the reader."""
        self.close()


class ObjectStore(ABC):
    """Bytes under keys. All methods may be called from many threads at once.

    Beside the errors named below every method can raise `Unavailable`, `IntegrityFailed`, `DeadlineExceeded` and
    `Cancelled`; the writing ones `ReadOnly` and `StorageFull` too.
    """

    @abstractmethod
    def describe(self) -> Description:
        """Tell what this backend is and promises, as far as is known."""

    @abstractmethod
    def start(self, listener: Listener) -> None:
        """Tell the listener now, and whenever it changes, whether the backend can be used.

        A remote backend begins to look for it here, and raises `Unavailable` or `BackendRefused` in every method until
        it was found. To be called once, before all else.
        """

    @abstractmethod
    def now(self) -> datetime:
        """Return the time, with time zone, by the clock that `update_time`s are told by: the store's own.

        Raises `Unavailable` if that cannot be had.
        """

    @abstractmethod
    def put(
        self,
        name: ObjectKey | NamedByContent,
        body: Body,
        *,
        condition: Condition = OVERWRITE,
        attributes: Attributes = NO_ATTRIBUTES,
    ) -> ObjectInfo:
        """Store the body's bytes in one step, or leave all as it was.

        Reads the body to its end, or no further than it must where the condition fails beforehand; whatever the body
        raises is raised here. Raises `ObjectExists` or `PreconditionFailed` where the condition does not hold.
        """

    @abstractmethod
    def get(self, key: ObjectKey, wanted: Range = WHOLE, *, condition: Condition = OVERWRITE) -> ObjectReader:
        """Open an object for reading. Of a `Tail` no more than its bytes is read, beside what tells where they are.

        Raises `ObjectNotFound`, `RangeNotSatisfiable`, or `PreconditionFailed` where an `IfMatch` does not hold.
        """

    @abstractmethod
    def stat(self, key: ObjectKey) -> ObjectInfo:
        """Tell what is known of an object. Raises `ObjectNotFound`."""

    @abstractmethod
    def stat_many(self, keys: Sequence[ObjectKey]) -> "list[ObjectInfo | HoldfastError | None]":
        """Tell what is known of each object, as `stat` does one after the other, at less cost.

        None: it is not there; an error: it could not be told. Only `DeadlineExceeded` and `Cancelled` are raised.
        """

    @abstractmethod
    def delete(self, key: ObjectKey, *, condition: Condition = OVERWRITE) -> bool:
        """Remove an object, and tell whether there was one.

        Raises `PreconditionFailed` where an `IfMatch` does not hold, which includes a missing key.
        """

    @abstractmethod
    def list(self, query: ListQuery) -> Iterator[Entry | CommonPrefix]:
        """Yield what the query asks for in byte order, read as it is asked for.

        An object that is there throughout is yielded; one put or deleted meanwhile may or may not be.
        """

    @abstractmethod
    def copy(
        self,
        source: ObjectKey,
        target: ObjectKey,
        *,
        condition: Condition = OVERWRITE,
        source_condition: Condition = OVERWRITE,
        attributes: Attributes | None = None,
    ) -> ObjectInfo:
        """Store the source's bytes under the target too, in one step.

        `condition` is on the target; attributes are kept where None. Raises `ObjectNotFound` for the source, or
        `PreconditionFailed` where an `IfMatch` on it does not hold; `ObjectExists` or `PreconditionFailed` for the
        target.
        """

    @abstractmethod
    def close(self) -> None:
        """Release what the store holds. Readers that are open go on; harmless when repeated."""


def stat_each(
    stat: Callable[[ObjectKey], ObjectInfo], keys: Sequence[ObjectKey]
) -> list[ObjectInfo | HoldfastError | None]:
    """Do what `ObjectStore.stat_many` promises, by a store's `stat`."""
    found: list[ObjectInfo | HoldfastError | None] = []
    for key in keys:
        calls.check("looking for objects")
        try:
            found.append(stat(key))
        except ObjectNotFound:
            found.append(None)
        except (Cancelled, DeadlineExceeded):
            raise
        except HoldfastError as error:
            found.append(error)
    return found
