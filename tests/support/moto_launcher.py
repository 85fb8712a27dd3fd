"""moto's S3 as a server: `moto_launcher.py PORT`, run by the Python of .venv-moto, never imported by tests.

moto's own server differs from a store in two ways that tests of ours would meet. It answers requests side by side,
though moto checks a condition, stores the object and sets its metadata in three steps that no lock holds together: two
writers could both win, and a reader could meet an object without its metadata. And it closes the connection behind
every answer, so nothing would see what becomes of connections that are kept.

Here a request is read whole, then answered under one lock for all, then its answer is sent: a client that stalls holds
up nobody else. Connections stay open.
"""

import io
import sys
import traceback
from datetime import UTC, datetime
from threading import Lock

from moto.moto_server.werkzeug_app import (  # type: ignore[import-not-found]  # It is in .venv-moto only.
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.exceptions import InternalServerError  # type: ignore[import-not-found]
from werkzeug.serving import make_server  # type: ignore[import-not-found]
from werkzeug.test import run_wsgi_app  # type: ignore[import-not-found]

_one_at_a_time = Lock()

_ALWAYS_BEGUN = b"2010-11-10T20:48:33.000Z"
"""When each upload was begun, if moto is asked. Whoever aborts old ones would take those that are at work."""


class _Handler(MotoRequestHandler):  # type: ignore[misc]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def run_wsgi(self) -> None:
        environ = self.make_environ()
        if environ.get("wsgi.input_terminated"):  # Chunked.
            body = environ["wsgi.input"].read()
        else:
            length = int(environ.get("CONTENT_LENGTH") or 0)
            body = self.rfile.read(length)
            if len(body) < length:
                self.close_connection = True  # The client is gone, and what it sent is not an object.
                return
        environ["wsgi.input"] = io.BytesIO(body)
        environ["CONTENT_LENGTH"] = str(len(body))
        try:
            with _one_at_a_time:
                answer = run_wsgi_app(self.server.app, environ, buffered=True)
        except Exception:  # noqa: BLE001  # Whatever moto raises is a store's internal error.
            traceback.print_exc()
            answer = run_wsgi_app(InternalServerError(), environ, buffered=True)
        chunks, status, headers = answer
        body = b"".join(chunks).replace(_ALWAYS_BEGUN, datetime.now(UTC).strftime("%FT%T.000Z").encode())
        code, _, reason = status.partition(" ")
        if self.command != "HEAD":  # After HEAD it is the length of what would have followed, which moto tells.
            headers["Content-Length"] = str(len(body))
        self.send_response(int(code), reason)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    make_server(
        "127.0.0.1", int(sys.argv[1]), create_backend_app("s3"), threaded=True, request_handler=_Handler
    ).serve_forever()
