"""The spool is full: whoever needs room there is told what to do instead, and nothing else suffers."""

import errno
import hashlib
import os
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from holdfast_server.errors import BrokenUpload, Reason, StorageFull
from holdfast_server.objects.base import ListQuery
from holdfast_server.objects.body import Body, Chunk, Declared
from holdfast_server.objects.spool import Spool
from tests.support.disk_operations import KEY, content
from tests.support.paused_upload import PausedUpload
from tests.support.raw_blobs import entries, get, put, stub_of
from tests.support.s3_operations import LARGE, NEW
from tests.support.s3_servers import MotoServer
from tests.support.s3_stores import OpenedStore, s3_environment
from tests.support.samples import MIB, sample
from tests.support.server_metrics import metric
from tests.support.server_process import ServerProcess
from tests.support.statuses import refused
from tests.support.waiting import wait_until

ROOM = 8 * MIB
"""For one large object, and not for two."""


@pytest.fixture(scope="module")
def server(moto: MotoServer) -> Iterator[ServerProcess]:
    """A server with a small spool."""
    with ServerProcess(env={**s3_environment(moto), "HOLDFAST_SPOOL_MAX_BYTES": str(ROOM)}) as process:
        yield process


@pytest.fixture
def stub(server: ServerProcess) -> Iterator[Any]:
    """A stub of it."""
    with grpc.insecure_channel(server.address) as channel:
        yield stub_of(channel)


def spooled(server: ServerProcess) -> float:
    return metric(server, "holdfast_spool_used_bytes")


def test_an_upload_that_does_not_fit_is_told_what_to_do_and_leaves_nothing(server: ServerProcess, stub: Any) -> None:
    with refused() as refusal:
        put(stub, "k", sample(2 * ROOM))
    assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "SPOOL_FULL")
    assert "declares its sha256" in refusal.message
    assert str(ROOM) in refusal.message
    assert "k" not in [entry.key for entry in entries(stub)]
    wait_until(lambda: spooled(server) == 0)
    put(stub, "k", LARGE)
    assert get(stub, "k") == LARGE
    assert spooled(server) == 0


def test_others_do_without_the_room_that_one_has_taken(server: ServerProcess, stub: Any) -> None:
    data = sample(7 * MIB)
    with PausedUpload(server.address, "slow", data[:MIB]) as slow:
        for start in range(MIB, len(data), MIB):
            slow.send(data[start : start + MIB])
        wait_until(lambda: spooled(server) + len(LARGE) > ROOM)
        with refused() as refusal:
            put(stub, "another", LARGE)
        assert refusal.reason == "SPOOL_FULL"
        put(stub, "declared", LARGE, sha256=hashlib.sha256(LARGE).digest())
        put(stub, "small", NEW)
        assert get(stub, "declared") == LARGE
        slow.finish()
    assert get(stub, "slow") == data
    wait_until(lambda: spooled(server) == 0)
    put(stub, "another", LARGE)


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Spool:
    """A small spool."""
    return Spool(tmp_path_factory.mktemp("spool"), ROOM)


@pytest.fixture(scope="module")
def store(moto: MotoServer, spool: Spool) -> Iterator[OpenedStore]:
    """A store with it."""
    with OpenedStore(moto, spool=spool) as opened:
        opened.empty()
        yield opened


def broken_off() -> Iterator[Chunk]:
    yield Chunk(LARGE)
    raise ConnectionAbortedError


FAILURES: dict[str, tuple[Body, type[Exception]]] = {
    "too large": (Body.of(sample(2 * ROOM)), StorageFull),
    "broken off": (Body(broken_off()), ConnectionAbortedError),
    "shorter than declared": (Body([Chunk(LARGE)], Declared(len(LARGE) + 1)), BrokenUpload),
}


@pytest.mark.parametrize(("body", "error"), FAILURES.values(), ids=FAILURES)
def test_an_upload_that_fails_gives_its_room_back(
    store: OpenedStore, spool: Spool, body: Body, error: type[Exception]
) -> None:
    with pytest.raises(error):
        store.store.put(KEY, body)
    assert spool.used_bytes == 0
    assert list(store.store.list(ListQuery())) == []


def test_a_full_disk_is_a_full_spool(store: OpenedStore, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int, _data: memoryview, _offset: int) -> int:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(StorageFull, match="the disk of the spool is full") as refusal:
            store.store.put(KEY, Body.of(LARGE))
        assert refusal.value.reason is Reason.SPOOL_FULL
    assert spool.used_bytes == 0
    store.store.put(KEY, Body.of(LARGE))
    assert content(store.store, KEY) == LARGE
