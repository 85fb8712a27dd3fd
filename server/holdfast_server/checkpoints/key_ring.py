"""The sealing keys: what they are, which of them signs, and which may verify. No files here; see `key_file.py`.

One key signs; those that signed before it go on verifying what they sealed, so a rotation rewrites nothing. A retired
key verifies nothing, and keeps its place so that it can be readmitted.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol, Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from holdfast_server.errors import SealKeyUnavailable

KEY_ID_BYTES = 8
MIN_KEY_BYTES = 32
_INFO = b"holdfast/v1/"


class KeyRingError(ValueError):
    """A key or a ring is not as it must be, or a change to it is refused.

    The message is for the operator, at a terminal or in the log: it may name a file, and never has a secret in it.
    """


class KeyState(StrEnum):
    """What a key may do."""

    SIGNING = "signing"
    VERIFYING = "verifying"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class SealKey:
    """A master key; nothing is sealed with `secret` itself, only with what is derived from it. `id` is random."""

    id: bytes
    secret: bytes = field(repr=False)
    state: KeyState
    create_time: datetime
    _derived: dict[tuple[str, int], bytes] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the rules. Raises `KeyRingError`, a `ValueError`."""
        if len(self.id) != KEY_ID_BYTES:
            raise KeyRingError(f"the id of a sealing key has {len(self.id)} bytes; it needs {KEY_ID_BYTES}")
        if len(self.secret) < MIN_KEY_BYTES:
            raise KeyRingError(f"the secret has {len(self.secret)} bytes; a sealing key needs at least {MIN_KEY_BYTES}")
        if self.create_time.tzinfo is None:
            raise KeyRingError("the create time of a sealing key has no time zone")

    @classmethod
    def fresh(cls, state: KeyState) -> Self:
        """Return a new key, from the system's source of randomness."""
        return cls(secrets.token_bytes(KEY_ID_BYTES), secrets.token_bytes(MIN_KEY_BYTES), state, datetime.now(UTC))

    def derive(self, purpose: str, salt: bytes = b"", length: int = 32) -> bytes:
        """Return the key for a purpose: HKDF-SHA256 (RFC 5869) with the info `holdfast/v1/<purpose>`.

        Without a salt it is remembered: every seal asks for it.
        """
        if salt:
            return self._hkdf(purpose, salt, length)
        found = self._derived.get((purpose, length))
        if found is None:
            # Threads that come here at once find the same bytes.
            found = self._derived[purpose, length] = self._hkdf(purpose, salt, length)
        return found

    def _hkdf(self, purpose: str, salt: bytes, length: int) -> bytes:
        return HKDF(algorithm=SHA256(), length=length, salt=salt, info=_INFO + purpose.encode()).derive(self.secret)


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The keys in the order in which they came, and the secrets with which an older system sealed (`legacy`).

    It never changes: what changes it returns another one, or raises `KeyRingError`.
    """

    keys: tuple[SealKey, ...]
    legacy: tuple[bytes, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        """Check the rules. Raises `KeyRingError`, a `ValueError`."""
        ids = [key.id for key in self.keys]
        if double := next((found for found in ids if ids.count(found) > 1), None):
            raise KeyRingError(f"two sealing keys have the id {double.hex()}")
        if sum(key.state is KeyState.SIGNING for key in self.keys) > 1:
            raise KeyRingError("two sealing keys are signing; one may be")
        if not all(self.legacy):
            raise KeyRingError("a legacy secret is empty")

    @classmethod
    def fresh(cls) -> Self:
        """Return a ring with one new key, which signs."""
        return cls((SealKey.fresh(KeyState.SIGNING),))

    @property
    def signing(self) -> SealKey:
        """The key that seals. Raises `SealKeyUnavailable`."""
        for key in self.keys:
            if key.state is KeyState.SIGNING:
                return key
        raise SealKeyUnavailable("no sealing key of the key ring is signing")

    def verifying(self, key_id: bytes) -> SealKey:
        """Return the key that sealed something, if it may be verified with it. Raises `SealKeyUnavailable`."""
        found = next((key for key in self.keys if key.id == key_id), None)
        if found is None:
            message = f"sealing key {key_id.hex()} is not in the key ring: bring back the ring that has it"
            raise SealKeyUnavailable(f"{message} (`holdfast-server keys add`)", key_id=key_id.hex())
        if found.state is KeyState.RETIRED:
            back = f"`holdfast-server keys readmit {key_id.hex()}` takes that back"
            raise SealKeyUnavailable(f"sealing key {key_id.hex()} is retired: {back}", key_id=key_id.hex())
        return found

    @property
    def next_signing(self) -> SealKey | None:
        """The last of the verifying keys that came after the signing one: it waits to sign. None if there is none.

        After by their places: the keys' times may be from the clocks of different machines.
        """
        waiting = None
        for key in self.keys:
            if key.state is KeyState.SIGNING:
                waiting = None
            elif key.state is KeyState.VERIFYING:
                waiting = key
        return waiting

    def with_key(self, key: SealKey) -> Self:
        """Return the ring with one more key."""
        return replace(self, keys=(*self.keys, key))

    def joined(self, other: Self) -> Self:
        """Return the ring with another one's keys as well, none of which signs, and its legacy secrets.

        They stand before its own, so that none of them waits to sign. What is retired in either is retired. Raises
        `KeyRingError` if that is the signing one.
        """
        own = {key.id: key for key in self.keys}
        added = []
        retired = {key.id for key in other.keys if key.state is KeyState.RETIRED}
        for key in other.keys:
            if (known := own.get(key.id)) is None:
                added.append(replace(key, state=KeyState.VERIFYING if key.state is KeyState.SIGNING else key.state))
            elif known.secret != key.secret:
                raise KeyRingError(f"sealing key {key.id.hex()} is in both key rings, and not the same one")
            elif known.state is KeyState.SIGNING and key.id in retired:
                raise KeyRingError(
                    f"sealing key {key.id.hex()} signs, and is retired in the other key ring: rotate first"
                )
        legacy = tuple(secret for secret in other.legacy if secret not in self.legacy)
        kept = [replace(key, state=KeyState.RETIRED) if key.id in retired else key for key in self.keys]
        return replace(self, keys=(*added, *kept), legacy=(*self.legacy, *legacy))

    def with_legacy(self, secret: bytes) -> Self:
        """Return the ring with one more legacy secret; with the same ones if it has it already."""
        return self if secret in self.legacy else replace(self, legacy=(*self.legacy, secret))

    def rotated(self, key_id: bytes) -> Self:
        """Return the ring in which this key signs, and the one that signed before verifies."""
        if self._found(key_id).state is KeyState.RETIRED:
            raise KeyRingError(f"sealing key {key_id.hex()} is retired: readmit it first")

        def state(key: SealKey) -> KeyState:
            if key.id == key_id:
                return KeyState.SIGNING
            return KeyState.VERIFYING if key.state is KeyState.SIGNING else key.state

        return self._with_states(state)

    def retired(self, key_id: bytes) -> Self:
        """Return the ring in which nothing can be verified with this key."""
        if self._found(key_id).state is KeyState.SIGNING:
            raise KeyRingError(f"sealing key {key_id.hex()} is signing: rotate first")
        return self._with_states(lambda key: KeyState.RETIRED if key.id == key_id else key.state)

    def readmitted(self, key_id: bytes) -> Self:
        """Return the ring in which a retired key verifies again."""
        if self._found(key_id).state is not KeyState.RETIRED:
            raise KeyRingError(f"sealing key {key_id.hex()} is not retired")
        return self._with_states(lambda key: KeyState.VERIFYING if key.id == key_id else key.state)

    def _found(self, key_id: bytes) -> SealKey:
        for key in self.keys:
            if key.id == key_id:
                return key
        raise KeyRingError(f"sealing key {key_id.hex()} is not in the key ring")

    def _with_states(self, state: Callable[[SealKey], KeyState]) -> Self:
        return replace(self, keys=tuple(replace(key, state=state(key)) for key in self.keys))


class Keys(Protocol):
    """Where the ring comes from. It may be another one each time, and there may be none."""

    @property
    def ring(self) -> KeyRing:
        """The ring in force. Raises `SealKeyUnavailable` where there is none."""

    @property
    def problem(self) -> SealKeyUnavailable | None:
        """Why there is no ring; None if there is one."""


class FixedKeys:
    """The `Keys` of a given ring: for the memory backend, where it lives no longer than what it sealed."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    @property
    def ring(self) -> KeyRing:
        """The ring."""
        return self._ring

    @property
    def problem(self) -> SealKeyUnavailable | None:
        """None."""
        return None


class NoKeys:
    """The `Keys` where there is no ring; `reason` is what callers are told."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    @property
    def ring(self) -> KeyRing:
        """Raises `SealKeyUnavailable`."""
        raise self.problem

    @property
    def problem(self) -> SealKeyUnavailable:
        """Why there is none."""
        return SealKeyUnavailable(self._reason)  # a new one each time: who raises it adds to its traceback
