"""Clients that show what comes over a connection: whole answers, or the bytes as they are and how they end."""

import socket
from collections.abc import Iterable, Mapping
from contextlib import closing
from http.client import HTTPConnection
from types import TracebackType
from typing import Self

TIMEOUT_SECONDS = 60
QUIET_SECONDS = 0.1
"""How long nothing must come for the tests to say that nothing comes."""


def ask(
    address: str,
    method: str,
    target: str,
    body: bytes | Iterable[bytes] | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, bytes]:
    """Ask on a connection of its own, and return the status and the body. Raises what `http.client` does."""
    with closing(HTTPConnection(address, timeout=TIMEOUT_SECONDS)) as connection:
        connection.request(method, target, body, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read()


class RawClient:
    """A connection to send and receive bytes on."""

    def __init__(self, address: str) -> None:
        host, port = address.split(":")
        self._socket = socket.create_connection((host, int(port)), timeout=TIMEOUT_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self._socket.sendall(data)

    def ask(self, method: str, target: str, body: bytes = b"") -> None:
        """Send a request."""
        self.send(f"{method} {target} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    def receive(self, *, until: bytes) -> bytes:
        """Return what comes, up to these bytes at least. Raises `TimeoutError`."""
        data = b""
        while until not in data:
            data += self._socket.recv(1 << 16)
        return data

    def receive_all(self) -> tuple[bytes, bool]:
        """Return what comes until the connection ends, and whether it ended with a reset. Raises `TimeoutError`."""
        data = b""
        try:
            while more := self._socket.recv(1 << 16):
                data += more
        except ConnectionResetError:
            return data, True
        return data, False

    def hears_nothing(self) -> bool:
        """Tell whether nothing comes for a while, not even the end."""
        self._socket.settimeout(QUIET_SECONDS)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(TIMEOUT_SECONDS)
        return False
