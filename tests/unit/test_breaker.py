"""The breaker refuses what a backend that is away would keep waiting, and finds out by itself when it is back."""

import gc
import inspect
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import pytest
from prometheus_client import CollectorRegistry

from holdfast_server.errors import BackendRefused, HoldfastError, NotFound, Reason, Unavailable
from holdfast_server.objects.breaker import AnsweredFailure, Breaker
from tests.support.breaker_bench import LIMIT_SECONDS, Bench, away, error_of, on_the_bench, refused, within


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def bench(registry: CollectorRegistry) -> Iterator[Bench]:
    with on_the_bench(registry) as bench:
        yield bench


# The start.


def test_calls_are_refused_until_the_backend_has_answered(bench: Bench) -> None:
    error = error_of(bench.breaker.check)
    assert (type(error), error.reason) == (Unavailable, Reason.BACKEND_UNAVAILABLE)
    assert error.message == "the s3 backend has not answered yet"
    assert bench.breaker.reason is Reason.BACKEND_UNAVAILABLE
    bench.start_well()
    bench.breaker.check()
    assert bench.breaker.reason is None


def test_the_listener_is_told_at_the_start_by_its_caller_and_then_by_the_breakers_thread(bench: Bench) -> None:
    bench.breaker.start(bench.told)
    assert bench.told.next() == (Reason.BACKEND_UNAVAILABLE, threading.current_thread().name)
    bench.backend.answer()
    assert bench.told.next() == (None, "s3 breaker")


def test_the_first_check_comes_at_once_and_the_next_ones_a_second_after_each_other(bench: Bench) -> None:
    bench.start()
    bench.backend.answer(away())
    for _ in range(3):
        assert bench.waited() == 1.0
        assert bench.backend.asked.empty()
        bench.time.now += 1.0
        bench.backend.answer(away())


def test_by_default_five_failures_open_and_a_second_lies_between_checks() -> None:
    defaults = {name: value.default for name, value in inspect.signature(Breaker).parameters.items()}
    assert (defaults["failures_to_open"], defaults["check_seconds"]) == (5, 1.0)


def test_checks_are_given_no_error_until_one_has_passed(bench: Bench) -> None:
    bench.start()
    assert bench.check_fails(refused()) is None
    bench.time.now += 1
    assert bench.backend.answer() is None
    assert bench.told.next()[0] is Reason.BACKEND_AUTH
    assert bench.told.next()[0] is None
    assert bench.waited() is None
    bench.open()
    bench.time.now += 1
    asked = bench.check_fails(refused())
    assert (type(asked), asked and asked.message) == (Unavailable, "away")
    bench.time.now += 1
    asked = bench.backend.answer()
    assert (type(asked), asked and asked.message) == (BackendRefused, "wrong key")


def test_a_real_clock_and_real_waits_do_too() -> None:
    told: SimpleQueue[HoldfastError | None] = SimpleQueue()
    left = [away(), away()]

    def mend(_error: HoldfastError | None) -> None:
        if left:
            raise left.pop()

    breaker = Breaker(mend, check_seconds=0.01)
    breaker.start(told.put)
    assert told.get(timeout=LIMIT_SECONDS) is not None
    assert told.get(timeout=LIMIT_SECONDS) is None
    breaker.check()
    breaker.close()
    breaker._thread.join(LIMIT_SECONDS)  # `close` does not wait for as long
    assert not breaker._thread.is_alive()


# What opens it.


def test_failures_in_a_row_open_it(bench: Bench) -> None:
    bench.start_well()
    for number in range(4):
        bench.breaker.failed(away(f"failure {number}"))
        bench.breaker.check()
    bench.breaker.failed(away("the last straw"))
    assert error_of(bench.breaker.check).message == "the last straw"
    assert bench.told.next() == (Reason.BACKEND_UNAVAILABLE, "s3 breaker")


