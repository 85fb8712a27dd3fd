"""Answers that cannot be true: they are not taken for the store's, and nothing is acknowledged that is not there."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pytest

from holdfast_server.errors import Reason, Unavailable
from holdfast_server.objects.base import ListQuery
from holdfast_server.objects.body import Body
from tests.support.disk_operations import KEY, Operation, content
from tests.support.fault_proxy import FOREVER, Answer, Fault, NotXml, Seen
from tests.support.fault_proxy.exchange import Exchange
from tests.support.s3_faults import FaultyStore, is_callers
from tests.support.s3_operations import LARGE_PUTS, OLD, SMALL, prepare_for_all
from tests.support.s3_servers import MinioServer


@dataclass(frozen=True)
class Say(Fault):
    """The client is told 200 and this, and upstream is not asked."""

    body: bytes

    def before_request(self, exchange: Exchange) -> None:
        exchange.read_request()
        exchange.answer(200, self.body, {})


@dataclass(frozen=True)
class Reword(Fault):
    """Something in the answer is something else, as long as that."""

    old: bytes
    new: bytes

    def answer_body(self, exchange: Exchange, offset: int, data: bytes) -> Iterable[bytes]:
        assert len(self.old) == len(self.new)
        return (data.replace(self.old, self.new),)


@pytest.fixture(scope="module")
def faulty(minio: MinioServer) -> Iterator[FaultyStore]:
    """A store on MinIO, which keeps all conditions of puts."""
    with FaultyStore(minio) as store:
        prepare_for_all(store.direct)
        yield store


def begins(request: Seen) -> bool:
    return request.method == "POST" and "uploads" in request.query


def is_last_part(request: Seen) -> bool:
    return request.query.get("partNumber") == "2"


def copies(request: Seen) -> bool:
    return "x-amz-copy-source" in request.headers


def completes(request: Seen) -> bool:
    return request.method == "POST" and "uploadId" in request.query


def check_refused(faulty: FaultyStore, operation: Operation, *, may_leave: bool = False) -> None:
    """Check that an operation is refused and has changed nothing, nor left an upload."""
    left = faulty.uploads(KEY.text)
    with pytest.raises(Unavailable) as refused:
        operation.run(faulty.store)
    assert refused.value.reason is Reason.BACKEND_UNAVAILABLE
    faulty.rest()
    assert content(faulty.direct, KEY) == operation.before
    assert may_leave or faulty.uploads(KEY.text) == left


REFUSALS: dict[str, Fault] = {
    "no such upload": Answer(404, "NoSuchUpload"),
    "not found, says a proxy": NotXml(404),
    "a conflict": Answer(409, "ConditionalRequestConflict"),
    "a condition that does not hold": Answer(412, "PreconditionFailed"),
}


@pytest.mark.parametrize("name", LARGE_PUTS)
@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_no_object_is_made_without_a_part_that_was_refused(faulty: FaultyStore, name: str, refusal: Fault) -> None:
    operation = LARGE_PUTS[name]
    operation.prepare(faulty.direct)
    faulty.rest()
    faulty.proxy.fail(refusal, when=is_last_part, times=FOREVER)
    check_refused(faulty, operation)


NO_ANSWERS: dict[str, Fault] = {
    "nothing": Say(b""),
    "a page": Say(b"<html><body>Welcome</body></html>"),
    "no XML": NotXml(200),
    "another document": Say(b"<Other><ETag>x</ETag><UploadId>x</UploadId></Other>"),
}


@pytest.mark.parametrize("answer", NO_ANSWERS.values(), ids=NO_ANSWERS)
@pytest.mark.parametrize("when", [begins, is_last_part, completes])
def test_an_upload_in_parts_that_something_else_answers(faulty: FaultyStore, when: object, answer: Fault) -> None:
    assert callable(when)
    operation = LARGE_PUTS["declared"]
    operation.prepare(faulty.direct)
    faulty.rest()
    faulty.proxy.fail(answer, when=when, times=FOREVER)
    before = len(faulty.requests)
    # What may be at work is not aborted: some stores damage the object then.
    check_refused(faulty, operation, may_leave=when is completes)
    assert any(completes(request) for request in faulty.requests[before:]) == (when is completes)


@pytest.mark.parametrize("answer", NO_ANSWERS.values(), ids=NO_ANSWERS)
@pytest.mark.parametrize("name", ["put", "put that only creates", "copy"])
def test_a_write_that_something_else_answers(faulty: FaultyStore, name: str, answer: Fault) -> None:
    operation = SMALL[name]
    operation.prepare(faulty.direct)
    faulty.rest()
    faulty.proxy.fail(answer, when=lambda request: request.method == "PUT", times=FOREVER)
    check_refused(faulty, operation)


NO_LISTS: dict[str, Fault] = {
    **NO_ANSWERS,
    "an error": Answer(200, "InternalError"),
    "a document that ends like a list": Say(b"<Other><IsTruncated>false</IsTruncated></Other>"),
    "an end that is none": Reword(b"<IsTruncated>false", b"<IsTruncated>felse"),
    "a size that is none": Reword(b"<Size>2000", b"<Size>2k00"),
    "a time that is none": Reword(b"<LastModified>2", b"<LastModified>x"),
}


@pytest.mark.parametrize("answer", NO_LISTS.values(), ids=NO_LISTS)
def test_a_list_that_something_else_answers_is_not_an_empty_one(faulty: FaultyStore, answer: Fault) -> None:
    faulty.direct.put(KEY, Body.of(OLD))
    faulty.rest()
    faulty.proxy.fail(answer, when=is_callers, times=FOREVER)
    with pytest.raises(Unavailable):
        list(faulty.store.list(ListQuery()))
    faulty.rest()


@pytest.mark.parametrize("operation", [SMALL["copy"], LARGE_PUTS["declared"]], ids=["copy", "put in parts"])
def test_an_error_behind_a_good_beginning_is_an_error(faulty: FaultyStore, operation: Operation) -> None:
    operation.prepare(faulty.direct)
    faulty.rest()
    error = faulty.proxy.fail(Answer(200, "InternalError"), when=lambda request: copies(request) or completes(request))
    assert operation.run(faulty.store) == operation.answer
    assert error.met == 1
    assert content(faulty.direct, KEY) == operation.after


def test_a_lost_answer_whose_upload_is_gone_for_others_is_told(faulty: FaultyStore) -> None:
    faulty.direct.delete(KEY)
    faulty.rest()
    faulty.proxy.fail(Answer(404, "NoSuchUpload"), when=completes, times=FOREVER)
    with pytest.raises(Unavailable, match="lost an upload"):
        LARGE_PUTS["declared that only creates"].run(faulty.store)
    faulty.rest()
    assert content(faulty.direct, KEY) is None
