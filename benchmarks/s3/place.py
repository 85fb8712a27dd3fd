"""A MinIO with a bucket in it, and the servers on that."""

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.processes import Cpu, ServerProcess, relay, s3_server
from benchmarks.s3.direct import Direct
from benchmarks.s3.relay import settings
from tests.support.s3_servers import MinioServer
from tests.support.s3_stores import fresh_bucket, s3_environment

PART_BYTES = 16 << 20
"""The server's default."""


class Place:
    """A MinIO with its data in `directory`. Raises `RuntimeError` if it does not start."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with ExitStack() as resources:
            self.minio = resources.enter_context(MinioServer(directory))
            self.bucket = fresh_bucket()
            self.minio.make_bucket(self.bucket)
            self._resources = resources.pop_all()
        self.cpu = Cpu(self.minio.pid)
        """MinIO's."""
        self.direct = self.direct_to(self.bucket)

    def direct_to(self, bucket: str) -> Direct:
        """Return what reaches a bucket without Holdfast."""
        return Direct(self.minio.endpoint, self.minio.access_key, self.minio.secret_key, bucket)

    def holdfast(self) -> ServerProcess:
        """Start a Holdfast server on the bucket."""
        return s3_server(self._directory, s3_environment(self.minio, self.bucket, part_bytes=PART_BYTES))

    def relay(self) -> ServerProcess:
        """Start the relay of the bucket."""
        return relay(self._directory, settings(self.direct))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()
