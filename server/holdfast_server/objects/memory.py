"""Objects in the memory of this process: for development and tests, with the semantics of the others."""

import secrets
import threading
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice

from sortedcontainers import SortedDict

from holdfast_server import calls
from holdfast_server.errors import HoldfastError, StorageFull
from holdfast_server.objects.base import (
    ALL_ATOMIC,
    NO_ATTRIBUTES,
    OVERWRITE,
    WHOLE,
    CommonPrefix,
    Description,
    Durability,
    Entry,
    EntryRecord,
    Listener,
    ListQuery,
    NamedByContent,
    ObjectNotFound,
    ObjectReader,
    ObjectStore,
)
from holdfast_server.objects.body import PIECE_BYTES, Body, Chunk
from holdfast_server.objects.conditions import Condition
from holdfast_server.objects.info import Attributes, ObjectInfo
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.listing import Roller, first_position
from holdfast_server.objects.ranges import Extent, Range, Tail
from holdfast_server.objects.reading import TailReader, pieces_touched, verified_chunks

DEFAULT_MAX_BYTES = 1 << 30

OBJECT_OVERHEAD_BYTES = 1024
_ENTRY_OVERHEAD_BYTES = 160
_CHARACTER_BYTES = 4
"""What CPython takes, rounded up: for an object and its place in the index, an entry of metadata, a character."""

_LIST_BATCH = 256
"""Keys taken from the index at a time, so that a long list does not hold the lock."""


@dataclass(frozen=True, slots=True)
class _Object:
    info: ObjectInfo
    pieces: Sequence[bytes]
    crcs: "array[int]"

    @property
    def charge(self) -> int:
        """What the object counts for, in bytes."""
        return self.info.size_bytes + _overhead(self.info.key.text, self.info.attributes)


def _overhead(key: str, attributes: Attributes) -> int:
    """Return what an object counts for beside its bytes."""
    entries = attributes.metadata.items()
    characters = len(key) + len(attributes.content_type) + sum(len(name) + len(value) for name, value in entries)
    return OBJECT_OVERHEAD_BYTES + len(entries) * _ENTRY_OVERHEAD_BYTES + characters * _CHARACTER_BYTES


class _Reader(ObjectReader):
    def __init__(self, found: _Object, extent: Extent) -> None:
        self.info = found.info
        self.extent = extent
        self._found = found

    def __iter__(self) -> Iterator[Chunk]:
        return verified_chunks(self.info.key, self.info.size_bytes, self.extent, self._read_piece)

    def _read_piece(self, offset: int, _length: int) -> tuple[bytes, int]:
        number = offset // PIECE_BYTES
        return self._found.pieces[number], self._found.crcs[number]

    def close(self) -> None:
        """Nothing is held but memory."""


