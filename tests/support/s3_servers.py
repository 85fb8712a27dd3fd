"""Real S3 servers: processes on ports of the loopback, with made-up keys, gone with all their data at the end.

| | moto | MinIO | rclone |
|---|---|---|---|
| conditions on PUT | kept, among writers too | kept, among writers too | ignored |
| conditions on completing a multipart upload | `If-None-Match` only | kept | ignored |
| `If-Match` on DELETE | kept | ignored | ignored |
| conditions on a copy | ignored | ignored | ignored |
| keys `a` and `a/b` | both | both, but a list shows `a` only | not both |
| `start-after` of a list | any name | any name | names of objects only, else ignored |
| an answer to `Range` | 206 | 206 | 200 |
| a reader of a key that is being overwritten | old or new | old or new | may get less |
| wrong keys | accepted | refused | refused |
| what is left after `stop()` and `start()` | nothing | everything | nothing |
"""

import os
import secrets
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

import urllib3
from minio import Minio
from minio.deleteobjects import DeleteObject
from minio.error import MinioException

from tests.support.ports import held_port
from tests.support.waiting import wait_until

_ROOT = Path(__file__).parents[2]
_BIN = Path(sys.executable).parent
_INHERITED = ("PATH", "LD_LIBRARY_PATH")
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0


class S3Server(ABC):
    """A server that runs from its making to the end of the `with` block.

    Tests of an outage `stop()` or `kill()` one of their own and `start()` it again; it keeps its address for that.
    What it stores is below `directory`, or the system's temporary one. Raises `RuntimeError` with its output if it does
    not start.
    """

    name: ClassVar[str]
    built: ClassVar[Path]
    """A file that is there once it has been built or installed."""
    how_to_get: ClassVar[str] = "make s3-server builds it"

    _authority: Path | None = None
    """The certificate of who vouches for it, where it speaks TLS."""

    def __init__(self, directory: Path | None = None) -> None:
        self.access_key = secrets.token_hex(10)
        self.secret_key = secrets.token_hex(20)
        self._process: subprocess.Popen[bytes] | None = None
        with ExitStack() as undo:
            temporary = tempfile.TemporaryDirectory(prefix=f"holdfast-{self.name}-", dir=directory)
            self._directory = Path(undo.enter_context(temporary))
            self._log = self._directory / "log"
            self._port = undo.enter_context(held_port())
            self.endpoint = f"127.0.0.1:{self._port}"
            """`host:port`."""
            undo.callback(self.kill)
            self.start()
            self._undo = undo.pop_all()

    @abstractmethod
    def _command(self) -> list[str]: ...

    def _environment(self) -> Mapping[str, str]:
        return {}

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def output(self) -> str:
        """What it has printed since it was first started."""
        return self._log.read_text(errors="replace")

    def start(self) -> None:
        """Start it, and return when it answers. Raises `RuntimeError` with its output if it does not."""
        assert not self.is_running
        # Nothing else is inherited: variables and files of whoever runs the tests must not configure it.
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        own = {"HOME": str(self._directory), "TMPDIR": str(self._directory)}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                env={**inherited, **own, **self._environment()},
            )
        try:
            wait_until(self._answers, _START_SECONDS)
        except OSError as error:
            raise RuntimeError(f"{self.name} did not start: {error}\n{self.output}") from error

    def _answers(self) -> bool:
        if not self.is_running:
            raise ChildProcessError("it ended at once")
        try:
            self.client().list_buckets()
        except (MinioException, urllib3.exceptions.HTTPError):
            return False
        return True

    def stop(self) -> None:
        """Ask it to stop, and return when it is gone."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(_STOP_SECONDS)

    def kill(self) -> None:
        """Kill it, and return when it is gone. Harmless when it is."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_STOP_SECONDS)

    def client(self) -> Minio:
        """Return a client with connections of its own, which never repeats a request."""
        pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=5, read=60),
            retries=False,
            ca_certs=None if self._authority is None else str(self._authority),
        )
        return Minio(
            self.endpoint,
            access_key=self.access_key,
            secret_key=self.secret_key,
            secure=self._authority is not None,
            region="us-east-1",
            http_client=pool,
        )

    def make_bucket(self, name: str) -> None:
        """Make a bucket."""
        self.client().make_bucket(name)

    def empty_bucket(self, name: str) -> None:
        """Delete the objects that a list of a bucket shows."""
        client = self.client()
        listed = client.list_objects(name, recursive=True)
        doomed = [DeleteObject(item.object_name) for item in listed if item.object_name]
        for error in client.remove_objects(name, doomed):
            raise OSError(f"{self.name} did not delete {error}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill it, and remove what it stored."""
        self._undo.close()


class MotoServer(S3Server):
    """moto: quick to start, all in memory, and it believes every key."""

    name = "moto"
    built = _ROOT / ".venv-moto" / ".done"
    how_to_get = "make setup installs it"

    def _command(self) -> list[str]:
        launcher = Path(__file__).with_name("moto_launcher.py")
        return [str(self.built.parent / "bin" / "python"), str(launcher), str(self._port)]


class MinioServer(S3Server):
    """MinIO on a directory: without its console, and asking nobody for updates.

    With `certificates` it speaks TLS: a directory that holds `public.crt`, `private.key` and `authority.pem`.
    """

    name = "minio"
    built = _BIN / "minio"

    def __init__(self, directory: Path | None = None, *, certificates: Path | None = None) -> None:
        self._certificates = certificates
        self._authority = None if certificates is None else certificates / "authority.pem"
        super().__init__(directory)

    def _command(self) -> list[str]:
        tls = [] if self._certificates is None else ["--certs-dir", str(self._certificates)]
        return [str(self.built), "server", "--quiet", "--address", self.endpoint, *tls, str(self._directory / "data")]

    def _environment(self) -> Mapping[str, str]:
        return {
            "MINIO_ROOT_USER": self.access_key,
            "MINIO_ROOT_PASSWORD": self.secret_key,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
        }


class RcloneServer(S3Server):
    """rclone on its memory backend: the store that ignores conditions.

    On a directory it would answer writers who meet at one key with internal errors, and readers with cut objects.
    """

    name = "rclone"
    built = _BIN / "rclone"

    def _command(self) -> list[str]:
        return [str(self.built), "serve", "s3", "--addr", self.endpoint, ":memory:"]

    def _environment(self) -> Mapping[str, str]:
        return {"RCLONE_AUTH_KEY": f'"{self.access_key},{self.secret_key}"'}
