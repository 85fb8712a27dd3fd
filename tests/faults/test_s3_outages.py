"""The store is away, or silent: the process stays, says so at once, and goes on by itself when the store is back."""

import time
from collections.abc import Callable, Iterator

import grpc
import pytest

from holdfast.v1 import server_pb2, server_pb2_grpc, types_pb2
from tests.support.fault_proxy import FOREVER, FaultProxy, Hang
from tests.support.raw_blobs import delete, entries, get, put, stat
from tests.support.s3_process import WAITING, FaultyProcess
from tests.support.s3_servers import MotoServer
from tests.support.server_metrics import metric
from tests.support.statuses import Refusal, refusal_of, refused
from tests.support.waiting import wait_until

READ_SECONDS = 0.5
FIRST_SECONDS = 25.0
"""What four tries and their pauses may take, and a busy machine; with the usual time-out it were one try."""

CALLS: tuple[Callable[[FaultyProcess], object], ...] = (
    lambda process: put(process.stub, "k", b"new"),
    lambda process: get(process.stub, "k"),
    lambda process: stat(process.stub, "k"),
    lambda process: delete(process.stub, "k"),
    lambda process: entries(process.stub),
)


def away(proxy: FaultProxy) -> None:
    proxy.go_down()


def silent(proxy: FaultProxy) -> None:
    proxy.fail(Hang("request"), times=FOREVER)


def back(proxy: FaultProxy) -> None:
    proxy.heal()
    proxy.come_back()


def refusals(process: FaultyProcess) -> Iterator[tuple[Refusal, float]]:
    """Make every call, and yield how it was refused and how many seconds that took."""
    for call in CALLS:
        begun = time.monotonic()
        with refused() as refusal:
            call(process)
        yield refusal, time.monotonic() - begun


def check_not_ready(process: FaultyProcess) -> None:
    """Check that all calls are refused at once, and that health, probes and info say what is the matter."""
    asked = requests_of_calls(process)
    for refusal, _ in refusals(process):
        assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "BACKEND_UNAVAILABLE")
        assert refusal.retry_after_seconds
    assert requests_of_calls(process) == asked  # nobody waits for a store that is known to be away
    assert process.is_alive()
    wait_until(lambda: not process.is_ready())
    wait_until(lambda: serving(process) == [False, True, False])
    info = server_pb2_grpc.ServerStub(process.channel).GetServerInfo(server_pb2.GetServerInfoRequest(), timeout=60)
    assert info.services[0].backend.not_ready_reason == types_pb2.ERROR_REASON_BACKEND_UNAVAILABLE


def requests_of_calls(process: FaultyProcess) -> float:
    """Return how many requests the store was sent, but for those of the threads that look after the bucket."""
    name = "holdfast_remote_requests_total"
    own = sum(metric(process.server, name, request=request) for request in ("head_bucket", "list_uploads"))
    return metric(process.server, name) - own


def serving(process: FaultyProcess) -> list[bool]:
    return [process.is_serving(service) for service in ("BlobStore", "Server", "")]


def works(process: FaultyProcess) -> bool:
    """Tell whether the server is ready, and works. A store that stands still for longer than `READ_SECONDS` is away."""
    try:
        put(process.stub, "k", b"data")
        assert get(process.stub, "k") == b"data"
    except grpc.RpcError as error:
        if refusal_of(error).reason != "BACKEND_UNAVAILABLE":
            raise
        return False
    return process.is_ready() and serving(process) == [True, True, True]


def check_back(process: FaultyProcess) -> None:
    """Check that it comes back by itself, and works."""
    wait_until(lambda: works(process))


@pytest.mark.parametrize(("at_start", "later"), [(away, silent), (silent, away)])
def test_a_server_waits_for_its_store_and_goes_on_when_it_is_there(
    moto: MotoServer, at_start: Callable[[FaultProxy], None], later: Callable[[FaultProxy], None]
) -> None:
    with FaultyProcess(moto, spoil=at_start, ready=WAITING, read_timeout_seconds=READ_SECONDS) as process:
        check_not_ready(process)
        back(process.proxy)
        check_back(process)
        assert process.server.wait_for_log("Server ready")

        later(process.proxy)
        for refusal, seconds in refusals(process):
            assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "BACKEND_UNAVAILABLE")
            assert seconds < FIRST_SECONDS
        check_not_ready(process)
        back(process.proxy)
        check_back(process)
