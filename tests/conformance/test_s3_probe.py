"""What is found out about a store at the start: the truth, each time, with few requests, and leaving nothing."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict

import pytest
from minio import Minio
from minio.error import MinioException
from prometheus_client import CollectorRegistry

import holdfast
from holdfast_server.errors import (
    AlreadyExists,
    ConditionUnsupported,
    HoldfastError,
    PreconditionFailed,
    Reason,
    Unavailable,
)
from holdfast_server.objects.base import ConditionMode, ConditionModes
from holdfast_server.objects.body import Body
from holdfast_server.objects.conditions import CreateOnly, IfMatch
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.marker import NAME as MARKER
from holdfast_server.objects.ranges import Suffix
from holdfast_server.objects.remote_metrics import RemoteMetrics
from holdfast_server.objects.s3 import S3Store
from holdfast_server.objects.s3.bucket import Bucket
from holdfast_server.objects.s3.client import Request, S3Client
from holdfast_server.objects.s3.probe import Findings, StoreUnfit, probe
from holdfast_server.objects.s3.requests import MeasuredClient
from holdfast_server.objects.spool import Spool
from tests.support.fault_proxy import Answer, Fault, FaultProxy, LoseAnswer, ResetBefore, Seen
from tests.support.fault_proxy.exchange import Exchange
from tests.support.s3_servers import MotoServer, RcloneServer, S3Server
from tests.support.s3_stores import OpenedStore, options_for, s3_environment
from tests.support.samples import MIB, sample
from tests.support.server_metrics import metric
from tests.support.server_process import ServerProcess
from tests.support.waiting import wait_until

KEY = ObjectKey("key")
ROUNDS = 5
MOST_REQUESTS = 80
MOST_SECONDS = 5
FINDINGS = {
    "moto": Findings(
        nested_keys=True,
        put_create_only=True,
        put_if_match=True,
        large_put_create_only=True,
        delete_if_match=True,
    ),
    "minio": Findings(
        put_create_only=True,
        put_if_match=True,
        large_put_create_only=True,
        large_put_if_match=True,
        copy_if_source_matches=True,
    ),
    "rclone": Findings(),
}
ATOMIC, CHECKED, UNSUPPORTED = ConditionMode.ATOMIC, ConditionMode.CHECKED, ConditionMode.UNSUPPORTED
MODES = {
    "moto": ConditionModes(ATOMIC, CHECKED, ATOMIC, CHECKED),
    "minio": ConditionModes(ATOMIC, ATOMIC, UNSUPPORTED, ATOMIC),
    "rclone": ConditionModes(CHECKED, CHECKED, UNSUPPORTED, CHECKED),
}
S3_SERVERS = pytest.mark.parametrize("s3_server", ["moto", "minio"], indirect=True)
"""Those that keep `If-None-Match` of a put."""


class Workbench:
    """An empty bucket, and what a server has for it before it knows anything: a client that is measured."""

    def __init__(self, server: S3Server, bucket: str, endpoint: str) -> None:
        self.registry = CollectorRegistry()
        self.bucket = bucket
        self.options = options_for(server, bucket, endpoint=endpoint)
        self._s3 = S3Client(self.options)
        self.client = MeasuredClient(self._s3, RemoteMetrics(self.registry).of_backend("s3"))
        self.direct: Minio = server.client()

    def probe(self) -> Findings:
        return probe(self.client, self.bucket, "")

    @property
    def requests(self) -> float:
        """How many requests were counted."""
        samples = (sample for family in self.registry.collect() for sample in family.samples)
        return sum(sample.value for sample in samples if sample.name == "holdfast_remote_requests_total")

    def left(self) -> list[str]:
        """Return the names of what is in the bucket, and of the uploads that were begun."""
        names = [item.object_name or "" for item in self.direct.list_objects(self.bucket, recursive=True)]
        with suppress(MinioException):  # rclone's answer where there are none
            names += [upload.object_name for upload in self.direct._list_multipart_uploads(self.bucket).uploads]
        return names

    def close(self) -> None:
        self._s3.close()


@pytest.fixture
def bench(fresh_bucket: Callable[[S3Server], str]) -> Iterator[Callable[..., Workbench]]:
    """What makes workbenches on a server, behind a proxy if one is given."""
    with ExitStack() as stack:

        def make(server: S3Server, proxy: FaultProxy | None = None, bucket: str = "") -> Workbench:
            made = Workbench(
                server, bucket or fresh_bucket(server), server.endpoint if proxy is None else proxy.endpoint
            )
            stack.callback(made.close)
            return made

        yield make


class TestFindings:
    def test_they_are_what_the_server_does_each_time_and_cost_little(
        self, s3_server: S3Server, bench: Callable[..., Workbench]
    ) -> None:
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

    def test_two_at_once_do_not_disturb_each_other(self, s3_server: S3Server, bench: Callable[..., Workbench]) -> None:
        one = bench(s3_server)
        other = bench(s3_server, bucket=one.bucket)
        together = threading.Barrier(2)

        def look(at: Workbench) -> list[Findings]:
            together.wait()
            return [at.probe() for _ in range(2)]

        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(look, (one, other))) == [[FINDINGS[s3_server.name]] * 2] * 2
        assert one.left() == []

    def test_an_object_of_others_under_our_names_is_left_alone(
        self, s3_server: S3Server, bench: Callable[..., Workbench]
    ) -> None:
        fresh = bench(s3_server)
        fresh.client.send(Request("put", "PUT", "holdfast/probe/other", body=b"kept"))
        fresh.probe()
        assert fresh.left() == ["holdfast/probe/other"]


class Late(Fault):
    """The request is passed on a moment later."""

    def before_request(self, exchange: Exchange) -> None:
        exchange.wait(0.3)


def is_making(request: Seen) -> bool:
    """Tell whether a request is of the probe itself. Of an upload whose name was lost nobody can know."""
    return request.method != "DELETE" and "uploads" not in request.query


class TestFailures:
    @pytest.mark.parametrize("fault", [Answer(503), LoseAnswer()], ids=["503", "lost answer"])
    def test_nothing_is_left_wherever_it_fails(
        self, moto: MotoServer, bench: Callable[..., Workbench], fault: Fault
    ) -> None:
        with FaultProxy(moto.endpoint) as proxy:
            fresh = bench(moto, proxy)
            failed = 0
            for faulted in proxy.sweep(fault, when=is_making):
                with faulted:
                    try:
                        fresh.probe()
                    except Unavailable:
                        failed += 1
                assert fresh.left() == []
        assert failed > 20

    def test_what_is_on_its_way_when_it_fails_is_removed_too(
        self, s3_server: S3Server, bench: Callable[..., Workbench]
    ) -> None:
        with FaultProxy(s3_server.endpoint) as proxy:
            fresh = bench(s3_server, proxy)
            proxy.fail(ResetBefore(), when=lambda seen: "if-none-match" in seen.headers)
            proxy.fail(Late(), when=lambda seen: "if-none-match" in seen.headers, times=3)
            with pytest.raises(Unavailable):
                fresh.probe()
            wait_until(lambda: all(seen.status or seen.fault == ResetBefore() for seen in proxy.requests))
            assert fresh.left() == []

    def test_what_cannot_be_done_without_is_named(self, moto: MotoServer, bench: Callable[..., Workbench]) -> None:
        with FaultProxy(moto.endpoint) as proxy:
            fresh = bench(moto, proxy)
            for fault, nth, said in [
                (Answer(404, "NoSuchKey"), 2, "what was written is not there at once"),
                (Answer(200, "whole"), 2, "it does not give a part of an object"),
            ]:
                proxy.fail(fault, nth=nth)
                with pytest.raises(StoreUnfit, match=said):
                    fresh.probe()
                proxy.heal()

    def test_a_store_that_refuses_what_any_store_does_is_named(self, moto: MotoServer) -> None:
        with FaultProxy(moto.endpoint) as proxy:
            proxy.fail(Answer(405, "MethodNotAllowed"), when=lambda seen: "basics" in seen.path)
            error = why_not_ready(moto, "a-bucket", endpoint=proxy.endpoint)
        assert "it answers 405 MethodNotAllowed" in error.message


def why_not_ready(server: S3Server, bucket: str, **changes: object) -> HoldfastError:
    """Return why a store on a bucket does not become ready."""
    told: list[HoldfastError | None] = []
    metrics = RemoteMetrics(CollectorRegistry()).of_backend("s3")
    store = S3Store(options_for(server, bucket, **changes), Spool(), metrics)
    try:
        store.start(told.append)
        wait_until(lambda: len(told) > 1)  # at first it is that nothing is known yet
        assert store.describe().not_ready is Reason.BACKEND_UNAVAILABLE
    finally:
        store.close()
    assert told[1] is not None
    return told[1]


class TestMarker:
    @S3_SERVERS
    def test_many_who_come_at_once_make_one(self, s3_server: S3Server, bench: Callable[..., Workbench]) -> None:
        for _ in range(ROUNDS):
            first = bench(s3_server)
            others = [Bucket(bench(s3_server, bucket=first.bucket).client, first.options) for _ in range(8)]
            together = threading.Barrier(len(others))

            def come(bucket: Bucket, together: threading.Barrier = together) -> str:
                together.wait()
                return bucket.store_id(create_only=True)

            with ThreadPoolExecutor(len(others)) as pool:
                ids = set(pool.map(come, others))
            assert len(ids) == 1
            assert first.left() == [MARKER]
            with first.direct.get_object(first.bucket, MARKER) as answer:
                assert json.loads(answer.read()) == {"format": 1, "store_id": ids.pop()}

    def test_it_is_the_same_at_the_next_start(self, s3_server: S3Server) -> None:
        with OpenedStore(s3_server) as one, OpenedStore(s3_server, bucket=one.bucket) as other:
            assert one.store.describe().store_id == other.store.describe().store_id != ""

    def test_it_lies_below_the_prefix(self, s3_server: S3Server, bench: Callable[..., Workbench]) -> None:
        fresh = bench(s3_server)
        with (
            OpenedStore(s3_server, bucket=fresh.bucket, prefix="of/us/") as ours,
            OpenedStore(s3_server, bucket=fresh.bucket, prefix="of/them/") as theirs,
        ):
            assert ours.store.describe().store_id != theirs.store.describe().store_id
        assert sorted(fresh.left()) == [f"of/them/{MARKER}", f"of/us/{MARKER}"]

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b'{"format": 2, "store_id": "x"}', "says format 2, and this server knows up to 1"),
            (b'{"format": "1", "store_id": "x"}', "is not the marker"),
            (b'{"format": 1}', "is not the marker"),
            (b'{"format": 1, "store_id": 7}', "is not the marker"),
            (b"[1]", "is not the marker"),
            (b"null", "is not the marker"),
            (b"\xff", "is not the marker"),
            (b"", "is not the marker"),
        ],
    )
    def test_a_newer_or_damaged_one_is_refused(
        self, moto: MotoServer, bench: Callable[..., Workbench], content: bytes, said: str
    ) -> None:
        fresh = bench(moto)
        fresh.client.send(Request("put", "PUT", MARKER, body=content))
        error = why_not_ready(moto, fresh.bucket)
        assert isinstance(error, StoreUnfit)
        assert said in error.message
        with fresh.direct.get_object(fresh.bucket, MARKER) as answer:
            assert answer.read() == content

    def test_a_bucket_is_made_in_its_region(self, s3_server: S3Server) -> None:
        with OpenedStore(s3_server, region="eu-central-1") as opened:
            assert opened.store.describe().not_ready is None


class TestWhereTheyShow:
    def test_in_log_server_info_and_metrics(self, s3_server: S3Server) -> None:
        findings = asdict(FINDINGS[s3_server.name])
        with ServerProcess(env=s3_environment(s3_server)) as server:
            with holdfast.connect(server.address) as client:
                blob_store = {service.name: service for service in client.server_info().services}[
                    "holdfast.v1.BlobStore"
                ]
            assert all(
                metric(server, "holdfast_remote_finding", finding=name) == holds for name, holds in findings.items()
            )
            probed = server.wait_for_log("INFO .*S3 store probed .*")
            lacking = server.wait_for_log("WARNING .*The S3 store does not keep every condition .*lacking=(.*)")
        backend = blob_store.backend
        assert (backend.name, backend.durability, backend.nested_keys) == ("s3", "remote", findings["nested_keys"])
        modes = MODES[s3_server.name]
        assert {name: mode.upper() for name, mode in asdict(backend.conditions).items()} == {
            name: mode.name for name, mode in asdict(modes).items()
        }
        assert backend.condition_mode.upper() == min(modes.put, modes.large_put).name
        assert probed is not None
        assert f"store_id={backend.store_id} " in probed[0]
        assert all(f" {name}={holds}" in f"{probed[0]} " for name, holds in findings.items())
        assert lacking is not None
        assert set(lacking[1].split(",")) == {n for n, holds in findings.items() if not holds} - {"nested_keys"}


@pytest.fixture(scope="module")
def unconditional(rclone: RcloneServer) -> Iterator[OpenedStore]:
    """A store on what ignores conditions."""
    with OpenedStore(rclone) as store:
        yield store


class TestWithoutConditions:
    """A store that ignores conditions is still one whose conditions hold among the callers of one process."""

    @pytest.mark.parametrize("size", [100, 6 * MIB])
    def test_of_eight_create_only_writers_one_wins(self, unconditional: OpenedStore, size: int) -> None:
        start = threading.Barrier(8)
        key = ObjectKey(f"created/{size}")

        def write(number: int) -> str:
            start.wait()
            try:
                unconditional.store.put(key, Body.of(sample(size, seed=number)), condition=CreateOnly())
            except AlreadyExists:
                return "exists"
            return "won"

        with ThreadPoolExecutor(8) as pool:
            came = list(pool.map(write, range(8)))
        assert Counter(came) == {"won": 1, "exists": 7}
        with unconditional.store.get(key) as reader:
            assert b"".join(chunk.data for chunk in reader) == sample(size, seed=came.index("won"))

    def test_a_deletion_with_a_condition_is_unsupported(self, unconditional: OpenedStore) -> None:
        info = unconditional.store.put(KEY, Body.of(b"x"))
        with pytest.raises(ConditionUnsupported):
            unconditional.store.delete(KEY, condition=IfMatch(info.etag))
        assert unconditional.store.stat(KEY).etag == info.etag

    def test_a_read_with_another_etag_is_refused(self, unconditional: OpenedStore) -> None:
        info = unconditional.store.put(KEY, Body.of(b"x"))
        with pytest.raises(PreconditionFailed):
            unconditional.store.get(KEY, condition=IfMatch("other"))
        unconditional.store.get(KEY, condition=IfMatch(info.etag)).close()

    def test_a_suffix_may_be_longer_than_the_object(self, unconditional: OpenedStore) -> None:
        unconditional.store.put(KEY, Body.of(b"short"))
        with unconditional.store.get(KEY, Suffix(100)) as reader:
            assert b"".join(chunk.data for chunk in reader) == b"short"
