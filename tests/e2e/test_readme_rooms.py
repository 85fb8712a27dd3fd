"""The README's game server, run again and again: it goes on with what it saved, and begins no room over good state."""

import subprocess
import sys
from pathlib import Path

import holdfast
from tests.support.documents import blocks
from tests.support.server_process import ServerProcess

ROOT = Path(__file__).parents[2]
(PROGRAM,) = [code for code in blocks((ROOT / "README.md").read_text(), "python") if "CheckpointSaver" in code]
ROOM = "duel-8"


def _run(address: str) -> "subprocess.CompletedProcess[str]":
    code = PROGRAM.replace("127.0.0.1:4653", address)
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)


def _saved(address: str, *, fallback: bool = False) -> tuple[int, bytes]:
    with holdfast.connect(address) as client, client.checkpoints.load(ROOM, fallback=fallback) as reader:
        return reader.info.epoch, reader.read()


def _epochs(address: str) -> list[int]:
    with holdfast.connect(address) as client:
        return [entry.epoch for entry in client.checkpoints.list(ROOM)]


def test_it_goes_on_with_what_it_saved(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as server:
        last = -1
        for rounds in (1, 2, 3):
            done = _run(server.address)
            assert (done.returncode, done.stderr) == (0, "")
            epoch, state = _saved(server.address)
            assert state == b'{"round": %d}' % rounds
            assert epoch > last  # by one, but where the saver's first period, of a random length, was over already
            last = epoch


def test_it_begins_no_room_over_one_that_lost_its_pointer(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as server:
        for _ in range(3):
            _run(server.address)
        epochs = _epochs(server.address)
    (pointer,) = (tmp_path / "data").rglob("latest.f")
    pointer.unlink()
    with ServerProcess(tmp_path / "data") as server:
        for _ in range(2):
            done = _run(server.address)
            assert done.returncode == 1
            assert f"has no pointer, but checkpoints up to epoch {epochs[-1]}: see fallback" in done.stderr
        assert _saved(server.address, fallback=True) == (epochs[-1], b'{"round": 3}')
        assert _epochs(server.address) == epochs


def test_it_brings_no_deleted_room_back(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as server, holdfast.connect(server.address) as client:
        _run(server.address)
        client.checkpoints.delete_room(ROOM)
        done = _run(server.address)
        assert done.returncode == 1
        assert "was deleted" in done.stderr
        assert list(client.checkpoints.rooms()) == []
