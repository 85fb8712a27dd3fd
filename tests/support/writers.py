"""Concurrent writers that put blobs until their server is gone, and the ledger of what it acknowledged."""

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc

from tests.support.raw_blobs import put, stub_of
from tests.support.samples import MIB, sample

SIZES = (0, 10, 5_000, 70_000, MIB, 2 * MIB + 5)

_WAIT_SECONDS = 60


@dataclass(frozen=True)
class Version:
    """A version of a blob: the bytes follow from the number."""

    number: int

    @property
    def data(self) -> bytes:
        """The bytes of this version."""
        return sample(SIZES[self.number % len(SIZES)], seed=self.number)


@dataclass
class Ledger:
    """Of each key the last acknowledged version, and the one that was sent and not answered."""

    acknowledged: dict[str, Version] = field(default_factory=dict)
    unanswered: dict[str, Version] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=itertools.count)
    """Of the versions, none of them twice."""

    def may_hold(self, key: str) -> list[bytes | None]:
        """Return what a key may hold; None: nothing."""
        old, new = self.acknowledged.get(key), self.unanswered.get(key)
        return [None if old is None else old.data, *([] if new is None else [new.data])]


class Writers:
    """`count` threads, each of which puts blob after blob until one fails.

    `key_of(writer, number)` names the blobs. On leaving the block all of them have ended.
    """

    def __init__(self, address: str, ledger: Ledger, count: int, key_of: Callable[[int, int], str]) -> None:
        self._address = address
        self._ledger = ledger
        self._key_of = key_of
        self._changed = threading.Condition()
        self._acknowledgements = 0
        self._acknowledged: set[int] = set()
        self._count = count
        self._is_given_up = False
        self.failures: list[grpc.StatusCode] = []
        """What ended the writers."""
        self._threads = [threading.Thread(target=self._run, args=(writer,)) for writer in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_given_up = error is not None
        for thread in self._threads:
            thread.join()  # each put has a time-out

    def wait_for(self, acknowledgements: int) -> None:
        """Return once so many puts were acknowledged, and one at least of each writer."""

        def have_come() -> bool:
            return self._acknowledgements >= acknowledgements and len(self._acknowledged) == self._count

        with self._changed:
            came = self._changed.wait_for(have_come, _WAIT_SECONDS)
        assert came, f"only {self._acknowledgements} puts were acknowledged: {self.failures}"

    def _run(self, writer: int) -> None:
        with grpc.insecure_channel(self._address) as channel:
            stub = stub_of(channel)
            try:
                for number in itertools.takewhile(lambda _: not self._is_given_up, itertools.count()):
                    self._put(stub, writer, self._key_of(writer, number))
            except grpc.RpcError as error:
                self.failures.append(error.code())

    def _put(self, stub: Any, writer: int, key: str) -> None:
        with self._changed:
            version = Version(next(self._ledger.numbers))
            self._ledger.unanswered[key] = version
        put(stub, key, version.data)
        with self._changed:
            self._ledger.acknowledged[key] = version
            self._ledger.unanswered.pop(key, None)
            self._acknowledgements += 1
            self._acknowledged.add(writer)
            self._changed.notify_all()
