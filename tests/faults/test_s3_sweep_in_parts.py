"""The same for objects that go in parts and are read by pieces. No upload is left that could have been aborted."""

import gc
import weakref
from collections.abc import Iterator
from contextlib import suppress

import pytest

from holdfast_server.errors import Unavailable
from holdfast_server.objects.body import Body
from tests.support.disk_operations import KEY, Operation, content
from tests.support.fault_proxy import FOREVER, Alter, AlterUpload, Fault, ResetUpload, Truncate
from tests.support.s3_faults import FaultyStore, is_callers
from tests.support.s3_operations import LARGE, LARGE_PUTS, LARGE_READS, SMALL
from tests.support.s3_servers import MinioServer
from tests.support.s3_sweep import PASSING, STAYING, check_that_it_is_told, check_that_it_passes
from tests.support.samples import MIB


@pytest.fixture(scope="module")
def faulty(minio: MinioServer) -> Iterator[FaultyStore]:
    """A store on MinIO, which keeps all conditions of puts, and checks what arrives."""
    with FaultyStore(minio) as store:
        yield store


LOST = {name: PASSING[name] for name in ("lost answer", "500 after success")}
IN_PARTS: dict[str, Fault] = {**PASSING, "reset in the middle of a part": ResetUpload(MIB + 5)}


@pytest.mark.parametrize("fault", IN_PARTS.values(), ids=IN_PARTS)
def test_a_failure_that_passes_is_not_seen(faulty: FaultyStore, fault: Fault) -> None:
    check_that_it_passes(faulty, LARGE_PUTS["declared that only creates"], fault)


@pytest.mark.parametrize("operation", [SMALL["put"], LARGE_PUTS["declared"]], ids=["small", "in parts"])
def test_what_is_altered_on_its_way_to_the_store_is_sent_again(faulty: FaultyStore, operation: Operation) -> None:
    operation.prepare(faulty.direct)
    faulty.rest()
    altered = faulty.proxy.fail(AlterUpload(2000), when=lambda request: request.method == "PUT")
    assert operation.run(faulty.store) == operation.answer
    assert altered.met == 1
    assert content(faulty.direct, KEY) == operation.after


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
@pytest.mark.parametrize("name", sorted(LARGE_PUTS.keys() - {"declared that only creates"}))
def test_a_lost_answer_is_not_seen_by_any_other_put(faulty: FaultyStore, name: str, fault: Fault) -> None:
    check_that_it_passes(faulty, LARGE_PUTS[name], fault)


@pytest.mark.parametrize("fault", STAYING.values(), ids=STAYING)
def test_a_failure_that_stays_is_told(faulty: FaultyStore, fault: Fault) -> None:
    check_that_it_is_told(faulty, LARGE_PUTS["spooled that only creates"], fault)


OF_READS: dict[str, Fault] = {
    **{name: fault for name, fault in PASSING.items() if name != "reset in the request"},
    "altered in the first piece": Alter(100),
    "altered in a checksum": Alter(MIB + 1),
    "short by a piece": Truncate(MIB),
}


@pytest.mark.parametrize("fault", OF_READS.values(), ids=OF_READS)
@pytest.mark.parametrize("operation", LARGE_READS.values(), ids=LARGE_READS)
def test_a_read_that_breaks_off_once_is_whole(faulty: FaultyStore, operation: Operation, fault: Fault) -> None:
    check_that_it_passes(faulty, operation, fault)


@pytest.fixture
def _no_collector() -> Iterator[None]:
    """Nothing is collected: what goes away does so by itself."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("fault", STAYING.values(), ids=STAYING)
def test_an_upload_that_fails_lets_go_of_all_that_it_held(faulty: FaultyStore, fault: Fault) -> None:
    for nth in range(1, 5):
        faulty.rest()
        faulty.proxy.fail(fault, when=is_callers, nth=nth, times=FOREVER)
        body = Body.of(LARGE)
        held = weakref.ref(body)
        with suppress(Unavailable):
            faulty.store.put(KEY, body)
        del body
        assert held() is None, nth
    faulty.rest()
