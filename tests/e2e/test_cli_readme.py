"""The README of the client is run: its commands and examples, in order, against a server."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.documents import blocks, form, run, steps
from tests.support.server_process import ServerProcess

ROOT = Path(__file__).parents[2]
README = (ROOT / "clients" / "python" / "README.md").read_text()


def test_the_commands_do_what_is_shown(filesystem_server: ServerProcess, tmp_path: Path) -> None:
    env = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "HOLDFAST_ADDRESS": filesystem_server.address,
        "LANG": "C.UTF-8",
    }
    ran = 0
    for block in blocks(README, "console"):
        for step in steps(block):
            assert form(run(step.command, tmp_path, env)) == form(step.output), step.command
            ran += 1
    assert ran >= 7


def test_each_example_is_a_program_of_its_own(filesystem_server: ServerProcess, tmp_path: Path) -> None:
    for name in ("arena.bin", "game.wasm", "maps/a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    printed = []
    for example in blocks(README, "python"):
        code = example.replace("127.0.0.1:4653", filesystem_server.address)
        assert code.count("holdfast.connect") == 1
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        printed.append(done.stdout.splitlines())
    assert printed == [
        ["maps/arena.bin 9", "maps/duel.bin 3"],
        ["[False, True]", "2000"],
        ["b'a state' 1", "b'asleep'", "1073741824"],
    ]
