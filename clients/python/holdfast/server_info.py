"""What a server is and what it can do."""

from dataclasses import dataclass

from holdfast.v1 import server_pb2 as pb


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What one call may carry; the names have the units."""

    max_blob_bytes: int
    max_chunk_bytes: int
    download_chunk_bytes: int
    max_key_bytes: int
    max_key_segment_bytes: int
    max_metadata_bytes: int
    max_page_size: int
    max_concurrent_calls: int


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """What keeps a service's bytes.

    `durability` is what an acknowledged write survives: `process` (nothing) or `disk` (loss of power).
    `condition_mode`: how conditions on writes are kept, `atomic` or not. `nested_keys`: whether `a` and `a/b` can exist
    side by side. `store_id` is a data directory's random id; empty for memory.
    """

    name: str
    durability: str
    condition_mode: str
    nested_keys: bool
    store_id: str


@dataclass(frozen=True, slots=True)
class ServiceInfo:
    """One service, by its full name, and where its bytes are."""

    name: str
    backend: BackendInfo


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """A server: its version, its limits, and its services in alphabetical order."""

    version: str
    limits: ServerLimits
    services: tuple[ServiceInfo, ...]


def server_info(message: pb.GetServerInfoResponse) -> ServerInfo:
    """Return what a message says of a server."""
    names = ServerLimits.__dataclass_fields__
    limits = ServerLimits(**{name: getattr(message.limits, name) for name in names})
    services = tuple(ServiceInfo(service.name, _backend(service.backend)) for service in message.services)
    return ServerInfo(message.version, limits, services)


def _backend(message: pb.BackendInfo) -> BackendInfo:
    return BackendInfo(
        name=message.name,
        durability=_DURABILITIES.get(message.durability, "unknown"),
        condition_mode=_CONDITION_MODES.get(message.condition_mode, "unknown"),
        nested_keys=message.nested_keys,
        store_id=message.store_id,
    )


_DURABILITIES = {pb.DURABILITY_PROCESS: "process", pb.DURABILITY_DISK: "disk"}
_CONDITION_MODES = {pb.CONDITION_MODE_ATOMIC: "atomic"}
"""What a newer server may say beyond these is `unknown`."""
