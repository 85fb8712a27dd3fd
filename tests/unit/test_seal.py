"""The sealed form, byte by byte: read by a parser written from its description, with tags made by hand.

The vectors are of fixed keys and salts: if one changes, what was sealed before cannot be read any more.
"""

import hashlib
import hmac
import struct
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_server.checkpoints import seal
from holdfast_server.checkpoints.key_ring import FixedKeys, KeyRing, KeyState, SealKey
from holdfast_server.checkpoints.seal import (
    Algorithm,
    Head,
    Measured,
    OtherPurpose,
    Purpose,
    SealBroken,
    SealedAs,
    Subject,
)
from holdfast_server.errors import SealKeyUnavailable, SealTooNew

NOW = datetime(2026, 11, 20, 3, 4, 5, 678901, UTC)
SECRET = bytes(range(32))
KEY = SealKey(bytes.fromhex("0123456789abcdef"), SECRET, KeyState.SIGNING, NOW)
OTHER_KEY = SealKey(bytes(8), bytes(32), KeyState.VERIFYING, NOW)
KEYS = FixedKeys(KeyRing((KEY, OTHER_KEY)))
SALT = bytes(range(100, 132))
ROOM = "duel/7"
VECTOR = "374bb5101f9c9bceabb81abe4590b837f765e1c45c74509e6ad00e413c1589e7"
"""SHA-256 of a whole sealed object."""
PURPOSES = {1: b"checkpoint", 2: b"pointer", 3: b"snapshot", 4: b"restored"}


def hkdf(secret: bytes, info: bytes, salt: bytes = b"") -> bytes:
    """HKDF-SHA256 of RFC 5869, one block of it."""
    extracted = hmac.new(salt or bytes(32), secret, "sha256").digest()
    return hmac.new(extracted, info + b"\x01", "sha256").digest()


def tag(purpose: int, use: bytes, data: bytes, secret: bytes = SECRET) -> bytes:
    return hmac.new(hkdf(secret, b"holdfast/v1/" + PURPOSES[purpose] + b"/" + use), data, "sha256").digest()


@dataclass
class Parsed:
    """What a footer says, and the tags in it."""

    fields: dict[str, Any]
    said: bytes
    seal: bytes
    footer: bytes
    end: bytes


def parsed(encoded: bytes) -> Parsed:
    head = ("magic", "version", "algorithm", "purpose", "segment_bytes", "key_id", "salt")
    fields: dict[str, Any] = dict(zip(head, struct.unpack_from("<8s H B B I 8s 32s", encoded, 0), strict=True))
    names = ("epoch", "time_us", "size", "stored", "digest", "room_bytes", "writer_bytes", "entries")
    fields |= zip(names, struct.unpack_from("<q q Q Q 32s H H H", encoded, 56), strict=True)
    at = 56 + 70

    def take(length: int) -> str:
        nonlocal at
        at += length
        return encoded[at - length : at].decode()

    fields["room"], fields["writer"], fields["metadata"] = take(fields["room_bytes"]), take(fields["writer_bytes"]), []
    for _ in range(fields["entries"]):
        name, value = struct.unpack_from("<B H", encoded, at)
        at += 3
        fields["metadata"].append((take(name), take(value)))
    assert at == len(encoded) - 32 - 32 - 4 - 8
    assert encoded[-8:] == b"HOLDSEND"
    assert struct.unpack("<I", encoded[-12:-8]) == (len(encoded),)
    return Parsed(fields, encoded[:at], encoded[at : at + 32], encoded[at + 32 : at + 64], encoded[-12:])


def sealed(
    payload: bytes = b"payload",
    *,
    purpose: Purpose = Purpose.CHECKPOINT,
    subject: Subject | None = None,
    algorithm: Algorithm = Algorithm.HMAC_SHA256,
    key: SealKey = KEY,
    stored: bytes | None = None,
) -> tuple[bytes, bytes]:
    """Return the head and the footer of what has this payload, with a fixed salt."""
    head = Head(algorithm, purpose, key.id, SALT)
    measured = Measured(len(payload), hashlib.sha256(payload).digest())
    at_rest = measured if stored is None else Measured(len(stored), hashlib.sha256(stored).digest())
    subject = subject or Subject(ROOM, 7, "node 1", {"who": "mé", "a": ""})
    return head.encode(), seal.seal(key, head, subject, NOW, payload=measured, stored=at_rest)[0]


def test_a_head_is_56_bytes_of_this_layout() -> None:
    head, _ = sealed()
    assert head == b"HOLDSEAL" + b"\x01\x00" + b"\x01" + b"\x01" + bytes(4) + KEY.id + SALT
    assert len(head) == 56
    encrypted, _ = sealed(algorithm=Algorithm.HMAC_SHA256_AES_256_GCM)
    assert encrypted[8:16] == b"\x01\x00" + b"\x02" + b"\x01" + b"\x00\x00\x10\x00"


