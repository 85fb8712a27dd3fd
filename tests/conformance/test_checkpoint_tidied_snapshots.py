"""Tidying what stands for snapshots that were given up: only what is old goes, as it was listed."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from holdfast_server.objects.base import CommonPrefix, Entry, ListQuery
from holdfast_server.objects.memory import MemoryStore
from tests.support.any_checkpoints import ChangingKeys, Checkpoints, refused, snapshot_name
from tests.support.meddled_store import MeddledStore, meanwhile

ROOM = "arena"
NAME = snapshot_name(ROOM)
AGE = timedelta(days=14)


def sleep_and_wake(checkpoints: Checkpoints, data: bytes, writer_id: str = "a") -> None:
    """Leave what stands for a snapshot that `b` has confirmed."""
    info = checkpoints.hibernate(ROOM, data, writer_id=writer_id)
    checkpoints.confirm(ROOM, info.etag, info.sha256, "b")


def check_stays_awake(checkpoints: Checkpoints, data: bytes, writer_id: str) -> None:
    with refused("CONCURRENT_MODIFICATION", "ABORTED"):
        checkpoints.hibernate(ROOM, data, writer_id=writer_id)


def tidied(checkpoints: Checkpoints) -> int:
    """Return how many went."""
    return checkpoints.store.snapshots.lists.remove_given_up(AGE)


def test_what_is_old_goes(checkpoints: Checkpoints, backend: str) -> None:
    sleep_and_wake(checkpoints, b"state")
    with checkpoints.objects.costing(list=1):  # what is young is not read
        assert tidied(checkpoints) == 0
    checkpoints.objects.clock_ahead = AGE + timedelta(days=1)
    is_removed = backend != "minio"  # MinIO keeps no condition of a deletion, so it stays
    for removed in (1 * is_removed, 0):
        assert tidied(checkpoints) == removed
    assert checkpoints.names() == ([] if is_removed else [NAME])


@pytest.mark.parametrize("at", ["get", "delete"])
def test_what_was_given_up_anew_since_it_was_listed_stays(checkpoints: Checkpoints, at: str) -> None:
    sleep_and_wake(checkpoints, b"monday", "a/1")
    checkpoints.objects.clock_ahead = AGE + timedelta(days=1)
    with checkpoints.beside() as other:
        checkpoints.objects.before = meanwhile(at, NAME, lambda: sleep_and_wake(other, b"tuesday", "a/2"))
        assert tidied(checkpoints) == 0
    check_stays_awake(checkpoints, b"tuesday", "a/2")


class OldPages(MeddledStore):
    """Lists all as a month older than it is."""

    def list(self, query: ListQuery) -> Iterator[Entry | CommonPrefix]:
        for item in super().list(query):
            assert isinstance(item, Entry)
            assert item.record is not None
            time = item.record.update_time - timedelta(days=30)
            yield replace(item, record=replace(item.record, update_time=time))


def test_what_is_found_younger_than_it_was_listed_stays() -> None:
    """As where the same bytes were put back meanwhile: a store may give them the same etag."""
    checkpoints = Checkpoints(OldPages(MemoryStore()), ChangingKeys())
    sleep_and_wake(checkpoints, b"state")
    assert tidied(checkpoints) == 0
    check_stays_awake(checkpoints, b"state", "a")
    checkpoints.objects.clock_ahead = AGE + timedelta(days=1)
    assert tidied(checkpoints) == 1
    checkpoints.close()
