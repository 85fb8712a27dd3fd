"""From our errors to gRPC statuses: one table, and the details that go with each."""

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from holdfast_server import errors

ERROR_DOMAIN = "holdfast"

CODES: dict[type[errors.HoldfastError], grpc.StatusCode] = {
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.BrokenUpload: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.RangeNotSatisfiable: grpc.StatusCode.OUT_OF_RANGE,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.PreconditionFailed: grpc.StatusCode.FAILED_PRECONDITION,
    errors.EpochTooOld: grpc.StatusCode.FAILED_PRECONDITION,
    errors.SealKeyUnavailable: grpc.StatusCode.FAILED_PRECONDITION,
    errors.SealTooNew: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ConditionUnsupported: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ConcurrentModification: grpc.StatusCode.ABORTED,
    errors.ReadOnly: grpc.StatusCode.FAILED_PRECONDITION,
    errors.IntegrityFailed: grpc.StatusCode.DATA_LOSS,
    errors.SealInvalid: grpc.StatusCode.DATA_LOSS,
    errors.PointerInvalid: grpc.StatusCode.DATA_LOSS,
    errors.StorageFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.BackendRefused: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Cancelled: grpc.StatusCode.CANCELLED,
}
"""A class stands for its subclasses too."""

_MAX_MESSAGE_CHARACTERS = 300
"""A status travels in HTTP/2 headers, which clients limit to 8 KiB; a character can take 12 bytes there."""

_INTERNAL_MESSAGE = "internal error; the server's log has the details"


def code_of(error: errors.HoldfastError) -> grpc.StatusCode:
    """Return the status code that an error comes with."""
    for kind in type(error).__mro__:
        if code := CODES.get(kind):
            return code
    return grpc.StatusCode.INTERNAL


def message_of(error: errors.HoldfastError) -> str:
    """Return what an error says to people, cut where it would be too long."""
    message = error.message
    return message if len(message) <= _MAX_MESSAGE_CHARACTERS else message[: _MAX_MESSAGE_CHARACTERS - 1] + "…"


def status_of(error: errors.HoldfastError) -> grpc.Status:
    """Return the status of an error, with `ErrorInfo` and what else helps the caller."""
    message = message_of(error)
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN, metadata=error.details)
    ]
    if isinstance(error, errors.InvalidArgument):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=message, reason=error.reason
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, errors.Unavailable | errors.Overloaded):
        delay = Duration()
        delay.FromMilliseconds(round(error.retry_after_seconds * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return _status(code_of(error), message, details)


def internal_status() -> grpc.Status:
    """Return the status of an unexpected error: a fixed text, since such an error can say anything."""
    info = error_details_pb2.ErrorInfo(reason=errors.Reason.INTERNAL, domain=ERROR_DOMAIN)
    return _status(grpc.StatusCode.INTERNAL, _INTERNAL_MESSAGE, [info])


def _status(code: grpc.StatusCode, message: str, details: list[Message]) -> grpc.Status:
    packed = []
    for detail in details:
        wrapped = Any()
        wrapped.Pack(detail)
        packed.append(wrapped)
    return rpc_status.to_status(status_pb2.Status(code=code.value[0], message=message, details=packed))
