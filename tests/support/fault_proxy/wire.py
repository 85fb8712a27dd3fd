"""HTTP/1.1 as far as a proxy must know it: heads, and where bodies end (RFC 9112). The bytes pass as they are."""

import fcntl
import select
import socket
import struct
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

_PIECE_BYTES = 256 * 1024
_END_OF_LINE = b"\r\n"
_END_OF_HEAD = b"\r\n\r\n"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_FLUSH_STEP_SECONDS = 0.001


class HungUp(Exception):
    """A connection is closed in the middle of a message, by one of the sides or as a fault."""


class Piece(NamedTuple):
    """Some bytes of a body: payload, or what frames it."""

    data: bytes
    is_payload: bool


@dataclass(frozen=True)
class Head:
    """The words of a message's first line, and its headers by their names in lower case. `raw` is all of it."""

    raw: bytes
    words: tuple[str, ...]
    headers: dict[str, str]

    @classmethod
    def of(cls, raw: bytes) -> Self:
        """Parse a head."""
        first, *fields = raw.removesuffix(_END_OF_HEAD).decode("latin-1").split("\r\n")
        pairs = (field.split(":", 1) for field in fields)
        return cls(raw, tuple(first.split(" ", 2)), {name.strip().lower(): value.strip() for name, value in pairs})

    @property
    def status(self) -> int:
        """The status code, if it is an answer's."""
        return int(self.words[1])

    @property
    def is_interim(self) -> bool:
        """Whether another answer follows, as behind `100 Continue`."""
        return 100 <= self.status < 200


def _count_nothing(_size_bytes: int) -> None:
    pass


class Wire:
    """One side's connection. The counts are told sizes in bytes, before anybody can see an effect of the bytes.

    Methods raise `OSError` as sockets do, and `HungUp` where the other side has ended a message too early.
    """

    def __init__(
        self,
        connection: socket.socket,
        count_received: Callable[[int], None] = _count_nothing,
        count_sent: Callable[[int], None] = _count_nothing,
    ) -> None:
        self._socket = connection
        self._count_received = count_received
        self._count_sent = count_sent
        self._ahead = b""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # heads and bodies are sent one by one

    def head(self) -> Head | None:
        """Read a head; None if the connection was closed instead."""
        while _END_OF_HEAD not in self._ahead:
            data = self._receive_or_end(_PIECE_BYTES)
            if not data and not self._ahead:
                return None
            if not data:
                raise HungUp
            self._ahead += data
        return Head.of(self._take_through(_END_OF_HEAD))

    def body(self, head: Head, *, of_answer: bool = False) -> Iterator[Piece]:
        """Read the body behind a head. An answer's without a declared end is what comes until the connection ends."""
        if head.headers.get("transfer-encoding", "").lower() == "chunked":
            return self._chunks()
        if "content-length" in head.headers:
            return self._payload(int(head.headers["content-length"]))
        return self._rest() if of_answer else iter(())

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self._count_sent(len(data))
        self._socket.sendall(data)

    def flush(self) -> None:
        """Wait until the other side's kernel has all that was sent: a reset throws away what is still on its way."""
        while _unacknowledged_bytes(self._socket) and not self.is_gone():
            time.sleep(_FLUSH_STEP_SECONDS)

    def is_gone(self) -> bool:
        """Whether the other side has closed the connection, even if it sent something that was not read before."""
        return bool(_poll({self._socket: select.POLLRDHUP}, 0))

    def wait(self, *, unless_gone: "Wire") -> None:
        """Wait until there is something to read, if only the end. Raises `HungUp` if the other wire ends before."""
        if self._ahead:
            return
        ready = _poll({self._socket: select.POLLIN, unless_gone._socket: select.POLLRDHUP})
        if self._socket not in ready:
            raise HungUp

    def shut_down(self) -> None:
        """End the connection under the thread that uses it."""
        self._socket.shutdown(socket.SHUT_RDWR)

    def close(self, *, reset: bool = False) -> None:
        """Close the connection in order, or so that the other side gets `ECONNRESET`."""
        if reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._socket.close()

    def _payload(self, size: int) -> Iterator[Piece]:
        left = size
        while left:
            data = self._take(left)
            left -= len(data)
            yield Piece(data, is_payload=True)

    def _chunks(self) -> Iterator[Piece]:
        size = -1
        while size:
            line = self._line()
            yield Piece(line, is_payload=False)
            size = int(line.split(b";")[0], 16)
            if size:
                yield from self._payload(size)
                yield Piece(self._line(), is_payload=False)
        line = b""
        while line != _END_OF_LINE:  # trailers, and the empty line behind them
            line = self._line()
            yield Piece(line, is_payload=False)

    def _rest(self) -> Iterator[Piece]:
        while data := self._ahead or self._receive_or_end(_PIECE_BYTES):
            self._ahead = b""
            yield Piece(data, is_payload=True)

    def _line(self) -> bytes:
        while _END_OF_LINE not in self._ahead:
            self._ahead += self._receive(_PIECE_BYTES)
        return self._take_through(_END_OF_LINE)

    def _take_through(self, end: bytes) -> bytes:
        return self._take(self._ahead.index(end) + len(end))

    def _take(self, most: int) -> bytes:
        if not self._ahead:
            return self._receive(min(most, _PIECE_BYTES))
        data, self._ahead = self._ahead[:most], self._ahead[most:]
        return data

    def _receive(self, most: int) -> bytes:
        data = self._receive_or_end(most)
        if not data:
            raise HungUp
        return data

    def _receive_or_end(self, most: int) -> bytes:
        data = self._socket.recv(most)
        self._count_received(len(data))
        return data


def wait_for_any(*wires: Wire) -> list[Wire]:
    """Wait until there is something to read from one of the wires, if only its end; return those that have some."""
    if ahead := [wire for wire in wires if wire._ahead]:
        return ahead
    ready = _poll({wire._socket: select.POLLIN for wire in wires})
    return [wire for wire in wires if wire._socket in ready]


def _poll(events: dict[socket.socket, int], timeout_ms: int | None = None) -> set[socket.socket]:
    by_fd = {connection.fileno(): connection for connection in events}
    poll = select.poll()
    for connection, wanted in events.items():
        poll.register(connection, wanted)
    return {by_fd[fd] for fd, _happened in poll.poll(timeout_ms)}


def _unacknowledged_bytes(connection: socket.socket) -> int:
    (size,) = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))
    return int(size)
