"""`holdfast checkpoint ...` against a real server: what it does, what it prints, and how it exits."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
import pytest

import holdfast
from holdfast.v1 import checkpoint_store_pb2 as pb
from holdfast.v1.types_pb2 import ErrorReason, ItemStatus
from holdfast_server import errors as server_errors
from tests.support.child_processes import killed_on_failure
from tests.support.fake_checkpoints import (
    FakeCheckpoints,
    checkpoint_download,
    refuse,
    serving,
    snapshot_download,
    unavailable,
)
from tests.support.rooms import damage, damage_snapshot
from tests.support.samples import MIB, sample
from tests.support.server_process import ServerProcess
from tests.support.tombstones import anew_after

_DATA = sample(MIB + 5)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's directory."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def server(data_dir: Path) -> Iterator[ServerProcess]:
    """A server."""
    with ServerProcess(data_dir) as server:
        yield server


@pytest.fixture
def checkpoints(server: ServerProcess) -> Iterator[holdfast.Checkpoints]:
    """Its checkpoints."""
    with holdfast.connect(server.address) as client:
        yield client.checkpoints


@pytest.fixture
def room(request: pytest.FixtureRequest) -> str:
    """A room that no other test has."""
    return request.node.name.replace("/", "-")  # type: ignore[no-any-return]  # a name


class _Command:
    """The command, run in a directory with the file `source`."""

    def __init__(self, directory: Path, address: str) -> None:
        self.directory = directory
        self.environment = {**os.environ, "HOLDFAST_ADDRESS": address, "PYTHONUNBUFFERED": ""}
        (directory / "source").write_bytes(_DATA)

    def line(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "holdfast", *arguments]

    def ends(self, *arguments: str, data: bytes = b"") -> tuple[int, str, str]:
        """Run it, and return its exit code, what it printed, and what it said on stderr."""
        done = subprocess.run(
            self.line(*arguments),
            cwd=self.directory,
            env=self.environment,
            input=data,
            capture_output=True,
            check=False,
        )
        return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode()

    def __call__(self, *arguments: str, data: bytes = b"") -> str:
        """Run it, see it succeed without a word on stderr, and return what it printed."""
        code, printed, said = self.ends("checkpoint", *arguments, data=data)
        assert (code, said) == (0, "")
        return printed

    def json(self, *arguments: str, data: bytes = b"") -> Any:
        """The same with `--json`."""
        code, printed, said = self.ends("--json", "checkpoint", *arguments, data=data)
        assert (code, said) == (0, "")
        return json.loads(printed)


@pytest.fixture
def run(server: ServerProcess, tmp_path: Path) -> _Command:
    """The command."""
    return _Command(tmp_path, server.address)


class TestSaving:
    def test_a_file_is_saved_at_the_next_epoch_and_loaded_back(
        self, run: _Command, checkpoints: holdfast.Checkpoints, room: str
    ) -> None:
        saved = run("save", room, "source", "--metadata", "map=arena", "--writer", "node-1")
        assert saved == f"stored {room} at epoch 0 ({len(_DATA)} bytes), now the latest\n"
        assert run("save", room, "-", data=b"next") == f"stored {room} at epoch 1 (4 bytes), now the latest\n"
        info = checkpoints.stat(room, 0)
        assert (info.metadata, info.writer_id) == ({"map": "arena"}, "node-1")
        assert (
            run("load", room, "target", "--epoch", "0")
            == f"wrote target (from {room} at epoch 0, {len(_DATA)} bytes)\n"
        )
        assert (run.directory / "target").read_bytes() == _DATA
        assert run("load", room) == "next"
        assert run("load", room, "-", "--min-epoch", "1") == "next"
        assert sorted(path.name for path in run.directory.iterdir()) == ["source", "target"]

    def test_it_tells_whether_the_pointer_moved(self, run: _Command, room: str) -> None:
        assert run("save", room, "-", "--epoch", "5", data=b"5").endswith("now the latest\n")
        assert run("save", room, "-", "--epoch", "5", data=b"5") == (
            f"was there already: {room} at epoch 5 (1 byte), the latest\n"
        )
        assert run("save", room, "-", "--epoch", "3", data=b"3") == (
            f"stored {room} at epoch 3 (1 byte), the latest stays 5\n"
        )

    def test_for_machines_it_tells_everything(
        self, run: _Command, checkpoints: holdfast.Checkpoints, room: str
    ) -> None:
        saved = run.json("save", room, "-", "--epoch", "5", "--if-latest", "-1", "--require-new", data=b"5")
        with checkpoints.load(room) as reader:
            info = reader.info
        assert info.sha256 is not None
        assert info.create_time is not None
        assert info.update_time is not None
        assert saved == {
            "room_id": room,
            "epoch": 5,
            "outcome": "stored",
            "pointer_moved": True,
            "latest_epoch": 5,
            "next_epoch": 6,
            "checkpoint": {
                "room_id": room,
                "epoch": 5,
                "size_bytes": 1,
                "etag": info.etag,
                "sha256": info.sha256.hex(),
                "writer_id": "",
                "metadata": {},
                "create_time": info.create_time.isoformat(),
                "update_time": info.update_time.isoformat(),
                "key_id": info.key_id,
                "encrypted": False,
                "legacy": False,
                "latest_epoch": None,
                "next_epoch": None,
                "skipped": [],
            },
        }
        loaded = run.json("load", room, "target")
        assert (loaded["target"], loaded["checkpoint"]["epoch"], loaded["checkpoint"]["next_epoch"]) == ("target", 5, 6)

    def test_another_payload_is_exit_code_4_and_names_the_epoch_to_go_on_at(
        self, run: _Command, checkpoints: holdfast.Checkpoints, room: str
    ) -> None:
        checkpoints.save(room, 5, b"first")
        checkpoints.save(room, 8, b"later")
        told = f"{room}: epoch 5 is taken by another payload, which stays. NOT stored: save it at the next epoch, 9"
        arguments = ["checkpoint", "save", room, "source", "--epoch", "5"]
        assert run.ends(*arguments) == (4, "", f"holdfast: {told}\n")
        code, printed, said = run.ends("--json", *arguments)
        assert (code, json.loads(printed)["outcome"], json.loads(printed)["next_epoch"]) == (4, "exists_different", 9)
        assert json.loads(said) == {
            "error": {
                "message": told,
                "exit_code": 4,
                "details": {"room_id": room, "epoch": "5", "next_epoch": "9"},
            }
        }

    def test_a_damaged_epoch_is_exit_code_5_and_names_the_epoch_to_go_on_at(
        self, run: _Command, checkpoints: holdfast.Checkpoints, data_dir: Path, room: str
    ) -> None:
        for epoch in (4, 5):
            checkpoints.save(room, epoch, b"state", writer_id="the-writer")
        damage(data_dir, room, 5, b"the-writer")
        code, printed, said = run.ends("checkpoint", "save", room, "source", "--epoch", "5")
        assert (code, printed) == (5, "")
        assert "epoch 5 is damaged" in said
        assert "the next epoch, 6" in said

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--epoch", "1", "--require-new"], "epoch 1"),
            (["--epoch", "2", "--if-latest", "0"], "latest epoch is 1"),
            (["--epoch", "2", "--if-latest", "-1"], "latest epoch is 1"),
        ],
    )
    def test_a_condition_that_fails_is_exit_code_4(
        self, run: _Command, checkpoints: holdfast.Checkpoints, room: str, options: list[str], message: str
    ) -> None:
        for epoch in (0, 1):
            checkpoints.save(room, epoch, b"")
        code, printed, said = run.ends("checkpoint", "save", room, "source", *options)
        assert (code, printed) == (4, "")
        assert message in said

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["save", "../a", "source"], "segment"),
            (["save", "a/latest", "source"], "latest"),
            (["save", "a", "source", "--epoch", "-1"], "--epoch"),
            (["save", "a", "source", "--if-latest", "-2"], "--if-latest"),
            (["save", "a", "source", "--metadata", "x"], "not NAME=VALUE"),
            (["load", "", "target"], "room_id"),
            (["prune", "--keep-last", "1", "--older-than", "0s"], "give it, or --all"),
            (["prune", "a", "--all", "--keep-last", "1", "--older-than", "0s"], "not both"),
            (["prune", "", "--keep-last", "1", "--older-than", "0s"], "empty"),
            (["prune", "a", "--keep-last", "0", "--older-than", "0s"], "--keep-last"),
            (["prune", "a", "--keep-last", "1", "--older-than", "7"], "not a number with"),
            (["prune", "a", "--keep-last", "1", "--older-than", "-7d"], "not a number with"),
            (["prune", "a", "--older-than", "7d"], "--keep-last"),
            (["prune", "a", "--keep-last", "1"], "--older-than"),
            (["rm", "a"], "say --yes"),
            (["watch"], "ROOM"),
        ],
    )
    def test_what_breaks_a_rule_is_exit_code_2(self, run: _Command, arguments: list[str], message: str) -> None:
        code, printed, said = run.ends("checkpoint", *arguments)
        assert (code, printed) == (2, "")
        assert message in said
        assert said.count("\n") == 1

    @pytest.mark.parametrize("command", [["load", "none", "target"], ["stat", "none"], ["restore", "none", "target"]])
    def test_what_is_not_there_is_exit_code_3_and_leaves_no_file(self, run: _Command, command: list[str]) -> None:
        code, printed, _ = run.ends("checkpoint", *command)
        assert (code, printed) == (3, "")
        assert [path.name for path in run.directory.iterdir()] == ["source"]


class TestLooking:
    def test_stat_is_a_table(self, run: _Command, checkpoints: holdfast.Checkpoints, room: str) -> None:
        checkpoints.save(room, 7, b"state", metadata={"map": "arena"}, writer_id="node-1")
        info = checkpoints.stat(room)
        rows = dict(
            line.split(maxsplit=1) for line in run("stat", room).replace("t e", "t-e").splitlines() if " " in line
        )
        assert rows["room"] == room
        assert (rows["epoch"], rows["latest-epoch"], rows["next-epoch"]) == ("7", "7", "8")
        assert (rows["size"], rows["writer"], rows["key"]) == ("5 bytes", "node-1", info.key_id)
        assert rows["metadata"].split() == ["map", "arena"]
        assert run.json("stat", room)["etag"] == info.etag

    def test_checkpoints_and_rooms_are_listed(
        self, run: _Command, checkpoints: holdfast.Checkpoints, room: str
    ) -> None:
        for epoch in (0, 3, 12):
            checkpoints.save(room, epoch, bytes(epoch), writer_id="node-1")
        lines = [line.split() for line in run("ls", room).splitlines()]
        assert [line[1:] for line in lines] == [["0", "0", "node-1"], ["3", "3", "node-1"], ["12", "12", "node-1"]]
        assert all(line[0].endswith("Z") for line in lines)
        assert [line.split()[2] for line in run("ls", room, "--from-epoch", "1", "--limit", "1").splitlines()] == ["3"]
        (line,) = run("rooms", room).splitlines()
        assert line.split()[1:] == ["12", room]
        entry = run.json("rooms", room)
        assert (entry["room_id"], entry["latest_epoch"], entry["error"]) == (room, 12, None)
        _, printed, _ = run.ends("--json", "checkpoint", "ls", room)
        entries = [json.loads(line) for line in printed.splitlines()]
        assert [(entry["epoch"], entry["checkpoint"]["size_bytes"], entry["error"]) for entry in entries] == [
            (0, 0, None),
            (3, 3, None),
            (12, 12, None),
        ]

    def test_what_is_damaged_is_shown_told_and_exit_code_5(
        self, run: _Command, checkpoints: holdfast.Checkpoints, data_dir: Path, room: str
    ) -> None:
        for epoch in range(3):
            checkpoints.save(room, epoch, b"state", writer_id="the-writer")
        for epoch in (0, 1):
            damage(data_dir, room, epoch, b"the-writer")
        code, printed, said = run.ends("checkpoint", "ls", room)
        assert code == 5
        assert [line.split()[-2:] for line in printed.splitlines()] == [
            ["DAMAGED", "0"],
            ["DAMAGED", "1"],
            ["2", "the-writer"],
        ]
        assert [f"epoch {epoch}" in line for epoch, line in enumerate(said.splitlines())] == [True, True]
        code, printed, said = run.ends("--json", "checkpoint", "ls", room)
        assert code == 5
        first = json.loads(printed.splitlines()[0])
        assert (first["checkpoint"], first["error"]["details"]["epoch"]) == (None, "0")
        assert json.loads(said.splitlines()[0])["error"]["exit_code"] == 5

    def test_what_a_newer_server_has_sealed_is_told_and_no_damage(self, tmp_path: Path) -> None:
        new = ItemStatus(code=9, reason=ErrorReason.ERROR_REASON_SEAL_TOO_NEW, message="version 2")
        fake = FakeCheckpoints()
        fake.answers = [
            lambda *_: pb.ListCheckpointsResponse(checkpoints=[pb.CheckpointEntry(epoch=3, status=new)]),
            lambda _, context: refuse(context, server_errors.SealTooNew("version 2", version="2")),
        ]
        with serving(fake) as address:
            run = _Command(tmp_path, address)
            code, printed, said = run.ends("checkpoint", "ls", "a")
            assert (code, printed.split()) == (1, ["TOO", "NEW", "3"])
            assert said == "holdfast: a, epoch 3: version 2\n"
            assert run.ends("checkpoint", "load", "a", "-") == (1, "", "holdfast: version 2\n")

    def test_a_damaged_latest_is_refused_and_a_fallback_tells_what_it_passed_over(
        self, run: _Command, checkpoints: holdfast.Checkpoints, data_dir: Path, room: str
    ) -> None:
        for epoch in range(3):
            checkpoints.save(room, epoch, b"state %d" % epoch, writer_id="the-writer")
        damage(data_dir, room, 2, b"state 2")
        code, printed, _ = run.ends("checkpoint", "load", room, "target")
        assert (code, printed) == (5, "")
        assert not (run.directory / "target").exists()
        code, printed, said = run.ends("checkpoint", "load", room, "target", "--fallback")
        assert (code, printed) == (0, f"wrote target (from {room} at epoch 1, 7 bytes)\n")
        assert said.startswith(f"holdfast: {room}: passed over epoch 2: ")
        assert (run.directory / "target").read_bytes() == b"state 1"
        code, printed, said = run.ends("--json", "checkpoint", "load", room, "-", "--fallback")
        assert (code, printed) == (0, "state 1")
        assert (json.loads(said)["skipped"]["epoch"], json.loads(said)["skipped"]["room_id"]) == (2, room)

    def test_a_damaged_pointer_is_replaced_above_what_is_good(
        self, run: _Command, checkpoints: holdfast.Checkpoints, data_dir: Path, room: str
    ) -> None:
        for epoch in range(3):
            checkpoints.save(room, epoch, b"state")
        damage(data_dir, room, None)
        code, printed, _ = run.ends("checkpoint", "save", room, "source")
        assert (code, printed) == (5, "")
        saved = run("save", room, "source", "--replace-damaged-pointer")
        assert saved == f"stored {room} at epoch 3 ({len(_DATA)} bytes), now the latest\n"

    def test_where_none_is_good_the_epoch_is_asked_for(
        self, run: _Command, checkpoints: holdfast.Checkpoints, data_dir: Path, room: str
    ) -> None:
        checkpoints.save(room, 0, b"state", writer_id="the-writer")
        for epoch in (0, None):
            damage(data_dir, room, epoch)
        code, printed, said = run.ends("checkpoint", "save", room, "source", "--replace-damaged-pointer")
        assert (code, printed) == (5, "")
        assert said.startswith(f"holdfast: the latest pointer of room '{room}' is damaged: ")
        assert "Give --epoch, above all" in said
        assert "now the latest" in run("save", room, "source", "--replace-damaged-pointer", "--epoch", "1")

    def test_a_file_is_replaced_only_by_a_whole_one(
        self, run: _Command, checkpoints: holdfast.Checkpoints, data_dir: Path, room: str
    ) -> None:
        checkpoints.save(room, 0, b"good")
        (run.directory / "target").write_bytes(b"old")
        code, _, _ = run.ends("checkpoint", "load", room, "target", "--min-epoch", "1")
        assert code == 4
        assert (run.directory / "target").read_bytes() == b"old"
        run("load", room, "target")
        assert (run.directory / "target").read_bytes() == b"good"
        (run.directory / "folder").mkdir()
        run("load", room, "folder")
        assert (run.directory / "folder" / room).read_bytes() == b"good"


class TestDeleting:
    def test_prune_tells_what_it_did_or_would(
        self, run: _Command, checkpoints: holdfast.Checkpoints, room: str
    ) -> None:
        for epoch in range(4):
            checkpoints.save(room, epoch, b"x")
        rules = ["--keep-last", "3", "--older-than", "0s"]
        would = run.json("prune", room, *rules, "--dry-run")
        size = would.pop("deleted_bytes")
        assert would == {"rooms": 1, "deleted": 1, "kept": 3, "failed": [], "dry_run": True}
        assert run("prune", room, *rules, "--dry-run") == f"1 room: 1 would be deleted ({size} bytes), 3 kept\n"
        assert run("prune", room, "--keep-last", "1", "--older-than", "1d") == "1 room: 0 deleted (0 bytes), 4 kept\n"
        assert run("prune", room, *rules) == f"1 room: 1 deleted ({size} bytes), 3 kept\n"

    def test_rooms_that_prune_leaves_alone_are_told(self, tmp_path: Path) -> None:
        with ServerProcess(tmp_path / "data") as server, holdfast.connect(server.address) as client:
            for name in ("bad", "good"):
                for epoch in range(3):
                    client.checkpoints.save(name, epoch, b"state", writer_id="the-writer")
            damage(tmp_path / "data", "bad", 2, b"the-writer")
            run = _Command(tmp_path, server.address)
            code, printed, said = run.ends("checkpoint", "prune", "--all", "--keep-last", "1", "--older-than", "0s")
            assert code == 5
            assert printed.startswith("2 rooms: 2 deleted")
            assert printed.endswith(", 1 FAILED\n")
            assert said.startswith("holdfast: bad: ")
            assert [entry.epoch for entry in client.checkpoints.list("bad")] == [0, 1, 2]

    def test_a_room_is_removed_if_that_is_said(
        self, run: _Command, checkpoints: holdfast.Checkpoints, room: str
    ) -> None:
        for epoch in range(2):
            checkpoints.save(room, epoch, b"x")
        anew = anew_after(1)
        assert run.json("rm", room, "--yes") == {"room_id": room, "existed": True, "deleted": 2, "next_epoch": anew}
        assert run("rm", room, "-y") == f"was not there: {room} (next epoch {anew})\n"
        assert run("save", room, "-", data=b"x").startswith(f"stored {room} at epoch {anew} ")
        assert run("rm", room, "-y") == f"removed {room}: 1 checkpoint (next epoch {anew_after(anew)})\n"

    def test_a_room_whose_key_is_lost_is_removed_if_that_is_said(self, tmp_path: Path) -> None:
        data_dir = tmp_path / "data"
        with ServerProcess(data_dir) as server:
            run = _Command(tmp_path, server.address)
            run("save", "lost", "-", "--epoch", "6", data=b"x")
        (data_dir / "keys.json").unlink()
        make = [str(Path(sys.executable).with_name("holdfast-server")), "keys", "generate", "--data-dir", str(data_dir)]
        subprocess.run(make, capture_output=True, check=True)
        with ServerProcess(data_dir) as server:
            run = _Command(tmp_path, server.address)
            code, printed, said = run.ends("checkpoint", "rm", "lost", "--yes")
            assert (code, printed) == (1, "")
            assert "is not in the key ring" in said
            anew = anew_after(6)
            assert run("rm", "lost", "--yes", "--without-key") == f"removed lost: 1 checkpoint (next epoch {anew})\n"
            assert run("save", "lost", "-", data=b"y").startswith(f"stored lost at epoch {anew} ")

    @pytest.mark.parametrize(("answer", "removed"), [(b"y\n", True), (b"n\n", False), (b"\n", False), (b"\x04", False)])
    def test_a_person_is_asked(
        self, run: _Command, checkpoints: holdfast.Checkpoints, *, answer: bytes, removed: bool
    ) -> None:
        room = f"asked-{answer.hex()}"
        checkpoints.save(room, 0, b"x")
        ours, theirs = pty.openpty()
        os.write(ours, answer)
        done = subprocess.run(
            run.line("checkpoint", "rm", room), env=run.environment, stdin=theirs, capture_output=True, check=False
        )
        os.close(ours)
        os.close(theirs)
        assert (done.returncode, bool(done.stdout)) == ((0, True) if removed else (1, False))
        assert [entry.room_id for entry in checkpoints.rooms(room)] == ([] if removed else [room])


class TestWatching:
    @pytest.mark.parametrize("as_json", [False, True])
    def test_each_event_is_a_line_at_once_until_it_is_interrupted(
        self, run: _Command, checkpoints: holdfast.Checkpoints, *, as_json: bool
    ) -> None:
        room = f"watched-{as_json}"
        checkpoints.save(room, 4, b"")
        options = ["--json"] if as_json else []
        with killed_on_failure(
            subprocess.Popen(
                run.line(*options, "checkpoint", "watch", room, f"{room}-none"),
                env=run.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            lines = sorted(process.stdout.readline().decode() for _ in range(2))
            checkpoints.save(room, 7, b"")
            lines.append(process.stdout.readline().decode())
            process.send_signal(signal.SIGINT)
            rest, said = process.stdout.read(), process.stderr.read()
        assert (process.returncode, rest, said) == (130, b"", b"")
        if as_json:
            assert [json.loads(line) for line in lines] == [
                {"room_id": room, "epoch": 4, "error": None},
                {"room_id": f"{room}-none", "epoch": None, "error": None},
                {"room_id": room, "epoch": 7, "error": None},
            ]
        else:
            assert [line.split() for line in lines] == [["-", f"{room}-none"], ["4", room], ["7", room]]

    def test_it_ends_when_nobody_reads_it(self, run: _Command, checkpoints: holdfast.Checkpoints, room: str) -> None:
        checkpoints.save(room, 0, b"")
        with killed_on_failure(
            subprocess.Popen(
                run.line("checkpoint", "watch", room),
                env=run.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            checkpoints.save(room, 1, b"")
            said = process.stderr.read()
        assert (process.returncode, said) == (141, b"")


class TestSleeping:
    def test_a_room_is_hibernated_and_restored_and_its_snapshot_given_up(
        self, run: _Command, checkpoints: holdfast.Checkpoints, room: str
    ) -> None:
        printed = run("hibernate", room, "source", "--metadata", "map=arena", "--writer", "node-1")
        (entry,) = checkpoints.hibernated(room)
        assert entry.snapshot is not None
        assert printed == f"hibernated {room} ({len(_DATA)} bytes, etag {entry.snapshot.etag})\n"
        assert (entry.snapshot.metadata, entry.snapshot.writer_id) == ({"map": "arena"}, "node-1")
        (line,) = run("hibernated", room).splitlines()
        assert line.split()[1:] == [str(len(_DATA)), room]
        assert run.json("hibernated", room)["snapshot"]["etag"] == entry.snapshot.etag
        kept = run("restore", room, "kept", "--keep")
        assert kept == f"wrote kept (from {room}, {len(_DATA)} bytes), and the snapshot is kept\n"
        assert len(list(checkpoints.hibernated(room))) == 1
        printed = run("restore", room, "target")
        assert printed == f"wrote target (from {room}, {len(_DATA)} bytes), and the snapshot is given up\n"
        assert (run.directory / "target").read_bytes() == (run.directory / "kept").read_bytes() == _DATA
        assert list(checkpoints.hibernated(room)) == []

    def test_for_machines_it_tells_everything(
        self, run: _Command, checkpoints: holdfast.Checkpoints, room: str
    ) -> None:
        stored = run.json("hibernate", room, "-", "--create-only", data=b"state")["snapshot"]
        assert (stored["room_id"], stored["size_bytes"]) == (room, 5)
        restored = run.json("restore", room, "target", "--writer", "node-1")
        assert (restored["target"], restored["given_up"]) == ("target", True)
        assert restored["snapshot"]["sha256"] == stored["sha256"]

    def test_what_goes_to_stdout_or_a_device_is_kept(
        self, run: _Command, checkpoints: holdfast.Checkpoints, room: str
    ) -> None:
        checkpoints.hibernate(room, b"state")
        for target, printed in (("-", "state"), ("/dev/stdout", "state"), ("/dev/null", "")):
            code, out, said = run.ends("checkpoint", "restore", room, target)
            assert (code, out[: len(printed)]) == (0, printed)
            assert said == f"holdfast: the snapshot of {room} is kept: only a file is known to be safe\n"
        assert len(list(checkpoints.hibernated(room))) == 1

    def test_a_file_that_cannot_be_written_gives_nothing_up(
        self, run: _Command, checkpoints: holdfast.Checkpoints, room: str
    ) -> None:
        checkpoints.hibernate(room, b"state")
        (run.directory / "folder").mkdir()
        (run.directory / "folder" / room).mkdir()
        for target in ("missing/target", "folder"):
            code, printed, _ = run.ends("checkpoint", "restore", room, target)
            assert (code, printed) == (1, "")
        assert len(list(checkpoints.hibernated(room))) == 1

    def test_a_snapshot_is_given_up_when_the_file_is_in_its_place(self, tmp_path: Path) -> None:
        fake = FakeCheckpoints()
        seen: list[bytes] = []

        def confirm(request: pb.ConfirmRestoreRequest, _: grpc.ServicerContext) -> pb.ConfirmRestoreResponse:
            assert request.writer_id == "node-1"
            seen.append((tmp_path / "target").read_bytes())
            return pb.ConfirmRestoreResponse()

        fake.answers = [lambda *_: snapshot_download(_DATA[:1000]), confirm]
        with serving(fake) as address:
            run = _Command(tmp_path, address)
            (tmp_path / "target").write_bytes(b"old")
            run("restore", "a", "target", "--writer", "node-1")
        assert seen == [_DATA[:1000]]

    @pytest.mark.parametrize("command", ["load", "restore"])
    @pytest.mark.parametrize("flaw", [b"other bytes", None], ids=["damaged", "cut"])
    def test_what_does_not_arrive_whole_changes_no_file_and_gives_nothing_up(
        self, tmp_path: Path, command: str, flaw: bytes | None
    ) -> None:
        fake = FakeCheckpoints()
        download = checkpoint_download if command == "load" else snapshot_download

        def answer(_: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            right: Iterator[Any] = download(_DATA[:1000])
            yield from islice(right, 6)
            if flaw is None:
                unavailable(context)
            yield from download(flaw, size_bytes=1000)

        fake.answers = [answer]
        with serving(fake) as address:
            run = _Command(tmp_path, address)
            (tmp_path / "target").write_bytes(b"old")
            code, printed, _ = run.ends("--retries", "0", "checkpoint", command, "a", "target")
        assert (code, printed) == (6 if flaw is None else 5, "")
        assert (tmp_path / "target").read_bytes() == b"old"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]
        assert len(fake.requests) == 1

    def test_conditions_that_fail_are_exit_code_4(
        self, run: _Command, checkpoints: holdfast.Checkpoints, room: str
    ) -> None:
        checkpoints.hibernate(room, b"state")
        for options in (["--create-only"], ["--if-match", "another"]):
            assert run.ends("checkpoint", "hibernate", room, "source", *options)[0] == 4

    def test_what_is_damaged_is_shown_told_and_exit_code_5(
        self, run: _Command, checkpoints: holdfast.Checkpoints, data_dir: Path, room: str
    ) -> None:
        checkpoints.hibernate(room, b"state", writer_id="the-writer")
        damage_snapshot(data_dir, room, b"the-writer")
        code, printed, said = run.ends("checkpoint", "hibernated", room)
        assert (code, printed.split()) == (5, ["DAMAGED", room])
        assert room in said
        code, printed, _ = run.ends("checkpoint", "restore", room, "target")
        assert (code, printed) == (5, "")
        assert not (run.directory / "target").exists()
        code, printed, said = run.ends("checkpoint", "hibernate", room, "source")
        assert (code, printed, "set replace_damaged" in said) == (5, "", True)
        assert run("hibernate", room, "source", "--replace-damaged").startswith(f"hibernated {room} ")
