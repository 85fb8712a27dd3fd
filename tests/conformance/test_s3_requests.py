"""What operations cost: requests, as the metrics count them and as they are seen on the wire, and bytes."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import google_crc32c
import grpc
import pytest

from holdfast.v1 import blob_store_pb2 as pb
from holdfast_server.errors import AlreadyExists
from holdfast_server.objects.base import ConditionMode, ListQuery, ObjectNotFound
from holdfast_server.objects.body import Body, Chunk, Declared
from holdfast_server.objects.conditions import CreateOnly, IfMatch
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.ranges import ByteRange, Suffix
from holdfast_server.objects.s3 import layout, lists
from holdfast_server.objects.s3.store import S3Store
from tests.support.fault_proxy import FaultProxy, Seen
from tests.support.raw_blobs import TIMEOUT_SECONDS, get, stub_of
from tests.support.s3_faults import is_callers
from tests.support.s3_servers import MinioServer
from tests.support.s3_stores import PART_BYTES, OpenedStore, fresh_bucket, s3_environment
from tests.support.samples import MIB, sample
from tests.support.server_metrics import metric
from tests.support.server_process import ServerProcess
from tests.support.waiting import wait_until

KEY = ObjectKey("key")
OTHER = ObjectKey("other")
FRAME = MIB + 4
GIB = 1 << 30
HEADS_BYTES = 8 << 10
"""More than the heads of a request and its answer take."""

LATER = ("head_bucket", "list_uploads")
"""Requests of the threads that look after the bucket, whenever those come round."""

Cost = dict[str, int]


class Counted:
    """A store whose requests are counted twice."""

    def __init__(self, opened: OpenedStore, proxy: FaultProxy) -> None:
        self.store: S3Store = opened.store
        self._opened = opened
        self._proxy = proxy

    @contextmanager
    def costing(self, expected: Cost) -> Iterator[None]:
        """Check what the block costs."""
        before, sent_before = self._counted(), len(self._sent())
        yield
        assert dict(self._counted() - before) == expected
        assert len(self._sent()) - sent_before == sum(expected.values())

    def _counted(self) -> Counter[str]:
        counted: Counter[str] = Counter()
        for family in self._opened.registry.collect():
            for found in family.samples:
                if found.name == "holdfast_remote_requests_total" and found.labels["request"] not in LATER:
                    counted[found.labels["request"]] += int(found.value)
        return counted

    def _sent(self) -> list[Seen]:
        return [seen for seen in self._proxy.requests if is_callers(seen)]


@pytest.fixture(scope="module", params=["moto", "minio"])
def opened(request: pytest.FixtureRequest) -> Iterator[tuple[str, Counted]]:
    """A store and the name of what is behind it, which differs in copies."""
    server = request.getfixturevalue(request.param)
    with FaultProxy(server.endpoint) as proxy, OpenedStore(server, endpoint=proxy.endpoint) as store:
        yield server.name, Counted(store, proxy)


@pytest.fixture
def counted(opened: tuple[str, Counted]) -> Counted:
    return opened[1]


def in_parts(data: bytes, **declared: Any) -> Body:
    chunks = [Chunk(data[at : at + MIB]) for at in range(0, len(data), MIB)]
    return Body([*chunks, Declared()], Declared(**declared))


class TestRequests:
    @pytest.mark.parametrize("size", [0, 1000, 5 * MIB])
    def test_a_put_is_one(self, counted: Counted, size: int) -> None:
        counted.store.delete(KEY)
        with counted.costing({"put": 1}):
            there = counted.store.put(KEY, Body.of(sample(size)), condition=CreateOnly())
        with counted.costing({"put": 1}):
            counted.store.put(KEY, Body.of(sample(size)), condition=IfMatch(there.etag))
        with counted.costing({"put": 1}):
            counted.store.put(KEY, Body.of(sample(size)))

    def test_a_put_that_is_refused_is_two(self, counted: Counted) -> None:
        counted.store.put(KEY, Body.of(b"x"))
        with counted.costing({"put": 1, "head": 1}), suppress(AlreadyExists):
            counted.store.put(KEY, Body.of(b"y"), condition=CreateOnly())

    @pytest.mark.parametrize("is_declared", [True, False])
    @pytest.mark.parametrize("parts", [2, 3])
    def test_a_put_in_parts_is_two_more_than_there_are(self, counted: Counted, parts: int, is_declared: bool) -> None:
        stored = parts * PART_BYTES - 100
        size = layout.size_of(stored)
        assert size is not None
        body = Body.of(sample(size))
        if is_declared:
            sha256 = counted.store.put(OTHER, Body.of(sample(size))).sha256
            body = in_parts(sample(size), sha256=sha256)
        cost = {"create_upload": 1, "upload_part": parts, "complete_upload": 1}
        with counted.costing(cost):
            there = counted.store.put(KEY, body)
        # Nobody shall send a terabyte to learn at its end that the condition fails. What the store does not keep is
        # looked at once more.
        looks = 1 if counted.store.describe().conditions.large_put is ConditionMode.ATOMIC else 2
        with counted.costing(cost | {"head": looks}):
            counted.store.put(KEY, Body.of(sample(size, seed=1)), condition=IfMatch(there.etag))

    @pytest.mark.parametrize("size", [10, 5 * MIB, 12 * MIB])
    def test_a_read_is_one(self, counted: Counted, size: int) -> None:
        counted.store.put(KEY, Body.of(sample(size)))
        for wanted in (ByteRange(), ByteRange(3, 4), ByteRange(size - 1), Suffix(5), ByteRange(size // 2, 2 * MIB)):
            with counted.costing({"get": 1}), counted.store.get(KEY, wanted) as reader:
                data = b"".join(chunk.data for chunk in reader)
            assert data == sample(size)[reader.extent.offset : reader.extent.offset + reader.extent.length]

    def test_a_stat_is_one_and_a_deletion_two(self, counted: Counted) -> None:
        counted.store.put(KEY, Body.of(b"x"))
        with counted.costing({"head": 1}):
            counted.store.stat(KEY)
        with counted.costing({"head": 1, "delete": 1}):
            assert counted.store.delete(KEY)

    def test_what_is_missing_is_asked_for_once(self, opened: tuple[str, Counted]) -> None:
        name, counted = opened
        counted.store.delete(KEY)
        with counted.costing({"get": 1}), suppress(ObjectNotFound):
            counted.store.get(KEY)
        # The refusal of a HEAD does not say whether it is the object that is missing, or the bucket. MinIO's does.
        looked_for = {"head": 1} if name == "minio" else {"head": 1, "ask_why": 1}
        with counted.costing(looked_for), suppress(ObjectNotFound):
            counted.store.stat(KEY)
        with counted.costing(looked_for):
            assert not counted.store.delete(KEY)

    def test_a_list_is_one_a_page(self, counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lists, "PAGE_ITEMS", 10)
        names = [f"listed/{number:02}" for number in range(25)]
        for name in names:
            counted.store.put(ObjectKey(name), Body.of(b""))
        with counted.costing({"list": 3}):
            assert [item.name for item in counted.store.list(ListQuery("listed/"))] == names
        with counted.costing({"list": 1}):
            assert [item.name for item in counted.store.list(ListQuery("listed/", after="listed/20"))] == names[21:]
        with counted.costing({"list": 1}):
            found = counted.store.list(ListQuery("listed/"))
            assert [next(found).name for _ in range(10)] == names[:10]
        with counted.costing({"list": 1}):
            assert [item.name for item in counted.store.list(ListQuery("listed", delimiter=True))] == ["listed/"]

    @pytest.mark.parametrize("size", [10, 12 * MIB])
    def test_a_copy_is_two_where_the_store_copies(self, opened: tuple[str, Counted], size: int) -> None:
        name, counted = opened
        counted.store.put(KEY, Body.of(sample(size)))
        counted.store.delete(OTHER)
        by_store = {"head": 1, "copy": 1}
        written = {"put": 1} if size == 10 else {"create_upload": 1, "upload_part": 3, "complete_upload": 1}
        with counted.costing(by_store if name == "minio" else {"head": 1, "get": 1, **written}):
            counted.store.copy(KEY, OTHER)


class Wire:
    """A server on an object of 1 GiB, and what passes between it and the store for it."""

    def __init__(self, server: ServerProcess, stub: Any, proxy: FaultProxy) -> None:
        self.stub = stub
        self._server = server
        self._proxy = proxy

    @contextmanager
    def moving(self, least: int, most: int) -> Iterator[None]:
        """Check that the block has so many bytes come from the store, with one request."""
        before, gets = self._proxy.bytes_from_upstream, metric(self._server, **GETS)
        yield
        # What is given up is ended by another thread.
        wait_until(lambda: metric(self._server, "holdfast_calls_at_work") == 0)
        assert least <= self._proxy.bytes_from_upstream - before <= most + HEADS_BYTES
        assert metric(self._server, **GETS) == gets + 1


GETS = {"name": "holdfast_remote_requests_total", "request": "get", "outcome": "ok"}


@pytest.fixture(scope="module")
def wire(minio: MinioServer) -> Iterator[Wire]:
    """1 GiB of one piece again and again."""
    bucket = fresh_bucket()
    piece = Chunk(sample(MIB), google_crc32c.value(sample(MIB)))
    digest = hashlib.sha256()
    for _ in range(GIB // MIB):
        digest.update(piece.data)
    with FaultProxy(minio.endpoint) as proxy:
        with OpenedStore(minio, bucket=bucket, part_bytes=32 * MIB) as one:
            body = Body(itertools.repeat(piece, GIB // MIB), Declared(GIB, digest.digest()))
            one.store.put(ObjectKey("large"), body)
        endpoint = f"http://{proxy.endpoint}"
        with (
            ServerProcess(env=s3_environment(minio, bucket, endpoint=endpoint)) as server,
            grpc.insecure_channel(server.address) as channel,
        ):
            yield Wire(server, stub_of(channel), proxy)
        minio.empty_bucket(bucket)


class TestBytes:
    @pytest.mark.parametrize("offset", [0, 1, 5 * MIB - 1, GIB // 2, GIB // 2 + 12345, GIB - MIB])
    def test_a_mebibyte_of_a_gibibyte_moves_two_pieces_at_most(self, wire: Wire, offset: int) -> None:
        with wire.moving(MIB, 2 * FRAME):
            assert get(wire.stub, "large", offset=offset, length=MIB) == (sample(MIB) * 2)[offset % MIB :][:MIB]

    def test_so_does_a_mebibyte_from_the_end(self, wire: Wire) -> None:
        with wire.moving(MIB, 2 * FRAME):
            assert get(wire.stub, "large", suffix_length=MIB) == sample(MIB)

    def test_one_byte_moves_one_piece(self, wire: Wire) -> None:
        with wire.moving(MIB, FRAME):
            assert get(wire.stub, "large", offset=GIB - 1) == sample(MIB)[-1:]

    def test_a_download_that_is_given_up_moves_little(self, wire: Wire) -> None:
        with wire.moving(MIB, 64 * MIB):
            download = wire.stub.GetBlob(pb.GetBlobRequest(key="large"), timeout=TIMEOUT_SECONDS)
            assert next(download).info.size_bytes == GIB
            assert next(download).chunk.data == sample(MIB)
            download.cancel()
