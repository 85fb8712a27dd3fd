"""Two servers on one data directory: conditions hold among both, and the death of one is no harm to the other."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.paused_upload import PausedUpload
from tests.support.raw_blobs import delete, entries, get, get_with_etag, put, stat, stub_of
from tests.support.samples import MIB, sample
from tests.support.server_process import ServerProcess
from tests.support.statuses import refusal_of, refused
from tests.support.waiting import wait_until

WRITERS = 8
KEYS = 50
INCREMENTS = 10


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[ServerProcess]]:
    """Two servers on `tmp_path`."""
    with ServerProcess(tmp_path) as one, ServerProcess(tmp_path) as other:
        yield [one, other]


@pytest.fixture
def stubs(servers: list[ServerProcess]) -> Iterator[list[Any]]:
    """A stub of each server."""
    with ExitStack() as stack:
        yield [stub_of(stack.enter_context(grpc.insecure_channel(server.address))) for server in servers]


def outcome(stub: Any, key: str, data: bytes, **condition: Any) -> str:
    try:
        put(stub, key, data, **condition)
    except grpc.RpcError as error:
        return refusal_of(error).reason
    return "OK"


def test_of_many_who_create_through_both_one_wins(stubs: list[Any]) -> None:
    def create(key: str, writer: int) -> str:
        return outcome(stubs[writer % 2], key, b"by %d" % writer, create_only=True)

    with ThreadPoolExecutor(WRITERS) as pool:
        for key in (f"new/{number}/key" for number in range(KEYS)):
            came = list(pool.map(create, [key] * WRITERS, range(WRITERS)))
            assert Counter(came) == {"OK": 1, "ALREADY_EXISTS": WRITERS - 1}
            assert [get(stub, key) for stub in stubs] == [b"by %d" % came.index("OK")] * 2


def test_a_counter_kept_by_compare_and_set_through_both_is_exact(stubs: list[Any]) -> None:
    put(stubs[0], "counter", b"0")

    def increment(writer: int) -> None:
        stub = stubs[writer % 2]
        came = ""
        while came != "OK":
            number, etag = get_with_etag(stub, "counter")
            came = outcome(stub, "counter", b"%d" % (int(number) + 1), if_match_etag=etag)
            assert came in ("OK", "PRECONDITION_FAILED")

    with ThreadPoolExecutor(WRITERS) as pool:
        for _ in pool.map(increment, range(WRITERS * INCREMENTS)):
            pass
    assert [get(stub, "counter") for stub in stubs] == [b"%d" % (WRITERS * INCREMENTS)] * 2


def test_what_one_has_acknowledged_the_other_sees_at_once(stubs: list[Any]) -> None:
    for number in range(40):
        here, there = stubs[number % 2], stubs[1 - number % 2]
        key, data = f"shared/{number % 4}/key", sample(number * 10_000, seed=number)
        blob = put(here, key, data)
        assert stat(there, key) == blob
        assert get(there, key) == data
        assert key in [entry.key for entry in entries(there)]
        if number % 3 == 0:
            assert delete(there, key)  # with the directory that this empties
            with refused() as refusal:
                stat(here, key)
            assert refusal.code == "NOT_FOUND"
            assert not delete(here, key)


def test_puts_and_deletes_through_both_do_not_take_directories_from_each_other(stubs: list[Any]) -> None:
    def come_and_go(writer: int) -> None:
        stub = stubs[writer % 2]
        for turn in range(25):
            key = f"common/{turn % 2}/{writer}"
            put(stub, key, b"here")
            assert get(stub, key) == b"here"
            assert delete(stub, key)

    with ThreadPoolExecutor(WRITERS) as pool:
        for _ in pool.map(come_and_go, range(WRITERS)):
            pass
    assert [entries(stub) for stub in stubs] == [[], []]


def scratch_files(data: Path) -> list[Path]:
    return [path for path in data.glob("objects/scratch/*/*") if path.stat().st_size]


def test_the_death_of_one_is_no_harm_to_the_other(
    tmp_path: Path, servers: list[ServerProcess], stubs: list[Any]
) -> None:
    dying, living = servers
    put(stubs[0], "kept", b"by the dead")
    data = sample(MIB)
    with PausedUpload(dying.address, "lost", data) as lost, PausedUpload(living.address, "saved", data) as saved:
        wait_until(lambda: len(scratch_files(tmp_path)) == 2)
        dying.kill()
        with refused() as refusal:
            lost.finish()
        assert refusal.code == "UNAVAILABLE"
        put(stubs[1], "kept", b"by the living")
        with ServerProcess(tmp_path) as heir:
            # It has swept what the dead one left, and nothing of the living one's.
            assert len(scratch_files(tmp_path)) == 1
            assert len(list(tmp_path.glob("objects/scratch/*.lock"))) == 2
            saved.send(b"the rest")
            assert saved.finish().blob.size_bytes == MIB + 8
            with grpc.insecure_channel(heir.address) as channel:
                assert get(stub_of(channel), "saved") == data + b"the rest"
                assert get(stub_of(channel), "kept") == b"by the living"
                assert [entry.key for entry in entries(stub_of(channel))] == ["kept", "saved"]
    assert scratch_files(tmp_path) == []
