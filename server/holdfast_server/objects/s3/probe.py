"""What a store can do, found out by doing it: with several writers, for some keep conditions only where there is one.

Everything happens below `holdfast/probe/<random>/` of the bucket's prefix, and is removed again.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import asdict, dataclass
from functools import partial
from threading import Barrier
from typing import Any

from holdfast_server import calls
from holdfast_server.errors import HoldfastError, Reason, Unavailable
from holdfast_server.objects.base import ConditionMode, ConditionModes
from holdfast_server.objects.conditions import Condition, CreateOnly, IfMatch, Overwrite
from holdfast_server.objects.s3.lists import children, parse, text, upload_id
from holdfast_server.objects.s3.messages import Answer, S3Refusal, Throttled, copy_source
from holdfast_server.objects.s3.record import bare_type, etag_of
from holdfast_server.objects.s3.requests import MeasuredClient

WRITERS = 3
"""How many try the same thing at once, where one may win."""

_TIMEOUT_SECONDS = 10.0
_THROTTLED_TRIES = 4
_THROTTLED_SECONDS = 1.0
"""Some stores let a key be written once a second."""

_BODY = b"holdfast probe\n"
_TYPE = "text/plain; charset=utf-8"
_METADATA = {"x-amz-meta-holdfast-probe": "a%20b"}
_HEADERS = {"Content-Type": _TYPE, **_METADATA}
_SOURCE = "basics"
_FIXED_NAMES = (_SOURCE, "nested", "nested/below")
_NO_ETAG = '"00000000000000000000000000000000"'


class StoreUnfit(Unavailable):
    """The store does not do what nothing can do without; the message says what."""

    def __init__(self, lacks: str) -> None:
        super().__init__(Reason.BACKEND_UNAVAILABLE, f"the S3 store cannot be used: {lacks}")
        self.lacks = lacks


@dataclass(frozen=True, slots=True)
class Findings:
    """What a store does. A condition counts only if one of several concurrent writers won, and no other."""

    nested_keys: bool = False
    put_create_only: bool = False
    put_if_match: bool = False
    large_put_create_only: bool = False
    large_put_if_match: bool = False
    delete_if_match: bool = False
    copy_create_only: bool = False
    copy_if_match: bool = False
    copy_if_source_matches: bool = False
    """Without it a copy can get the bytes of one object and what is known of another."""

    def put_mode(self, condition: Condition) -> ConditionMode:
        """Return how the store keeps the condition of a put in one request."""
        return _mode(self.put_create_only if isinstance(condition, CreateOnly) else self.put_if_match)

    def large_put_mode(self, condition: Condition) -> ConditionMode:
        """Return how the store keeps the condition of a put in parts."""
        return _mode(self.large_put_create_only if isinstance(condition, CreateOnly) else self.large_put_if_match)

    def copies(self, condition: Condition) -> bool:
        """Tell whether the store itself can copy: of the source that is meant, and under the condition."""
        if isinstance(condition, Overwrite):
            return self.copy_if_source_matches
        keeps = self.copy_create_only if isinstance(condition, CreateOnly) else self.copy_if_match
        return keeps and self.copy_if_source_matches

    @property
    def modes(self) -> ConditionModes:
        """How conditions are kept, by operation: for each its weaker one."""
        put = _mode(self.put_create_only and self.put_if_match)
        large = _mode(self.large_put_create_only and self.large_put_if_match)
        delete = ConditionMode.ATOMIC if self.delete_if_match else ConditionMode.UNSUPPORTED
        # What the store cannot copy under a condition goes through the server, and is a put there.
        copies = self.copies(CreateOnly()) and self.copies(IfMatch("any"))
        copy = ConditionMode.ATOMIC if copies else min(put, large)
        return ConditionModes(put, large, delete, copy)

    def items(self) -> Iterable[tuple[str, bool]]:
        """Return the findings by name."""
        return asdict(self).items()


UNKNOWN_MODES = ConditionModes(
    ConditionMode.UNKNOWN, ConditionMode.UNKNOWN, ConditionMode.UNKNOWN, ConditionMode.UNKNOWN
)


def probe(client: MeasuredClient, bucket: str, prefix: str) -> Findings:
    """Find out what the store does. Raises `StoreUnfit`, and what `S3Client.send` raises but refusals."""
    with _workplace(client, bucket, prefix) as place:
        place.check_basics()
        return Findings(
            nested_keys=place.lists_nested_keys(),
            # Twice, since most stands on it.
            put_create_only=place.keeps_create_only(place.begin_put) and place.keeps_create_only(place.begin_put),
            put_if_match=place.keeps_if_match(place.begin_put),
            large_put_create_only=place.keeps_create_only(place.begin_put_in_parts),
            large_put_if_match=place.keeps_if_match(place.begin_put_in_parts),
            delete_if_match=place.keeps_if_match_of_deletions(),
            copy_create_only=place.keeps_create_only(place.begin_copy),
            copy_if_match=place.keeps_if_match(place.begin_copy),
            copy_if_source_matches=place.keeps_condition_of_source(),
        )


Attempt = Callable[[dict[str, str]], Answer]
"""Makes an object under the condition that the headers are; may be called again where it was refused."""

Begin = Callable[[str], Attempt]
"""Does what comes before the conditional request to a path."""


class _Workplace:
    """Where a probe does what it does, and what it does there."""

    def __init__(self, client: MeasuredClient, bucket: str, root: str, writers: ThreadPoolExecutor) -> None:
        self._client = client
        self._bucket = bucket
        self._root = root
        self._writers = writers
        self._paths: list[str] = []
        self._uploads: list[tuple[str, str]] = []

    def check_basics(self) -> None:
        """Check that what was written is there at once, as it was written. Raises `StoreUnfit`."""
        path = self._path(_SOURCE)
        self._put(path, {})
        try:
            read = self._send("get", "GET", path, headers={"Range": "bytes=2-5"})
        except S3Refusal as refusal:
            raise StoreUnfit("what was written is not there at once") from refusal
        if read.body != _BODY[2:6]:
            raise StoreUnfit("it does not give a part of an object")
        _check_metadata(read)
        # So that none of those who race later has to make its connection first, and comes too late to race.
        self._at_once([lambda _conditions: self._send("head", "HEAD", path)] * WRITERS, {})

    def lists_nested_keys(self) -> bool:
        """Tell whether `a` and `a/b` can both be there, and are both listed."""
        paths = [self._path("nested"), self._path("nested/below")]
        self._put(paths[0], {})
        try:
            self._put(paths[1], {})
        except (S3Refusal, Unavailable):
            # Stores that make directories of keys fail at this, some with an internal error. If it is the store that
            # is unwell, what is asked next fails too.
            return False
        answer = self._send("list", "GET", query={"list-type": "2", "prefix": paths[0]})
        listed = parse(answer.body, "ListBucketResult")
        return {text(entry, "Key") for entry in children(listed, "Contents")} == set(paths)

    def keeps_create_only(self, begin: Begin) -> bool:
        """Tell whether of several that create the same object one wins, and one that comes later does not."""
        path = self._path("created")
        attempts = [begin(path) for _ in range(WRITERS)]
        conditions = {"If-None-Match": "*"}
        won = self._at_once(attempts, conditions)
        if any(won):
            _check_metadata(self._send("head", "HEAD", path))
        return sum(won) == 1 and not _wins(attempts[won.index(False)], conditions)

    def keeps_if_match(self, begin: Begin) -> bool:
        """Tell whether of several that replace the same object one wins, and none with another etag or none there."""
        path = self._path("replaced")
        attempts = [begin(path) for _ in range(WRITERS)]
        other = {"If-Match": _NO_ETAG}
        if _wins(attempts[0], other):  # there is nothing yet
            return False
        etag = etag_of(self._put(path, {}, _BODY * 2).headers)
        return not _wins(attempts[0], other) and sum(self._at_once(attempts, {"If-Match": f'"{etag}"'})) == 1

    def keeps_if_match_of_deletions(self) -> bool:
        """Tell whether an object is deleted with its own etag, and not with another."""
        path = self._path("deleted")
        etag = etag_of(self._put(path, {}).headers)
        attempts = [partial(self._delete, path)] * WRITERS
        return not any(self._at_once(attempts, {"If-Match": _NO_ETAG})) and any(
            self._at_once(attempts, {"If-Match": f'"{etag}"'})
        )

    def keeps_condition_of_source(self) -> bool:
        """Tell whether an object with its own etag is copied, and one with another is not."""
        copy = self.begin_copy(self._path("copied"))
        etag = etag_of(self._put(self._root + _SOURCE, {}).headers)
        condition = "x-amz-copy-source-if-match"
        return not _wins(copy, {condition: _NO_ETAG}) and _wins(copy, {condition: f'"{etag}"'})

    def begin_put(self, path: str) -> Attempt:
        """Put in one request."""
        return partial(self._put, path)

    def begin_put_in_parts(self, path: str) -> Attempt:
        """Put in parts, of which there is one; only the last request is conditional."""
        begun = self._send("create_upload", "POST", path, {"uploads": ""}, headers=_HEADERS)
        upload = upload_id(begun.body)
        self._uploads.append((path, upload))
        part = self._send("upload_part", "PUT", path, {"partNumber": "1", "uploadId": upload}, body=_BODY)
        rows = f"<Part><PartNumber>1</PartNumber><ETag>{part.headers.get('etag', '')}</ETag></Part>"
        document = f"<CompleteMultipartUpload>{rows}</CompleteMultipartUpload>".encode()

        def complete(conditions: dict[str, str]) -> Answer:
            query = {"uploadId": upload}
            answer = self._send("complete_upload", "POST", path, query, headers=conditions, body=document)
            self._uploads.remove((path, upload))
            return answer

        return complete

    def begin_copy(self, path: str) -> Attempt:
        """Copy what the check of the basics wrote."""
        source = {**copy_source(self._bucket, self._root + _SOURCE), "x-amz-metadata-directive": "REPLACE"}
        return lambda conditions: self._send("copy", "PUT", path, headers={**source, **_HEADERS, **conditions})

    def clean_up(self) -> None:
        """Remove all that is left, as far as that goes."""
        left = [("abort_upload", path, {"uploadId": upload}) for path, upload in self._uploads]
        left += [("delete", path, {}) for path in reversed(self._paths)]
        list(self._writers.map(self._try_to_remove, left))

    def _try_to_remove(self, left: tuple[str, str, dict[str, str]]) -> None:
        name, path, query = left
        with suppress(HoldfastError, S3Refusal):
            self._send(name, "DELETE", path, query)

    def _path(self, name: str) -> str:
        path = self._root + (name if name in _FIXED_NAMES else f"{name}-{len(self._paths)}")
        self._paths.append(path)
        return path

    def _at_once(self, attempts: Sequence[Attempt], conditions: dict[str, str]) -> list[bool]:
        """Make all attempts at once, and return which of them succeeded."""
        start = Barrier(len(attempts), timeout=_TIMEOUT_SECONDS)

        def make(attempt: Attempt) -> bool:
            start.wait()
            return _wins(attempt, conditions)

        making = [self._writers.submit(copy_context().run, make, attempt) for attempt in attempts]
        wait(making)  # also where one fails: what is made behind the back of `clean_up` would stay
        return [made.result() for made in making]

    def _put(self, path: str, conditions: dict[str, str], body: bytes = _BODY) -> Answer:
        return self._send("put", "PUT", path, headers={**_HEADERS, **conditions}, body=body)

    def _delete(self, path: str, conditions: dict[str, str]) -> Answer:
        return self._send("delete", "DELETE", path, headers=conditions)

    def _send(self, *request: Any, **more: Any) -> Answer:
        """Send a request as `MeasuredClient.ask` does, and wait where the store wants to be asked less often."""
        for _ in range(_THROTTLED_TRIES):
            try:
                return self._client.ask(*request, **more, timeout_seconds=_TIMEOUT_SECONDS)
            except Throttled:
                calls.pause(_THROTTLED_SECONDS, "a store that has too much to do")
        return self._client.ask(*request, **more, timeout_seconds=_TIMEOUT_SECONDS)


def _check_metadata(answer: Answer) -> None:
    content_type = bare_type(answer.headers.get("content-type", ""))
    if content_type != bare_type(_TYPE) or any(answer.headers.get(name) != value for name, value in _METADATA.items()):
        raise StoreUnfit("it does not keep the metadata of objects")


def _wins(attempt: Attempt, conditions: dict[str, str]) -> bool:
    try:
        attempt(conditions)
    except S3Refusal:
        return False
    return True


@contextmanager
def _workplace(client: MeasuredClient, bucket: str, prefix: str) -> Iterator[_Workplace]:
    root = f"{prefix}holdfast/probe/{secrets.token_hex(8)}/"
    with ThreadPoolExecutor(WRITERS, thread_name_prefix="probe") as writers:
        place = _Workplace(client, bucket, root, writers)
        try:
            yield place
        finally:
            place.clean_up()


def _mode(is_atomic: bool) -> ConditionMode:  # noqa: FBT001 (what it is about is in its name)
    return ConditionMode.ATOMIC if is_atomic else ConditionMode.CHECKED
