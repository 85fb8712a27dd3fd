"""Making calls: errors become ours, and what is safe to repeat is tried again."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from holdfast.errors import InvalidArgument, from_rpc_error
from holdfast.retrying import Retrier
from holdfast.watchdog import Watchdog

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response")


@dataclass(frozen=True, slots=True)
class Calls:
    """How calls to the server at `address` are made."""

    address: str
    retrier: Retrier
    watchdog: Watchdog

    def once(self) -> "Calls":
        """Return the same without further tries."""
        return replace(self, retrier=replace(self.retrier, retries=0))

    def within(self, timeout_seconds: float) -> "Calls":
        """Return the same with another time-out for unary calls and uploads. Raises `ValueError`."""
        return replace(self, retrier=replace(self.retrier, timeout_seconds=timeout_seconds))

    def unary(self, method: "grpc.UnaryUnaryMultiCallable[Request, Response]", request: Request) -> Response:
        """Return the answer to one request. Raises `HoldfastError`."""

        def attempt(seconds_left: float | None) -> Response:
            with self.translated():
                return method(request, timeout=seconds_left)

        return self.retrier.call(attempt)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn gRPC's errors into ours."""
        try:
            yield
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.address) from error


@contextmanager
def checked() -> Iterator[None]:
    """Turn the refusal of a value that no message can hold, such as a lone surrogate, into `InvalidArgument`."""
    try:
        yield
    except ValueError as error:
        raise InvalidArgument("INVALID_ARGUMENT", f"the request cannot be sent: {error}") from error