@pytest.mark.parametrize("purpose", list(Purpose))
@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_a_footer_has_this_layout_and_these_tags(purpose: Purpose, algorithm: Algorithm) -> None:
    stored = b"at rest" if algorithm is Algorithm.HMAC_SHA256_AES_256_GCM else b"payload"
    head, footer = sealed(purpose=purpose, algorithm=algorithm, stored=stored)
    found = parsed(footer)
    time_us = (NOW - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert footer.startswith(head)
    assert found.fields == {
        "magic": b"HOLDSEAL",
        "version": 1,
        "algorithm": algorithm.value,
        "purpose": purpose.value,
        "segment_bytes": 0 if algorithm is Algorithm.HMAC_SHA256 else 1 << 20,
        "key_id": KEY.id,
        "salt": SALT,
        "epoch": 7,
        "time_us": time_us,
        "size": 7,
        "stored": 7,
        "digest": tag(purpose, b"digest", SALT + hashlib.sha256(b"payload").digest()),
        "room_bytes": 6,
        "writer_bytes": 6,
        "entries": 2,
        "room": ROOM,
        "writer": "node 1",
        "metadata": [("a", ""), ("who", "mé")],
    }
    assert found.seal == tag(purpose, b"seal", found.said + hashlib.sha256(stored).digest())
    assert found.footer == tag(purpose, b"footer", found.said + found.seal + found.end)


def test_what_was_sealed_before_can_be_read_for_ever() -> None:
    head, footer = sealed()
    assert hashlib.sha256(head + b"payload" + footer).hexdigest() == VECTOR
    assert footer[-76:-44] == tag(1, b"seal", footer[:-76] + hashlib.sha256(b"payload").digest())
    opened = seal.open_footer(footer, KEYS, SealedAs(Purpose.CHECKPOINT, ROOM, 7))
    assert opened.subject == Subject(ROOM, 7, "node 1", {"who": "mé", "a": ""})
    assert (opened.create_time, opened.size_bytes, opened.stored_bytes) == (NOW, 7, 7)
    assert opened.is_of(hashlib.sha256(b"payload").digest(), KEY)
    assert not opened.is_of(hashlib.sha256(b"other").digest(), KEY)


@settings(max_examples=100)
@given(
    room=st.text(min_size=1, max_size=100),
    epoch=st.integers(-1, (1 << 63) - 1),
    writer=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=128),
    metadata=st.dictionaries(st.text("abc-9", min_size=1, max_size=64), st.text(max_size=100), max_size=6),
    size=st.integers(0, 1 << 40),
)
def test_a_footer_says_what_was_sealed(room: str, epoch: int, writer: str, metadata: dict[str, str], size: int) -> None:
    try:
        room.encode()
    except UnicodeEncodeError:
        return
    subject = Subject(room, epoch, writer, metadata)
    head = Head(Algorithm.HMAC_SHA256, Purpose.SNAPSHOT, KEY.id, SALT)
    measured = Measured(size, bytes(32))
    encoded, told = seal.seal(KEY, head, subject, NOW, payload=measured, stored=measured)
    opened = seal.open_footer(b"before it" + encoded, KEYS, SealedAs(Purpose.SNAPSHOT, room, epoch))
    assert opened == told
    assert (opened.subject, opened.size_bytes) == (subject, size)
    assert dict(parsed(encoded).fields["metadata"]) == metadata


