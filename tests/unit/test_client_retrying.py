"""How often, and after what pauses, the client tries again."""

import math
from collections.abc import Callable

import pytest

from holdfast.errors import DeadlineExceeded, NotFound, Overloaded, Unavailable
from holdfast.retrying import Retrier


class _Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def retrier(self, retries: int, timeout_seconds: float | None = 60.0, luck: float = 1.0) -> Retrier:
        return Retrier(retries, timeout_seconds, clock=lambda: self.now, sleep=self.sleep, random=lambda: luck)


def _failing(*failures: Exception, answer: str = "answer") -> Callable[[float | None], str]:
    left = list(failures)

    def attempt(_seconds: float | None) -> str:
        if left:
            raise left.pop(0)
        return answer

    return attempt


def _away(number: int = 0, retry_after_seconds: float | None = None) -> Unavailable:
    return Unavailable("BACKEND_UNAVAILABLE", f"away {number}", retry_after_seconds=retry_after_seconds)


def test_what_passes_by_itself_is_tried_again() -> None:
    time = _Time()
    attempt = _failing(_away(), Overloaded("OVERLOADED", "busy"), Unavailable("DRAINING", "draining"))
    assert time.retrier(3).call(attempt) == "answer"
    assert len(time.pauses) == 3


@pytest.mark.parametrize("error", [NotFound("BLOB_NOT_FOUND", "no"), DeadlineExceeded("DEADLINE_EXCEEDED", "late")])
def test_what_does_not_pass_by_itself_is_not_tried_again(error: Exception) -> None:
    time = _Time()
    with pytest.raises(type(error)):
        time.retrier(3).call(_failing(error))
    assert time.pauses == []


def test_after_the_last_try_its_error_is_raised() -> None:
    time = _Time()
    with pytest.raises(Unavailable, match="away 2"):
        time.retrier(2).call(_failing(_away(0), _away(1), _away(2)))
    assert len(time.pauses) == 2


def test_pauses_double_up_to_five_seconds() -> None:
    time = _Time()
    time.retrier(8).call(_failing(*[_away()] * 8))
    assert time.pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]


def test_pauses_are_a_random_part_of_that() -> None:
    time = _Time()
    time.retrier(3, luck=0.25).call(_failing(*[_away()] * 3))
    assert time.pauses == [0.05, 0.1, 0.2]


def test_the_pause_that_the_server_asks_for_comes_on_top() -> None:
    time = _Time()
    time.retrier(2).call(_failing(_away(retry_after_seconds=7.0), Overloaded("OVERLOADED", "", retry_after_seconds=1)))
    assert time.pauses == [7.2, 1.4]


def test_a_pause_longer_than_the_time_left_is_not_begun() -> None:
    time = _Time()
    with pytest.raises(Unavailable):
        time.retrier(5, timeout_seconds=30).call(_failing(_away(retry_after_seconds=3600)))
    assert time.pauses == []


def test_pauses_and_tries_share_the_time() -> None:
    time = _Time()
    left: list[float | None] = []

    def attempt(seconds: float | None) -> None:
        left.append(seconds)
        time.now += 1.0
        raise _away(retry_after_seconds=2.0)

    with pytest.raises(Unavailable):
        time.retrier(50, timeout_seconds=10, luck=0.0).call(attempt)
    assert left == [10.0, 7.0, 4.0, 1.0]


def test_without_a_time_out_there_is_no_bound_but_the_tries() -> None:
    time = _Time()
    given: list[float | None] = []

    def attempt(seconds: float | None) -> None:
        given.append(seconds)
        raise _away(retry_after_seconds=1e6)

    with pytest.raises(Unavailable):
        time.retrier(2, timeout_seconds=None).call(attempt)
    assert given == [None, None, None]


def test_progress_begins_the_time_anew() -> None:
    time = _Time()
    tries = time.retrier(1, timeout_seconds=10).begin()
    time.now += 20
    assert tries.seconds_left == 0
    tries.extend()
    assert tries.seconds_left == 10


@pytest.mark.parametrize(
    ("retries", "timeout"), [(-1, 60.0), (1, 0.0), (1, -1.0), (1, math.nan), (1, math.inf), (1, -math.inf), (1, 1.1e9)]
)
def test_numbers_that_make_no_sense_are_refused(retries: int, timeout: float) -> None:
    with pytest.raises(ValueError, match=r"is not above 0|is negative|is above 1e\+09"):
        Retrier(retries, timeout)
