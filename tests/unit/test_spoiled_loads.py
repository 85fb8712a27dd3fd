"""Payloads that wait in a spool whose disk loses them: the server failed then, and what is stored is good all the same.

So nobody is told of damage, no good checkpoint is passed over, and no byte leaves that was not sealed.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import google_crc32c
import pytest

from holdfast_server.checkpoints.key_ring import FixedKeys, KeyRing
from holdfast_server.checkpoints.names import RoomId
from holdfast_server.checkpoints.opening import Waiting, WaitingRoom
from holdfast_server.checkpoints.store import CheckpointStore, StoreOptions
from holdfast_server.errors import Reason, Unavailable
from holdfast_server.objects.body import Body, Chunk
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.memory import MemoryStore
from holdfast_server.objects.spool import Spool
from holdfast_server.workers import Workers
from tests.support.checkpoint_stores import checkpoint_store, hibernate, save
from tests.support.legacy_forms import SECRET, forms, room_of
from tests.support.samples import MIB, sample
from tests.support.spoiled_spool import SPOILS, Spoil, SpoilingSpool, flip

ROOM = RoomId("arena")
DATA = sample(3 * MIB)
RING = KeyRing.fresh().with_legacy(SECRET)
LOST = "the server's spool did not give back what was put there"

Chunks = Callable[[CheckpointStore, Callable[[], None]], list[Chunk]]
"""Loads, calls what it is given once all is verified, and returns what leaves."""


def checkpoint(store: CheckpointStore, verified: Callable[[], None]) -> list[Chunk]:
    with store.load(ROOM, None, min_epoch=None, fallback=True) as loaded:
        verified()
        return list(loaded)


def snapshot(store: CheckpointStore, verified: Callable[[], None]) -> list[Chunk]:
    with store.snapshots.restore(ROOM) as restored:
        verified()
        return list(restored)


FORMS: dict[str, tuple[StoreOptions, Chunks]] = {
    "plain": (StoreOptions(), checkpoint),
    "encrypted": (StoreOptions(encrypt=True), checkpoint),
    "legacy": (StoreOptions(legacy=forms(FixedKeys(RING))), checkpoint),
    "plain snapshot": (StoreOptions(), snapshot),
    "encrypted snapshot": (StoreOptions(encrypt=True), snapshot),
}


@pytest.fixture
def workers() -> Iterator[Workers]:
    with closing(Workers()) as threads:
        yield threads


def filled(form: str, spool: Spool, workers: Workers) -> tuple[CheckpointStore, Chunks]:
    """Return a store whose room has two checkpoints and a snapshot, all the same, and what loads the latest."""
    options, chunks = FORMS[form]
    objects = MemoryStore()
    store = checkpoint_store(objects, workers, ring=RING, options=options, spool=spool)
    if options.legacy is not None:
        for name, data in room_of(ROOM.text, {0: DATA, 1: DATA}).items():
            objects.put(ObjectKey(name), Body.of(data))
    else:
        for epoch in range(2):
            save(store, ROOM, epoch, DATA)
        hibernate(store, ROOM, DATA)
    return store, chunks


def nothing() -> None:
    """Leave it."""


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("waits", [False, True], ids=["when first read", "once verified"])
@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
def test_what_the_spool_lost_is_no_damage_and_leaves_as_nothing_else(
    form: str, spoil: Spoil, workers: Workers, caplog: pytest.LogCaptureFixture, *, waits: bool
) -> None:
    spool = SpoilingSpool(spoil, waits=waits)
    store, chunks = filled(form, spool, workers)
    with caplog.at_level(logging.WARNING), pytest.raises(Unavailable) as lost:
        chunks(store, spool.now if waits else nothing)
    assert (lost.value.reason, lost.value.message) == (Reason.BACKEND_UNAVAILABLE, LOST)
    assert [record.message for record in caplog.records] == ["The spool did not give back what was put there"]
    assert spool.files == 1, "no older checkpoint was looked at"
    assert spool.used_bytes == 0


@pytest.mark.parametrize("form", FORMS)
def test_what_leaves_before_the_place_that_was_lost_is_what_was_sealed(form: str, workers: Workers) -> None:
    spool = SpoilingSpool(lambda fd: flip(fd, 2 * MIB + 100), waits=True)
    store, _ = filled(form, spool, workers)
    left: list[bytes] = []
    with store.load(ROOM, None, min_epoch=None, fallback=False) as loaded:
        spool.now()
        with pytest.raises(Unavailable, match=LOST):
            left.extend(chunk.data for chunk in loaded)
    assert left
    assert DATA.startswith(b"".join(left))


@pytest.mark.parametrize("form", FORMS)
def test_what_the_spool_gives_back_is_the_payload_in_chunks_of_a_mebibyte(form: str, workers: Workers) -> None:
    store, chunks = filled(form, Spool(), workers)
    found = chunks(store, nothing)
    assert b"".join(chunk.data for chunk in found) == DATA
    assert all(0 < len(chunk.data) <= MIB for chunk in found)
    assert len(found) <= 4
    assert [chunk.crc32c for chunk in found] == [google_crc32c.value(chunk.data) for chunk in found]


class RememberedRoom(WaitingRoom):
    """Remembers what waits there."""

    newest: Any = None

    def take(self, size_bytes: int, stack: ExitStack) -> Waiting:
        waiting = self.newest = super().take(size_bytes, stack)
        return waiting


def test_what_memory_lost_of_an_encrypted_payload_is_no_damage_either(workers: Workers) -> None:
    room = RememberedRoom(Spool(), 10 * MIB)
    store = CheckpointStore(MemoryStore(), FixedKeys(RING), room, workers, StoreOptions(encrypt=True))
    save(store, ROOM, 0, DATA)
    with store.load(ROOM, None, min_epoch=None, fallback=False) as loaded:
        room.newest._data[1000] ^= 1
        with pytest.raises(Unavailable, match="in the server's memory"):
            list(loaded)
