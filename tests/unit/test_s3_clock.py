"""The store's clock: what it says from one date to the next, and what is asked where none came."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from holdfast_server.errors import Unavailable
from holdfast_server.objects.body import Body
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.s3.clock import StoreClock, date_of
from holdfast_server.objects.s3.messages import Request
from tests.support.fault_proxy import FOREVER, Answer, NotXml, Seen
from tests.support.http_upstream import HttpUpstream
from tests.support.s3_clients import HEAD_BUCKET, PUT, connecting, failure
from tests.support.s3_faults import FaultyStore
from tests.support.s3_servers import MotoServer

NOON = datetime(2031, 5, 6, 12, 0, 0, tzinfo=UTC)
HOUR = 3600.0


@dataclass
class Ticking:
    """A clock that is set."""

    seconds: float = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def ticking() -> Ticking:
    return Ticking()


@pytest.fixture
def clock(ticking: Ticking) -> StoreClock:
    return StoreClock(ticking)


def dated(date: datetime) -> dict[str, str]:
    return {"date": format_datetime(date, usegmt=True)}


class TestDates:
    def test_a_date_has_a_time_zone_however_it_is_written(self) -> None:
        for text in ("Tue, 06 May 2031 12:00:00 GMT", "Tue, 06 May 2031 12:00:00 -0000", "06 May 2031 14:00:00 +0200"):
            found = date_of({"date": text})
            assert found == NOON

    @pytest.mark.parametrize("headers", [{}, {"date": ""}, {"date": "noon"}, {"date": "Tue, 99 May 2031 12:00:00 GMT"}])
    def test_what_is_no_date_is_none(self, headers: dict[str, str]) -> None:
        assert date_of(headers) is None


class TestClock:
    def test_it_says_nothing_before_it_has_seen_a_date(self, clock: StoreClock) -> None:
        assert clock.now() is None
        clock.see({})
        assert clock.now() is None

    def test_it_goes_on_from_the_last_date(self, clock: StoreClock, ticking: Ticking) -> None:
        clock.see(dated(NOON))
        assert clock.now() == NOON
        ticking.seconds += 90.25
        assert clock.now() == NOON + timedelta(seconds=90.25)
        clock.see({})
        assert clock.now() == NOON + timedelta(seconds=90.25)

    @pytest.mark.parametrize("step", [timedelta(days=1), timedelta(days=-1), timedelta(seconds=2), -timedelta(hours=1)])
    def test_it_follows_a_store_whose_clock_was_set(self, clock: StoreClock, step: timedelta) -> None:
        clock.see(dated(NOON))
        clock.see(dated(NOON + step))
        assert clock.now() == NOON + step

    def test_it_does_not_step_back_within_a_second(self, clock: StoreClock, ticking: Ticking) -> None:
        clock.see(dated(NOON))
        ticking.seconds += 0.75
        clock.see(dated(NOON))
        assert clock.now() == NOON + timedelta(seconds=0.75)
        ticking.seconds += 0.75
        clock.see(dated(NOON + timedelta(seconds=1)))
        assert clock.now() == NOON + timedelta(seconds=1.5)

    def test_it_relies_on_a_date_for_an_hour(self, clock: StoreClock, ticking: Ticking) -> None:
        clock.see(dated(NOON))
        ticking.seconds += HOUR
        assert clock.now() == NOON + timedelta(hours=1)
        ticking.seconds += 0.001
        assert clock.now() is None
        clock.see(dated(NOON))
        assert clock.now() == NOON


class TestAnswers:
    def test_a_server_whose_date_is_a_day_off_gives_that_day(self) -> None:
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        with HttpUpstream() as upstream, connecting() as connect:
            upstream.date = format_datetime(tomorrow, usegmt=True)
            client = connect(upstream.address)
            client.send(PUT)
            now = client.clock.now()
        assert now is not None
        assert abs(now - tomorrow) < timedelta(hours=1)

    def test_an_error_tells_no_time(self) -> None:
        with HttpUpstream() as upstream, connecting() as connect:
            client = connect(upstream.address)
            failure(client, Request("get", "GET", "missing"))
            assert client.clock.now() is None
            upstream.stored["/bucket"] = b""
            client.send(HEAD_BUCKET)
            assert client.clock.now() is not None


@pytest.fixture(scope="module")
def faulty(moto: MotoServer) -> Iterator[FaultyStore]:
    """A store on moto."""
    with FaultyStore(moto) as store:
        yield store


def of_bucket(request: Seen) -> bool:
    return request.method == "HEAD" and "/" not in request.path.strip("/")


class TestStore:
    @pytest.fixture(autouse=True)
    def _forgotten(self, faulty: FaultyStore) -> None:
        """No date was seen."""
        faulty.rest()
        faulty.store._client.clock._seen = None

    def test_where_no_date_came_it_asks_for_one_once(self, faulty: FaultyStore) -> None:
        before, begun = len(faulty.requests), datetime.now(UTC)
        for _ in range(3):
            assert begun - timedelta(seconds=2) < faulty.store.now() < datetime.now(UTC) + timedelta(seconds=2)
        assert [seen.method for seen in faulty.requests[before:] if of_bucket(seen)] == ["HEAD"]

    def test_after_any_answer_it_asks_for_nothing(self, faulty: FaultyStore) -> None:
        faulty.store.put(ObjectKey("key"), Body.of(b""))
        before = len(faulty.requests)
        faulty.store.now()
        assert [seen for seen in faulty.requests[before:] if of_bucket(seen)] == []

    @pytest.mark.parametrize("fault", [NotXml(502), Answer(412), Answer(416)], ids=str)
    def test_without_an_answer_it_is_unavailable(self, faulty: FaultyStore, fault: Answer | NotXml) -> None:
        faulty.proxy.fail(fault, when=of_bucket, times=FOREVER)
        with pytest.raises(Unavailable):
            faulty.store.now()
