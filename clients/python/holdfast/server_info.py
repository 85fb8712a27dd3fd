"""What a server is and what it can do."""

from dataclasses import dataclass
from typing import cast

from holdfast.v1 import server_pb2 as pb
from holdfast.v1 import types_pb2


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
    max_batch_items: int
    max_batch_bytes: int
    max_find_items: int
    max_checkpoint_bytes: int
    max_room_id_bytes: int
    max_watched_rooms: int


@dataclass(frozen=True, slots=True)
class ConditionModes:
    """How conditions are kept, by operation; `large_put` are puts that go to S3 in parts.

    `atomic` (among all processes that share the store), `checked` (looked at first, then written: atomic among the
    callers of one server only), `unsupported` (refused), or `unknown` (a remote backend that has not answered yet).
    """

    put: str
    large_put: str
    delete: str
    copy: str


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """What keeps a service's bytes.

    `durability` is what an acknowledged write survives: `process` (nothing), `disk` (loss of power) or `remote` (loss
    of the server's machine). `condition_mode`: the weaker of `conditions.put` and `conditions.large_put`.
    `nested_keys`: whether `a` and `a/b` can exist side by side. `store_id` is the random id of a data directory or a
    bucket; empty for memory. `not_ready_reason` says why the backend cannot be used now, as errors do; empty: it can.
    """

    name: str
    durability: str
    condition_mode: str
    nested_keys: bool
    store_id: str
    conditions: ConditionModes
    not_ready_reason: str


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
        condition_mode=_mode(message.condition_mode),
        nested_keys=message.nested_keys,
        store_id=message.store_id,
        conditions=ConditionModes(
            put=_mode(message.conditions.put),
            large_put=_mode(message.conditions.large_put),
            delete=_mode(message.conditions.delete),
            copy=_mode(message.conditions.copy),
        ),
        not_ready_reason=_reason(message.not_ready_reason),
    )


def _mode(mode: int) -> str:
    return _CONDITION_MODES.get(mode, "unknown")


def _reason(reason: int) -> str:
    names = {number: name for name, number in types_pb2.ErrorReason.items()}
    name = names.get(cast("types_pb2.ErrorReason.ValueType", reason), "unknown")
    return "" if reason == types_pb2.ERROR_REASON_UNSPECIFIED else name.removeprefix("ERROR_REASON_")


_DURABILITIES = {
    pb.DURABILITY_PROCESS: "process",
    pb.DURABILITY_DISK: "disk",
    pb.DURABILITY_REMOTE: "remote",
}
_CONDITION_MODES: dict[int, str] = {
    pb.CONDITION_MODE_ATOMIC: "atomic",
    pb.CONDITION_MODE_CHECKED: "checked",
    pb.CONDITION_MODE_UNSUPPORTED: "unsupported",
}
"""What a newer server may say beyond these is `unknown`."""
