"""Hundreds of uploads that are cut off: none of them ever is a blob, and none leaves anything on the server."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from holdfast.v1 import blob_store_pb2 as pb
from tests.support import endless_uploads
from tests.support.raw_blobs import chunk, entries, header, put, stat, stub_of
from tests.support.samples import MIB, sample
from tests.support.server_metrics import metric
from tests.support.server_process import ServerProcess
from tests.support.statuses import refused
from tests.support.waiting import wait_until

UPLOADS = 120
AT_ONCE = 12
CLIENTS = 6
UPLOADS_OF_A_CLIENT = 20
MEMORY_BYTES = 128 * MIB
OBJECT_OVERHEAD_BYTES = 1024
WAIT_SECONDS = 60
CHUNK_SIZES = (1, 1000, 65_536, 300_000, 512 * 1024)
DATA = sample(max(CHUNK_SIZES))


@dataclass(frozen=True)
class Cut:
    """An upload that ends too early: after `chunks` chunks of `chunk_bytes`, in one of the ways of an odd world."""

    number: int

    @property
    def key(self) -> str:
        return f"cut/{self.number}"

    @property
    def _chunks(self) -> int:
        return self.number % 7

    @property
    def _chunk_bytes(self) -> int:
        return CHUNK_SIZES[self.number % len(CHUNK_SIZES)]

    def requests(self) -> Iterator[pb.PutBlobRequest]:
        """Yield what is sent before the cut: too little for the declared size, or no trailer."""
        size = self._chunks * self._chunk_bytes + 1 if self.number % 2 else None
        yield header(self.key, size_bytes=size)
        for _ in range(self._chunks):
            yield chunk(DATA[: self._chunk_bytes])


def cancel(stub: Any, cut: Cut) -> None:
    """Cancel the call; every third time as the stream of requests ends."""
    reached, over = threading.Event(), threading.Event()

    def requests() -> Iterator[pb.PutBlobRequest]:
        yield from cut.requests()
        reached.set()
        if cut.number % 3:
            over.wait(WAIT_SECONDS)

    call = stub.PutBlob.future(requests())
    assert reached.wait(WAIT_SECONDS)
    call.cancel()
    over.set()


def let_the_deadline_pass(stub: Any, cut: Cut) -> None:
    over = threading.Event()

    def requests() -> Iterator[pb.PutBlobRequest]:
        yield from cut.requests()
        over.wait(WAIT_SECONDS)

    call = stub.PutBlob.future(requests(), timeout=0.002 * (1 + cut.number % 20))
    call.add_done_callback(lambda _: over.set())
    assert call.exception(WAIT_SECONDS).code() is grpc.StatusCode.DEADLINE_EXCEEDED


def fail_to_go_on(stub: Any, cut: Cut) -> None:
    def requests() -> Iterator[pb.PutBlobRequest]:
        yield from cut.requests()
        raise RuntimeError("the client cannot read its own file")

    error = stub.PutBlob.future(requests()).exception(WAIT_SECONDS)
    assert error.code() in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INVALID_ARGUMENT)


CUTS = [cancel, let_the_deadline_pass, fail_to_go_on]


@pytest.fixture(params=["memory", "filesystem"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server on each backend."""
    environment = {"HOLDFAST_MEMORY__MAX_BYTES": str(MEMORY_BYTES)}
    with ServerProcess(tmp_path / "data" if request.param == "filesystem" else None, env=environment) as process:
        yield process


@pytest.fixture
def stub(server: ServerProcess) -> Iterator[Any]:
    """A stub of the server."""
    with grpc.insecure_channel(server.address) as channel:
        yield stub_of(channel)


def scratch_files(tmp_path: Path) -> list[Path]:
    return list(tmp_path.glob("data/objects/scratch/*/*"))


def is_idle(server: ServerProcess) -> bool:
    ended = metric(server, "grpc_server_handled_total") == metric(server, "grpc_server_started_total")
    return ended and metric(server, "holdfast_calls_at_work") == 0


def check_that_nothing_is_left(server: ServerProcess, stub: Any, keys: list[str], tmp_path: Path) -> None:
    wait_until(lambda: is_idle(server) and not scratch_files(tmp_path))
    for key in keys:
        with refused() as refusal:
            stat(stub, key)
        assert refusal.code == "NOT_FOUND"
    assert entries(stub) == []
    assert metric(server, "grpc_server_handled_total", grpc_method="PutBlob", grpc_code="OK") == 0
    assert metric(server, "grpc_server_handled_total", grpc_code="INTERNAL") == 0
    assert [line for line in server.log if " ERROR " in line] == []
    largest = MEMORY_BYTES - 2 * OBJECT_OVERHEAD_BYTES  # fits in memory only if nothing else counts there
    assert put(stub, "largest", bytes(largest)).size_bytes == largest


@pytest.mark.parametrize("cut_off", CUTS)
def test_an_upload_that_is_cut_off_leaves_nothing(
    server: ServerProcess, stub: Any, cut_off: Callable[[Any, Cut], None], tmp_path: Path
) -> None:
    cuts = [Cut(number) for number in range(UPLOADS)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(lambda cut: cut_off(stub, cut), cuts):
            pass
    check_that_nothing_is_left(server, stub, [cut.key for cut in cuts], tmp_path)


@contextmanager
def client(server: ServerProcess, prefix: str) -> Iterator["subprocess.Popen[str]"]:
    """A process with uploads that never end."""
    command = [sys.executable, endless_uploads.__file__, server.address, prefix, str(UPLOADS_OF_A_CLIENT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_uploads_of_a_killed_client_leave_nothing(server: ServerProcess, stub: Any, tmp_path: Path) -> None:
    def begin_and_kill(number: int) -> None:
        with client(server, f"{number}/") as process:
            assert process.stdout is not None
            begun = sorted(int(process.stdout.readline()) for _ in range(UPLOADS_OF_A_CLIENT))
            assert begun == list(range(UPLOADS_OF_A_CLIENT))

    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(begin_and_kill, range(CLIENTS)):
            pass
    keys = [f"{number}/{upload}" for number in range(CLIENTS) for upload in range(UPLOADS_OF_A_CLIENT)]
    check_that_nothing_is_left(server, stub, keys, tmp_path)


def test_these_cuts_reach_the_server_in_the_middle_of_uploads(server: ServerProcess, stub: Any) -> None:
    for number in range(AT_ONCE):
        cancel(stub, Cut(number))
    wait_until(lambda: metric(server, "grpc_server_started_total", grpc_method="PutBlob") > AT_ONCE / 2)
    wait_until(lambda: is_idle(server))
