"""`holdfast-server keys usage` as an operator meets it: from a rotation until the old key can be retired."""

import json
import re
import sys
from pathlib import Path

import pytest

import holdfast
from holdfast_server.checkpoints import key_file
from holdfast_server.checkpoints.key_ring import KeyRing
from tests.support import documents
from tests.support.s3_servers import MinioServer
from tests.support.s3_stores import fresh_bucket, s3_environment
from tests.support.server_process import ServerProcess
from tests.support.transfers import environment, run
from tests.support.waiting import wait_until

TIDY_OFTEN = {
    "HOLDFAST_CHECKPOINT_STORE__PRUNE_INTERVAL_SECONDS": "1",
    "HOLDFAST_CHECKPOINT_STORE__TOMBSTONE_SECONDS": "600",
}
SECONDS = 120
OPERATIONS = (Path(__file__).parents[2] / "docs/operations.md").read_text()


def usage(data: Path, *arguments: object) -> list[str]:
    ran = run("keys", "usage", *arguments, "--data-dir", data)
    assert (ran.code, ran.err) == (0, ""), ran
    return ran.out.splitlines()


def ids(data: Path) -> list[str]:
    return [key.id.hex() for key in key_file.read(data / "keys.json").keys]


def fill(checkpoints: holdfast.Checkpoints) -> None:
    checkpoints.save("live", 0, b"x")
    checkpoints.save("gone", 0, b"x")
    checkpoints.delete_room("gone")
    checkpoints.hibernate("slept", b"night", writer_id="n1")
    with checkpoints.restoring("slept", writer_id="n2") as restored:
        restored.read()


def row(key: str, state: str, kind: str, count: int, rooms: str) -> str:
    return f"{key}  {state:9}  {kind:11}  {count:7}  {rooms}"


def test_it_tells_what_an_old_key_is_needed_for_and_when_it_is_not(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with ServerProcess(data) as server, holdfast.connect(server.address) as client:
        checkpoints = client.checkpoints
        fill(checkpoints)
        assert run("keys", "rotate", "--data-dir", data).code == 0
        old, new = ids(data)

        def is_rotated() -> bool:
            saved = checkpoints.save("live", checkpoints.stat("live").epoch + 1, b"y")
            return saved.checkpoint is not None and saved.checkpoint.key_id != old

        wait_until(is_rotated, SECONDS)
        checkpoints.prune("live", keep_last=1)
        found = usage(data)
        assert found == [
            row(old, "verifying", "tombstones", 1, "gone"),
            row(old, "verifying", "wake marks", 1, "slept"),
            row(new, "signing", "checkpoints", 1, "live"),
            row(new, "signing", "pointers", 1, "live"),
            f"key {old} is needed, until the servers have sealed these anew: within six hours",
        ]
        assert usage(data, old) == [line for line in found if old in line]
    with ServerProcess(data, env=TIDY_OFTEN):
        done = f"nothing needs key {old}: `holdfast-server keys retire {old}`"
        wait_until(lambda: usage(data, old)[-1] == done, SECONDS)
        assert usage(data, old) == [f"{old}  verifying  nothing", done]
    assert run("keys", "retire", old, "--yes", "--data-dir", data).code == 0
    with ServerProcess(data) as server, holdfast.connect(server.address) as client:
        checkpoints = client.checkpoints
        assert checkpoints.load("live").read() == b"y"
        checkpoints.hibernate("slept", b"next night", writer_id="n2")
        with pytest.raises(holdfast.EpochTooOld) as too_old:
            checkpoints.save("gone", 1, b"late")
        assert too_old.value.next_epoch is not None
        checkpoints.save("gone", too_old.value.next_epoch, b"anew")


def test_docs_operations_shows_what_it_says(tmp_path: Path) -> None:
    _, block = documents.blocks(OPERATIONS[OPERATIONS.index("## Sealing keys") :], "console")[:2]
    data = tmp_path / "data"
    with ServerProcess(data) as server, holdfast.connect(server.address) as client:
        for epoch in range(2):
            client.checkpoints.save("duel-7", epoch, b"x")
        client.checkpoints.save("arena", 0, b"x")
        client.checkpoints.delete_room("arena")
        client.checkpoints.hibernate("lobby", b"night")
    assert run("keys", "rotate", "--data-dir", data).code == 0
    with ServerProcess(data) as server, holdfast.connect(server.address) as client:
        client.checkpoints.save("duel-7", 2, b"x")
    (step,) = documents.steps(block)
    env = environment()
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    said = documents.run(step.command, tmp_path, env)
    for shown, key in zip(dict.fromkeys(re.findall(r"\b[0-9a-f]{16}\b", step.output)), ids(data), strict=True):
        said = said.replace(key, shown)
    assert said == step.output


def test_it_tells_of_keys_that_are_not_there(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with ServerProcess(data) as server, holdfast.connect(server.address) as client:
        client.checkpoints.save("live", 0, b"x")
    (lost,) = ids(data)
    (data / "keys.json").unlink()
    rows = [row(lost, "unknown", "checkpoints", 1, "live"), row(lost, "unknown", "pointers", 1, "live")]
    assert usage(data) == rows
    assert run("keys", "generate", "--data-dir", data).code == 0
    assert usage(data) == [f"{ids(data)[0]}  signing    nothing", *rows]
    assert usage(data, lost) == rows


def test_as_json(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with ServerProcess(data) as server, holdfast.connect(server.address) as client:
        fill(client.checkpoints)
    (key,) = ids(data)
    (line,) = usage(data, "--json")
    assert json.loads(line) == {
        "keys": [
            {
                "id": key,
                "state": "signing",
                "checkpoints": {"count": 1, "rooms": ["live"]},
                "pointers": {"count": 1, "rooms": ["live"]},
                "tombstones": {"count": 1, "rooms": ["gone"]},
                "wake_marks": {"count": 1, "rooms": ["slept"]},
            }
        ],
        "not_read": {},
    }


def test_on_s3(minio: MinioServer, tmp_path: Path) -> None:
    ring = tmp_path / "ring.json"
    key_file.create(ring, KeyRing.fresh())
    env = s3_environment(minio, fresh_bucket()) | {"HOLDFAST_CHECKPOINT_STORE__KEY_RING": str(ring)}
    with ServerProcess(env=env) as server, holdfast.connect(server.address) as client:
        fill(client.checkpoints)
    ran = run("keys", "usage", env=env)
    assert (ran.code, ran.err) == (0, ""), ran
    assert [line.split()[2:4] for line in ran.out.splitlines()] == [
        ["checkpoints", "1"],
        ["pointers", "1"],
        ["tombstones", "1"],
        ["wake", "marks"],
    ]


def test_wrong_settings_and_no_store_are_told_as_by_the_others(tmp_path: Path) -> None:
    nowhere = run("keys", "usage")
    assert (nowhere.code, nowhere.out) == (78, "")
    assert "the backend is memory" in nowhere.err
    missing = run("keys", "usage", "--data-dir", tmp_path / "missing")
    assert (missing.code, missing.out) == (1, "")
    assert "there is no store of Holdfast" in missing.err
    assert not (tmp_path / "missing").exists()
    wrong = run("keys", "usage", "123", "--data-dir", tmp_path)
    assert wrong.code == 2
