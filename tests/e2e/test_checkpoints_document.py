"""docs/checkpoints.md is run: its commands as printed, in order, against a server; what it shows is what comes out."""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from holdfast_server.errors import Reason
from tests.support.documents import blocks, form, run, steps
from tests.support.server_process import ServerProcess
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "checkpoints.md").read_text()
COMMANDS = ("save", "load", "stat", "ls", "rooms", "prune", "watch", "rm", "hibernate", "restore", "hibernated")


SECOND_SERVER = "backup.pid"
"""The file that says which process serves the backup."""


@pytest.mark.timeout(900)
def test_its_commands_do_what_they_show(filesystem_server: ServerProcess, tmp_path: Path) -> None:
    env = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "HOLDFAST_ADDRESS": filesystem_server.address,
        "LANG": "C.UTF-8",
    }
    try:
        for step in (step for block in blocks(DOCUMENT, "console") for step in steps(block)):
            assert form(run(step.command, tmp_path, env, step.output)) == form(step.output), step.command
    except BaseException:
        # The document ends its second server itself, if it comes to that.
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((tmp_path / SECOND_SERVER).read_text()), signal.SIGKILL)
        raise
    wait_until(lambda: "Server stopped" in (tmp_path / "backup.log").read_text())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_shown(command: str) -> None:
    assert f"holdfast checkpoint {command}" in "".join(blocks(DOCUMENT, "console"))


@pytest.mark.parametrize(
    "reason",
    [
        Reason.INTEGRITY_FAILED,
        Reason.SEAL_INVALID,
        Reason.POINTER_INVALID,
        Reason.SEAL_KEY_UNAVAILABLE,
        Reason.SEAL_TOO_NEW,
        Reason.ROOM_NOT_FOUND,
        Reason.EPOCH_TOO_OLD,
    ],
)
def test_every_reason_that_an_operator_meets_is_named(reason: Reason) -> None:
    assert f"`{reason.value}`" in DOCUMENT
