"""Taking over from shellcade with the commands themselves: a bucket and a directory, loaded, migrated, and new then."""

import hashlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import pytest

import holdfast
from tests.support import documents
from tests.support.any_checkpoints import epoch_name, pointer_name
from tests.support.child_processes import killed_on_failure
from tests.support.legacy_forms import SECRET, flat, lay, room_of, tagged
from tests.support.s3_servers import S3Server
from tests.support.s3_stores import fresh_bucket, s3_environment
from tests.support.samples import MIB, sample
from tests.support.server_process import ServerProcess
from tests.support.transfers import (
    LOCK_PATIENCE,
    command,
    data_store,
    environment,
    held_back,
    objects_in,
    put_all,
    run,
    write_tree,
)
from tests.support.waiting import wait_until

OPERATIONS = (Path(__file__).parents[2] / "docs/operations.md").read_text()
LEGACY = {"HOLDFAST_CHECKPOINT_STORE__LEGACY": "true"}

EPOCHS = 400
"""More than are migrated before a signal comes."""

ROOMS = {
    "ada/maze-1": {6: b"before", 7: sample(3 * MIB)},
    "ada/maze-2": {0: b""},
    "duel": {epoch: b"state %d" % epoch for epoch in range(5)},
}
SLEEPERS = {"ada/maze-9": sample(MIB + 1), "napper": b"zzz"}


def objects_of(rooms: Mapping[str, Mapping[int, bytes]], sleepers: Mapping[str, bytes]) -> dict[str, bytes]:
    objects: dict[str, bytes] = {}
    for room, epochs in rooms.items():
        objects |= room_of(room, epochs)
    for room, payload in sleepers.items():
        objects |= flat(room, payload)
    return objects


OBJECTS = objects_of(ROOMS, SLEEPERS)


@contextmanager
def serving(data: Path | None, env: Mapping[str, str]) -> Iterator[holdfast.Client]:
    with ServerProcess(data, env=env) as server, holdfast.connect(server.address) as client:
        yield client


def check(client: holdfast.Client, *, legacy: bool, rooms: Mapping[str, Mapping[int, bytes]] = ROOMS) -> None:
    """Check that all that shellcade wrote is there."""
    assert {room.room_id: room.latest_epoch for room in client.checkpoints.rooms()} == {
        room: max(epochs) for room, epochs in rooms.items()
    }
    for room, epochs in rooms.items():
        listed = {entry.epoch: entry.checkpoint for entry in client.checkpoints.list(room)}
        assert list(listed) == sorted(epochs)
        for epoch, payload in epochs.items():
            with client.checkpoints.load(room, epoch) as reader:
                assert reader.read() == payload
                assert reader.info.legacy is legacy
        with client.checkpoints.load(room) as reader:
            assert reader.read() == epochs[max(epochs)]


def check_sleepers(client: holdfast.Client, *, legacy: bool, sleepers: Mapping[str, bytes] = SLEEPERS) -> None:
    found = {entry.room_id: entry.snapshot for entry in client.checkpoints.hibernated()}
    assert set(found) == set(sleepers)
    assert {known.legacy for known in found.values() if known is not None} == {legacy}
    for room, payload in sleepers.items():
        with client.checkpoints.restore(room) as reader:
            assert reader.read() == payload


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """The file with shellcade's secret."""
    path = tmp_path / "secret"
    path.write_bytes(SECRET + b"\n")
    return path


def test_a_directory_is_imported_served_and_migrated(tmp_path: Path, secret: Path) -> None:
    data = tmp_path / "data"
    tree = write_tree(tmp_path / "blobs", OBJECTS)
    assert run("import", "shellcade", tree, "--to", data).code == 0
    assert run("keys", "generate", "--data-dir", data).code == 0
    assert run("keys", "add-legacy", secret, "--data-dir", data).code == 0
    with serving(data, LEGACY) as client:
        check(client, legacy=True)
        check_sleepers(client, legacy=True)
        dry = run("checkpoints", "migrate", "--data-dir", data, "--dry-run", "--json")
        assert (dry.code, dry.err, dry.summary["checkpoints"]["rewritten"]) == (0, "", 8)
        check(client, legacy=True)
        ran = run("checkpoints", "migrate", "--data-dir", data, "--json")
        assert (ran.code, ran.err) == (0, "")
        assert ran.summary == dry.summary | {"dry_run": False}
        check(client, legacy=False)
        check_sleepers(client, legacy=False)
        assert client.checkpoints.save("duel", 5, b"ours").pointer_moved
    again = run("checkpoints", "migrate", "--data-dir", data, "--json")
    assert again.code == 0
    assert again.summary["checkpoints"] == {"rewritten": 0, "new_already": 9, "gone": 0, "failed": 0}
    assert again.summary["pointers"] == {"rewritten": 0, "new_already": 3, "gone": 0, "failed": 0}
    assert again.summary["snapshots"] == {"rewritten": 0, "new_already": 0, "gone": 0, "failed": 0}
    with serving(data, {}) as client:
        check(client, legacy=False, rooms={**ROOMS, "duel": {**ROOMS["duel"], 5: b"ours"}})
        check_sleepers(client, legacy=False)


