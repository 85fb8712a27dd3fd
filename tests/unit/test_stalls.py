"""What counts as a stall, and what becomes of it: waits for the peer, and nothing else."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from holdfast.v1 import blob_store_pb2 as pb
from holdfast.v1 import blob_store_pb2_grpc
from holdfast_server.errors import DeadlineExceeded, Reason
from holdfast_server.rpc import stalls as stalls_module
from holdfast_server.rpc.server import RpcServer, ServerOptions
from holdfast_server.rpc.stalls import Stalls, Wait
from tests.support.raw_blobs import stub_of, upload
from tests.support.stalled_calls import stalled_uploads
from tests.support.waiting import wait_until

LIMIT_SECONDS = 0.2
SECONDS = 60
METHOD = "/holdfast.v1.BlobStore/PutBlob"


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def stalls(registry: CollectorRegistry) -> Iterator[Stalls]:
    made = Stalls(LIMIT_SECONDS, registry)
    yield made
    made.close()


def counted(registry: CollectorRegistry) -> float | None:
    labels = {"grpc_service": "holdfast.v1.BlobStore", "grpc_method": "PutBlob"}
    return registry.get_sample_value("holdfast_stalled_calls_total", labels)


def watchers(others: Sequence[threading.Thread] = ()) -> list[threading.Thread]:
    """Return the threads that watch now, without `others`: those of servers of other tests may still end."""
    return [thread for thread in threading.enumerate() if thread.name == "stalls" and thread not in others]


class Clock:
    """The clock that waits are measured by: it stands still between them and goes on only where a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def goes_on(self, seconds: float, until: threading.Event) -> bool:
        self.now += seconds
        return until.wait(SECONDS)


def test_a_wait_that_is_too_long_is_given_up_and_says_so_even_where_the_peer_came_at_last(
    stalls: Stalls, registry: CollectorRegistry
) -> None:
    given_up = threading.Event()
    wait = Wait(stalls, METHOD, given_up.set)
    with pytest.raises(DeadlineExceeded, match=r"for 0.2 s \(rpc.stall_timeout_seconds\)") as error, wait:
        assert given_up.wait(SECONDS)
    assert error.value.reason is Reason.DEADLINE_EXCEEDED
    assert wait.has_stalled
    assert counted(registry) == 1


def test_a_call_that_cannot_be_ended_keeps_no_other_from_it(stalls: Stalls, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("nobody foresaw this")

    for _ in range(2):
        given_up = threading.Event()
        failing, other = Wait(stalls, METHOD, fail), Wait(stalls, METHOD, given_up.set)
        with suppress(DeadlineExceeded), failing, suppress(DeadlineExceeded), other:
            assert given_up.wait(SECONDS)
    assert "A stalled call could not be ended" in caplog.text


def test_the_end_of_a_generator_in_a_wait_stays_that(stalls: Stalls) -> None:
    given_up = threading.Event()
    wait = Wait(stalls, METHOD, given_up.set)

    def answers() -> Iterator[int]:
        with wait:
            yield 1

    begun: Any = answers()
    next(begun)
    assert given_up.wait(SECONDS)
    begun.close()
    assert wait.has_stalled


def test_the_time_between_waits_does_not_count(
    stalls: Stalls, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(stalls_module, "time", clock)
    given_up = threading.Event()
    patient = Wait(stalls, METHOD, given_up.set)
    for _ in range(3):
        with patient:
            pass
        other = threading.Event()
        with pytest.raises(DeadlineExceeded), Wait(stalls, METHOD, other.set):
            assert clock.goes_on(2 * LIMIT_SECONDS, until=other)
    assert not given_up.is_set()
    assert counted(registry) == 3


def test_the_watching_thread_ends_with_the_waits_and_comes_back(
    stalls: Stalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stalls_module, "time", Clock())
    before = watchers()
    for _ in range(2):
        with Wait(stalls, METHOD, lambda: None):
            assert len(watchers(before)) == 1
        wait_until(lambda: not watchers(before))


def test_no_limit_watches_nothing(registry: CollectorRegistry) -> None:
    before = watchers()
    with Wait(Stalls(0, registry), METHOD, lambda: None):
        assert not watchers(before)


def test_a_closed_server_watches_no_more(stalls: Stalls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalls_module, "time", Clock())
    before = watchers()
    with Wait(stalls, METHOD, lambda: None):
        assert len(watchers(before)) == 1
        stalls.close()
        wait_until(lambda: not watchers(before))


class Servicer(blob_store_pb2_grpc.BlobStoreServicer):
    """Does what the test says before it answers."""

    def __init__(self) -> None:
        self.work: Callable[[], object] = lambda: None

    def PutBlob(self, request_iterator: Iterator[pb.PutBlobRequest], _context: grpc.ServicerContext) -> Any:
        keys = [request.header.key for request in request_iterator if request.WhichOneof("part") == "header"]
        if keys == ["worked on"]:
            self.work()
        return pb.PutBlobResponse(created=True)

    def GetBlob(self, _request: pb.GetBlobRequest, _context: grpc.ServicerContext) -> Iterator[pb.GetBlobResponse]:
        for key in ("first", "second"):
            self.work()
            yield pb.GetBlobResponse(info=pb.BlobInfo(key=key))

    def StatBlob(self, _request: pb.StatBlobRequest, _context: grpc.ServicerContext) -> pb.StatBlobResponse:
        self.work()
        return pb.StatBlobResponse()


@pytest.fixture
def servicer() -> Servicer:
    return Servicer()  # type: ignore[abstract]  # what it leaves out is not called


@pytest.fixture
def server(servicer: Servicer) -> Iterator[RpcServer]:
    def register(server: grpc.Server) -> None:
        blob_store_pb2_grpc.add_BlobStoreServicer_to_server(servicer, server)

    options = ServerOptions(listen=("127.0.0.1:0",), stall_timeout_seconds=LIMIT_SECONDS)
    made = RpcServer(options, {"holdfast.v1.BlobStore": register}, CollectorRegistry())
    yield made
    made.stop()


@pytest.fixture
def stub(server: RpcServer) -> Iterator[Any]:
    with grpc.insecure_channel(server.addresses[0]) as channel:
        yield stub_of(channel)


def test_a_handler_that_works_for_longer_than_the_limit_has_not_stalled(
    server: RpcServer, servicer: Servicer, stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(stalls_module, "time", clock)

    def until_others_have_stalled() -> None:
        for _ in range(2):
            with stalled_uploads(server.addresses[0], "PutBlob") as (call,):
                wait_until(partial(has_ended, call))
                assert call.code() is grpc.StatusCode.CANCELLED

    def has_ended(call: Any) -> bool:
        clock.now += LIMIT_SECONDS
        return bool(call.done())

    servicer.work = until_others_have_stalled
    assert stub.PutBlob(upload("worked on", b"data"), timeout=SECONDS).created
    assert [answer.info.key for answer in stub.GetBlob(pb.GetBlobRequest(), timeout=SECONDS)] == ["first", "second"]
    stub.StatBlob(pb.StatBlobRequest(), timeout=SECONDS)
