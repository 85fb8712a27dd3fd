"""Requests of which it is not known whether they did what they were sent for: unsure means keep, and look first."""

from collections.abc import Callable, Iterator

import pytest

from holdfast_server.errors import PreconditionFailed, Unavailable
from holdfast_server.objects.body import Body
from holdfast_server.objects.conditions import CreateOnly, IfMatch
from tests.support.disk_operations import KEY, content
from tests.support.fault_proxy import FOREVER, Answer, Fault, LoseAnswer, ResetBefore, Seen
from tests.support.s3_faults import FaultyStore, is_callers
from tests.support.s3_servers import MinioServer
from tests.support.samples import MIB, sample

LARGE = sample(12 * MIB)


@pytest.fixture
def faulty(minio: MinioServer) -> Iterator[FaultyStore]:
    with FaultyStore(minio) as store:
        yield store


def completes(request: Seen) -> bool:
    return request.method == "POST" and "uploadId" in request.query


def aborts(request: Seen) -> bool:
    return request.method == "DELETE" and "uploadId" in request.query and request.path.endswith(KEY.text)


def deletes(request: Seen) -> bool:
    return request.method == "DELETE"


def meanwhile(faulty: FaultyStore, after: Callable[[Seen], bool], act: Callable[[], object]) -> None:
    """Act once, before the request that comes behind one of that kind is passed on."""
    met: list[Seen] = []

    def look(request: Seen) -> bool:
        if not is_callers(request):
            return False
        if met and len(met) == 1:
            met.append(request)
            act()
        elif after(request) and not met:
            met.append(request)
        return False

    faulty.proxy.fail(ResetBefore(), when=look, times=FOREVER)


@pytest.mark.parametrize("fault", [ResetBefore(), Answer(500)], ids=["no answer", "500"])
def test_an_upload_that_may_be_at_work_is_not_aborted(faulty: FaultyStore, fault: Fault) -> None:
    faulty.proxy.fail(fault, when=completes, times=FOREVER)
    with pytest.raises(Unavailable):
        faulty.store.put(KEY, Body.of(LARGE))
    assert not any(aborts(request) for request in faulty.requests)


def test_an_upload_that_was_refused_is_aborted(faulty: FaultyStore) -> None:
    there = faulty.direct.put(KEY, Body.of(b"there"))

    def replace() -> None:
        faulty.direct.put(KEY, Body.of(b"newer"))

    meanwhile(faulty, lambda request: "partNumber" in request.query, replace)
    with pytest.raises(PreconditionFailed):
        faulty.store.put(KEY, Body.of(LARGE), condition=IfMatch(there.etag))
    assert any(aborts(request) for request in faulty.requests)
    assert content(faulty.direct, KEY) == b"newer"


def test_a_deletion_whose_answer_was_lost_leaves_what_has_come_since(faulty: FaultyStore) -> None:
    faulty.direct.put(KEY, Body.of(b"to be deleted"))
    meanwhile(faulty, deletes, lambda: faulty.direct.put(KEY, Body.of(b"since"), condition=CreateOnly()))
    lost = faulty.proxy.fail(LoseAnswer(), when=deletes)
    assert faulty.store.delete(KEY) is True
    assert lost.met == 1
    assert content(faulty.direct, KEY) == b"since"


def test_a_put_whose_answer_was_lost_is_not_made_again(faulty: FaultyStore) -> None:
    lost = faulty.proxy.fail(LoseAnswer(), when=lambda request: request.method == "PUT")
    info = faulty.store.put(KEY, Body.of(b"once"))
    assert lost.met == 1
    assert [request.method for request in faulty.requests if request.path.endswith(KEY.text)].count("PUT") == 1
    assert faulty.direct.stat(KEY).etag == info.etag


def test_a_compare_and_set_that_was_made_and_replaced_is_not_told_as_refused(faulty: FaultyStore) -> None:
    first = faulty.direct.put(KEY, Body.of(b"1"))

    def replace() -> None:
        made = faulty.direct.stat(KEY)
        faulty.direct.put(KEY, Body.of(b"3"), condition=IfMatch(made.etag))

    meanwhile(faulty, lambda request: request.method == "PUT", replace)
    faulty.proxy.fail(LoseAnswer(), when=lambda request: request.method == "PUT")
    with pytest.raises(Unavailable, match="not known"):
        faulty.store.put(KEY, Body.of(b"2"), condition=IfMatch(first.etag))
    assert content(faulty.direct, KEY) == b"3"
