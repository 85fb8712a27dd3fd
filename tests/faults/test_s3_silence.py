"""A store that takes a request and says nothing: a time-out ends that, or the caller's deadline where it is sooner."""

import time
from collections.abc import Callable, Iterator

import pytest

from holdfast.v1 import blob_store_pb2 as pb
from holdfast_server import calls
from holdfast_server.errors import Cancelled, DeadlineExceeded, Unavailable
from holdfast_server.objects.body import Body
from holdfast_server.objects.retrying import RetryPolicy
from holdfast_server.objects.s3 import lists
from tests.support.disk_operations import KEY, content, read
from tests.support.fault_proxy import FOREVER, Fault, Hang, HangAfter, Seen, Throttle
from tests.support.s3_faults import FaultyStore, is_callers
from tests.support.s3_operations import LARGE, LARGE_PUTS, OLD, SMALL, prepare_for_all
from tests.support.s3_process import FaultyProcess
from tests.support.s3_servers import MotoServer
from tests.support.s3_sweep import check_that_it_passes
from tests.support.samples import MIB
from tests.support.server_metrics import metric
from tests.support.statuses import refused
from tests.support.waiting import wait_until

READ_SECONDS = 0.3
SLACK_SECONDS = 20.0
"""What a busy machine may add; less than the usual time-out, which is 30 s."""

SILENCES: dict[str, Fault] = {
    "before it does anything": Hang("request"),
    "when it has done it": Hang("answer"),
    "in its answer": HangAfter(50),
}
SWEEPS = [
    ("put if match", "before it does anything"),
    ("put if match", "when it has done it"),
    ("copy", "when it has done it"),
    ("ranged get", "before it does anything"),
    ("ranged get", "in its answer"),
    ("list over pages", "before it does anything"),
    ("list over pages", "in its answer"),
]
"""Those that differ to who waits."""


@pytest.fixture(scope="module")
def impatient(moto: MotoServer) -> Iterator[FaultyStore]:
    """A store that waits for a moment only."""
    policy = RetryPolicy(attempts=4, first_seconds=0.002)
    with FaultyStore(moto, policy=policy, silence_seconds=READ_SECONDS) as faulty:
        prepare_for_all(faulty.direct)
        yield faulty


@pytest.fixture(scope="module")
def patient(moto: MotoServer) -> Iterator[FaultyStore]:
    """A store that waits for as long as it does by default."""
    with FaultyStore(moto) as faulty:
        faulty.direct.put(KEY, Body.of(LARGE))
        yield faulty


