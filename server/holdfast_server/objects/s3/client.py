"""One request to an S3 store, signed, sent and answered: the only file that knows `minio` and `urllib3`.

`minio` builds the address and signs, all headers included, through its one private door `Minio._execute`: its public
methods have no conditional put, and take unknown headers for metadata. What comes back is read here, since `minio`
throws away what it does not expect. The contract tests hold this against real servers.
"""

import ssl
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn, Self, cast

import certifi
import urllib3
from minio import Minio
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ReadTimeoutError, SSLError
from urllib3.response import BaseHTTPResponse

from holdfast_server import calls
from holdfast_server.errors import DeadlineExceeded, HoldfastError, Reason, Unavailable
from holdfast_server.objects.retrying import SilentBackend
from holdfast_server.objects.s3.clock import StoreClock
from holdfast_server.objects.s3.messages import Answer, Request, S3Refusal, Unexplained, error_code, error_of
from holdfast_server.objects.s3.options import S3Options

_SEND_BYTES = 256 << 10
"""A body goes out in steps of this size: `sendall` has one time-out for all that it is given."""

_MOST_ERROR_BYTES = 64 << 10
_MOST_ANSWER_BYTES = 16 << 20
"""Far above the longest answer that is read whole: a page of 1,000 keys."""

_LEFT_BYTES = 4 << 10
_WITH_BODY = ("PUT", "POST")
_LEAST_SECONDS = 0.01
_SILENT_SECONDS = 1.0
"""A store that says nothing for so long is looked at, also where a caller's deadline comes before the time-out."""

_FOUND = (200, 204, 206)
_AMBIGUOUS = (400, 404)
"""What AWS answers to a HEAD for keys that have expired, too; and for a bucket that is missing as for an object."""

_MINIO_CODE = "x-minio-error-code"
"""Where MinIO says it of a HEAD."""


class Download:
    """An answer whose body is read as it is needed. To be closed."""

    def __init__(self, response: BaseHTTPResponse, timeout_seconds: float) -> None:
        self.status = response.status
        self.headers = _headers(response)
        self._response = response
        self._timeout_seconds = timeout_seconds

    def read(self, size: int, within_seconds: float | None = None) -> bytes:
        """Return the next `size` bytes, or fewer at the end of the body.

        Raises `Unavailable` if it breaks off, or if they take longer than `within_seconds` in all (None: the time-out).
        """
        limit = self._timeout_seconds if within_seconds is None else within_seconds
        begun = time.monotonic()
        parts: list[bytes] = []
        missing = size
        while missing:
            calls.check("reading from the store")
            try:
                part = self._response.read1(missing)
            except (HTTPError, OSError) as error:
                _let_go(error)
                calls.check("reading from the store")
                raise _unavailable(error, self._timeout_seconds) from error
            if not part:
                break
            parts.append(part)
            missing -= len(part)
            if missing and time.monotonic() - begun > limit:
                calls.check("reading from the store")
                raise _too_slow(limit)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Give the connection back, or close it if there is much to come; harmless when repeated."""
        left = self._response.length_remaining or 0
        if 0 < left <= _LEFT_BYTES:
            with suppress(HTTPError, OSError):
                self._response.read()  # it has arrived with the rest: cheaper than a new connection
        self._response.close()
        self._response.release_conn()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class S3Client:
    """Sends requests to one bucket. All methods may be called from many threads at once."""

    def __init__(self, options: S3Options) -> None:
        self._options = options
        self.clock = StoreClock()
        """Sees the date of every answer that is no error: those may be a proxy's."""
        self._pool = _Pool(options, self.clock)
        self._minio = Minio(
            options.endpoint,
            access_key=options.access_key,
            secret_key=options.secret_key,
            session_token=options.session_token or None,
            secure=options.secure,
            region=options.region,  # without it each bucket costs a request more
            http_client=self._pool,
        )

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self._options.bucket

    def send(self, request: Request) -> Answer:
        """Send a request, and return its answer with the whole body.

        Raises `S3Refusal`, which is `Unexplained` where a HEAD does not say why; `Unavailable`, `BackendRefused`,
        `StorageFull`; and `DeadlineExceeded` where the caller's patience was shorter than the time-out.
        """
        with self.open(request) as download:
            body = download.read(_MOST_ANSWER_BYTES + 1, request.work_seconds)
        if len(body) > _MOST_ANSWER_BYTES:
            raise Unavailable(Reason.BACKEND_UNAVAILABLE, "the S3 store answered with more than such an answer has")
        if request.method != "GET" and (code := error_code(body)):
            # Copies and completions begin with 200 while they are at work, and may end in an error all the same.
            raise self._refusal(request, _Answered(download.status, code, download.headers))
        return Answer(download.status, download.headers, body)

    def open(self, request: Request) -> Download:
        """Send a request, and return its answer with the body still to be read; raises as `send` does."""
        calls.check("asking the store")
        timeout = self._timeout(request)
        self._pool.timeouts = timeout
        try:
            response = self._minio._execute(  # noqa: SLF001 (see above)
                request.method,
                self._options.bucket,
                request.key or None,
                # Over TLS an empty body would be summed, and the sum sent.
                body=cast("bytes", request.body) if request.method in _WITH_BODY else None,
                headers=dict(request.headers),
                query_params=dict(request.query),
                preload_content=False,
            )
        except _Answered as answered:
            if request.method == "HEAD" and not answered.code and answered.status in _AMBIGUOUS:
                raise Unexplained(answered.status, "", answered.headers) from None
            raise self._refusal(request, answered) from None
        except (HTTPError, OSError) as error:
            _let_go(error)
            self._fail(error, timeout)
        return Download(response, timeout.read)

    def close(self) -> None:
        """Close the connections that nobody uses."""
        self._pool.close_idle()

    def _timeout(self, request: Request) -> "_Timeout":
        bound = min(
            (limit for limit in (request.timeout_seconds, calls.time_left()) if limit is not None), default=None
        )
        connect, read = self._options.connect_timeout_seconds, self._options.read_timeout_seconds
        if bound is None:
            return _Timeout(connect, read)
        bound = max(bound, _LEAST_SECONDS)
        return _Timeout(min(connect, bound), min(read, bound))

    def _fail(self, error: Exception, timeout: "_Timeout") -> NoReturn:
        left = calls.time_left()
        if left is not None and left <= 0:
            # The caller's time was up before the store's, which says nothing about the store unless it was long.
            message = "the deadline passed while asking the store"
            is_long = timeout.read >= min(_SILENT_SECONDS, self._options.read_timeout_seconds)
            raise (SilentBackend if is_long else DeadlineExceeded)(message) from error
        waited = timeout.connect if isinstance(error, ConnectTimeoutError) else timeout.read
        raise _unavailable(error, waited) from error

    def _refusal(self, request: Request, answered: "_Answered") -> HoldfastError | S3Refusal:
        """Return what to raise: where it has a name when it is raised, it holds its frame, and that holds it."""
        status, code = answered.status, answered.code
        error = error_of(request, self._options.bucket, status, code)
        return error or S3Refusal(status, code, answered.headers)


