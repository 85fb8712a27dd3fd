"""Pruning takes time: what has changed since it was chosen is not deleted."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta

import pytest

from tests.support.any_checkpoints import ON_EACH_BACKEND, STORED, Checkpoints, Loaded, epoch_name, refused
from tests.support.meddled_store import meanwhile, nothing
from tests.support.samples import MIB, sample

pytestmark = ON_EACH_BACKEND

ROOM = "arena"
SECONDS = 60
LARGE = sample(2 * MIB)
"""More than a load has in memory: it is looked at once more, and waits in the spool."""


def four(checkpoints: Checkpoints, data: bytes = b"old") -> None:
    """Save four checkpoints, an hour before now."""
    for epoch in range(4):
        checkpoints.save(ROOM, epoch, data)
    checkpoints.objects.clock_ahead = timedelta(hours=1)


def test_what_was_saved_anew_at_an_epoch_that_another_pruned_meanwhile_stays(
    checkpoints: Checkpoints, backend: str
) -> None:
    four(checkpoints)

    def prune_and_save() -> None:
        assert other.prune(ROOM)[-1].deleted == 3
        assert other.save(ROOM, 1, b"late").outcome == STORED

    with checkpoints.beside() as other:
        other.objects.clock_ahead = timedelta(hours=1)
        checkpoints.objects.before = meanwhile("delete", epoch_name(ROOM, 0), prune_and_save)
        deleted = checkpoints.prune(ROOM)[-1].deleted
    if backend == "minio":
        assert (deleted, checkpoints.epochs(ROOM)) == (1, [3]), "MinIO keeps no condition of a deletion"
        return
    assert (deleted, checkpoints.epochs(ROOM)) == (0, [1, 3])
    assert checkpoints.load(ROOM, epoch=1).data == b"late"


@pytest.mark.parametrize("dry_run", [False, True], ids=["deleted", "dry run"])
def test_what_is_being_loaded_by_the_time_that_it_would_go_stays(checkpoints: Checkpoints, *, dry_run: bool) -> None:
    """The load begins after the choice, and is held up between its reads until the pruning is over."""
    four(checkpoints, LARGE)
    is_open, is_pruned = threading.Event(), threading.Event()

    def hold(operation: str, name: str) -> None:
        if operation == "get" and name == epoch_name(ROOM, 1) and not is_open.is_set():
            is_open.set()
            assert is_pruned.wait(SECONDS)

    with ThreadPoolExecutor(1) as pool:

        def begin_load() -> None:
            checkpoints.objects.after = hold
            loads.append(pool.submit(checkpoints.load, ROOM, epoch=1))
            assert is_open.wait(SECONDS)

        loads: list[Future[Loaded]] = []
        # The latest is read whole once the choice was made.
        checkpoints.objects.before = meanwhile("get", epoch_name(ROOM, 3), begin_load)
        try:
            summary = checkpoints.prune(ROOM, dry_run=dry_run)[-1]
        finally:
            is_pruned.set()
        assert loads[0].result(SECONDS).data == LARGE
    assert (summary.deleted, summary.kept) == (2, 2)
    checkpoints.objects.after = nothing
    assert checkpoints.epochs(ROOM) == ([0, 1, 2, 3] if dry_run else [1, 3])
    assert checkpoints.prune(ROOM)[-1].deleted == (3 if dry_run else 1)
    with refused("CHECKPOINT_NOT_FOUND", "NOT_FOUND"):
        checkpoints.load(ROOM, epoch=1)