@pytest.mark.parametrize("name", ["moto", "minio"])
def test_a_bucket_is_served_and_migrated(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, secret: Path
) -> None:
    s3: S3Server = request.getfixturevalue(name)
    bucket = fresh_bucket()
    lay(s3, bucket, OBJECTS | {"artifacts/x.wasm": b"not of this service"})
    ring = tmp_path / "ring" / "keys.json"
    env = s3_environment(s3, bucket) | {"HOLDFAST_CHECKPOINT_STORE__KEY_RING": str(ring)}
    if name == "moto":
        env["HOLDFAST_S3__SINGLE_WRITER"] = "true"  # it keeps no if-match of large puts
    for arguments in (("generate",), ("add-legacy", secret)):
        assert run("keys", *arguments, env=env).code == 0
    with serving(None, env | LEGACY) as client:
        check(client, legacy=True)
        check_sleepers(client, legacy=True)
        ran = run("checkpoints", "migrate", "--json", env=env)
        assert (ran.code, ran.err) == (0, "")
        assert [ran.summary[kind]["rewritten"] for kind in ("checkpoints", "pointers", "snapshots")] == [8, 3, 2]
        check(client, legacy=False)
        check_sleepers(client, legacy=False)
    assert run("checkpoints", "migrate", env=env).out == (
        "0 checkpoints, 0 pointers, 0 snapshots rewritten, 0 bytes\n"
        "8 checkpoints, 3 pointers, 0 snapshots in the new form already\n"
    )
    with serving(None, env) as client:
        check(client, legacy=False)
        check_sleepers(client, legacy=False)
    answer = s3.client().get_object(bucket, "artifacts/x.wasm")
    assert answer.read() == b"not of this service"
    answer.close()
    answer.release_conn()


def test_switched_off_a_server_refuses_what_a_bucket_has(moto: S3Server, tmp_path: Path, secret: Path) -> None:
    bucket = fresh_bucket()
    lay(moto, bucket, OBJECTS)
    ring = tmp_path / "keys.json"
    env = s3_environment(moto, bucket) | {"HOLDFAST_CHECKPOINT_STORE__KEY_RING": str(ring)}
    for arguments in (("generate",), ("add-legacy", secret)):
        assert run("keys", *arguments, env=env).code == 0
    with serving(None, env) as client:
        for room, epochs in ROOMS.items():
            with pytest.raises(holdfast.PointerInvalid), client.checkpoints.load(room):
                pass
            for epoch in epochs:
                with pytest.raises(holdfast.IntegrityFailed), client.checkpoints.load(room, epoch):
                    pass
        assert list(client.checkpoints.hibernated()) == []


@pytest.fixture
def seed(record_property: Callable[[str, object], None]) -> int:
    """The seed of the moments, shown with a failure."""
    chosen = int(os.environ.get("HOLDFAST_TEST_SEED") or secrets.randbelow(1 << 32))
    record_property("seed", chosen)
    print(f"HOLDFAST_TEST_SEED={chosen}")  # noqa: T201 (pytest shows it where the test fails)
    return chosen


