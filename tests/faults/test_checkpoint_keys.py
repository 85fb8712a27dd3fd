"""Servers without a key ring, with one that comes, changes or differs, and on a store that ignores conditions."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from holdfast_server.checkpoints import key_file
from holdfast_server.checkpoints.key_ring import KeyRing, KeyState, SealKey
from tests.support import raw_blobs
from tests.support.checkpoint_calls import (
    confirm,
    delete_room,
    entries,
    hibernate,
    load,
    load_refused,
    prune,
    restore,
    restore_refused,
    rooms,
    save,
    stub_of,
)
from tests.support.checkpoint_damage import reason
from tests.support.s3_servers import MinioServer, RcloneServer
from tests.support.s3_stores import fresh_bucket, s3_environment
from tests.support.server_health import is_ready, is_serving, not_ready_reason
from tests.support.server_metrics import metric
from tests.support.server_process import ServerProcess
from tests.support.statuses import refused
from tests.support.waiting import wait_until

ROOM = "arena/7"
DATA = b"the state of the room"
RING_SECONDS = 60
"""What "within seconds" may mean on a machine that is busy."""


class Running:
    """A server, with its stubs."""

    def __init__(self, server: ServerProcess, channel: grpc.Channel) -> None:
        self.server = server
        self.channel = channel
        self.stub = stub_of(channel)
        self.blobs = raw_blobs.stub_of(channel)

    def serves_checkpoints(self) -> bool:
        return is_serving(self.channel, "CheckpointStore")

    def check_the_rest_serves(self) -> None:
        """Check that the server is ready, and serves all but checkpoints."""
        assert is_ready(self.server)
        assert is_serving(self.channel)
        assert is_serving(self.channel, "BlobStore")
        raw_blobs.put(self.blobs, "blob", b"x")
        assert raw_blobs.get(self.blobs, "blob") == b"x"
        assert not_ready_reason(self.channel, "BlobStore") == "UNSPECIFIED"


@contextmanager
def running(data: Path | None = None, /, **environment: str) -> Iterator[Running]:
    with ServerProcess(data, env=environment) as server, grpc.insecure_channel(server.address) as channel:
        yield Running(server, channel)


@pytest.fixture
def bucket(minio: MinioServer) -> dict[str, str]:
    """The variables for servers on one bucket."""
    return s3_environment(minio, fresh_bucket())


def with_ring(environment: dict[str, str], ring: Path) -> dict[str, str]:
    return environment | {"HOLDFAST_CHECKPOINT_STORE__KEY_RING": str(ring)}


def serving(server: ServerProcess, service: str) -> float:
    return metric(server, "holdfast_service_serving", service=f"holdfast.v1.{service}")


def refusals_of(stub: Any, code: str, why: str) -> None:
    """Check that every call that takes a key is refused so."""
    calls: list[Callable[[], object]] = [
        lambda: save(stub, ROOM, 1, DATA),
        lambda: hibernate(stub, ROOM, DATA),
    ]
    for call in calls:
        with refused() as refusal:
            call()
        assert (refusal.code, refusal.reason) == (code, why)


def test_without_a_ring_checkpoints_are_not_served_and_all_else_is(bucket: dict[str, str], tmp_path: Path) -> None:
    ring = tmp_path / "ring.json"
    for environment in (bucket, with_ring(bucket, ring)):
        with running(**environment) as one:
            assert not one.serves_checkpoints()
            assert not_ready_reason(one.channel, "CheckpointStore") == "SEAL_KEY_UNAVAILABLE"
            refusals_of(one.stub, "FAILED_PRECONDITION", "SEAL_KEY_UNAVAILABLE")
            one.check_the_rest_serves()
            assert not ring.exists()  # a ring of its own would be known to no other server
            assert one.server.wait_for_log("CheckpointStore cannot be used")


def test_a_ring_that_comes_is_used_without_a_restart(bucket: dict[str, str], tmp_path: Path) -> None:
    ring = tmp_path / "ring.json"
    with running(**with_ring(bucket, ring)) as one:
        assert not one.serves_checkpoints()
        assert [serving(one.server, service) for service in ("CheckpointStore", "BlobStore", "Server")] == [0, 1, 1]
        key_file.create(ring, KeyRing.fresh())
        wait_until(one.serves_checkpoints, RING_SECONDS)
        wait_until(lambda: serving(one.server, "CheckpointStore") == 1)
        assert not_ready_reason(one.channel, "CheckpointStore") == "UNSPECIFIED"
        save(one.stub, ROOM, 1, DATA)
        assert load(one.stub, ROOM)[1] == DATA
        one.check_the_rest_serves()


def test_a_ring_that_others_may_read_is_none_until_that_is_mended(bucket: dict[str, str], tmp_path: Path) -> None:
    ring = tmp_path / "ring.json"
    key_file.create(ring, KeyRing.fresh())
    ring.chmod(0o644)
    with running(**with_ring(bucket, ring)) as one:
        assert not one.serves_checkpoints()
        refusals_of(one.stub, "FAILED_PRECONDITION", "SEAL_KEY_UNAVAILABLE")
        ring.chmod(0o600)
        wait_until(one.serves_checkpoints, RING_SECONDS)
        save(one.stub, ROOM, 1, DATA)


def test_a_ring_that_is_lost_is_not_made_anew_over_what_it_sealed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data) as one:
        save(one.stub, ROOM, 1, DATA)
    lost = (data / "keys.json").rename(tmp_path / "keys.json")
    with running(data) as one:
        assert not (data / "keys.json").exists()
        assert not one.serves_checkpoints()
        assert not_ready_reason(one.channel, "CheckpointStore") == "SEAL_KEY_UNAVAILABLE"
        refusal = load_refused(one.stub, ROOM)
        assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "SEAL_KEY_UNAVAILABLE")
        one.check_the_rest_serves()
        lost.rename(data / "keys.json")
        wait_until(one.serves_checkpoints, RING_SECONDS)
        assert load(one.stub, ROOM)[1] == DATA


LOST = "Checkpoints are stored, and no key ring to read them with"


def test_the_log_says_that_a_new_ring_would_not_do(bucket: dict[str, str], tmp_path: Path) -> None:
    ring = tmp_path / "ring.json"
    with running(**with_ring(bucket, ring)) as one:
        key_file.create(ring, KeyRing.fresh())
        wait_until(one.serves_checkpoints, RING_SECONDS)
        save(one.stub, ROOM, 1, DATA)
        assert not [line for line in one.server.log if LOST in line]
    ring.unlink()
    with running(**with_ring(bucket, ring)) as one:
        wait_until(lambda: any(LOST in line for line in one.server.log), RING_SECONDS)
        assert "bring it back from its backup" in next(line for line in one.server.log if LOST in line)


def test_nor_over_a_room_that_was_only_hibernated(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data) as one:
        hibernate(one.stub, ROOM, DATA)
    (data / "keys.json").unlink()
    with running(data) as one:
        assert not (data / "keys.json").exists()
        assert restore_refused(one.stub, ROOM).reason == "SEAL_KEY_UNAVAILABLE"


def rotate(path: Path) -> str:
    """Add a key that signs from now on, and return the id of the one before."""
    fresh = SealKey.fresh(KeyState.VERIFYING)
    before, _ = key_file.change(path, lambda ring: ring.with_key(fresh).rotated(fresh.id))
    return before.signing.id.hex()


def key_of(stub: Any, epoch: int) -> str:
    return load(stub, ROOM, epoch=epoch)[0].key_id


def test_keys_are_rotated_and_retired_while_it_serves(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data) as one:
        save(one.stub, ROOM, 1, DATA)
        snapshot = hibernate(one.stub, "sleeper", DATA)
        old = rotate(data / "keys.json")
        epochs = iter(range(2, 10_000))

        def is_rotated() -> bool:
            return save(one.stub, ROOM, next(epochs), DATA).checkpoint.key_id != old

        wait_until(is_rotated, RING_SECONDS)
        assert key_of(one.stub, 1) == old
        assert load(one.stub, ROOM)[0].key_id != old
        assert restore(one.stub, "sleeper")[1] == DATA

        key_file.change(data / "keys.json", lambda ring: ring.retired(bytes.fromhex(old)))
        wait_until(lambda: entries(one.stub, ROOM)[0].status.code != 0, RING_SECONDS)
        for refusal in (load_refused(one.stub, ROOM, epoch=1), restore_refused(one.stub, "sleeper")):
            assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "SEAL_KEY_UNAVAILABLE")
            assert refusal.names["key_id"] == old
        assert entries(one.stub, ROOM)[0].status.reason == reason("SEAL_KEY_UNAVAILABLE")
        with refused() as refusal:
            confirm(one.stub, snapshot, snapshot.sha256)
        assert refusal.reason == "SEAL_KEY_UNAVAILABLE"
        assert load(one.stub, ROOM)[1] == DATA
        assert one.serves_checkpoints()

        key_file.change(data / "keys.json", lambda ring: ring.readmitted(bytes.fromhex(old)))
        wait_until(lambda: entries(one.stub, ROOM)[0].status.code == 0, RING_SECONDS)
        assert load(one.stub, ROOM, epoch=1)[1] == restore(one.stub, "sleeper")[1] == DATA


def test_what_another_ring_sealed_is_neither_damage_nor_harmed(bucket: dict[str, str], tmp_path: Path) -> None:
    rings = [tmp_path / "one.json", tmp_path / "other.json"]
    for path in rings:
        key_file.create(path, KeyRing.fresh())
    with running(**with_ring(bucket, rings[0])) as one, running(**with_ring(bucket, rings[1])) as other:
        for epoch in (1, 2):
            save(one.stub, ROOM, epoch, DATA)
        hibernate(one.stub, ROOM, DATA)
        save(other.stub, "other", 1, DATA)
        unavailable = ("FAILED_PRECONDITION", "SEAL_KEY_UNAVAILABLE")
        for refusal in (
            load_refused(other.stub, ROOM),
            load_refused(other.stub, ROOM, fallback=True),
            load_refused(other.stub, ROOM, epoch=1),
            load_refused(other.stub, ROOM, epoch=2, fallback=True),
            restore_refused(other.stub, ROOM),
        ):
            assert (refusal.code, refusal.reason) == unavailable
        for call in (
            lambda: save(other.stub, ROOM, 3, DATA),
            lambda: save(other.stub, ROOM, 3, DATA, replace_damaged_pointer=True),
            lambda: prune(other.stub, ROOM),
            lambda: delete_room(other.stub, ROOM),
            lambda: hibernate(other.stub, ROOM, DATA, create_only=True),
        ):
            with refused() as refusal:
                call()
            assert (refusal.code, refusal.reason) == unavailable
        told = {each.room_id: each.status.reason for each in rooms(other.stub)}
        assert told == {ROOM: reason("SEAL_KEY_UNAVAILABLE"), "other": 0}
        assert prune(other.stub).deleted == 0
        for epoch in (1, 2):
            assert load(one.stub, ROOM, epoch=epoch)[1] == DATA
        assert load(one.stub, ROOM)[0].epoch == 2
        assert restore(one.stub, ROOM)[1] == DATA


def test_a_store_that_ignores_conditions_keeps_no_pointer(rclone: RcloneServer, tmp_path: Path) -> None:
    ring = tmp_path / "ring.json"
    key_file.create(ring, KeyRing.fresh())
    environment = with_ring(s3_environment(rclone, fresh_bucket()), ring)
    with running(**environment) as one:
        wait_until(lambda: not one.serves_checkpoints(), RING_SECONDS)
        assert not_ready_reason(one.channel, "CheckpointStore") == "CONDITION_UNSUPPORTED"
        refusals_of(one.stub, "FAILED_PRECONDITION", "CONDITION_UNSUPPORTED")
        one.check_the_rest_serves()
    with running(**environment, HOLDFAST_S3__SINGLE_WRITER="true") as one:
        assert one.serves_checkpoints()
        for epoch in (1, 2, 1):
            save(one.stub, ROOM, epoch, DATA)
        info, data = load(one.stub, ROOM)
        assert (info.epoch, data) == (2, DATA)
