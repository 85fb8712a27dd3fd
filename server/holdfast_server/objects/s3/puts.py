"""Puts: which way an object's bytes go into the bucket, and how its condition is kept.

What one request takes goes in one request. What is more goes in parts: as it arrives where its sha256 is declared, else
through the spool, for the metadata of an object is fixed before its first byte.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain

from holdfast_server import calls
from holdfast_server.errors import (
    ConcurrentModification,
    HoldfastError,
    IntegrityFailed,
    Reason,
    Unavailable,
)
from holdfast_server.objects.base import ConditionMode, NamedByContent
from holdfast_server.objects.body import Body
from holdfast_server.objects.conditions import Condition, IfMatch, Overwrite
from holdfast_server.objects.info import Attributes, ObjectInfo
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.s3 import layout, record
from holdfast_server.objects.s3.heads import Heads, condition_headers
from holdfast_server.objects.s3.lists import parse, text
from holdfast_server.objects.s3.messages import Answer, Request, S3Refusal
from holdfast_server.objects.s3.probe import Findings
from holdfast_server.objects.s3.requests import MeasuredClient, Requests
from holdfast_server.objects.s3.uploads import Parts, Upload, part_size
from holdfast_server.objects.spool import Spool, SpooledFile

_TRIES = 5
"""How often a conditional write is begun anew whose condition holds when looked at, and did not when it was made."""

_PAUSE_SECONDS = 0.05
_LOCKS = 64

Write = Callable[[dict[str, str]], Answer | None]
"""Makes the object under its key; is given the headers of the condition. None: a lost answer had told that it is there.

