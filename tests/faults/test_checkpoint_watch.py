"""Watches of real servers: what another server saves, the end of a server, callers that went away, and silence."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import grpc
import pytest

import holdfast
from holdfast import client as client_module
from holdfast.retrying import Retrier
from holdfast.v1 import checkpoint_store_pb2 as pb
from holdfast_server.checkpoints import key_file
from holdfast_server.checkpoints.key_ring import KeyRing
from tests.support.checkpoint_calls import delete_room, load, save, stub_of
from tests.support.child_processes import killed_on_failure
from tests.support.s3_stores import fresh_bucket, s3_environment
from tests.support.server_metrics import metric
from tests.support.server_process import ServerProcess
from tests.support.statuses import Refusal, refusal_of
from tests.support.waiting import wait_until

ROOM = "arena/7"
INTERVAL_SECONDS = 0.2
QUICKLY_SECONDS = 60
"""Far below the drain time, and far above what a busy machine takes."""
MOST_CALLS = 8

ENVIRONMENT = {
    "HOLDFAST_CHECKPOINT_STORE__WATCH_INTERVAL_SECONDS": str(INTERVAL_SECONDS),
    "HOLDFAST_RPC__MAX_CONCURRENT_CALLS": str(MOST_CALLS),
    "HOLDFAST_DRAIN_SECONDS": "600",
    "HOLDFAST_DRAIN_NOTICE_SECONDS": "0",
}


class Watch:
    """A watch that notes what it is told, in a thread of its own. Leaving the block cancels it."""

    def __init__(self, stub: Any, *rooms: str) -> None:
        self.told: list[tuple[str, int | None]] = []
        self.refusal: Refusal | None = None
        self._call = stub.WatchCheckpoints(pb.WatchCheckpointsRequest(room_ids=rooms or (ROOM,)))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            for answer in self._call:
                self.told.append((answer.room_id, answer.epoch if answer.HasField("epoch") else None))
        except grpc.RpcError as error:
            self.refusal = refusal_of(error)

    def has_told(self, epoch: int | None, room: str = ROOM) -> bool:
        return (room, epoch) in self.told

    def cancel(self) -> None:
        self._call.cancel()
        self._thread.join()

    def wait(self) -> Refusal:
        """Wait for its end."""
        self._thread.join(QUICKLY_SECONDS)
        assert self.refusal is not None
        return self.refusal

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()


@contextmanager
def reached(server: ServerProcess) -> Iterator[Any]:
    with grpc.insecure_channel(server.address) as channel:
        yield stub_of(channel)


@pytest.fixture(params=["filesystem", "minio"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[ServerProcess]]:
    """Two servers on one directory, or on one bucket."""
    environment = dict(ENVIRONMENT)
    data: Path | None = tmp_path / "data"
    if request.param == "minio":
        key_file.create(tmp_path / "ring.json", KeyRing.fresh())
        environment |= s3_environment(request.getfixturevalue("minio"), fresh_bucket())
        environment["HOLDFAST_CHECKPOINT_STORE__KEY_RING"] = str(tmp_path / "ring.json")
        data = None
    with ServerProcess(data, env=environment) as one, ServerProcess(data, env=environment) as other:
        yield [one, other]


@pytest.fixture
def server() -> Iterator[ServerProcess]:
    """A server."""
    with ServerProcess(env=ENVIRONMENT) as server:
        yield server


def test_a_watch_sees_within_the_interval_what_another_server_saves(pair: list[ServerProcess]) -> None:
    with reached(pair[0]) as here, reached(pair[1]) as there, Watch(there, ROOM, "other") as watch:
        wait_until(lambda: watch.has_told(None) and watch.has_told(None, "other"))
        took = []
        for epoch in range(5):
            saved = time.monotonic()
            save(here, ROOM, epoch, b"x")
            wait_until(lambda epoch=epoch: watch.has_told(epoch))  # type: ignore[misc]
            took.append(time.monotonic() - saved)
        assert min(took) < INTERVAL_SECONDS + 2  # on a busy machine any of them may take longer, but not each
        anew = delete_room(here, ROOM).next_epoch
        wait_until(lambda: watch.told[-1] == (ROOM, None))
        save(here, ROOM, anew, b"x")
        wait_until(lambda: watch.has_told(anew))
        told = [epoch for room, epoch in watch.told if room == ROOM and epoch is not None]
        assert told == [0, 1, 2, 3, 4, anew]


def test_a_watch_of_many_saves_rises_and_ends_at_the_newest(pair: list[ServerProcess]) -> None:
    with reached(pair[0]) as here, reached(pair[1]) as there, Watch(there) as far, Watch(here) as near:
        for epoch in range(100):
            save((here, there)[epoch // 10 % 2], ROOM, epoch, b"x")
        for watch in (far, near):
            wait_until(lambda watch=watch: watch.has_told(99))  # type: ignore[misc]
            epochs = [-1 if epoch is None else epoch for _, epoch in watch.told]
            assert all(earlier < later for earlier, later in pairwise(epochs))


def test_a_watch_outlives_the_server_that_saves(pair: list[ServerProcess]) -> None:
    with reached(pair[1]) as there, Watch(there) as watch:
        with reached(pair[0]) as here:
            save(here, ROOM, 1, b"x")
        wait_until(lambda: watch.has_told(1))
        pair[0].kill()
        save(there, ROOM, 2, b"x")
        wait_until(lambda: watch.has_told(2))
        assert watch.refusal is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_end_of_a_server_ends_its_watches_at_once(server: ServerProcess, number: int) -> None:
    with reached(server) as stub, ExitStack() as stack:
        watches = [stack.enter_context(Watch(stub)) for _ in range(MOST_CALLS // 2)]
        for watch in watches:
            wait_until(lambda watch=watch: watch.has_told(None))  # type: ignore[misc]
        begun = time.monotonic()
        server.signal(number)
        for watch in watches:
            refusal = watch.wait()
            assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "DRAINING")
        assert server.wait(QUICKLY_SECONDS) == 0
        assert time.monotonic() - begun < QUICKLY_SECONDS


def test_too_many_watches_are_overloaded_and_other_calls_go_on(server: ServerProcess) -> None:
    with reached(server) as stub, ExitStack() as stack:
        watches = [stack.enter_context(Watch(stub)) for _ in range(MOST_CALLS // 2)]
        for watch in watches:
            wait_until(lambda watch=watch: watch.has_told(None))  # type: ignore[misc]
        with Watch(stub) as extra:
            refusal = extra.wait()
            assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
        save(stub, ROOM, 1, b"x")
        assert load(stub, ROOM)[1] == b"x"
        for watch in watches:
            wait_until(lambda watch=watch: watch.has_told(1))  # type: ignore[misc]
        watches[0].cancel()
        wait_until(lambda: metric(server, "holdfast_calls_at_work") < MOST_CALLS // 2)
        with Watch(stub) as next_one:
            wait_until(lambda: next_one.has_told(1))


def test_watchers_that_went_away_free_their_threads(server: ServerProcess) -> None:
    with reached(server) as stub:
        for _ in range(3):
            with ExitStack() as stack:
                watches = [stack.enter_context(Watch(stub)) for _ in range(MOST_CALLS // 2)]
                for watch in watches:
                    wait_until(lambda watch=watch: watch.has_told(None))  # type: ignore[misc]
            wait_until(lambda: metric(server, "holdfast_calls_at_work") == 0)


WATCHER = """
import sys
import grpc
from tests.support.checkpoint_calls import stub_of
from holdfast.v1.checkpoint_store_pb2 import WatchCheckpointsRequest

