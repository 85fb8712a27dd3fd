"""Server on the wire."""

import grpc

from holdfast.v1 import server_pb2 as pb
from holdfast.v1 import server_pb2_grpc
from holdfast_server.objects.base import ConditionMode, Description, Durability

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["Server"].full_name

_DURABILITIES = {Durability.PROCESS: pb.DURABILITY_PROCESS, Durability.DISK: pb.DURABILITY_DISK}
_CONDITION_MODES = {ConditionMode.ATOMIC: pb.CONDITION_MODE_ATOMIC}


class ServerInfoService(server_pb2_grpc.ServerServicer):
    """The servicer of `holdfast.v1.Server`. `services` are full names with what keeps their bytes."""

    def __init__(self, version: str, limits: pb.ServerLimits, services: dict[str, Description]) -> None:
        self._info = pb.GetServerInfoResponse(
            version=version,
            limits=limits,
            services=[
                pb.ServiceInfo(name=name, backend=_backend(description))
                for name, description in sorted(services.items())
            ],
        )

    def GetServerInfo(  # noqa: N802 (the name is the proto's)
        self, _request: pb.GetServerInfoRequest, _context: grpc.ServicerContext
    ) -> pb.GetServerInfoResponse:
        """See `server.proto`."""
        return self._info


def _backend(description: Description) -> pb.BackendInfo:
    return pb.BackendInfo(
        name=description.name,
        durability=_DURABILITIES[description.durability],
        condition_mode=_CONDITION_MODES[description.condition_mode],
        nested_keys=description.nested_keys,
        store_id=description.store_id,
    )
