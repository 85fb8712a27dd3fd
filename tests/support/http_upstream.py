"""A small HTTP/1.1 server for tests of what stands before servers: it keeps what is put, and gives it back."""

import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

CHUNK_BYTES = 1000


class HttpUpstream(ThreadingHTTPServer):
    """Serves on a free port of the loopback until the end of the block, and hangs up then.

    What is put below `/refused` is answered with 403 before its body is read. What is read below `/chunked` comes in
    chunks, and below `/unframed` without a length.
    """

    daemon_threads = False  # so that closing the server waits for them

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.stored: dict[str, bytes] = {}
        """By path and query, as they are in the request."""
        self.clients: list[Any] = []
        """The client's address of each request."""
        self.hosts: list[str | None] = []
        """The `Host` header of each request."""
        self.date = ""
        """What answers have for `Date`; empty: the time."""
        self.address = f"127.0.0.1:{self.server_port}"
        self.connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        self._thread.join()
        for connection in self.connections:
            with suppress(OSError):  # it is closed already
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def __enter__(self) -> Self:
        return self

    def process_request(self, request: Any, client_address: Any) -> None:
        """Keep what to hang up, in the thread that is over before that."""
        self.connections.append(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that vanish are what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HttpUpstream

    def do_PUT(self) -> None:
        self._note()
        if self.path.startswith("/refused"):
            self.close_connection = True
            self._answer(403)
            return
        self.server.stored[self.path] = self._body()
        self._answer(200)

    def do_GET(self) -> None:
        self._note()
        data = self.server.stored.get(self.path)
        if data is None:
            self._answer(404, b"there is none")
        elif self.path.startswith("/chunked"):
            self._answer_in_chunks(data)
        elif self.path.startswith("/unframed"):
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data)
        else:
            self._answer(200, data)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        self._note()
        self.server.stored.pop(self.path, None)
        self.send_response(204)
        self.end_headers()

    def handle_expect_100(self) -> bool:
        return self.path.startswith("/refused") or super().handle_expect_100()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return self.server.date or super().date_time_string(timestamp)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the name is the library's)
        pass

    def _note(self) -> None:
        self.server.clients.append(self.client_address)
        self.server.hosts.append(self.headers["Host"])

    def _body(self) -> bytes:
        if self.headers["Transfer-Encoding"] != "chunked":
            return self._exactly(int(self.headers["Content-Length"] or 0))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self._exactly(size)
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers, up to an empty line or the end
            pass
        return data

    def _exactly(self, size: int) -> bytes:
        data = self.rfile.read(size)
        if len(data) != size:
            raise EOFError
        return data

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _answer_in_chunks(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for start in range(0, len(data), CHUNK_BYTES):
            chunk = data[start : start + CHUNK_BYTES]
            self.wfile.write(f"{len(chunk):x};note=1\r\n".encode() + chunk + b"\r\n")
        self.wfile.write(b"0\r\nX-Trailer: 1\r\n\r\n")
