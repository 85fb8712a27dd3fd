"""Does tasks, a few at once, until they end or somebody wants them to."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Protocol

from holdfast_server import calls
from holdfast_server.errors import (
    BackendRefused,
    Cancelled,
    ConcurrentModification,
    HoldfastError,
    ReadOnly,
    StorageFull,
    Unavailable,
)
from holdfast_server.objects.base import Entry, ListQuery, ObjectStore
from holdfast_server.transfer.outcome import Done, Outcome, Task

_WAITING_TASKS_PER_JOB = 2
"""How many tasks are listed ahead, so that no job waits for a list."""

_TRIES = 5


class Stopped(Exception):
    """All further objects would fail, too; the message says why."""


class Patience(Protocol):
    """What can be done about a store that is away."""

    def wait(self) -> bool:
        """Wait until it can be used again, and tell whether there was anything to wait for. Raises `Stopped`."""


def work_off(tasks: Iterator[Task], jobs: int, tell: Callable[[Done], None], is_stopping: Callable[[], bool]) -> None:
    """Do the tasks, `jobs` at once, and tell of each; `tell` is called by this thread alone.

    No more than a few tasks for each job are taken ahead. Once `is_stopping` holds no further one is begun, and those
    at work end unfinished. Raises `Stopped`, `HoldfastError` where the tasks themselves cannot be listed, and what they
    raise else.
    """
    failed = threading.Event()
    call = calls.Call(is_active=lambda: not (is_stopping() or failed.is_set()))
    pending: set[Future[Done]] = set()

    def do(task: Task) -> Done:
        try:
            with calls.working_for(call):
                calls.check()
                return task()
        except Cancelled:
            raise
        except BaseException:
            failed.set()  # so that the others end, too
            raise

    def settle(most: int) -> None:
        while len(pending) > most:
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                pending.discard(future)
                with suppress(Cancelled):
                    tell(future.result())

    with ThreadPoolExecutor(jobs, thread_name_prefix="transfer") as pool:
        try:
            with calls.working_for(call), suppress(Cancelled):
                for task in tasks:
                    settle(jobs * _WAITING_TASKS_PER_JOB)
                    calls.check()
                    pending.add(pool.submit(do, task))
            settle(0)
        except BaseException:
            failed.set()
            # What was finished meanwhile counts all the same.
            for future in pending:
                with suppress(BaseException):
                    tell(future.result())
            raise


def attempted(name: str, act: Task, patience: Patience) -> Done:
    """Return what `act` returns, or that it failed and why; it is tried again where that may help.

    Raises `Stopped` where all others would fail as well, and `Cancelled`.
    """
    for tries_left in reversed(range(_TRIES)):
        try:
            return act()
        except Cancelled:
            raise
        except (BackendRefused, ReadOnly, StorageFull) as error:
            raise Stopped(error.message) from error
        except ConcurrentModification as error:
            if not tries_left:
                return failure(name, error.message)
        except Unavailable as error:
            if not tries_left or not patience.wait():
                return failure(name, error.message)
        except HoldfastError as error:
            return failure(name, error.message)
    raise AssertionError("the last try returns")


def failure(name: str, why: str) -> Done:
    """Return that an object was not copied."""
    return Done(name, Outcome.FAILED, why=why)


def listed(store: ObjectStore, query: ListQuery, patience: Patience) -> Iterator[Entry]:
    """Yield the objects of a list, and go on behind the last one after the store was away."""
    tries_left = _TRIES
    while True:
        try:
            for item in store.list(query):
                if isinstance(item, Entry):
                    yield item
                    query = ListQuery(query.prefix, item.name, skip=query.skip)
                    tries_left = _TRIES
        except Unavailable:
            tries_left -= 1
            if not tries_left or not patience.wait():
                raise
        else:
            return
