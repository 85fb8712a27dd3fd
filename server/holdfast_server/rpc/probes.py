"""The HTTP port: `/healthz`, `/readyz` and `/metrics`, for probes and Prometheus."""

import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, exposition

_TEXT = "text/plain; charset=utf-8"
_REQUEST_SECONDS = 10


class Probes:
    """Answers on `host:port`; port 0 picks a free one. Raises `OSError` if the port cannot be bound."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry, is_ready: Callable[[], bool]) -> None:
        def healthz() -> tuple[int, str, bytes]:
            return 200, _TEXT, b"ok\n"

        def readyz() -> tuple[int, str, bytes]:
            return (200, _TEXT, b"ready\n") if is_ready() else (503, _TEXT, b"not ready\n")

        def metrics() -> tuple[int, str, bytes]:
            return 200, exposition.CONTENT_TYPE_PLAIN_0_0_4, exposition.generate_latest(registry)

        pages = {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics}

        class Handler(BaseHTTPRequestHandler):
            timeout = _REQUEST_SECONDS
            server_version = "holdfast"
            sys_version = ""

            def do_GET(self) -> None:
                page = pages.get(self.path.partition("?")[0])
                code, kind, body = page() if page else (404, _TEXT, b"not found\n")
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing: probes come every few seconds."""

        class Server(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """Say nothing: a client that went away is no event."""

        self._server = Server((host, port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="probes", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that was bound."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