class MemoryStore(ObjectStore):
    """An `ObjectStore` in memory, bounded by `max_bytes`: beyond it puts raise `StorageFull`."""

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._objects: SortedDict[str, _Object] = SortedDict()
        self._used_bytes = 0

    def describe(self) -> Description:
        """Tell that nothing survives the process."""
        return Description("memory", Durability.PROCESS, ALL_ATOMIC, nested_keys=True)

    def start(self, listener: Listener) -> None:
        """Tell that the backend can be used."""
        listener(None)

    def now(self) -> datetime:
        """Return this machine's time."""
        return datetime.now(UTC)

    def put(
        self,
        name: ObjectKey | NamedByContent,
        body: Body,
        *,
        condition: Condition = OVERWRITE,
        attributes: Attributes = NO_ATTRIBUTES,
    ) -> ObjectInfo:
        """Store the body's bytes; see `ObjectStore.put`."""
        with body.given_up_on_failure():
            return self._put(name, body, condition, attributes)

    def _put(
        self, name: ObjectKey | NamedByContent, body: Body, condition: Condition, attributes: Attributes
    ) -> ObjectInfo:
        if isinstance(name, ObjectKey):
            with self._lock:
                condition.check(name, self._info(name))
        reserved = 0
        try:
            pieces = []
            for piece in body:
                self._reserve(len(piece))
                reserved += len(piece)
                pieces.append(piece)
            digests = body.digests
            key = name if isinstance(name, ObjectKey) else name.key_of(digests.sha256)
            overhead = _overhead(key.text, attributes)
            self._reserve(overhead)
            reserved += overhead
            info = ObjectInfo(
                key, digests.size_bytes, secrets.token_hex(16), digests.sha256, attributes, datetime.now(UTC)
            )
            self._publish(_Object(info, pieces, digests.piece_crc32c), condition)
            reserved = 0
        finally:
            # Also when the caller's thread is being cancelled: bytes that no object holds must not count for ever.
            self._release(reserved)
        return info

    def get(self, key: ObjectKey, wanted: Range = WHOLE, *, condition: Condition = OVERWRITE) -> ObjectReader:
        """Open an object; see `ObjectStore.get`."""
        found = self._find(key)
        condition.check(key, found.info)
        extent = wanted.of(found.info.size_bytes)
        if isinstance(wanted, Tail):
            touched = b"".join(found.pieces[number] for number in pieces_touched(extent))
            return TailReader(found.info, extent, touched[len(touched) - extent.length :])
        return _Reader(found, extent)

    def stat(self, key: ObjectKey) -> ObjectInfo:
        """Tell what is known of an object; see `ObjectStore.stat`."""
        return self._find(key).info

    def stat_many(self, keys: Sequence[ObjectKey]) -> list[ObjectInfo | HoldfastError | None]:
        """Tell what is known of each object; see `ObjectStore.stat_many`."""
        calls.check("looking for objects")
        return [self._info(key) for key in keys]

    def delete(self, key: ObjectKey, *, condition: Condition = OVERWRITE) -> bool:
        """Remove an object; see `ObjectStore.delete`."""
        with self._lock:
            condition.check(key, self._info(key))
            gone = self._objects.pop(key.text, None)
            if gone is not None:
                self._used_bytes -= gone.charge
        return gone is not None

    def list(self, query: ListQuery) -> Iterator[Entry | CommonPrefix]:
        """Yield what the query asks for; see `ObjectStore.list`."""
        roller = Roller(query)
        position = first_position(query)
        while True:
            calls.check("listing")
            with self._lock:
                batch = list(islice(self._objects.irange(position, inclusive=(True, True)), _LIST_BATCH))
            if not batch:
                return
            for key in batch:
                if key < position:
                    continue  # rolled up or skipped with those before it
                item, position = roller.place(key)
                if item is None and position == roller.END:
                    return
                if isinstance(item, CommonPrefix):
                    yield item
                elif item is not None and (found := self._objects.get(key)) is not None:
                    info = found.info
                    yield Entry(key, EntryRecord(info.size_bytes, info.etag, info.update_time))

    def copy(
        self,
        source: ObjectKey,
        target: ObjectKey,
        *,
        condition: Condition = OVERWRITE,
        source_condition: Condition = OVERWRITE,
        attributes: Attributes | None = None,
    ) -> ObjectInfo:
        """Store the source's bytes under the target too, sharing them; see `ObjectStore.copy`."""
        found = self._find(source)
        source_condition.check(source, found.info)
        info = replace(
            found.info,
            key=target,
            etag=secrets.token_hex(16),
            update_time=datetime.now(UTC),
            attributes=found.info.attributes if attributes is None else attributes,
        )
        copied = _Object(info, found.pieces, found.crcs)
        size = copied.charge
        self._reserve(size)
        try:
            self._publish(copied, condition)
            size = 0
        finally:
            self._release(size)
        return info

    def close(self) -> None:
        """Nothing is held but memory."""

    def _info(self, key: ObjectKey) -> ObjectInfo | None:
        found = self._objects.get(key.text)
        return None if found is None else found.info

    def _find(self, key: ObjectKey) -> _Object:
        found = self._objects.get(key.text)
        if found is None:
            raise ObjectNotFound(key)
        return found

    def _publish(self, new: _Object, condition: Condition) -> None:
        with self._lock:
            key = new.info.key
            condition.check(key, self._info(key))
            old = self._objects.get(key.text)
            self._objects[key.text] = new
            if old is not None:
                self._used_bytes -= old.charge

    def _reserve(self, size: int) -> None:
        with self._lock:
            if self._used_bytes + size > self._max_bytes:
                raise StorageFull(f"the memory backend is full: it may hold {self._max_bytes} bytes")
            self._used_bytes += size

    def _release(self, size: int) -> None:
        with self._lock:
            self._used_bytes -= size
