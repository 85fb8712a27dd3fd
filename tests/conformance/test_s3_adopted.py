"""Objects in the bucket that others wrote: read as they are under the prefix that is adopted, and damage elsewhere."""

import hashlib
import io
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

import pytest

from holdfast_server.errors import (
    AlreadyExists,
    ConditionUnsupported,
    IntegrityFailed,
    PreconditionFailed,
    RangeNotSatisfiable,
)
from holdfast_server.objects.base import ConditionMode, Entry, ListQuery, ObjectNotFound
from holdfast_server.objects.body import Body
from holdfast_server.objects.conditions import CreateOnly, IfMatch
from holdfast_server.objects.info import Attributes
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.ranges import ByteRange, Range, Suffix, Tail
from holdfast_server.objects.s3.store import S3Store
from tests.support.disk_operations import read
from tests.support.fault_proxy import FaultProxy, ResetAfter, Seen
from tests.support.s3_servers import S3Server
from tests.support.s3_stores import OpenedStore
from tests.support.samples import MIB, sample

ADOPTED = "old/"
KEY = ObjectKey("old/room")
ELSEWHERE = ObjectKey("new/room")
FRAME = MIB + 4
SIZES = [0, 1, MIB, MIB + 7, 5 * MIB, 5 * MIB + 3, 7 * MIB, 5 * FRAME + 5]
"""The last ones would have sums, had we written them."""

LARGE = 7 * MIB + 10


