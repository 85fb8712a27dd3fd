"""Every failure that a call can end with, one class per different thing that a caller can do about it.

HoldfastError
├── InvalidArgument          mend the request: `field` says where, the message says which rule; or ask for less:
│   │                        request or answer is larger than gRPC's limit for a message (`RESOURCE_EXHAUSTED`)
│   └── BrokenUpload         send it again, whole: what arrived is not what was declared
├── NotFound                 it is not there. A room with a `next_epoch` is no new one: it was deleted, or lost its
│                            pointer; to load what that one still has, fall back
├── RangeNotSatisfiable      ask for other bytes: `size_bytes` is what there is
├── AlreadyExists            the name is taken: `etag` and `sha256` (hex) of what is there are in `details`
├── PreconditionFailed       read the fresh state first
├── EpochTooOld              go on at a higher epoch, `next_epoch`: with a room that was `deleted`, or lost its pointer
│                            before you had saved it, only to begin it anew; or there is none as new as `min_epoch`
├── SealKeyUnavailable       an operator has to add the sealing key: nothing is damaged. A save goes on at `next_epoch`
├── SealTooNew               an operator has to update the server: the same
├── ConditionUnsupported     do without: this store cannot keep the condition
├── ConcurrentModification   read the fresh state, and try again: others were at it too
├── ReadOnly                 an operator has to make the store writable
├── IntegrityFailed          the bytes are damaged, at rest or on their way: they are not to be used
│   ├── SealInvalid          the same, of a checkpoint: its seal does not fit. Fall back to an older epoch
│   └── PointerInvalid       the same, of a room's pointer: it is damaged, rolled back, or names nothing
├── StorageFull              an operator has to make room
├── BackendRefused           an operator has to mend the backend's credentials or its bucket
├── Unavailable              try again, not before `retry_after_seconds`
├── Overloaded               the same, and more slowly
├── DeadlineExceeded         there was no answer in time
├── Cancelled                the caller gave up, or stalled
└── InternalError            anything else: a fault of the server, or a call that it does not know

`reason` names the case within a class: the `ErrorReason` of `types.proto` without its prefix. Where no such reason came
(the connection broke, gRPC itself answered) it is the name of the gRPC status code, e.g. `UNAVAILABLE`.

The classes mirror those of the server.
"""

from collections.abc import Mapping

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from holdfast.v1.types_pb2 import ErrorReason, ItemStatus

ERROR_DOMAIN = "holdfast"
"""Of the `google.rpc.ErrorInfo` that the server sends."""


class HoldfastError(Exception):
    """A failure. `reason` and `details` (names and values involved) are for programs, `message` is for people."""

    def __init__(self, reason: str, message: str, details: Mapping[str, str] | None = None) -> None:
        self.reason = reason
        self.message = message
        self.details = dict(details or {})
        # All of them, so that the error survives pickling on its way between processes.
        super().__init__(reason, message, self.details)

    def __str__(self) -> str:
        return self.message


class InvalidArgument(HoldfastError):
    """The request breaks a rule; `field` is the proto name of the field that does, or empty."""

    def __init__(self, reason: str, message: str, details: Mapping[str, str] | None = None, *, field: str = "") -> None:
        super().__init__(reason, message, details)
        self.field = field


class BrokenUpload(InvalidArgument):
    """What was sent is not what was declared, or not all of it."""


class NotFound(HoldfastError):
    """There is nothing of that name."""

    @property
    def next_epoch(self) -> int | None:
        """Above all that there was of a room that was deleted or has lost its pointer; None: there is nothing of it."""
        return _next_epoch(self)


class RangeNotSatisfiable(HoldfastError):
    """The range lies outside the blob."""

    @property
    def size_bytes(self) -> int | None:
        """The size of the blob; None if the server did not say."""
        size = self.details.get("size_bytes", "")
        return int(size) if size.isdecimal() else None


class AlreadyExists(HoldfastError):
    """The name is taken."""


class PreconditionFailed(HoldfastError):
    """If-match failed, or the blob changed while it was read."""


class EpochTooOld(HoldfastError):
    """The epoch is below what the caller, or the room's past, asks for."""

    @property
    def next_epoch(self) -> int | None:
        """The epoch to go on at; None if the server did not say."""
        return _next_epoch(self)

    @property
    def deleted(self) -> bool:
        """Whether it is refused since the room was deleted: a save at `next_epoch` begins it anew."""
        return self.details.get("deleted") == "true"