channel = grpc.insecure_channel(sys.argv[1])
calls = [stub_of(channel).WatchCheckpoints(WatchCheckpointsRequest(room_ids=["a"])) for _ in range(int(sys.argv[2]))]
for call in calls:
    next(call)
print("watching", flush=True)
for call in calls:
    next(call)
"""


def test_watchers_that_were_killed_free_their_threads(server: ServerProcess) -> None:
    command = [sys.executable, "-c", WATCHER, server.address, str(MOST_CALLS // 2)]
    for _ in range(2):
        root = Path(__file__).parents[2]
        with killed_on_failure(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "watching\n"
            assert metric(server, "holdfast_calls_at_work") == MOST_CALLS // 2
            process.kill()
        wait_until(lambda: metric(server, "holdfast_calls_at_work") == 0)
    assert metric(server, "grpc_server_handled_total", grpc_code="INTERNAL") == 0


def test_watchers_that_are_frozen_free_their_threads() -> None:
    # A watcher that stands still for a while before it is frozen must not be taken for frozen.
    pings = {"HOLDFAST_RPC__KEEPALIVE_SECONDS": "0.5", "HOLDFAST_RPC__KEEPALIVE_TIMEOUT_SECONDS": "8"}
    root = Path(__file__).parents[2]
    with ExitStack() as stack:
        server = stack.enter_context(ServerProcess(env=ENVIRONMENT | pings))
        command = [sys.executable, "-c", WATCHER, server.address, "2"]
        started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)
        process = stack.enter_context(killed_on_failure(started))
        assert process.stdout is not None
        assert process.stdout.readline() == "watching\n"
        process.send_signal(signal.SIGSTOP)
        try:
            wait_until(lambda: metric(server, "holdfast_calls_at_work") == 0)
        finally:
            process.kill()


def end_of(watch: Iterator[holdfast.Watched], client: holdfast.Client) -> str:
    """Wait for the end of a client's watch, and return with what words the server was away."""
    with ThreadPoolExecutor(1) as thread:
        try:
            error = thread.submit(list[holdfast.Watched], watch).exception(120)
        finally:
            client.close()
    assert isinstance(error, holdfast.Unavailable)
    return str(error)


def test_a_client_notices_that_its_server_is_frozen(server: ServerProcess) -> None:
    with holdfast.Client(server.address, Retrier(retries=0), keepalive_seconds=4) as client:
        news = client.checkpoints.watch([ROOM])
        next(news)
        server.signal(signal.SIGSTOP)
        try:
            assert end_of(news, client)
        finally:
            server.signal(signal.SIGCONT)


def test_a_quiet_client_pings_and_may_as_often_as_the_server_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    keepalive = client_module._keepalive

    def patient_keepalive(seconds: float) -> tuple[tuple[str, int], ...]:
        """Ping as often, and wait for longer than a server may stand still."""
        return tuple((name, 60_000 if "timeout" in name else value) for name, value in keepalive(seconds))

    monkeypatch.setattr(client_module, "_keepalive", patient_keepalive)

    def settings(seconds: float) -> dict[str, str]:
        return ENVIRONMENT | {"HOLDFAST_RPC__MIN_PING_SECONDS": str(seconds)}

    def pinging(server: ServerProcess) -> holdfast.Client:
        return holdfast.Client(server.address, Retrier(retries=0), keepalive_seconds=0.2)

    with (
        ServerProcess(env=settings(0.01)) as patient,
        ServerProcess(env=settings(3600)) as strict,
        pinging(patient) as client,
        pinging(strict) as refused,
    ):
        news = client.checkpoints.watch([ROOM])
        assert next(news).epoch is None
        assert "Too many pings" in end_of(refused.checkpoints.watch([ROOM]), refused)
        client.checkpoints.save(ROOM, 1, b"x")
        assert next(news).epoch == 1
