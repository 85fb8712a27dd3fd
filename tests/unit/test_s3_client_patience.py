"""The one file that knows the S3 library: how long it waits, whatever the store does, and its connections."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

import pytest

from holdfast_server import calls
from holdfast_server.errors import Cancelled, DeadlineExceeded, Unavailable
from holdfast_server.objects.s3.client import S3Client
from holdfast_server.objects.s3.messages import Request
from tests.support.fault_proxy import Fault, FaultProxy, Hang, HangAfter, Seen, Throttle
from tests.support.fault_proxy.exchange import Exchange
from tests.support.http_upstream import HttpUpstream
from tests.support.s3_clients import AWAY, GET, HEAD, PUT, Connect, connecting, failure, measured, within
from tests.support.samples import MIB, sample
from tests.support.waiting import wait_until

SHORT = 0.3
LONG = 200.0


@pytest.fixture
def upstream() -> Iterator[HttpUpstream]:
    """A server that keeps what is put."""
    with HttpUpstream() as server:
        yield server


@pytest.fixture
def proxy(upstream: HttpUpstream) -> Iterator[FaultProxy]:
    """What stands before it."""
    with FaultProxy(upstream.address) as server:
        yield server


@pytest.fixture
def connect() -> Iterator[Connect]:
    with connecting() as make:
        yield make


@pytest.fixture
def client(proxy: FaultProxy, connect: Connect) -> S3Client:
    return connect(proxy.endpoint)


class SlowTaker(Fault):
    """The request's body is not read for a while."""

    def request_body(self, exchange: Exchange, offset: int, data: bytes) -> Iterator[bytes]:
        if not offset:
            exchange.wait(3 * SHORT)
        yield data


def is_large(seen: Seen) -> bool:
    """Return whether it is no late one of the small requests made before."""
    return int(seen.headers["content-length"]) > MIB


def is_put_within(client: S3Client, seconds: float) -> bool:
    """Return whether a caller who waits no longer has it put."""
    try:
        with calls.working_for(calls.Call(time.monotonic() + seconds)):
            client.send(PUT)
    except DeadlineExceeded:
        return False
    return True