def test_kill_9_in_the_middle_again_and_again_loses_nothing(tmp_path: Path, secret: Path, seed: int) -> None:
    rooms = {f"r{room}": {epoch: b"%d of %d" % (epoch, room) for epoch in range(30)} for room in range(10)}
    sleepers = {f"s{room}": b"asleep %d" % room for room in range(30)}
    data = tmp_path / "data"
    with data_store(data) as store:
        put_all(store, objects_of(rooms, sleepers))
    for arguments in (("generate",), ("add-legacy", secret)):
        assert run("keys", *arguments, "--data-dir", data).code == 0
    old = len(objects_of(rooms, sleepers))

    def rewritten() -> int:
        count = 0
        for path in (data / "objects/tree").rglob("*.f"):
            with suppress(FileNotFoundError):  # deleted meanwhile
                count += path.read_bytes().startswith(b"HOLDSEAL")
        return count

    with serving(data, LEGACY) as client:
        for moment in sorted(Random(seed).sample(range(1, old), 5)):
            process = subprocess.Popen(
                command("checkpoints", "migrate", "--data-dir", data, "--jobs", 3),
                env=environment(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            with process:
                try:
                    wait_until(lambda: rewritten() >= moment or process.poll() is not None, 120)  # noqa: B023 (ends in the loop)
                finally:
                    process.kill()
            for room, epochs in rooms.items():
                with client.checkpoints.load(room) as reader:
                    assert reader.read() == epochs[29]
            found = {entry.room_id: entry.error for entry in client.checkpoints.hibernated()}
            assert found == dict.fromkeys(sleepers)
        left = rewritten()
        ran = run("checkpoints", "migrate", "--data-dir", data, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert sum(ran.summary[kind]["failed"] for kind in ("checkpoints", "pointers", "snapshots")) == 0
    assert 0 < left <= rewritten() == old
    with serving(data, {}) as client:
        check(client, legacy=False, rooms=rooms)
        check_sleepers(client, legacy=False, sleepers=sleepers)


def test_what_is_damaged_stays_and_is_named(tmp_path: Path, secret: Path) -> None:
    data = tmp_path / "data"
    damaged = {
        epoch_name("ada/maze-1", 6): tagged(b"before", b"of another secret"),
        pointer_name("ada/maze-2"): b"nonsense",
        "snapshots/napper": b"short",
    }
    with data_store(data) as store:
        put_all(store, OBJECTS | damaged)
    for arguments in (("generate",), ("add-legacy", secret)):
        run("keys", *arguments, "--data-dir", data)
    dry = run("checkpoints", "migrate", "--data-dir", data, "--dry-run")
    left = epoch_name("ada/maze-2", 0)  # with the pointer of its room
    assert (dry.code, len(dry.err.splitlines())) == (1, 4)
    assert sorted(dry.out.splitlines()) == sorted(
        [f"would rewrite {name}" for name in OBJECTS if name not in {*damaged, left}]
        + ["6 checkpoints, 2 pointers, 1 snapshot would be rewritten, 4194340 bytes"]
        + ["2 checkpoints, 1 pointer, 1 snapshot FAILED"]
    )
    ran = run("checkpoints", "migrate", "--data-dir", data, "--json")
    assert ran.code == 1
    failures = {failure.pop("key"): failure for failure in ran.summary["failures"]}
    assert set(failures) == {*damaged, left}
    checkpoint = failures[epoch_name("ada/maze-1", 6)]
    assert (checkpoint["kind"], checkpoint["room_id"], checkpoint["epoch"]) == ("checkpoint", "ada/maze-1", 6)
    assert sorted(line.split(": ")[1] for line in ran.err.splitlines()) == sorted([*damaged, left])
    again = run("checkpoints", "migrate", "--data-dir", data)
    assert again.code == 1
    assert again.out == (
        "0 checkpoints, 0 pointers, 0 snapshots rewritten, 0 bytes\n"
        "6 checkpoints, 2 pointers, 0 snapshots in the new form already\n"
        "2 checkpoints, 1 pointer, 1 snapshot FAILED\n"
    )
    assert {name: objects_in(data)[name].data for name in damaged} == damaged
    with serving(data, {}) as client, client.checkpoints.load("ada/maze-1") as reader:
        assert reader.read() == ROOMS["ada/maze-1"][7]


def test_a_loss_that_is_accepted_lets_it_end(tmp_path: Path, secret: Path) -> None:
    """By the steps of docs/operations.md."""
    data = tmp_path / "data"
    damaged = {
        epoch_name("duel", 3): tagged(b"three", b"of another secret"),
        pointer_name("ada/maze-1"): b"nonsense",
        epoch_name("ada/maze-2", 0): b"short",
        "snapshots/napper": b"short",
        "snapshots/ada/maze-9": b"short",
    }
    with data_store(data) as store:
        put_all(store, OBJECTS | damaged)
    for arguments in (("generate",), ("add-legacy", secret)):
        run("keys", *arguments, "--data-dir", data)
    assert run("checkpoints", "migrate", "--data-dir", data).code == 1
    with serving(data, LEGACY) as client:
        with client.checkpoints.load("ada/maze-1", fallback=True) as reader:
            good = reader.read()
        assert client.checkpoints.save("ada/maze-1", 8, good, replace_damaged_pointer=True).pointer_moved
        assert client.checkpoints.prune("duel", keep_last=1).deleted == 4
        client.checkpoints.delete_room("ada/maze-2")
        for path in ("napper.f", "ada.d/maze-9.f"):
            (data / "objects/tree/snapshots.d" / path).unlink()
        ran = run("checkpoints", "migrate", "--data-dir", data)
        assert (ran.code, ran.err) == (0, "")
    with serving(data, {}) as client:
        assert client.checkpoints.load("ada/maze-1").read() == ROOMS["ada/maze-1"][7]
        assert client.checkpoints.load("duel").read() == ROOMS["duel"][4]


class TestRefusals:
    def test_what_cannot_be_migrated_is_told_in_a_line(self, tmp_path: Path, secret: Path) -> None:
        data = tmp_path / "data"
        memory = run("checkpoints", "migrate")
        assert (memory.code, "backend is memory" in memory.err) == (78, True)
        nothing = run("checkpoints", "migrate", "--data-dir", data)
        assert (nothing.code, "keys generate" in nothing.err or "does not exist" in nothing.err) == (1, True)
        assert not data.exists()
        run("keys", "generate", "--data-dir", data)
        no_store = run("checkpoints", "migrate", "--data-dir", data)
        assert (no_store.code, "there is no store of Holdfast" in no_store.err) == (1, True)
        with data_store(data) as store:
            put_all(store, OBJECTS)
        no_secret = run("checkpoints", "migrate", "--data-dir", data)
        assert (no_secret.code, no_secret.err.count("keys add-legacy")) == (1, 1)
        assert "not finished" in no_secret.out
        assert run("checkpoints", "migrate", "--data-dir", data, "--jobs", 0).code == 2
        wrong = run("checkpoints", "migrate", env={"HOLDFAST_HTTP": "nonsense"})
        assert (wrong.code, wrong.err.startswith("holdfast-server: setting http")) == (78, True)
        for ran in (memory, nothing, no_store, no_secret, wrong):
            assert len(ran.err.splitlines()) == 1

    def test_a_bucket_without_conditions_is_not_touched(self, rclone: S3Server, tmp_path: Path, secret: Path) -> None:
        bucket = fresh_bucket()
        lay(rclone, bucket, OBJECTS)
        ring = {"HOLDFAST_CHECKPOINT_STORE__KEY_RING": str(tmp_path / "keys.json")}
        env = s3_environment(rclone, bucket) | ring
        for arguments in (("generate",), ("add-legacy", secret)):
            run("keys", *arguments, env=env)
        ran = run("checkpoints", "migrate", env=env)
        assert (ran.code, "does not keep the conditions" in ran.err) == (1, True)
        assert run("checkpoints", "migrate", env=env | {"HOLDFAST_S3__SINGLE_WRITER": "true"}).code == 0

    def test_sigterm_ends_it_and_it_says_how_far_it_came(self, tmp_path: Path, secret: Path) -> None:
        data = tmp_path / "data"
        rooms = {"r": {epoch: b"%d" % epoch for epoch in range(EPOCHS)}}
        with data_store(data) as store:
            put_all(store, objects_of(rooms, {}))
        for arguments in (("generate",), ("add-legacy", secret)):
            run("keys", *arguments, "--data-dir", data)
        directory = data / "objects/tree/snapshots.d/r.d"
        names = [pointer_name("r"), epoch_name("r", EPOCHS - 1), *(epoch_name("r", epoch) for epoch in range(EPOCHS))]
        with held_back(data, names, free=50):
            process = subprocess.Popen(
                command("checkpoints", "migrate", "--data-dir", data),
                env=environment(LOCK_PATIENCE),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            with killed_on_failure(process):
                first = directory / f"{0:020}.f"
                wait_until(lambda: first.read_bytes().startswith(b"HOLDSEAL"))
                process.send_signal(signal.SIGTERM)
                out, _ = process.communicate(timeout=60)
        assert process.returncode == 128 + signal.SIGTERM
        assert "not finished: SIGTERM came; the same command goes on from here" in out
        assert run("checkpoints", "migrate", "--data-dir", data).code == 0


def test_docs_operations_shows_what_the_commands_do(tmp_path: Path) -> None:
    section = OPERATIONS[OPERATIONS.index("## Taking over from shellcade") :]
    wasm = f"artifacts/{hashlib.sha256(b'wasm').hexdigest()}.wasm"
    write_tree(tmp_path / "shellcade-blobs", {**OBJECTS, wasm: b"wasm"})
    (tmp_path / "shellcade-secret").write_bytes(SECRET)
    env = environment()
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    ran = 0
    for block in documents.blocks(section, "console"):
        for step in documents.steps(block):
            assert documents.form(documents.run(step.command, tmp_path, env)) == documents.form(step.output)
            ran += 1
    assert ran == 5
    with serving(tmp_path / "data", {}) as client:
        check(client, legacy=False)
        check_sleepers(client, legacy=False)
