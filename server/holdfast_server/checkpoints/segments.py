"""Encryption of a payload in segments: AES-256-GCM, each bound to its object, its place and to being the last or not.

So a segment that is cut off, swapped, repeated or taken from another object does not open. This is the STREAM
construction (Hoang, Reyhanitabar, Rogaway and Vizar, 2015): the nonce is the number of the segment and a mark of the
last. The key is derived for each object from its random salt, so no nonce is ever used twice with one key.
"""

import struct
from collections.abc import Callable, Iterable, Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from holdfast_server.checkpoints.key_ring import SealKey
from holdfast_server.checkpoints.seal import SEGMENT_BYTES, Head, SealBroken

GCM_TAG_BYTES = 16
_NONCE = struct.Struct("<Q3xB")


def _cipher(key: SealKey, head: Head) -> AESGCM:
    return AESGCM(key.derive(f"{head.purpose.name.lower()}/encryption", head.salt))


def encrypted(pieces: Iterable[bytes], key: SealKey, head: Head) -> Iterator[bytes]:
    """Yield the segments of a payload, whose pieces all have 1 MiB, but the last one may have less; one is empty.

    Each is 16 bytes longer than its piece.
    """
    cipher, bound = _cipher(key, head), head.encode()
    number, held = 0, b""
    for piece in pieces:
        if held:
            yield cipher.encrypt(_NONCE.pack(number, 0), held, bound)
            number += 1
        held = piece
    yield cipher.encrypt(_NONCE.pack(number, 1), held, bound)


def decrypted(read_at: Callable[[int, int], bytes], stored_bytes: int, key: SealKey, head: Head) -> Iterator[bytes]:
    """Yield the pieces of the payload whose segments `read_at` (offset, length) reads; none of them is empty.

    Raises `SealBroken` at the first segment that does not open.
    """
    cipher, bound = _cipher(key, head), head.encode()
    step = SEGMENT_BYTES + GCM_TAG_BYTES
    segments = max(-(-stored_bytes // step), 1)
    for number in range(segments):
        segment = read_at(number * step, step)
        try:
            piece = cipher.decrypt(_NONCE.pack(number, number == segments - 1), segment, bound)
        except InvalidTag:
            raise SealBroken("a segment does not open") from None
        if piece:
            yield piece
