"""kill -9 in the middle of puts: what was acknowledged is there, what was not is there whole or not at all."""

from pathlib import Path
from typing import Any

import grpc

from tests.support.paused_upload import PausedUpload
from tests.support.raw_blobs import entries, get, put, stub_of
from tests.support.samples import MIB, sample
from tests.support.server_process import ServerProcess
from tests.support.statuses import refused
from tests.support.waiting import wait_until
from tests.support.writers import Ledger, Writers

ROUNDS = 3
WRITERS = 6


def check(stub: Any, ledger: Ledger) -> None:
    """Check that the store holds what it may by the ledger, and nothing else."""
    found = {entry.key: entry for entry in entries(stub)}
    assert not [entry for entry in found.values() if entry.damaged]
    assert found.keys() <= ledger.acknowledged.keys() | ledger.unanswered.keys()
    for key in ledger.acknowledged.keys() | ledger.unanswered.keys():
        data = get(stub, key) if key in found else None
        assert data in ledger.may_hold(key), key
        assert data is None or len(data) == found[key].size_bytes


def settle(stub: Any, ledger: Ledger) -> None:
    """Take what was not answered from the ledger, now that it is known what came of it."""
    found = {entry.key for entry in entries(stub)}
    for key, version in ledger.unanswered.items():
        if key in found and get(stub, key) == version.data:
            ledger.acknowledged[key] = version
    ledger.unanswered.clear()


def scratch(data: Path) -> list[str]:
    directory = data / "objects" / "scratch"
    return sorted(str(path.relative_to(directory)) for path in directory.glob("**/*"))


def has_only_its_own_and_that_is_empty(data: Path) -> bool:
    """Tell whether the scratch directory holds the lock and the empty directory of one process."""
    names = scratch(data)
    return len(names) == 2 and names[1] == names[0] + ".lock"


def test_a_killed_server_keeps_every_acknowledged_put(tmp_path: Path) -> None:
    ledger = Ledger()
    for round_ in range(ROUNDS):
        with ServerProcess(tmp_path) as server:
            assert has_only_its_own_and_that_is_empty(tmp_path)
            with grpc.insecure_channel(server.address) as channel:
                check(stub_of(channel), ledger)
                settle(stub_of(channel), ledger)
            names = f"{round_}/{{}}/{{}}".format
            with Writers(server.address, ledger, WRITERS, names) as writers:
                writers.wait_for(20 + 7 * round_)
                server.kill()
            assert writers.failures == [grpc.StatusCode.UNAVAILABLE] * WRITERS
    with ServerProcess(tmp_path) as server, grpc.insecure_channel(server.address) as channel:
        check(stub_of(channel), ledger)
        assert has_only_its_own_and_that_is_empty(tmp_path)
    assert scratch(tmp_path) == []


def test_a_server_killed_during_overwrites_leaves_the_old_blob_or_the_new_one(tmp_path: Path) -> None:
    ledger = Ledger()
    for round_ in range(ROUNDS):
        with ServerProcess(tmp_path) as server:
            with grpc.insecure_channel(server.address) as channel:
                check(stub_of(channel), ledger)
                settle(stub_of(channel), ledger)
            with Writers(server.address, ledger, WRITERS, lambda writer, _number: f"key/of/{writer}") as writers:
                writers.wait_for(30 + 7 * round_)
                server.kill()
    with ServerProcess(tmp_path) as server, grpc.insecure_channel(server.address) as channel:
        check(stub_of(channel), ledger)
        assert len(entries(stub_of(channel))) == WRITERS


def test_a_killed_server_leaves_no_lock_behind(tmp_path: Path) -> None:
    ledger = Ledger()
    with ServerProcess(tmp_path) as server, Writers(server.address, ledger, WRITERS, lambda *_: "contended") as writers:
        writers.wait_for(10)
        server.kill()
    with ServerProcess(tmp_path) as server, grpc.insecure_channel(server.address) as channel:
        assert put(stub_of(channel), "contended", b"free").size_bytes == 4


def test_half_an_upload_of_a_killed_server_is_swept_at_the_next_start(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server, PausedUpload(server.address, "half", sample(MIB)) as upload:
        wait_until(lambda: any(path.stat().st_size for path in tmp_path.glob("objects/scratch/*/*")))
        server.kill()
        with refused() as refusal:
            upload.finish()
        assert refusal.code == "UNAVAILABLE"
    assert len(scratch(tmp_path)) == 3
    with ServerProcess(tmp_path) as server, grpc.insecure_channel(server.address) as channel:
        assert has_only_its_own_and_that_is_empty(tmp_path)
        assert entries(stub_of(channel)) == []