@pytest.mark.parametrize("answered", [Breaker.succeeded, lambda breaker: breaker.failed(refused())])
def test_an_answer_between_failures_begins_the_row_anew(bench: Bench, answered: Callable[[Breaker], None]) -> None:
    bench.start_well()
    for _ in range(3):
        for _ in range(4):
            bench.breaker.failed(away())
        answered(bench.breaker)
    bench.breaker.check()


def test_a_row_of_failures_ends_with_the_breakers_closing(bench: Bench) -> None:
    bench.start_well()
    bench.open()
    bench.breaker.failed(away())
    bench.time.now += 1
    bench.mended()
    for _ in range(4):
        bench.breaker.failed(away())
    bench.breaker.check()


def test_other_errors_open_nothing(bench: Bench) -> None:
    bench.start_well()
    for _ in range(10):
        bench.breaker.failed(NotFound(Reason.BLOB_NOT_FOUND, "no"))
    bench.breaker.check()


def test_failures_from_many_threads_open_it_once(
    bench: Bench, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    bench.start_well()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(bench.breaker.failed, [away() for _ in range(200)]))
    assert bench.told.next()[0] is Reason.BACKEND_UNAVAILABLE
    assert [line.message for line in caplog.records if line.name == Breaker.__module__] == ["Backend is refused"]
    assert registry.get_sample_value("holdfast_remote_breaker_openings_total", {"backend": "s3"}) == 1


def test_a_backend_that_failed_rests_before_it_is_checked(bench: Bench) -> None:
    bench.start_well()
    bench.open()
    assert bench.backend.asked.empty()
    bench.time.now += 1
    bench.mended()
    bench.breaker.check()


def test_failures_of_earlier_requests_neither_change_the_error_nor_put_the_check_off(bench: Bench) -> None:
    bench.start_well()
    bench.open()
    bench.time.now += 0.75
    for _ in range(9):
        bench.breaker.failed(away("later"))
    assert error_of(bench.breaker.check).message == "away"
    bench.time.now += 0.25
    asked = bench.backend.answer()
    assert asked is not None
    assert asked.message == "away"


def test_a_success_of_an_earlier_request_does_not_close_it(bench: Bench) -> None:
    bench.start_well()
    bench.open()
    bench.breaker.succeeded()
    assert error_of(bench.breaker.check).message == "away"


# Refusals.


def test_a_refused_request_has_the_backend_checked_at_once_and_opens_nothing(bench: Bench) -> None:
    bench.start_well()
    bench.breaker.failed(refused("this object is forbidden"))
    bench.breaker.check()
    asked = bench.backend.answer()
    assert asked is not None
    assert asked.message == "this object is forbidden"
    assert bench.waited() is None
    bench.breaker.check()
    assert bench.told.is_empty


def test_failures_that_were_answered_have_the_backend_checked_and_open_nothing(bench: Bench) -> None:
    bench.start_well()
    for _ in range(5):
        bench.breaker.failed(AnsweredFailure(Reason.BACKEND_UNAVAILABLE, "this key fails"))
        bench.breaker.check()
    asked = bench.backend.answer()
    assert asked is not None
    assert asked.message == "this key fails"
    assert bench.waited() is None
    bench.breaker.check()
    assert bench.told.is_empty


def test_what_the_check_after_answered_failures_finds_holds(bench: Bench) -> None:
    bench.start_well()
    for _ in range(5):
        bench.breaker.failed(AnsweredFailure(Reason.BACKEND_UNAVAILABLE, "a failure"))
    bench.backend.answer(away("so does all else"))
    assert bench.told.next() == (Reason.BACKEND_UNAVAILABLE, "s3 breaker")
    assert error_of(bench.breaker.check).message == "so does all else"


def test_what_the_check_after_a_refusal_finds_holds(bench: Bench) -> None:
    bench.start_well()
    bench.breaker.failed(refused("this object is forbidden"))
    bench.backend.answer(BackendRefused(Reason.BUCKET_MISSING, "no bucket"))
    assert bench.told.next()[0] is Reason.BUCKET_MISSING
    assert error_of(bench.breaker.check).message == "no bucket"


