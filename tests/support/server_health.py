"""What a server process tells of its health."""

import urllib.error
import urllib.request

import grpc
from grpc_health.v1 import health_pb2

from holdfast.v1 import server_pb2, server_pb2_grpc
from holdfast.v1.types_pb2 import ErrorReason
from tests.support.server_process import ServerProcess

_TIMEOUT_SECONDS = 60


def is_serving(channel: grpc.Channel, service: str = "") -> bool:
    """Ask the health service for one of ours, e.g. `BlobStore`; empty for all."""
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        health_pb2.HealthCheckRequest.SerializeToString,
        health_pb2.HealthCheckResponse.FromString,
    )
    request = health_pb2.HealthCheckRequest(service=service and f"holdfast.v1.{service}")
    status: int = check(request, timeout=_TIMEOUT_SECONDS).status
    return status == health_pb2.HealthCheckResponse.SERVING


def is_ready(server: ServerProcess) -> bool:
    """Ask `/readyz`."""
    try:
        with urllib.request.urlopen(f"http://{server.http}/readyz", timeout=_TIMEOUT_SECONDS):
            return True
    except urllib.error.HTTPError as error:
        with error:
            return False


def not_ready_reason(channel: grpc.Channel, service: str) -> str:
    """Return why a service of ours cannot be used, as GetServerInfo says; UNSPECIFIED: it can."""
    stub = server_pb2_grpc.ServerStub(channel)
    info = stub.GetServerInfo(server_pb2.GetServerInfoRequest(), timeout=_TIMEOUT_SECONDS)
    (found,) = [each for each in info.services if each.name == f"holdfast.v1.{service}"]
    return ErrorReason.Name(found.backend.not_ready_reason).removeprefix("ERROR_REASON_")
