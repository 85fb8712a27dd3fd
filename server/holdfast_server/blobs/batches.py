"""Many small blobs at once: what is wrong with one of them is its own result, and the others go on."""

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple, TypeVar

import google_crc32c

from holdfast_server.blobs.address import Address, BlobKey
from holdfast_server.blobs.store import BlobStore, Put
from holdfast_server.errors import Cancelled, DeadlineExceeded, HoldfastError, InvalidArgument, Reason
from holdfast_server.objects.base import NO_ATTRIBUTES, OVERWRITE
from holdfast_server.objects.body import Chunk, Declared
from holdfast_server.objects.conditions import Condition
from holdfast_server.objects.info import Attributes, ObjectInfo
from holdfast_server.workers import Workers

T = TypeVar("T")
R = TypeVar("R")

MAX_BATCH_ITEMS = 1000

MAX_BATCH_BYTES = 7 << 18
"""1.75 MiB of data: an answer stays below 2 MiB, half of every client's limit, with room for what is known of each."""

MAX_FIND_ITEMS = 10_000

_SEARCH_ITEMS = 1000
"""Looked for in one go; between two it is asked whether the caller still waits."""

_MAX_INFO_BYTES = 208 << 10
"""What the answer to a batch may say of its blobs beside their data, in bytes on the wire."""

_INFO_BYTES = 110
"""What it says of a blob beside key, content type and metadata, rounded up: etag, digests, time, and their tags."""

_ENTRY_BYTES = 6
"""Tags and lengths of an entry of metadata."""


class Wanted(NamedTuple):
    """A blob to look for; with `sha256` one of other bytes is missing, too."""

    address: Address
    sha256: bytes | None = None


@dataclass(frozen=True, slots=True)
class GetItem:
    """A blob to get."""

    address: Address


@dataclass(frozen=True, slots=True)
class Got:
    """A blob, whole."""

    blob: ObjectInfo
    data: bytes
    crc32c: int


@dataclass(frozen=True, slots=True)
class PutItem:
    """A blob to store: its bytes, and the sha256 (32 bytes) that they must have, if it was declared."""

    address: Address
    chunk: Chunk
    sha256: bytes | None = None
    condition: Condition = OVERWRITE
    attributes: Attributes = NO_ATTRIBUTES


@dataclass(frozen=True, slots=True)
class DeleteItem:
    """A blob to delete."""

    address: Address
    condition: Condition = OVERWRITE


class Batches:
    """Batches on a `BlobStore`.

    An item may be an error already, of whoever read it from the wire; it is its own result. `DeadlineExceeded` and
    `Cancelled` concern the call and are raised; every other `HoldfastError` is the result of its item.
    """

    def __init__(self, store: BlobStore, workers: Workers) -> None:
        self._store = store
        self._workers = workers

    def find_missing(self, items: Sequence[Wanted | HoldfastError]) -> list[bool | HoldfastError]:
        """Tell of each whether it is missing."""
        wanted = [item for item in items if isinstance(item, Wanted)]
        at_once = self._store.describe().reads_at_once
        # Where the backend is far away, one at a time, so that none waits behind others.
        size = 1 if at_once > 1 else _SEARCH_ITEMS
        runs = [wanted[at : at + size] for at in range(0, len(wanted), size)]
        answers = chain.from_iterable(self._workers.each(runs, self._are_missing, at_once))
        return [item if isinstance(item, HoldfastError) else next(answers) for item in items]

    def _are_missing(self, wanted: Sequence[Wanted]) -> list[bool | HoldfastError]:
        found = self._store.stat_many([address for address, _ in wanted])
        return [
            info if isinstance(info, HoldfastError) else info is None or sha256 not in (None, info.sha256)
            for (_, sha256), info in zip(wanted, found, strict=True)
        ]

    def get(self, items: Sequence[GetItem | HoldfastError]) -> list[Got | HoldfastError]:
        """Get blobs whole, as many as fit into `MAX_BATCH_BYTES` together.

        One that does not fit any more is an `InvalidArgument` (BATCH_FULL, or TOO_LARGE if it never would).
        """
        room = _Room()

        def get(item: GetItem) -> Got:
            with self._store.get(item.address) as reader:
                room.take(reader.info)
                chunks = list(reader)
            if len(chunks) == 1:
                return Got(reader.info, *_summed(chunks[0]))
            return Got(reader.info, *_summed(Chunk(b"".join(chunk.data for chunk in chunks))))

        return self._each(items, get, self._store.describe().reads_at_once)

    def put(self, items: Sequence[PutItem | HoldfastError]) -> list[Put | HoldfastError]:
        """Store blobs, each by itself; a key may be there once.

        Raises `InvalidArgument` (TOO_LARGE) for more than `MAX_BATCH_BYTES` of data.
        """
        size = sum(len(item.chunk.data) for item in items if isinstance(item, PutItem))
        if size > MAX_BATCH_BYTES:
            message = f"the batch has {size} bytes of data, and {MAX_BATCH_BYTES} are the most"
            raise InvalidArgument(Reason.TOO_LARGE, "items", message)

        def put(item: PutItem) -> Put:
            size_bytes = len(item.chunk.data)
            return self._store.put(
                item.address,
                [item.chunk] if size_bytes else [],
                declared=Declared(size_bytes, item.sha256),
                condition=item.condition,
                attributes=item.attributes,
            )

        return self._each(_without_repeated_keys(items), put, self._store.describe().writes_at_once)

    def delete(self, items: Sequence[DeleteItem | HoldfastError]) -> list[bool | HoldfastError]:
        """Delete blobs, and tell of each whether there was one."""

        def delete(item: DeleteItem) -> bool:
            return self._store.delete(item.address, condition=item.condition)

        return self._each(items, delete, self._store.describe().writes_at_once)

    def _each(
        self, items: Sequence[T | HoldfastError], work: Callable[[T], R], at_once: int
    ) -> list[R | HoldfastError]:
        def one(item: T | HoldfastError) -> R | HoldfastError:
            if isinstance(item, HoldfastError):
                return item
            try:
                return work(item)
            except (Cancelled, DeadlineExceeded):
                raise
            except HoldfastError as error:
                # Its traceback would lead to the frames that hold all items.
                return error.with_traceback(None)

        return self._workers.each(items, one, at_once)


