"""What is found out about a store: the truth, each time, with few requests, and leaving nothing."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from holdfast_server.errors import Unavailable
from holdfast_server.objects.s3.messages import Request
from holdfast_server.objects.s3.probe import Findings, StoreUnfit
from tests.support.fault_proxy import Answer, Fault, FaultProxy, LoseAnswer, ResetBefore, Seen
from tests.support.fault_proxy.exchange import Exchange
from tests.support.s3_probes import FINDINGS, MODES, Bench, Workbench, why_not_ready, workbenches
from tests.support.s3_servers import MotoServer, S3Server

ROUNDS = 3
MOST_REQUESTS = 80
MOST_SECONDS = 60
"""It takes less than one, unless the machine has other things to do."""


@pytest.fixture
def bench(fresh_bucket: Callable[[S3Server], str]) -> Iterator[Bench]:
    """What makes workbenches."""
    with workbenches(fresh_bucket) as make:
        yield make


class TestFindings:
    def test_they_are_what_the_server_does_each_time_and_cost_little(self, s3_server: S3Server, bench: Bench) -> None:
        for _ in range(ROUNDS):
            fresh = bench(s3_server)
            begun = time.monotonic()
            assert fresh.probe() == FINDINGS[s3_server.name]
            assert time.monotonic() - begun < MOST_SECONDS
            assert fresh.requests <= MOST_REQUESTS
            assert fresh.left() == []

    def test_no_two_of_the_servers_are_the_same(self) -> None:
        assert len(set(FINDINGS.values())) == len(set(MODES.values())) == len(FINDINGS)

    def test_modes_follow_from_them(self) -> None:
        assert {name: findings.modes for name, findings in FINDINGS.items()} == MODES

    def test_two_at_once_do_not_disturb_each_other(self, s3_server: S3Server, bench: Bench) -> None:
        one = bench(s3_server)
        other = bench(s3_server, bucket=one.bucket)
        together = threading.Barrier(2)

        def look(at: Workbench) -> Findings:
            together.wait()
            return at.probe()

        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(look, (one, other))) == [FINDINGS[s3_server.name]] * 2
        assert one.left() == []

    def test_an_object_of_others_under_our_names_is_left_alone(self, s3_server: S3Server, bench: Bench) -> None:
        fresh = bench(s3_server)
        fresh.client.send(Request("put", "PUT", "holdfast/probe/other", body=b"kept"))
        fresh.probe()
        assert fresh.left() == ["holdfast/probe/other"]


@dataclass(frozen=True)
class Late(Fault):
    """The request is passed on some seconds later."""

    seconds: float

    def before_request(self, exchange: Exchange) -> None:
        exchange.wait(self.seconds)


@dataclass(frozen=True)
class Part(Fault):
    """The answer is the part that was asked for, of an object of which this is known."""

    content_type: str
    metadata: str

    def before_request(self, exchange: Exchange) -> None:
        exchange.read_request()
        headers = {"Content-Type": self.content_type, "x-amz-meta-holdfast-probe": self.metadata}
        exchange.answer(206, b"ldfa", headers)


def is_making(request: Seen) -> bool:
    """Tell whether a request is of the probe itself. Of an upload whose name was lost nobody can know."""
    return request.method != "DELETE" and "uploads" not in request.query


class TestFailures:
    def test_nothing_is_left_wherever_it_fails(self, moto: MotoServer, bench: Bench) -> None:
        with FaultProxy(moto.endpoint) as proxy:
            fresh = bench(moto, proxy)
            failed = 0
            for nth in itertools.count(1):
                injection = proxy.fail((Answer(500), LoseAnswer())[nth % 2], when=is_making, nth=nth)
                try:
                    fresh.probe()
                except Unavailable:
                    failed += 1
                proxy.heal()
                assert fresh.left() == []
                if not injection.met:
                    break
        assert failed > 20

    def test_what_is_on_its_way_when_it_fails_is_removed_too(self, s3_server: S3Server, bench: Bench) -> None:
        def is_one_of_several(request: Seen) -> bool:
            return "if-none-match" in request.headers

        with FaultProxy(s3_server.endpoint) as proxy:
            fresh = bench(s3_server, proxy)
            for _ in range(2):  # for which of them fails is chance, and not each is the one that is looked at first
                for fault, nth in ((ResetBefore(), 1), (Late(0.2), 2), (Late(0.4), 3)):
                    proxy.fail(fault, when=is_one_of_several, nth=nth)
                with pytest.raises(Unavailable):
                    fresh.probe()
                assert fresh.left() == []
                proxy.heal()

    def test_what_cannot_be_done_without_is_named(self, moto: MotoServer, bench: Bench) -> None:
        with FaultProxy(moto.endpoint) as proxy:
            fresh = bench(moto, proxy)
            for fault, nth, said in [
                (Answer(404, "NoSuchKey"), 2, "what was written is not there at once"),
                (Answer(200, "whole"), 2, "it does not give a part of an object"),
                (Part("text/plain; charset=utf-8", "a b"), 2, "it does not keep the metadata"),
                (Part("text/plain", "a%20b"), 2, "it does not keep the metadata"),
            ]:
                proxy.fail(fault, nth=nth)
                with pytest.raises(StoreUnfit, match=said):
                    fresh.probe()
                proxy.heal()

    def test_a_content_type_may_be_written_in_another_way(self, moto: MotoServer, bench: Bench) -> None:
        with FaultProxy(moto.endpoint) as proxy:
            rewritten = proxy.fail(Part("Text/plain;charset=UTF-8", "a%20b"), nth=2)
            assert bench(moto, proxy).probe() == FINDINGS["moto"]
        assert rewritten.met == 1

    def test_a_store_that_refuses_what_any_store_does_is_named(self, moto: MotoServer) -> None:
        with FaultProxy(moto.endpoint) as proxy:
            proxy.fail(Answer(405, "MethodNotAllowed"), when=lambda seen: "basics" in seen.path)
            error = why_not_ready(moto, "a-bucket", endpoint=proxy.endpoint)
        assert "it answers 405 MethodNotAllowed" in error.message
