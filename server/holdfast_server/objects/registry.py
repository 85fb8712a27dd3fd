"""Which backend a name means: a new one is a file and a line here."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from holdfast_server.objects.base import ObjectStore
from holdfast_server.objects.filesystem import FilesystemStore
from holdfast_server.objects.memory import MemoryStore


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """What backends are made of. `objects_dir` and `store_id` are set where there is a data directory."""

    memory_max_bytes: int
    lock_timeout_seconds: float
    objects_dir: Path | None = None
    store_id: str = ""


def _memory(options: BackendOptions) -> ObjectStore:
    return MemoryStore(options.memory_max_bytes)


def _filesystem(options: BackendOptions) -> ObjectStore:
    if options.objects_dir is None:
        raise ValueError("the filesystem backend needs a data directory")
    return FilesystemStore(
        options.objects_dir, store_id=options.store_id, lock_timeout_seconds=options.lock_timeout_seconds
    )


BACKENDS: dict[str, Callable[[BackendOptions], ObjectStore]] = {"memory": _memory, "filesystem": _filesystem}
