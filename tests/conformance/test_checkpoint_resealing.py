"""What has no life of its own holds no old key: tidying seals it anew, so that the key can be retired."""

from datetime import timedelta
from typing import Any

import pytest

from tests.support.any_checkpoints import (
    ON_EACH_BACKEND,
    Checkpoints,
    epoch_name,
    footer_of,
    pointer_name,
    refused,
    snapshot_name,
)
from tests.support.meddled_store import meanwhile

pytestmark = ON_EACH_BACKEND

AGE = timedelta(days=14)
FOREVER = timedelta(days=3650)
KEY_AT = slice(16, 24)
"""The id of the key in an object, as `docs/formats.md` has it."""


def tidy(checkpoints: Checkpoints, age: timedelta = FOREVER) -> int:
    """Tidy up as a server does, and return how many objects were sealed anew."""
    resealing = checkpoints.store.resealing()
    checkpoints.store.deleting.tidy_tombstones(age, resealing.pointer)
    checkpoints.store.snapshots.lists.remove_given_up(age, resealing.mark)
    return resealing.count


def key_of(checkpoints: Checkpoints, name: str) -> bytes:
    return checkpoints.stored(name)[KEY_AT]


def retire(checkpoints: Checkpoints, key_id: bytes) -> None:
    checkpoints.keys.ring = checkpoints.keys.ring.retired(key_id)


def wake(checkpoints: Checkpoints, room: str, data: bytes = b"night", by: str = "b") -> Any:
    """Hibernate a room as `a` and confirm it as another writer; return the snapshot."""
    info = checkpoints.hibernate(room, data, writer_id="a")
    checkpoints.confirm(room, info.etag, info.sha256, by)
    return info


def test_after_tidying_what_rests_holds_no_old_key(checkpoints: Checkpoints) -> None:
    checkpoints.save("live", 1, b"1")
    checkpoints.save("gone", 1, b"1")
    next_epoch = checkpoints.delete_room("gone").next_epoch
    checkpoints.save("anew", 1, b"1")
    anew = checkpoints.delete_room("anew").next_epoch
    checkpoints.save("anew", anew, b"2")
    wake(checkpoints, "slept")
    old = checkpoints.keys.rotate()
    assert tidy(checkpoints) == 4
    rests = [pointer_name(room) for room in ("anew", "gone", "live")] + [snapshot_name("slept")]
    new = checkpoints.keys.ring.signing.id
    assert {name: key_of(checkpoints, name) for name in rests} == dict.fromkeys(rests, new)
    assert tidy(checkpoints) == 0

    checkpoints.save("live", 2, b"2")
    checkpoints.restart()
    retire(checkpoints, old)
    assert checkpoints.load("live").data == b"2"
    with refused("ROOM_NOT_FOUND"):
        checkpoints.load("gone")
    with refused("EPOCH_TOO_OLD") as refusal:
        checkpoints.save("gone", 2, b"late")
    assert refusal.names["next_epoch"] == str(next_epoch)
    checkpoints.save("gone", next_epoch, b"new")
    with refused("EPOCH_TOO_OLD"):
        checkpoints.save("anew", 1, b"late")
    with refused("SNAPSHOT_NOT_FOUND"):
        checkpoints.restore("slept")
    checkpoints.hibernate("slept", b"next night", writer_id="b")
    assert checkpoints.restore("slept").data == b"next night"


def said(sealed: bytes) -> tuple[bytes, ...]:
    """Return what an object says but key, salt, and what is made with them, as `docs/formats.md` has it."""
    footer = footer_of(sealed)
    return sealed[:16], sealed[56:footer], sealed[footer + 56 : footer + 88], sealed[footer + 120 : -76]


def test_a_pointer_says_the_same_as_before(checkpoints: Checkpoints) -> None:
    """The seal of its checkpoint included, by which another one in that one's place is noticed."""
    checkpoints.save("anew", 1, b"1")
    checkpoints.save("anew", checkpoints.delete_room("anew", request_id="one").next_epoch, b"2")
    checkpoints.save("gone", 1, b"1")
    checkpoints.delete_room("gone", request_id="two")
    names = [pointer_name("anew"), pointer_name("gone")]
    before = [said(checkpoints.stored(name)) for name in names]
    checkpoints.keys.rotate()
    assert tidy(checkpoints) == 2
    assert [said(checkpoints.stored(name)) for name in names] == before


