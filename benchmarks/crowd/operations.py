"""What is done to one of many blobs, in process and over gRPC, and what it costs as a ratio."""

import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from benchmarks.crowd.stores import CROWDED, KEYS_PER_PREFIX, SMALL, VALUE, Crowd
from benchmarks.measure import Contender, Run, Series, rate, ratio, take_turns, timed
from benchmarks.table import Table, verdict, written
from benchmarks.traffic import Caller, CannedUpload
from holdfast.v1 import blob_store_pb2 as pb
from holdfast_server.blobs.address import BlobKey
from holdfast_server.blobs.lists import BlobQuery
from holdfast_server.blobs.store import BlobStore
from holdfast_server.objects.base import ObjectStore
from holdfast_server.objects.body import Chunk, Declared
from holdfast_server.pages import DEFAULT_PAGE_SIZE

MOST = 2.0
"""The most that anything may cost in the crowd, as a ratio."""

_ROLLED_UP = 10
"""Prefixes on a page with a delimiter: as many as there are in the small store."""


class Store(Protocol):
    """A store with a crowd in it, as a caller sees it."""

    @property
    def crowd(self) -> Crowd:
        """The keys that are in it."""

    @property
    def turn(self) -> int:
        """How many blobs one turn is about, each in a prefix picked anew; or ten times as many as pages."""

    def page(self, prefix: str, start_after: str, delimiter: str, page_size: int) -> int:
        """List one page, and return how many are on it."""

    def stat(self, key: str) -> None:
        """Look at a blob."""

    def get(self, key: str) -> None:
        """Get a blob."""

    def put(self, key: str) -> None:
        """Put a small blob."""

    def delete(self, key: str) -> bool:
        """Delete a blob, and tell whether there was one."""


class InProcess:
    """A store in this process, by the meaning of BlobStore."""

    turn = 500

    def __init__(self, crowd: Crowd, objects: ObjectStore) -> None:
        self.crowd = crowd
        self._blobs = BlobStore(objects)

    def page(self, prefix: str, start_after: str, delimiter: str, page_size: int) -> int:
        """List one page, and return how many are on it."""
        query = BlobQuery(prefix=prefix, start_after=start_after, delimiter=delimiter, page_size=page_size)
        page = self._blobs.list(query)
        return len(page.entries) + len(page.common_prefixes)

    def stat(self, key: str) -> None:
        """Look at a blob."""
        self._blobs.stat(BlobKey(key))

    def get(self, key: str) -> None:
        """Get a blob."""
        with self._blobs.get(BlobKey(key)) as reader:
            list(reader)

    def put(self, key: str) -> None:
        """Put a small blob."""
        self._blobs.put(BlobKey(key), [Chunk(VALUE)], declared=Declared(len(VALUE)))

    def delete(self, key: str) -> bool:
        """Delete a blob, and tell whether there was one."""
        return self._blobs.delete(BlobKey(key))


class Called:
    """A store behind a server."""

    turn = 100

    def __init__(self, crowd: Crowd, caller: Caller) -> None:
        self.crowd = crowd
        self._caller = caller
        self._upload = CannedUpload(VALUE, 1)

    def page(self, prefix: str, start_after: str, delimiter: str, page_size: int) -> int:
        """List one page, and return how many are on it."""
        request = pb.ListBlobsRequest(prefix=prefix, start_after=start_after, delimiter=delimiter, page_size=page_size)
        page = self._caller.stub.ListBlobs(request)
        return len(page.blobs) + len(page.common_prefixes)

    def stat(self, key: str) -> None:
        """Look at a blob."""
        self._caller.stub.StatBlob(pb.StatBlobRequest(key=key))

    def get(self, key: str) -> None:
        """Get a blob."""
        self._caller.download(key, 1)

    def put(self, key: str) -> None:
        """Put a small blob."""
        self._caller.upload(key, self._upload)

    def delete(self, key: str) -> bool:
        """Delete a blob, and tell whether there was one."""
        return bool(self._caller.stub.DeleteBlob(pb.DeleteBlobRequest(key=key)).existed)


