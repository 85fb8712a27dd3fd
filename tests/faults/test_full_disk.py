"""A disk that is full, seen from outside: it is told as that, what is there stays, and a delete makes room."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.raw_blobs import delete, entries, get, put, stat, stub_of
from tests.support.samples import MIB, sample
from tests.support.server_process import ServerProcess
from tests.support.small_disk import NoNamespace, SmallDisk
from tests.support.statuses import refused

SIZE = MIB // 2


@pytest.fixture(params=["size=8m", "nr_inodes=121"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk that is soon full: of bytes, or of files."""
    try:
        small = SmallDisk(tmp_path, request.param)
    except NoNamespace as missing:
        pytest.skip(f"a full disk needs a mount namespace: {missing}")
    with small:
        yield small


@pytest.fixture
def server(disk: SmallDisk, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server on that disk."""
    with ServerProcess(tmp_path / "data", wrapper=disk.wrapper) as process:
        yield process


@pytest.fixture
def stub(server: ServerProcess) -> Iterator[Any]:
    """A stub of the server."""
    with grpc.insecure_channel(server.address) as channel:
        yield stub_of(channel)


def data_of(number: int) -> bytes:
    return sample(SIZE, seed=number)


def fill(stub: Any) -> list[str]:
    """Put blobs until no more fit, and return the keys of those that did."""
    keys: list[str] = []
    with refused() as refusal:
        while len(keys) < 1000:
            put(stub, f"full/{len(keys)}", data_of(len(keys)))
            keys.append(f"full/{len(keys)}")
    assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "STORAGE_FULL")
    assert refusal.message == f"key 'full/{len(keys)}': the disk is full"
    return keys


def check(stub: Any, disk: SmallDisk, keys: list[str]) -> None:
    """Check that these blobs are there and whole, and nothing else, half uploads included."""
    assert sorted(entry.key for entry in entries(stub)) == sorted(keys)
    for number, key in enumerate(keys):
        assert get(stub, key) == data_of(number)
    assert list(disk.seen_from_outside.glob("data/objects/scratch/*/*")) == []


def test_a_put_that_finds_the_disk_full_says_so_and_leaves_the_store_as_it_was(stub: Any, disk: SmallDisk) -> None:
    keys = fill(stub)
    assert len(keys) > 5
    for key in ("another", "full/new/key"):
        with refused() as refusal:
            put(stub, key, data_of(0))
        assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "STORAGE_FULL")
        with refused() as missing:
            stat(stub, key)
        assert missing.code == "NOT_FOUND"
    check(stub, disk, keys)


def test_an_overwrite_that_finds_the_disk_full_leaves_the_old_blob(stub: Any, disk: SmallDisk) -> None:
    keys = fill(stub)
    with refused() as refusal:
        put(stub, keys[0], sample(2 * MIB))
    assert refusal.reason == "STORAGE_FULL"
    check(stub, disk, keys)


def test_room_is_usable_again_after_a_delete(stub: Any, disk: SmallDisk) -> None:
    keys = fill(stub)
    for _ in range(3):
        assert delete(stub, keys[-1])
        put(stub, keys[-1], data_of(len(keys) - 1))
    check(stub, disk, keys)
    assert all(delete(stub, key) for key in keys)
    assert len(fill(stub)) >= len(keys)


def test_a_server_that_was_killed_starts_again_on_the_full_disk(
    server: ServerProcess, stub: Any, disk: SmallDisk, tmp_path: Path
) -> None:
    keys = fill(stub)
    server.kill()
    with (
        ServerProcess(tmp_path / "data", wrapper=disk.wrapper) as again,
        closing(grpc.insecure_channel(again.address)) as channel,
    ):
        check(stub_of(channel), disk, keys)
        assert delete(stub_of(channel), keys[0])
        put(stub_of(channel), keys[0], data_of(0))
