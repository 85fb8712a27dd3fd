"""Every error that a caller can meet, one class per different thing that a caller can do about it.

HoldfastError
├── InvalidArgument          mend the request: `field` says where, the message says which rule
│   └── BrokenUpload         send it again, whole: what arrived is not what was declared
├── NotFound                 it is not there
├── RangeNotSatisfiable      ask for other bytes: `size_bytes` is what there is
├── AlreadyExists            the name is taken: the etag and sha256 of what is there are in `details`
├── PreconditionFailed       read the fresh state first
├── EpochTooOld              go on at a higher epoch: `next_epoch` in `details`, or read where a newer one is
├── SealKeyUnavailable       an operator has to add the sealing key: nothing is damaged
├── SealTooNew               an operator has to update this server: nothing is damaged
├── ConditionUnsupported     do without: this store cannot keep the condition
├── ConcurrentModification   read the fresh state, and try again: others were at it too
├── ReadOnly                 an operator has to make the store writable
├── IntegrityFailed          the stored bytes are damaged: restore them from elsewhere
│   ├── SealInvalid          the same, of a checkpoint: its seal does not fit. Fall back to an older epoch
│   └── PointerInvalid       the same, of a room's pointer: it is damaged, rolled back, or names nothing
├── StorageFull              an operator has to make room
├── BackendRefused           an operator has to mend the backend's credentials or its bucket
├── Unavailable              try again, not before `retry_after_seconds`
├── Overloaded               the same, and more slowly
├── DeadlineExceeded         the caller's time was up
└── Cancelled                the caller gave up

`Reason` names the case within a class; `rpc/status.py` maps both to gRPC and `holdfast.errors` in the Python client
mirrors them. A test walks all of them through a real call.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why a call failed, as on the wire: `ErrorReason` of `types.proto` without its prefix."""

    INTERNAL = "INTERNAL"
    BLOB_NOT_FOUND = "BLOB_NOT_FOUND"
    INVALID_ADDRESS = "INVALID_ADDRESS"
    INVALID_KEY = "INVALID_KEY"
    INVALID_DIGEST = "INVALID_DIGEST"
    INVALID_RANGE = "INVALID_RANGE"
    INVALID_SIZE = "INVALID_SIZE"
    INVALID_METADATA = "INVALID_METADATA"
    INVALID_CONTENT_TYPE = "INVALID_CONTENT_TYPE"
    INVALID_CONDITION = "INVALID_CONDITION"
    INVALID_PAGE_TOKEN = "INVALID_PAGE_TOKEN"  # noqa: S105 (a name, not a secret)
    INVALID_PAGE_SIZE = "INVALID_PAGE_SIZE"
    INVALID_DELIMITER = "INVALID_DELIMITER"
    INVALID_UPLOAD = "INVALID_UPLOAD"
    INVALID_BATCH = "INVALID_BATCH"
    BATCH_FULL = "BATCH_FULL"
    TOO_LARGE = "TOO_LARGE"
    UPLOAD_INCOMPLETE = "UPLOAD_INCOMPLETE"
    SIZE_MISMATCH = "SIZE_MISMATCH"
    CHECKSUM_MISMATCH = "CHECKSUM_MISMATCH"
    RANGE_NOT_SATISFIABLE = "RANGE_NOT_SATISFIABLE"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    CONTENT_CONFLICT = "CONTENT_CONFLICT"
    PRECONDITION_FAILED = "PRECONDITION_FAILED"
    CONDITION_UNSUPPORTED = "CONDITION_UNSUPPORTED"
    CONCURRENT_MODIFICATION = "CONCURRENT_MODIFICATION"
    READ_ONLY = "READ_ONLY"
    INTEGRITY_FAILED = "INTEGRITY_FAILED"
    INVALID_ROOM = "INVALID_ROOM"
    INVALID_EPOCH = "INVALID_EPOCH"
    INVALID_WRITER = "INVALID_WRITER"
    INVALID_RETENTION = "INVALID_RETENTION"
    ROOM_NOT_FOUND = "ROOM_NOT_FOUND"
    CHECKPOINT_NOT_FOUND = "CHECKPOINT_NOT_FOUND"
    SNAPSHOT_NOT_FOUND = "SNAPSHOT_NOT_FOUND"
    EPOCH_TOO_OLD = "EPOCH_TOO_OLD"
    SEAL_KEY_UNAVAILABLE = "SEAL_KEY_UNAVAILABLE"
    SEAL_TOO_NEW = "SEAL_TOO_NEW"
    SEAL_INVALID = "SEAL_INVALID"
    POINTER_INVALID = "POINTER_INVALID"
    BACKEND_AUTH = "BACKEND_AUTH"
    BUCKET_MISSING = "BUCKET_MISSING"
    BACKEND_UNAVAILABLE = "BACKEND_UNAVAILABLE"
    DRAINING = "DRAINING"
    STORAGE_FULL = "STORAGE_FULL"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    SPOOL_FULL = "SPOOL_FULL"
    OVERLOADED = "OVERLOADED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CANCELLED = "CANCELLED"


