"""Large loads: what its footer already shows to be damage waits in no spool, of which all loads share the room."""

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from holdfast_server.checkpoints.names import RoomId
from holdfast_server.checkpoints.store import CheckpointStore
from holdfast_server.errors import HoldfastError, SealInvalid
from holdfast_server.objects.body import Body
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.memory import MemoryStore
from holdfast_server.objects.spool import Spool, SpooledFile
from holdfast_server.workers import Workers
from tests.support.checkpoint_stores import checkpoint_store, hibernate, load, restore, save

ROOM, OTHER = RoomId("arena"), RoomId("bazar")
LARGE = b"x" * 5000
MEMORY_BYTES = 1000


class CountedSpool(Spool):
    """Counts its files."""

    files = 0

    def open(self) -> SpooledFile:
        self.files += 1
        return super().open()


@pytest.fixture
def spool() -> CountedSpool:
    return CountedSpool()


@pytest.fixture
def objects() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def store(objects: MemoryStore, spool: CountedSpool) -> Iterator[CheckpointStore]:
    """A store with a large checkpoint, and a large snapshot, of each of two rooms."""
    with closing(Workers()) as workers:
        made = checkpoint_store(objects, workers, spool=spool, memory_bytes=MEMORY_BYTES)
        for room in (ROOM, OTHER):
            save(made, room, 1, LARGE)
            hibernate(made, room, LARGE)
        yield made


Read = Callable[[CheckpointStore], object]
READS: dict[str, tuple[Read, Callable[[RoomId], ObjectKey]]] = {
    "checkpoint": (lambda store: load(store, ROOM), lambda room: room.epoch_key(1)),
    "snapshot": (lambda store: restore(store, ROOM), lambda room: room.snapshot_key),
}

DAMAGE: dict[str, Callable[[bytes, bytes], bytes]] = {
    "footer": lambda own, _other: own[:-20] + bytes([own[-20] ^ 1]) + own[-19:],
    "end": lambda own, _other: own[:-1],
    "no seal": lambda own, _other: bytes(len(own)),
    "length": lambda own, _other: own[:1000] + own[1001:],
    "another room's": lambda _own, other: other,
}


def content(objects: MemoryStore, key: ObjectKey) -> bytes:
    with objects.get(key) as reader:
        return b"".join(chunk.data for chunk in reader)


@pytest.mark.parametrize("what", READS)
def test_a_good_one_waits_in_the_spool(store: CheckpointStore, spool: CountedSpool, what: str) -> None:
    READS[what][0](store)
    assert spool.files == 1
    assert spool.used_bytes == 0


@pytest.mark.parametrize("what", READS)
@pytest.mark.parametrize("how", DAMAGE)
def test_what_its_footer_shows_to_be_damage_does_not_wait(
    store: CheckpointStore, objects: MemoryStore, spool: CountedSpool, what: str, how: str
) -> None:
    read, key_of = READS[what]
    own, other = (content(objects, key_of(room)) for room in (ROOM, OTHER))
    objects.put(key_of(ROOM), Body.of(DAMAGE[how](own, other)))
    with pytest.raises(SealInvalid):
        read(store)
    assert spool.files == 0


@pytest.mark.parametrize("what", READS)
def test_a_damaged_payload_leaves_the_spool_empty(
    store: CheckpointStore, objects: MemoryStore, spool: CountedSpool, what: str
) -> None:
    read, key_of = READS[what]
    own = content(objects, key_of(ROOM))
    objects.put(key_of(ROOM), Body.of(own[:1000] + b"y" + own[1001:]))
    with pytest.raises(HoldfastError):
        read(store)
    assert (spool.files, spool.used_bytes) == (1, 0)
