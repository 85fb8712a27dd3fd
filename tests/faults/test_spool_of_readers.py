"""Readers that take their time leave room in the spool: for who saves, and for who repeats a save."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from holdfast.v1 import checkpoint_store_pb2 as pb
from tests.support.checkpoint_calls import hibernate, load, load_refused, restore_refused, save, stub_of
from tests.support.s3_servers import MotoServer
from tests.support.s3_stores import s3_environment
from tests.support.samples import MIB, sample
from tests.support.server_metrics import metric
from tests.support.server_process import ServerProcess
from tests.support.stalled_calls import stalled_downloads
from tests.support.statuses import refused
from tests.support.waiting import wait_until

SPOOL = 32 * MIB
LARGE = sample(6 * MIB)
"""On S3 a save of it needs the spool."""

READ = LARGE[: -MIB // 16]
"""Four of them take a little less than three quarters of the spool."""


@pytest.fixture(scope="module", params=["filesystem", "s3"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a small spool, and the room `large` that its readers want."""
    directory: Path = tmp_path_factory.mktemp("readers")
    environment = {
        "HOLDFAST_SPOOL_DIR": str(directory / "spool"),
        "HOLDFAST_SPOOL_MAX_BYTES": str(SPOOL),
        "HOLDFAST_CHECKPOINT_STORE__KEY_RING": str(directory / "keys.json"),
    }
    data: Path | None = directory / "data"
    if request.param == "s3":
        moto: MotoServer = request.getfixturevalue("moto")
        with ServerProcess(data, env=environment):
            pass  # it makes the key ring
        environment |= s3_environment(moto, single_writer="true")
        data = None
    with ServerProcess(data, env=environment) as process:
        with grpc.insecure_channel(process.address) as channel:
            save(stub_of(channel), "large", 1, READ)
            hibernate(stub_of(channel), "large", READ)
        yield process


@pytest.fixture
def stub(server: ServerProcess) -> Iterator[Any]:
    wait_until(lambda: metric(server, "holdfast_spool_used_bytes") == 0)  # the readers of the test before are gone
    with grpc.insecure_channel(server.address) as channel:
        yield stub_of(channel)


def test_readers_that_take_nothing_leave_a_quarter_to_who_saves(server: ServerProcess, stub: Any) -> None:
    with (
        stalled_downloads(server.address, "LoadCheckpoint", calls=2),
        stalled_downloads(server.address, "RestoreRoom", calls=2),
    ):
        assert metric(server, "holdfast_spool_used_bytes") <= SPOOL * 3 // 4
        for refusal in (load_refused(stub, "large"), restore_refused(stub, "large")):
            assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "SPOOL_FULL")
            assert f"of {SPOOL * 3 // 4}, three quarters of spool_max_bytes" in refusal.message
        save(stub, "other", 1, LARGE)
        # The same once more, which is read to see that it is the same.
        assert save(stub, "other", 1, LARGE).outcome == pb.SAVE_OUTCOME_EXISTS_SAME
        hibernate(stub, "other", LARGE)
    wait_until(lambda: metric(server, "holdfast_spool_used_bytes") == 0)
    assert load(stub, "other")[1] == LARGE


def test_what_is_small_needs_no_room_to_leave(server: ServerProcess, stub: Any) -> None:
    save(stub, "small", 1, sample(MIB))
    with stalled_downloads(server.address, "LoadCheckpoint", calls=4):
        assert load(stub, "small")[1] == sample(MIB)


def test_what_is_larger_than_the_share_of_readers_is_loaded_where_no_other_waits(
    server: ServerProcess, stub: Any
) -> None:
    huge = sample(SPOOL * 7 // 8)
    save(stub, "huge", 1, huge)
    with stalled_downloads(server.address, "LoadCheckpoint", calls=1):
        assert load_refused(stub, "huge").reason == "SPOOL_FULL"
    wait_until(lambda: metric(server, "holdfast_spool_used_bytes") == 0)
    assert load(stub, "huge")[1] == huge


@pytest.mark.parametrize("server", ["s3"], indirect=True)
def test_a_save_for_which_there_is_no_room_is_told_what_helps_a_save(server: ServerProcess, stub: Any) -> None:
    with refused() as refusal:
        save(stub, "larger", 1, sample(SPOOL + MIB), sha256=hashlib.sha256(sample(SPOOL + MIB)).digest())
    assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "SPOOL_FULL")
    assert "spool_max_bytes" in refusal.message
    assert "sha256" not in refusal.message
