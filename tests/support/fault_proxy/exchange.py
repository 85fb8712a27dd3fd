"""One request on its way to upstream, and the answer on its way back: what a fault can act on."""

import http.client
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from threading import Event
from typing import NoReturn
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.support.fault_proxy.wire import Head, HungUp, Piece, Wire, wait_for_any

_WAIT_STEP_SECONDS = 0.02
_NO_BODY = (204, 304)


@dataclass
class Seen:
    """A request that came by, and what has become of it so far."""

    method: str
    path: str
    """Decoded, without the query."""
    query: dict[str, str]
    """Decoded; parameters without a value have an empty one."""
    headers: dict[str, str]
    """By their names in lower case."""
    fault: "Fault | None" = None
    """What it met."""
    request_bytes: int = 0
    """Of its body, as received from the client."""
    answer_bytes: int = 0
    """Of the answer's body, as sent to the client."""
    upstream_status: int | None = None
    """What upstream answered; None: it was not asked, or has not answered."""
    status: int | None = None
    """What the client was told; None: nothing."""

    @classmethod
    def of(cls, head: Head) -> "Seen":
        """Return what a request's head says."""
        method, target = head.words[:2]
        parts = urlsplit(f"http://{head.headers.get('host', '')}{target}")
        return cls(method, unquote(parts.path), dict(parse_qsl(parts.query, keep_blank_values=True)), head.headers)


class Fault:
    """What goes wrong with a request. The methods are the moments of an exchange; a fault has those that it uses."""

    def before_request(self, exchange: "Exchange") -> None:
        """Act before the request is passed on: its head is here, the body may be on its way."""

    def request_body(self, exchange: "Exchange", offset: int, data: bytes) -> Iterable[bytes]:
        """Return what to pass on in place of these bytes of the request's body; as a generator, piece by piece."""
        return (data,)

    def before_answer(self, exchange: "Exchange") -> None:
        """Act before the answer is passed on: its head is here, the body may be on its way."""

    def answer_body(self, exchange: "Exchange", offset: int, data: bytes) -> Iterable[bytes]:
        """Return what to pass on in place of these bytes of the answer's body; as a generator, piece by piece."""
        return (data,)


class _Answered(Exception):
    """The client has an answer that is not upstream's."""


class Exchange:
    """Passes a request and its answer; the public methods are what a fault can do.

    `connect` gives the connection to upstream, `released` is set when waiting shall end.
    """

    def __init__(
        self, client: Wire, head: Head, seen: Seen, *, fault: Fault, released: Event, connect: Callable[[], Wire]
    ) -> None:
        self._client = client
        self._head = head
        self.seen = seen
        self._fault = fault
        self._released = released
        self._connect = connect
        self._upstream: Wire | None = None
        self._answer: Iterable[Piece] = ()
        self._unread = False
        self.answer_size = 0
        """Of the answer's body, in bytes, once `read_answer` knows it."""

    def run(self) -> bool:
        """Pass the request and the answer, and return whether the client has upstream's answer and not another one.

        Raises `HungUp` if the connections are to be closed now, and `OSError` if they are to be reset.
        """
        try:
            self._fault.before_request(self)
            self._upstream = self._connect()
            head = self._pass_request(self._upstream)
            self.seen.upstream_status = head.status
            has_body = self.seen.method != "HEAD" and head.status not in _NO_BODY
            self._answer = self._upstream.body(head, of_answer=True) if has_body else ()
            self._fault.before_answer(self)
            self._pass_answer(head)
        except _Answered:
            was_passed = False
        else:
            was_passed = True
        if self._unread:
            raise HungUp
        return was_passed

    def wait(self, seconds: float = math.inf) -> None:
        """Let time pass, until it is over or everything is healed. Ends the exchange if the client hangs up."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._released.wait(min(left, _WAIT_STEP_SECONDS)):
            if self._client.is_gone():
                self.hang_up()

    def reset(self) -> NoReturn:
        """Reset the connections, as soon as both sides have all that was sent so far."""
        for wire in (self._client, self._upstream):
            if wire is not None:
                wire.flush()
        raise ConnectionResetError

    def hang_up(self) -> NoReturn:
        """Close the connections in order, wherever the messages are."""
        raise HungUp

    def read_request(self) -> None:
        """Read the request's body, and let go of it. A client that asks before it sends one is not invited to."""
        if self._asks_first:
            self._unread = True
            return
        for _piece in self._request_body():
            pass

    def read_answer(self) -> None:
        """Read the answer's body to its end before any of it is passed on."""
        self._answer = list(self._answer)
        self.answer_size = sum(len(piece.data) for piece in self._answer if piece.is_payload)

    def answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> NoReturn:
        """Give the client this answer (to HEAD: without the body), and no other."""
        body = b"" if self.seen.method == "HEAD" else body
        phrase = http.client.responses.get(status, "Unknown")
        lines = [f"HTTP/1.1 {status} {phrase}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.seen.status = status
        self.seen.answer_bytes = len(body)
        self.send("\r\n".join([*lines, "", ""]).encode() + body)
        raise _Answered

    def send(self, data: bytes) -> None:
        """Send the client bytes as they are."""
        self._client.send(data)

    def _pass_request(self, upstream: Wire) -> Head:
        """Pass the request on, and return the head of the answer."""
        upstream.send(self._head.raw)
        if self._asks_first and self._client not in wait_for_any(self._client, upstream):
            head = self._answer_head(upstream)
            if not head.is_interim:
                self._unread = True
                return head
        for piece in self._changed(self._request_body(), self._fault.request_body):
            # Upstream may have answered and closed already: then its answer counts, as soon as the client listens.
            with suppress(OSError):
                upstream.send(piece.data)
        head = self._answer_head(upstream)
        while head.is_interim:
            head = self._answer_head(upstream)
        return head

    def _answer_head(self, upstream: Wire) -> Head:
        upstream.wait(unless_gone=self._client)
        head = upstream.head()
        if head is None:
            raise HungUp
        if head.is_interim:
            self._client.send(head.raw)
        return head

    def _pass_answer(self, head: Head) -> None:
        self.seen.status = head.status
        self._client.send(head.raw)
        for piece in self._changed(self._answer, self._fault.answer_body):
            self.seen.answer_bytes += len(piece.data) if piece.is_payload else 0
            self._client.send(piece.data)

    def _changed(
        self, pieces: Iterable[Piece], change: Callable[["Exchange", int, bytes], Iterable[bytes]]
    ) -> Iterator[Piece]:
        offset = 0
        for piece in pieces:
            if piece.is_payload:
                yield from (Piece(data, is_payload=True) for data in change(self, offset, piece.data))
                offset += len(piece.data)
            else:
                yield piece

    def _request_body(self) -> Iterator[Piece]:
        for piece in self._client.body(self._head):
            self.seen.request_bytes += len(piece.data) if piece.is_payload else 0
            yield piece

    @property
    def _asks_first(self) -> bool:
        return self._head.headers.get("expect", "").lower() == "100-continue"