class HoldfastError(Exception):
    """A failure that the caller is told of.

    The message names the thing and the rule; it leaves the process, so it never holds a path or a secret. `details` are
    the names and values involved, for programs.
    """

    def __init__(self, reason: Reason, message: str, **details: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.details = details


class InvalidArgument(HoldfastError):
    """The request breaks a rule; `field` is the proto name of the field that does."""

    def __init__(self, reason: Reason, field: str, message: str, **details: str) -> None:
        super().__init__(reason, message, **details)
        self.field = field


class BrokenUpload(InvalidArgument):
    """What arrived is not what was declared, or not all of it."""


class NotFound(HoldfastError):
    """There is nothing of that name."""


class RangeNotSatisfiable(HoldfastError):
    """The range lies outside the object; `details["size_bytes"]` is the object's size."""

    def __init__(self, message: str, size_bytes: int) -> None:
        super().__init__(Reason.RANGE_NOT_SATISFIABLE, message, size_bytes=str(size_bytes))


class AlreadyExists(HoldfastError):
    """The name is taken."""


class PreconditionFailed(HoldfastError):
    """If-match failed."""


class EpochTooOld(HoldfastError):
    """The epoch is below what the caller, or the room's past, asks for."""

    def __init__(self, message: str, **details: str) -> None:
        super().__init__(Reason.EPOCH_TOO_OLD, message, **details)


class SealKeyUnavailable(HoldfastError):
    """A sealing key is not in the key ring, or is retired there; or there is no ring. Not damage."""

    def __init__(self, message: str, **details: str) -> None:
        super().__init__(Reason.SEAL_KEY_UNAVAILABLE, message, **details)


class SealTooNew(HoldfastError):
    """Something was sealed by a newer server, in a form that this one does not know. Not damage."""

    def __init__(self, message: str, **details: str) -> None:
        super().__init__(Reason.SEAL_TOO_NEW, message, **details)


class ConditionUnsupported(HoldfastError):
    """This store cannot keep the condition that was asked for, and it is not pretended that it can."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.CONDITION_UNSUPPORTED, message)


class ConcurrentModification(HoldfastError):
    """Others changed the same thing meanwhile."""

    def __init__(self, message: str, **details: str) -> None:
        super().__init__(Reason.CONCURRENT_MODIFICATION, message, **details)


class ReadOnly(HoldfastError):
    """The backend can be read but not written."""

    def __init__(self, message: str = "the store can be read but not written") -> None:
        super().__init__(Reason.READ_ONLY, message)


class IntegrityFailed(HoldfastError):
    """The stored bytes are not the bytes that were written."""

    def __init__(self, key: str, what: str) -> None:
        super().__init__(Reason.INTEGRITY_FAILED, f"key {key!r}: {what}", key=key)


class SealInvalid(IntegrityFailed):
    """What is stored under a sealed name is not what was sealed for it. `thing` names it, e.g. `room 'a', epoch 7`."""

    def __init__(self, thing: str, what: str, **details: str) -> None:
        HoldfastError.__init__(self, Reason.SEAL_INVALID, f"{thing}: {what}", **details)


class PointerInvalid(IntegrityFailed):
    """A room's pointer is damaged, was rolled back, or names nothing."""

    def __init__(self, room_id: str, what: str, **details: str) -> None:
        message = f"the latest pointer of room {room_id!r} {what}"
        HoldfastError.__init__(self, Reason.POINTER_INVALID, message, room_id=room_id, **details)


class StorageFull(HoldfastError):
    """There is no room left."""

    def __init__(self, message: str, reason: Reason = Reason.STORAGE_FULL) -> None:
        super().__init__(reason, message)


class BackendRefused(HoldfastError):
    """The backend is there and will not serve us: BACKEND_AUTH, BUCKET_MISSING."""


class Unavailable(HoldfastError):
    """The backend or the server cannot answer now."""

    def __init__(self, reason: Reason, message: str, retry_after_seconds: float = 1.0) -> None:
        super().__init__(reason, message)
        self.retry_after_seconds = retry_after_seconds


class Overloaded(HoldfastError):
    """Too many calls at once."""

    def __init__(self, message: str, retry_after_seconds: float = 1.0) -> None:
        super().__init__(Reason.OVERLOADED, message)
        self.retry_after_seconds = retry_after_seconds


class DeadlineExceeded(HoldfastError):
    """The call's deadline passed while it waited."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.DEADLINE_EXCEEDED, message)


class Cancelled(HoldfastError):
    """The caller gave the call up."""

    def __init__(self, message: str = "the caller gave the call up") -> None:
        super().__init__(Reason.CANCELLED, message)
