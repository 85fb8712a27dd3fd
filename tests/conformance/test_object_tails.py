"""What the tail of an object costs, and that it is not verified: a list reads one of each of many objects."""

import io
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from minio import Minio

from holdfast_server.errors import ConcurrentModification, IntegrityFailed
from holdfast_server.objects.body import Body
from holdfast_server.objects.filesystem import FilesystemStore
from holdfast_server.objects.ranges import ByteRange, Extent, Tail
from holdfast_server.objects.s3.messages import Request
from holdfast_server.objects.s3.reader import S3TailReader
from tests.support.counting_disk import CountingDisk
from tests.support.disk_operations import KEY, read
from tests.support.fault_proxy import FOREVER, Fault, ResetAfter, Seen, Truncate
from tests.support.faulty_disk import open_files_below
from tests.support.s3_faults import FaultyStore, is_callers
from tests.support.s3_servers import S3Server
from tests.support.samples import MIB, sample

TAIL = 4096
SUM = 4
REFUSED = 416
RECORD_BYTES = 8192
"""What is read of a file to find out what is known of its object."""

SIZES = [TAIL + 2 * SUM, MIB - 1, MIB + 100, 5 * MIB, 6 * MIB + 100, 7 * MIB]
"""Plain and with sums, with the tail in one piece and in two."""


@pytest.fixture(scope="module", params=["moto", "minio", "rclone"])
def faulty(request: pytest.FixtureRequest) -> Iterator[FaultyStore]:
    """A store on each S3 server."""
    server: S3Server = request.getfixturevalue(request.param)
    with FaultyStore(server) as store:
        yield store


def gets(request: Seen) -> bool:
    return request.method == "GET" and request.path.endswith(f"/{KEY}")


def flip_stored_byte(client: Minio, bucket: str, at: int) -> None:
    """Have another byte in the bucket, under the headers that were there."""
    answer = client.get_object(bucket, KEY.text)
    data = bytearray(answer.read())
    headers = {name.lower(): value for name, value in answer.headers.items()}
    answer.close()
    answer.release_conn()
    data[at] ^= 1
    own = {name: value for name, value in headers.items() if name.startswith("x-amz-meta-")}
    client.put_object(bucket, KEY.text, io.BytesIO(data), len(data), headers["content-type"], metadata=dict(own))


class TestFiles:
    @pytest.mark.parametrize("size", SIZES)
    def test_a_tail_is_one_read_of_just_its_bytes(self, tmp_path: Path, size: int) -> None:
        disk = CountingDisk()
        with closing(FilesystemStore(tmp_path, disk=disk)) as store:
            store.put(KEY, Body.of(sample(size)))
            before = disk.calls
            store.stat(KEY)
            calls_of_stat, calls, bytes_read = disk.calls - before, disk.calls, disk.bytes_read
            assert read(store, KEY, Tail(TAIL)) == sample(size)[-TAIL:]
            assert disk.bytes_read - bytes_read <= RECORD_BYTES + TAIL
            assert disk.calls - calls <= calls_of_stat + 1

    @pytest.mark.parametrize("at", [0, MIB, 2 * MIB + 99])
    def test_a_flipped_byte_before_the_tail_shows_in_a_whole_read_only(self, tmp_path: Path, at: int) -> None:
        data = sample(2 * MIB + 100 + TAIL)
        with closing(FilesystemStore(tmp_path)) as store:
            store.put(KEY, Body.of(data))
            [path] = (path for path in (tmp_path / "tree").rglob("*") if path.is_file())
            stored = bytearray(path.read_bytes())
            stored[at] ^= 1
            path.write_bytes(stored)
            assert read(store, KEY, Tail(TAIL)) == data[-TAIL:]
            with pytest.raises(IntegrityFailed):
                read(store, KEY)

    def test_a_tail_holds_no_file_open(self, tmp_path: Path) -> None:
        with closing(FilesystemStore(tmp_path)) as store:
            store.put(KEY, Body.of(sample(MIB)))
            before = open_files_below(tmp_path)
            readers = [store.get(KEY, Tail(TAIL)) for _ in range(10)]
            assert open_files_below(tmp_path) == before
            assert {b"".join(chunk.data for chunk in reader) for reader in readers} == {sample(MIB)[-TAIL:]}


