"""Large objects: their footers are looked at before they are read whole, and what a footer alone says is not the last.

A footer that names another key or a newer form may be a damaged one: that is told by the head, which says the same.
"""

from collections.abc import Callable

import pytest

from tests.support.any_checkpoints import (
    DAMAGED,
    LOAD_MEMORY_BYTES,
    Checkpoints,
    epoch_name,
    refused,
    snapshot_name,
)
from tests.support.samples import sample

ROOM = "arena"
LARGE = sample(LOAD_MEMORY_BYTES + 5)
VERSION_AT, KEY_ID_AT = 8, 16
"""In the head, which the footer begins with."""
NEWER = 2

Damage = Callable[[Checkpoints, str], None]


def footer_of(data: bytes) -> int:
    """Return where the footer of sealed bytes begins."""
    return len(data) - int.from_bytes(data[-12:-8], "little")


def written(checkpoints: Checkpoints, name: str, at: int, value: int, *, head: bool) -> None:
    """Write a byte into the footer of what lies under a name, and perhaps into its head as well."""
    data = checkpoints.stored(name)
    changed = bytearray(data)
    for start in (0, footer_of(data)) if head else (footer_of(data),):
        changed[start + at] = value
    checkpoints.put(name, bytes(changed))


def another_key(checkpoints: Checkpoints, name: str, *, head: bool = False) -> None:
    written(checkpoints, name, KEY_ID_AT, checkpoints.stored(name)[KEY_ID_AT] ^ 1, head=head)


def newer_form(checkpoints: Checkpoints, name: str, *, head: bool = False) -> None:
    written(checkpoints, name, VERSION_AT, NEWER, head=head)


def damaged_tag(checkpoints: Checkpoints, name: str) -> None:
    checkpoints.flip(name, -20)


FOOTERS: dict[str, Damage] = {"another key": another_key, "newer form": newer_form, "damaged": damaged_tag}


@pytest.mark.parametrize("how", FOOTERS)
def test_a_large_checkpoint_with_a_damaged_footer_is_damage_and_passed_over(checkpoints: Checkpoints, how: str) -> None:
    for epoch in (1, 2):
        checkpoints.save(ROOM, epoch, LARGE)
    FOOTERS[how](checkpoints, epoch_name(ROOM, 2))
    with refused("SEAL_INVALID", "DATA_LOSS") as refusal:
        checkpoints.load(ROOM)
    assert (refusal.names["room_id"], refusal.names["epoch"]) == (ROOM, "2")
    loaded = checkpoints.load(ROOM, fallback=True)
    assert (loaded.info.epoch, loaded.data) == (1, LARGE)
    assert [skipped.epoch for skipped in loaded.info.skipped] == [2]
    assert checkpoints.save(ROOM, 2, LARGE).outcome == DAMAGED


@pytest.mark.parametrize("how", FOOTERS)
def test_a_large_snapshot_with_a_damaged_footer_is_damage(checkpoints: Checkpoints, how: str) -> None:
    checkpoints.hibernate(ROOM, LARGE)
    FOOTERS[how](checkpoints, snapshot_name(ROOM))
    with refused("SEAL_INVALID", "DATA_LOSS") as refusal:
        checkpoints.restore(ROOM)
    assert refusal.names["room_id"] == ROOM


@pytest.mark.parametrize(
    ("change", "reason"),
    [(another_key, "SEAL_KEY_UNAVAILABLE"), (newer_form, "SEAL_TOO_NEW")],
    ids=["another key", "newer form"],
)
def test_what_head_and_footer_say_of_a_large_object_is_no_damage(
    checkpoints: Checkpoints, change: Callable[..., None], reason: str
) -> None:
    """Nothing older is taken in its place."""
    for epoch in (1, 2):
        checkpoints.save(ROOM, epoch, LARGE)
    checkpoints.hibernate(ROOM, LARGE)
    for name in (epoch_name(ROOM, 2), snapshot_name(ROOM)):
        change(checkpoints, name, head=True)
    for fallback in (False, True):
        with refused(reason, "FAILED_PRECONDITION"):
            checkpoints.load(ROOM, fallback=fallback)
    with refused(reason, "FAILED_PRECONDITION"):
        checkpoints.restore(ROOM)
