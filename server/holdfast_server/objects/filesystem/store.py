"""Objects as files: see the package's docstring for the parts."""

import logging
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from holdfast_server import calls
from holdfast_server.errors import HoldfastError, IntegrityFailed
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
    stat_each,
)
from holdfast_server.objects.body import PIECE_BYTES, Body, Chunk
from holdfast_server.objects.conditions import Condition, ObjectExists, Overwrite
from holdfast_server.objects.filesystem import record
from holdfast_server.objects.filesystem.disk import Disk, make_directory, os_errors_translated, sync_directory
from holdfast_server.objects.filesystem.locks import Locks
from holdfast_server.objects.filesystem.scratch import Scratch, ScratchFile
from holdfast_server.objects.filesystem.tree import Tree
from holdfast_server.objects.info import Attributes, ObjectInfo
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.ranges import Extent, Range, Tail
from holdfast_server.objects.reading import TailReader, pieces_touched, verified_chunks

DEFAULT_LOCK_TIMEOUT_SECONDS = 10.0

_WRITING_BYTES = 8 << 20
"""After so many bytes of an upload the disk begins, while more arrive: fsync then finds less to do at the end."""

_WRITES_AT_ONCE = 8
"""Writes wait for the disk, which syncs several in about the time of one; reads come from the page cache."""

_DIRECTORIES = ("tree", "locks", "scratch")
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY
_log = logging.getLogger(__name__)