def test_what_is_asleep_and_checkpoints_keep_their_key(checkpoints: Checkpoints) -> None:
    checkpoints.save("room", 1, b"1")
    checkpoints.hibernate("asleep", b"night")
    names = [epoch_name("room", 1), snapshot_name("asleep")]
    before = [checkpoints.stored(name) for name in names]
    checkpoints.keys.rotate()
    assert tidy(checkpoints) == 1
    assert [checkpoints.stored(name) for name in names] == before


def test_what_was_confirmed_is_known_under_the_new_key_too(checkpoints: Checkpoints) -> None:
    """Its mark is made with the key of its day."""
    for night in (b"one", b"two"):
        wake(checkpoints, "arena", night)
    info = checkpoints.hibernate("arena", b"three", writer_id="a")
    checkpoints.confirm("arena", info.etag, info.sha256, "b")
    for _ in range(2):
        old = checkpoints.keys.rotate()
        assert tidy(checkpoints) == 1
        retire(checkpoints, old)
        checkpoints.restart()
        checkpoints.confirm("arena", info.etag, info.sha256, "b")  # the same writer, once more
        with refused("CONCURRENT_MODIFICATION", "ABORTED"):
            checkpoints.confirm("arena", info.etag, info.sha256, "c")
        for night in (b"one", b"two", b"three"):
            with refused("CONCURRENT_MODIFICATION", "ABORTED") as refusal:
                checkpoints.hibernate("arena", night, writer_id="a")
            assert "confirmed by another writer already" in refusal.message
    checkpoints.hibernate("arena", b"four", writer_id="a")


def test_a_request_that_is_repeated_is_known_under_the_new_key_too(checkpoints: Checkpoints) -> None:
    checkpoints.save("room", 1, b"1")
    deleted = checkpoints.delete_room("room", request_id="once")
    checkpoints.keys.rotate()
    assert tidy(checkpoints) == 1
    checkpoints.restart()
    checkpoints.save("room", deleted.next_epoch, b"anew")
    checkpoints.delete_room("room", request_id="once")
    assert checkpoints.load("room").data == b"anew"


def test_a_save_goes_on_from_a_pointer_that_was_sealed_anew(checkpoints: Checkpoints) -> None:
    """Also where the one from before is remembered, and its etag with it."""
    checkpoints.save("room", 1, b"1")
    checkpoints.keys.rotate()
    with checkpoints.beside() as other:
        assert tidy(other) == 1
    assert checkpoints.save("room", 2, b"2").pointer_moved
    checkpoints.delete_room("room")
    checkpoints.keys.rotate()
    with checkpoints.beside() as other:
        assert tidy(other) == 1
    with refused("EPOCH_TOO_OLD"):
        checkpoints.save("room", 3, b"3")


def test_a_watch_is_told_nothing_new(checkpoints: Checkpoints) -> None:
    checkpoints.save("room", 1, b"1")
    with checkpoints.watch("room") as watcher:
        assert watcher.epochs_to(1) == [1]
        checkpoints.keys.rotate()
        assert tidy(checkpoints) == 1
        checkpoints.save("room", 2, b"2")
        assert watcher.epochs_to(2) == [2]