@contextmanager
def deaf_listener() -> Iterator[str]:
    """Yield the address of a server to which no connection can be made: its queue is full, and nobody accepts."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"


class TestPatience:
    def test_each_wait_ends_by_the_time_out(self, proxy: FaultProxy, upstream: HttpUpstream, connect: Connect) -> None:
        upstream.stored["/bucket/key"] = sample(MIB)
        client = connect(proxy.endpoint, connect_timeout_seconds=LONG, read_timeout_seconds=SHORT)
        for fault in (Hang("request"), Hang("answer"), HangAfter(1000), Throttle(100_000)):
            injection = proxy.fail(fault)
            with within(LONG / 4):
                error = failure(client, GET)
            AWAY.check(error)
            assert f"within {SHORT} s" in str(error), fault
            wait_until(lambda injection=injection: injection.met == 1)  # type: ignore[misc]  # not by the next request

    def test_a_request_can_have_a_shorter_one(self, proxy: FaultProxy, connect: Connect) -> None:
        client = connect(proxy.endpoint, read_timeout_seconds=LONG)
        proxy.fail(Hang("answer"))
        with within(LONG / 4):
            AWAY.check(failure(client, replace(GET, timeout_seconds=SHORT)))

    def test_connecting_ends_by_its_own_time_out(self, connect: Connect) -> None:
        with deaf_listener() as address, within(LONG / 4):
            client = connect(address, connect_timeout_seconds=SHORT, read_timeout_seconds=LONG)
            error = failure(client, GET)
        AWAY.check(error)
        assert "cannot be reached" in str(error)

    @pytest.mark.parametrize("is_first", [True, False])
    def test_a_body_goes_out_with_the_patience_of_reading(
        self, proxy: FaultProxy, connect: Connect, is_first: bool
    ) -> None:
        patient = connect(proxy.endpoint, connect_timeout_seconds=SHORT, read_timeout_seconds=LONG)
        hasty = connect(proxy.endpoint, connect_timeout_seconds=LONG, read_timeout_seconds=SHORT)
        if not is_first:
            for client in (patient, hasty):
                with suppress(Unavailable):  # a busy machine may be too slow for the hasty one: then this is its first
                    client.send(PUT)
        large = replace(PUT, body=bytes(16 * MIB))  # more than fits between the two
        proxy.fail(SlowTaker(), when=is_large, times=2)
        patient.send(large)
        with within(LONG / 4):
            error = failure(hasty, large)
        AWAY.check(error)
        assert f"within {SHORT} s" in str(error)

    @pytest.mark.parametrize("fault", [Hang("request"), Hang("answer"), HangAfter(1000), Throttle(100_000)])
    def test_a_callers_deadline_is_not_the_stores_fault(
        self, proxy: FaultProxy, upstream: HttpUpstream, connect: Connect, fault: Fault
    ) -> None:
        client = connect(proxy.endpoint, read_timeout_seconds=LONG)
        upstream.stored["/bucket/key"] = sample(MIB)
        proxy.fail(fault)
        with calls.working_for(calls.Call(time.monotonic() + SHORT)), within(LONG / 4):
            assert type(failure(client, GET)) is DeadlineExceeded

    def test_connecting_ends_by_a_callers_deadline(self, connect: Connect) -> None:
        with deaf_listener() as address, within(LONG / 4):
            client = connect(address, connect_timeout_seconds=LONG)
            with calls.working_for(calls.Call(time.monotonic() + SHORT)):
                assert type(failure(client, GET)) is DeadlineExceeded

    def test_one_callers_deadline_is_not_the_next_ones(self, client: S3Client, proxy: FaultProxy) -> None:
        wait_until(lambda: is_put_within(client, 2 * SHORT))  # on a busy machine not at once
        proxy.fail(SlowTaker(), when=is_large)
        client.send(replace(PUT, body=bytes(16 * MIB)))

    def test_nothing_is_sent_for_a_caller_that_is_gone(self, client: S3Client, proxy: FaultProxy) -> None:
        with calls.working_for(calls.Call(is_active=lambda: False)):
            assert type(failure(client, GET)) is Cancelled
        with calls.working_for(calls.Call(time.monotonic() - 1)):
            assert type(failure(client, GET)) is DeadlineExceeded
        assert proxy.requests == []


class TestConnections:
    def test_one_connection_serves_one_request_after_the_other(self, upstream: HttpUpstream, connect: Connect) -> None:
        client = connect(upstream.address)
        small, large = sample(1000), sample(3 * MIB)
        for _ in range(3):
            client.send(replace(PUT, body=small))
            client.send(replace(PUT, key="large", body=large))
            assert client.send(HEAD).body == b""
            AWAY.check(failure(client, replace(GET, key="none")))  # what is no store's answer
            AWAY.check(failure(measured(client), replace(HEAD, key="none")))
            with client.open(replace(GET, key="large")) as download:
                assert download.read(len(large)) == large  # and not asked whether there is more
            with client.open(GET) as download:
                assert download.read(10) == small[:10]  # little is left, and is read
            client.send(Request("delete", "DELETE", "key"))
        assert len(set(upstream.clients)) == 1

    def test_many_at_once_take_as_many_and_keep_them(self, upstream: HttpUpstream, connect: Connect) -> None:
        client = connect(upstream.address)
        together = threading.Barrier(8)

        def work(number: int) -> bool:
            together.wait()
            for _ in range(10):
                client.send(replace(PUT, key=f"{number}", body=b"%d" % number))
            return client.send(replace(GET, key=f"{number}")).body == b"%d" % number

        with ThreadPoolExecutor(8) as pool:
            for _ in range(2):
                assert all(pool.map(work, range(8)))
        assert len(set(upstream.clients)) <= 8

    def test_a_download_that_is_left_early_costs_its_connection_and_no_more(
        self, client: S3Client, proxy: FaultProxy, upstream: HttpUpstream
    ) -> None:
        upstream.stored["/bucket/key"] = sample(32 * MIB)
        before = proxy.bytes_from_upstream
        for _ in range(2):
            with client.open(GET) as download:
                assert len(download.read(1000)) == 1000
            download.close()
        assert client.send(HEAD).status == 200
        assert len(set(upstream.clients)) == 3
        assert proxy.bytes_from_upstream - before < 2 * 24 * MIB
