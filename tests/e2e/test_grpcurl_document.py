"""docs/grpcurl.md is run: its commands as printed, in order, against a server; what it shows is what comes out."""

import os
import re
import sys
from pathlib import Path

import pytest

from tests.support.documents import blocks, form, run, steps
from tests.support.server_process import ServerProcess

DOCUMENT = (Path(__file__).parents[2] / "docs" / "grpcurl.md").read_text()
COMMANDS = [step for block in blocks(DOCUMENT, "console") for step in steps(block)]
ENVIRONMENT = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "LANG": "C.UTF-8"}


@pytest.mark.timeout(900)
def test_every_command_does_what_it_shows(filesystem_server: ServerProcess, tmp_path: Path) -> None:
    for step in COMMANDS:
        command = step.command.replace("127.0.0.1:4653", filesystem_server.address)
        assert form(run(command, tmp_path, ENVIRONMENT, step.output)) == form(step.output), command


def test_every_method_of_every_service_is_called(filesystem_server: ServerProcess, tmp_path: Path) -> None:
    def listed(service: str = "") -> list[str]:
        return run(f"grpcurl -plaintext {filesystem_server.address} list {service}", tmp_path, ENVIRONMENT).split()

    methods = [method for service in listed() for method in listed(service)]
    assert "holdfast.v1.BlobStore.PutBlob" in methods
    called = {found for step in COMMANDS for found in re.findall(r"\b([\w.]+)/(\w+)", step.command)}
    assert [method for method in methods if tuple(method.rsplit(".", 1)) not in called] == []


def test_every_method_has_its_heading() -> None:
    called = {found for step in COMMANDS for found in re.findall(r"\b(?:Blob|Checkpoint)Store/(\w+)", step.command)}
    assert {"PutBlob", "SaveCheckpoint"} <= called
    for method in called:
        assert f"\n## {method}\n" in DOCUMENT
