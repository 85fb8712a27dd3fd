"""Clients that are there and do nothing: their calls are ended in time, and what they held is free again."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from holdfast.v1 import checkpoint_store_pb2 as pb
from holdfast.v1.types_pb2 import DataChunk
from tests.support import checkpoint_calls, raw_blobs
from tests.support.samples import MIB, sample
from tests.support.server_metrics import metric
from tests.support.server_process import ServerProcess
from tests.support.stalled_calls import DOWNLOADS, LITTLE_AHEAD, UPLOADS, stalled_downloads, stalled_uploads
from tests.support.statuses import refusal_of, refused
from tests.support.waiting import wait_until

LIMIT_SECONDS = 7.0
"""The test itself may stand still for a while, too, and must not be taken for a client that has stalled."""

SECONDS = 60
SLOTS = 4
LARGE = sample(16 * MIB)
"""More than what waits on its way to a client that takes nothing."""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stalls")


@pytest.fixture(scope="module")
def server(data_dir: Path) -> Iterator[ServerProcess]:
    """A server of little patience and few slots, with something large of each kind."""
    environment = {
        "HOLDFAST_RPC__STALL_TIMEOUT_SECONDS": str(LIMIT_SECONDS),
        "HOLDFAST_RPC__MAX_CONCURRENT_CALLS": str(SLOTS),
    }
    with ServerProcess(data_dir) as patient, grpc.insecure_channel(patient.address) as channel:
        raw_blobs.put(raw_blobs.stub_of(channel), "large", LARGE)
        checkpoint_calls.save(checkpoint_calls.stub_of(channel), "large", 1, LARGE)
        checkpoint_calls.hibernate(checkpoint_calls.stub_of(channel), "large", LARGE)
    with ServerProcess(data_dir, env=environment) as process:
        yield process


@pytest.fixture
def stub(server: ServerProcess) -> Iterator[Any]:
    """A stub of its blobs."""
    with grpc.insecure_channel(server.address) as channel:
        yield raw_blobs.stub_of(channel)


def files_below(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def at_work(server: ServerProcess) -> float:
    return metric(server, "holdfast_calls_at_work")


def stalled(server: ServerProcess, method: str) -> float:
    return metric(server, "holdfast_stalled_calls_total", grpc_method=method)


def a_stall_is_over(server: ServerProcess) -> None:
    """Return after the limit: when a call that stalled from now on was ended."""
    with stalled_uploads(server.address, "PutBlob") as (call,):
        assert call.exception(SECONDS).code() is grpc.StatusCode.CANCELLED


def check_logged(server: ServerProcess, method: str) -> None:
    line = server.wait_for_log(rf"A call was ended since its client had stalled method=\S+/{method} seconds=(\S+)")
    assert line is not None
    assert float(line[1]) >= LIMIT_SECONDS
    finished = server.wait_for_log(rf"Call finished method=\S+/{method} code=(\S+) .* reason=DEADLINE_EXCEEDED")
    assert finished is not None
    assert finished[1] == "CANCELLED"


def test_uploads_that_stall_are_ended_logged_and_counted(server: ServerProcess) -> None:
    before = {method: stalled(server, method) for method in UPLOADS}
    with ExitStack() as stack:
        for (call,) in [stack.enter_context(stalled_uploads(server.address, method)) for method in UPLOADS]:
            # The handler waits for the client, and no other status can pass it.
            assert call.exception(SECONDS).code() is grpc.StatusCode.CANCELLED
        wait_until(lambda: at_work(server) == 0)
    for method in UPLOADS:
        assert stalled(server, method) == before[method] + 1
        check_logged(server, method)


def test_uploads_that_stall_in_the_middle_leave_nothing(server: ServerProcess, data_dir: Path) -> None:
    files = files_below(data_dir)
    chunk = DataChunk(data=sample(MIB))
    with ExitStack() as stack:
        begun = [
            stack.enter_context(stalled_uploads(server.address, method, *[type(header)(chunk=chunk)] * 3))
            for method, header in UPLOADS.items()
        ]
        wait_until(lambda: len(set(files_below(data_dir)) - set(files)) >= len(UPLOADS))
        for (call,) in begun:
            assert call.exception(SECONDS).code() is grpc.StatusCode.CANCELLED
        wait_until(lambda: at_work(server) == 0)
        assert files_below(data_dir) == files


def test_downloads_that_are_not_taken_are_ended_logged_and_counted(server: ServerProcess) -> None:
    before = {method: stalled(server, method) for method in DOWNLOADS}
    with ExitStack() as stack:
        begun = [stack.enter_context(stalled_downloads(server.address, method)) for method in DOWNLOADS]
        assert metric(server, "holdfast_spool_used_bytes") > 2 * len(LARGE)  # of the checkpoint and the snapshot
        wait_until(lambda: at_work(server) == 0)
        assert metric(server, "holdfast_spool_used_bytes") == 0
        for (call,) in begun:
            with pytest.raises(grpc.RpcError) as ended:
                list(call)
            # What is on its way is full, so no status but this one can pass it.
            assert refusal_of(ended.value).code == "CANCELLED"
    for method in DOWNLOADS:
        assert stalled(server, method) == before[method] + 1
        check_logged(server, method)


def test_as_many_stalled_calls_as_there_are_slots_keep_nobody_out_for_long(server: ServerProcess, stub: Any) -> None:
    half = SLOTS // 2
    with (
        stalled_uploads(server.address, "SaveCheckpoint", calls=half),
        stalled_downloads(server.address, "LoadCheckpoint", calls=SLOTS - half),
    ):
        wait_until(lambda: at_work(server) == SLOTS)
        with refused() as refusal:
            raw_blobs.stat(stub, "large")
        assert refusal.reason == "OVERLOADED"
        wait_until(lambda: at_work(server) == 0)
        assert raw_blobs.get(stub, "large") == LARGE


def test_an_upload_that_is_slow_may_take_longer_than_the_limit_in_all(server: ServerProcess, stub: Any) -> None:
    began = time.monotonic()

    def slowly() -> Iterator[Any]:
        yield raw_blobs.header("slow")
        for number in range(17):
            wait_until(until(began, number))
            yield raw_blobs.chunk(b"some")
        yield raw_blobs.trailer()

    stub.PutBlob(slowly(), timeout=SECONDS)
    assert time.monotonic() - began > 1.5 * LIMIT_SECONDS
    assert raw_blobs.get(stub, "slow") == 17 * b"some"


def test_a_download_that_is_taken_slowly_may_take_longer_than_the_limit_in_all(server: ServerProcess) -> None:
    taken = b""
    with grpc.insecure_channel(server.address, LITTLE_AHEAD) as channel:
        began = time.monotonic()
        for number, answer in enumerate(raw_blobs.stub_of(channel).GetBlob(DOWNLOADS["GetBlob"], timeout=SECONDS)):
            wait_until(until(began, number))
            taken += answer.chunk.data
    assert time.monotonic() - began > 1.5 * LIMIT_SECONDS
    assert taken == LARGE


def until(began: float, number: int) -> Callable[[], bool]:
    return lambda: time.monotonic() >= began + 0.1 * LIMIT_SECONDS * number


def test_a_watch_that_has_nothing_to_tell_has_not_stalled(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.address) as channel:
        checkpoints = checkpoint_calls.stub_of(channel)
        checkpoint_calls.save(checkpoints, "watched", 1, b"state")
        watch = checkpoints.WatchCheckpoints(pb.WatchCheckpointsRequest(room_ids=["watched"]), timeout=SECONDS)
        assert next(watch).epoch == 1
        a_stall_is_over(server)
        checkpoint_calls.save(checkpoints, "watched", 2, b"state")
        assert next(watch).epoch == 2
        watch.cancel()


def test_who_watches_health_or_reflects_has_not_stalled(server: ServerProcess) -> None:
    questions: SimpleQueue[reflection_pb2.ServerReflectionRequest | None] = SimpleQueue()
    question = reflection_pb2.ServerReflectionRequest(list_services="")
    with grpc.insecure_channel(server.address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=""), timeout=SECONDS)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        answers = reflection.ServerReflectionInfo(iter(questions.get, None), timeout=SECONDS)
        questions.put(question)
        first = next(answers)
        a_stall_is_over(server)
        questions.put(question)
        assert next(answers) == first
        assert watch.is_active()
        watch.cancel()
        questions.put(None)
