"""A request is tried again after failures that pass by themselves, within every bound that there is."""

import math
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from holdfast_server import calls
from holdfast_server.calls import Call, working_for
from holdfast_server.errors import (
    BackendRefused,
    Cancelled,
    DeadlineExceeded,
    HoldfastError,
    NotFound,
    Reason,
    StorageFull,
    Unavailable,
)
from holdfast_server.objects.breaker import Breaker
from holdfast_server.objects.remote_metrics import RemoteMetrics
from holdfast_server.objects.retrying import Retrying, RetryPolicy
from tests.support.waiting import wait_until


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float, _waiting_for: str) -> None:
        self.pauses.append(seconds)
        self.now += seconds


class Failing:
    """An attempt that fails with each of these errors in turn, and then returns an answer."""

    def __init__(self, *failures: Exception) -> None:
        self._left = list(failures)
        self.numbers: list[int] = []

    def __call__(self, number: int) -> str:
        self.numbers.append(number)
        if self._left:
            raise self._left.pop(0)
        return "answer"


class Answer(Exception):
    """What an adapter raises for an answer that only its caller understands."""


def away(number: int = 0) -> Unavailable:
    return Unavailable(Reason.BACKEND_UNAVAILABLE, f"away {number}")


def refused() -> BackendRefused:
    return BackendRefused(Reason.BACKEND_AUTH, "wrong key")


@pytest.fixture
def breaker() -> Iterator[Breaker]:
    """A closed breaker that nothing mends once it is open."""
    breaker = Breaker(lambda _error: None, check_seconds=3600, failures_to_open=100)
    breaker.start(lambda _error: None)
    wait_until(lambda: breaker.reason is None)
    yield breaker
    breaker.close()


@pytest.fixture
def given() -> Time:
    return Time()


@pytest.fixture
def retrying(breaker: Breaker, given: Time) -> Callable[..., Retrying]:
    """Return what makes a `Retrying` in given time, with the worst luck."""

    def make(luck: float = 1.0, **policy: Any) -> Retrying:
        return Retrying(breaker, RetryPolicy(**policy), luck=lambda: luck, clock=lambda: given.now, sleep=given.sleep)

    return make


