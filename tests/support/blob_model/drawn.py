"""What hypothesis may ask: names from a small alphabet, so that they meet, and now and then what breaks a rule."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from hypothesis import strategies as st

from tests.support.blob_model import rules
from tests.support.blob_model.asked import (
    Attributes,
    Content,
    Declared,
    Key,
    Name,
    Put,
    Range,
    Sample,
    There,
    Upload,
)

MIB = 1 << 20
T = TypeVar("T")

_SMALL = [Sample(11), Sample(0), Sample(1), Sample(11, seed=1), Sample(1000)]
_LARGE = [Sample(MIB), Sample(MIB + 1), Sample(2 * MIB + 1), Sample(6 * MIB + 5)]
"""Around the size of a piece, above that of a batch, and above that of a part on S3."""

_FULL = [Sample(MIB - 1), Sample(7 * MIB // 4), Sample(7 * MIB // 4 + 1)]
"""What a batch holds one or two of, just one, and none."""

_KEYS = [
    "a", "a/b", "a/b/c", "a!", "a0", "ab", "b", "b/c", "é/ü", "🎲", ".a", "a/...", "chunk", "snapshots!",
    "z" * 200, "/".join(["k" * 99] * 9),
]  # fmt: skip
_BAD_KEYS = [
    "", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", "a\nb", "a\0", "a\x9f", "x" * 201, "é" * 101,
    "a/" * 450 + "b", "chunks", "chunks/x", "holdfast/store", "snapshots/a/b",
]  # fmt: skip
_ETAGS = ["right", "wrong", "vanished", "empty"]


def _weighted(*parts: tuple[int, st.SearchStrategy[T]]) -> st.SearchStrategy[T]:
    """Draw from each so much more often; `one_of` takes one that it is given twice for one."""
    table = [strategy for weight, strategy in parts for _ in range(weight)]

    @st.composite
    def weighted(draw: st.DrawFn) -> T:  # its name is all that hypothesis shows of it, which is enough
        return draw(table[draw(st.integers(0, len(table) - 1))])

    return weighted()


def _mostly(good: Sequence[T], bad: Sequence[T], times: int) -> st.SearchStrategy[T]:
    """Draw each of the good so many times as often as each of the bad."""
    return _weighted((times * len(good), st.sampled_from(good)), (len(bad), st.sampled_from(bad)))


samples = _mostly(_SMALL, _LARGE, 8)
small_samples = _mostly(_SMALL, _FULL, 5)

_FAMILIES = [Content(), Content("c/", ".x", 1), Content("a/b/", "", 2), Content("c/", "", 3)]
_open_contents = st.sampled_from([*_FAMILIES[:1] * 4, *_FAMILIES])
CONTENTS = [replace(family, of=of) for family in _FAMILIES for of in (*_SMALL, Sample(MIB + 1))]
_contents = st.sampled_from(CONTENTS)
_bad_contents = st.sampled_from(
    [
        Content(layout=9, of=_SMALL[0]),
        Content(of=_SMALL[0], cut=True),
        Content("chunks/", of=_SMALL[0]),
        Content("a//", of=_SMALL[0]),
        Content("", "/", of=_SMALL[0]),
        Content("", ".x", 3, _SMALL[0]),
        Content("y" * 140, of=_SMALL[0]),
    ]
)
_content_keys = _contents.map(lambda content: Key(rules.key_of(content)))
_good_keys = st.sampled_from(_KEYS).map(Key)
_bad_names: st.SearchStrategy[Name] = st.one_of(st.sampled_from(_BAD_KEYS).map(Key), _bad_contents, st.none())
_there_by_key = st.builds(There, st.integers(0, 9))
_there = st.builds(There, st.integers(0, 9), st.sampled_from([False, False, True]))
names: st.SearchStrategy[Name | There] = _weighted(
    (9, _there), (2, _good_keys), (2, _contents), (1, _content_keys), (1, _bad_names)
)
new_names: st.SearchStrategy[Name | There] = _weighted(
    (7, _good_keys), (3, _open_contents), (2, _contents), (3, _there_by_key), (1, _content_keys), (1, _bad_names)
)

targets: st.SearchStrategy[Name | There] = _weighted((2, new_names), (1, _open_contents))
"""What is copied to."""

first_puts = st.lists(st.tuples(_weighted((3, _good_keys), (1, _open_contents)), st.sampled_from(_SMALL)), max_size=6)
"""What is there at the beginning."""

attributes = _mostly(
    [
        Attributes(),
        Attributes("text/plain", {"who": "mé", "empty": ""}),
        Attributes("x" * 255, {"a" * 64: "~" * 960}),
        Attributes("", {"n": "é%/ \n" * 10}),
    ],
    [
        Attributes("a\nb"), Attributes(" a"), Attributes("é"), Attributes("x" * 256), Attributes("", {"UPPER": ""}),
        Attributes("", {"": ""}), Attributes("", {"a" * 65: ""}), Attributes("", {"k": "x" * 1024}),
        Attributes("", {"k": "é" * 171}),
    ],
    30,
)  # fmt: skip

conditions = st.sampled_from([*[None] * 10, "create", "create", "no create", "right", "right", *_ETAGS])
"""`Condition`s whose etag is still to be found."""

etags = st.sampled_from([*[None] * 8, "right", "right", *_ETAGS])

_digests = _mostly([None, "right"], ["wrong", "short"], 3)
_crcs = _mostly([None, "right"], ["wrong"], 10)
_declared = st.builds(Declared, _mostly([None, 0], [1, -1, -(1 << 40)], 2), _digests)
_good_uploads = st.builds(
    Upload,
    st.sampled_from([MIB, 2 * MIB, 5]),
    st.sampled_from([None, "right"]),
    st.builds(Declared, st.sampled_from([None, 0]), st.sampled_from([None, "right"])),
    st.builds(Declared, st.sampled_from([None, 0]), st.sampled_from([None, "right"])),
)
_any_uploads = st.builds(Upload, st.sampled_from([MIB, 5]), _crcs, _declared, st.none() | _declared)
uploads = _weighted((5, _good_uploads), (1, _any_uploads))
item_uploads = st.builds(
    Upload, crc32c=_crcs, header=st.builds(Declared, st.none(), _mostly([None, "right"], ["wrong", "short"], 12))
)


def _put(name: Name | There, of: Sample, upload: Upload, said: Attributes, is_right: bool) -> tuple[Name | There, Put]:
    """Return a put with its name, which is not resolved yet; `is_right`: of the content that it says it is."""
    if isinstance(name, Content) and name.of is not None and is_right:
        name = replace(name, of=of)
    return name, Put(None, of, upload, said)


_are_right = st.sampled_from([True] * 9 + [False])
puts = st.builds(_put, new_names, samples, uploads, attributes, _are_right)
items = st.builds(_put, new_names, small_samples, item_uploads, attributes, _are_right)

_OFFSETS = [0, 1, 5, 10, 11, 12, 999, MIB - 1, MIB, MIB + 1, 2 * MIB, 5 * MIB - 1, (1 << 63) - 1]
_lengths = st.sampled_from([None, None, None, 1, 6, 11, 12, MIB, MIB + 2, (1 << 63) - 1])
_suffixes = st.sampled_from([1, 5, 11, 12, MIB, 1 << 62])
_odd = st.sampled_from([-1, 0, 1])
ranges = _weighted(
    (4, st.just(Range())),
    (4, st.builds(Range, st.sampled_from(_OFFSETS[:5]), _lengths, st.none(), st.booleans())),
    (4, st.builds(Range, st.sampled_from(_OFFSETS), _lengths, st.none(), st.booleans())),
    (3, st.builds(Range, st.just(0), st.none(), _suffixes, st.booleans())),
    (1, st.builds(Range, _odd, st.none() | _odd, st.none() | _odd, st.booleans())),
)

_PREFIXES = ["", "", "", "", "", "a", "a", "a/", "a/b", "b/", "c/", "é", "z", "chunk", "snapshots", "nothing"]
prefixes = _mostly(_PREFIXES, ["a\n", "p" * 901], 4)
_POSITIONS = ["", "", "", "", "", "", "a", "a!", "a/", "a/b", "a/b/", "b", "ab", "zz", "chunks/"]
positions = _mostly(_POSITIONS, ["\x7f", "p" * 901], 4)
delimiters = _mostly(["", "/"], ["-", "//"], 8)
page_sizes = _mostly([1, 1, 1, 2, 3, 5, 0, 10_000], [-1, 10_001], 6)


def few(of: st.SearchStrategy[T], most: int = 5) -> st.SearchStrategy[list[T]]:
    return st.lists(of, max_size=most)


_digests_of_small = st.sampled_from([Content(of=one) for one in _SMALL])
content_digests = _weighted((6, _digests_of_small), (1, st.sampled_from([Content(), Content(of=_SMALL[0], cut=True)])))
"""Digests to look for, as contents without prefix."""

wanted = st.tuples(
    _weighted((5, _good_keys), (1, _content_keys), (1, st.sampled_from(_BAD_KEYS).map(Key))),
    st.just(b"") | content_digests.map(lambda content: content.sha256),
)
"""Keys to look for, with a digest each; empty: any."""

_bad_families = _bad_contents.map(lambda bad: Content(bad.prefix, bad.suffix, bad.layout))
families = _weighted((6, _open_contents), (1, _bad_families), (1, _bad_contents))
"""What contents that are looked for have in common."""
