"""The fault proxy without faults is not there; it decides which requests meet which faults; and it leaves nothing."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection

import pytest

from tests.support.fault_proxy import FOREVER, Answer, Delay, FaultProxy, Hang
from tests.support.http_clients import TIMEOUT_SECONDS, RawClient, ask
from tests.support.http_upstream import HttpUpstream
from tests.support.ports import held_port
from tests.support.samples import MIB, sample
from tests.support.waiting import wait_until

DATA = sample(2 * MIB + 5)


@pytest.fixture
def upstream() -> Iterator[HttpUpstream]:
    """The server behind the proxy."""
    with HttpUpstream() as server:
        yield server


@pytest.fixture
def proxy(upstream: HttpUpstream) -> Iterator[FaultProxy]:
    """A proxy before it."""
    with FaultProxy(upstream.address) as running:
        yield running


@pytest.fixture
def bare_upstream() -> Iterator[socket.socket]:
    """A listening socket: its test is the server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def bare_proxy(bare_upstream: socket.socket) -> Iterator[FaultProxy]:
    """A proxy before it."""
    with FaultProxy(f"127.0.0.1:{bare_upstream.getsockname()[1]}") as running:
        yield running


def accept(listener: socket.socket) -> socket.socket:
    connection, _address = listener.accept()
    connection.settimeout(TIMEOUT_SECONDS)
    return connection


def proxy_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("fault proxy")]


# What passes.


@pytest.mark.parametrize("target", ["/plain", "/chunked", "/unframed"])
@pytest.mark.parametrize("data", [b"", b"x", DATA])
def test_bodies_pass_whole_however_they_are_framed(
    proxy: FaultProxy, upstream: HttpUpstream, target: str, data: bytes
) -> None:
    assert ask(proxy.endpoint, "PUT", target, data) == (200, b"")
    assert upstream.stored[target] == data
    assert ask(proxy.endpoint, "GET", target) == (200, data)


def test_a_request_in_chunks_passes(proxy: FaultProxy, upstream: HttpUpstream) -> None:
    pieces = [DATA[:1], DATA[1:MIB], DATA[MIB:]]
    assert ask(proxy.endpoint, "PUT", "/key", iter(pieces)) == (200, b"")
    assert upstream.stored["/key"] == DATA
    assert proxy.requests[0].request_bytes == len(DATA)


def test_bytes_pass_as_they_are(bare_proxy: FaultProxy, bare_upstream: socket.socket) -> None:
    request = b"GET /a%20b?x=%2f&y HTTP/1.1\r\nhOST:   signed.example:1234\r\nX: 1\r\nx: 2\r\n\r\n"
    answer = b"HTTP/1.1 299 Odd Enough\r\ncontent-LENGTH:3\r\nX-Odd:\r\n\r\nabc"
    with RawClient(bare_proxy.endpoint) as client:
        client.send(request)
        with accept(bare_upstream) as connection:
            assert connection.recv(10_000) == request
            connection.sendall(answer)
        assert client.receive_all() == (answer, False)


def test_the_host_is_the_one_that_the_client_named_and_may_have_signed(
    proxy: FaultProxy, upstream: HttpUpstream
) -> None:
    ask(proxy.endpoint, "GET", "/")
    assert upstream.hosts == [proxy.endpoint]


def test_connections_are_kept_and_not_shared(proxy: FaultProxy, upstream: HttpUpstream) -> None:
    upstream.stored["/key"] = DATA
    with closing(HTTPConnection(proxy.endpoint, timeout=TIMEOUT_SECONDS)) as connection:
        for method in ("GET", "HEAD", "DELETE", "GET"):
            connection.request(method, "/key")
            connection.getresponse().read()
    ask(proxy.endpoint, "GET", "/key")
    assert [seen.status for seen in proxy.requests] == [200, 200, 204, 404, 404]
    first, *others, last = upstream.clients
    assert others == [first] * 3
    assert last != first


def test_an_answer_before_the_end_of_the_request_passes(proxy: FaultProxy) -> None:
    assert ask(proxy.endpoint, "PUT", "/refused", sample(32 * MIB)) == (403, b"")


