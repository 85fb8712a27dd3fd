"""Requests and answers as the backend speaks of them, and what an answer that is an error means."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import quote

from holdfast_server.errors import BackendRefused, HoldfastError, InvalidArgument, Reason, StorageFull, Unavailable
from holdfast_server.objects.breaker import AnsweredFailure

WORK_SECONDS = 600.0
"""How long a store may be at work at a copy, or at making one object of its parts: it answers bit by bit meanwhile."""

_REFUSED = (401, 403)
_NOT_FOUND = 404
_MISSING_CODES = ("NoSuchKey", "NoSuchUpload")
_CONFLICTS = (409, 412)
_RANGE_NOT_SATISFIABLE = 416
_CONFLICT_CODES = ("PreconditionFailed", "ConditionalRequestConflict")
_REDIRECTS = (301, 302, 303, 307, 308)
_TOO_MANY = 429
_SERVER_ERROR = 500
_NOT_IMPLEMENTED = 501
_INSUFFICIENT_STORAGE = 507

_TRY_AGAIN_CODES = frozenset(
    {
        "BadDigest",
        "IncompleteBody",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "XAmzContentSHA256Mismatch",
    }
)
"""What a 4xx can say of a request that was right: it came too slowly, too often, or altered."""

_THROTTLED_CODES = frozenset(
    {"RequestLimitExceeded", "SlowDown", "SlowDownRead", "SlowDownWrite", "Throttling", "TooManyRequests"}
)

_AUTH_CODES = frozenset(
    {
        "AuthorizationHeaderMalformed",
        "AuthorizationQueryParametersError",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    }
)
_KEY_CODES = frozenset(
    {"InvalidObjectName", "InvalidURI", "KeyTooLongError", "XMinioInvalidObjectName", "XMinioInvalidResourceName"}
)
_FULL_CODES = frozenset({"InsufficientStorage", "XMinioStorageFull"})
_QUOTA_CODES = frozenset({"QuotaExceeded", "XMinioAdminBucketQuotaExceeded"})

_ERROR_CODE = re.compile(rb"<Code>\s*([A-Za-z0-9.]{1,64})\s*</Code>")


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `name` is what metrics call it; `key` is the whole one, the prefix included (empty: the bucket).

    `timeout_seconds` bounds connecting and each wait for bytes, where it is shorter than what the options say.
    `work_seconds` is how long the whole answer may take to come, for requests that the store answers bit by bit while
    it is at work; None: as long as one wait.
    """

    name: str
    method: str
    key: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | memoryview = b""
    timeout_seconds: float | None = None
    work_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that was no error: its status, its headers by lower-case name, and its body."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


class S3Refusal(Exception):
    """An answer that says no, and means something to whoever asked: status, S3's code (or empty), and headers."""

    def __init__(self, status: int, code: str, headers: Mapping[str, str]) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code
        self.headers = headers

    @property
    def is_missing(self) -> bool:
        """Whether there is nothing under the key, or no such upload."""
        return self.status == _NOT_FOUND or self.code in _MISSING_CODES

    @property
    def is_conflict(self) -> bool:
        """Whether a condition did not hold, or another write of the same key got in between."""
        return self.status in _CONFLICTS or self.code in _CONFLICT_CODES

    @property
    def is_out_of_range(self) -> bool:
        """Whether the object has none of the bytes asked for."""
        return self.status == _RANGE_NOT_SATISFIABLE


class Unexplained(S3Refusal):
    """The refusal of a HEAD, whose answer has no body to say why."""


class Throttled(AnsweredFailure):
    """The store is there, and wants to be asked less often: some let a key be written once a second."""


def copy_source(bucket: str, path: str) -> dict[str, str]:
    """Return the header that names what to copy."""
    return {"x-amz-copy-source": quote(f"/{bucket}/{path}")}


def why(request: Request) -> Request:
    """Return what asks why a HEAD was refused: a GET, whose refusal has a body to say it."""
    query = {} if request.key else {"list-type": "2", "max-keys": "1"}
    headers = {"Range": "bytes=0-0"} if request.key else {}
    return replace(request, name="ask_why", method="GET", query=query, headers=headers)


def error_of(request: Request, bucket: str, status: int, code: str) -> HoldfastError | None:
    """Return what an answer means whatever was asked for; None: it depends on that."""
    said = code or f"HTTP {status}"
    if code == "NoSuchBucket":
        message = f"the bucket {bucket!r} does not exist"
        return BackendRefused(Reason.BUCKET_MISSING, message, bucket=bucket)
    if code in _KEY_CODES:
        field = "key" if request.key else "prefix"
        return InvalidArgument(Reason.INVALID_KEY, field, f"this S3 store takes no such {field}: {said}")
    if code == "EntityTooLarge":
        return InvalidArgument(Reason.TOO_LARGE, "size_bytes", f"this S3 store takes no object so large: {said}")
    return _trouble(status, code, said) or _misconfiguration(status, code, said)


def _trouble(status: int, code: str, said: str) -> HoldfastError | None:
    """Return what is wrong with the store, if anything is."""
    if code in _FULL_CODES or status == _INSUFFICIENT_STORAGE:
        return StorageFull(f"the S3 store is full: {said}")
    if code in _QUOTA_CODES:
        return StorageFull(f"a quota of the S3 store is used up: {said}", Reason.QUOTA_EXCEEDED)
    if code in _THROTTLED_CODES or status == _TOO_MANY:
        return Throttled(Reason.BACKEND_UNAVAILABLE, f"the S3 store has too much to do: {said}")
    if code in _TRY_AGAIN_CODES or (status >= _SERVER_ERROR and status != _NOT_IMPLEMENTED):
        return AnsweredFailure(Reason.BACKEND_UNAVAILABLE, f"the S3 store failed: {said}")
    if status == _NOT_FOUND and not code:  # a proxy's word, say: who takes it for the store's loses objects
        return Unavailable(Reason.BACKEND_UNAVAILABLE, f"what answers for the S3 store is none: {said}")
    return None


def _misconfiguration(status: int, code: str, said: str) -> HoldfastError | None:
    """Return what is wrong with how the store is asked, if anything is."""
    if code in _AUTH_CODES or status in _REFUSED:
        return BackendRefused(Reason.BACKEND_AUTH, f"the S3 store refuses the credentials: {said}")
    if status in _REDIRECTS:
        message = f"the S3 store answers with a redirect ({said}): endpoint or region are not those of the bucket"
        return BackendRefused(Reason.BACKEND_AUTH, message)
    return None


def error_code(body: bytes) -> str:
    """Return the code of an S3 error document; empty if the body is none."""
    found = _ERROR_CODE.search(body) if b"<Error>" in body else None
    return found[1].decode() if found else ""
