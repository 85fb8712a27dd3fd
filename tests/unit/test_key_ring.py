"""Sealing keys: which one signs, which may verify, what is derived from them, and that no secret shows."""

import hashlib
import hmac
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from holdfast_server.checkpoints.key_ring import FixedKeys, KeyRing, KeyRingError, KeyState, NoKeys, SealKey
from holdfast_server.errors import Reason, SealKeyUnavailable

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
SECRET = bytes(range(0x40, 0x60))
SIGNING, VERIFYING, RETIRED = KeyState


def key(number: int, state: KeyState = VERIFYING) -> SealKey:
    return SealKey(bytes([number]) * 8, bytes([number]) * 32, state, NOON)


def states(ring: KeyRing) -> list[KeyState]:
    return [found.state for found in ring.keys]


def hkdf_sha256(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 by hand: extract, then expand."""
    pseudo_random = hmac.digest(salt or bytes(32), secret, hashlib.sha256)
    block, output = b"", b""
    for counter in range(1, 256):
        block = hmac.digest(pseudo_random, block + info + bytes([counter]), hashlib.sha256)
        output += block
        if len(output) >= length:
            break
    return output[:length]


class TestDerivedKeys:
    def test_the_hkdf_of_this_test_is_that_of_the_rfc(self) -> None:
        derived = hkdf_sha256(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)), 42)
        expected = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
        assert derived.hex() == expected

    @pytest.mark.parametrize("salt", [b"", b"a salt of 16 byt"])
    @pytest.mark.parametrize("length", [16, 32, 100])
    def test_they_are_hkdf_of_the_secret_with_the_purpose_as_info(self, salt: bytes, length: int) -> None:
        sealing = SealKey(b"8 bytes.", SECRET, SIGNING, NOON)
        for _ in range(2):
            assert sealing.derive("seal", salt, length) == hkdf_sha256(SECRET, salt, b"holdfast/v1/seal", length)

    def test_purposes_salts_lengths_and_keys_do_not_share_them(self) -> None:
        one, other = key(1), key(2)
        derived = [
            one.derive("seal"),
            one.derive("pointer"),
            one.derive("seal", b"salt"),
            one.derive("seal", b"tlas"),
            one.derive("seal", length=33)[:32],
            other.derive("seal"),
            one.secret,
        ]
        # A longer one goes on where a shorter one ends: that is HKDF's.
        assert derived[0] == derived[4]
        assert len(set(derived)) == len(derived) - 1

    def test_one_without_a_salt_is_remembered(self) -> None:
        sealing = key(1)
        assert sealing.derive("seal") is sealing.derive("seal")
        assert sealing.derive("seal", length=16) == sealing.derive("seal")[:16]
        assert sealing.derive("seal", b"salt") is not sealing.derive("seal", b"salt")


class TestAKey:
    def test_a_fresh_one_is_random_and_of_now(self) -> None:
        before = datetime.now(UTC)
        fresh = [SealKey.fresh(VERIFYING) for _ in range(100)]
        assert len({found.id for found in fresh}) == len({found.secret for found in fresh}) == 100
        assert {(len(found.id), len(found.secret)) for found in fresh} == {(8, 32)}
        assert all(before <= found.create_time <= datetime.now(UTC) for found in fresh)

    @pytest.mark.parametrize("length", [0, 1, 31])
    def test_a_short_secret_is_refused_without_showing_it(self, length: int) -> None:
        with pytest.raises(ValueError, match=f"{length} bytes.* at least 32") as refused:
            SealKey(b"8 bytes.", (b"x7" * 16)[:length], SIGNING, NOON)
        assert "x7" not in str(refused.value)

    def test_a_longer_secret_is_taken(self) -> None:
        assert SealKey(b"8 bytes.", b"s" * 33, SIGNING, NOON).derive("seal")

    @pytest.mark.parametrize("key_id", [b"", b"7 bytes", b"9 bytes.."])
    def test_an_id_of_another_length_is_refused(self, key_id: bytes) -> None:
        with pytest.raises(KeyRingError, match="it needs 8"):
            SealKey(key_id, SECRET, SIGNING, NOON)

    def test_a_time_without_a_zone_is_refused(self) -> None:
        with pytest.raises(KeyRingError, match="no time zone"):
            SealKey(b"8 bytes.", SECRET, SIGNING, datetime(2026, 1, 2))  # noqa: DTZ001 (what is refused)

    def test_no_secret_shows_in_a_ring(self) -> None:
        sealing = SealKey(b"8 bytes.", b"hunter2-" * 4, SIGNING, NOON)
        sealing.derive("seal")
        shown = repr(KeyRing((sealing,), (b"hunter3",)))
        assert "8 bytes." in shown
        assert "hunter" not in shown
        assert repr(sealing.derive("seal")) not in shown


class TestARing:
    def test_a_fresh_one_has_one_key_which_signs(self) -> None:
        ring = KeyRing.fresh()
        assert ring.keys == (ring.signing,)
        assert ring.signing.state is SIGNING
        assert ring.legacy == ()

    def test_one_key_signs_at_most_and_ids_are_unique(self) -> None:
        with pytest.raises(KeyRingError, match="two sealing keys are signing"):
            KeyRing((key(1, SIGNING), key(2, SIGNING)))
        with pytest.raises(KeyRingError, match="two sealing keys have the id 0101010101010101"):
            KeyRing((key(1, SIGNING), key(1, RETIRED)))

    def test_a_legacy_secret_may_be_short_and_not_empty(self) -> None:
        assert KeyRing((), (b"x",)).legacy == (b"x",)
        with pytest.raises(KeyRingError, match="legacy secret is empty"):
            KeyRing((), (b"x", b""))

    def test_the_signing_one_is_found_wherever_it_stands(self) -> None:
        assert KeyRing((key(1), key(2, SIGNING), key(3, RETIRED))).signing.id == key(2).id

    @pytest.mark.parametrize("ring", [KeyRing(()), KeyRing((key(1), key(2, RETIRED)), (b"x",))])
    def test_without_a_signing_key_nothing_is_sealed(self, ring: KeyRing) -> None:
        with pytest.raises(SealKeyUnavailable, match="is signing") as refused:
            _ = ring.signing
        assert refused.value.reason is Reason.SEAL_KEY_UNAVAILABLE

    def test_signing_and_verifying_keys_verify(self) -> None:
        ring = KeyRing((key(1), key(2, SIGNING)))
        assert ring.verifying(key(1).id).secret == key(1).secret
        assert ring.verifying(key(2).id).secret == key(2).secret

    @pytest.mark.parametrize(
        ("number", "why"), [(9, "0909090909090909 is not in the key ring"), (3, "0303030303030303 is retired")]
    )
    def test_an_unknown_and_a_retired_key_verify_nothing(self, number: int, why: str) -> None:
        ring = KeyRing((key(2, SIGNING), key(3, RETIRED)))
        with pytest.raises(SealKeyUnavailable, match=why) as refused:
            ring.verifying(key(number).id)
        assert refused.value.details == {"key_id": key(number).id.hex()}


class TestChangesOfARing:
    def test_after_a_rotation_the_old_key_verifies(self) -> None:
        ring = KeyRing((key(1, SIGNING), key(2)), (b"x",))
        assert ring.rotated(key(2).id) == KeyRing((key(1), key(2, SIGNING)), (b"x",))
        assert ring.rotated(key(1).id) == ring
        assert states(KeyRing((key(1),)).rotated(key(1).id)) == [SIGNING]

    def test_the_next_to_sign_is_the_last_that_came_after_the_signing_one(self) -> None:
        def waiting(*found: KeyState) -> int | None:
            ring = KeyRing(tuple(key(number, state) for number, state in enumerate(found)))
            return ring.next_signing.id[0] if ring.next_signing else None

        assert waiting(SIGNING, VERIFYING, VERIFYING) == 2
        assert waiting(SIGNING, VERIFYING, RETIRED) == 1
        assert waiting(VERIFYING, SIGNING) is None
        assert waiting(VERIFYING, SIGNING, VERIFYING) == 2
        assert waiting(SIGNING, RETIRED) is None
        assert waiting(VERIFYING, VERIFYING) == 1

    def test_the_keys_times_do_not_order_them(self) -> None:
        older = SealKey(b"older...", SECRET, VERIFYING, datetime(2020, 1, 1, tzinfo=UTC))
        assert KeyRing((key(1, SIGNING), older)).next_signing == older

    def test_a_key_is_retired_and_readmitted(self) -> None:
        ring = KeyRing((key(1), key(2, SIGNING)))
        retired = ring.retired(key(1).id)
        assert states(retired) == [RETIRED, SIGNING]
        assert retired.retired(key(1).id) == retired
        assert retired.readmitted(key(1).id) == ring

    def test_what_would_lose_something_is_refused(self) -> None:
        ring = KeyRing((key(1, RETIRED), key(2, SIGNING)))
        with pytest.raises(KeyRingError, match="0202020202020202 is signing: rotate first"):
            ring.retired(key(2).id)
        with pytest.raises(KeyRingError, match="0101010101010101 is retired: readmit it first"):
            ring.rotated(key(1).id)
        with pytest.raises(KeyRingError, match="0202020202020202 is not retired"):
            ring.readmitted(key(2).id)
        for change in (ring.rotated, ring.retired, ring.readmitted):
            with pytest.raises(KeyRingError, match="0909090909090909 is not in the key ring"):
                change(key(9).id)

    def test_the_keys_of_another_ring_are_joined_and_none_of_them_signs_or_waits_to(self) -> None:
        ring = KeyRing((key(1), key(2, SIGNING)), (b"x",))
        other = KeyRing((key(3), key(4, SIGNING), key(5, RETIRED), key(1)), (b"y", b"x"))
        joined = ring.joined(other)
        assert joined == KeyRing((key(3), key(4), key(5, RETIRED), key(1), key(2, SIGNING)), (b"x", b"y"))
        assert joined.signing == ring.signing
        assert joined.next_signing is None
        assert joined.joined(other) == joined
        assert ring.joined(ring) == ring

    def test_what_is_retired_in_either_of_two_rings_is_retired(self) -> None:
        ring = KeyRing((key(1, RETIRED), key(2, SIGNING)))
        assert ring.joined(KeyRing((key(1, SIGNING),))) == ring
        assert KeyRing((key(1), key(2, SIGNING))).joined(KeyRing((key(1, RETIRED),))) == ring
        with pytest.raises(KeyRingError, match="0202020202020202 signs, and is retired in the other key ring"):
            ring.joined(KeyRing((key(2, RETIRED),)))

    def test_another_key_with_the_same_id_is_refused(self) -> None:
        forged = replace(key(1), secret=b"z" * 32)
        with pytest.raises(
            KeyRingError, match="0101010101010101 is in both key rings, and not the same one"
        ) as refused:
            KeyRing((key(1, SIGNING),)).joined(KeyRing((forged,)))
        assert "zzz" not in str(refused.value)

    def test_a_legacy_secret_is_there_once(self) -> None:
        ring = KeyRing.fresh().with_legacy(b"one").with_legacy(b"two")
        assert ring.with_legacy(b"one") == ring
        assert ring.legacy == (b"one", b"two")


class TestKeys:
    def test_fixed_keys_are_those_given(self) -> None:
        ring = KeyRing.fresh()
        assert FixedKeys(ring).ring is ring
        assert FixedKeys(ring).problem is None

    def test_no_keys_say_why(self) -> None:
        keys = NoKeys("no key ring is configured")
        assert keys.problem.message == "no key ring is configured"
        with pytest.raises(SealKeyUnavailable, match="no key ring is configured"):
            _ = keys.ring