@dataclass(frozen=True, slots=True)
class _Timeout:
    connect: float
    read: float


class _Answered(Exception):
    """An answer that is an error, on its way past `minio`, which would lose its headers or its code."""

    def __init__(self, status: int, code: str, headers: Mapping[str, str]) -> None:
        super().__init__(status, code)
        self.status = status
        self.code = code
        self.headers = headers


class _Pool(urllib3.PoolManager):
    """The connections. Redirects are not followed and nothing is tried again: what becomes of it is ours to say."""

    def __init__(self, options: S3Options, clock: StoreClock) -> None:
        context = ssl.create_default_context()
        context.load_verify_locations(certifi.where())  # beside the machine's own, which a small image may lack
        super().__init__(
            # As many hosts as a request can go to: one.
            num_pools=2,
            maxsize=options.max_connections,
            retries=False,
            **cast("Any", {"ssl_context": context} if options.secure else {}),
        )
        self._clock = clock
        self._local = threading.local()

    @property
    def timeouts(self) -> _Timeout:
        """The time-outs of this thread's next request."""
        return cast("_Timeout", self._local.timeout)

    @timeouts.setter
    def timeouts(self, timeout: _Timeout) -> None:
        self._local.timeout = timeout

    def close_idle(self) -> None:
        """Close the connections that nobody uses, now: `clear` leaves that to the collection of garbage."""
        pools = [self.pools[key] for key in self.pools.keys()]  # noqa: SIM118 (it is no dict)
        self.clear()
        for pool in pools:
            pool.close()

    def _new_pool(self, *args: Any, **options: Any) -> urllib3.HTTPConnectionPool:
        pool = super()._new_pool(*args, **options)
        local = self._local

        class Connection(pool.ConnectionCls):  # type: ignore[misc, name-defined]
            """Sends a body with the time-out of reading, where urllib3 has that of connecting in force still."""

            def endheaders(self, *args: Any, **options: Any) -> None:
                super().endheaders(*args, **options)
                self.sock.settimeout(local.timeout.read)

        pool.ConnectionCls = Connection
        return pool

    def urlopen(  # type: ignore[override]
        self,
        method: str,
        url: str,
        redirect: bool = False,  # noqa: FBT001, FBT002 (the signature is urllib3's)
        **options: Any,
    ) -> BaseHTTPResponse:
        """Send a request, and turn away answers that are errors: `_Answered`."""
        timeout = self.timeouts
        options["timeout"] = urllib3.Timeout(connect=timeout.connect, read=timeout.read)
        options["decode_content"] = False
        if options.get("body"):
            options["body"] = _steps(memoryview(options["body"]))
        response = super().urlopen(method, url, redirect=redirect, **options)
        headers = _headers(response)
        if response.status in _FOUND:
            self._clock.see(headers)
            return response
        with Download(response, timeout.read) as download:
            text = download.read(_MOST_ERROR_BYTES)
        raise _Answered(response.status, error_code(text) or headers.get(_MINIO_CODE, ""), headers)


def _steps(body: memoryview) -> Iterator[memoryview]:
    for start in range(0, len(body), _SEND_BYTES):
        yield body[start : start + _SEND_BYTES]


def _headers(response: BaseHTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _let_go(error: Exception) -> None:
    """Clear the frames that an error has come through, which urllib3 ties to it in a ring.

    It would keep them until it is collected, and with them those of all callers: the parts of an upload, say.
    """
    traceback.clear_frames(error.__traceback__)


def _unavailable(error: Exception, seconds: float) -> Unavailable:
    if isinstance(error, ConnectTimeoutError | NewConnectionError):
        return Unavailable(Reason.BACKEND_UNAVAILABLE, "the S3 store cannot be reached")
    if isinstance(error, SSLError):
        return Unavailable(Reason.BACKEND_UNAVAILABLE, "the S3 store's certificate or TLS is not accepted")
    if isinstance(error, ReadTimeoutError | TimeoutError) or isinstance(error.__context__, TimeoutError):
        return _too_slow(seconds)
    return Unavailable(Reason.BACKEND_UNAVAILABLE, "the S3 store broke the connection off")


def _too_slow(seconds: float) -> Unavailable:
    return Unavailable(Reason.BACKEND_UNAVAILABLE, f"the S3 store did not answer within {seconds:g} s")
