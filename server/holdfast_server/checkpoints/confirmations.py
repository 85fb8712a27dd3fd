"""What is remembered of a room's snapshots that were confirmed: by it a repeated hibernation is known.

It is in the footer of what stands in the snapshot's place, and goes on from each to what replaces it: so it outlives
the room's sleeping again. `docs/formats.md` describes it.
"""

import hashlib
import hmac

from holdfast_server.checkpoints.key_ring import KEY_ID_BYTES, KeyRing, SealKey
from holdfast_server.checkpoints.names import RoomId
from holdfast_server.checkpoints.seal import Footer, Purpose

CONFIRMED = "etag"
HIBERNATED_BY = "hibernated-by"
PAYLOAD = "payload"
"""In what stands for a snapshot that was given up: the etag that was confirmed, its writer, and a keyed digest."""

GIVEN_AWAY = ".given-away"
"""The name of the list, in a snapshot as well: no name that its writer can give."""

MOST_GIVEN_AWAY = 8
"""In the list. With the longest names and the most metadata a footer has 3,860 bytes of the 4,096 that it may."""

_KEY_ID_DIGITS = 2 * KEY_ID_BYTES
_DIGEST_DIGITS = 32


def given_away(footer: Footer) -> tuple[str, ...]:
    """Return which of a room's snapshots others have, newest first, as far as what stands there remembers it.

    Others: whoever confirmed it has a name, and so has another one who hibernated it.
    """
    by, said = footer.subject.writer_id, footer.subject.metadata
    known = tuple(said.get(GIVEN_AWAY, "").split())
    hibernated_by = said.get(HIBERNATED_BY, "")
    if footer.head.purpose is Purpose.RESTORED and by and hibernated_by not in ("", by):
        known = (_entry(footer.head.key_id, said.get(PAYLOAD, ""), hibernated_by), *known)
    return known[:MOST_GIVEN_AWAY]


def listed(given: tuple[str, ...]) -> dict[str, str]:
    """Return the entry of a footer that goes on with a list; none for an empty one."""
    return {GIVEN_AWAY: " ".join(given)} if given else {}


def kept(footer: Footer) -> dict[str, str]:
    """Return the entries with which what stands for a snapshot goes on under another key.

    Its own mark is made with the key that sealed it; in the list each has the id of its key.
    """
    return {CONFIRMED: footer.subject.metadata.get(CONFIRMED, ""), **listed(given_away(footer))}


def is_among(given: tuple[str, ...], ring: KeyRing, room: RoomId, writer_id: str, sha256: bytes) -> bool:
    """Tell whether a payload is what this writer hibernated before, and another one has.

    A retired key will do: nothing is verified with it here, and what it made stands under another one's seal.
    """
    keys = {key.id.hex(): key for key in ring.keys}
    for each in given:
        key = keys.get(each[:_KEY_ID_DIGITS])
        if key is not None and hmac.compare_digest(each, _entry(key.id, mark(key, room, sha256), writer_id)):
            return True
    return False


def mark(key: SealKey, room: RoomId, sha256: bytes) -> str:
    """Return what tells a payload of a room, to those who have the key."""
    return hmac.digest(key.derive("restored/mark"), room.text.encode() + sha256, "sha256").hex()


def _entry(key_id: bytes, payload_mark: str, writer_id: str) -> str:
    """Return who hibernated what: a digest of the same length for every name, so that so many fit."""
    return key_id.hex() + hashlib.sha256(f"{payload_mark}{writer_id}".encode()).hexdigest()[:_DIGEST_DIGITS]
