"""What a breaker tells log, listener and metrics; and that no accident, nor its end, leaves anything hanging."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from holdfast_server.errors import BackendRefused, HoldfastError, Reason
from holdfast_server.objects import breaker as module
from holdfast_server.objects.breaker import Breaker
from tests.support.breaker_bench import LIMIT_SECONDS, Bench, away, error_of, on_the_bench, refused, within

LOGGER = "holdfast_server.objects.breaker"


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def bench(registry: CollectorRegistry) -> Iterator[Bench]:
    with on_the_bench(registry) as bench:
        yield bench


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, dict[str, Any]]]:
    """Return level, sentence and fields of the breaker's lines."""
    lines = [record for record in caplog.records if record.name == LOGGER]
    return [(line.levelname, line.message, line.fields) for line in lines]  # type: ignore[attr-defined]


# Accidents.


def test_an_unexpected_error_in_a_check_is_logged_once_a_kind_and_counts_as_no_answer(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.start()
    for accident in (ValueError("/a/secret/path"), ValueError("again"), KeyError("other"), ValueError("again")):
        bench.check_fails(accident)
        assert error_of(bench.breaker.check).message == "the s3 backend has not answered yet"
        bench.time.now += 1
    faults = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [record.message for record in faults] == ["Check of the backend failed unexpectedly"] * 2
    assert [str(record.exc_info and record.exc_info[1]) for record in faults] == ["/a/secret/path", "'other'"]
    bench.mended()
    bench.breaker.check()


def test_an_unexpected_error_after_a_refusal_opens_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    bench.start_well()
    bench.breaker.failed(refused())
    bench.backend.answer(ValueError("an accident"))
    assert bench.waited() is None
    bench.breaker.check()
    bench.time.now += 1
    bench.breaker.failed(refused())
    bench.backend.answer()
    assert bench.waited() is None
    assert bench.told.is_empty
    assert [level for level, _, _ in logged(caplog)] == ["ERROR"]


def test_a_listener_that_fails_does_not_end_the_checks(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_error: HoldfastError | None) -> None:
        raise ValueError("a faulty listener")

    bench.breaker.start(fail)
    bench.check_fails(refused())
    bench.time.now += 1
    bench.mended()
    bench.breaker.check()
    assert [sentence for level, sentence, _ in logged(caplog) if level == "ERROR"] == ["Listener failed"] * 3


# The log, the listener and the metrics.


def test_a_time_away_is_two_lines_in_the_log(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    bench.start_well()
    assert logged(caplog) == []
    bench.open()
    for _ in range(10):
        bench.time.now += 1
        bench.check_fails(away("away in other words"))
        bench.breaker.failed(away())
    bench.time.now += 1.5
    bench.mended()
    assert logged(caplog) == [
        ("WARNING", "Backend is refused", {"backend": "s3", "reason": "BACKEND_UNAVAILABLE", "error": "away"}),
        ("INFO", "Backend is back", {"backend": "s3", "seconds": 11.5}),
    ]


def test_a_backend_that_is_away_from_the_start_is_logged_as_one(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    bench.start()
    for _ in range(3):
        bench.check_fails(away())
        bench.time.now += 1
    bench.mended()
    assert [(level, sentence) for level, sentence, _ in logged(caplog)] == [
        ("WARNING", "Backend is refused"),
        ("INFO", "Backend is back"),
    ]
    assert logged(caplog)[1][2]["seconds"] == 3.0


def test_another_reason_is_told_once_more_and_no_reason_twice(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.start()
    for _ in range(3):
        for error in (away(), refused(), BackendRefused(Reason.BUCKET_MISSING, "no bucket")):
            bench.check_fails(error)
            bench.time.now += 1
    reasons = [Reason.BACKEND_UNAVAILABLE, Reason.BACKEND_AUTH, Reason.BUCKET_MISSING]
    assert [fields["reason"] for _, _, fields in logged(caplog)] == reasons
    assert [bench.told.next()[0] for _ in range(8)] == (reasons * 3)[1:]
    assert bench.told.is_empty


def test_the_next_time_away_is_logged_again(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.start_well()
    for _ in range(2):
        bench.open()
        bench.time.now += 1
        bench.mended()
        assert bench.told.next()[0] is None
    assert [sentence for _, sentence, _ in logged(caplog)] == ["Backend is refused"] * 2


def test_metrics_show_whether_it_is_ready_and_count_what_made_it_not_so(
    bench: Bench, registry: CollectorRegistry
) -> None:
    def shown() -> tuple[float | None, float | None]:
        labels = {"backend": "s3"}
        return (
            registry.get_sample_value("holdfast_remote_ready", labels),
            registry.get_sample_value("holdfast_remote_breaker_openings_total", labels),
        )

    bench.start()
    bench.check_fails(away())
    assert shown() == (0, 0)
    bench.time.now += 1
    bench.mended()
    assert bench.told.next()[0] is None
    assert shown() == (1, 0)
    bench.open()
    bench.time.now += 1
    bench.check_fails(refused())
    assert shown() == (0, 1)
    bench.time.now += 1
    bench.mended()
    assert shown() == (1, 1)


# The end.


def test_closing_ends_the_thread_whatever_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLOSE_SECONDS", LIMIT_SECONDS)
    for state in ("not started", "open", "closed"):
        with on_the_bench(CollectorRegistry()) as bench:
            if state == "open":
                bench.start()
                bench.check_fails(away())
            elif state == "closed":
                bench.start_well()
            bench.breaker.close()
            bench.breaker.close()
            assert not bench.breaker._thread.is_alive()


@pytest.mark.parametrize("outcome", [None, refused()], ids=["well", "refused"])
def test_closing_waits_a_bounded_time_for_a_check_which_then_tells_nobody(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    outcome: HoldfastError | None,
) -> None:
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.01)
    bench.start()
    asked = bench.backend.asked.get(timeout=LIMIT_SECONDS)
    assert asked is None
    within(LIMIT_SECONDS, bench.breaker.close)
    assert bench.breaker._thread.is_alive()
    bench.backend.asked.put(asked)
    bench.backend.answer(outcome)
    bench.breaker._thread.join(LIMIT_SECONDS)
    assert not bench.breaker._thread.is_alive()
    assert bench.told.is_empty
    assert logged(caplog) == []
    assert error_of(bench.breaker.check).message == "the s3 backend has not answered yet"


def test_a_process_may_end_without_closing_it() -> None:
    assert Breaker(lambda _error: None)._thread.daemon