def test_a_client_that_asks_before_it_sends_is_invited(proxy: FaultProxy, upstream: HttpUpstream) -> None:
    with RawClient(proxy.endpoint) as client:
        client.send(b"PUT /key HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert client.receive(until=b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        client.send(b"abc")
        assert client.receive(until=b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert upstream.stored["/key"] == b"abc"


def test_a_client_that_asks_before_it_sends_is_refused_and_its_connection_closed(
    bare_proxy: FaultProxy, bare_upstream: socket.socket
) -> None:
    request = b"PUT /key HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
    with RawClient(bare_proxy.endpoint) as client:
        client.send(request)
        with accept(bare_upstream) as connection:
            assert connection.recv(10_000) == request
            connection.sendall(answer)
            assert client.receive_all() == (answer, False)
    bare_proxy.fail(Answer(403))
    with RawClient(bare_proxy.endpoint) as client:
        client.send(request)
        assert client.receive_all()[0].startswith(b"HTTP/1.1 403 ")


# What it tells.


def test_requests_are_told_as_they_were(proxy: FaultProxy) -> None:
    ask(proxy.endpoint, "PUT", "/a%20b/%C3%A4?uploadId=x%2By&acl", b"12345", {"X-Amz-Meta-A": "1"})
    ask(proxy.endpoint, "GET", "/a%20b/%C3%A4?uploadId=x%2By&acl")
    put, get = proxy.requests
    assert (put.method, put.path, put.query) == ("PUT", "/a b/ä", {"uploadId": "x+y", "acl": ""})
    assert put.headers["x-amz-meta-a"] == "1"
    assert (put.request_bytes, put.answer_bytes, put.upstream_status, put.status, put.fault) == (5, 0, 200, 200, None)
    assert (get.method, get.request_bytes, get.answer_bytes, get.status) == ("GET", 0, 5, 200)


def test_what_is_told_does_not_change(proxy: FaultProxy) -> None:
    with RawClient(proxy.endpoint) as client:
        client.send(b"PUT /key HTTP/1.1\r\nContent-Length: 3\r\n\r\n")
        wait_until(lambda: bool(proxy.requests))
        before = proxy.requests
        client.send(b"abc")
        client.receive(until=b"\r\n\r\n")
    assert [(seen.request_bytes, seen.status) for seen in before] == [(0, None)]
    assert [(seen.request_bytes, seen.status) for seen in proxy.requests] == [(3, 200)]


def test_the_bytes_to_and_from_upstream_are_counted_with_their_heads(
    bare_proxy: FaultProxy, bare_upstream: socket.socket
) -> None:
    request = b"PUT /key HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nde"
    with RawClient(bare_proxy.endpoint) as client:
        client.send(request)
        with accept(bare_upstream) as connection:
            connection.sendall(answer)
            client.receive(until=b"de")
    assert (bare_proxy.bytes_to_upstream, bare_proxy.bytes_from_upstream) == (len(request), len(answer))


# Which requests meet a fault.


def statuses(proxy: FaultProxy, *methods: str) -> list[int]:
    return [ask(proxy.endpoint, method, "/none")[0] for method in methods]


def test_a_fault_meets_the_next_request_and_no_other(proxy: FaultProxy) -> None:
    statuses(proxy, "GET")
    injection = proxy.fail(Answer(500))
    assert statuses(proxy, "GET", "GET") == [500, 404]
    assert [seen.fault for seen in proxy.requests] == [None, Answer(500), None]
    assert (injection.matched, injection.met) == (2, 1)


def test_a_fault_meets_the_requests_from_the_nth_on_as_often_as_it_is_told(proxy: FaultProxy) -> None:
    injection = proxy.fail(Answer(500), nth=2, times=2)
    assert statuses(proxy, "GET", "GET", "GET", "GET") == [404, 500, 500, 404]
    assert injection.met == 2
    proxy.fail(Answer(503), times=FOREVER)
    assert statuses(proxy, "GET", "GET", "GET") == [503, 503, 503]


def test_only_requests_that_match_meet_a_fault_and_are_counted(proxy: FaultProxy) -> None:
    proxy.fail(Answer(500), when=lambda seen: seen.method == "GET" and seen.path == "/none", nth=2)
    assert statuses(proxy, "DELETE", "GET", "DELETE", "GET") == [204, 404, 204, 500]


def test_of_two_faults_the_older_is_met_and_both_count(proxy: FaultProxy) -> None:
    proxy.fail(Answer(500), nth=2)
    proxy.fail(Answer(503), nth=2, times=2)
    assert statuses(proxy, "GET", "GET", "GET", "GET") == [404, 500, 503, 404]


def test_healing_forgets_all_faults(proxy: FaultProxy) -> None:
    proxy.fail(Answer(500), times=FOREVER)
    proxy.fail(Answer(503), times=FOREVER)
    proxy.heal()
    assert statuses(proxy, "GET") == [404]


def test_a_sweep_fails_each_request_in_turn_and_ends_with_the_run_that_has_none(proxy: FaultProxy) -> None:
    found = []
    for faulted in proxy.sweep(Answer(500), when=lambda seen: seen.method != "DELETE"):
        assert statuses(proxy, "GET") == [404]
        with faulted as injection:
            found.append((statuses(proxy, "DELETE", "GET", "DELETE", "GET"), injection.met))
        assert statuses(proxy, "GET", "GET") == [404, 404]
    assert found == [([204, 500, 204, 404], 1), ([204, 404, 204, 500], 1), ([204, 404, 204, 404], 0)]


# Going down, and the end.


def test_a_proxy_that_is_down_refuses_and_comes_back_on_its_port(proxy: FaultProxy) -> None:
    with RawClient(proxy.endpoint) as client:
        client.ask("GET", "/none")
        client.receive(until=b"there is none")
        proxy.go_down()
        assert client.receive_all() == (b"", False)
    proxy.go_down()
    with pytest.raises(ConnectionRefusedError):
        RawClient(proxy.endpoint)
    proxy.come_back()
    assert statuses(proxy, "GET") == [404]


def test_nobody_else_gets_the_port_of_a_proxy_that_is_down(proxy: FaultProxy) -> None:
    proxy.go_down()
    host, port = proxy.endpoint.split(":")
    with pytest.raises(OSError, match="in use"), socket.create_server((host, int(port))):
        pass


def test_clients_are_reset_while_upstream_is_away_and_served_where_it_is_next(
    proxy: FaultProxy, upstream: HttpUpstream
) -> None:
    with held_port() as unused, RawClient(proxy.endpoint) as client:
        client.ask("GET", "/none")
        client.receive(until=b"there is none")
        proxy.upstream = f"127.0.0.1:{unused}"
        client.ask("GET", "/none")
        assert client.receive_all() == (b"", True)
    proxy.upstream = upstream.address
    assert statuses(proxy, "GET") == [404]


@pytest.mark.parametrize("body", [b"a", b"ab"])
def test_a_connection_that_upstream_closes_is_closed_idle_or_not(
    bare_proxy: FaultProxy, bare_upstream: socket.socket, body: bytes
) -> None:
    with RawClient(bare_proxy.endpoint) as client:
        client.ask("GET", "/")
        with accept(bare_upstream) as connection:
            connection.recv(10_000)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + body)
            client.receive(until=body)
        assert client.receive_all() == (b"", False)


def test_a_client_that_hangs_up_ends_its_connection_to_upstream(
    bare_proxy: FaultProxy, bare_upstream: socket.socket
) -> None:
    with RawClient(bare_proxy.endpoint) as client:
        client.ask("GET", "/")
        with accept(bare_upstream) as connection:
            connection.recv(10_000)
            client.close()
            assert connection.recv(1) == b""


def test_closing_leaves_nothing_whatever_is_going_on(upstream: HttpUpstream) -> None:
    with FaultProxy(upstream.address) as proxy, closing(HTTPConnection(proxy.endpoint)) as kept:
        kept.request("GET", "/none")
        kept.getresponse().read()
        proxy.fail(Hang(before="request"))
        proxy.fail(Hang(before="answer"), nth=2)
        proxy.fail(Delay(1000), nth=3)
        clients = [RawClient(proxy.endpoint) for _ in range(5)]
        for client in clients[:3]:
            client.ask("GET", "/none")
        clients[3].send(b"PUT /key HTTP/1.1\r\nContent-Length: 1000\r\n\r\nabc")
        wait_until(lambda: len(proxy.requests) == 5)
        assert proxy_threads()
        proxy.close()
        assert not proxy_threads()
        for client in clients:
            client.receive_all()
            client.close()
    with pytest.raises(ConnectionRefusedError):
        RawClient(proxy.endpoint)
