"""What the command `holdfast` says, and how it exits, when something is wrong."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import holdfast
from tests.support.samples import MIB, sample
from tests.support.server_process import ServerProcess


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's directory."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def server(data_dir: Path) -> Iterator[ServerProcess]:
    """A server with the blobs `a` and `damaged`."""
    with ServerProcess(data_dir) as server:
        with holdfast.connect(server.address) as client:
            client.blobs.put("a", b"bytes")
            client.blobs.put("damaged", sample(3 * MIB))
        (stored,) = (path for path in data_dir.rglob("*") if path.is_file() and path.stat().st_size > MIB)
        with stored.open("r+b") as file:
            file.seek(2 * MIB + 100)
            byte = file.read(1)[0]
            file.seek(2 * MIB + 100)
            file.write(bytes([byte ^ 1]))
        yield server


@pytest.fixture(autouse=True)
def _in_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: ServerProcess) -> None:
    """Tests run in a directory with the file `source`, and the command knows the server."""
    (tmp_path / "source").write_bytes(b"source")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOLDFAST_ADDRESS", server.address)


def _run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "holdfast", *arguments], capture_output=True, check=False, text=True, input=""
    )


_FAILURES = [
    (1, ["blob", "put", "missing", "b"], "missing: No such file or directory"),
    (1, ["blob", "put", "\x1b[31mred", "b"], r"\x1b[31mred: No such file or directory"),
    (1, ["blob", "put", ".", "b"], ".: Is a directory"),
    (1, ["blob", "get", "a", "missing/target"], "No such file or directory"),
    (1, ["blob", "get", "a", "--offset", "5"], "offset 5 is not inside the object of 5 bytes"),
    (2, ["blob", "put"], "Missing argument 'SOURCE'"),
    (2, ["blob", "frobnicate"], "No such command 'frobnicate'"),
    (2, ["blob", "put", "source"], "give it, or --content"),
    (2, ["blob", "put", "source", "b", "--content", "p/"], "--content makes the key"),
    (2, ["blob", "put", "source", "b", "--suffix", ".x"], "--suffix and --layout go with --content"),
    (2, ["blob", "put", "source", "b", "--metadata", "novalue"], "'novalue' is not NAME=VALUE"),
    (2, ["blob", "put", "source", "b", "--metadata", "n=1", "--metadata", "n=2"], "'n' is given twice"),
    (2, ["blob", "put", "source", "b", "--create-only", "--if-match", "e"], "exclude each other"),
    (2, ["blob", "put", "source", "../b"], "key '../b' has a '..' segment"),
    (2, ["blob", "get", "a", "--length", "0"], "length 0 is not above 0"),
    (2, ["blob", "get", "a", "--offset", "9" * 30], "cannot be sent"),
    (2, ["--address", "", "server", "info"], "--address"),
    (2, ["--timeout", "inf", "blob", "stat", "a"], "Invalid value for --timeout: timeout inf is above 1e+09"),
    (2, ["--timeout", "nan", "blob", "stat", "a"], "--timeout"),
    (3, ["blob", "stat", "missing"], "there is no blob with key 'missing'"),
    (3, ["blob", "get", "missing", "target"], "there is no blob with key 'missing'"),
    (4, ["blob", "put", "source", "a", "--create-only"], "key 'a' already exists"),
    (4, ["blob", "put", "source", "a", "--if-match", "e"], "not 'e'"),
    (4, ["blob", "get", "a", "--if-match", "e"], "not 'e'"),
    (5, ["blob", "get", "damaged", "target"], "key 'damaged'"),
    (2, ["blob", "cp", "a"], "TARGET: give it, or --content"),
    (2, ["blob", "cp", "a", "b", "--content", "p/"], "TARGET: --content makes the key"),
    (2, ["blob", "cp", "a", "b", "--metadata", "novalue"], "'novalue' is not NAME=VALUE"),
    (2, ["blob", "cp", "a", "chunks/b"], "key 'chunks/b'"),
    (3, ["blob", "cp", "missing", "b"], "there is no blob with key 'missing'"),
    (4, ["blob", "cp", "a", "damaged", "--create-only"], "key 'damaged' already exists"),
    (4, ["blob", "cp", "a", "b", "--if-source-match", "e"], "not 'e'"),
    (2, ["blob", "missing", "/bad"], "key '/bad'"),
    (2, ["blob", "rm", "/bad"], "key '/bad'"),
    (6, ["--address", "127.0.0.1:1", "--retries", "0", "blob", "stat", "a"], "no connection to 127.0.0.1:1"),
]


@pytest.mark.parametrize(
    ("code", "arguments", "message"), _FAILURES, ids=[" ".join(case[1])[:40] for case in _FAILURES]
)
def test_a_failure_is_one_line_and_an_exit_code(code: int, arguments: list[str], message: str) -> None:
    done = _run(*arguments)
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.startswith("holdfast: ")
    assert done.stderr.endswith("\n")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert os.listdir() == ["source"]  # noqa: PTH208 (names are what is compared)


def test_damage_is_found_on_the_way_to_stdout() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", "blob", "get", "damaged"], capture_output=True, check=False
    )
    assert done.returncode == 5
    assert sample(3 * MIB).startswith(done.stdout)  # what left was right
    assert len(done.stdout) == 2 * MIB


def test_failures_are_json_for_machines() -> None:
    done = _run("--json", "blob", "put", "source", "/b")
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    error = json.loads(line)["error"]
    assert error.pop("message").startswith("key '/b' has an empty segment")
    assert error == {
        "exit_code": 2,
        "type": "InvalidArgument",
        "reason": "INVALID_KEY",
        "details": {},
        "field": "key",
    }
    done = _run("--json", "blob", "put")
    assert json.loads(done.stderr)["error"]["exit_code"] == done.returncode == 2


def test_what_cannot_be_removed_does_not_keep_the_others(server: ServerProcess) -> None:
    with holdfast.connect(server.address) as client:
        client.blobs.put("surplus", b"")
    done = _run("--json", "blob", "rm", "never", "/bad", "surplus", "chunks/worse")
    assert done.returncode == 2
    assert json.loads(done.stdout) == {
        "removed": [{"key": "never", "existed": False}, {"key": "surplus", "existed": True}]
    }
    told = [json.loads(line)["error"] for line in done.stderr.splitlines()]
    assert [(error["exit_code"], error["reason"]) for error in told] == [(2, "INVALID_KEY")] * 2
    assert "/bad" in told[0]["message"]
    assert "chunks/worse" in told[1]["message"]
    assert _run("blob", "stat", "surplus").returncode == 3


def test_what_cannot_be_told_does_not_keep_the_others() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", "blob", "missing", "-"],
        capture_output=True,
        check=False,
        input=b"nothing\n/bad\nnot \xff utf-8\na\nnothing more",
    )
    assert done.returncode == 2
    assert done.stdout == b"nothing\nnothing more\n"
    first, second = done.stderr.decode().splitlines()
    assert first.startswith("holdfast: key '/bad' has an empty segment")
    assert second.startswith(r"holdfast: not \udcff utf-8: the request cannot be sent")


def test_the_exit_code_is_that_of_the_first_failure(data_dir: Path, server: ServerProcess) -> None:
    with holdfast.connect(server.address) as client:
        client.blobs.put("record", b"")
    (stored,) = (path for path in data_dir.rglob("record*") if path.is_file())
    stored.write_bytes(bytes(100))
    for keys, code in ((["record", "/bad"], 5), (["/bad", "record"], 2)):
        done = _run("blob", "missing", *keys)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 2)
    assert _run("blob", "rm", "record").returncode == 0


def test_a_server_that_is_silent_is_not_waited_for(server: ServerProcess) -> None:
    server.signal(signal.SIGSTOP)
    try:
        for arguments in (["server", "info"], ["blob", "get", "a"], ["blob", "put", "source", "b"]):
            done = _run("--timeout", "0.3", "--retries", "0", *arguments)
            assert (done.returncode, done.stdout) == (6, "")
            assert server.address in done.stderr
    finally:
        server.signal(signal.SIGCONT)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["blob", "ls"], ["blob", "get", "a"]])
def test_output_that_cannot_be_written_is_a_failure(
    arguments: list[str], unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "holdfast", *arguments], stdout=full, stderr=subprocess.PIPE, check=False, text=True
        )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1


def test_closed_streams_are_no_failure() -> None:
    command = f"{sys.executable} -m holdfast blob stat a >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], check=False).returncode == 0
