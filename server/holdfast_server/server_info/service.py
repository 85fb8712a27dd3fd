"""Server on the wire."""

from collections.abc import Callable, Mapping

import grpc

from holdfast.v1 import server_pb2 as pb
from holdfast.v1 import server_pb2_grpc, types_pb2
from holdfast_server.objects.base import ConditionMode, Description, Durability

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["Server"].full_name

_DURABILITIES = {
    Durability.PROCESS: pb.DURABILITY_PROCESS,
    Durability.DISK: pb.DURABILITY_DISK,
    Durability.REMOTE: pb.DURABILITY_REMOTE,
}
_CONDITION_MODES = {
    ConditionMode.UNKNOWN: pb.CONDITION_MODE_UNSPECIFIED,
    ConditionMode.UNSUPPORTED: pb.CONDITION_MODE_UNSUPPORTED,
    ConditionMode.CHECKED: pb.CONDITION_MODE_CHECKED,
    ConditionMode.ATOMIC: pb.CONDITION_MODE_ATOMIC,
}


class ServerInfoService(server_pb2_grpc.ServerServicer):
    """The servicer of `holdfast.v1.Server`. `services` are full names with what describes the backend of each."""

    def __init__(
        self, version: str, limits: pb.ServerLimits, services: Mapping[str, Callable[[], Description]]
    ) -> None:
        self._version = version
        self._limits = limits
        self._services = services

    def GetServerInfo(  # noqa: N802 (the name is the proto's)
        self, _request: pb.GetServerInfoRequest, _context: grpc.ServicerContext
    ) -> pb.GetServerInfoResponse:
        """See `server.proto`."""
        services = [
            pb.ServiceInfo(name=name, backend=_backend(describe())) for name, describe in sorted(self._services.items())
        ]
        return pb.GetServerInfoResponse(version=self._version, limits=self._limits, services=services)


def _backend(description: Description) -> pb.BackendInfo:
    modes = description.conditions
    reason = "UNSPECIFIED" if description.not_ready is None else description.not_ready.value
    return pb.BackendInfo(
        name=description.name,
        durability=_DURABILITIES[description.durability],
        condition_mode=_CONDITION_MODES[min(modes.put, modes.large_put)],
        nested_keys=description.nested_keys,
        store_id=description.store_id,
        conditions=pb.ConditionModes(
            put=_CONDITION_MODES[modes.put],
            large_put=_CONDITION_MODES[modes.large_put],
            delete=_CONDITION_MODES[modes.delete],
            copy=_CONDITION_MODES[modes.copy],
        ),
        not_ready_reason=types_pb2.ErrorReason.Value(f"ERROR_REASON_{reason}"),
    )