class SealKeyUnavailable(HoldfastError):
    """A sealing key is not in the server's key ring, or is retired there; or it has no ring."""

    @property
    def next_epoch(self) -> int | None:
        """The epoch to save at, if it is only what has the epoch that cannot be read; else None."""
        return _next_epoch(self)


class SealTooNew(HoldfastError):
    """Something was sealed by a newer server than this one, in a form that it does not know."""

    @property
    def next_epoch(self) -> int | None:
        """The epoch to save at, if it is only what has the epoch that cannot be read; else None."""
        return _next_epoch(self)


class ConditionUnsupported(HoldfastError):
    """The store cannot keep the condition that was asked for."""


class ConcurrentModification(HoldfastError):
    """Others changed the same thing meanwhile."""


class ReadOnly(HoldfastError):
    """The store can be read but not written."""


class IntegrityFailed(HoldfastError):
    """The bytes are not the bytes that were written: damaged at rest, or on their way."""


class SealInvalid(IntegrityFailed):
    """What is stored for a checkpoint or a snapshot is not what was sealed for it."""


class PointerInvalid(IntegrityFailed):
    """A room's latest pointer is damaged, was rolled back, or names nothing."""


class StorageFull(HoldfastError):
    """There is no room left."""


class BackendRefused(HoldfastError):
    """The server's backend is there and will not serve it: its credentials are refused, or its bucket is missing."""


