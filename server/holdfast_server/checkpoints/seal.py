"""The sealed form of anything that CheckpointStore keeps, version 1: head, stored bytes, footer.

`docs/formats.md` describes each byte. The footer says whose the bytes are and what they are, and ends the object, so
that it is written without knowing the length beforehand and a list reads it alone. Two tags close it: the seal, over
the head, what the footer says and the SHA-256 of the bytes as they are stored; and one over the footer itself, which a
list verifies. Both are HMAC-SHA256 with keys derived from the master key for just this purpose.
"""

import hashlib
import hmac
import secrets
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import NamedTuple, Self

from holdfast_server.checkpoints.key_ring import KEY_ID_BYTES, Keys, SealKey
from holdfast_server.errors import SealTooNew

MAGIC = b"HOLDSEAL"
END_MAGIC = b"HOLDSEND"
VERSION = 1

SEGMENT_BYTES = 1 << 20
"""1 MiB of payload in each encrypted segment: the size of an upload's pieces."""

TAG_BYTES = 32
_SALT_BYTES = 32

_HEAD = struct.Struct(f"<8sHBBI{KEY_ID_BYTES}s{_SALT_BYTES}s")
HEAD_BYTES = _HEAD.size
"""56."""

_FIXED = struct.Struct("<qqQQ32sHHH")
_ENTRY = struct.Struct("<BH")
_END = struct.Struct("<I8s")

MIN_FOOTER_BYTES = HEAD_BYTES + _FIXED.size + 2 * TAG_BYTES + _END.size
MAX_FOOTER_BYTES = 4096
"""Above the largest room id, writer id and metadata together: what a list reads of an object."""

NO_EPOCH = -1
_EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class SealBroken(Exception):
    """What was read is not what was sealed; the message says how. Who knows the name of the thing tells the caller."""


class Algorithm(IntEnum):
    """How the bytes are protected."""

    HMAC_SHA256 = 1
    """They lie there as they are."""
    HMAC_SHA256_AES_256_GCM = 2
    """They are encrypted in segments, too."""


class Purpose(IntEnum):
    """What is sealed: each has keys of its own, so none passes for another."""

    CHECKPOINT = 1
    POINTER = 2
    SNAPSHOT = 3
    RESTORED = 4
    """What stands in a snapshot's place once it was given up."""


@dataclass(frozen=True, slots=True)
class Head:
    """The first bytes: how to read what follows."""

    algorithm: Algorithm
    purpose: Purpose
    key_id: bytes
    salt: bytes

    @classmethod
    def fresh(cls, key: SealKey, purpose: Purpose, *, encrypt: bool = False) -> Self:
        """Return a new head, with a random salt."""
        algorithm = Algorithm.HMAC_SHA256_AES_256_GCM if encrypt else Algorithm.HMAC_SHA256
        return cls(algorithm, purpose, key.id, secrets.token_bytes(_SALT_BYTES))

    @property
    def is_encrypted(self) -> bool:
        """Whether the stored bytes are segments."""
        return self.algorithm is Algorithm.HMAC_SHA256_AES_256_GCM

    def encode(self) -> bytes:
        """Return the 56 bytes."""
        segment = SEGMENT_BYTES if self.is_encrypted else 0
        return _HEAD.pack(MAGIC, VERSION, self.algorithm, self.purpose, segment, self.key_id, self.salt)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a head. Raises `SealBroken`."""
        magic, version, algorithm, purpose, segment, key_id, salt = _HEAD.unpack(data)
        if magic != MAGIC:
            raise SealBroken("it is not sealed")
        if version > VERSION:
            message = (
                f"it is sealed in version {version} of the form, and this server knows {VERSION}: update the server"
            )
            raise SealTooNew(message, version=str(version))
        try:
            head = cls(Algorithm(algorithm), Purpose(purpose), key_id, salt)
        except ValueError:
            raise SealBroken("its head is damaged") from None
        if version != VERSION or segment != (SEGMENT_BYTES if head.is_encrypted else 0):
            raise SealBroken("its head is damaged")
        return head


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose the bytes are, and what their writer says of them. `epoch` is -1 where there is none."""

    room_id: str
    epoch: int = NO_EPOCH
    writer_id: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """About how many bytes its texts take."""
        entries = sum(len(name) + len(value.encode()) for name, value in self.metadata.items())
        return len(self.room_id.encode()) + len(self.writer_id) + entries


