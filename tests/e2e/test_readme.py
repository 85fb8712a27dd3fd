"""The README is run: its commands as printed, in order, against a server; what it shows is what comes out."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from holdfast_server import config
from tests.support import s3_met
from tests.support.child_processes import killed_on_failure
from tests.support.documents import blocks, form, run, steps
from tests.support.ports import held_port
from tests.support.s3_servers import MinioServer
from tests.support.server_process import ServerProcess
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent
TOUR, ON_S3 = README.split("\n## On S3\n")
ON_S3 = ON_S3.partition("\n## ")[0]
ITS_PID = "$(pgrep -f 'holdfast-server serve')"
"""As the tour has it; a test ends its own server only."""


def environment(server: ServerProcess, home: Path) -> dict[str, str]:
    return {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": str(home),
        "HOLDFAST_ADDRESS": server.address,
        "LANG": "C.UTF-8",
    }


@pytest.mark.timeout(900)
def test_the_tour_does_what_it_shows(filesystem_server: ServerProcess, tmp_path: Path) -> None:
    server = filesystem_server
    ran = kills = 0
    with ExitStack() as restarted:
        for step in (step for block in blocks(TOUR, "console") for step in steps(block)):
            command = step.command.replace("127.0.0.1:4653", server.address).replace("127.0.0.1:4654", server.http)
            command = command.replace(ITS_PID, str(server.pid))
            assert form(run(command, tmp_path, environment(server, tmp_path))) == form(step.output), command
            ran += 1
            if step.command == f"kill -9 {ITS_PID}":
                assert server.wait() == -signal.SIGKILL
                server = restarted.enter_context(ServerProcess(tmp_path / "data"))
                kills += 1
    assert (ran >= 15, kills) == (True, 1)


def test_the_python_example_runs(filesystem_server: ServerProcess, tmp_path: Path) -> None:
    examples = blocks(README, "python")
    assert examples
    for example in examples:
        code = example.replace("127.0.0.1:4653", filesystem_server.address)
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def port() -> Iterator[int]:
    """A port for MinIO."""
    with held_port() as held:
        yield held


@pytest.mark.timeout(900)
def test_the_commands_serve_a_bucket_that_checkpoints_can_be_saved_in(port: int, tmp_path: Path) -> None:
    s3_met.require(MinioServer)
    (script,) = blocks(ON_S3, "sh")
    script = script.replace("127.0.0.1:9000", f"127.0.0.1:{port}")
    for name in ("./minio", "./keys.json"):
        script = script.replace(name, str(tmp_path / name))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    env = {**inherited, "HOLDFAST_LISTEN": "127.0.0.1:0", "HOLDFAST_HTTP": "127.0.0.1:0"}
    shown = [line for block in blocks(ON_S3, "text") for line in block.splitlines()]
    with killed_on_failure(
        subprocess.Popen(
            ["bash", "-ec", script],
            cwd=ROOT,
            env=env,
            stderr=subprocess.STDOUT,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    ) as process:
        assert process.stdout is not None
        try:
            log = []
            address = None
            while address is None:
                log.append(process.stdout.readline())
                assert log[-1], log
                address = re.search(r"Server ready .*grpc=(\S+)", log[-1])
            text = "".join(log).replace(str(tmp_path / "keys.json"), "keys.json")
            for line in shown:
                pieces = [re.escape(piece) for piece in form(line).split("...")]
                assert re.search(".*".join(pieces), form(text)), (line, text)
            for step in (step for block in blocks(ON_S3, "console") for step in steps(block)):
                home = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(tmp_path), "LANG": "C.UTF-8"}
                output = run(step.command, tmp_path, {**home, "HOLDFAST_ADDRESS": address[1]})
                assert form(output) == form(step.output), step.command
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.stdout.read()


def test_make_serve_serves_a_directory(tmp_path: Path) -> None:
    env = {**os.environ, "HOLDFAST_LISTEN": "127.0.0.1:0", "HOLDFAST_HTTP": "127.0.0.1:0"}
    command = ["make", "--no-print-directory", "serve", f"DATA={tmp_path / 'data'}"]
    with killed_on_failure(
        subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    ) as process:
        assert process.stderr is not None
        assert any("Server ready" in line for line in process.stderr)
        wait_until((tmp_path / "data" / "objects" / "tree").is_dir)
        process.terminate()


@pytest.mark.parametrize("setting", config.describe(), ids=lambda setting: setting.name)
def test_every_setting_is_in_the_table_as_it_is(setting: config.Described) -> None:
    default = f"`{setting.default}`" if setting.default else ""
    assert f"| `{setting.variable}` | {default} | {setting.description} |" in README


def test_only_services_that_exist_are_in_the_table() -> None:
    for absent in ("ChunkCache", "BlockStore"):
        assert f"| `{absent}`" not in README
    for present in ("BlobStore", "CheckpointStore", "Server"):
        assert f"| `{present}` |" in README
