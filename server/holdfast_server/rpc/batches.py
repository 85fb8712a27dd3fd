"""What batches share on the wire: items that fail by themselves, each with a status of its own."""

from collections.abc import Callable, Iterable, Sized
from contextvars import ContextVar
from typing import TypeVar

from holdfast.v1.types_pb2 import ErrorReason, ItemStatus
from holdfast_server.errors import HoldfastError, InvalidArgument, Reason
from holdfast_server.rpc.backend_failures import is_backend_failure, log_backend_failure
from holdfast_server.rpc.status import code_of, message_of

T = TypeVar("T")
R = TypeVar("R")

MAX_ANSWER_BYTES = 2 << 20
"""2 MiB: half of every client's default message limit."""

_STATUS_BYTES = 32
"""A status without its texts, and what holds it in its answer, rounded up."""


class FailedItems:
    """Which items of a call failed, for its line in the log and its metrics: the call itself may well be OK."""

    def __init__(self) -> None:
        self.reasons: dict[Reason, int] = {}
        self.first: HoldfastError | None = None

    def count(self, error: HoldfastError) -> None:
        """Count an item that failed."""
        self.reasons[error.reason] = self.reasons.get(error.reason, 0) + 1
        self.first = self.first or error


failed_items: ContextVar[FailedItems] = ContextVar("holdfast_failed_items")
"""Of the call that this thread works for."""


def check_count(items: Sized, most: int, field: str = "items") -> None:
    """Refuse more items than that, before any of them is looked at. Raises `InvalidArgument` (TOO_LARGE)."""
    if len(items) > most:
        message = f"the request has {len(items)} {field}, and {most} are the most"
        raise InvalidArgument(Reason.TOO_LARGE, field, message)


def each(read: Callable[[T], R], items: Iterable[T]) -> list[R | HoldfastError]:
    """Read items from the wire: for one that breaks a rule the result is its error."""
    results: list[R | HoldfastError] = []
    for item in items:
        try:
            results.append(read(item))
        except HoldfastError as error:
            # Its traceback would lead back to this list, and keep all data in it until a collection.
            results.append(error.with_traceback(None))
    return results


class Statuses:
    """Makes the statuses of failed items, with their texts as long as these fit into `room_bytes` in all."""

    def __init__(self, room_bytes: int) -> None:
        self._room_bytes = room_bytes
        self._is_logged = False

    def of(self, error: HoldfastError) -> ItemStatus:
        """Return the status of an item, and count it."""
        if (failed := failed_items.get(None)) is not None:
            failed.count(error)
        if is_backend_failure(error) and not self._is_logged:
            self._is_logged = True  # the others of the batch failed alike
            log_backend_failure(error)
        code = code_of(error).value[0]
        status = ItemStatus(code=code, reason=ErrorReason.Value(f"ERROR_REASON_{error.reason}"))
        if isinstance(error, InvalidArgument):
            status.field = error.field
        self._room_bytes -= _STATUS_BYTES
        texts = ItemStatus(message=message_of(error), details=error.details)
        size = texts.ByteSize()
        if size <= self._room_bytes:
            self._room_bytes -= size
            status.MergeFrom(texts)
        return status
