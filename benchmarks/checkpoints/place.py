"""The servers that are asked: on memory, on files, and on a bucket of MinIO if that is built."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks import processes
from benchmarks.measure import IDLE, HasCpu
from benchmarks.processes import Cpu, ServerProcess
from holdfast_server.checkpoints.key_file import create
from holdfast_server.checkpoints.key_ring import KeyRing
from tests.support.s3_servers import MinioServer
from tests.support.s3_stores import s3_environment

PART_BYTES = 16 << 20
"""The server's default."""


@dataclass(frozen=True, slots=True)
class Served:
    """A server, what its backend is called, and the store behind it, if there is one."""

    name: str
    server: ServerProcess
    store: HasCpu = IDLE


class Place:
    """Servers with their data in `directory`, gone after the block."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with ExitStack() as stack:
            memory = processes.memory_server(directory)
            self.served = [Served("memory", stack.enter_context(memory))]
            self.served.append(Served("files", stack.enter_context(processes.filesystem_server(directory))))
            if MinioServer.built.exists():
                minio = stack.enter_context(MinioServer(directory))
                ring = directory / "ring.json"
                create(ring, KeyRing.fresh())
                settings = s3_environment(minio, part_bytes=PART_BYTES)
                settings["HOLDFAST_CHECKPOINT_STORE__KEY_RING"] = str(ring)
                server = stack.enter_context(processes.s3_server(directory, settings))
                self.served.append(Served("S3", server, Cpu(minio.pid)))
            self._resources = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()