class TestBuckets:
    @pytest.mark.parametrize("size", SIZES)
    def test_a_tail_is_one_request_for_just_its_bytes(self, faulty: FaultyStore, size: int) -> None:
        faulty.rest()
        faulty.direct.put(KEY, Body.of(sample(size)))
        before = len(faulty.requests)
        assert read(faulty.store, KEY, Tail(TAIL)) == sample(size)[-TAIL:]
        [request] = [seen for seen in faulty.requests[before:] if is_callers(seen)]
        assert request.answer_bytes <= TAIL + 2 * SUM

    @pytest.mark.parametrize("size", [0, 1, TAIL - 1, TAIL, TAIL + 1, TAIL + 2 * SUM - 1])
    def test_a_tail_may_be_all_that_there_is(self, faulty: FaultyStore, size: int) -> None:
        faulty.rest()
        faulty.direct.put(KEY, Body.of(sample(size)))
        before = len(faulty.requests)
        assert read(faulty.store, KEY, Tail(TAIL)) == sample(size)[-TAIL:]
        # Some refuse a range that is longer than the object, which is looked at then.
        assert sum(seen.answer_bytes for seen in faulty.requests[before:] if seen.status != REFUSED) <= size

    @pytest.mark.parametrize("at", [0, MIB + SUM, -1 - TAIL - SUM])
    @pytest.mark.parametrize("size", [2 * MIB + 100 + TAIL, 6 * MIB + 100 + TAIL], ids=["plain", "framed"])
    def test_a_flipped_byte_before_the_tail_shows_in_a_whole_read_only(
        self, faulty: FaultyStore, size: int, at: int
    ) -> None:
        faulty.rest()
        data = sample(size)
        faulty.direct.put(KEY, Body.of(data))
        flip_stored_byte(faulty.server.client(), faulty.bucket, at)
        assert read(faulty.store, KEY, Tail(TAIL)) == data[-TAIL:]
        with pytest.raises(IntegrityFailed):
            read(faulty.store, KEY)

    @pytest.mark.parametrize("fault", [ResetAfter(10), ResetAfter(TAIL - 50), Truncate(30)], ids=str)
    @pytest.mark.parametrize("size", [TAIL + 2 * SUM, 6 * MIB + 100])
    def test_a_tail_that_breaks_off_is_asked_for_again(self, faulty: FaultyStore, size: int, fault: Fault) -> None:
        faulty.rest()
        faulty.direct.put(KEY, Body.of(sample(size)))
        before = len(faulty.requests)
        faulty.proxy.fail(fault, when=gets)
        assert read(faulty.store, KEY, Tail(TAIL)) == sample(size)[-TAIL:]
        requests = [seen for seen in faulty.requests[before:] if is_callers(seen)]
        assert len(requests) == 2
        assert all(seen.answer_bytes <= TAIL + 2 * SUM for seen in requests)
        faulty.check_settled()

    def test_a_tail_is_never_of_two_objects(self, faulty: FaultyStore) -> None:
        faulty.rest()
        size = 6 * MIB + 100
        faulty.direct.put(KEY, Body.of(sample(size)))
        faulty.proxy.fail(ResetAfter(TAIL - 50), when=gets, times=FOREVER)
        with faulty.store.get(KEY, Tail(TAIL)) as reader:
            faulty.direct.put(KEY, Body.of(sample(size, seed=1)))
            faulty.proxy.heal()
            with pytest.raises(ConcurrentModification):
                list(reader)
        faulty.rest()

    def test_what_ends_early_without_an_error_is_asked_for_again(self, faulty: FaultyStore) -> None:
        faulty.rest()
        data = sample(MIB)
        faulty.direct.put(KEY, Body.of(data))
        store, path = faulty.store, KEY.text
        cut = Request("get", "GET", path, headers={"Range": f"bytes={MIB - TAIL}-{MIB - 100}"})
        begun = store._requests.open(cut), MIB - TAIL
        extent = Extent(MIB - TAIL, TAIL)
        with S3TailReader(store._requests, path, store._heads.get(KEY), extent, begun) as reader:
            assert [chunk.data for chunk in reader] == [data[-TAIL:]]

    def test_what_ends_early_each_time_is_damage(self, faulty: FaultyStore) -> None:
        faulty.rest()
        faulty.direct.put(KEY, Body.of(sample(MIB - 10)))
        store = faulty.store
        found = store._heads.get(KEY)
        too_large = replace(found, info=replace(found.info, size_bytes=MIB))
        with (
            S3TailReader(store._requests, KEY.text, too_large, Extent(MIB - TAIL, TAIL)) as reader,
            pytest.raises(IntegrityFailed, match="ends within its bytes"),
        ):
            list(reader)

    def test_a_range_is_verified_as_ever(self, faulty: FaultyStore) -> None:
        faulty.rest()
        data = sample(MIB)
        faulty.direct.put(KEY, Body.of(data))
        flip_stored_byte(faulty.server.client(), faulty.bucket, 0)
        with pytest.raises(IntegrityFailed):
            read(faulty.store, KEY, ByteRange(MIB - TAIL))