class _TryAgain(HoldfastError):
    def __init__(
        self,
        reason: str,
        message: str,
        details: Mapping[str, str] | None = None,
        *,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(reason, message, details)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(_TryAgain):
    """The server cannot be reached, or cannot answer now; `retry_after_seconds` is its advice, if it gave any."""


class Overloaded(_TryAgain):
    """Too many calls at once; `retry_after_seconds` is the server's advice, if it gave any."""


class DeadlineExceeded(HoldfastError):
    """There was no answer in time."""


class Cancelled(HoldfastError):
    """The caller gave the call up; or the server, since the caller neither sent nor took anything for too long."""


class InternalError(HoldfastError):
    """Anything else: a fault of the server, or a call that it does not know."""


CLASS_BY_REASON: dict[str, type[HoldfastError]] = {
    "INTERNAL": InternalError,
    "BLOB_NOT_FOUND": NotFound,
    "INVALID_ADDRESS": InvalidArgument,
    "INVALID_KEY": InvalidArgument,
    "INVALID_DIGEST": InvalidArgument,
    "INVALID_RANGE": InvalidArgument,
    "INVALID_SIZE": InvalidArgument,
    "INVALID_METADATA": InvalidArgument,
    "INVALID_CONTENT_TYPE": InvalidArgument,
    "INVALID_CONDITION": InvalidArgument,
    "INVALID_PAGE_TOKEN": InvalidArgument,
    "INVALID_PAGE_SIZE": InvalidArgument,
    "INVALID_DELIMITER": InvalidArgument,
    "INVALID_UPLOAD": InvalidArgument,
    "INVALID_BATCH": InvalidArgument,
    "BATCH_FULL": InvalidArgument,
    "TOO_LARGE": InvalidArgument,
    "UPLOAD_INCOMPLETE": BrokenUpload,
    "SIZE_MISMATCH": BrokenUpload,
    "CHECKSUM_MISMATCH": BrokenUpload,
    "RANGE_NOT_SATISFIABLE": RangeNotSatisfiable,
    "ALREADY_EXISTS": AlreadyExists,
    "CONTENT_CONFLICT": AlreadyExists,
    "PRECONDITION_FAILED": PreconditionFailed,
    "CONDITION_UNSUPPORTED": ConditionUnsupported,
    "CONCURRENT_MODIFICATION": ConcurrentModification,
    "READ_ONLY": ReadOnly,
    "INTEGRITY_FAILED": IntegrityFailed,
    "INVALID_ROOM": InvalidArgument,
    "INVALID_EPOCH": InvalidArgument,
    "INVALID_WRITER": InvalidArgument,
    "INVALID_RETENTION": InvalidArgument,
    "ROOM_NOT_FOUND": NotFound,
    "CHECKPOINT_NOT_FOUND": NotFound,
    "SNAPSHOT_NOT_FOUND": NotFound,
    "EPOCH_TOO_OLD": EpochTooOld,
    "SEAL_KEY_UNAVAILABLE": SealKeyUnavailable,
    "SEAL_TOO_NEW": SealTooNew,
    "SEAL_INVALID": SealInvalid,
    "POINTER_INVALID": PointerInvalid,
    "BACKEND_AUTH": BackendRefused,
    "BUCKET_MISSING": BackendRefused,
    "BACKEND_UNAVAILABLE": Unavailable,
    "DRAINING": Unavailable,
    "STORAGE_FULL": StorageFull,
    "QUOTA_EXCEEDED": StorageFull,
    "SPOOL_FULL": StorageFull,
    "OVERLOADED": Overloaded,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "CANCELLED": Cancelled,
}
"""Every `ErrorReason`."""

_CLASS_BY_CODE: dict[grpc.StatusCode, type[HoldfastError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.OUT_OF_RANGE: RangeNotSatisfiable,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: PreconditionFailed,
    grpc.StatusCode.ABORTED: ConcurrentModification,
    grpc.StatusCode.DATA_LOSS: IntegrityFailed,
    # gRPC's own refusal of too many calls; a full store says so by its reason, and see `_TOO_LARGE`.
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.CANCELLED: Cancelled,
}
"""For answers without a reason that we know: gRPC's own, or a newer server's. The rest is `InternalError`."""

_CODES = {code.value[0]: code for code in grpc.StatusCode}
"""By the numbers of google.rpc.Code."""

_TOO_LARGE = ("message larger than max", "metadata size exceeds")
"""gRPC's words, and nothing else, tell these RESOURCE_EXHAUSTED from the one that passes: they never would."""

_MESSAGE_BY_CODE = {
    grpc.StatusCode.UNAVAILABLE: "no connection to {address}: {details}",
    grpc.StatusCode.DEADLINE_EXCEEDED: "{address} did not answer in time",
    grpc.StatusCode.CANCELLED: "a call to {address} was given up: by its caller, or since it stalled ({details})",
    grpc.StatusCode.UNIMPLEMENTED: "{address} does not know this call: {details}",
}
"""What gRPC's own words lack."""


def from_rpc_error(error: grpc.RpcError, address: str) -> HoldfastError:
    """Return the error that a failed call to the server at `address` ended with."""
    if not isinstance(error, grpc.Call):
        return InternalError("UNKNOWN", f"{address}: {error}")
    code: grpc.StatusCode = error.code()
    info = error_details_pb2.ErrorInfo()
    request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    found = _unpack_details(error, info, request, retry)
    if info.domain == ERROR_DOMAIN:
        reason, message = info.reason, error.details()
    else:
        reason = code.name
        wording = _MESSAGE_BY_CODE.get(code, "{address} answered {code}: {details}")
        message = wording.format(address=address, code=code.name, details=error.details())
    kind = CLASS_BY_REASON.get(reason) or _class_by_code(code, error.details() or "")
    details = dict(info.metadata)
    if issubclass(kind, InvalidArgument):
        field = request.field_violations[0].field if request.field_violations else ""
        return kind(reason, message, details, field=field)
    if issubclass(kind, _TryAgain):
        seconds = retry.retry_delay.ToTimedelta().total_seconds() if retry in found else None
        return kind(reason, message, details, retry_after_seconds=seconds)
    return kind(reason, message, details)


def from_item_status(status: ItemStatus) -> HoldfastError:
    """Return the error that an item of a batch failed with: what a call would have ended with."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    # None, and numbers of a newer server, go by the code.
    known = status.reason in ErrorReason.values() and status.reason != ErrorReason.ERROR_REASON_UNSPECIFIED
    reason = ErrorReason.Name(status.reason).removeprefix("ERROR_REASON_") if known else code.name
    kind = CLASS_BY_REASON.get(reason) or _class_by_code(code, "")
    message = status.message or f"the server answered {code.name}, {reason}"
    if issubclass(kind, InvalidArgument):
        return kind(reason, message, status.details, field=status.field)
    return kind(reason, message, status.details)


def _next_epoch(error: HoldfastError) -> int | None:
    epoch = error.details.get("next_epoch", "")
    return int(epoch) if epoch.isdecimal() else None


def _class_by_code(code: grpc.StatusCode, words: str) -> type[HoldfastError]:
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and any(part in words for part in _TOO_LARGE):
        return InvalidArgument
    return _CLASS_BY_CODE.get(code, InternalError)


def _unpack_details(error: grpc.Call, *wanted: Message) -> list[Message]:
    """Fill in those of the wanted messages that came with the error, and return them."""
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # the status in the details contradicts the call's own, which counts
        return []
    details = [] if status is None else status.details
    return [message for message in wanted if any(detail.Unpack(message) for detail in details)]
