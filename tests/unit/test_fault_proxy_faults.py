"""Each fault of the fault proxy, as a client sees it, and what the server behind it has seen."""

import time
from collections.abc import Iterator
from contextlib import closing
from http.client import BadStatusLine, HTTPConnection, IncompleteRead, RemoteDisconnected
from xml.etree import ElementTree as ET

import pytest

from tests.support.fault_proxy import (
    Alter,
    AlterUpload,
    Answer,
    AnswerAfter,
    Delay,
    Fault,
    FaultProxy,
    Garbage,
    Hang,
    HangAfter,
    LoseAnswer,
    NotXml,
    ResetAfter,
    ResetBefore,
    ResetUpload,
    Throttle,
    Truncate,
)
from tests.support.http_clients import TIMEOUT_SECONDS, RawClient, ask
from tests.support.http_upstream import HttpUpstream
from tests.support.samples import MIB, sample
from tests.support.waiting import wait_until

DATA = sample(2 * MIB + 5)
MIDDLE = MIB + 7
FRAMINGS = ["/plain", "/chunked", "/unframed"]
END_OF_HEAD = b"\r\n\r\n"


@pytest.fixture
def upstream() -> Iterator[HttpUpstream]:
    """The server behind the proxy, which has DATA in each framing."""
    with HttpUpstream() as server:
        server.stored.update(dict.fromkeys(FRAMINGS, DATA))
        yield server


@pytest.fixture
def proxy(upstream: HttpUpstream) -> Iterator[FaultProxy]:
    """A proxy before it."""
    with FaultProxy(upstream.address) as running:
        yield running


# Late, or not at all.


def test_a_delayed_answer_comes_later(proxy: FaultProxy) -> None:
    proxy.fail(Delay(0.2))
    began = time.monotonic()
    assert ask(proxy.endpoint, "GET", "/plain") == (200, DATA)
    assert time.monotonic() - began >= 0.2


def test_a_delayed_answer_is_not_a_delayed_request_and_comes_when_healed(
    proxy: FaultProxy, upstream: HttpUpstream
) -> None:
    proxy.fail(Delay(1000))
    with RawClient(proxy.endpoint) as client:
        client.ask("PUT", "/key", b"abc")
        wait_until(lambda: "/key" in upstream.stored)
        assert client.hears_nothing()
        proxy.heal()
        assert client.receive(until=END_OF_HEAD).startswith(b"HTTP/1.1 200 ")


def test_a_request_that_hangs_reaches_upstream_when_healed(proxy: FaultProxy, upstream: HttpUpstream) -> None:
    proxy.fail(Hang(before="request"))
    with RawClient(proxy.endpoint) as client:
        client.ask("PUT", "/key", b"abc")
        assert client.hears_nothing()
        assert "/key" not in upstream.stored
        assert proxy.requests[0].fault == Hang(before="request")
        proxy.heal()
        assert client.receive(until=END_OF_HEAD).startswith(b"HTTP/1.1 200 ")
    assert upstream.stored["/key"] == b"abc"


def test_an_answer_that_hangs_comes_when_healed(proxy: FaultProxy, upstream: HttpUpstream) -> None:
    proxy.fail(Hang(before="answer"))
    with RawClient(proxy.endpoint) as client:
        client.ask("PUT", "/key", b"abc")
        wait_until(lambda: [seen.upstream_status for seen in proxy.requests] == [200])
        assert client.hears_nothing()
        assert upstream.stored["/key"] == b"abc"
        proxy.heal()
        assert client.receive(until=END_OF_HEAD).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("target", FRAMINGS)
def test_an_answer_that_hangs_in_its_body_goes_on_when_healed(proxy: FaultProxy, target: str) -> None:
    proxy.fail(HangAfter(MIDDLE))
    with closing(HTTPConnection(proxy.endpoint, timeout=TIMEOUT_SECONDS)) as connection:
        connection.request("GET", target)
        answer = connection.getresponse()
        assert answer.read(MIDDLE) == DATA[:MIDDLE]
        assert proxy.requests[0].answer_bytes == MIDDLE
        proxy.heal()
        assert answer.read() == DATA[MIDDLE:]


@pytest.mark.parametrize("fault", [Hang(before="request"), Hang(before="answer"), HangAfter(3), Delay(1000)])
def test_what_hangs_ends_when_the_client_hangs_up(proxy: FaultProxy, upstream: HttpUpstream, fault: Fault) -> None:
    answered = None if fault == Hang(before="request") else 200
    proxy.fail(fault)
    with RawClient(proxy.endpoint) as client:
        client.ask("GET", "/plain")
        wait_until(lambda: [seen.upstream_status for seen in proxy.requests] == [answered])
        assert proxy.open_connections == 1
    wait_until(lambda: proxy.open_connections == 0)
    assert len(upstream.clients) == (0 if answered is None else 1)