class _Reader(ObjectReader):
    def __init__(self, disk: Disk, fd: int, file: record.ObjectFile, extent: Extent) -> None:
        self.info = file.info
        self.extent = extent
        self._disk = disk
        self._fd = fd
        self._file = file

    def __iter__(self) -> Iterator[Chunk]:
        with os_errors_translated(self.info.key, writing=False):
            touched = pieces_touched(self.extent)
            crcs = self._file.read_crcs(touched)

            def read_piece(offset: int, length: int) -> tuple[bytes, int]:
                return self._file.read(length, offset), crcs[offset // PIECE_BYTES - touched.start]

            yield from verified_chunks(self.info.key, self.info.size_bytes, self.extent, read_piece)

    def close(self) -> None:
        if self._fd >= 0:
            self._disk.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        """Close the file of a reader that nobody closed."""
        self.close()


class FilesystemStore(ObjectStore):
    """An `ObjectStore` below the directory `root`, which is made if it is missing.

    Several processes may use one root. A file never replaces another before it and its record are on the disk, and an
    answer never comes before the directory entry is, too; `docs/decisions/0002-files.md` tells why.
    """

    def __init__(
        self,
        root: Path,
        *,
        store_id: str = "",
        lock_timeout_seconds: float = DEFAULT_LOCK_TIMEOUT_SECONDS,
        disk: Disk | None = None,
    ) -> None:
        self._disk = disk or Disk()
        self._store_id = store_id
        make_directory(root)
        with ExitStack() as stack:
            tree_fd, locks_fd, scratch_fd = (self._open_directory(root / name, stack) for name in _DIRECTORIES)
            sync_directory(root)
            self._locks = Locks(self._disk, locks_fd, lock_timeout_seconds)
            self._tree = Tree(self._disk, tree_fd, self._locks)
            self._scratch = Scratch(self._disk, scratch_fd)
            stack.callback(self._scratch.close)
            self._resources = stack.pop_all()

    def _open_directory(self, path: Path, stack: ExitStack) -> int:
        path.mkdir(mode=0o700, exist_ok=True)
        fd = self._disk.open(str(path), _DIRECTORY_FLAGS)
        stack.callback(self._disk.close, fd)
        return fd

    def describe(self) -> Description:
        """Tell that writes survive a loss of power."""
        return Description(
            "filesystem",
            Durability.DISK,
            ALL_ATOMIC,
            nested_keys=True,
            store_id=self._store_id,
            writes_at_once=_WRITES_AT_ONCE,
        )

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
        what = name if isinstance(name, ObjectKey) else "an object that is named by its content"
        with body.given_up_on_failure(), os_errors_translated(what, writing=True) as translated:
            if isinstance(name, ObjectKey):
                self._check(condition, name)
            with self._scratch.file() as file:
                begun = written = 0
                for piece in body:
                    self._disk.write(file.fd, piece)
                    written += len(piece)
                    if written - begun >= _WRITING_BYTES:
                        self._disk.begin_writing(file.fd, begun, written - begun)
                        begun = written
                digests = body.digests
                key = name if isinstance(name, ObjectKey) else name.key_of(digests.sha256)
                translated.what = key
                info = ObjectInfo(
                    key, digests.size_bytes, secrets.token_hex(16), digests.sha256, attributes, datetime.now(UTC)
                )
                self._disk.write(file.fd, record.encode(info, digests.piece_crc32c))
                self._publish(file, info, condition)
        return info

    def get(self, key: ObjectKey, wanted: Range = WHOLE, *, condition: Condition = OVERWRITE) -> ObjectReader:
        """Open an object; see `ObjectStore.get`."""
        with os_errors_translated(key, writing=False):
            fd = self._tree.open(key)
            try:
                file = record.ObjectFile(self._disk, fd, key)
                condition.check(key, file.info)
                extent = wanted.of(file.info.size_bytes)
                if not isinstance(wanted, Tail):
                    return _Reader(self._disk, fd, file, extent)
                tail = TailReader(file.info, extent, file.read(extent.length, extent.offset))
            except BaseException:
                self._disk.close(fd)  # no reader takes it over
                raise
            self._disk.close(fd)
            return tail

    def stat(self, key: ObjectKey) -> ObjectInfo:
        """Tell what is known of an object; see `ObjectStore.stat`."""
        with os_errors_translated(key, writing=False), self._tree.opened(key) as fd:
            return record.read(self._disk, fd, key)

    def stat_many(self, keys: Sequence[ObjectKey]) -> list[ObjectInfo | HoldfastError | None]:
        """Tell what is known of each object; see `ObjectStore.stat_many`."""
        return stat_each(self.stat, keys)

    def delete(self, key: ObjectKey, *, condition: Condition = OVERWRITE) -> bool:
        """Remove an object; see `ObjectStore.delete`."""
        with os_errors_translated(key, writing=True), self._locks.of_key(key):
            self._check(condition, key)
            return self._tree.remove(key)

    def list(self, query: ListQuery) -> Iterator[Entry | CommonPrefix]:
        """Yield what the query asks for; see `ObjectStore.list`."""
        with os_errors_translated(f"the list of {query.prefix!r}", writing=False):
            yield from self._tree.list(query, self._entry_record)

    def copy(
        self,
        source: ObjectKey,
        target: ObjectKey,
        *,
        condition: Condition = OVERWRITE,
        source_condition: Condition = OVERWRITE,
        attributes: Attributes | None = None,
    ) -> ObjectInfo:
        """Store the source's bytes under the target too; see `ObjectStore.copy`.

        The checksums are copied with the bytes, so a damaged source makes a copy that is known to be damaged.
        """
        what = f"the copy of key {source.text!r} to {target.text!r}"
        with os_errors_translated(what, writing=True), self._tree.opened(source) as fd:
            file = record.ObjectFile(self._disk, fd, source)
            found = file.info
            source_condition.check(source, found)
            self._check(condition, target)
            info = replace(
                found,
                key=target,
                etag=secrets.token_hex(16),
                update_time=datetime.now(UTC),
                attributes=found.attributes if attributes is None else attributes,
            )
            crcs = file.read_crcs(pieces_touched(Extent(0, found.size_bytes)))
            with self._scratch.file() as copy:
                left = found.size_bytes
                while left:
                    calls.check()
                    copied = self._disk.copy(fd, copy.fd, left)
                    if not copied:
                        raise IntegrityFailed(source.text, "its file ends within its bytes")
                    left -= copied
                self._disk.write(copy.fd, record.encode(info, crcs))
                self._publish(copy, info, condition)
        return info

    def close(self) -> None:
        """Release directories, lock and scratch directory."""
        self._resources.close()

    def _publish(self, file: ScratchFile, info: ObjectInfo, condition: Condition) -> None:
        self._disk.fsync(file.fd)
        with self._locks.of_key(info.key):
            self._check(condition, info.key)
            self._tree.publish(file, info.key)

    def _check(self, condition: Condition, key: ObjectKey) -> None:
        if isinstance(condition, Overwrite):
            return  # and so a damaged object can be overwritten and deleted
        try:
            existing = self.stat(key)
        except ObjectNotFound:
            condition.check(key, None)
        else:
            try:
                condition.check(key, existing)
            except ObjectExists:
                self._tree.settle(key)  # that it is there is an answer that callers build on
                raise

    def _entry_record(self, fd: int, key: ObjectKey) -> EntryRecord | None:
        try:
            info = record.read(self._disk, fd, key)
        except IntegrityFailed as error:
            _log.warning("A damaged object was listed", extra={"fields": {"key": key.text, "error": error.message}})
            return None
        return EntryRecord(info.size_bytes, info.etag, info.update_time)
