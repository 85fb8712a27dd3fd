"""Runs an operation again and again while its requests fail in turn, and checks what comes of it."""

from collections.abc import Iterator
from itertools import count

from holdfast_server.errors import HoldfastError, Reason
from tests.support.disk_operations import KEY, Operation, content
from tests.support.fault_proxy import (
    FOREVER,
    Answer,
    AnswerAfter,
    Fault,
    Garbage,
    Hang,
    LoseAnswer,
    NotXml,
    ResetAfter,
    ResetBefore,
    ResetUpload,
    Seen,
    Truncate,
)
from tests.support.s3_faults import FaultyStore, is_callers

PASSING: dict[str, Fault] = {
    "reset before the request": ResetBefore(),
    "reset in the request": ResetUpload(500),
    "lost answer": LoseAnswer(),
    "reset in the answer": ResetAfter(50),
    "truncated answer": Truncate(1),
    "500": Answer(500),
    "500 after success": AnswerAfter(500),
    "not found, says a proxy": NotXml(404),
    "garbage": Garbage(),
}
"""What goes wrong once, and well at the next try."""

ANSWERED: dict[str, Fault] = {"503": Answer(503), "429": Answer(429), "502 without XML": NotXml(502)}
"""What differs from these in a number only."""

STAYING = {name: PASSING[name] for name in ("reset before the request", "lost answer", "500 after success", "garbage")}
"""What is tried until the patience is over. Of those that look alike to who asks, one of each kind."""


def failures_of(faulty: FaultyStore, operation: Operation, fault: Fault, times: int) -> Iterator[Reason | None]:
    """Fail the 1st request, then the 2nd, and so on until there is none; yield why an error was raised, if one was.

    (Not the error itself: that would hold on to all that was going on.)

    Checks each time that a success is the right one, that KEY holds what it may, and that no upload is left that could
    have been aborted.
    """
    left = faulty.uploads(KEY.text)
    for nth in count(1):
        operation.prepare(faulty.direct)
        faulty.rest()
        before = len(faulty.requests)
        injection = faulty.proxy.fail(fault, when=is_callers, nth=nth, times=times)
        failure: Reason | None = None
        try:
            answer = operation.run(faulty.store)
        except HoldfastError as error:
            failure = error.reason
        else:
            assert answer == operation.answer
        if isinstance(fault, Hang):
            faulty.wait_for_connections()
        faulty.proxy.heal()
        found = content(faulty.direct, KEY)
        assert found == operation.after or (failure and found == operation.before)
        made = faulty.requests[before:]
        if any(is_creation(request) for request in made):
            left += uploads_that_may_be_left(made)
            assert faulty.uploads(KEY.text) == left
        if not injection.met:
            assert nth > 1
            assert failure is None
            return
        yield failure


def is_creation(request: Seen) -> bool:
    """Tell whether a request begins an upload in parts."""
    return request.method == "POST" and "uploads" in request.query


def uploads_that_may_be_left(requests: list[Seen]) -> int:
    """Count the uploads that nobody can abort; all of them are swept when they are old.

    Of some nobody was told the name, some could not be aborted, and of some it is not known whether they are complete.
    """
    done = [request for request in requests if request.upstream_status in (200, 204)]
    begun = [request for request in done if is_creation(request)]
    known = {request.query["uploadId"] for request in requests if "uploadId" in request.query}
    ends = [request for request in requests if request.method in ("POST", "DELETE")]
    tried = {request.query.get("uploadId") for request in ends if request.upstream_status is None}
    ended = {request.query.get("uploadId") for request in ends if request in done}
    return len(begun) - len(known) + len((known & tried) - ended)


def check_that_it_passes(faulty: FaultyStore, operation: Operation, fault: Fault) -> None:
    """Check that a request may fail once, whichever it is, and nobody sees it."""
    assert set(failures_of(faulty, operation, fault, 1)) == {None}
    faulty.check_settled()


def check_that_it_is_told(faulty: FaultyStore, operation: Operation, fault: Fault) -> None:
    """Check that all requests from one on may fail, whichever it is, and that the caller is told so, if it matters."""
    found = set(failures_of(faulty, operation, fault, FOREVER))
    assert found <= {None, Reason.BACKEND_UNAVAILABLE}
    faulty.check_settled()