def test_a_throttled_answer_takes_its_time_and_is_whole(proxy: FaultProxy) -> None:
    proxy.fail(Throttle(len(DATA) * 4))
    began = time.monotonic()
    assert ask(proxy.endpoint, "GET", "/plain") == (200, DATA)
    assert time.monotonic() - began >= 0.25


# Resets.


def test_a_request_that_is_reset_before_upstream_knows(proxy: FaultProxy, upstream: HttpUpstream) -> None:
    proxy.fail(ResetBefore())
    with RawClient(proxy.endpoint) as client:
        client.ask("PUT", "/key", b"abc")
        assert client.receive_all() == (b"", True)
    assert not upstream.clients
    assert "/key" not in upstream.stored


def test_the_answer_of_a_successful_put_is_lost(proxy: FaultProxy, upstream: HttpUpstream) -> None:
    proxy.fail(LoseAnswer())
    with RawClient(proxy.endpoint) as client:
        client.ask("PUT", "/key", DATA)
        assert client.receive_all() == (b"", True)
    assert upstream.stored["/key"] == DATA
    assert (proxy.requests[0].upstream_status, proxy.requests[0].status) == (200, None)


def test_an_upload_is_reset_after_so_many_bytes(proxy: FaultProxy, upstream: HttpUpstream) -> None:
    proxy.fail(ResetUpload(MIDDLE))
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        ask(proxy.endpoint, "PUT", "/key", DATA)
    wait_until(lambda: len(upstream.clients) == 1)
    assert "/key" not in upstream.stored
    assert proxy.bytes_to_upstream > MIDDLE
    assert proxy.bytes_to_upstream < MIDDLE + 300


@pytest.mark.parametrize("size", [0, 1, MIDDLE, len(DATA) - 1])
def test_an_answer_is_reset_after_so_many_bytes(proxy: FaultProxy, size: int) -> None:
    proxy.fail(ResetAfter(size))
    with RawClient(proxy.endpoint) as client:
        client.ask("GET", "/plain")
        answer, was_reset = client.receive_all()
    head, _, body = answer.partition(END_OF_HEAD)
    assert f"Content-Length: {len(DATA)}".encode() in head
    assert body == DATA[:size]
    assert was_reset
    assert proxy.requests[0].answer_bytes == size


def test_what_is_shorter_than_the_fault_asks_for_passes_whole(proxy: FaultProxy, upstream: HttpUpstream) -> None:
    for fault in (ResetAfter(len(DATA)), HangAfter(len(DATA)), Alter(len(DATA)), Truncate(0)):
        proxy.fail(fault)
        assert ask(proxy.endpoint, "GET", "/plain") == (200, DATA)
    for upload_fault in (ResetUpload(len(DATA)), AlterUpload(len(DATA))):
        proxy.fail(upload_fault)
        assert ask(proxy.endpoint, "PUT", "/key", DATA) == (200, b"")
        assert upstream.stored.pop("/key") == DATA


# Cut or changed.


@pytest.mark.parametrize("target", ["/plain", "/chunked"])
@pytest.mark.parametrize("missing", [1, MIDDLE, len(DATA), len(DATA) + 1])
def test_an_answer_lacks_its_end_and_the_connection_ends_in_order(proxy: FaultProxy, target: str, missing: int) -> None:
    proxy.fail(Truncate(missing))
    with pytest.raises(IncompleteRead) as failed:
        ask(proxy.endpoint, "GET", target)
    if target == "/plain":
        assert failed.value.partial == DATA[: max(0, len(DATA) - missing)]
    assert proxy.requests[0].answer_bytes == max(0, len(DATA) - missing)


@pytest.mark.parametrize("target", FRAMINGS)
@pytest.mark.parametrize("offset", [0, MIDDLE, len(DATA) - 1])
def test_one_byte_of_an_answer_is_another(proxy: FaultProxy, target: str, offset: int) -> None:
    proxy.fail(Alter(offset))
    status, body = ask(proxy.endpoint, "GET", target)
    assert status == 200
    assert body == DATA[:offset] + bytes([DATA[offset] ^ 1]) + DATA[offset + 1 :]


