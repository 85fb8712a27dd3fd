"""What can go wrong with a request to S3, by what the client sees of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.client import responses
from typing import Literal
from xml.sax.saxutils import escape

from tests.support.fault_proxy.exchange import Exchange, Fault

_STEPS_A_SECOND = 50

_USUAL_CODES = {
    400: "InvalidRequest",
    403: "AccessDenied",
    404: "NoSuchBucket",
    409: "OperationAborted",
    416: "InvalidRange",
    500: "InternalError",
    503: "SlowDown",
}
"""Where S3's word is not HTTP's own: `429 Too Many Requests` is `TooManyRequests`."""


@dataclass(frozen=True)
class Delay(Fault):
    """The answer comes later; what is asked for happens at once."""

    seconds: float

    def before_answer(self, exchange: Exchange) -> None:
        exchange.wait(self.seconds)


@dataclass(frozen=True)
class Hang(Fault):
    """Nothing comes, until all is healed or the client hangs up.

    `before` the request reaches upstream, which does it when healed and never if the client hangs up; or before the
    answer, when upstream has done it.
    """

    before: Literal["request", "answer"]

    def before_request(self, exchange: Exchange) -> None:
        if self.before == "request":
            exchange.wait()

    def before_answer(self, exchange: Exchange) -> None:
        if self.before == "answer":
            exchange.wait()


@dataclass(frozen=True)
class HangAfter(Fault):
    """The answer stops after so many bytes of its body, until all is healed or the client hangs up.

    An answer whose body is not longer passes whole.
    """

    size_bytes: int

    def answer_body(self, exchange: Exchange, offset: int, data: bytes) -> Iterator[bytes]:
        before, behind = _split(data, self.size_bytes - offset)
        yield before
        if behind:
            exchange.wait()
        yield behind


@dataclass(frozen=True)
class Throttle(Fault):
    """The answer's body comes no faster than this."""

    bytes_per_second: int

    def answer_body(self, exchange: Exchange, offset: int, data: bytes) -> Iterator[bytes]:
        step = max(1, self.bytes_per_second // _STEPS_A_SECOND)
        for start in range(0, len(data), step):
            part = data[start : start + step]
            exchange.wait(len(part) / self.bytes_per_second)
            yield part


@dataclass(frozen=True)
class ResetBefore(Fault):
    """The connection is reset as soon as the request's head is there; upstream knows nothing of it."""

    def before_request(self, exchange: Exchange) -> None:
        exchange.reset()


@dataclass(frozen=True)
class ResetUpload(Fault):
    """The connections are reset after so many bytes of the request's body: upstream has these and no more.

    A request whose body is not longer passes whole.
    """

    size_bytes: int

    def request_body(self, exchange: Exchange, offset: int, data: bytes) -> Iterator[bytes]:
        before, behind = _split(data, self.size_bytes - offset)
        yield before
        if behind:
            exchange.reset()


@dataclass(frozen=True)
class LoseAnswer(Fault):
    """Upstream does what is asked and says so, and the client gets a reset in place of the answer."""

    def before_answer(self, exchange: Exchange) -> None:
        exchange.read_answer()
        exchange.reset()


@dataclass(frozen=True)
class ResetAfter(Fault):
    """The connection is reset when the client has so many bytes of the answer's body.

    An answer whose body is not longer passes whole.
    """

    size_bytes: int

    def answer_body(self, exchange: Exchange, offset: int, data: bytes) -> Iterator[bytes]:
        before, behind = _split(data, self.size_bytes - offset)
        yield before
        if behind:
            exchange.reset()


@dataclass(frozen=True)
class Truncate(Fault):
    """The answer lacks the last bytes of its body, though its head promises them, and the connection ends in order.

    An answer without a body passes.
    """

    missing_bytes: int

    def before_answer(self, exchange: Exchange) -> None:
        exchange.read_answer()

    def answer_body(self, exchange: Exchange, offset: int, data: bytes) -> Iterator[bytes]:
        before, behind = _split(data, exchange.answer_size - self.missing_bytes - offset)
        yield before
        if behind:
            exchange.hang_up()


@dataclass(frozen=True)
class Alter(Fault):
    """One byte of the answer's body is another one. An answer whose body ends before it passes as it is."""

    offset: int

    def answer_body(self, exchange: Exchange, offset: int, data: bytes) -> Iterator[bytes]:
        yield _altered(data, self.offset - offset)


@dataclass(frozen=True)
class AlterUpload(Fault):
    """One byte of the request's body is another one when upstream gets it.

    Upstream finds out if the client signed the body or sent a checksum, and stores the damage otherwise. A request
    whose body ends before it passes as it is.
    """

    offset: int

    def request_body(self, exchange: Exchange, offset: int, data: bytes) -> Iterator[bytes]:
        yield _altered(data, self.offset - offset)


@dataclass(frozen=True)
class _Error(Fault):
    """An error as S3 tells it. `code` is S3's word for it; without one, the usual. `headers` are further ones."""

    status: int
    code: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def _tell(self, exchange: Exchange) -> None:
        code = self.code or _USUAL_CODES.get(self.status) or responses[self.status].replace(" ", "")
        document = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{code}</Code><Message>The fault proxy says so.</Message>"
            f"<Resource>{escape(exchange.seen.path)}</Resource><RequestId>0</RequestId><HostId>0</HostId></Error>"
        )
        exchange.answer(self.status, document.encode(), {"Content-Type": "application/xml", **self.headers})


@dataclass(frozen=True)
class Answer(_Error):
    """The client is told `status`, with S3's XML about it (to HEAD without), and upstream is not asked.

    `Answer(200, "InternalError")` is how S3 tells of the failure of a copy, or of the end of a multipart upload, that
    had begun to answer.
    """

    def before_request(self, exchange: Exchange) -> None:
        exchange.read_request()
        self._tell(exchange)


@dataclass(frozen=True)
class AnswerAfter(_Error):
    """Upstream does what is asked, and the client is told `status` as by `Answer`: a 500 after success."""

    def before_answer(self, exchange: Exchange) -> None:
        exchange.read_answer()
        self._tell(exchange)


@dataclass(frozen=True)
class NotXml(Fault):
    """The client is told `status` in HTML, as by a load balancer, and upstream is not asked."""

    status: int

    def before_request(self, exchange: Exchange) -> None:
        exchange.read_request()
        page = f"<html>\n<head><title>{self.status}</title></head>\n<body><center><h1>{self.status}</h1></center><hr>"
        exchange.answer(self.status, page.encode(), {"Content-Type": "text/html"})


@dataclass(frozen=True)
class Garbage(Fault):
    """The client gets bytes that are no HTTP and the end of the connection, and upstream is not asked."""

    def before_request(self, exchange: Exchange) -> None:
        exchange.read_request()
        exchange.send(b"\x15\x03\x01\x00\x02\x02\x46 this is no HTTP\r\n\r\n")
        exchange.hang_up()


def _split(data: bytes, at: int) -> tuple[bytes, bytes]:
    cut = min(max(at, 0), len(data))
    return data[:cut], data[cut:]


def _altered(data: bytes, at: int) -> bytes:
    if not 0 <= at < len(data):
        return data
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