def failure_of(call: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as raised:  # noqa: PT011 (which one is the caller's business)
        call()
    return raised.value


# What is tried again.


def test_what_passes_by_itself_is_tried_again(retrying: Callable[..., Retrying], given: Time) -> None:
    attempt = Failing(away(), away())
    assert retrying().call(attempt) == "answer"
    assert attempt.numbers == [0, 1, 2]
    assert len(given.pauses) == 2


@pytest.mark.parametrize(
    "error",
    [
        NotFound(Reason.BLOB_NOT_FOUND, "no"),
        StorageFull("full"),
        refused(),
        Cancelled(),
        DeadlineExceeded("late"),
        Answer(),
        ValueError("an accident"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_nothing_else_is_tried_again(retrying: Callable[..., Retrying], error: Exception) -> None:
    attempt = Failing(error)
    assert failure_of(lambda: retrying().call(attempt)) is error
    assert attempt.numbers == [0]


def test_after_the_last_attempt_its_error_is_raised_as_it_was(retrying: Callable[..., Retrying]) -> None:
    failures = [away(number) for number in range(5)]
    attempt = Failing(*failures)
    error = failure_of(lambda: retrying().call(attempt))
    assert error is failures[3]
    assert error.__cause__ is None
    assert attempt.numbers == [0, 1, 2, 3]


def test_one_attempt_is_no_retry(retrying: Callable[..., Retrying]) -> None:
    attempt = Failing(away())
    with pytest.raises(Unavailable):
        retrying(attempts=1).call(attempt)
    assert attempt.numbers == [0]


# Pauses.


def test_pauses_double_up_to_the_longest(retrying: Callable[..., Retrying], given: Time) -> None:
    retrying(attempts=8).call(Failing(*[away()] * 7))
    assert given.pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0])


def test_pauses_are_a_random_part_of_that(retrying: Callable[..., Retrying], given: Time) -> None:
    retrying(luck=0.25).call(Failing(*[away()] * 3))
    assert given.pauses == pytest.approx([0.025, 0.05, 0.1])


def test_a_sleep_that_is_shorter_than_asked_is_gone_on_with(breaker: Breaker, given: Time) -> None:
    def sleep(seconds: float, waiting_for: str) -> None:
        given.sleep(min(seconds, 1.0), waiting_for)

    policy = RetryPolicy(first_seconds=2.5, most_seconds=2.5)
    Retrying(breaker, policy, luck=lambda: 1.0, clock=lambda: given.now, sleep=sleep).call(Failing(away()))
    assert given.pauses == [1.0, 1.0, 0.5]


def test_luck_clock_and_sleep_are_real_unless_given(breaker: Breaker) -> None:
    real = Retrying(breaker)
    assert (real._luck, real._clock, real._sleep) == (random.random, time.monotonic, calls.pause)
    assert Retrying(breaker, RetryPolicy(first_seconds=0.001)).call(Failing(away())) == "answer"


# Bounds.


@pytest.mark.parametrize(("pause", "expected"), [(1, [0, 5, 10]), (2, [0, 6])])
def test_no_attempt_begins_after_the_total(
    retrying: Callable[..., Retrying], given: Time, pause: float, expected: list[float]
) -> None:
    begun: list[float] = []

    def attempt(_number: int) -> None:
        begun.append(given.now - 100)
        given.now += 4
        raise away(len(begun))

    with pytest.raises(Unavailable, match=f"away {len(expected)}"):
        retrying(attempts=99, first_seconds=pause, most_seconds=pause, total_seconds=10).call(attempt)
    assert begun == expected
    assert len(given.pauses) == len(expected) - 1


def test_a_pause_that_outlasts_the_callers_deadline_is_not_begun(
    retrying: Callable[..., Retrying], given: Time
) -> None:
    attempt = Failing(away(0), away(1))
    with working_for(Call(time.monotonic() + 50)):
        error = failure_of(lambda: retrying(first_seconds=40, most_seconds=60, total_seconds=1000).call(attempt))
    assert str(error) == "away 1"
    assert given.pauses == [40]


def test_a_caller_that_goes_away_during_a_pause_ends_it(breaker: Breaker) -> None:
    alive = True

    def attempt(_number: int) -> None:
        nonlocal alive
        alive = False
        raise away()

    patient = Retrying(breaker, RetryPolicy(first_seconds=3600, most_seconds=3600, total_seconds=math.inf))
    with working_for(Call(None, lambda: alive)), pytest.raises(Cancelled):
        patient.call(attempt)


def test_a_caller_that_is_gone_after_the_pause_has_nothing_tried_again(breaker: Breaker, given: Time) -> None:
    alive = True

    def sleep(seconds: float, waiting_for: str) -> None:
        nonlocal alive
        given.sleep(seconds, waiting_for)
        alive = False

    attempt = Failing(away())
    retrying = Retrying(breaker, luck=lambda: 1.0, clock=lambda: given.now, sleep=sleep)
    with working_for(Call(None, lambda: alive)), pytest.raises(Cancelled):
        retrying.call(attempt)
    assert attempt.numbers == [0]


def test_what_is_to_be_tidied_up_for_a_caller_that_is_gone_is_tried_once(retrying: Callable[..., Retrying]) -> None:
    with working_for(Call(None, lambda: False)):
        assert retrying().call(Failing()) == "answer"


# The budget.


def spend_all(retrying: Retrying) -> int:
    """Let all fail until no retry is left, and return how many there were."""
    retries = 0
    while True:
        attempt = Failing(*[away()] * 9)
        with pytest.raises(Unavailable):
            retrying.call(attempt)
        if len(attempt.numbers) == 1:
            return retries
        retries += len(attempt.numbers) - 1


def test_all_calls_together_have_ten_retries(retrying: Callable[..., Retrying]) -> None:
    assert spend_all(retrying(attempts=4)) == 10


@pytest.mark.parametrize("answer", [None, Answer(), NotFound(Reason.BLOB_NOT_FOUND, "no")])
def test_ten_answers_pay_for_a_retry(retrying: Callable[..., Retrying], answer: Exception | None) -> None:
    shared = retrying()
    spend_all(shared)

    def answered() -> None:
        if answer is None:
            shared.call(Failing())
        else:
            failure_of(lambda: shared.call(Failing(answer)))

    for _ in range(9):
        answered()
    assert spend_all(shared) == 0
    answered()
    assert spend_all(shared) == 1


def test_the_budget_does_not_grow_beyond_ten(retrying: Callable[..., Retrying]) -> None:
    shared = retrying()
    for _ in range(100):
        shared.call(Failing())
    assert spend_all(shared) == 10


def test_refusals_and_impatient_callers_pay_for_nothing(retrying: Callable[..., Retrying]) -> None:
    shared = retrying()
    spend_all(shared)
    for error in (refused(), Cancelled(), DeadlineExceeded("late")):
        for _ in range(20):
            failure_of(lambda error=error: shared.call(Failing(error)))  # type: ignore[misc]
    assert spend_all(shared) == 0


# The breaker.


def test_an_open_breaker_refuses_at_once(breaker: Breaker, retrying: Callable[..., Retrying], given: Time) -> None:
    for _ in range(100):
        breaker.failed(away(7))
    attempt = Failing()
    with pytest.raises(Unavailable, match="away 7"):
        retrying().call(attempt)
    assert (attempt.numbers, given.pauses) == ([], [])


def test_a_failure_that_opens_the_breaker_is_raised_without_a_pause(
    breaker: Breaker, retrying: Callable[..., Retrying], given: Time
) -> None:
    for _ in range(99):
        breaker.failed(away())
    last = away(1)
    assert failure_of(lambda: retrying().call(Failing(last))) is last
    assert given.pauses == []


def test_a_breaker_that_opens_during_a_pause_ends_the_call(breaker: Breaker, given: Time) -> None:
    def sleep(seconds: float, waiting_for: str) -> None:
        given.sleep(seconds, waiting_for)
        for _ in range(100):
            breaker.failed(away(7))

    attempt = Failing(away())
    with pytest.raises(Unavailable, match="away 7"):
        Retrying(breaker, luck=lambda: 1.0, clock=lambda: given.now, sleep=sleep).call(attempt)
    assert attempt.numbers == [0]


@pytest.mark.parametrize(
    ("error", "noted"),
    [
        (None, "answered"),
        (NotFound(Reason.BLOB_NOT_FOUND, "no"), "answered"),
        (StorageFull("full"), "answered"),
        (Answer(), "answered"),
        (away(), "failed"),
        (refused(), "failed"),
        (Cancelled(), "nothing"),
        (DeadlineExceeded("late"), "nothing"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_breaker_learns_of_every_attempt_what_it_says_of_the_backend(
    breaker: Breaker,
    retrying: Callable[..., Retrying],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception | None,
    noted: str,
) -> None:
    notes: list[Exception | str] = []

    def fail(error: HoldfastError) -> None:
        notes.append(error)

    monkeypatch.setattr(breaker, "succeeded", lambda: notes.append("answered"))
    monkeypatch.setattr(breaker, "failed", fail)
    if error is None:
        retrying(attempts=1).call(Failing())
    else:
        failure_of(lambda: retrying(attempts=1).call(Failing(error)))
    assert notes == {"answered": ["answered"], "failed": [error], "nothing": []}[noted]


# Numbers.


def test_retries_are_counted(breaker: Breaker, given: Time) -> None:
    registry = CollectorRegistry()
    retrying = Retrying(
        breaker,
        metrics=RemoteMetrics(registry).of_backend("s3"),
        luck=lambda: 1.0,
        clock=lambda: given.now,
        sleep=given.sleep,
    )
    retrying.call(Failing())
    assert registry.get_sample_value("holdfast_remote_retries_total", {"backend": "s3"}) == 0
    retrying.call(Failing(away(), away()))
    assert registry.get_sample_value("holdfast_remote_retries_total", {"backend": "s3"}) == 2


@pytest.mark.parametrize(
    "numbers",
    [{"attempts": 0}, {"first_seconds": -1}, {"most_seconds": -0.1}, {"total_seconds": math.nan}],
    ids=str,
)
def test_numbers_that_make_no_sense_are_refused(numbers: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is below"):
        RetryPolicy(**numbers)