@pytest.fixture(autouse=True)
def _short_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists take several requests."""
    monkeypatch.setattr(lists, "PAGE_ITEMS", 2)


def is_second_part(request: Seen) -> bool:
    return request.query.get("partNumber") == "2"


def completes(request: Seen) -> bool:
    return request.method == "POST" and "uploadId" in request.query


@pytest.mark.parametrize(("name", "silence"), SWEEPS)
def test_a_silence_that_passes_is_not_seen(impatient: FaultyStore, name: str, silence: str) -> None:
    check_that_it_passes(impatient, SMALL[name], SILENCES[silence])


def test_a_silence_in_an_upload_in_parts_is_not_seen(moto: MotoServer) -> None:
    upload = LARGE_PUTS["declared"]
    with FaultyStore(moto, silence_seconds=READ_SECONDS) as faulty:
        for when in (is_second_part, completes):
            upload.prepare(faulty.direct)
            faulty.rest()
            silence = faulty.proxy.fail(Hang("answer"), when=when)
            assert upload.run(faulty.store) == upload.answer
            assert silence.met == 1
            assert content(faulty.direct, KEY) == upload.after
        faulty.check_settled()


def test_a_silence_that_stays_ends_with_the_time_out(impatient: FaultyStore) -> None:
    SMALL["put"].prepare(impatient.direct)
    impatient.rest()
    impatient.proxy.fail(Hang("request"), times=FOREVER)
    begun = time.monotonic()
    with pytest.raises(Unavailable, match=r"did not answer within 0\.3 s"):
        SMALL["put"].run(impatient.store)
    assert time.monotonic() - begun < 4 * READ_SECONDS + SLACK_SECONDS
    impatient.check_settled()
    impatient.rest()
    assert content(impatient.store, KEY) == OLD


def test_a_trickle_is_no_answer(impatient: FaultyStore) -> None:
    impatient.direct.put(KEY, Body.of(LARGE))
    impatient.rest()
    impatient.proxy.fail(Throttle(100_000), when=is_callers, times=FOREVER)  # ten seconds for a piece
    begun = time.monotonic()
    with pytest.raises(Unavailable):
        read(impatient.store, KEY)
    assert time.monotonic() - begun < 4 * READ_SECONDS + SLACK_SECONDS
    impatient.rest()
    impatient.check_settled()


DEADLINE_SECONDS = 0.2
UPLOAD_SECONDS = 6.0
"""Enough for an upload to come to its second part where the store stands still for a while."""


def within_the_deadline(act: Callable[[], object], seconds: float = DEADLINE_SECONDS) -> None:
    """Expect a call to end at its deadline."""
    begun = time.monotonic()
    with (
        calls.working_for(calls.Call(begun + seconds)),
        pytest.raises(DeadlineExceeded),
    ):
        act()
    assert seconds <= time.monotonic() - begun < seconds + SLACK_SECONDS


@pytest.mark.parametrize("silence", [Hang("request"), HangAfter(MIB + 50)], ids=["before", "in the middle"])
def test_a_get_ends_at_its_callers_deadline(patient: FaultyStore, silence: Fault) -> None:
    patient.rest()
    patient.proxy.fail(silence, when=is_callers, times=FOREVER)
    within_the_deadline(lambda: read(patient.store, KEY))
    patient.check_settled()


@pytest.mark.parametrize("name", ["declared", "spooled that only creates"])
def test_an_upload_in_parts_ends_at_its_callers_deadline_and_is_aborted(patient: FaultyStore, name: str) -> None:
    LARGE_PUTS[name].prepare(patient.direct)
    patient.rest()
    patient.proxy.fail(Hang("answer"), when=is_second_part, times=FOREVER)
    within_the_deadline(lambda: LARGE_PUTS[name].run(patient.store), UPLOAD_SECONDS)
    assert patient.uploads(KEY.text) == 0
    assert content(patient.direct, KEY) == LARGE_PUTS[name].before
    patient.check_settled()


def test_short_deadlines_do_not_count_as_failures_of_the_store(patient: FaultyStore) -> None:
    patient.direct.put(KEY, Body.of(OLD))
    patient.rest()
    patient.proxy.fail(Hang("request"), when=is_callers, times=FOREVER)
    for _ in range(6):
        with calls.working_for(calls.Call(time.monotonic() + 0.05)), pytest.raises(DeadlineExceeded):
            read(patient.store, KEY)
    assert patient.store.describe().not_ready is None
    patient.rest()
    assert read(patient.store, KEY) == OLD


def test_a_caller_that_is_gone_is_not_worked_for(patient: FaultyStore) -> None:
    patient.direct.put(KEY, Body.of(LARGE))
    patient.rest()
    is_there = True
    with calls.working_for(calls.Call(is_active=lambda: is_there)), patient.store.get(KEY) as reader:
        chunks = iter(reader)
        next(chunks)
        is_there = False
        with pytest.raises(Cancelled):
            next(chunks)
    patient.check_settled()


def test_a_server_lets_go_of_a_call_at_its_deadline(moto: MotoServer) -> None:
    with FaultyProcess(moto) as process:
        process.proxy.fail(Hang("request"), times=FOREVER)
        with refused() as refusal:
            process.stub.StatBlob(pb.StatBlobRequest(key="k"), timeout=DEADLINE_SECONDS)
        assert refusal.code == "DEADLINE_EXCEEDED"
        wait_until(lambda: metric(process.server, "holdfast_calls_at_work") == 0, SLACK_SECONDS)
        assert process.is_ready()