def test_refusals_without_end_are_checked_once_a_second(bench: Bench) -> None:
    bench.start_well()
    for _ in range(3):
        bench.breaker.failed(refused())
        bench.backend.answer()
        assert bench.waited() is None
        for _ in range(5):
            bench.breaker.failed(refused())
        while (seconds := bench.waited()) is None:  # it may have begun to wait again before it was told
            pass
        assert seconds == 1.0
        assert bench.backend.asked.empty()
        bench.time.now += 1
        bench.mended()
        bench.time.now += 1


def test_a_refusal_during_a_check_is_looked_into_by_the_next(bench: Bench) -> None:
    bench.start_well()
    bench.breaker.failed(refused("first"))
    asked = bench.backend.asked.get(timeout=LIMIT_SECONDS)
    bench.breaker.failed(refused("second"))
    bench.backend._outcomes.put(None)
    assert bench.waited() in {0, 1.0}
    bench.time.now += 1
    second = bench.backend.answer()
    assert [error and error.message for error in (asked, second)] == ["first", "second"]


# The errors that callers get.


@pytest.mark.parametrize("error", [away(), refused()], ids=lambda error: type(error).__name__)
def test_callers_get_the_error_that_the_check_found(bench: Bench, error: HoldfastError) -> None:
    bench.start()
    bench.check_fails(error)
    found = error_of(bench.breaker.check)
    assert (type(found), found.reason, found.message) == (type(error), error.reason, error.message)
    assert (str(found), found.details) == (str(error), error.details)


def test_callers_are_told_to_come_back_after_the_next_check(registry: CollectorRegistry) -> None:
    with on_the_bench(registry, check_seconds=0.25) as bench:
        first = error_of(bench.breaker.check)
        bench.start()
        bench.check_fails(away())
        second = error_of(bench.breaker.check)
    assert isinstance(first, Unavailable)
    assert isinstance(second, Unavailable)
    assert (first.retry_after_seconds, second.retry_after_seconds) == (0.25, 0.25)


def test_each_caller_gets_an_error_of_its_own(bench: Bench) -> None:
    error = refused()
    bench.start()
    bench.check_fails(error)
    found = [error_of(bench.breaker.check) for _ in range(3)]
    assert len({id(one) for one in (error, *found)}) == 4
    for one in found:
        trace = one.__traceback__
        frames = 0
        while trace is not None:
            frames += 1
            trace = trace.tb_next
        assert frames == 2  # `error_of` and `check`


def test_what_a_failed_request_held_is_not_held_by_the_breaker(bench: Bench) -> None:
    class Buffer:
        pass

    def request() -> "weakref.ref[Buffer]":
        buffer = Buffer()
        try:
            raise away()
        except Unavailable as error:
            bench.breaker.failed(error)
        return weakref.ref(buffer)

    bench.start_well()
    held = [request() for _ in range(5)]
    gc.collect()
    assert error_of(bench.breaker.check).message == "away"
    assert [one() for one in held] == [None] * 5


# Nobody waits.


def test_no_request_waits_while_a_check_is_under_way(bench: Bench) -> None:
    bench.start_well()
    bench.breaker.failed(refused())
    bench.backend.asked.get(timeout=LIMIT_SECONDS)
    within(LIMIT_SECONDS, bench.breaker.check, bench.breaker.succeeded, lambda: bench.breaker.failed(refused()))
    within(LIMIT_SECONDS, *[lambda: bench.breaker.failed(away())] * 6, bench.breaker.succeeded)
    assert within(LIMIT_SECONDS, lambda: error_of(bench.breaker.check).message) == ["away"]


def test_no_request_waits_for_the_listener(bench: Bench) -> None:
    entered, leave = threading.Event(), threading.Event()

    def listen(error: HoldfastError | None) -> None:
        if error is None:
            entered.set()
            assert leave.wait(LIMIT_SECONDS)

    bench.breaker.start(listen)
    bench.backend.answer()
    assert entered.wait(LIMIT_SECONDS)
    within(LIMIT_SECONDS, bench.breaker.check, *[lambda: bench.breaker.failed(away())] * 6, bench.breaker.succeeded)
    leave.set()
