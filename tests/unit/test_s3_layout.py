"""How objects lie in a bucket: what is written down of it in `docs/formats.md`, and that all of it comes back."""

import hashlib
import itertools
import re
import string
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from holdfast_server.errors import IntegrityFailed, InvalidArgument, RangeNotSatisfiable, Unavailable
from holdfast_server.objects.base import NO_ATTRIBUTES
from holdfast_server.objects.body import Body
from holdfast_server.objects.info import MAX_METADATA_BYTES, Attributes
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.ranges import ByteRange, Range, Suffix, Whole
from holdfast_server.objects.reading import pieces_touched
from holdfast_server.objects.s3 import layout, record
from tests.support.s3_stores import OpenedStore
from tests.support.samples import MIB, sample

FORMATS = Path(__file__).parents[2] / "docs" / "formats.md"
KEY = ObjectKey("a/key")
FRAME = MIB + 4
PLAIN = 5 * MIB
GIB = 1 << 30
TIB = 1 << 40
MOST_PARTS = 10_000
MOST_METADATA_ON_S3 = 2048
USER_METADATA = "x-amz-meta-"
WRITE_ID = "f" * 16
SEED = bytes.fromhex("01020304")
ANSWERED = {"etag": '"0123456789abcdef"', "last-modified": "Fri, 20 Nov 2026 16:00:00 GMT"}

edges = st.builds(
    lambda base, near: max(base + near, 0),
    st.sampled_from([0, MIB, 4 * MIB, PLAIN, 5 * FRAME, 6 * MIB, 6 * FRAME, 1000 * MIB, 1000 * FRAME]),
    st.integers(-25, 25),
)
sizes = edges | st.integers(0, 8 * TIB)
lengths = st.integers(1, 25) | st.integers(MIB - 25, MIB + 25) | st.integers(1, 8 * TIB)
byte_ranges = st.builds(ByteRange, edges | st.integers(0, 8 * TIB) | st.just(1 << 62), st.none() | lengths)
ranges = st.just(Whole()) | st.builds(Suffix, lengths | st.just(1 << 62)) | byte_ranges

keys = st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=64)
values = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
characters = st.characters(min_codepoint=0x20, max_codepoint=0x7E)
content_types = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=255)
any_metadata = st.dictionaries(keys, values, max_size=8)


CHECKS = [
    # holdfast-crc32c:c99465aa\nholdfast-format:1\nholdfast-metadata:a=%C3%BC&b\nholdfast-sha256:b94d...\n
    # holdfast-write:0123456789abcdef\ntext/plain;charset=utf-8
    (Attributes("Text/plain; charset=utf-8", {"a": "ü", "b": ""}), "dbb5b959"),
    # holdfast-crc32c:c99465aa\nholdfast-format:1\nholdfast-sha256:b94d...\nholdfast-type:none\n
    # holdfast-write:0123456789abcdef\n
    (NO_ATTRIBUTES, "a7823a38"),
]
"""Attributes of `hello world`, and the check: worked out by hand, a bit at a time, from docs/formats.md."""


