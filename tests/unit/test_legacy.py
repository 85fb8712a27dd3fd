"""What shellcade wrote: read where that is switched on, refused where it is not, and never taken for what we sealed."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from holdfast_server.checkpoints.legacy import LegacyTags, flat_names, read_pointer
from holdfast_server.checkpoints.names import RoomId
from holdfast_server.checkpoints.seal import MAGIC, SealBroken
from holdfast_server.errors import SealKeyUnavailable
from holdfast_server.objects.info import Attributes, ObjectInfo
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.memory import MemoryStore
from tests.support.any_checkpoints import (
    DAMAGED,
    SAME,
    ChangingKeys,
    Checkpoints,
    Refused,
    epoch_name,
    pointer_name,
    refused,
    snapshot_name,
)
from tests.support.legacy_forms import SECRET, flat, legacy_keys, reading_legacy, room_of, tagged
from tests.support.samples import MIB, sample
from tests.support.transfers import put_all

FORMATS = (Path(__file__).parents[2] / "docs/formats.md").read_text()
INFO = ObjectInfo(ObjectKey("snapshots/a/latest"), 1, "etag", b"", Attributes(), datetime(2026, 1, 1, tzinfo=UTC))
PAYLOAD = b"room checkpoint bytes"
VECTORS = {
    PAYLOAD: "0f121d2b5f918d0279ab1a43c8e334daac59f46315d1244879adaee5dbb8eb11",
    b"": "90467de8b50962dc5331324701c2e4d86a7949b41cf1a08673c0e8d36d427e48",
}


@pytest.fixture
def rooms() -> Iterator[Checkpoints]:
    """A store that reads the older forms."""
    yield from opened(reading_legacy(MemoryStore()))


@pytest.fixture
def plain() -> Iterator[Checkpoints]:
    """One that does not, though its key ring has the secret."""
    yield from opened(Checkpoints(MemoryStore(), legacy_keys()))


def opened(checkpoints: Checkpoints) -> Iterator[Checkpoints]:
    yield checkpoints
    checkpoints.close()


def verified(data: bytes, keys: ChangingKeys) -> tuple[int, bytes]:
    return LegacyTags(keys)(lambda offset, length: data[offset : offset + length], len(data))


class TestTags:
    @pytest.mark.parametrize("payload", VECTORS)
    def test_the_vectors_verify(self, payload: bytes) -> None:
        data = payload + bytes.fromhex(VECTORS[payload])
        assert data == tagged(payload)
        assert verified(data, legacy_keys()) == (len(payload), hashlib.sha256(payload).digest())

    def test_docs_formats_has_them(self) -> None:
        section = FORMATS[FORMATS.index("## What shellcade wrote") :]
        assert all(f"`{tag}`" in section for tag in VECTORS.values())

    @pytest.mark.parametrize("size", [1, MIB - 1, MIB, MIB + 1, 3 * MIB + 7])
    def test_a_payload_of_any_size_is_hashed_whole(self, size: int) -> None:
        payload = sample(size)
        assert verified(tagged(payload), legacy_keys()) == (size, hashlib.sha256(payload).digest())

    def test_it_is_read_in_pieces(self) -> None:
        data, lengths = tagged(sample(3 * MIB)), []

        def read_at(offset: int, length: int) -> bytes:
            lengths.append(length)
            return data[offset : offset + length]

        LegacyTags(legacy_keys(b"other", SECRET))(read_at, len(data))
        assert lengths == [MIB, MIB, MIB, 32]

    @pytest.mark.parametrize("payload", VECTORS)
    def test_every_flipped_bit_is_found(self, payload: bytes) -> None:
        data = tagged(payload)
        for at in range(len(data) * 8):
            flipped = bytearray(data)
            flipped[at // 8] ^= 1 << at % 8
            with pytest.raises(SealBroken):
                verified(bytes(flipped), legacy_keys())

    def test_every_truncation_is_found(self) -> None:
        data = tagged(PAYLOAD)
        for length in range(len(data)):
            with pytest.raises(SealBroken):
                verified(data[:length], legacy_keys())

    def test_any_of_several_secrets_will_do_and_no_other(self) -> None:
        keys = legacy_keys(b"x", SECRET, b"y" * 100)
        for secret in keys.ring.legacy:
            assert verified(tagged(PAYLOAD, secret), keys)[0] == len(PAYLOAD)
        for secret in (b"z", SECRET + b"\0x", SECRET.upper()):
            with pytest.raises(SealBroken):
                verified(tagged(PAYLOAD, secret), keys)

    def test_without_a_secret_nothing_is_called_damage_that_may_be_none(self) -> None:
        with pytest.raises(SealKeyUnavailable, match="add-legacy"):
            verified(tagged(PAYLOAD), ChangingKeys())
        for damage in (b"", bytes(31), MAGIC + bytes(100)):
            with pytest.raises(SealBroken):
                verified(damage, ChangingKeys())

    def test_a_new_secret_is_in_force_at_once(self) -> None:
        keys = ChangingKeys()
        tags = LegacyTags(keys)
        keys.ring = keys.ring.with_legacy(SECRET)
        data = tagged(PAYLOAD)
        assert tags(lambda offset, length: data[offset : offset + length], len(data))[0] == len(PAYLOAD)


class TestPointers:
    def test_the_name_of_a_checkpoint_is_read(self) -> None:
        for room in ("a", "author/name-1", "ä 🦉"):
            for epoch in (0, 42, (1 << 63) - 2):
                pointer = read_pointer(RoomId(room), f"snapshots/{room}/{epoch:020}".encode(), INFO)
                assert (pointer.room.text, pointer.epoch, pointer.tag, pointer.is_deleted) == (room, epoch, b"", False)
                assert (pointer.etag, pointer.update_time) == (INFO.etag, INFO.update_time)

    @pytest.mark.parametrize(
        "text",
        [
            b"",
            b"42",
            b"00000000000000000042",
            b"snapshots/a/00000000000000000042\n",
            b" snapshots/a/00000000000000000042",
            b"snapshots/a/00000000000000000042\0",
            b"/snapshots/a/00000000000000000042",
            b"snapshots/a/0000000000000000042",
            b"snapshots/a/000000000000000000042",
            b"snapshots/a/-0000000000000000042",
            b"snapshots/a/+0000000000000000042",
            b"snapshots/a/0000000000000000004x",
            "snapshots/a/0000000000000000004٢".encode(),
            b"snapshots/a/09223372036854775807",
            b"snapshots/a/99999999999999999999",
            b"snapshots/b/00000000000000000042",
            b"snapshots/aa/00000000000000000042",
            b"snapshots/A/00000000000000000042",
            b"snapshots/a/b/00000000000000000042",
            b"snapshots/a//00000000000000000042",
            b"snapshots/a/../a/00000000000000000042",
            b"snapshots/a/00000000000000000042/x",
            b"snapshots/a/latest",
            b"snapshots/a/",
            b"snapshots/a",
            b"hibernated/a/00000000000000000042",
            b"\xffsnapshots/a/00000000000000000042",
            "snapshots/a/00000000000000000042".encode("utf-16"),
        ],
    )
    def test_anything_else_is_damage(self, text: bytes, rooms: Checkpoints) -> None:
        put_all(rooms.objects, room_of("a", {42: b"good"}) | {pointer_name("a"): text})
        with refused("POINTER_INVALID", "DATA_LOSS") as refusal:
            rooms.load("a")
        assert refusal.names == {"room_id": "a"}
        with refused("POINTER_INVALID"):
            rooms.save("a", 43, b"next")
        (listed,) = rooms.rooms()
        assert "POINTER_INVALID" in str(listed.status)
        assert rooms.load("a", fallback=True).data == b"good"

    def test_one_that_names_nothing_is_damage(self, rooms: Checkpoints) -> None:
        put_all(rooms.objects, room_of("a", {41: b"good"}, latest=42))
        for look in (rooms.load, rooms.stat):
            with refused("POINTER_INVALID", "DATA_LOSS") as refusal:
                look("a")
            assert "names epoch 42, and that is not there" in refusal.message
        assert rooms.load("a", fallback=True).data == b"good"


class TestSwitchedOff:
    def test_all_of_it_is_damage_or_nothing(self, plain: Checkpoints) -> None:
        put_all(plain.objects, room_of("a", {1: b"1", 2: b"2"}) | flat("sleeper", b"zzz"))
        for look in (plain.load, plain.stat):
            with refused("POINTER_INVALID", "DATA_LOSS"):
                look("a")
            with refused("SEAL_INVALID", "DATA_LOSS"):
                look("a", epoch=2)
        with refused("SEAL_INVALID", "DATA_LOSS"):
            plain.load("a", fallback=True)
        with refused("POINTER_INVALID"):
            plain.save("a", 3)
        assert ["SEAL_INVALID" in str(entry.status) for entry in plain.listed("a")] == [True, True]
        assert plain.hibernated() == []
        with refused("SNAPSHOT_NOT_FOUND"):
            plain.restore("sleeper")

    def test_so_is_a_checkpoint_among_ours(self, plain: Checkpoints) -> None:
        plain.save("a", 1, b"ours")
        plain.put(epoch_name("a", 1), tagged(b"theirs"))
        with refused("SEAL_INVALID"):
            plain.load("a")
        assert plain.save("a", 1, b"theirs").outcome == DAMAGED


class TestDowngrades:
    """Whoever has the old secret may not put anything where a pointer of ours says what must be there."""

    def test_a_sealed_pointer_refuses_what_is_not_its_checkpoint(self, rooms: Checkpoints) -> None:
        rooms.save("a", 1, b"older")
        rooms.save("a", 2, b"ours")
        rooms.put(epoch_name("a", 2), tagged(b"theirs"))
        for look in (rooms.load, rooms.stat):
            for fields in ({}, {"epoch": 2}):
                with refused("SEAL_INVALID", "DATA_LOSS") as refusal:
                    look("a", **fields)
                assert "not the one that the pointer names" in refusal.message
        assert rooms.load("a", fallback=True).data == b"older"

    def test_no_save_takes_the_seal_from_a_pointer(self, rooms: Checkpoints) -> None:
        rooms.save("a", 2, b"ours")
        before = rooms.stored(pointer_name("a"))
        rooms.put(epoch_name("a", 2), tagged(b"theirs"))
        for _ in range(2):
            saved = rooms.save("a", 2, b"theirs")
            assert (saved.outcome, saved.pointer_moved) == (DAMAGED, False)
            rooms.restart()
        assert rooms.stored(pointer_name("a")) == before
        with refused("SEAL_INVALID"):
            rooms.load("a")

    def test_a_flipped_bit_anywhere_in_what_we_sealed_stays_damage(self, rooms: Checkpoints) -> None:
        rooms.save("a", 2, b"ours")
        name = epoch_name("a", 2)
        sealed = rooms.stored(name)
        for at in range(len(sealed)):
            rooms.put(name, sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :])
            with pytest.raises(Refused, match=r"SEAL_INVALID|SEAL_KEY_UNAVAILABLE"):
                rooms.load("a")

    def test_what_was_sealed_is_no_payload_of_the_older_form_when_it_is_cut(self, rooms: Checkpoints) -> None:
        rooms.save("a", 2, b"ours")
        sealed = rooms.stored(epoch_name("a", 2))
        for length in range(len(sealed)):
            rooms.put(epoch_name("a", 2), sealed[:length])
            with refused("SEAL_INVALID"):
                rooms.load("a")


class TestHibernated:
    def test_all_rooms_are_listed_whatever_their_ids(self, rooms: Checkpoints) -> None:
        ids = ["a", "author/name-1", "author/name-2", "b/c/d", "z"]
        put_all(rooms.objects, {name: data for room in ids for name, data in flat(room, room.encode()).items()})
        put_all(rooms.objects, room_of("author", dict.fromkeys(range(200), b"")))
        put_all(rooms.objects, room_of("author/name-1", dict.fromkeys(range(200), b"")))
        for size in (0, 1, 2):
            found = rooms.hibernated(page_size=size)
            assert [(entry.room_id, entry.snapshot.legacy) for entry in found] == [(room, True) for room in ids]
        assert [entry.room_id for entry in rooms.hibernated(prefix="author/")] == ids[1:3]
        assert [entry.room_id for entry in rooms.hibernated(prefix="au", page_size=1)] == ids[1:3]

    def test_many_checkpoints_are_passed_over_by_seeking(self, rooms: Checkpoints) -> None:
        put_all(rooms.objects, room_of("m", dict.fromkeys(range(500), b"")) | flat("n", b""))
        seen: list[str] = []
        rooms.objects.before = lambda operation, name: seen.append(f"{operation} {name}")
        assert list(flat_names(rooms.objects)) == ["snapshots/n"]
        assert len([each for each in seen if each.startswith("list")]) == 2

    def test_one_of_ours_hides_it_also_when_it_was_given_up(self, rooms: Checkpoints) -> None:
        put_all(rooms.objects, flat("a", b"old"))
        with refused("ALREADY_EXISTS"):
            rooms.hibernate("a", b"new", create_only=True)
        rooms.hibernate("a", b"new")
        restored = rooms.restore("a")
        assert (restored.data, restored.info.legacy) == (b"new", False)
        assert len(rooms.hibernated()) == 1
        rooms.confirm("a", restored.info.etag, restored.info.sha256)
        assert rooms.hibernated() == []
        with refused("SNAPSHOT_NOT_FOUND"):
            rooms.restore("a")

    def test_it_goes_when_it_is_confirmed(self, rooms: Checkpoints) -> None:
        put_all(rooms.objects, flat("a", b"old"))
        restored = rooms.restore("a")
        assert (restored.data, restored.info.legacy) == (b"old", True)
        with refused("CHECKSUM_MISMATCH"):
            rooms.confirm("a", restored.info.etag, bytes(32))
        rooms.confirm("a", restored.info.etag, hashlib.sha256(b"old").digest())
        assert rooms.names() == [snapshot_name("a")]
        with refused("CONCURRENT_MODIFICATION"):
            rooms.confirm("a", restored.info.etag, hashlib.sha256(b"old").digest())

    def test_a_damaged_one_is_refused(self, rooms: Checkpoints) -> None:
        put_all(rooms.objects, {"snapshots/a": tagged(b"old")[:-1]})
        with refused("SEAL_INVALID", "DATA_LOSS"):
            rooms.restore("a")
        (entry,) = rooms.hibernated()
        assert "SEAL_INVALID" in str(entry.status)


def test_a_save_that_is_repeated_finds_the_older_form(rooms: Checkpoints) -> None:
    put_all(rooms.objects, room_of("a", {7: b"same"}))
    saved = rooms.save("a", 7, b"same")
    assert (saved.outcome, saved.checkpoint.legacy, saved.pointer_moved) == (SAME, True, False)
