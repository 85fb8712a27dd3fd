"""Directories and the blobs under a prefix: made the same, with no more sent than has to be."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from holdfast.batches import NewBlob
from holdfast.blobs import Blobs
from holdfast.errors import (
    Cancelled,
    ConditionUnsupported,
    DeadlineExceeded,
    HoldfastError,
    IntegrityFailed,
    InvalidArgument,
    NotFound,
    Overloaded,
    PreconditionFailed,
    Unavailable,
)
from holdfast.results import BlobEntry, BlobInfo
from holdfast.retrying import PASSING
from holdfast.trees import FileChanged, Found, NotAFile, SteadyFile, Tree
from holdfast.uploads import Progress

MAX_SMALL_BYTES = 256 << 10
"""Files up to this size go up in batches; larger ones are streamed."""

_MAX_GROUP_FILES = 2000
"""As many as one request asks for: what is missing of them is stored before the next are asked for."""
_MAX_GROUP_BYTES = 16 << 20
"""What is held in memory until it is known what of it is missing."""

_MAX_KEY_BYTES = 900
"""By `blob_store.proto`."""

_REMOVED_AT_ONCE = 1000

_NO_ANSWER = (Unavailable, Overloaded, DeadlineExceeded, Cancelled)
"""After these the next file would fare no better."""

_LOOK_AGAIN = (PreconditionFailed, ConditionUnsupported, *PASSING)
"""After these a blob that is to be removed may be gone, or changed, or just as it was."""

_TRIES = 2


class SyncOutcome(StrEnum):
    """What became of a file, or of a blob."""

    STORED = "stored"
    """It was not there, or with other bytes, or its record was damaged."""
    PRESENT = "present"
    """It was there already, by its record with the same bytes: that these are damaged at rest is not noticed."""
    REMOVED = "removed"
    """The directory lacks it."""
    PASSED_OVER = "passed_over"
    """It is a link, a socket or a device."""
    FAILED = "failed"
    """All is as it was."""


@dataclass(frozen=True, slots=True)
class Synced:
    """What became of the file at `path` (from the directory on, with `/`) and of the blob under `key`.

    What is not UTF-8 in a path stands there as `os.fsdecode` has it; then, and where a whole directory failed, the key
    is None. `why` is for people, with PASSED_OVER and FAILED.
    """

    path: str
    key: str | None
    outcome: SyncOutcome
    size_bytes: int = 0
    why: str = ""


def sync_directory(
    blobs: Blobs,
    directory: Path | str,
    prefix: str,
    *,
    delete: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Iterator[Synced]:
    """Make the blobs under `prefix` what the files of `directory` are, and yield what became of each.

    To be iterated to its end. A file's key is the prefix, a `/` unless it is empty or ends in one, and the file's path.
    Blobs that are there with the same sha256 are left alone, as are their content type and metadata; others are
    overwritten and have none. Links are not followed. A file that fails is told, and the others go on; one that changes
    while it is read is tried once again. Interrupted, it is to be run again: what was stored is found to be there.

    `delete`: afterwards the blobs under the prefix that the directory lacks are removed, if nothing failed and there
    was any file at all; an empty prefix means every blob. What others change between list and deletion is left, and
    fails. Where the store cannot keep that condition (`ConditionUnsupported`), and where the blob is damaged and has no
    etag, it is listed once more right before it is deleted: what is changed between these two is lost.
    `dry_run`: nothing is changed, only told.
    `progress(bytes dealt with, bytes in all)` is called along the way; for it the directory is walked twice.

    Raises `OSError` for the directory itself, `InvalidArgument` for the prefix, and what concerns all files, such as
    `Unavailable`.
    """
    before_path = prefix if not prefix or prefix.endswith("/") else f"{prefix}/"
    with Tree(directory) as tree:
        yield from _Sync(blobs, tree, before_path, dry_run, progress).run(delete=delete)


@dataclass(frozen=True, slots=True)
class _Small:
    """A small file, as it was read."""

    path: str
    key: str
    data: bytes
    sha256: bytes

    def became(self, outcome: SyncOutcome, why: object = "") -> Synced:
        return Synced(self.path, self.key, outcome, len(self.data), str(why))


class _Sync:
    """One run. `prefix` is what stands before the path in every key."""

    def __init__(self, blobs: Blobs, tree: Tree, prefix: str, dry_run: bool, progress: Progress | None) -> None:  # noqa: FBT001 (named by `sync_directory`)
        self._blobs = blobs
        self._tree = tree
        self._prefix = prefix
        self._dry_run = dry_run
        self._progress = progress
        self._max_path_bytes = _MAX_KEY_BYTES - len(prefix.encode(errors="replace"))
        self._total: int | None = None
        self._done = 0

    def run(self, *, delete: bool) -> Iterator[Synced]:
        self._check_prefix()
        if self._progress is not None:
            self._total = self._tree.total_bytes(self._max_path_bytes)
        files, failed = 0, False
        for became in self._stored():
            self._move(became.size_bytes)
            files += became.outcome is not SyncOutcome.PASSED_OVER
            failed = failed or became.outcome is SyncOutcome.FAILED
            yield became
        if not delete or failed:
            return
        if not files:
            # What is usually there is not, such as the disk that should be mounted here.
            yield Synced("", None, SyncOutcome.FAILED, why="there is no file in it, and so nothing is removed")
            return
        yield from self._removed()

    def _check_prefix(self) -> None:
        """Raise `InvalidArgument` if no key can start with the prefix: told once, and not of each file."""
        (answer,) = self._blobs.find_missing([f"{self._prefix}x"])
        if isinstance(answer, InvalidArgument):
            message = f"prefix {self._prefix!r}: {answer.message}"
            raise InvalidArgument(answer.reason, message, answer.details, field="prefix")

    def _stored(self) -> Iterator[Synced]:
        group: list[_Small] = []
        group_bytes = 0
        for found in self._tree.walk(self._max_path_bytes):
            read = self._read(found)
            if isinstance(read, Synced):
                yield read
                continue
            if len(group) == _MAX_GROUP_FILES or group_bytes + len(read.data) > _MAX_GROUP_BYTES:
                yield from self._settled(group)
                group, group_bytes = [], 0
            group.append(read)
            group_bytes += len(read.data)
        yield from self._settled(group)

    def _read(self, found: Found) -> _Small | Synced:
        """Read a small file, or deal with what is none."""
        path = found.path.decode(errors="surrogateescape")
        key = None
        outcome = SyncOutcome.FAILED
        try:
            if found.other:
                raise NotAFile(found.other)
            if found.why:
                return Synced(path, None, outcome, why=found.why)
            key = self._prefix + found.path.decode()
            return self._read_file(found.path, path, key)
        except UnicodeDecodeError:
            why = "its name is not UTF-8, as keys are"
        except NotAFile as other:
            outcome, why = SyncOutcome.PASSED_OVER, f"it is {other}"
        except FileNotFoundError:
            why = "it vanished before it was read"
        except OSError as error:
            why = error.strerror or str(error)
        except _NO_ANSWER:
            raise
        except HoldfastError as error:
            why = error.message
        return Synced(path, key, outcome, why=why)

    def _read_file(self, local: bytes, path: str, key: str) -> _Small | Synced:
        for _ in range(_TRIES):
            try:
                with self._tree.open(local) as file:
                    if file.size_bytes > MAX_SMALL_BYTES:
                        return Synced(path, key, self._large(key, file), file.size_bytes)
                    data = file.read_all()
            except FileChanged:
                continue
            return _Small(path, key, data, hashlib.sha256(data).digest())
        return Synced(path, key, SyncOutcome.FAILED, why="it changed while it was read, twice")

    def _large(self, key: str, file: SteadyFile) -> SyncOutcome:
        there = self._stat(key)
        if there is not None and there.size_bytes == file.size_bytes and there.sha256 == file.sha256(self._sending):
            return SyncOutcome.PRESENT
        if not self._dry_run:
            self._blobs.put(key, file, size_bytes=file.size_bytes, progress=self._sending)
        return SyncOutcome.STORED

    def _stat(self, key: str) -> BlobInfo | None:
        try:
            return self._blobs.stat(key)
        except (NotFound, IntegrityFailed):
            return None

    def _settled(self, group: list[_Small]) -> Iterator[Synced]:
        """Find out which of the files are missing, and store those."""
        missing: list[_Small] = []
        answers = self._blobs.find_missing([small.key for small in group], [small.sha256 for small in group])
        for small, answer in zip(group, answers, strict=True):
            if answer is False:
                yield small.became(SyncOutcome.PRESENT)
            elif answer is True or isinstance(answer, IntegrityFailed):
                missing.append(small)
            else:
                yield small.became(SyncOutcome.FAILED, answer)
        if self._dry_run:
            yield from (small.became(SyncOutcome.STORED) for small in missing)
            return
        results = self._blobs.put_many(NewBlob(small.key, small.data) for small in missing)
        for small, result in zip(missing, results, strict=True):
            if isinstance(result, HoldfastError):
                yield small.became(SyncOutcome.FAILED, result)
            else:
                yield small.became(SyncOutcome.STORED)

    def _removed(self) -> Iterator[Synced]:
        entries = (entry for entry in self._blobs.list(self._prefix) if isinstance(entry, BlobEntry))
        surplus: list[BlobEntry] = []
        for entry in entries:
            try:
                if self._tree.lacks(entry.key.removeprefix(self._prefix).encode()):
                    surplus.append(entry)
            except OSError as error:
                yield self._without_file(entry.key, error.strerror or str(error))
            if len(surplus) == _REMOVED_AT_ONCE:
                yield from self._delete(surplus)
                surplus = []
        yield from self._delete(surplus)

    def _delete(self, surplus: list[BlobEntry]) -> Iterator[Synced]:
        if self._dry_run:
            yield from (self._without_file(entry.key, "") for entry in surplus)
            return
        # What is damaged has no etag that could be asked for.
        sound = [entry for entry in surplus if not entry.damaged]
        for entry, result in zip(sound, self._delete_listed(sound), strict=True):
            if isinstance(result, _LOOK_AGAIN):
                yield self._delete_alone(entry)
            else:
                yield self._without_file(entry.key, str(result) if isinstance(result, HoldfastError) else "")
        yield from (self._delete_alone(entry) for entry in surplus if entry.damaged)

    def _delete_listed(self, entries: list[BlobEntry]) -> Sequence[bool | HoldfastError]:
        try:
            return list(self._blobs.delete_many([entry.key for entry in entries], [entry.etag for entry in entries]))
        except PASSING as error:  # a condition is not tried again
            return [error] * len(entries)

    def _delete_alone(self, entry: BlobEntry) -> Synced:
        """Delete a blob if it is as it was listed: it is listed again, since that shows damaged ones as well."""
        try:
            now = next(self._blobs.list(entry.key, page_size=1), None)
            if isinstance(now, BlobEntry) and now.key == entry.key:
                if now != entry:
                    return self._without_file(entry.key, "it was changed after it was listed, and is left")
                self._delete_unchanged(entry)
        except _NO_ANSWER:
            raise
        except HoldfastError as error:
            return self._without_file(entry.key, str(error))
        return self._without_file(entry.key, "")

    def _delete_unchanged(self, entry: BlobEntry) -> None:
        try:
            self._blobs.delete(entry.key, if_match_etag=entry.etag)
        except ConditionUnsupported:
            self._blobs.delete(entry.key)

    def _without_file(self, key: str, why: str) -> Synced:
        outcome = SyncOutcome.FAILED if why else SyncOutcome.REMOVED
        return Synced(key.removeprefix(self._prefix), key, outcome, why=why)

    def _sending(self, sent: int, _size: int | None = None) -> None:
        if self._progress is not None:
            self._progress(self._done + sent, self._total)

    def _move(self, size: int) -> None:
        self._done += size
        if self._progress is not None:
            self._progress(self._done, self._total)
