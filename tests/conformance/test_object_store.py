"""What every `ObjectStore` promises, run on each of them."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import google_crc32c
import pytest
from prometheus_client import CollectorRegistry

from holdfast_server import calls
from holdfast_server.errors import (
    AlreadyExists,
    BrokenUpload,
    Cancelled,
    ConditionUnsupported,
    HoldfastError,
    InvalidArgument,
    PreconditionFailed,
    RangeNotSatisfiable,
    Reason,
)
from holdfast_server.objects.base import (
    CommonPrefix,
    ConditionMode,
    Entry,
    ListQuery,
    NamedByContent,
    ObjectNotFound,
    ObjectReader,
    ObjectStore,
)
from holdfast_server.objects.body import PIECE_BYTES, Body, Chunk, Declared
from holdfast_server.objects.conditions import CreateOnly, IfMatch
from holdfast_server.objects.filesystem import FilesystemStore
from holdfast_server.objects.info import Attributes
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.measured import MeasuredStore, ObjectMetrics
from holdfast_server.objects.memory import MemoryStore
from holdfast_server.objects.ranges import MAX_TAIL_BYTES, ByteRange, Suffix, Tail
from tests.support.infos import alike
from tests.support.s3_stores import OpenedStore
from tests.support.samples import sample

KEY = ObjectKey("a/key")
OTHER = ObjectKey("another")
ROUNDED = timedelta(seconds=2)
"""S3 tells times to the second."""


@pytest.fixture(scope="module")
def s3_stores() -> Iterator[dict[str, OpenedStore]]:
    """A store on each S3 server that a test has asked for: each is probed once."""
    stores: dict[str, OpenedStore] = {}
    yield stores
    for opened in stores.values():
        opened.close()


@pytest.fixture(params=["memory", "filesystem", "measured", "moto", "minio"])
def store(request: pytest.FixtureRequest, tmp_path: Path, s3_stores: dict[str, OpenedStore]) -> Iterator[ObjectStore]:
    made: ObjectStore
    if request.param in {"moto", "minio"}:
        if request.param not in s3_stores:
            s3_stores[request.param] = OpenedStore(request.getfixturevalue(request.param))
            s3_stores[request.param].empty()  # of the marker that opening it leaves
        yield s3_stores[request.param].store
        s3_stores[request.param].empty()
        return
    if request.param == "filesystem":
        made = FilesystemStore(tmp_path / "objects")
    elif request.param == "measured":
        made = MeasuredStore(MemoryStore(), ObjectMetrics(CollectorRegistry()))
    else:
        made = MemoryStore()
    yield made
    made.close()


def put(store: ObjectStore, key: str, data: bytes = b"") -> None:
    store.put(ObjectKey(key), Body.of(data))


def read(reader: ObjectReader) -> bytes:
    with reader:
        return b"".join(chunk.data for chunk in reader)


def names(store: ObjectStore, **query: object) -> list[str]:
    return [item.name for item in store.list(ListQuery(**query))]  # type: ignore[arg-type]


def deletion_refused(store: ObjectStore) -> pytest.RaisesExc[HoldfastError]:
    """Expect a deletion whose condition does not hold to be refused: as that, or because none can be kept."""
    is_unsupported = store.describe().conditions.delete is ConditionMode.UNSUPPORTED
    return pytest.raises(ConditionUnsupported if is_unsupported else PreconditionFailed)


def broken_body() -> Body:
    def parts() -> Iterator[Chunk]:
        yield Chunk(sample(PIECE_BYTES))
        yield Chunk(b"more")
        raise BrokenUpload(Reason.UPLOAD_INCOMPLETE, "size_bytes", "cut off")

    return Body(parts())


class TestPutAndGet:
    @pytest.mark.parametrize(
        "size", [0, 1, 4096, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES, 5 * PIECE_BYTES + 17]
    )
    def test_what_is_put_is_what_is_read(self, store: ObjectStore, size: int) -> None:
        data = sample(size)
        store.put(KEY, Body.of(data))
        assert read(store.get(KEY)) == data

    @pytest.mark.parametrize("step", [1000, 65536, 300_000, 2 * PIECE_BYTES])
    def test_the_size_of_chunks_makes_no_difference(self, store: ObjectStore, step: int) -> None:
        data = sample(3 * PIECE_BYTES + 5)
        chunks = [Chunk(data[at : at + step]) for at in range(0, len(data), step)]
        info = store.put(KEY, Body([*chunks, Declared()]))
        assert info.sha256 == store.put(OTHER, Body.of(data)).sha256
        assert read(store.get(KEY)) == data

    def test_chunks_read_are_at_most_1_mib_and_none_is_empty(self, store: ObjectStore) -> None:
        store.put(KEY, Body.of(sample(3 * PIECE_BYTES + 5)))
        with store.get(KEY, ByteRange(10)) as reader:
            assert {0 < len(chunk.data) <= PIECE_BYTES for chunk in reader} == {True}

    def test_nul_bytes_come_back(self, store: ObjectStore) -> None:
        store.put(KEY, Body.of(b"\0a\0\0b\n\r\0"))
        assert read(store.get(KEY)) == b"\0a\0\0b\n\r\0"

    def test_an_overwrite_wins_and_changes_the_etag(self, store: ObjectStore) -> None:
        first = store.put(KEY, Body.of(b"first, and longer"))
        second = store.put(KEY, Body.of(b"second"))
        assert read(store.get(KEY)) == b"second"
        assert first.etag != second.etag
        assert alike(store.stat(KEY), second)

    def test_the_info_is_the_same_from_put_stat_and_get(self, store: ObjectStore) -> None:
        attributes = Attributes("text/plain", {"who": "mé", "empty": ""})
        info = store.put(KEY, Body.of(b"data"), attributes=attributes)
        assert alike(store.stat(KEY), info)
        with store.get(KEY) as reader:
            assert alike(reader.info, info)
        assert info.attributes == attributes
        assert info.size_bytes == 4
        assert abs(info.update_time - datetime.now(UTC)) < timedelta(minutes=5)

    def test_a_reader_goes_on_with_what_it_opened(self, store: ObjectStore) -> None:
        data = sample(3 * PIECE_BYTES)
        store.put(KEY, Body.of(data))
        with store.get(KEY) as reader:
            chunks = iter(reader)
            got = next(chunks).data
            store.put(KEY, Body.of(b"new"))
            got += b"".join(chunk.data for chunk in chunks)
        assert got == data
        with store.get(KEY) as reader:
            store.delete(KEY)
            assert b"".join(chunk.data for chunk in reader) == b"new"

    def test_a_reader_may_be_closed_early_and_twice(self, store: ObjectStore) -> None:
        store.put(KEY, Body.of(sample(2 * PIECE_BYTES)))
        reader = store.get(KEY)
        next(iter(reader))
        reader.close()
        reader.close()

    def test_a_missing_key_is_not_found_by_get_and_stat(self, store: ObjectStore) -> None:
        for read_it in (store.get, store.stat):
            with pytest.raises(ObjectNotFound) as missing:
                read_it(KEY)
            assert missing.value.key == KEY

    def test_a_name_can_be_made_from_the_content(self, store: ObjectStore) -> None:
        info = store.put(NamedByContent(lambda sha256: ObjectKey(f"by/{sha256.hex()}")), Body.of(b"hello world"))
        assert info.key.text == f"by/{info.sha256.hex()}"
        assert read(store.get(info.key)) == b"hello world"

    def test_ten_concurrent_puts_and_gets_do_not_mix(self, store: ObjectStore) -> None:
        def work(number: int) -> bool:
            key = ObjectKey(f"many/{number}")
            data = sample(PIECE_BYTES + number, seed=number)
            store.put(key, Body.of(data))
            return read(store.get(key)) == data

        with ThreadPoolExecutor(10) as pool:
            assert all(pool.map(work, range(10)))


class TestBrokenPuts:
    def test_a_broken_body_leaves_nothing(self, store: ObjectStore) -> None:
        with pytest.raises(BrokenUpload, match="cut off"):
            store.put(KEY, broken_body())
        assert names(store) == []
        with pytest.raises(ObjectNotFound):
            store.stat(KEY)

    def test_a_broken_overwrite_leaves_the_old_object(self, store: ObjectStore) -> None:
        old = store.put(KEY, Body.of(b"old"))
        with pytest.raises(BrokenUpload):
            store.put(KEY, broken_body())
        assert alike(store.stat(KEY), old)
        assert read(store.get(KEY)) == b"old"

    def test_a_body_interrupted_by_the_process_leaves_nothing(self, store: ObjectStore) -> None:
        def parts() -> Iterator[Chunk]:
            yield Chunk(sample(2 * PIECE_BYTES))
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            store.put(KEY, Body(parts()))
        assert names(store) == []

    @pytest.mark.parametrize("declared", [3, 5])
    def test_a_size_that_was_not_declared_stores_nothing(self, store: ObjectStore, declared: int) -> None:
        with pytest.raises(BrokenUpload):
            store.put(KEY, Body([Chunk(b"data"), Declared()], Declared(declared)))
        assert names(store) == []

    def test_a_digest_that_was_not_declared_stores_nothing(self, store: ObjectStore) -> None:
        with pytest.raises(BrokenUpload) as refused:
            store.put(KEY, Body([Chunk(b"data"), Declared(sha256=bytes(32))]))
        assert refused.value.reason is Reason.CHECKSUM_MISMATCH
        assert names(store) == []


class TestRanges:
    DATA = sample(3 * PIECE_BYTES + 100)

    @pytest.fixture(autouse=True)
    def _stored(self, store: ObjectStore) -> None:
        store.put(KEY, Body.of(self.DATA))
        store.put(ObjectKey("empty"), Body.of(b""))
        store.put(ObjectKey("short"), Body.of(b"0123456789abcdefghij"))

    @pytest.mark.parametrize(
        ("offset", "length"),
        [
            (0, 1),
            (0, PIECE_BYTES),
            (PIECE_BYTES - 1, 2),
            (PIECE_BYTES, PIECE_BYTES),
            (1, 3 * PIECE_BYTES),
            (3 * PIECE_BYTES + 99, 1),
            (2 * PIECE_BYTES + 7, None),
        ],
    )
    def test_a_range_has_just_its_bytes(self, store: ObjectStore, offset: int, length: int | None) -> None:
        with store.get(KEY, ByteRange(offset, length)) as reader:
            got = b"".join(chunk.data for chunk in reader)
            assert (reader.extent.offset, reader.extent.length) == (offset, len(got))
            assert reader.info.size_bytes == len(self.DATA)
        assert got == self.DATA[offset : None if length is None else offset + length]

    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            (ByteRange(10), b"abcdefghij"),
            (ByteRange(10, 10), b"abcdefghij"),
            (ByteRange(0, 5), b"01234"),
            (ByteRange(19, 1), b"j"),
            (ByteRange(19, 100), b"j"),
            (ByteRange(0, 20, exact=True), b"0123456789abcdefghij"),
            (Suffix(1), b"j"),
            (Suffix(20), b"0123456789abcdefghij"),
            (Suffix(1000), b"0123456789abcdefghij"),
        ],
    )
    def test_short_ranges(self, store: ObjectStore, wanted: ByteRange | Suffix, expected: bytes) -> None:
        assert read(store.get(ObjectKey("short"), wanted)) == expected

    @pytest.mark.parametrize(
        "wanted",
        [ByteRange(20), ByteRange(20, 1), ByteRange(1000), ByteRange(19, 2, exact=True), Suffix(21, exact=True)],
    )
    def test_a_range_outside_is_refused_with_the_size(self, store: ObjectStore, wanted: ByteRange | Suffix) -> None:
        with pytest.raises(RangeNotSatisfiable) as refused:
            store.get(ObjectKey("short"), wanted)
        assert refused.value.details["size_bytes"] == "20"

    @pytest.mark.parametrize("wanted", [ByteRange(), ByteRange(0, 5), Suffix(5)])
    def test_an_empty_object_answers_from_its_start(self, store: ObjectStore, wanted: ByteRange | Suffix) -> None:
        assert read(store.get(ObjectKey("empty"), wanted)) == b""

    @pytest.mark.parametrize("wanted", [ByteRange(1), ByteRange(0, 1, exact=True), Suffix(1, exact=True)])
    def test_an_empty_object_has_no_byte(self, store: ObjectStore, wanted: ByteRange | Suffix) -> None:
        with pytest.raises(RangeNotSatisfiable):
            store.get(ObjectKey("empty"), wanted)


class TestTails:
    TAIL = 4096
    SIZES = (
        *(0, 1, TAIL - 1, TAIL, TAIL + 1),
        *(PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, PIECE_BYTES + TAIL - 1, PIECE_BYTES + TAIL),
        # On S3 larger ones have sums behind each piece, the short last one included.
        *(5 * PIECE_BYTES, 5 * PIECE_BYTES + 1, 5 * PIECE_BYTES + TAIL, 6 * PIECE_BYTES - 1, 6 * PIECE_BYTES),
    )

    @pytest.mark.parametrize("size", SIZES)
    def test_a_tail_is_the_end_of_what_was_put_in_one_chunk(self, store: ObjectStore, size: int) -> None:
        data = sample(size)
        info = store.put(KEY, Body.of(data))
        for length in (1, self.TAIL, MAX_TAIL_BYTES):
            with store.get(KEY, Tail(length)) as reader:
                chunks = list(reader)
                assert alike(reader.info, info)
            expected = data[-length:]
            assert [chunk.data for chunk in chunks] == ([expected] if expected else [])
            assert all(chunk.crc32c in {None, google_crc32c.value(expected)} for chunk in chunks)
            assert (reader.extent.offset, reader.extent.length) == (size - len(expected), len(expected))

    def test_the_tail_of_a_missing_key_is_not_found(self, store: ObjectStore) -> None:
        with pytest.raises(ObjectNotFound):
            store.get(KEY, Tail(self.TAIL))

    def test_a_tail_can_be_pinned(self, store: ObjectStore) -> None:
        old = store.put(KEY, Body.of(sample(self.TAIL)))
        new = store.put(KEY, Body.of(b"new"))
        assert read(store.get(KEY, Tail(2), condition=IfMatch(new.etag))) == b"ew"
        with pytest.raises(PreconditionFailed):
            store.get(KEY, Tail(2), condition=IfMatch(old.etag))

    def test_a_tail_is_of_what_was_opened_whatever_comes_meanwhile(self, store: ObjectStore) -> None:
        store.put(KEY, Body.of(sample(self.TAIL)))
        with store.get(KEY, Tail(10)) as reader:
            store.put(KEY, Body.of(b"new"))
            assert b"".join(chunk.data for chunk in reader) == sample(self.TAIL)[-10:]

    @pytest.mark.parametrize("length", [0, -1, MAX_TAIL_BYTES + 1])
    def test_a_tail_has_a_length_that_can_be_held(self, length: int) -> None:
        with pytest.raises(ValueError, match=f"length {length} is not from 1 to {MAX_TAIL_BYTES}"):
            Tail(length)


class TestNow:
    def test_what_was_put_just_now_has_the_time_that_it_is(self, store: ObjectStore) -> None:
        for _ in range(2):
            before = store.now()
            info = store.put(KEY, Body.of(b"data"))
            after = store.now()
            assert before.tzinfo is not None
            assert after.tzinfo is not None
            for told in (info.update_time, store.stat(KEY).update_time):
                assert before - ROUNDED < told < after + ROUNDED


class TestConditions:
    def test_create_only_creates(self, store: ObjectStore) -> None:
        store.put(KEY, Body.of(b"x"), condition=CreateOnly())
        assert read(store.get(KEY)) == b"x"

    def test_create_only_refuses_what_is_there_and_tells_what_it_is(self, store: ObjectStore) -> None:
        there = store.put(KEY, Body.of(b"x"))
        with pytest.raises(AlreadyExists) as refused:
            store.put(KEY, Body.of(b"y"), condition=CreateOnly())
        assert refused.value.details == there.identity()
        assert read(store.get(KEY)) == b"x"

    def test_create_only_does_not_read_all_of_the_body_of_a_put_that_must_fail(self, store: ObjectStore) -> None:
        put(store, KEY.text)

        def parts() -> Iterator[Chunk]:
            for _ in range(32):
                yield Chunk(sample(PIECE_BYTES))
            raise AssertionError("the body was read")

        with pytest.raises(AlreadyExists):
            store.put(KEY, Body(parts()), condition=CreateOnly())

    def test_a_key_created_during_the_upload_is_found_at_its_end(self, store: ObjectStore) -> None:
        def parts() -> Iterator[Chunk | Declared]:
            yield Chunk(b"late")
            put(store, KEY.text, b"early")
            yield Declared()

        with pytest.raises(AlreadyExists):
            store.put(KEY, Body(parts()), condition=CreateOnly())
        assert read(store.get(KEY)) == b"early"

    def test_if_match_replaces_what_it_names(self, store: ObjectStore) -> None:
        there = store.put(KEY, Body.of(b"x"))
        store.put(KEY, Body.of(b"y"), condition=IfMatch(there.etag))
        assert read(store.get(KEY)) == b"y"

    def test_if_match_refuses_another_etag_and_tells_what_is_there(self, store: ObjectStore) -> None:
        old = store.put(KEY, Body.of(b"x"))
        there = store.put(KEY, Body.of(b"z"))
        with pytest.raises(PreconditionFailed) as refused:
            store.put(KEY, Body.of(b"y"), condition=IfMatch(old.etag))
        assert refused.value.details == there.identity()
        with deletion_refused(store):
            store.delete(KEY, condition=IfMatch(old.etag))
        with pytest.raises(PreconditionFailed):
            store.get(KEY, condition=IfMatch(old.etag))
        assert alike(store.stat(KEY), there)

    def test_if_match_on_a_missing_key_fails_put_and_delete_and_is_not_found_by_get(self, store: ObjectStore) -> None:
        with pytest.raises(PreconditionFailed):
            store.put(KEY, Body.of(b"y"), condition=IfMatch("gone"))
        with deletion_refused(store):
            store.delete(KEY, condition=IfMatch("gone"))
        with pytest.raises(ObjectNotFound):
            store.get(KEY, condition=IfMatch("gone"))

    def test_of_eight_create_only_writers_one_wins(self, store: ObjectStore) -> None:
        start = threading.Barrier(8)

        def write(number: int) -> bool:
            start.wait()
            try:
                store.put(KEY, Body.of(b"%d" % number), condition=CreateOnly())
            except AlreadyExists:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(write, range(8)))
        assert won.count(True) == 1
        assert read(store.get(KEY)) == b"%d" % won.index(True)

    def test_a_counter_by_compare_and_set_loses_no_step(self, store: ObjectStore) -> None:
        put(store, KEY.text, b"0")

        def count() -> None:
            done = 0
            while done < 10:
                with store.get(KEY) as reader:
                    now = int(b"".join(chunk.data for chunk in reader))
                    etag = reader.info.etag
                try:
                    store.put(KEY, Body.of(b"%d" % (now + 1)), condition=IfMatch(etag))
                except PreconditionFailed:
                    continue
                done += 1

        with ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(count) for _ in range(4)]:
                future.result()
        assert read(store.get(KEY)) == b"40"


class TestDelete:
    def test_delete_removes_and_says_so(self, store: ObjectStore) -> None:
        put(store, KEY.text)
        assert store.delete(KEY) is True
        assert names(store) == []
        with pytest.raises(ObjectNotFound):
            store.stat(KEY)

    def test_delete_of_a_missing_key_is_no_error(self, store: ObjectStore) -> None:
        assert store.delete(KEY) is False
        put(store, KEY.text)
        store.delete(KEY)
        assert store.delete(KEY) is False

    def test_delete_with_the_right_etag(self, store: ObjectStore) -> None:
        info = store.put(KEY, Body.of(b""))
        if store.describe().conditions.delete is ConditionMode.UNSUPPORTED:
            with deletion_refused(store):
                store.delete(KEY, condition=IfMatch(info.etag))
            assert alike(store.stat(KEY), info)
        else:
            assert store.delete(KEY, condition=IfMatch(info.etag)) is True

    def test_delete_takes_only_its_key(self, store: ObjectStore) -> None:
        for key in ("a", "a/b", "a/b/c", "ab"):
            put(store, key)
        store.delete(ObjectKey("a/b"))
        assert names(store) == (["a", "a/b/c", "ab"] if store.describe().nested_keys else ["a", "ab"])
        store.delete(ObjectKey("a"))
        assert names(store) == ["a/b/c", "ab"]


class TestKeys:
    @pytest.mark.parametrize(
        "key",
        [
            "plain",
            "with.dots.and-dashes_",
            ".hidden",
            "...",
            "a/.b/c.",
            "trailing.f",
            "trailing.d",
            "x.d/y.f",
            ".f",
            "sp ace/ lead",
            "ünïcödé/ключ/鍵",
            "emoji/🎲🎲",
            "back\\slash/co:lon/st*r/qu?stion/\"quotes'/%2e%2e/~tilde",
            "store.lock/CON/nul",
            "s" * 200,
            "/".join(["é" * 100] * 4),
            "/".join("x" * 450),
        ],
    )
    def test_a_key_comes_back_as_it_was(self, store: ObjectStore, key: str) -> None:
        put(store, key, key.encode())
        assert names(store) == [key]
        assert names(store, prefix=key[:1]) == [key]
        assert read(store.get(ObjectKey(key))) == key.encode()
        assert store.delete(ObjectKey(key)) is True
        assert names(store) == []

    def test_a_key_and_keys_below_it_live_side_by_side(self, store: ObjectStore) -> None:
        for key in ("a", "a/b", "a/b/c"):
            put(store, key, key.encode())
        assert [read(store.get(ObjectKey(key))) for key in ("a", "a/b", "a/b/c")] == [b"a", b"a/b", b"a/b/c"]

    def test_keys_that_differ_in_case_or_normal_form_are_different(self, store: ObjectStore) -> None:
        for key in ("Key", "key", "e\u0301", "\u00e9"):
            put(store, key, key.encode())
        for key in ("Key", "key", "e\u0301", "\u00e9"):
            assert read(store.get(ObjectKey(key))) == key.encode()


class TestLists:
    KEYS = ("a", "a!", "a/b", "a/b/c", "a/c", "a0", "b/x/1", "b/x/2", "b/y", "c", "é", "😀")
    PARENTS = ("a", "a/b")
    """Keys with others below them, which some S3 stores hide from lists."""

    @pytest.fixture(autouse=True)
    def _stored(self, store: ObjectStore) -> None:
        self.keys = tuple(key for key in self.KEYS if store.describe().nested_keys or key not in self.PARENTS)
        for key in reversed(self.keys):
            put(store, key, key.encode())

    def shown(self, expected: list[str]) -> list[str]:
        return [name for name in expected if name in self.keys or name not in self.PARENTS]

    def test_everything_in_byte_order(self, store: ObjectStore) -> None:
        assert names(store) == sorted(self.keys, key=str.encode)

    def test_entries_show_what_stat_shows(self, store: ObjectStore) -> None:
        for item in store.list(ListQuery()):
            assert isinstance(item, Entry)
            assert item.record is not None
            info = store.stat(ObjectKey(item.name))
            assert (item.record.size_bytes, item.record.etag, item.record.update_time) == (
                info.size_bytes,
                info.etag,
                info.update_time,
            )

    @pytest.mark.parametrize(
        ("prefix", "expected"),
        [
            ("a", ["a", "a!", "a/b", "a/b/c", "a/c", "a0"]),
            ("a/", ["a/b", "a/b/c", "a/c"]),
            ("a/b", ["a/b", "a/b/c"]),
            ("b/x", ["b/x/1", "b/x/2"]),
            ("b/x/2", ["b/x/2"]),
            ("z", []),
            ("a/b/c/d", []),
            ("😀", ["😀"]),
            ("/", []),
        ],
    )
    def test_a_prefix_is_a_string_not_a_path(self, store: ObjectStore, prefix: str, expected: list[str]) -> None:
        assert names(store, prefix=prefix) == self.shown(expected)

    def test_after_any_position_comes_the_rest(self, store: ObjectStore) -> None:
        for after in (*self.KEYS, "A", "a/", "a/b/", "a/bb", "b", "b/", "b/x", "zz", "\U0010ffff"):
            if after.endswith("/"):
                expected = [key for key in sorted(self.keys) if key > after and not key.startswith(after)]
            else:
                expected = [key for key in sorted(self.keys) if key > after]
            assert names(store, after=after) == expected, after

    @pytest.mark.parametrize(
        ("prefix", "expected"),
        [
            ("", ["a", "a!", "a/", "a0", "b/", "c", "é", "😀"]),
            ("a", ["a", "a!", "a/", "a0"]),
            ("a/", ["a/b", "a/b/", "a/c"]),
            ("b", ["b/"]),
            ("b/", ["b/x/", "b/y"]),
        ],
    )
    def test_a_delimiter_rolls_up(self, store: ObjectStore, prefix: str, expected: list[str]) -> None:
        items = list(store.list(ListQuery(prefix, delimiter=True)))
        assert [item.name for item in items] == self.shown(expected)
        assert all(isinstance(item, CommonPrefix) == item.name.endswith("/") for item in items)

    def test_an_emptied_prefix_is_not_listed(self, store: ObjectStore) -> None:
        for key in ("b/x/1", "b/x/2", "b/y"):
            store.delete(ObjectKey(key))
        assert "b/" not in names(store, delimiter=True)

    def test_skipped_prefixes_are_passed_over(self, store: ObjectStore) -> None:
        assert names(store, skip=frozenset({"a/", "b/"})) == self.shown(["a", "a!", "a0", "c", "é", "😀"])
        assert names(store, skip=frozenset({"a/"}), delimiter=True, prefix="a") == self.shown(["a", "a!", "a0"])

    def test_a_list_can_go_on_from_any_item(self, store: ObjectStore) -> None:
        for query in (ListQuery(), ListQuery("a"), ListQuery(delimiter=True), ListQuery("b/", delimiter=True)):
            whole = [item.name for item in store.list(query)]
            for at, name in enumerate(whole):
                rest = ListQuery(query.prefix, name, query.delimiter)
                assert [item.name for item in store.list(rest)] == whole[at + 1 :]

    def test_a_list_may_be_left_early(self, store: ObjectStore) -> None:
        found = store.list(ListQuery())
        next(found)
        del found
        assert len(names(store)) == len(self.keys)


class TestStatMany:
    def test_it_tells_of_each_what_stat_tells(self, store: ObjectStore) -> None:
        put(store, KEY.text, b"data")
        put(store, OTHER.text, b"other")
        missing = ObjectKey("missing")
        found = store.stat_many([OTHER, missing, KEY, OTHER])
        assert found == [store.stat(OTHER), None, store.stat(KEY), store.stat(OTHER)]
        assert store.stat_many([]) == []

    def test_it_ends_with_its_caller(self, store: ObjectStore) -> None:
        with calls.working_for(calls.Call(is_active=lambda: False)), pytest.raises(Cancelled):
            store.stat_many([KEY])


class TestCopy:
    @pytest.mark.parametrize("size", [0, 5, 2 * PIECE_BYTES + 3])
    def test_a_copy_has_the_bytes_and_attributes(self, store: ObjectStore, size: int) -> None:
        attributes = Attributes("a/b", {"k": "v"})
        source = store.put(KEY, Body.of(sample(size)), attributes=attributes)
        copy = store.copy(KEY, OTHER)
        assert read(store.get(OTHER)) == sample(size)
        assert (copy.sha256, copy.size_bytes, copy.attributes) == (source.sha256, size, attributes)
        assert alike(store.stat(OTHER), copy)

    def test_a_copy_lives_on_without_its_source(self, store: ObjectStore) -> None:
        put(store, KEY.text, b"data")
        store.copy(KEY, OTHER)
        store.put(KEY, Body.of(b"changed"))
        assert read(store.get(OTHER)) == b"data"
        store.delete(KEY)
        assert read(store.get(OTHER)) == b"data"

    def test_attributes_can_be_replaced_also_onto_itself(self, store: ObjectStore) -> None:
        put(store, KEY.text, b"data")
        store.copy(KEY, KEY, attributes=Attributes("new/type"))
        assert store.stat(KEY).attributes.content_type == "new/type"
        assert read(store.get(KEY)) == b"data"

    def test_the_condition_is_on_the_target(self, store: ObjectStore) -> None:
        put(store, KEY.text, b"data")
        there = store.put(OTHER, Body.of(b"there"))
        with pytest.raises(AlreadyExists):
            store.copy(KEY, OTHER, condition=CreateOnly())
        with pytest.raises(PreconditionFailed):
            store.copy(KEY, OTHER, condition=IfMatch("wrong"))
        store.copy(KEY, OTHER, condition=IfMatch(there.etag))
        assert read(store.get(OTHER)) == b"data"

    def test_a_missing_source_is_not_found(self, store: ObjectStore) -> None:
        with pytest.raises(ObjectNotFound):
            store.copy(KEY, OTHER)
        with pytest.raises(ObjectNotFound):
            store.copy(KEY, OTHER, source_condition=IfMatch("any"))
        assert names(store) == []

    def test_the_source_can_be_pinned(self, store: ObjectStore) -> None:
        old = store.put(KEY, Body.of(b"old"))
        new = store.put(KEY, Body.of(b"new"))
        with pytest.raises(PreconditionFailed) as refused:
            store.copy(KEY, OTHER, source_condition=IfMatch(old.etag))
        assert refused.value.details["key"] == KEY.text
        assert names(store) == [KEY.text]
        store.copy(KEY, OTHER, condition=CreateOnly(), source_condition=IfMatch(new.etag))
        assert read(store.get(OTHER)) == b"new"


def test_no_key_that_leads_out_can_be_made() -> None:
    for text in (
        "..",
        "../x",
        "a/../b",
        "a/..",
        "/a",
        "a/",
        "a//b",
        ".",
        "a/./b",
        "",
        "a\0b",
        "a\nb",
        "a\x7f",
        "a\x85b",
    ):
        with pytest.raises(InvalidArgument) as refused:
            ObjectKey(text)
        assert refused.value.reason is Reason.INVALID_KEY


def test_a_filesystem_store_survives_being_reopened(tmp_path: Path) -> None:
    root = tmp_path / "objects"
    first = FilesystemStore(root)
    data = sample(2 * PIECE_BYTES + 9)
    info = first.put(KEY, Body.of(data), attributes=Attributes("a/b", {"k": "ü"}))
    first.close()
    second = FilesystemStore(root)
    assert second.stat(KEY) == info
    assert read(second.get(KEY)) == data
    second.close()


def test_nothing_is_written_outside_the_root(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path / "objects")
    for text in ("~/x", "$HOME", "a\\..\\b", "%2e%2e/x", "...", ". ./x"):
        put(store, text)
    store.close()
    assert [path.name for path in tmp_path.iterdir()] == ["objects"]


def test_errors_of_stores_are_all_of_one_family() -> None:
    assert issubclass(InvalidArgument, HoldfastError)
    assert not issubclass(ObjectNotFound, HoldfastError)
