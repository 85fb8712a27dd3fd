"""Every request of every operation on small objects fails once, and then for as long as anybody asks, in every way.

One failure is mended by another try, and nobody sees it. Where none helps the caller is told that the store cannot be
reached, and the old object is there or the new one. Nothing is left behind: no connection, no thread.
"""

from collections.abc import Iterator

import pytest

from holdfast_server.objects.retrying import RetryPolicy
from holdfast_server.objects.s3 import lists
from tests.support.disk_operations import KEY, Operation, content
from tests.support.fault_proxy import Answer, Fault
from tests.support.s3_faults import FaultyStore, is_callers
from tests.support.s3_operations import SMALL, prepare_for_all
from tests.support.s3_servers import MinioServer, MotoServer
from tests.support.s3_sweep import ANSWERED, PASSING, STAYING, check_that_it_is_told, check_that_it_passes


@pytest.fixture(scope="module")
def on_moto(moto: MotoServer) -> Iterator[FaultyStore]:
    """A store on moto, which keeps most conditions; what it cannot copy goes through the server."""
    with FaultyStore(moto) as faulty:
        prepare_for_all(faulty.direct)
        yield faulty


@pytest.fixture(scope="module")
def on_minio(minio: MinioServer) -> Iterator[FaultyStore]:
    """A store on MinIO, which makes copies itself."""
    with FaultyStore(minio) as faulty:
        prepare_for_all(faulty.direct)
        yield faulty


@pytest.fixture(autouse=True)
def _short_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists take several requests."""
    monkeypatch.setattr(lists, "PAGE_ITEMS", 2)


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
@pytest.mark.parametrize("operation", SMALL.values(), ids=SMALL)
def test_a_failure_that_passes_is_not_seen(on_moto: FaultyStore, operation: Operation, fault: Fault) -> None:
    check_that_it_passes(on_moto, operation, fault)


@pytest.mark.parametrize("fault", ANSWERED.values(), ids=ANSWERED)
@pytest.mark.parametrize("name", ["put if match", "get", "list over pages"])
def test_an_answer_that_asks_for_patience_is_not_seen(on_moto: FaultyStore, name: str, fault: Fault) -> None:
    check_that_it_passes(on_moto, SMALL[name], fault)


@pytest.mark.parametrize("fault", STAYING.values(), ids=STAYING)
@pytest.mark.parametrize("operation", SMALL.values(), ids=SMALL)
def test_a_failure_that_stays_is_told(on_moto: FaultyStore, operation: Operation, fault: Fault) -> None:
    check_that_it_is_told(on_moto, operation, fault)


@pytest.mark.parametrize("fault", STAYING.values(), ids=STAYING)
@pytest.mark.parametrize("name", ["copy", "copy under a condition"])
def test_copies_that_the_store_makes(on_minio: FaultyStore, name: str, fault: Fault) -> None:
    check_that_it_passes(on_minio, SMALL[name], fault)
    check_that_it_is_told(on_minio, SMALL[name], fault)


def test_a_store_that_fails_three_times_is_asked_a_fourth(moto: MotoServer) -> None:
    with FaultyStore(moto, policy=RetryPolicy(first_seconds=0.002)) as faulty:
        SMALL["put that only creates"].prepare(faulty.direct)
        faulty.rest()
        faulty.proxy.fail(Answer(500), when=is_callers, times=3)
        SMALL["put that only creates"].run(faulty.store)
        assert content(faulty.direct, KEY) == SMALL["put that only creates"].after
