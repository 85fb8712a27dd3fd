"""What a server does with a bucket at its start, and how that shows: marker and findings, and what follows of them."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest

import holdfast
from holdfast_server.errors import AlreadyExists, ConditionUnsupported, PreconditionFailed
from holdfast_server.objects.body import Body
from holdfast_server.objects.conditions import CreateOnly, IfMatch
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.marker import NAME as MARKER
from holdfast_server.objects.ranges import Suffix
from holdfast_server.objects.s3.bucket import Bucket
from holdfast_server.objects.s3.messages import Request
from holdfast_server.objects.s3.probe import StoreUnfit
from tests.support.s3_probes import FINDINGS, MODES, Bench, why_not_ready, workbenches
from tests.support.s3_servers import MotoServer, RcloneServer, S3Server
from tests.support.s3_stores import OpenedStore, s3_environment
from tests.support.samples import MIB, sample
from tests.support.server_metrics import metric
from tests.support.server_process import ServerProcess

KEY = ObjectKey("key")
S3_SERVERS = pytest.mark.parametrize("s3_server", ["moto", "minio"], indirect=True)
"""Those that keep `If-None-Match` of a put."""


@pytest.fixture
def bench(fresh_bucket: Callable[[S3Server], str]) -> Iterator[Bench]:
    """What makes workbenches."""
    with workbenches(fresh_bucket) as make:
        yield make


class TestMarker:
    @S3_SERVERS
    def test_many_who_come_at_once_make_one(self, s3_server: S3Server, bench: Bench) -> None:
        for _ in range(2):
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

    def test_it_lies_below_the_prefix(self, s3_server: S3Server, bench: Bench) -> None:
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
    def test_a_newer_or_damaged_one_is_refused(self, moto: MotoServer, bench: Bench, content: bytes, said: str) -> None:
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
