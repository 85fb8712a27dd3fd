"""Which backend a name means: a new one is a file and a line here."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from holdfast_server.objects.base import ObjectStore
from holdfast_server.objects.filesystem import FilesystemStore
from holdfast_server.objects.memory import MemoryStore
from holdfast_server.objects.remote_metrics import RemoteMetrics
from holdfast_server.objects.s3 import S3Options
from holdfast_server.objects.spool import Spool


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """What backends are made of. `objects_dir` and `store_id` are set where there is a data directory.

    `open_spool` opens where bytes wait that must be known whole; the S3 backend needs it.
    """

    memory_max_bytes: int
    lock_timeout_seconds: float
    remote_metrics: RemoteMetrics
    objects_dir: Path | None = None
    store_id: str = ""
    s3: S3Options | None = None
    open_spool: Callable[[], Spool] | None = None


def _memory(options: BackendOptions) -> ObjectStore:
    return MemoryStore(options.memory_max_bytes)


def _filesystem(options: BackendOptions) -> ObjectStore:
    if options.objects_dir is None:
        raise ValueError("the filesystem backend needs a data directory")
    return FilesystemStore(
        options.objects_dir, store_id=options.store_id, lock_timeout_seconds=options.lock_timeout_seconds
    )


def _s3(options: BackendOptions) -> ObjectStore:
    if options.s3 is None or options.open_spool is None:
        raise ValueError("the S3 backend needs a bucket and a spool")
    from holdfast_server.objects.s3.store import S3Store  # noqa: PLC0415 (see the package: only who opens a bucket)

    return S3Store(options.s3, options.open_spool(), options.remote_metrics.of_backend("s3"))


BACKENDS: dict[str, Callable[[BackendOptions], ObjectStore]] = {
    "memory": _memory,
    "filesystem": _filesystem,
    "s3": _s3,
}


def not_opened(backend: str, options: BackendOptions, error: OSError) -> str:
    """Return what an operator is told who gave a backend that cannot be opened: which file, and why."""
    name = error.filename
    where = options.objects_dir if backend == "filesystem" else None
    if isinstance(name, str) and Path(name).is_absolute():
        where = Path(name)
    return f"the {backend} backend cannot be opened: {f'{where}: ' if where else ''}{error.strerror}"