def test_the_largest_footer_fits_into_what_a_list_reads() -> None:
    # Percent-encoded, the entries take at most 1 KiB; the most bytes for that have the most entries.
    many = {f"{number:03}": "" for number in range(341)}
    one = {"k" * 64: "v" * 960}
    short = {chr(97 + number % 26) + (chr(97 + number // 26) if number >= 26 else ""): "" for number in range(499)}
    for metadata in (many, one, short):
        assert sum(len(name) + len(value) for name, value in metadata.items()) <= 1024
        subject = Subject("r" * 512, 1 << 62, "w" * 128, metadata)
        _, footer = sealed(subject=subject)
        assert len(footer) <= seal.MAX_FOOTER_BYTES == 4096
        assert seal.open_footer(footer, KEYS, SealedAs(Purpose.CHECKPOINT, "r" * 512, 1 << 62)).subject == subject


def test_every_bit_of_a_footer_counts() -> None:
    _, footer = sealed()
    expected = SealedAs(Purpose.CHECKPOINT, ROOM, 7)
    for position in range(len(footer) * 8):
        bad = bytearray(footer)
        bad[position // 8] ^= 1 << position % 8
        expected_error: type[Exception] = SealKeyUnavailable if 16 <= position // 8 < 24 else SealBroken
        if position // 8 in {8, 9} and position != 64:
            expected_error = SealTooNew
        with pytest.raises(expected_error):
            seal.open_footer(bytes(bad), KEYS, expected)


def test_a_footer_cut_anywhere_does_not_open() -> None:
    _, footer = sealed()
    for length in range(len(footer)):
        for part in (footer[:length], footer[len(footer) - length :]):
            with pytest.raises(SealBroken):
                seal.open_footer(part, KEYS, SealedAs(Purpose.CHECKPOINT, ROOM, 7))


def test_a_footer_is_of_one_room_epoch_and_purpose() -> None:
    _, footer = sealed()
    for other in (
        SealedAs(Purpose.CHECKPOINT, "duel/8", 7),
        SealedAs(Purpose.CHECKPOINT, ROOM, 8),
        SealedAs(Purpose.CHECKPOINT, ROOM, -1),
    ):
        with pytest.raises(SealBroken):
            seal.open_footer(footer, KEYS, other)
    with pytest.raises(OtherPurpose) as found:
        seal.open_footer(footer, KEYS, SealedAs(Purpose.SNAPSHOT, ROOM, 7))
    assert found.value.footer.head.purpose is Purpose.CHECKPOINT


def test_a_tag_of_another_purpose_or_key_does_not_verify() -> None:
    _, footer = sealed()
    said = parsed(footer).said
    for purpose, secret in ((1, bytes(32)), (2, SECRET), (3, SECRET), (4, SECRET)):
        forged = said + tag(purpose, b"seal", said + hashlib.sha256(b"payload").digest(), secret)
        forged += tag(purpose, b"footer", forged + footer[-12:], secret) + footer[-12:]
        assert len(forged) == len(footer)
        with pytest.raises(SealBroken):
            seal.open_footer(forged, KEYS, SealedAs(Purpose.CHECKPOINT, ROOM, 7))


def test_the_seal_is_over_what_is_stored() -> None:
    _, footer = sealed()
    opened = seal.open_footer(footer, KEYS, SealedAs(Purpose.CHECKPOINT, ROOM, 7))
    seal.verify(opened, footer, KEY, hashlib.sha256(b"payload").digest())
    with pytest.raises(SealBroken):
        seal.verify(opened, footer, KEY, hashlib.sha256(b"Payload").digest())
    with pytest.raises(SealBroken):
        seal.verify(opened, footer, OTHER_KEY, hashlib.sha256(b"payload").digest())
    with pytest.raises(SealBroken):
        seal.verify(replace(opened, tag=bytes(32)), footer, KEY, hashlib.sha256(b"payload").digest())


def test_a_newer_version_says_that_it_is_one() -> None:
    head, _ = sealed()
    with pytest.raises(SealTooNew, match="version 2"):
        Head.decode(head[:8] + b"\x02\x00" + head[10:])
    for bad in (b"\x00\x00" + head[10:], head[8:10] + b"\x03" + head[11:], head[8:11] + b"\x05" + head[12:]):
        with pytest.raises(SealBroken):
            Head.decode(head[:8] + bad)
    with pytest.raises(SealBroken):
        Head.decode(head[:12] + b"\x00\x00\x10\x00" + head[16:])


def test_two_heads_never_have_one_salt() -> None:
    salts = {Head.fresh(KEY, Purpose.POINTER).salt for _ in range(100)}
    assert len(salts) == 100
    assert all(len(salt) == 32 for salt in salts)


def test_small_things_are_sealed_whole() -> None:
    whole, told = seal.seal_bytes(KEY, Purpose.POINTER, Subject(ROOM, 9), b"inside", NOW)
    assert seal.open_bytes(whole, KEYS, Purpose.POINTER, ROOM) == (b"inside", told)
    for position in range(len(whole) * 8):
        bad = bytearray(whole)
        bad[position // 8] ^= 1 << position % 8
        with pytest.raises((SealBroken, SealKeyUnavailable, SealTooNew)):
            seal.open_bytes(bytes(bad), KEYS, Purpose.POINTER, ROOM)
    for length in range(len(whole)):
        for part in (whole[:length], whole[len(whole) - length :], whole[: length // 2] + whole[length:]):
            if part == whole:
                continue
            with pytest.raises(SealBroken):
                seal.open_bytes(part, KEYS, Purpose.POINTER, ROOM)
    for more in (whole + b"\0", b"\0" + whole, whole + whole, whole[:60] + b"\0" + whole[60:]):
        with pytest.raises(SealBroken):
            seal.open_bytes(more, KEYS, Purpose.POINTER, ROOM)


def test_no_digest_of_the_payload_is_in_the_clear() -> None:
    whole, _ = seal.seal_bytes(KEY, Purpose.CHECKPOINT, Subject(ROOM, 9), b"a payload that can be guessed", NOW)
    footer = whole[56 + 29 :]
    assert hashlib.sha256(b"a payload that can be guessed").digest() not in footer
    assert SECRET not in whole
