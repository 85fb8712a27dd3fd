"""Every bit of what is sealed, and every length of it: not a byte is served, and no other room is harmed.

The damaged object is laid there through the backend, for which it is as good as any: only the seal can notice.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from holdfast_server.checkpoints.key_ring import KeyRing, KeyState, SealKey
from holdfast_server.checkpoints.store import StoreOptions
from holdfast_server.objects.base import ObjectStore
from holdfast_server.objects.body import Body
from holdfast_server.objects.filesystem import FilesystemStore
from holdfast_server.objects.memory import MemoryStore
from tests.support.checkpoint_calls import (
    confirm,
    delete_room,
    load,
    load_refused,
    restore,
    restore_refused,
    rooms,
    save,
    stat,
)
from tests.support.checkpoint_damage import (
    EPOCH,
    KEY_ID,
    KEYS,
    LOST,
    NO_KEY,
    OTHER,
    PAYLOAD,
    REASONS,
    ROOM,
    Place,
    fill,
    flipped,
    flips,
    lengths,
    reason,
    told_of_checkpoint,
    told_of_snapshot,
)
from tests.support.checkpoint_stores import ServedCheckpoints
from tests.support.disk_operations import content
from tests.support.statuses import refused


@pytest.fixture(params=["memory", "filesystem"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    """A backend whose objects can be replaced by others that are well formed."""
    with ExitStack() as stack:
        store: ObjectStore = MemoryStore() if request.param == "memory" else FilesystemStore(tmp_path)
        stack.callback(store.close)
        yield store


@pytest.fixture(params=[False, True], ids=["plain", "encrypted"])
def served(request: pytest.FixtureRequest, objects: ObjectStore) -> Iterator[ServedCheckpoints]:
    """A server on it, with two rooms."""
    with ServedCheckpoints(objects, options=StoreOptions(encrypt=request.param)) as served:
        fill(served.stub)
        yield served


def place_in(served: ServedCheckpoints, kind: str) -> Place:
    key = KEYS[kind]
    objects = served.objects
    intact = content(objects, key)
    assert intact is not None
    return Place(served.stub, kind, intact, lambda data: objects.put(key, Body.of(data)))


@pytest.mark.parametrize("kind", KEYS)
def test_a_flipped_bit_is_noticed_by_the_seal(served: ServedCheckpoints, kind: str) -> None:
    place = place_in(served, kind)
    in_memory = isinstance(served.objects, MemoryStore)
    place.check_all(flips(place.intact, 8 if in_memory else 1))
    assert place.reasons == {REASONS[kind]}


@pytest.mark.parametrize("kind", KEYS)
def test_another_length_is_noticed_by_the_seal(served: ServedCheckpoints, kind: str) -> None:
    place = place_in(served, kind)
    place.check_all(lengths(place.intact))
    assert place.reasons == {REASONS[kind]}


@pytest.mark.parametrize("kind", KEYS)
def test_a_key_that_is_not_there_is_no_damage(served: ServedCheckpoints, kind: str) -> None:
    place = place_in(served, kind)
    for at in KEY_ID:
        place.lay(flipped(flipped(place.intact, at, 1), place.footer + at, 1))
        refuse = restore_refused if kind == "snapshot" else load_refused
        refusal = refuse(served.stub, ROOM.text)
        assert (refusal.code, refusal.reason) == NO_KEY
    place.check_that_it_was_the_damage()


def test_stat_and_list_notice_what_is_wrong_with_the_footer(served: ServedCheckpoints) -> None:
    place = place_in(served, "checkpoint")
    for at in range(len(place.intact)):
        place.lay(flipped(place.intact, at, 1 << at % 8))
        told = told_of_checkpoint(served.stub)
        if at < place.footer:
            assert told == [None, None]  # the footer is what they read
        else:
            assert told[0] == told[1]
            assert told[0] in place.told_of(at)
    for damaged in lengths(place.intact):
        place.lay(damaged)
        assert told_of_checkpoint(served.stub) == [LOST] * 2
    place.lay(place.intact)
    assert told_of_checkpoint(served.stub) == [None, None]


def test_the_list_of_snapshots_notices_what_is_wrong_with_the_footer(served: ServedCheckpoints) -> None:
    place = place_in(served, "snapshot")
    for at in range(len(place.intact)):
        place.lay(flipped(place.intact, at, 1 << at % 8))
        told = told_of_snapshot(served.stub)
        if at < place.footer:
            assert told is None
        else:
            assert told in place.told_of(at)
    for damaged in lengths(place.intact):
        place.lay(damaged)
        assert told_of_snapshot(served.stub) == LOST


def test_a_damaged_snapshot_cannot_be_confirmed(served: ServedCheckpoints) -> None:
    info, _ = restore(served.stub, ROOM.text)
    place = place_in(served, "snapshot")
    for damaged in flips(place.intact):
        place.lay(damaged)
        with refused() as refusal:
            confirm(served.stub, info, info.sha256)
        # What differs before the footer shows by the etag: it is another object.
        assert refusal.code in ("DATA_LOSS", "FAILED_PRECONDITION", "ABORTED")
        if damaged[place.footer :] != place.intact[place.footer :]:
            assert refusal.code != "ABORTED"
    place.check_that_it_was_the_damage()


def test_the_list_of_rooms_tells_of_a_damaged_pointer(served: ServedCheckpoints) -> None:
    place = place_in(served, "pointer")
    for damaged in (*flips(place.intact), *lengths(place.intact)):
        place.lay(damaged)
        damaged_room, other = rooms(served.stub)
        assert (damaged_room.room_id, damaged_room.HasField("latest_epoch")) == (ROOM.text, False)
        assert damaged_room.status.reason == reason("POINTER_INVALID")
        assert (other.room_id, other.latest_epoch, other.status.code) == (OTHER, EPOCH, 0)


def test_nothing_is_saved_over_a_damaged_pointer(served: ServedCheckpoints) -> None:
    place = place_in(served, "pointer")
    for damaged in (*flips(place.intact), *lengths(place.intact)):
        place.lay(damaged)
        load_refused(served.stub, ROOM.text)  # so that it knows
        with refused() as refusal:
            save(served.stub, ROOM.text, EPOCH + 1, PAYLOAD)
        assert (refusal.code, refusal.reason) == ("DATA_LOSS", "POINTER_INVALID")
        assert content(served.objects, KEYS["pointer"]) == damaged
    assert content(served.objects, ROOM.epoch_key(EPOCH + 1)) is None
    assert load(served.stub, ROOM.text, epoch=EPOCH)[1] == PAYLOAD  # which does not take the pointer


def test_a_damaged_checkpoint_is_fallen_back_from_whatever_is_wrong(served: ServedCheckpoints) -> None:
    place = place_in(served, "checkpoint")
    for damaged in (*flips(place.intact), *lengths(place.intact)):
        place.lay(damaged)
        info, data = load(served.stub, ROOM.text, fallback=True)
        assert (info.epoch, data, info.latest_epoch, info.next_epoch) == (EPOCH - 1, PAYLOAD, EPOCH, EPOCH + 1)
        assert [(each.epoch, each.status.reason) for each in info.skipped] == [(EPOCH, reason("SEAL_INVALID"))]


def test_a_damaged_tombstone_brings_nothing_back(served: ServedCheckpoints) -> None:
    delete_room(served.stub, ROOM.text)
    place = place_in(served, "pointer")
    for damaged in (*flips(place.intact), *lengths(place.intact)):
        place.lay(damaged)
        assert load_refused(served.stub, ROOM.text).reason == "POINTER_INVALID"
        assert load_refused(served.stub, ROOM.text, fallback=True).reason == "POINTER_INVALID"
        with refused() as refusal:
            save(served.stub, ROOM.text, EPOCH + 1, PAYLOAD)
        assert (refusal.code, refusal.reason) == ("DATA_LOSS", "POINTER_INVALID")
    place.lay(place.intact)
    assert load_refused(served.stub, ROOM.text).reason == "ROOM_NOT_FOUND"


def test_a_damaged_mark_of_a_snapshot_that_was_given_up_brings_nothing_back(served: ServedCheckpoints) -> None:
    info, _ = restore(served.stub, ROOM.text)
    confirm(served.stub, info, info.sha256, "node-1")
    place = place_in(served, "snapshot")
    for damaged in (*flips(place.intact), *lengths(place.intact)):
        place.lay(damaged)
        assert restore_refused(served.stub, ROOM.text).code in ("DATA_LOSS", "NOT_FOUND")
        with refused() as refusal:
            confirm(served.stub, info, info.sha256, "node-2")
        assert refusal.code in ("DATA_LOSS", "FAILED_PRECONDITION", "ABORTED")
    place.lay(place.intact)
    assert restore_refused(served.stub, ROOM.text).reason == "SNAPSHOT_NOT_FOUND"


def test_what_was_sealed_for_this_epoch_and_is_not_what_the_pointer_names_is_not_served(
    served: ServedCheckpoints,
) -> None:
    with ServedCheckpoints(MemoryStore()) as elsewhere:  # of whoever has the same keys, e.g. an older copy of it all
        save(elsewhere.stub, ROOM.text, EPOCH, b"another state of the room")
        other = content(elsewhere.objects, ROOM.epoch_key(EPOCH))
    assert other is not None
    place = place_in(served, "checkpoint")
    place.lay(other)
    for refusal in (load_refused(served.stub, ROOM.text), load_refused(served.stub, ROOM.text, epoch=EPOCH)):
        assert (refusal.code, refusal.reason) == LOST
    with refused() as refusal:
        stat(served.stub, ROOM.text)
    assert (refusal.code, refusal.reason) == LOST
    place.check_that_it_was_the_damage()


def test_falling_back_ends_where_a_key_is_missing(objects: ObjectStore) -> None:
    first, second = SealKey.fresh(KeyState.SIGNING), SealKey.fresh(KeyState.VERIFYING)
    ring = KeyRing((first, second))
    back = ring.rotated(second.id).rotated(first.id)
    for epoch, at in enumerate((ring, ring.rotated(second.id), back)):
        with ServedCheckpoints(objects, ring=at) as served:
            save(served.stub, ROOM.text, epoch, PAYLOAD)
    latest = content(objects, ROOM.epoch_key(2))
    assert latest is not None
    objects.put(ROOM.epoch_key(2), Body.of(flipped(latest, 60, 1)))
    with ServedCheckpoints(objects, ring=back) as served:
        assert load(served.stub, ROOM.text, fallback=True)[0].epoch == 1
    with ServedCheckpoints(objects, ring=back.retired(second.id)) as served:
        # A newer good one may be there: an operator has to bring the key.
        refusal = load_refused(served.stub, ROOM.text, fallback=True)
        assert (refusal.code, refusal.reason) == NO_KEY
        assert refusal.names["key_id"] == second.id.hex()
        assert load(served.stub, ROOM.text, epoch=0)[1] == PAYLOAD
