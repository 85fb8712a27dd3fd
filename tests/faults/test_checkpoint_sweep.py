"""The 1st, 2nd, 3rd ... operation on the backend fails, or is the last that a process does: nothing good is lost.

Each of them once before it is done, and once when it was done and nobody was told.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from tempfile import mkdtemp

import pytest

from holdfast_server.errors import Unavailable
from holdfast_server.objects.base import ObjectStore
from holdfast_server.objects.filesystem import FilesystemStore
from holdfast_server.objects.memory import MemoryStore
from holdfast_server.workers import Workers
from tests.support.checkpoint_scenarios import SCENARIOS, Scenario, Stage
from tests.support.checkpoint_stores import checkpoint_store
from tests.support.failing_store import FailingStore, Killed


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    """Threads."""
    workers = Workers()
    yield workers
    workers.close()


@pytest.fixture(params=["memory", "filesystem"])
def open_objects(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], ObjectStore]:
    """What opens an empty backend, again and again."""
    if request.param == "memory":
        return MemoryStore
    return lambda: FilesystemStore(Path(mkdtemp(dir=tmp_path)))


@pytest.mark.parametrize("kill", [False, True], ids=["fails", "kills"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_failure_of_any_operation_loses_nothing_and_a_repetition_converges(
    open_objects: Callable[[], ObjectStore], workers: Workers, scenario: type[Scenario], after: bool, kill: bool
) -> None:
    for nth in count(1):
        with closing(open_objects()) as objects:
            if not is_met(scenario(), objects, workers, nth, after=after, kill=kill):
                assert nth > 1
                return


def is_met(scenario: Scenario, objects: ObjectStore, workers: Workers, nth: int, *, after: bool, kill: bool) -> bool:
    """Fail the `nth` operation of a scenario, and check what comes of it; tell whether there were as many."""
    failing = FailingStore(objects)
    store, other = checkpoint_store(failing, workers), checkpoint_store(failing, workers)
    prepared = scenario.prepare(Stage(store, other, objects, failing, workers))
    failing.fail(nth, after=after, kill=kill)
    with suppress(Unavailable, Killed):
        scenario.do(store, prepared)
    met = failing.heal()
    if met:
        scenario.meanwhile(checkpoint_store(failing, workers))
        scenario.do(checkpoint_store(failing, workers) if kill else store, prepared)
    survivors = [checkpoint_store(failing, workers), *([] if kill else [store])]
    for each in (*survivors, other):
        scenario.afterwards(each)
    return met
