"""A snapshot's file that is damaged on the disk: what it says is lost, or its payload alone."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from holdfast_server.objects.filesystem import FilesystemStore
from tests.support.any_checkpoints import ChangingKeys, Checkpoints, refused, tried

ROOM = "arena"

PLACES = {"footer": 120, "record": -60, "trailer": -8}
"""Where a bit flips."""


@pytest.fixture
def checkpoints(tmp_path: Path) -> Iterator[Checkpoints]:
    """A room that sleeps."""
    objects = FilesystemStore(tmp_path / "objects")
    checkpoints = Checkpoints(objects, ChangingKeys())
    checkpoints.hibernate(ROOM, b"state")
    yield checkpoints
    checkpoints.close()
    objects.close()


@pytest.fixture
def damage(tmp_path: Path) -> Callable[[str], bytes]:
    """What flips a bit of its file, and returns the file's bytes."""

    def flip(place: str) -> bytes:
        path = tmp_path / "objects" / "tree" / "hibernated.d" / f"{ROOM}.f"
        data = bytearray(path.read_bytes())
        data[57 if place == "payload" else PLACES[place]] ^= 1
        path.write_bytes(data)
        return bytes(data)

    return flip


@pytest.mark.parametrize("place", PLACES)
def test_a_damaged_file_is_not_replaced_unless_that_is_said(
    checkpoints: Checkpoints, damage: Callable[[str], bytes], tmp_path: Path, place: str
) -> None:
    there = damage(place)
    for create_only in (False, True):
        with refused("SEAL_INVALID" if place == "footer" else "INTEGRITY_FAILED", "DATA_LOSS") as refusal:
            checkpoints.hibernate(ROOM, b"new", create_only=create_only)
        assert refusal.names["room_id"] == ROOM
        assert "set replace_damaged" in refusal.message
    assert (tmp_path / "objects" / "tree" / "hibernated.d" / f"{ROOM}.f").read_bytes() == there
    checkpoints.hibernate(ROOM, b"new", replace_damaged=True)
    assert checkpoints.restore(ROOM).data == b"new"


def test_a_snapshot_that_says_what_it_is_is_replaced_though_its_payload_is_lost(
    checkpoints: Checkpoints, damage: Callable[[str], bytes]
) -> None:
    """As a good one would be: nobody has confirmed it."""
    damage("payload")
    with refused("INTEGRITY_FAILED", "DATA_LOSS"):
        checkpoints.restore(ROOM)
    checkpoints.hibernate(ROOM, b"new")
    assert checkpoints.restore(ROOM).data == b"new"


@pytest.mark.parametrize("place", PLACES)
def test_a_damaged_file_is_replaced_by_nobody_who_names_another_etag(
    checkpoints: Checkpoints, damage: Callable[[str], bytes], place: str
) -> None:
    (entry,) = checkpoints.hibernated()
    damage(place)
    assert tried(partial(checkpoints.hibernate, ROOM, b"new", if_match_etag="other")).code in (
        "FAILED_PRECONDITION",
        "DATA_LOSS",
    )
    if place == "footer":
        checkpoints.hibernate(ROOM, b"new", if_match_etag=entry.snapshot.etag)
        assert checkpoints.restore(ROOM).data == b"new"