class TestRaces:
    """Whoever comes between the read and the write was quicker, and nothing of theirs is undone."""

    @pytest.mark.parametrize("at", ["get", "put"])
    def test_a_save(self, checkpoints: Checkpoints, at: str) -> None:
        checkpoints.save("room", 1, b"1")
        checkpoints.keys.rotate()
        with checkpoints.beside() as other:
            checkpoints.objects.before = meanwhile(at, "/latest", lambda: other.save("room", 2, b"2"))
            assert tidy(checkpoints) == 0
        assert checkpoints.load("room").data == b"2"

    def test_a_save_after_the_pointer_was_looked_at(self, checkpoints: Checkpoints) -> None:
        checkpoints.save("room", 1, b"1")
        checkpoints.keys.rotate()
        with checkpoints.beside() as other:
            objects = checkpoints.objects
            at_second = meanwhile("get", "/latest", lambda: other.save("room", 2, b"2"))
            objects.before = meanwhile("get", "/latest", lambda: setattr(objects, "before", at_second))
            assert tidy(checkpoints) == 0
        assert checkpoints.load("room").data == b"2"

    @pytest.mark.parametrize("at", ["get", "put"])
    def test_a_deletion(self, checkpoints: Checkpoints, at: str) -> None:
        checkpoints.save("room", 1, b"1")
        checkpoints.keys.rotate()
        with checkpoints.beside() as other:
            checkpoints.objects.before = meanwhile(at, "/latest", lambda: other.delete_room("room"))
            assert tidy(checkpoints) == 0
        checkpoints.restart()
        assert checkpoints.rooms() == []

    @pytest.mark.parametrize("at", ["get", "put"])
    def test_a_tombstone_that_goes(self, checkpoints: Checkpoints, at: str) -> None:
        checkpoints.save("room", 1, b"1")
        checkpoints.delete_room("room")
        checkpoints.keys.rotate()
        checkpoints.objects.before = meanwhile(at, "/latest", lambda: checkpoints.remove(pointer_name("room")))
        assert tidy(checkpoints) == 0
        assert checkpoints.names() == []

    @pytest.mark.parametrize("at", ["get", "put"])
    def test_a_hibernation(self, checkpoints: Checkpoints, at: str) -> None:
        wake(checkpoints, "room")
        checkpoints.keys.rotate()
        with checkpoints.beside() as other:
            again = meanwhile(at, "/room", lambda: other.hibernate("room", b"next", writer_id="b"))
            checkpoints.objects.before = again
            assert tidy(checkpoints) == 0
        assert checkpoints.restore("room").data == b"next"


def test_what_was_put_back_is_not_made_to_last(checkpoints: Checkpoints) -> None:
    """A pointer that this server has seen further is not sealed anew."""
    checkpoints.save("room", 1, b"1")
    old = checkpoints.stored(pointer_name("room"))
    checkpoints.save("room", 2, b"2")
    checkpoints.put(pointer_name("room"), old)
    checkpoints.keys.rotate()
    assert tidy(checkpoints) == 0
    assert checkpoints.stored(pointer_name("room")) == old


def test_damage_and_what_a_retired_key_sealed_stay_as_they_are(checkpoints: Checkpoints) -> None:
    for room in ("damaged", "retired"):
        checkpoints.save(room, 1, b"1")
        wake(checkpoints, room)
    retire(checkpoints, checkpoints.keys.rotate())
    checkpoints.flip(pointer_name("damaged"))
    checkpoints.flip(snapshot_name("damaged"))
    checkpoints.save("good", 1, b"1")
    checkpoints.keys.rotate()
    names = [name for name in checkpoints.names() if "good" not in name]
    before = {name: checkpoints.stored(name) for name in names}
    checkpoints.restart()
    assert tidy(checkpoints) == 1
    assert {name: checkpoints.stored(name) for name in names} == before


def test_a_server_whose_ring_is_older_does_not_undo_it(checkpoints: Checkpoints) -> None:
    """A rotation goes from server to server: another one signs with the old key for a while."""
    checkpoints.save("room", 1, b"1")
    old = checkpoints.keys.rotate()
    assert tidy(checkpoints) == 1
    rotated = checkpoints.keys.ring
    checkpoints.keys.ring = rotated.rotated(old)
    assert tidy(checkpoints) == 0
    # But an operator may have gone back to the old key; and then it is that one.
    checkpoints.objects.clock_ahead = timedelta(days=1, minutes=1)
    assert tidy(checkpoints) == 1
    assert key_of(checkpoints, pointer_name("room")) == old


def test_an_old_tombstone_goes_and_is_not_made_young(checkpoints: Checkpoints, backend: str) -> None:
    checkpoints.save("room", 1, b"1")
    checkpoints.delete_room("room")
    wake(checkpoints, "slept")
    checkpoints.keys.rotate()
    checkpoints.objects.clock_ahead = AGE + timedelta(days=1)
    stays = backend == "minio"  # MinIO keeps no condition of a deletion: there they stay, and are sealed anew
    assert tidy(checkpoints, AGE) == 2 * stays
    assert len(checkpoints.names()) == 2 * stays
