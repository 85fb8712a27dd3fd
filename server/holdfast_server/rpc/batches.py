"""What batches share on the wire: items that fail by themselves, each with a status of its own."""

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

from holdfast.v1.types_pb2 import ErrorReason, ItemStatus
from holdfast_server.errors import HoldfastError, InvalidArgument, Reason
from holdfast_server.rpc.status import code_of, message_of

T = TypeVar("T")
R = TypeVar("R")

MAX_ANSWER_BYTES = 2 << 20
"""2 MiB: half of every client's default message limit."""

_STATUS_BYTES = 32
"""A status without its texts, and what holds it in its answer, rounded up."""

_log = logging.getLogger(__name__)


def each(read: Callable[[T], R], items: Iterable[T]) -> list[R | HoldfastError]:
    """Read items from the wire: for one that breaks a rule the result is its error."""
    results: list[R | HoldfastError] = []
    for item in items:
        try:
            results.append(read(item))
        except HoldfastError as error:
            results.append(error)
    return results


class Statuses:
    """Makes the statuses of failed items, with their texts as long as these fit into `room_bytes` in all."""

    def __init__(self, room_bytes: int) -> None:
        self._room_bytes = room_bytes
        self._is_logged = False

    def of(self, error: HoldfastError) -> ItemStatus:
        """Return the status of an item."""
        if error.reason is Reason.BACKEND_UNAVAILABLE and error.__cause__ is not None and not self._is_logged:
            self._is_logged = True  # the others of the batch failed alike
            _log.error("Backend failed", exc_info=error)
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
