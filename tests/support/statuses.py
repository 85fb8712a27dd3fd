"""What a status says: code, reason, field and names, as a client in any language sees them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status


@dataclass
class Refusal:
    """A status that was not OK."""

    code: str = ""
    reason: str = ""
    message: str = ""
    names: dict[str, str] = field(default_factory=dict)
    fields: list[str] = field(default_factory=list)
    retry_after_seconds: float | None = None


def refusal_of(error: grpc.RpcError) -> Refusal:
    """Return what an error says."""
    assert isinstance(error, grpc.Call)
    refusal = Refusal(error.code().name, message=error.details() or "")
    status = rpc_status.from_call(error)
    for packed in status.details if status else ():
        info, request, retry = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.BadRequest(),
            error_details_pb2.RetryInfo(),
        )
        if packed.Unpack(info):
            assert info.domain == "holdfast"
            refusal.reason = info.reason
            refusal.names = dict(info.metadata)
        elif packed.Unpack(request):
            refusal.fields = [violation.field for violation in request.field_violations]
        elif packed.Unpack(retry):
            refusal.retry_after_seconds = retry.retry_delay.ToTimedelta().total_seconds()
    return refusal


@contextmanager
def refused() -> Iterator[Refusal]:
    """Expect the block to be refused, and tell how."""
    refusal = Refusal()
    with pytest.raises(grpc.RpcError) as failed:
        yield refusal
    refusal.__dict__.update(refusal_of(failed.value).__dict__)