class Bucket:
    """A store that adopts, one that does not, and a way past both."""

    def __init__(self, server: S3Server, adopting: OpenedStore, plain: S3Store, proxy: FaultProxy) -> None:
        self.store = adopting.store
        self.plain = plain
        self.proxy = proxy
        self._client = server.client()
        self._name = adopting.bucket
        self._empty = adopting.empty

    def lay(
        self,
        data: bytes,
        key: ObjectKey = KEY,
        *,
        content_type: str = "application/x-room",
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """Write an object as others do, and return its etag."""
        written = self._client.put_object(
            self._name, key.text, io.BytesIO(data), len(data), content_type, metadata=dict(metadata or {})
        )
        assert written.etag is not None
        return written.etag

    def metadata(self, key: ObjectKey = KEY) -> dict[str, str]:
        """Return the user metadata that an object has."""
        headers = self._client.stat_object(self._name, key.text).metadata or {}
        own = {name.lower(): value for name, value in headers.items()}
        return {name: value for name, value in own.items() if name.startswith("x-amz-meta-")}

    def stored(self, key: ObjectKey = KEY) -> bytes:
        """Return the bytes that lie under a key."""
        answer = self._client.get_object(self._name, key.text)
        try:
            return answer.read()
        finally:
            answer.close()
            answer.release_conn()

    def empty(self) -> None:
        """Delete all objects."""
        self.proxy.heal()
        self._empty()


@pytest.fixture(scope="module", params=["moto", "minio"])
def opened(request: pytest.FixtureRequest) -> Iterator[Bucket]:
    """A bucket on each server."""
    server: S3Server = request.getfixturevalue(request.param)
    with (
        FaultProxy(server.endpoint) as proxy,
        OpenedStore(server, endpoint=proxy.endpoint, adopt_prefix=ADOPTED) as adopting,
        OpenedStore(server, bucket=adopting.bucket) as plain,
    ):
        yield Bucket(server, adopting, plain.store, proxy)


@pytest.fixture
def bucket(opened: Bucket) -> Bucket:
    """The bucket, empty."""
    opened.empty()
    return opened


class TestReading:
    @pytest.mark.parametrize("size", SIZES)
    def test_what_others_wrote_is_read_as_it_is(self, bucket: Bucket, size: int) -> None:
        bucket.lay(sample(size))
        with bucket.store.get(KEY) as reader:
            chunks = list(reader)
        assert b"".join(chunk.data for chunk in chunks) == sample(size)
        assert all(0 < len(chunk.data) <= MIB and chunk.crc32c is None for chunk in chunks)
        assert reader.info == bucket.store.stat(KEY)

    def test_it_tells_what_is_known_of_it(self, bucket: Bucket) -> None:
        etag = bucket.lay(b"data", metadata={"Room": "x", "Epoch": "7"})
        info = bucket.store.stat(KEY)
        assert (info.key, info.size_bytes, info.etag) == (KEY, 4, etag)
        assert info.sha256 == b""
        assert info.attributes == Attributes("application/x-room")
        assert abs(info.update_time - datetime.now(UTC)) < timedelta(minutes=5)

    def test_a_content_type_that_we_would_not_take_is_none(self, bucket: Bucket) -> None:
        bucket.lay(b"data", content_type="x" * 300)
        assert bucket.store.stat(KEY).attributes == Attributes()

    @pytest.mark.parametrize(
        "wanted",
        [
            ByteRange(3, 4),
            ByteRange(MIB - 1, 2),
            ByteRange(5 * MIB - 1, 2),
            ByteRange(5 * MIB, 1),
            ByteRange(5 * MIB + 1),
            ByteRange(6 * MIB + 2, MIB),
            ByteRange(LARGE - 1, 1),
            Suffix(1),
            Suffix(3 * MIB + 1),
            Suffix(LARGE),
            Tail(1),
            Tail(4096),
        ],
    )
    def test_a_range_of_a_large_one_has_just_its_bytes(self, bucket: Bucket, wanted: Range) -> None:
        bucket.lay(sample(LARGE))
        extent = wanted.of(LARGE)
        assert read(bucket.store, KEY, wanted) == sample(LARGE)[extent.offset : extent.offset + extent.length]

    def test_a_range_that_only_what_we_write_would_not_have_is_had(self, bucket: Bucket) -> None:
        data = sample(5 * MIB + 10)  # our pieces would begin behind its end
        bucket.lay(data)
        assert read(bucket.store, KEY, ByteRange(5 * MIB + 9)) == data[-1:]
        with pytest.raises(RangeNotSatisfiable):
            bucket.store.get(KEY, ByteRange(5 * MIB + 10))

    def test_a_download_that_breaks_off_goes_on(self, bucket: Bucket) -> None:
        bucket.lay(sample(LARGE))
        bucket.proxy.fail(ResetAfter(2 * MIB + 100), when=gets)
        assert read(bucket.store, KEY) == sample(LARGE)
        bucket.proxy.fail(ResetAfter(100), when=gets)
        assert read(bucket.store, KEY, ByteRange(5 * MIB + 1)) == sample(LARGE)[5 * MIB + 1 :]

    def test_what_is_asked_for_again_ends_with_the_last_piece_of_the_range(self, bucket: Bucket) -> None:
        bucket.lay(sample(LARGE))
        bucket.proxy.fail(ResetAfter(100), when=gets)
        assert read(bucket.store, KEY, ByteRange(10, 2 * MIB)) == sample(LARGE)[10:][: 2 * MIB]
        last = [seen for seen in bucket.proxy.requests if gets(seen)][-1]  # others look after the bucket
        assert last.headers["range"] == f"bytes=10-{3 * MIB - 1}"

    def test_a_read_can_be_pinned(self, bucket: Bucket) -> None:
        etag = bucket.lay(b"old")
        assert bucket.store.get(KEY, condition=IfMatch(etag)).info.etag == etag
        bucket.lay(b"new")
        with pytest.raises(PreconditionFailed):
            bucket.store.get(KEY, condition=IfMatch(etag))

    @pytest.mark.parametrize("size", SIZES)
    def test_a_list_shows_what_stat_shows(self, bucket: Bucket, size: int) -> None:
        bucket.lay(sample(size))
        ours = ObjectKey("old/ours")
        bucket.store.put(ours, Body.of(sample(size)))
        for key, item in zip((ours, KEY), bucket.store.list(ListQuery(ADOPTED)), strict=True):
            info = bucket.store.stat(key)
            assert isinstance(item, Entry)
            assert item.name == key.text
            assert item.record is not None
            assert (item.record.size_bytes, item.record.etag) == (size, info.etag)
            assert item.record.update_time == info.update_time


class TestWriting:
    def test_if_match_replaces_it_by_one_of_ours(self, bucket: Bucket) -> None:
        etag = bucket.lay(b"old")
        bucket.store.put(KEY, Body.of(b"new"), condition=IfMatch(etag))
        assert read(bucket.store, KEY) == b"new"
        assert bucket.plain.stat(KEY).sha256 == hashlib.sha256(b"new").digest()

    def test_if_match_on_another_one_is_refused(self, bucket: Bucket) -> None:
        etag = bucket.lay(b"old")
        there = bucket.lay(b"newer")
        with pytest.raises(PreconditionFailed) as refused:
            bucket.store.put(KEY, Body.of(b"new"), condition=IfMatch(etag))
        assert refused.value.details["etag"] == there
        assert read(bucket.store, KEY) == b"newer"

    def test_create_only_finds_it(self, bucket: Bucket) -> None:
        bucket.lay(b"old")
        with pytest.raises(AlreadyExists):
            bucket.store.put(KEY, Body.of(b"new"), condition=CreateOnly())
        assert read(bucket.store, KEY) == b"old"

    def test_it_can_be_deleted(self, bucket: Bucket) -> None:
        etag = bucket.lay(b"old")
        if bucket.store.describe().conditions.delete is ConditionMode.UNSUPPORTED:
            with pytest.raises(ConditionUnsupported):
                bucket.store.delete(KEY, condition=IfMatch(etag))
            assert bucket.store.delete(KEY) is True
        else:
            with pytest.raises(PreconditionFailed):
                bucket.store.delete(KEY, condition=IfMatch("other"))
            assert bucket.store.delete(KEY, condition=IfMatch(etag)) is True
        with pytest.raises(ObjectNotFound):
            bucket.store.stat(KEY)

    @pytest.mark.parametrize("size", [0, 10, LARGE])
    def test_a_copy_of_it_is_one_of_ours(self, bucket: Bucket, size: int) -> None:
        bucket.lay(sample(size))
        info = bucket.store.copy(KEY, ELSEWHERE)
        assert info.sha256 == hashlib.sha256(sample(size)).digest()
        assert info.attributes == Attributes("application/x-room")
        assert bucket.plain.stat(ELSEWHERE).sha256 == info.sha256
        assert read(bucket.plain, ELSEWHERE) == sample(size)


class TestDamage:
    def test_elsewhere_it_is_damage(self, bucket: Bucket) -> None:
        bucket.lay(b"data", ELSEWHERE)
        check_is_damaged(bucket.store, ELSEWHERE)

    def test_so_it_is_to_a_store_that_adopts_nothing(self, bucket: Bucket) -> None:
        bucket.lay(b"data")
        check_is_damaged(bucket.plain, KEY)

    @pytest.mark.parametrize("lost", ["format", "sha256", "check", "crc32c", "write"])
    def test_what_we_wrote_and_lost_a_part_of_stays_damaged(self, bucket: Bucket, lost: str) -> None:
        bucket.store.put(KEY, Body.of(b"data"))
        metadata = bucket.metadata()
        del metadata[f"x-amz-meta-holdfast-{lost}"]
        bucket.lay(b"data", metadata=metadata)
        check_is_damaged(bucket.store, KEY)

    @pytest.mark.parametrize("size", [10, 6 * MIB])
    def test_what_we_wrote_is_verified_as_ever(self, bucket: Bucket, size: int) -> None:
        bucket.store.put(KEY, Body.of(sample(size)))
        assert read(bucket.store, KEY) == sample(size)
        assert len(bucket.store.stat(KEY).sha256) == 32
        data = bytearray(bucket.stored())
        data[0] ^= 1
        bucket.lay(bytes(data), metadata=bucket.metadata(), content_type="")
        with pytest.raises(IntegrityFailed):
            read(bucket.store, KEY)


def gets(request: Seen) -> bool:
    return request.method == "GET" and request.path.endswith(f"/{KEY}")


def check_is_damaged(store: S3Store, key: ObjectKey) -> None:
    for look in (store.stat, store.get, lambda key: store.get(key, Tail(2))):
        with pytest.raises(IntegrityFailed):
            look(key)