class SealedAs(NamedTuple):
    """What something must have been sealed as."""

    purpose: Purpose
    room_id: str
    epoch: int = NO_EPOCH


@dataclass(frozen=True, slots=True)
class Footer:
    """What a seal says. `payload_digest` is keyed: who has no key learns nothing of the payload from it."""

    head: Head
    subject: Subject
    create_time: datetime
    size_bytes: int
    """Of the payload."""
    stored_bytes: int
    """Of what lies between head and footer."""
    payload_digest: bytes
    tag: bytes
    """The seal: it names just this object, since each has its own salt."""

    def is_of(self, sha256: bytes, key: SealKey) -> bool:
        """Tell whether the payload is the one with this SHA-256."""
        return hmac.compare_digest(self.payload_digest, payload_digest(key, self.head, sha256))


class OtherPurpose(SealBroken):
    """The seal is good, and for another purpose."""

    def __init__(self, footer: Footer) -> None:
        super().__init__(f"it was sealed as a {footer.head.purpose.name.lower()}")
        self.footer = footer


def payload_digest(key: SealKey, head: Head, sha256: bytes) -> bytes:
    """Return the keyed digest of the payload that has this SHA-256: the salt makes that of each object another one."""
    return _tag(key, head.purpose, "digest", head.salt + sha256)


class Measured(NamedTuple):
    """Bytes that were counted and hashed."""

    size_bytes: int
    sha256: bytes


def seal(
    key: SealKey, head: Head, subject: Subject, now: datetime, *, payload: Measured, stored: Measured
) -> tuple[bytes, Footer]:
    """Return the encoded footer, and what it says."""
    room, writer = subject.room_id.encode(), subject.writer_id.encode()
    entries = [(name.encode(), value.encode()) for name, value in sorted(subject.metadata.items())]
    digest = payload_digest(key, head, payload.sha256)
    time_us = (now - _EPOCH_START) // _MICROSECOND
    said = b"".join(
        (
            head.encode(),
            _FIXED.pack(
                subject.epoch,
                time_us,
                payload.size_bytes,
                stored.size_bytes,
                digest,
                len(room),
                len(writer),
                len(entries),
            ),
            room,
            writer,
            *(_ENTRY.pack(len(name), len(value)) + name + value for name, value in entries),
        )
    )
    tag = _tag(key, head.purpose, "seal", said + stored.sha256)
    end = _END.pack(len(said) + 2 * TAG_BYTES + _END.size, END_MAGIC)
    footer = said + tag
    footer += _tag(key, head.purpose, "footer", footer + end) + end
    kept_time = _EPOCH_START + time_us * _MICROSECOND
    return footer, Footer(head, subject, kept_time, payload.size_bytes, stored.size_bytes, digest, tag)


def footer_length(end: bytes) -> int:
    """Return the length of the footer from the last bytes of an object. Raises `SealBroken`."""
    if len(end) < MIN_FOOTER_BYTES:
        raise SealBroken("it is too short for a seal")
    length, magic = _END.unpack(end[-_END.size :])
    if magic != END_MAGIC or not MIN_FOOTER_BYTES <= length <= min(len(end), MAX_FOOTER_BYTES):
        raise SealBroken("its end is not that of a seal")
    return int(length)


def head_in(end: bytes) -> Head:
    """Return the head of an object from its last bytes; it is not verified. Raises `SealBroken`, `SealTooNew`."""
    return Head.decode(end[-footer_length(end) :][:HEAD_BYTES])


def epoch_in(end: bytes) -> int:
    """Return the epoch that an object says from its last bytes; it is not verified. Raises `SealBroken`."""
    return int(_FIXED.unpack_from(end[-footer_length(end) :], HEAD_BYTES)[0])


