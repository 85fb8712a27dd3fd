"""What happens around every call: admission, the caller's patience, errors, metrics, and one line in the log.

Handlers are wrapped once, when they are registered, and not by `grpc.ServerInterceptor`s, which gRPC asks anew for each
call (in a trial, 0.78 against 0.85 of the rate of empty calls).
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from holdfast_server import calls
from holdfast_server.errors import HoldfastError, Reason
from holdfast_server.rpc.admission import Admission
from holdfast_server.rpc.backend_failures import is_backend_failure, log_backend_failure
from holdfast_server.rpc.batches import FailedItems, failed_items
from holdfast_server.rpc.framing import serialize
from holdfast_server.rpc.stalls import Stalls, Wait
from holdfast_server.rpc.status import code_of, internal_status, status_of

access_log = logging.getLogger("holdfast_server.access")
_log = logging.getLogger(__name__)

_LABELS = ("grpc_type", "grpc_service", "grpc_method")
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_OK = grpc.StatusCode.OK
_MAX_LOGGED_CHARACTERS = 1000
_EARLY_SECONDS = 0.1
"""A client gives up at its own deadline, which is a little before the one that the server was told."""

CALL_FINISHED = "Call finished"

LogCall = Callable[[Mapping[str, Any]], None]
"""Writes the line of a finished call, which has these fields."""

Behavior = Callable[[Any, grpc.ServicerContext], Any]


def log_call(fields: Mapping[str, Any]) -> None:
    """Write the line through `logging`. A server that listens for strangers uses the faster `logs.line_writer`."""
    if access_log.isEnabledFor(logging.INFO):
        access_log.info(CALL_FINISHED, extra={"fields": fields})


class CallMetrics:
    """The metrics of all calls, with the names of go-grpc-prometheus."""

    def __init__(self, registry: CollectorRegistry, admission: Admission) -> None:
        self.started = Counter(
            "grpc_server_started", "Calls that began, refused ones included.", _LABELS, registry=registry
        )
        self.handled = Counter(
            "grpc_server_handled", "Calls that ended, by code.", (*_LABELS, "grpc_code"), registry=registry
        )
        self.seconds = Histogram(
            "grpc_server_handling_seconds", "Time from begin to end.", _LABELS, buckets=_SECONDS, registry=registry
        )
        self.failed_items = Counter(
            "holdfast_failed_items",
            "Items of batches that failed, by reason; the calls that they came in may have ended well.",
            ("grpc_service", "grpc_method", "reason"),
            registry=registry,
        )
        at_work = Gauge("holdfast_calls_at_work", "Calls at work now.", registry=registry)
        at_work.set_function(lambda: admission.at_work)


class _Method:
    """One method: its name, and its metrics bound once."""

    def __init__(self, path: str, kind: str, metrics: CallMetrics, log: LogCall) -> None:
        _, service, method = path.split("/")
        labels = (kind, service, method)
        self.path = path
        self._log = log
        self._started = metrics.started.labels(*labels)
        self._seconds = metrics.seconds.labels(*labels)
        self._handled: dict[grpc.StatusCode, Counter] = {}
        self._metrics = metrics
        self._labels = labels

    def begin(self) -> float:
        self._started.inc()
        return time.perf_counter()

    def end(
        self, begun: float, peer: str, code: grpc.StatusCode, error: HoldfastError | None, failed: FailedItems
    ) -> None:
        seconds = time.perf_counter() - begun
        handled = self._handled.get(code)
        if handled is None:
            handled = self._handled[code] = self._metrics.handled.labels(*self._labels, code.name)
        handled.inc()
        self._seconds.observe(seconds)
        fields = {"method": self.path, "code": code.name, "seconds": round(seconds, 6), "peer": peer}
        if failed.first is not None:
            for reason, count in failed.reasons.items():
                self._metrics.failed_items.labels(*self._labels[1:], reason.value).inc(count)
            fields["failed_items"] = sum(failed.reasons.values())
            error = error or failed.first
        if error is not None:
            fields |= {"reason": error.reason.value, "error": error.message[:_MAX_LOGGED_CHARACTERS]}
        self._log(fields)


class _Guard:
    """One call on its way through: begins on enter, and turns what its handler raises into a status on exit.

    `wait`: what it waits for its peer, if it is a stream.
    """

    __slots__ = ("_admission", "_admitted", "_begun", "_context", "_deadline", "_failed", "_method", "_peer", "_wait")

    def __init__(
        self, method: _Method, admission: Admission, context: grpc.ServicerContext, wait: Wait | None = None
    ) -> None:
        self._method = method
        self._admission = admission
        self._context = context
        self._wait = wait
        self._admitted = False
        self._peer = context.peer()  # now: it is gone with the call
        self._deadline = time.monotonic() + context.time_remaining()
        self._failed = FailedItems()

    def __enter__(self) -> None:
        self._begun = self._method.begin()
        try:
            self._admission.enter()
        except HoldfastError as error:
            self._refuse(error)
        self._admitted = True
        calls.enter(calls.Call(self._deadline, self._context.is_active))
        failed_items.set(self._failed)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if self._wait is not None and self._wait.has_stalled:
            # It was cancelled: no other status reaches a peer while the handler, or gRPC, waits for it.
            self._end(grpc.StatusCode.CANCELLED, self._wait.error)
            if not isinstance(error, GeneratorExit):
                self._context.abort_with_status(status_of(self._wait.error))  # else a part could pass for the whole
        elif error is None:
            self._end(_OK)
        elif isinstance(error, HoldfastError):
            self._refuse(error)
        elif isinstance(error, GeneratorExit) or not self._context.is_active():
            # The client went away: gRPC drops the response iterator, or raises in the request iterator.
            self._end(self._abandoned())
        else:
            _log.error("Call failed unexpectedly", exc_info=error, extra={"fields": {"method": self._method.path}})
            self._end(grpc.StatusCode.INTERNAL)
            self._context.abort_with_status(internal_status())

    def _refuse(self, error: HoldfastError) -> None:
        if is_backend_failure(error):
            log_backend_failure(error, self._method.path)
        # A client that went away can look like an upload that ended early, for a moment even while the call looks
        # alive: nobody is there to be told of a fault.
        is_gone = not self._context.is_active() or (error.reason is Reason.UPLOAD_INCOMPLETE and self._is_late())
        self._end(self._abandoned() if is_gone else code_of(error), error)
        self._context.abort_with_status(status_of(error))

    def _abandoned(self) -> grpc.StatusCode:
        """Return what became of a call that nobody waits for any more."""
        return grpc.StatusCode.DEADLINE_EXCEEDED if self._is_late() else grpc.StatusCode.CANCELLED

    def _is_late(self) -> bool:
        return time.monotonic() >= self._deadline - _EARLY_SECONDS

    def _end(self, code: grpc.StatusCode, error: HoldfastError | None = None) -> None:
        if self._admitted:
            self._admission.leave()
        self._method.end(self._begun, self._peer, code, error, self._failed)


class _Requests:
    """The messages of an upload; waiting for them is watched over."""

    __slots__ = ("_requests", "_wait")

    def __init__(self, requests: Iterator[Any], wait: Wait) -> None:
        self._requests = requests
        self._wait = wait

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        with self._wait:
            return next(self._requests)


def guarded(
    handler: "grpc.RpcMethodHandler[Any, Any]",
    path: str,
    metrics: CallMetrics,
    admission: Admission,
    *,
    stalls: Stalls,
    log: LogCall = log_call,
) -> "grpc.RpcMethodHandler[Any, Any]":
    """Return the handler with everything around it; `path` is `/package.Service/Method`."""
    if handler.response_streaming:
        kind = "bidi_stream" if handler.request_streaming else "server_stream"
        field = "stream_stream" if handler.request_streaming else "unary_stream"
    else:
        kind = "client_stream" if handler.request_streaming else "unary"
        field = "stream_unary" if handler.request_streaming else "unary_unary"
    behavior: Behavior = getattr(handler, field)
    method = _Method(path, kind, metrics, log)

    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        with _Guard(method, admission, context):
            return behavior(request, context)

    def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        wait = Wait(stalls, path, context.cancel)
        with _Guard(method, admission, context, wait), closing(behavior(request, context)) as responses:
            for response in responses:
                with wait:  # gRPC comes back when the peer has room for more
                    yield response

    def upload(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        wait = Wait(stalls, path, context.cancel)
        with _Guard(method, admission, context, wait):
            return behavior(_Requests(requests, wait), context)

    wrapped = stream if handler.response_streaming else upload if handler.request_streaming else answer
    # The handlers that generated code makes are named tuples.
    replaced: grpc.RpcMethodHandler[Any, Any] = handler._replace(  # type: ignore[attr-defined]
        **{field: wrapped}, response_serializer=serialize
    )
    return replaced
