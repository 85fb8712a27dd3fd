"""Uploads in parts: bytes that are more than one request takes, from a stream or from the spool."""

import logging
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from typing import Self
from xml.sax.saxutils import escape

from holdfast_server import calls
from holdfast_server.errors import HoldfastError, InvalidArgument, Reason, Unavailable
from holdfast_server.objects.s3.lists import upload_id
from holdfast_server.objects.s3.messages import WORK_SECONDS, Request, S3Refusal
from holdfast_server.objects.s3.requests import NotDone, Requests

MOST_PARTS = 10_000
"""S3's limit."""

_log = logging.getLogger(__name__)

_FIRST_BYTES = 8 << 20
_ABORT_SECONDS = 10.0
_MIB = 1 << 20


def part_size(stored_bytes: int | None, configured: int) -> int:
    """Return how large parts must be for an object of this size to fit into S3's 10,000; None: it is not known."""
    if stored_bytes is None:
        return configured
    needed = -(-stored_bytes // MOST_PARTS)
    return max(configured, -(-needed // _MIB) * _MIB)


class Parts:
    """Cuts a stream into parts of one size, in two buffers that take turns: one is filled while one is sent."""

    def __init__(self, part_bytes: int) -> None:
        self._part_bytes = part_bytes
        # It grows with what comes: who declares a terabyte and sends a byte gets no room for a part of a terabyte.
        self._buffers = [bytearray(min(part_bytes, _FIRST_BYTES))]
        self._filled = 0

    @property
    def _part(self) -> memoryview:
        return memoryview(self._buffers[0])[: self._filled]

    def _take(self, data: memoryview) -> memoryview:
        end = self._filled + len(data)
        fits = data[: self._part_bytes - self._filled] if end > self._part_bytes else data
        self._make_room(self._filled + len(fits))
        self._buffers[0][self._filled : self._filled + len(fits)] = fits
        self._filled += len(fits)
        return data[len(fits) :]

    def _make_room(self, size: int) -> None:
        buffer = self._buffers[0]
        if len(buffer) < size:
            larger = min(max(2 * len(buffer), size), self._part_bytes)
            buffer.extend(bytes(larger - len(buffer)))

    def _begin_next(self) -> None:
        if len(self._buffers) == 1:
            self._buffers.append(bytearray(self._part_bytes))
        self._buffers.reverse()
        self._filled = 0

    def cut(self, stream: Iterator[bytes]) -> Iterator[memoryview]:
        """Yield the parts of a stream: the last one, the only one that may be short, when the stream has ended.

        So whoever checks the stream at its end has withheld its last part until then. A part is valid until the next
        but one is asked for.
        """
        for data in stream:
            rest = memoryview(data)
            while rest:
                if self._filled == self._part_bytes:
                    yield self._part
                    self._begin_next()
                rest = self._take(rest)
        yield self._part


@dataclass(frozen=True, slots=True)
class _Part:
    number: int
    etag: str


class Upload:
    """An upload in parts to one key. A context manager: what was not completed is aborted at its end.

    One part at a time is on its way, on a thread of its own, while the next one is filled. Nothing is aborted of which
    it is not known whether it was completed: some stores damage the object then that they are at work at.
    """

    def __init__(self, requests: Requests, path: str, headers: dict[str, str]) -> None:
        self._requests = requests
        self._path = path
        answer = requests.send(Request("create_upload", "POST", path, {"uploads": ""}, headers))
        self._id = upload_id(answer.body)
        if not self._id:
            raise Unavailable(Reason.BACKEND_UNAVAILABLE, "the S3 store began an upload and gave it no name")
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="upload")
        self._sending: Future[_Part] | None = None
        self._parts: list[_Part] = []
        self._is_kept = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sender.shutdown(wait=True)
        if not self._is_kept:
            self._abort()

    def send(self, part: memoryview) -> None:
        """Send a part, once the one before has been taken; return while it is on its way.

        Raises what became of the one before, and `InvalidArgument` (TOO_LARGE) for more parts than S3 takes.
        """
        self._wait()
        number = len(self._parts) + 1
        if number > MOST_PARTS:
            message = (
                f"an upload of more than {MOST_PARTS} parts must declare its size_bytes, so that they are made larger"
            )
            raise InvalidArgument(Reason.TOO_LARGE, "size_bytes", message)
        self._sending = self._sender.submit(copy_context().run, self._send, number, part)

    def completion(self, conditions: dict[str, str]) -> Request:
        """Return the request that makes the object of the parts; `conditions` are headers."""
        self._wait()
        rows = "".join(
            f"<Part><PartNumber>{part.number}</PartNumber><ETag>{escape(part.etag)}</ETag></Part>"
            for part in self._parts
        )
        body = f"<CompleteMultipartUpload>{rows}</CompleteMultipartUpload>".encode()
        headers = {"Content-Type": "application/xml", **conditions}
        query = {"uploadId": self._id}
        return Request("complete_upload", "POST", self._path, query, headers, body, work_seconds=WORK_SECONDS)

    @contextmanager
    def completing(self) -> Iterator[None]:
        """Send the completion within the block: unless that is refused, nothing is aborted from then on."""
        self._is_kept = True
        try:
            yield
        except (S3Refusal, NotDone):
            self._is_kept = False
            raise

    def _wait(self) -> None:
        sending, self._sending = self._sending, None
        if sending is not None:
            try:
                self._parts.append(sending.result())
            finally:
                del sending  # its error would lead back to it, and not be let go of

    def _send(self, number: int, part: memoryview) -> _Part:
        query = {"partNumber": str(number), "uploadId": self._id}
        try:
            answer = self._requests.send(Request("upload_part", "PUT", self._path, query, body=part))
        except S3Refusal as refusal:
            if refusal.is_missing or refusal.is_conflict:
                # As a refusal it would be taken for one of `complete`, and the object be made without this part.
                raise Unavailable(Reason.BACKEND_UNAVAILABLE, "the S3 store lost an upload") from refusal
            raise
        etag = answer.headers.get("etag", "")
        if not etag:
            raise Unavailable(Reason.BACKEND_UNAVAILABLE, "the S3 store took a part and gave it no etag")
        return _Part(number, etag)

    def _abort(self) -> None:
        # Also for a caller that is gone, whose patience would end this at once. What cannot be aborted now is swept.
        try:
            with calls.working_for(calls.Call(time.monotonic() + _ABORT_SECONDS)):
                self._requests.send(Request("abort_upload", "DELETE", self._path, {"uploadId": self._id}))
        except (HoldfastError, S3Refusal) as error:
            _log.info("An upload was not aborted", extra={"fields": {"key": self._path, "error": str(error)}})
