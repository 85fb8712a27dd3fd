"""Stores that have much to do: such that want to be asked less often, and such that are long at work at one request."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from holdfast_server.errors import Unavailable
from holdfast_server.objects.body import Body, Declared
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.s3 import client
from tests.support.disk_operations import KEY, content
from tests.support.fault_proxy import FOREVER, Answer, FaultProxy, Seen, Throttle
from tests.support.fault_proxy.exchange import Exchange
from tests.support.s3_faults import FaultyStore
from tests.support.s3_servers import MinioServer, MotoServer
from tests.support.s3_stores import OpenedStore
from tests.support.samples import MIB, sample

DEFAULT_READ_SECONDS = 30.0


def creates(request: Seen) -> bool:
    return "if-none-match" in request.headers


@pytest.mark.parametrize("answer", [Answer(429), Answer(503, "SlowDown")], ids=["429", "SlowDown"])
def test_a_store_that_wants_to_be_asked_less_often_is_probed_all_the_same(moto: MotoServer, answer: Answer) -> None:
    with OpenedStore(moto) as usual, FaultProxy(moto.endpoint) as proxy:
        injection = proxy.fail(answer, when=creates, times=2)
        with OpenedStore(moto, endpoint=proxy.endpoint) as slowed:
            assert injection.met == 2
            assert slowed.store.describe().conditions == usual.store.describe().conditions


def completes(request: Seen) -> bool:
    return request.method == "POST" and "uploadId" in request.query


def copies(request: Seen) -> bool:
    return "x-amz-copy-source" in request.headers


class Clock:
    """Goes on with each bit of an answer, as if that had taken a while."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_seconds


@dataclass(frozen=True)
class LongAtWork(Throttle):
    """The answer's body comes bit by bit."""

    clock: Clock

    def answer_body(self, exchange: Exchange, offset: int, data: bytes) -> Iterator[bytes]:
        for bit in super().answer_body(exchange, offset, data):
            self.clock.ahead_seconds += 1.0
            yield bit


def test_what_a_store_is_long_at_work_at_is_waited_for(minio: MinioServer, monkeypatch: pytest.MonkeyPatch) -> None:
    # Such a store answers at once, and then bit by bit: each within the time-out, and all of them not.
    data = sample(12 * MIB)
    slowly = LongAtWork(150, Clock())
    monkeypatch.setattr(client, "time", slowly.clock)
    with FaultyStore(minio) as faulty:
        slow = faulty.proxy.fail(slowly, when=completes, times=FOREVER)
        faulty.store.put(KEY, Body.of(data))
        slow_too = faulty.proxy.fail(slowly, when=copies, times=FOREVER)
        faulty.store.copy(KEY, ObjectKey("copy"))
        assert (slow.met, slow_too.met) == (1, 1)
        assert slowly.clock.ahead_seconds > 2 * DEFAULT_READ_SECONDS
        assert content(faulty.direct, ObjectKey("copy")) == data


def writes(request: Seen) -> bool:
    return request.method == "PUT"


def test_a_store_that_fails_at_writing_is_still_read(minio: MinioServer) -> None:
    with FaultyStore(minio) as faulty:
        faulty.store.put(KEY, Body.of(b"there"))
        faulty.proxy.fail(Answer(500), when=writes, times=FOREVER)
        for _ in range(4):
            with pytest.raises(Unavailable, match="the S3 store failed"):
                faulty.store.put(ObjectKey("another"), Body([], Declared(0)))
            assert content(faulty.store, KEY) == b"there"