def stored_size(size: int) -> int:
    """Return what docs/formats.md says."""
    return size if size <= PLAIN else size + 4 * -(-size // MIB)


def stored_pieces(size: int) -> list[range]:
    """Return where each piece of an object is stored, with its CRC-32C if that follows it."""
    step, more = (MIB, 0) if size <= PLAIN else (FRAME, 4)
    pieces = -(-size // MIB)
    return [range(n * step, n * step + min(MIB, size - n * MIB) + more) for n in range(pieces)]


def crcs_of(size: int) -> list[int] | None:
    return [number * 0x01234567 for number in range(-(-size // MIB))] if size <= PLAIN else None


def answered(headers: dict[str, str]) -> dict[str, str]:
    """Return headers as an answer has them."""
    return {name.lower(): value for name, value in headers.items()} | ANSWERED


def sha256_of(size: int) -> bytes:
    """Return a digest that may be that of so many bytes."""
    return bytes(range(32)) if size else hashlib.sha256().digest()


def written(size: int, attributes: Attributes = NO_ATTRIBUTES) -> dict[str, str]:
    larger: dict[str, Any] = {"seed": SEED, "size_bytes": size} if size > PLAIN else {}
    headers = record.headers_of(attributes, sha256_of(size), WRITE_ID, crcs=crcs_of(size), **larger)
    return answered(headers)


def user_metadata_bytes(headers: dict[str, str]) -> int:
    return sum(len(name) + len(value) for name, value in headers.items() if name.startswith(USER_METADATA))


def worst_metadata() -> dict[str, str]:
    """Return metadata of the size allowed with as many separators as can be: short names with shorter values."""
    alphabet = string.ascii_lowercase + string.digits + "-"
    names: Iterator[str] = itertools.chain(alphabet, map("".join, itertools.product(alphabet, repeat=2)))
    metadata: dict[str, str] = {}
    left = MAX_METADATA_BYTES
    while left:
        name = next(names)
        metadata[name] = "v" if left > len(name) else ""
        left -= len(name) + len(metadata[name])
    return metadata


@pytest.fixture(scope="module", params=["moto", "minio", "rclone"])
def opened(request: pytest.FixtureRequest) -> Iterator[OpenedStore]:
    """A store on each S3 server."""
    with OpenedStore(request.getfixturevalue(request.param)) as store:
        yield store


def put_and_fetch(opened: OpenedStore, data: bytes) -> bytes:
    """Put an object, and return what an ordinary client gets."""
    opened.store.put(KEY, Body.of(data))
    with opened.server.client().get_object(opened.bucket, KEY.text) as answer:
        return answer.read()


class TestSizes:
    @given(sizes)
    def test_the_stored_size_tells_the_size(self, size: int) -> None:
        assert layout.stored_size_of(size) == stored_size(size)
        assert layout.size_of(stored_size(size)) == size

    @pytest.mark.parametrize("middle", [0, PLAIN, 5 * FRAME, 6 * FRAME, 7 * FRAME, 1000 * FRAME])
    def test_each_stored_size_is_that_of_one_size_or_of_none(self, middle: int) -> None:
        near = range(max(middle - 30, 0), middle + 30)
        size_by_stored = {stored_size(size): size for size in range(max(near.start - 4100, 0), near.stop)}
        assert [layout.size_of(stored) for stored in near] == [size_by_stored.get(stored) for stored in near]

    @given(st.integers(0, 8 * TIB))
    def test_a_size_that_is_told_is_the_one(self, stored: int) -> None:
        size = layout.size_of(stored)
        assert size is None or stored_size(size) == stored

    @given(st.integers(1, 7 * MIB + 1))
    def test_pieces_are_stored_without_gaps(self, size: int) -> None:
        places = [layout.piece_at(number, size) for number in range(-(-size // MIB))]
        assert [range(place.offset, place.offset + place.length) for place in places] == stored_pieces(size)
        assert places[-1].offset + places[-1].length == stored_size(size)


class TestHeaders:
    @given(any_metadata, content_types, sizes)
    @example({"k": "&=%+ \0\r\n\U0010ffff", "empty": ""}, "text/plain; charset=utf-8", 0)
    def test_what_is_written_is_read(self, metadata: dict[str, str], content_type: str, size: int) -> None:
        try:
            attributes = Attributes(content_type, metadata)
        except InvalidArgument:  # too much of it
            attributes = NO_ATTRIBUTES
        headers = written(size, attributes)
        assert all(value.isascii() and value.isprintable() for value in headers.values())
        stored = record.read_headers(KEY, headers, stored_size(size))
        assert stored.info.attributes == attributes
        assert (stored.info.size_bytes, stored.info.sha256) == (size, sha256_of(size))
        assert (stored.info.etag, stored.write_id) == ("0123456789abcdef", WRITE_ID)
        assert stored.info.update_time == datetime(2026, 11, 20, 16, tzinfo=UTC)
        assert (None if stored.crcs is None else list(stored.crcs)) == crcs_of(size)
        assert stored.seed == (b"" if size <= PLAIN else SEED)

    def test_the_most_metadata_is_what_the_documentation_says_and_fits(self) -> None:
        attributes = Attributes(metadata=worst_metadata())
        most = max(user_metadata_bytes(written(size, attributes)) for size in (PLAIN, MOST_PARTS * 5 * GIB))
        assert most <= MOST_METADATA_ON_S3
        assert f"at most {most:,} bytes of the 2,048" in FORMATS.read_text()

    def test_the_write_id_is_as_long_as_that(self) -> None:
        assert re.fullmatch("[0-9a-f]{16}", record.new_write_id())
        assert len({record.new_write_id() for _ in range(100)}) == 100

    @pytest.mark.parametrize("opened", ["moto", "minio"], indirect=True)  # rclone takes 2,000 bytes, and not 2,048
    @pytest.mark.parametrize("content_type", ["", "x" * 255])
    def test_the_most_metadata_is_taken_by_stores(self, opened: OpenedStore, content_type: str) -> None:
        attributes = Attributes(content_type, worst_metadata())
        for size in (PLAIN, PLAIN + 1):
            opened.store.put(KEY, Body.of(sample(size)), attributes=attributes)
            assert opened.store.stat(KEY).attributes == attributes

    @pytest.mark.parametrize("size", [0, 3 * MIB, PLAIN + 1])
    @pytest.mark.parametrize(
        ("name", "value", "said"),
        [
            ("x-amz-meta-holdfast-format", None, "not written by Holdfast"),
            ("x-amz-meta-holdfast-format", "2", "has format '2', and this server knows 1"),
            ("x-amz-meta-holdfast-format", "", "has format ''"),
            ("x-amz-meta-holdfast-sha256", None, "not as Holdfast wrote it"),
            ("x-amz-meta-holdfast-sha256", "ab" * 31, "not as Holdfast wrote it"),
            ("x-amz-meta-holdfast-sha256", "AB" * 32, "not as Holdfast wrote it"),
            ("x-amz-meta-holdfast-sha256", "ab" * 32 + "\n", "not as Holdfast wrote it"),
            ("x-amz-meta-holdfast-metadata", "UPPER=1", "its metadata"),
            ("x-amz-meta-holdfast-metadata", "k=" + "v" * MAX_METADATA_BYTES, "its metadata"),
            ("content-type", "\xe9", "its metadata"),
            ("etag", None, "not as Holdfast wrote it"),
            ("last-modified", None, "not as Holdfast wrote it"),
            ("last-modified", "Fri, 40 Nov 2026 16:00:00 GMT", "not as Holdfast wrote it"),
        ],
    )
    def test_what_is_foreign_newer_or_damaged_is_told(self, size: int, name: str, value: str | None, said: str) -> None:
        headers = written(size, Attributes("text/plain"))
        headers.pop(name, None)
        if value is not None:
            headers[name] = value
        with pytest.raises(IntegrityFailed, match=said):
            record.read_headers(KEY, headers, stored_size(size))

    def test_bytes_that_were_lost_are_told(self) -> None:
        with pytest.raises(IntegrityFailed, match="is empty, and was not"):
            record.read_headers(KEY, written(PLAIN + 1), 0)
        for size in (6 * MIB, 7 * MIB + 1):
            with pytest.raises(IntegrityFailed, match="has another size"):
                record.read_headers(KEY, written(size), stored_size(7 * MIB))

    @pytest.mark.parametrize("size", [3 * MIB, PLAIN + 1])
    @given(st.data())
    def test_no_character_can_become_another(self, size: int, data: st.DataObject) -> None:
        headers = written(size, Attributes("text/plain; charset=utf-8", {"key": "value", "empty": ""}))
        name = data.draw(st.sampled_from(sorted(name for name in headers if name not in ANSWERED)))
        at = data.draw(st.integers(0, len(headers[name]) - 1))
        changed = headers[name][:at] + data.draw(characters) + headers[name][at + 1 :]
        if name == "content-type":  # which stores may write with other spaces, and in another case
            assume(changed.replace(" ", "").lower() != headers[name].replace(" ", "").lower())
        assume(changed != headers[name])
        headers[name] = changed
        with pytest.raises(IntegrityFailed):
            record.read_headers(KEY, headers, stored_size(size))

    @pytest.mark.parametrize("size", [3 * MIB, PLAIN + 1])
    def test_no_entry_can_be_lost_or_another(self, size: int) -> None:
        headers = written(size, Attributes(metadata={"k": "v"}))
        ours = sorted(name for name in headers if name not in ANSWERED)
        assert len(ours) == 7 + (size > PLAIN)
        for name in ours:
            with pytest.raises(IntegrityFailed):
                record.read_headers(KEY, {one: headers[one] for one in headers if one != name}, stored_size(size))
        for changed in ({"x-amz-meta-holdfast-more": "1"}, {"x-amz-meta-holdfast-metadata": "k=w"}):
            with pytest.raises(IntegrityFailed, match="not what Holdfast wrote with it"):
                record.read_headers(KEY, headers | changed, stored_size(size))
        headers = written(size, Attributes("text/plain")) | {"content-type": "text/html"}
        with pytest.raises(IntegrityFailed, match="not what Holdfast wrote with it"):
            record.read_headers(KEY, headers, stored_size(size))

    @pytest.mark.parametrize("told", ["text/html;charset=utf-8", "text/html;  Charset=UTF-8"])
    def test_a_store_may_write_a_content_type_in_its_own_way(self, told: str) -> None:
        headers = written(3 * MIB, Attributes("text/html; charset=utf-8")) | {"content-type": told}
        assert record.read_headers(KEY, headers, 3 * MIB).info.attributes.content_type == told

    def test_what_a_store_or_another_tool_adds_is_passed_over(self) -> None:
        more = {"x-amz-meta-mtime": "1", "x-amz-version-id": "2", "content-type": "binary/octet-stream"}
        assert record.read_headers(KEY, written(3 * MIB) | more, 3 * MIB).info.attributes == NO_ATTRIBUTES

    @pytest.mark.parametrize("case", CHECKS, ids=lambda case: case[0].content_type)
    def test_the_check_is_as_the_documentation_says(self, case: tuple[Attributes, str]) -> None:
        attributes, check = case
        sha256 = hashlib.sha256(b"hello world").digest()
        headers = record.headers_of(attributes, sha256, "0123456789abcdef", crcs=[0xC99465AA])
        assert headers["x-amz-meta-holdfast-check"] == check

    @pytest.mark.parametrize("length", [None, "", "-1", "many"])
    def test_a_length_that_is_not_told_is_not_guessed(self, length: str | None) -> None:
        with pytest.raises(Unavailable, match="how long"):
            record.length_of({} if length is None else {"content-length": length})
        assert record.length_of({"content-length": "17"}) == 17

    @pytest.mark.parametrize("crcs", [None, "", "0" * 23, "0" * 25, "0" * 16, "G" * 24, "A" * 24])
    def test_wrong_checksums_of_an_object_as_it_is_are_told(self, crcs: str | None) -> None:
        headers = written(3 * MIB)
        del headers["x-amz-meta-holdfast-crc32c"]
        if crcs is not None:
            headers["x-amz-meta-holdfast-crc32c"] = crcs
        with pytest.raises(IntegrityFailed, match="not the checksums"):
            record.read_headers(KEY, headers, 3 * MIB)

    @pytest.mark.parametrize("seed", [None, "", "0102030", "010203040", "0102030G", "0A0B0C0D", "01020304\n"])
    def test_a_wrong_seed_of_a_larger_object_is_told(self, seed: str | None) -> None:
        headers = written(PLAIN + 1)
        del headers["x-amz-meta-holdfast-seed"]
        if seed is not None:
            headers["x-amz-meta-holdfast-seed"] = seed
        with pytest.raises(IntegrityFailed, match="not the seed"):
            record.read_headers(KEY, headers, stored_size(PLAIN + 1))

    @pytest.mark.parametrize("stored", [PLAIN + 1, 6 * FRAME + 1, 6 * FRAME + 4])
    def test_a_size_that_nothing_has_is_told(self, stored: int) -> None:
        with pytest.raises(IntegrityFailed, match="not as Holdfast wrote it"):
            record.read_headers(KEY, written(PLAIN + 1), stored)

    @given(st.sampled_from(sorted(written(3 * MIB, Attributes("a/b", {"k": "v"})))), st.text(max_size=100))
    def test_no_header_can_do_worse(self, name: str, value: str) -> None:
        headers = written(3 * MIB, Attributes("a/b", {"k": "v"})) | {name: value}
        with suppress(IntegrityFailed):
            record.read_headers(KEY, headers, 3 * MIB)


CHECK_CRC = 0xE3069283
"""CRC-32C of `123456789`, the check value that catalogues of CRCs give."""

SUMS = {0: "ede031a9", 5: "1d64875d", 256: "2c17403e"}
"""What stands behind that piece by its number, with SEED: worked out by hand, a bit at a time, from docs/formats.md."""


class TestFrames:
    def test_behind_a_piece_is_its_sum(self) -> None:
        pieces = 257
        stored = b"".join(layout.framed([b"123456789"] * pieces, [CHECK_CRC] * pieces, SEED))
        for number, expected in SUMS.items():
            assert stored[13 * number :][:13] == b"123456789" + bytes.fromhex(expected)

    @pytest.mark.parametrize("number", SUMS)
    def test_a_piece_has_its_crc32c_at_its_place_and_no_other(self, number: int) -> None:
        frame = b"123456789" + bytes.fromhex(SUMS[number])
        assert layout.split_frame(frame, number, SEED) == (b"123456789", CHECK_CRC)
        others = [layout.split_frame(frame, other, SEED)[1] for other in range(5000) if other != number]
        others += [layout.split_frame(frame, number, bytes([1, 2, 3, last]))[1] for last in range(256) if last != 4]
        assert CHECK_CRC not in others

    @pytest.mark.parametrize("size", range(5))
    def test_what_is_too_short_is_no_piece(self, size: int) -> None:
        assert layout.split_frame(bytes(size), 0, SEED) == (b"", 0)

    def test_no_two_objects_have_the_same_seed(self) -> None:
        seeds = {layout.new_seed() for _ in range(100)}
        assert {len(seed) for seed in seeds} == {4}
        assert len(seeds) == 100


class TestRanges:
    @given(sizes.filter(bool), ranges)
    @example(PLAIN + 1, ByteRange(0, 1))
    @example(PLAIN + 1, Suffix(1))
    @example(8 * TIB - 1, Suffix(8 * TIB - 1))
    def test_the_range_asked_for_has_all_pieces_touched_and_little_else(self, size: int, wanted: Range) -> None:
        try:
            extent = wanted.of(size)
        except RangeNotSatisfiable:
            return
        touched = [
            layout.piece_at(number, size) for number in pieces_touched(extent)[:: len(pieces_touched(extent)) - 1 or 1]
        ]
        start, end = touched[0].offset, touched[-1].offset + touched[-1].length
        asked = _positions(layout.range_header(wanted), stored_size(size))
        assert asked.start <= start
        assert asked.stop >= end
        # Before the size is known it is not known either which way the pieces lie: some bytes either way, or a piece.
        more = 2 * FRAME if isinstance(wanted, Suffix) else 4 * 5 + 4 * 4
        assert len(asked) <= end - start + more
        exactly = _positions(layout.range_header_of(extent, size), stored_size(size))
        assert exactly == range(start, end)

    @given(ranges)
    def test_no_number_is_beyond_what_stores_can_read(self, wanted: Range) -> None:
        assert all(int(number) < 1 << 63 for number in re.findall(r"\d+", layout.range_header(wanted) or ""))


def _positions(header: str | None, size: int) -> range:
    """Return the bytes that a store of RFC 9110 gives of a representation with this many."""
    if header is None:
        return range(size)
    parts = re.fullmatch(r"bytes=(\d*)-(\d*)", header)
    assert parts is not None
    first, last = parts.groups()
    if not first:
        return range(max(size - int(last), 0), size)
    assert int(first) < size, "not satisfiable"
    return range(int(first), min(int(last) + 1, size) if last else size)


class TestDocumentation:
    def test_the_lines_in_the_documentation_read_a_larger_object(self, opened: OpenedStore) -> None:
        data = sample(6 * MIB + 17)
        stored = put_and_fetch(opened, data)
        assert len(stored) == len(data) + 4 * 7
        found = re.search(r"## A bucket\n.*?```python\n(.*?)```", FORMATS.read_text(), re.DOTALL)
        assert found is not None
        read = subprocess.run([sys.executable, "-c", found[1]], input=stored, capture_output=True, check=True)
        assert read.stdout == data

    def test_behind_each_piece_of_a_larger_object_is_its_sum(self, opened: OpenedStore) -> None:
        stored = put_and_fetch(opened, sample(PLAIN + 1))
        headers = opened.server.client().stat_object(opened.bucket, KEY.text).metadata or {}
        seed = bytes.fromhex(headers["x-amz-meta-holdfast-seed"])
        for number, place in enumerate(stored_pieces(PLAIN + 1)):
            piece, found = stored[place.start : place.stop - 4], stored[place.stop - 4 : place.stop]
            place_crc = google_crc32c.value(bytes([number, 0, 0, 0, 0, 0, 0, 0]) + seed)
            assert int.from_bytes(found, "little") == google_crc32c.value(piece) ^ place_crc

    def test_the_sum_in_the_documentation_is_that(self) -> None:
        assert f"`{bytes.fromhex(SUMS[5]).hex(' ')}`" in FORMATS.read_text()

    def test_the_check_in_the_documentation_is_that(self) -> None:
        found = re.search(r"\n\n((?:    holdfast-.*\n)+)\nand the check `([0-9a-f]{8})`", FORMATS.read_text())
        assert found is not None
        text = textwrap.dedent(found[1])
        assert f"{google_crc32c.value(text.encode()):08x}" == found[2]
        assert (NO_ATTRIBUTES, found[2]) in CHECKS

    def test_a_copy_of_a_larger_object_is_read(self, opened: OpenedStore) -> None:
        opened.store.put(KEY, Body.of(sample(PLAIN + 1)))
        other = ObjectKey("another/key")
        opened.store.copy(KEY, other, attributes=Attributes("text/plain", {"k": "v"}))
        with opened.store.get(other) as reader:
            chunks = list(reader)
        assert b"".join(chunk.data for chunk in chunks) == sample(PLAIN + 1)
        assert [chunk.crc32c for chunk in chunks] == [google_crc32c.value(chunk.data) for chunk in chunks]

    @pytest.mark.parametrize("size", [0, 1, MIB + 1, PLAIN])
    def test_a_small_object_is_there_byte_for_byte(self, opened: OpenedStore, size: int) -> None:
        data = sample(size)
        assert put_and_fetch(opened, data) == data

    def test_the_metadata_is_what_the_documentation_names(self, opened: OpenedStore) -> None:
        names = set(re.findall(r"^\| `holdfast-([a-z0-9-]+)` \|", FORMATS.read_text(), re.MULTILINE))
        there: set[str] = set()
        for size in (1, PLAIN + 1):
            opened.store.put(KEY, Body.of(sample(size)), attributes=Attributes(metadata={"k": "v"}))
            headers = opened.server.client().stat_object(opened.bucket, KEY.text).metadata or {}
            there |= {name.lower() for name in headers}
        prefix = "x-amz-meta-holdfast-"
        assert {name.removeprefix(prefix) for name in there if name.startswith(prefix)} == names


class TestLengths:
    @pytest.mark.parametrize("length", [None, "", "-1", "1.0", "many"])
    def test_a_length_that_is_not_said_is_not_guessed(self, length: str | None) -> None:
        with pytest.raises(Unavailable, match="how long"):
            record.length_of({} if length is None else {"content-length": length})

    def test_a_larger_object_that_was_cut_between_its_pieces_is_damaged(self) -> None:
        size = 12 * MIB
        headers = answered(record.headers_of(NO_ATTRIBUTES, bytes(range(32)), WRITE_ID, seed=SEED, size_bytes=size))
        assert record.read_headers(KEY, headers, stored_size(size)).info.size_bytes == size
        for pieces in (1, 5, 6, 11):
            with pytest.raises(IntegrityFailed):
                record.read_headers(KEY, headers, pieces * FRAME)