def open_footer(end: bytes, keys: Keys, expected: SealedAs) -> Footer:
    """Read and verify the footer in the last bytes of an object that should be sealed for just this.

    Raises `SealBroken` (`OtherPurpose` where only that differs), and `SealKeyUnavailable` if the key that it names
    cannot be used.
    """
    encoded = end[-footer_length(end) :]
    head = Head.decode(encoded[:HEAD_BYTES])
    key = keys.ring.verifying(head.key_id)
    tagged = encoded[: -TAG_BYTES - _END.size]
    found = encoded[-TAG_BYTES - _END.size : -_END.size]
    if not hmac.compare_digest(found, _tag(key, head.purpose, "footer", tagged + encoded[-_END.size :])):
        raise SealBroken("its footer is not what was sealed")
    footer = _decoded(head, encoded)
    if footer.subject.room_id != expected.room_id:
        raise SealBroken("it was sealed for another room")
    if footer.subject.epoch != expected.epoch:
        raise SealBroken(f"it was sealed for epoch {footer.subject.epoch}")
    if head.purpose is not expected.purpose:
        raise OtherPurpose(footer)
    return footer


def verify(footer: Footer, encoded: bytes, key: SealKey, stored_sha256: bytes) -> None:
    """Check the seal over what is stored; `encoded` is the footer as it is stored. Raises `SealBroken`."""
    said = encoded[: -2 * TAG_BYTES - _END.size]
    if not hmac.compare_digest(footer.tag, _tag(key, footer.head.purpose, "seal", said + stored_sha256)):
        raise SealBroken("its bytes are not those that were sealed")


def seal_bytes(key: SealKey, purpose: Purpose, subject: Subject, payload: bytes, now: datetime) -> tuple[bytes, Footer]:
    """Return a small payload in its sealed form, and its footer."""
    head = Head.fresh(key, purpose)
    measured = Measured(len(payload), hashlib.sha256(payload).digest())
    footer, said = seal(key, head, subject, now, payload=measured, stored=measured)
    return head.encode() + payload + footer, said


def open_bytes(sealed: bytes, keys: Keys, purpose: Purpose, room_id: str) -> tuple[bytes, Footer]:
    """Return what `seal_bytes` sealed for this room, at any epoch, and its footer.

    Raises `SealBroken`, and `SealKeyUnavailable`.
    """
    length = footer_length(sealed)
    if length + HEAD_BYTES > len(sealed):
        raise SealBroken("it is too short for a seal")
    encoded = sealed[-length:]
    if sealed[:HEAD_BYTES] != encoded[:HEAD_BYTES]:
        raise SealBroken("head and footer are not of one seal")
    footer = open_footer(encoded, keys, SealedAs(purpose, room_id, epoch_in(encoded)))
    payload = sealed[HEAD_BYTES:-length]
    if footer.head.is_encrypted or len(payload) != footer.stored_bytes:
        raise SealBroken("its bytes are not those that were sealed")
    verify(footer, encoded, keys.ring.verifying(footer.head.key_id), hashlib.sha256(payload).digest())
    return payload, footer


def _decoded(head: Head, encoded: bytes) -> Footer:
    """Read a footer whose tag is good; what does not fit its lengths was not written by us all the same."""
    epoch, time_us, size, stored, digest, room, writer, entries = _FIXED.unpack_from(encoded, HEAD_BYTES)
    body = encoded[HEAD_BYTES + _FIXED.size : -2 * TAG_BYTES - _END.size]
    metadata: dict[str, str] = {}
    try:
        room_id, writer_id, at = body[:room].decode(), body[room : room + writer].decode(), room + writer
        for _ in range(entries):
            name, value = _ENTRY.unpack_from(body, at)
            at += _ENTRY.size
            metadata[body[at : at + name].decode()] = body[at + name : at + name + value].decode()
            at += name + value
        created = _EPOCH_START + time_us * _MICROSECOND
    except (struct.error, UnicodeDecodeError, OverflowError):
        raise SealBroken("its footer cannot be read") from None
    if at != len(body):
        raise SealBroken("its footer cannot be read")
    tag = encoded[-2 * TAG_BYTES - _END.size : -TAG_BYTES - _END.size]
    return Footer(head, Subject(room_id, epoch, writer_id, metadata), created, size, stored, digest, tag)


def _tag(key: SealKey, purpose: Purpose, use: str, data: bytes) -> bytes:
    return hmac.digest(key.derive(f"{purpose.name.lower()}/{use}"), data, "sha256")
