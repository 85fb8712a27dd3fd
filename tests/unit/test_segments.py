"""Encrypted segments: what is cut, swapped, repeated or from elsewhere does not open."""

import struct
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from holdfast_server.checkpoints.key_ring import KeyRing, SealKey
from holdfast_server.checkpoints.seal import SEGMENT_BYTES, Head, Purpose, SealBroken
from holdfast_server.checkpoints.segments import GCM_TAG_BYTES, decrypted, encrypted
from tests.support.samples import sample

STEP = SEGMENT_BYTES + GCM_TAG_BYTES


@pytest.fixture
def key() -> SealKey:
    return KeyRing.fresh().signing


@pytest.fixture
def head(key: SealKey) -> Head:
    return Head.fresh(key, Purpose.CHECKPOINT, encrypt=True)


def pieces(payload: bytes) -> Iterator[bytes]:
    for start in range(0, len(payload), SEGMENT_BYTES):
        yield payload[start : start + SEGMENT_BYTES]


def opened(stored: bytes, key: SealKey, head: Head) -> bytes:
    found = list(decrypted(lambda offset, length: stored[offset : offset + length], len(stored), key, head))
    assert all(found)
    return b"".join(found)


SIZES = [0, 1, SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 1, 2 * SEGMENT_BYTES, 3 * SEGMENT_BYTES + 5]


@pytest.mark.parametrize("size", SIZES)
def test_a_payload_comes_back_and_takes_16_bytes_more_for_each_segment(key: SealKey, head: Head, size: int) -> None:
    payload = sample(size)
    segments = list(encrypted(pieces(payload), key, head))
    assert len(segments) == max(-(-size // SEGMENT_BYTES), 1)
    assert sum(map(len, segments)) == size + len(segments) * GCM_TAG_BYTES
    assert opened(b"".join(segments), key, head) == payload
    if size > 100:
        assert payload[:100] not in b"".join(segments)


@pytest.mark.parametrize("size", [5, SEGMENT_BYTES, 2 * SEGMENT_BYTES + 7])
def test_segments_are_of_the_documented_form(key: SealKey, head: Head, size: int) -> None:
    cipher = AESGCM(key.derive("checkpoint/encryption", head.salt))
    segments = list(encrypted(pieces(sample(size)), key, head))
    plain = b""
    for number, segment in enumerate(segments):
        nonce = struct.pack("<Q", number) + bytes(3) + bytes([number == len(segments) - 1])
        plain += cipher.decrypt(nonce, segment, head.encode())
    assert plain == sample(size)


@pytest.fixture
def three(key: SealKey, head: Head) -> list[bytes]:
    """Three whole segments."""
    return list(encrypted(pieces(sample(3 * SEGMENT_BYTES)), key, head))


def test_what_is_cut_between_segments_does_not_open(key: SealKey, head: Head, three: list[bytes]) -> None:
    for count in (0, 1, 2):
        with pytest.raises(SealBroken):
            opened(b"".join(three[:count]), key, head)
        with pytest.raises(SealBroken):
            opened(b"".join(three[3 - count :]), key, head)


def test_what_is_swapped_or_repeated_does_not_open(key: SealKey, head: Head, three: list[bytes]) -> None:
    first, second, third = three
    for order in (
        [second, first, third],
        [first, third, second],
        [first, first, third],
        [first, second, second],
        [first, third],
        [first, second, third, third],
        [first, second, second, third],
    ):
        with pytest.raises(SealBroken):
            opened(b"".join(order), key, head)


def test_a_segment_of_another_object_does_not_open(key: SealKey, head: Head, three: list[bytes]) -> None:
    for other in (
        Head.fresh(key, Purpose.CHECKPOINT, encrypt=True),
        Head(head.algorithm, Purpose.SNAPSHOT, head.key_id, head.salt),
        Head(head.algorithm, head.purpose, bytes(8), head.salt),
    ):
        foreign = list(encrypted(pieces(sample(3 * SEGMENT_BYTES)), key, other))
        assert foreign[1] != three[1]
        for place in range(3):
            mixed = [*three[:place], foreign[place], *three[place + 1 :]]
            with pytest.raises(SealBroken):
                opened(b"".join(mixed), key, head)


def test_another_key_opens_nothing(head: Head, three: list[bytes]) -> None:
    with pytest.raises(SealBroken):
        opened(b"".join(three), KeyRing.fresh().signing, head)


def test_a_segment_that_was_not_the_last_is_not_taken_for_it(key: SealKey, head: Head) -> None:
    whole = list(encrypted(pieces(sample(SEGMENT_BYTES + 1)), key, head))
    with pytest.raises(SealBroken):
        opened(whole[0], key, head)
    alone = list(encrypted(pieces(sample(SEGMENT_BYTES)), key, head))
    assert alone[0] != whole[0]
    with pytest.raises(SealBroken):
        opened(alone[0] + whole[1], key, head)


def test_no_byte_can_be_changed_and_no_length(key: SealKey, head: Head) -> None:
    stored = b"".join(encrypted(pieces(b"a small room"), key, head))
    for position in range(len(stored) * 8):
        bad = bytearray(stored)
        bad[position // 8] ^= 1 << position % 8
        with pytest.raises(SealBroken):
            opened(bytes(bad), key, head)
    for length in range(len(stored)):
        with pytest.raises(SealBroken):
            opened(stored[:length], key, head)
    with pytest.raises(SealBroken):
        opened(stored + b"\0", key, head)


def test_nothing_before_a_segment_that_does_not_open_is_lost_and_nothing_after_it_is_had(
    key: SealKey, head: Head, three: list[bytes]
) -> None:
    stored = three[0] + bytes(STEP) + three[2]
    found = decrypted(lambda offset, length: stored[offset : offset + length], len(stored), key, head)
    assert next(found) == sample(3 * SEGMENT_BYTES)[:SEGMENT_BYTES]
    with pytest.raises(SealBroken):
        next(found)
