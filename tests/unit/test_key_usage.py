"""What each key sealed of what is stored, counted without verifying it."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from holdfast_server.checkpoints import key_usage as subject
from holdfast_server.checkpoints.key_usage import MOST_ROOMS, KeyUsage, Kind, Use, key_usage
from holdfast_server.errors import Unavailable
from holdfast_server.objects.memory import MemoryStore
from holdfast_server.workers import Workers
from tests.support.any_checkpoints import ChangingKeys, Checkpoints, epoch_name, pointer_name, snapshot_name
from tests.support.meddled_store import meanwhile, once


@pytest.fixture
def checkpoints() -> Iterator[Checkpoints]:
    with closing(Checkpoints(MemoryStore(), ChangingKeys())) as opened:
        yield opened


def used(checkpoints: Checkpoints, *of: bytes) -> KeyUsage:
    with closing(Workers()) as workers:
        return key_usage(checkpoints.objects, workers, of)


def one(room: str) -> Use:
    return Use(1, [room])


def fill(checkpoints: Checkpoints, name: str) -> None:
    """Leave one of each kind."""
    checkpoints.save(f"live/{name}", 1, b"1")
    checkpoints.save(f"gone/{name}", 1, b"1")
    checkpoints.delete_room(f"gone/{name}")
    checkpoints.hibernate(f"asleep/{name}", b"night")
    info = checkpoints.hibernate(f"awake/{name}", b"night")
    checkpoints.confirm(info.room_id, info.etag, info.sha256)


def each_of(name: str) -> dict[Kind, Use]:
    return {
        Kind.CHECKPOINTS: one(f"live/{name}"),
        Kind.POINTERS: one(f"live/{name}"),
        Kind.TOMBSTONES: one(f"gone/{name}"),
        Kind.SNAPSHOTS: one(f"asleep/{name}"),
        Kind.WAKE_MARKS: one(f"awake/{name}"),
    }


def test_each_kind_is_counted_by_its_key(checkpoints: Checkpoints) -> None:
    fill(checkpoints, "old")
    old = checkpoints.keys.rotate()
    fill(checkpoints, "new")
    checkpoints.keys.ring = checkpoints.keys.ring.retired(old)  # which makes no difference
    new = checkpoints.keys.ring.signing.id
    assert used(checkpoints) == KeyUsage({old: each_of("old"), new: each_of("new")}, {})


def test_what_has_no_head_is_counted_apart(checkpoints: Checkpoints) -> None:
    fill(checkpoints, "x")
    for name in (epoch_name("live/x", 1), pointer_name("gone/x"), snapshot_name("asleep/x"), "snapshots/flat"):
        checkpoints.put(name, b"what an older system wrote")
    found = used(checkpoints)
    (uses,) = found.keys.values()
    assert set(uses) == {Kind.POINTERS, Kind.WAKE_MARKS}
    assert found.unread == {
        Kind.CHECKPOINTS: one("live/x"),
        Kind.POINTERS: one("gone/x"),
        Kind.SNAPSHOTS: Use(2, ["flat", "asleep/x"]),
    }


def test_what_is_nobodys_is_passed_over(checkpoints: Checkpoints) -> None:
    for name in ("hibernated/a%zz", f"snapshots/{'0' * 20}/{'0' * 20}x"):
        checkpoints.put(name, b"x")
    assert used(checkpoints) == KeyUsage()


def test_what_goes_meanwhile_is_not_counted(checkpoints: Checkpoints) -> None:
    fill(checkpoints, "x")
    name = snapshot_name("asleep/x")
    checkpoints.objects.before = meanwhile("get", "asleep%2Fx", lambda: checkpoints.remove(name))
    (uses,) = used(checkpoints).keys.values()
    assert Kind.SNAPSHOTS not in uses


def test_a_backend_that_fails_ends_it(checkpoints: Checkpoints) -> None:
    fill(checkpoints, "x")
    checkpoints.objects.before = once("get", "asleep%2Fx")
    with pytest.raises(Unavailable):
        used(checkpoints)


def test_some_rooms_are_named_and_only_their_ends_are_read(checkpoints: Checkpoints) -> None:
    for number in range(MOST_ROOMS + 1):
        for epoch in range(3):
            checkpoints.save(f"room{number:02}", epoch, bytes(100_000))
    checkpoints.objects.calm()
    (uses,) = used(checkpoints).keys.values()
    rooms = [f"room{number:02}" for number in range(MOST_ROOMS)]
    assert uses == {
        Kind.CHECKPOINTS: Use(3 * (MOST_ROOMS + 1), rooms, has_more_rooms=True),
        Kind.POINTERS: Use(MOST_ROOMS + 1, rooms, has_more_rooms=True),
    }
    assert checkpoints.objects.bytes_read <= 4 * (MOST_ROOMS + 1) * 4200


def test_so_many_keys_are_told_apart_and_no_more(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_MOST_KEYS", 3)
    for number in range(5):
        checkpoints.hibernate(f"room{number}", b"")
        checkpoints.keys.rotate()
    found = used(checkpoints)
    assert len(found.keys) == 3
    last = checkpoints.keys.ring.keys[3].id
    assert used(checkpoints, last).keys[last] == {Kind.SNAPSHOTS: Use(1, ["room3"])}, "one that is asked for is counted"
    assert found.unread == {Kind.SNAPSHOTS: Use(2, ["room3", "room4"])}