def table(crowds: Mapping[str, Crowd]) -> Table:
    """Return an empty table for `add_rows`."""
    crowded, small = crowds[CROWDED], crowds[SMALL]
    title = (
        f"What one costs among {crowded.keys_count:,} blobs ({crowded.prefixes:,} prefixes of {KEYS_PER_PREFIX}), "
        f"and among {small.keys_count:,} ({small.prefixes:,} prefixes)"
    )
    return Table(title, ("measured", "where", CROWDED, SMALL, "cost as a ratio (min-max)", "target", ""))


def add_rows(found: Table, where: str, stores: Mapping[str, Store], rounds: int) -> None:
    """Measure each operation in both stores, and add its row."""
    prepared = {name: _Turns(store).contenders() for name, store in stores.items()}
    for operation in prepared[CROWDED]:
        contenders = {name: turns[operation] for name, turns in prepared.items()}
        series = take_turns(f"crowd, {where}, {operation}", contenders, rounds)
        cost = ratio(series[SMALL], series[CROWDED])  # of rates: the other way round is that of costs
        found.rows.append(
            (
                operation,
                where,
                _cost(series[CROWDED]),
                _cost(series[SMALL]),
                written(cost),
                f"<= {MOST:.2f}",
                verdict(cost.median <= MOST),
            )
        )


class _Turns:
    """The turns of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._crowd = store.crowd
        self._chance = random.Random(1)  # noqa: S311 (no secret)

    def contenders(self) -> dict[str, Contender]:
        """Return what one turn of each operation is."""
        store, turn = self._store, self._turn
        middle = self._crowd.prefix(self._crowd.prefixes // 2)
        return {
            f"page of {KEYS_PER_PREFIX}, one prefix": partial(turn, self._page, self._few_prefixes),
            f"page of {KEYS_PER_PREFIX}, amid all": partial(turn, lambda _: self._page("", middle), self._few_prefixes),
            f"page of {DEFAULT_PAGE_SIZE:,}, from the first": partial(
                turn, lambda _: self._first_page(), self._few_prefixes
            ),
            f"page of {_ROLLED_UP} prefixes": partial(turn, lambda _: self._rolled_up(), self._few_prefixes),
            "stat": partial(turn, store.stat, self._there),
            "get": partial(turn, store.get, self._there),
            "put that creates": partial(turn, store.put, self._new, after=store.delete),
            "put that overwrites": partial(turn, store.put, self._there),
            "delete": partial(turn, store.delete, self._new, before=store.put),
            "put, first of its prefix": partial(turn, store.put, self._alone, after=store.delete),
            "delete, last of its prefix": partial(turn, store.delete, self._alone, before=store.put),
        }

    def _turn(
        self,
        work: Callable[[str], object],
        names: Callable[[], list[str]],
        before: Callable[[str], object] = lambda _: None,
        after: Callable[[str], object] = lambda _: None,
    ) -> Run:
        picked = names()
        for name in picked:
            before(name)
        run = timed(len(picked), lambda: [work(name) for name in picked])
        for name in picked:
            after(name)
        return run

    def _page(self, prefix: str, start_after: str = "") -> None:
        _check(self._store.page(prefix, start_after, "", KEYS_PER_PREFIX), KEYS_PER_PREFIX)

    def _first_page(self) -> None:
        _check(self._store.page("", "", "", DEFAULT_PAGE_SIZE), DEFAULT_PAGE_SIZE)

    def _rolled_up(self) -> None:
        _check(self._store.page("", "", "/", _ROLLED_UP), _ROLLED_UP)

    def _prefixes(self, count: int) -> list[str]:
        return [self._crowd.prefix(self._chance.randrange(self._crowd.prefixes)) for _ in range(count)]

    def _few_prefixes(self) -> list[str]:
        return self._prefixes(self._store.turn // 10)

    def _there(self) -> list[str]:
        return [
            f"{prefix}key-{self._chance.randrange(KEYS_PER_PREFIX):03}" for prefix in self._prefixes(self._store.turn)
        ]

    def _new(self) -> list[str]:
        return [f"{prefix}new-{number}" for number, prefix in enumerate(self._prefixes(self._store.turn))]

    def _alone(self) -> list[str]:
        return [f"prefix-{number:06}x/alone" for number in range(self._store.turn)]


def _check(found: int, wanted: int) -> None:
    if found != wanted:
        raise RuntimeError(f"a page has {found} entries instead of {wanted}")


def _cost(series: Series) -> str:
    return f"{1e6 / rate(series):,.0f} us"