@pytest.mark.parametrize("in_chunks", [False, True])
@pytest.mark.parametrize("offset", [0, MIDDLE, len(DATA) - 1])
def test_one_byte_of_an_upload_is_another(
    proxy: FaultProxy, upstream: HttpUpstream, offset: int, *, in_chunks: bool
) -> None:
    proxy.fail(AlterUpload(offset))
    body = iter([DATA[:10], DATA[10:]]) if in_chunks else DATA
    assert ask(proxy.endpoint, "PUT", "/key", body) == (200, b"")
    assert upstream.stored["/key"] == DATA[:offset] + bytes([DATA[offset] ^ 1]) + DATA[offset + 1 :]


# Other answers.


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Answer(401), "Unauthorized"),
        (Answer(403), "AccessDenied"),
        (Answer(403, "SignatureDoesNotMatch"), "SignatureDoesNotMatch"),
        (Answer(404), "NoSuchBucket"),
        (Answer(429), "TooManyRequests"),
        (Answer(500), "InternalError"),
        (Answer(503), "SlowDown"),
        (Answer(200, "InternalError"), "InternalError"),
    ],
)
def test_an_error_is_answered_in_s3s_form_and_the_connection_goes_on(
    proxy: FaultProxy, upstream: HttpUpstream, fault: Answer, code: str
) -> None:
    proxy.fail(fault)
    with closing(HTTPConnection(proxy.endpoint, timeout=TIMEOUT_SECONDS)) as connection:
        connection.request("PUT", "/bucket/%3Ckey%3E", DATA)
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Content-Type"]) == (fault.status, "application/xml")
        error = ET.fromstring(answer.read())
        assert (error.tag, error.findtext("Code"), error.findtext("Resource")) == ("Error", code, "/bucket/<key>")
        assert not upstream.clients
        local_address = connection.sock.getsockname()
        connection.request("GET", "/plain")
        assert connection.getresponse().read() == DATA
        assert connection.sock.getsockname() == local_address
    assert (proxy.requests[0].status, proxy.requests[0].upstream_status) == (fault.status, None)


def test_an_error_may_have_further_headers(proxy: FaultProxy) -> None:
    proxy.fail(Answer(503, headers={"Retry-After": "7"}))
    with closing(HTTPConnection(proxy.endpoint, timeout=TIMEOUT_SECONDS)) as connection:
        connection.request("GET", "/plain")
        answer = connection.getresponse()
        answer.read()
        assert answer.headers["Retry-After"] == "7"


@pytest.mark.parametrize("fault", [Answer(403), AnswerAfter(403), NotXml(502)])
def test_an_error_has_no_body_for_head(proxy: FaultProxy, fault: Fault) -> None:
    proxy.fail(fault)
    with RawClient(proxy.endpoint) as client:
        client.ask("HEAD", "/plain")
        assert client.receive(until=END_OF_HEAD).endswith(END_OF_HEAD)
        client.ask("GET", "/none")
        assert client.receive(until=b"there is none").startswith(b"HTTP/1.1 404 ")


def test_an_error_is_answered_after_upstream_has_done_it(proxy: FaultProxy, upstream: HttpUpstream) -> None:
    proxy.fail(AnswerAfter(500))
    with closing(HTTPConnection(proxy.endpoint, timeout=TIMEOUT_SECONDS)) as connection:
        connection.request("PUT", "/key", b"new")
        answer = connection.getresponse()
        assert (answer.status, ET.fromstring(answer.read()).findtext("Code")) == (500, "InternalError")
    assert upstream.stored["/key"] == b"new"
    assert (proxy.requests[0].upstream_status, proxy.requests[0].status) == (200, 500)


def test_the_connection_goes_on_after_an_error_though_upstream_has_closed_its_own(proxy: FaultProxy) -> None:
    proxy.fail(AnswerAfter(500))
    with closing(HTTPConnection(proxy.endpoint, timeout=TIMEOUT_SECONDS)) as connection:
        connection.request("GET", "/unframed")
        assert connection.getresponse().read().startswith(b"<?xml")
        assert proxy.bytes_from_upstream > len(DATA)
        connection.request("GET", "/unframed")
        assert connection.getresponse().read() == DATA


def test_an_error_that_is_not_s3s_is_html(proxy: FaultProxy, upstream: HttpUpstream) -> None:
    proxy.fail(NotXml(502))
    status, body = ask(proxy.endpoint, "PUT", "/key", DATA)
    assert status == 502
    assert body.startswith(b"<html>")
    with pytest.raises(ET.ParseError):
        ET.fromstring(body)
    assert not upstream.clients


def test_garbage_is_no_http(proxy: FaultProxy, upstream: HttpUpstream) -> None:
    proxy.fail(Garbage())
    with pytest.raises(BadStatusLine) as failed:
        ask(proxy.endpoint, "PUT", "/key", DATA)
    assert not isinstance(failed.value, RemoteDisconnected)  # which is one, when nothing comes
    assert not upstream.clients