Raises `S3Refusal`, and `_Unclear` where an answer was lost before it.
"""


@dataclass(frozen=True, slots=True)
class New:
    """An object on its way into the bucket; `write_id` names this put, to know it again."""

    key: ObjectKey
    size_bytes: int
    sha256: bytes
    attributes: Attributes
    write_id: str


class Puts:
    """Puts objects into the bucket. `findings` tells which conditions the store keeps."""

    def __init__(
        self,
        requests: Requests,
        heads: Heads,
        spool: Spool,
        part_bytes: int,
        findings: Callable[[], Findings],
    ) -> None:
        self._requests = requests
        self._heads = heads
        self._spool = spool
        self._part_bytes = part_bytes
        self._findings = findings
        self._locks = [threading.Lock() for _ in range(_LOCKS)]

    def put(
        self, name: ObjectKey | NamedByContent, body: Body, condition: Condition, attributes: Attributes
    ) -> ObjectInfo:
        """Store the body's bytes; see `ObjectStore.put`."""
        pieces = iter(body)
        begun: list[bytes] = []
        size = 0
        for piece in pieces:
            begun.append(piece)
            size += len(piece)
            if size > layout.PLAIN_BYTES:
                return self._put_larger(name, body, chain(_handed_on(begun), pieces), condition, attributes)
        new = _new(name, body, attributes)
        headers = record.headers_of(attributes, new.sha256, new.write_id, crcs=body.digests.piece_crc32c)
        data = begun[0] if len(begun) == 1 else b"".join(begun)
        return self._put_whole(new, headers, memoryview(data), condition)

    def publish(self, new: New, condition: Condition, mode: ConditionMode, write: Write) -> ObjectInfo:
        """Make an object under its condition, which the store keeps as `mode` says; tells what became of it."""
        for _ in range(_TRIES):
            try:
                return self._publish(new, condition, mode, write)
            except _Raced:
                calls.pause(_PAUSE_SECONDS, "another write of the key")
        message = f"key {new.key.text!r} was written by others each time that it was tried"
        raise ConcurrentModification(message, key=new.key.text)

    def make(self, request: Request, new: New) -> Answer | None:
        """Send the request that makes the object; see `Write`.

        After a lost answer it is looked at first: what is made twice could undo what others did in between.
        """
        is_unclear = False

        def act(client: MeasuredClient, number: int) -> Answer | None:
            nonlocal is_unclear
            if number and self._is_there(client, new):
                return None
            is_unclear = number > 0
            return client.send(request)

        try:
            return self._requests.retry(act)
        except S3Refusal as refusal:
            if is_unclear:
                raise _Unclear(refusal.status, refusal.code, refusal.headers) from None
            raise
        except Unavailable:
            with suppress(HoldfastError):
                if self._heads.is_by(new.key, new.write_id):
                    return None
            raise

    def _is_there(self, client: MeasuredClient, new: New) -> bool:
        try:
            return self._heads.by(client).is_by(new.key, new.write_id)
        except IntegrityFailed:
            return False

    def _publish(self, new: New, condition: Condition, mode: ConditionMode, write: Write) -> ObjectInfo:
        headers = condition_headers(condition)
        if mode is ConditionMode.ATOMIC and headers is not None:
            return self._written(new, condition, write, headers)
        with self._alone_with(new.key):
            if not isinstance(condition, Overwrite):
                condition.check(new.key, self._heads.find_info(new.key))
            return self._written(new, condition, write, {})

    def _written(self, new: New, condition: Condition, write: Write, headers: dict[str, str]) -> ObjectInfo:
        try:
            answer = write(headers)
        except S3Refusal as refusal:
            if not (refusal.is_conflict or refusal.is_missing):
                raise
            return self._what_became(new, condition, refusal)
        if answer is None:
            return self._found(new)
        etag = record.etag_of(answer.headers) or _etag_in(answer.body)
        update_time = record.time_of(answer.headers)
        if not etag or update_time is None:
            return self._found(new)
        return ObjectInfo(new.key, new.size_bytes, etag, new.sha256, new.attributes, update_time)

    def _found(self, new: New) -> ObjectInfo:
        """Return our own object, of which the answer did not tell enough. Raises `Unavailable` if it is not there."""
        existing = self._heads.find(new.key)
        if existing is None or existing.write_id != new.write_id:
            message = "the S3 store took an object that is not there"
            raise Unavailable(Reason.BACKEND_UNAVAILABLE, message)
        return existing.info

    def _what_became(self, new: New, condition: Condition, refusal: S3Refusal) -> ObjectInfo:
        """Return our own object, if a lost answer is behind the refusal; else raise what is."""
        existing = self._heads.find(new.key)
        if existing is not None and existing.write_id == new.write_id:
            return existing.info
        there = None if existing is None else existing.info
        is_fresh = isinstance(condition, IfMatch) and (there is None or there.etag != condition.etag)
        if isinstance(refusal, _Unclear) and is_fresh:
            # Ours may have been made and replaced since: who counts by compare-and-set must not count it again.
            message = f"it is not known whether key {new.key.text!r} was written: an answer was lost"
            raise Unavailable(Reason.BACKEND_UNAVAILABLE, message) from None
        condition.check(new.key, there)
        if refusal.code == "NoSuchUpload":
            message = "the S3 store lost an upload before it was complete"
            raise Unavailable(Reason.BACKEND_UNAVAILABLE, message) from None
        raise _Raced from None

    def _put_larger(
        self,
        name: ObjectKey | NamedByContent,
        body: Body,
        pieces: Iterator[bytes],
        condition: Condition,
        attributes: Attributes,
    ) -> ObjectInfo:
        declared = body.header.size_bytes
        stored = None if declared is None else layout.stored_size_of(declared)
        size = part_size(stored, self._part_bytes)
        seed = layout.new_seed()
        frames = layout.framed(pieces, body.piece_crc32c, seed)
        parts = Parts(size if stored is None else min(size, stored)).cut(frames)
        first = next(parts)
        if body.is_complete:
            new = _new(name, body, attributes)
            headers = record.headers_of(attributes, new.sha256, new.write_id, seed=seed, size_bytes=new.size_bytes)
            return self._put_whole(new, headers, first, condition)
        if isinstance(name, ObjectKey) and not isinstance(condition, Overwrite):
            # So that nobody sends a terabyte to learn at its end that the key is taken.
            condition.check(name, self._heads.find_info(name))
        parts = chain([first], parts)
        del first  # with it its buffer would be kept
        if isinstance(name, ObjectKey) and body.header.sha256 is not None:
            # Its size is known at the end.
            new = New(name, -1, body.header.sha256, attributes, record.new_write_id())
            return self._put_in_parts(new, body, parts, seed, condition)
        with self._spool.open() as spooled:
            _write(parts, spooled)
            size = part_size(spooled.size_bytes, self._part_bytes)
            again = Parts(size).cut(_read_back(spooled))
            return self._put_in_parts(_new(name, body, attributes), body, again, seed, condition)

    def _put_whole(self, new: New, headers: dict[str, str], data: memoryview, condition: Condition) -> ObjectInfo:
        path = self._heads.path(new.key)

        def write(conditions: dict[str, str]) -> Answer | None:
            return self.make(Request("put", "PUT", path, headers={**headers, **conditions}, body=data), new)

        return self.publish(new, condition, self._findings().put_mode(condition), write)

    def _put_in_parts(
        self, new: New, body: Body, parts: Iterator[memoryview], seed: bytes, condition: Condition
    ) -> ObjectInfo:
        size = body.digests.size_bytes if body.is_complete else body.header.size_bytes
        headers = record.headers_of(new.attributes, new.sha256, new.write_id, seed=seed, size_bytes=size)
        with Upload(self._requests, self._heads.path(new.key), headers) as upload:
            for part in parts:
                upload.send(part)
            whole = replace(new, size_bytes=body.digests.size_bytes)

            def write(conditions: dict[str, str]) -> Answer | None:
                request = upload.completion(conditions)
                with upload.completing():
                    return self.make(request, whole)

            return self.publish(whole, condition, self._findings().large_put_mode(condition), write)

    @contextmanager
    def _alone_with(self, key: ObjectKey) -> Iterator[None]:
        """Keep other conditional writes of this process away from a key, where the store does not."""
        lock = self._locks[hash(key.text) % _LOCKS]
        while not lock.acquire(timeout=min(1.0, calls.time_left() or 1.0)):
            calls.check("waiting for another write of the key")
        try:
            yield
        finally:
            lock.release()


class _Unclear(S3Refusal):
    """A refusal after an answer that was lost."""


class _Raced(Exception):
    """A condition did not hold when the write was made, and holds when looked at."""


def _new(name: ObjectKey | NamedByContent, body: Body, attributes: Attributes) -> New:
    digests = body.digests
    key = name if isinstance(name, ObjectKey) else name.key_of(digests.sha256)
    return New(key, digests.size_bytes, digests.sha256, attributes, record.new_write_id())


def _handed_on(pieces: list[bytes]) -> Iterator[bytes]:
    """Yield the pieces and keep none: else they would be held for as long as the upload takes."""
    while pieces:
        yield pieces.pop(0)


def _etag_in(document: bytes) -> str:
    """Return the etag in an answer to a copy or to the end of an upload; empty if that is another document."""
    try:
        root = parse(document, "CopyObjectResult", "CompleteMultipartUploadResult")
    except Unavailable:
        return ""
    return text(root, "ETag").strip('"')


def _write(parts: Iterator[memoryview], spooled: SpooledFile) -> None:
    """Write the parts, and keep none: their buffers' room is needed for what is read back."""
    for part in parts:
        spooled.write(part)


def _read_back(spooled: SpooledFile) -> Iterator[bytes]:
    for chunk in spooled.chunks(0, spooled.size_bytes):
        yield chunk.data