class _Room:
    """What still fits into an answer; several threads take from it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._data_bytes = MAX_BATCH_BYTES
        self._info_bytes = _MAX_INFO_BYTES

    def take(self, info: ObjectInfo) -> None:
        """Take the room for a blob. Raises `InvalidArgument` (BATCH_FULL, TOO_LARGE)."""
        size, info_bytes = info.size_bytes, _info_bytes(info)
        if size > MAX_BATCH_BYTES:
            message = f"blob {info.key.text!r} has {size} bytes, and a batch holds {MAX_BATCH_BYTES}: get it by itself"
            raise InvalidArgument(Reason.TOO_LARGE, "address", message, size_bytes=str(size))
        with self._lock:
            if size > self._data_bytes or info_bytes > self._info_bytes:
                message = f"blob {info.key.text!r} of {size} bytes does not fit into this batch any more"
                raise InvalidArgument(Reason.BATCH_FULL, "address", message, size_bytes=str(size))
            self._data_bytes -= size
            self._info_bytes -= info_bytes


def _info_bytes(info: ObjectInfo) -> int:
    """Return about what is said of a blob on the wire, rounded up."""
    attributes = info.attributes
    size = _INFO_BYTES + len(info.key.text.encode()) + len(attributes.content_type)
    for name, value in attributes.metadata.items():
        size += len(name) + len(value.encode()) + _ENTRY_BYTES
    return size


def _summed(chunk: Chunk) -> tuple[bytes, int]:
    data, crc32c = chunk
    return data, google_crc32c.value(data) if crc32c is None else crc32c


def _without_repeated_keys(items: Sequence[PutItem | HoldfastError]) -> list[PutItem | HoldfastError]:
    """Return the items, with an error in place of those whose key another one names: which came last would be open.

    Of several that name one key the first stays. The same content may be there twice, since that is the same bytes, but
    not where its key is named, too.
    """
    first_with_key: dict[BlobKey, int] = {}
    for position, item in enumerate(items):
        if isinstance(item, PutItem) and isinstance(item.address, BlobKey):
            first_with_key.setdefault(item.address, position)
    if not first_with_key:
        return list(items)
    checked: list[PutItem | HoldfastError] = []
    for position, item in enumerate(items):
        if isinstance(item, PutItem):
            key = _key_of(item)
            first = first_with_key.get(key, position)
            if first != position:
                message = f"key {key.text!r} is named at position {first} of the batch, too"
                checked.append(InvalidArgument(Reason.INVALID_BATCH, "key", message))
                continue
        checked.append(item)
    return checked


def _key_of(item: PutItem) -> BlobKey:
    """Return the key under which an item would be stored."""
    if isinstance(item.address, BlobKey):
        return item.address
    return item.address.key_of(item.sha256 or item.address.sha256 or hashlib.sha256(item.chunk.data).digest())
