"""`holdfast blob sync` against a real server: what it stores and removes, what it prints, and how it exits."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

import holdfast
from holdfast.v1 import blob_store_pb2 as pb
from holdfast.v1 import blob_store_pb2_grpc
from holdfast.v1.types_pb2 import ErrorReason, ItemStatus
from tests.support.child_processes import killed_on_failure
from tests.support.samples import MIB, sample
from tests.support.server_process import ServerProcess

_LARGE = sample(MIB)


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A server."""
    with ServerProcess() as server:
        yield server


@pytest.fixture
def blobs(server: ServerProcess) -> Iterator[holdfast.Blobs]:
    """Its blobs: at first none."""
    with holdfast.connect(server.address) as client:
        for key in _keys(client.blobs):
            client.blobs.delete(key)
        yield client.blobs


@pytest.fixture(autouse=True)
def _in_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: ServerProcess) -> None:
    """Tests run in a directory with the tree `maps`, and the command knows the server."""
    (tmp_path / "maps" / "deep").mkdir(parents=True)
    (tmp_path / "maps" / "a").write_bytes(b"1")
    (tmp_path / "maps" / "deep" / "b").write_bytes(b"2")
    (tmp_path / "maps" / "large").write_bytes(_LARGE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOLDFAST_ADDRESS", server.address)


def _keys(blobs: holdfast.Blobs) -> list[str]:
    return [entry.key for entry in blobs.list() if isinstance(entry, holdfast.BlobEntry)]


def _run(*arguments: str | bytes) -> "subprocess.CompletedProcess[str]":
    command: list[str | bytes] = [sys.executable, "-m", "holdfast", *arguments]
    return subprocess.run(command, capture_output=True, check=False, text=True, input="")


def _json(*arguments: str) -> tuple[int, list[Any], list[Any]]:
    """Run the command with `--json`; return its exit code and the lines on stdout and stderr."""
    done = _run("--json", "blob", "sync", *arguments)
    return (
        done.returncode,
        [json.loads(line) for line in done.stdout.splitlines()],
        [json.loads(line) for line in done.stderr.splitlines()],
    )


def _summary(**counts: object) -> dict[str, object]:
    none = dict.fromkeys(("stored", "present", "removed", "passed_over", "failed", "stored_bytes"), 0)
    return {"summary": none | {"dry_run": False, "finished": True} | counts}


def test_a_directory_is_stored_and_then_found_to_be_there(blobs: holdfast.Blobs) -> None:
    done = _run("blob", "sync", "maps", "worlds")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"3 stored ({MIB + 2} bytes), 0 there already\n"
    assert _keys(blobs) == ["worlds/a", "worlds/deep/b", "worlds/large"]
    assert blobs.get("worlds/large").read() == _LARGE
    assert _run("blob", "sync", "maps/", "worlds/").stdout == "0 stored (0 bytes), 3 there already\n"


def test_what_changes_is_a_line_of_json_each(blobs: holdfast.Blobs) -> None:
    blobs.put("w/a", b"1")
    blobs.put("w/surplus", b"3")
    code, lines, errors = _json("maps", "w", "--delete")
    assert (code, errors) == (0, [])
    assert sorted(lines[:-1], key=lambda line: line["key"]) == [
        {"key": "w/deep/b", "outcome": "stored", "size_bytes": 1},
        {"key": "w/large", "outcome": "stored", "size_bytes": MIB},
        {"key": "w/surplus", "outcome": "removed", "size_bytes": 0},
    ]
    assert lines[-1] == _summary(stored=2, present=1, removed=1, stored_bytes=MIB + 1)


def test_nothing_is_removed_unless_told(blobs: holdfast.Blobs) -> None:
    blobs.put("w/surplus", b"3")
    _run("blob", "sync", "maps", "w")
    assert "w/surplus" in _keys(blobs)
    done = _run("blob", "sync", "maps", "w", "--delete")
    assert done.stdout == "0 stored (0 bytes), 3 there already, 1 removed\n"
    assert "w/surplus" not in _keys(blobs)


def test_a_dry_run_tells_and_does_nothing(blobs: holdfast.Blobs) -> None:
    blobs.put("w/surplus", b"3")
    blobs.put("w/a", b"1")
    done = _run("blob", "sync", "maps", "w", "--delete", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    *changes, summary = done.stdout.splitlines()
    assert sorted(changes) == ["would remove w/surplus", "would store w/deep/b", "would store w/large"]
    assert summary == f"2 would be stored ({MIB + 1} bytes), 1 there already, 1 would be removed"
    _, lines, _ = _json("maps", "w", "--delete", "--dry-run")
    assert lines[-1] == _summary(stored=2, present=1, removed=1, stored_bytes=MIB + 1, dry_run=True)
    assert _keys(blobs) == ["w/a", "w/surplus"]


def test_what_fails_is_told_by_name_and_the_others_go_on(blobs: holdfast.Blobs) -> None:
    Path("maps/bad\n").write_bytes(b"")
    Path("maps", os.fsdecode(b"bad\xff")).write_bytes(b"")
    Path("maps/link").symlink_to("a")
    blobs.put("w/surplus", b"3")
    done = _run("blob", "sync", "maps", "w", "--delete")
    assert done.returncode == 1
    assert sorted(done.stderr.splitlines()) == [
        r"holdfast: maps/bad\n: key 'w/bad\n' has a control character",
        r"holdfast: maps/bad\udcff: its name is not UTF-8, as keys are",
        "holdfast: passed over: maps/link: it is a symbolic link",
    ]
    assert done.stdout == f"3 stored ({MIB + 2} bytes), 0 there already, 0 removed, 1 passed over, 2 FAILED\n"
    assert _keys(blobs) == ["w/a", "w/deep/b", "w/large", "w/surplus"]


def test_what_fails_is_json_for_machines(blobs: holdfast.Blobs) -> None:
    Path("maps/bad\n").write_bytes(b"")
    Path("maps", os.fsdecode(b"bad\xff")).write_bytes(b"")
    Path("maps/link").symlink_to("a")
    code, lines, errors = _json("maps", "w")
    assert code == 1
    assert lines[-1] == _summary(stored=3, stored_bytes=MIB + 2, passed_over=1, failed=2)
    told = [error["error"] for error in errors if "error" in error]
    assert {error["exit_code"] for error in told} == {1}
    details = [error["details"] for error in told]
    assert {"path": "bad\n", "key": "w/bad\n"} in details
    assert {"path": "bad\udcff", "key": None} in details
    assert {"passed_over": "link", "why": "it is a symbolic link"} in errors


def test_links_alone_are_no_failure(blobs: holdfast.Blobs) -> None:
    Path("maps/link").symlink_to("a")
    assert _run("blob", "sync", "maps", "w").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["maps"], 2, "Missing argument 'PREFIX'"),
        (["maps", "", "--delete"], 2, "PREFIX: it is empty, and --delete would remove"),
        (["maps", "/w"], 2, "prefix '/w/': key '/w/x' has an empty segment"),
        (["maps", b"w\xff"], 2, r"prefix 'w\udcff/': the request cannot be sent"),
        (["nowhere", "w"], 1, "nowhere: No such file or directory"),
        (["maps/a", "w"], 1, "maps/a: Not a directory"),
    ],
)
def test_what_is_wrong_as_a_whole_is_one_line(
    blobs: holdfast.Blobs, arguments: list[str | bytes], code: int, message: str
) -> None:
    blobs.put("a", b"")
    done = _run("blob", "sync", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("holdfast: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert _keys(blobs) == ["a"]


def test_the_whole_store_is_emptied_of_what_is_not_there_only_if_that_is_said(blobs: holdfast.Blobs) -> None:
    blobs.put("other/surplus", b"")
    assert _run("blob", "sync", "maps", "").returncode == 0
    assert _keys(blobs) == ["a", "deep/b", "large", "other/surplus"]
    assert _run("blob", "sync", "maps", "", "--delete", "--whole-store").returncode == 0
    assert _keys(blobs) == ["a", "deep/b", "large"]


def test_an_empty_directory_removes_nothing(blobs: holdfast.Blobs) -> None:
    blobs.put("w/a", b"")
    Path("empty").mkdir()
    done = _run("blob", "sync", "empty", "w", "--delete")
    assert done.returncode == 1
    assert done.stderr == "holdfast: empty: there is no file in it, and so nothing is removed\n"
    assert _keys(blobs) == ["w/a"]
    assert _run("blob", "sync", "empty", "w").returncode == 0


def test_a_server_that_is_gone_is_told() -> None:
    done = _run("--address", "127.0.0.1:1", "--retries", "0", "blob", "sync", "maps", "w")
    assert (done.returncode, done.stdout) == (6, "")
    assert "no connection to 127.0.0.1:1" in done.stderr


class _Halting(blob_store_pb2_grpc.BlobStoreServicer):
    """Says that a prefix is right, and then nothing more."""

    def __init__(self) -> None:
        self.asked = 0
        self.halted = threading.Event()
        self.released = threading.Event()

    def FindMissingBlobs(
        self, request: pb.FindMissingBlobsRequest, context: grpc.ServicerContext
    ) -> pb.FindMissingBlobsResponse:
        self.asked += 1
        if self.asked > 1:
            self.halted.set()
            self.released.wait()
        return pb.FindMissingBlobsResponse(missing=[0])


class _Changing(blob_store_pb2_grpc.BlobStoreServicer):
    """Has all files, and the blob `w/surplus` with another etag each time that it is listed."""

    def __init__(self) -> None:
        self.lists = 0

    def FindMissingBlobs(
        self, request: pb.FindMissingBlobsRequest, context: grpc.ServicerContext
    ) -> pb.FindMissingBlobsResponse:
        return pb.FindMissingBlobsResponse()

    def ListBlobs(self, request: pb.ListBlobsRequest, context: grpc.ServicerContext) -> pb.ListBlobsResponse:
        self.lists += 1
        return pb.ListBlobsResponse(blobs=[pb.BlobEntry(key="w/surplus", size_bytes=1, etag=f"e{self.lists}")])

    def BatchDeleteBlobs(
        self, request: pb.BatchDeleteBlobsRequest, context: grpc.ServicerContext
    ) -> pb.BatchDeleteBlobsResponse:
        assert [(item.key, item.if_match_etag) for item in request.items] == [("w/surplus", "e1")]
        status = ItemStatus(
            code=grpc.StatusCode.FAILED_PRECONDITION.value[0],
            reason=ErrorReason.Value("ERROR_REASON_PRECONDITION_FAILED"),
        )
        return pb.BatchDeleteBlobsResponse(results=[pb.BatchDeleteBlobsResult(status=status)])


@contextmanager
def _serving(servicer: blob_store_pb2_grpc.BlobStoreServicer) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    blob_store_pb2_grpc.add_BlobStoreServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def test_what_others_change_is_not_removed_and_told_by_name() -> None:
    Path("maps/large").unlink()
    with _serving(_Changing()) as address:  # type: ignore[abstract]  # the other calls are not made
        done = _run("--address", address, "blob", "sync", "maps", "w", "--delete")
    assert done.returncode == 1
    assert done.stderr == "holdfast: maps/surplus: it was changed after it was listed, and is left\n"
    assert done.stdout == "0 stored (0 bytes), 2 there already, 0 removed, 1 FAILED\n"


@pytest.fixture
def halting() -> Iterator[tuple[_Halting, str]]:
    """A server that halts, and its address."""
    servicer = _Halting()  # type: ignore[abstract]  # the other calls are not made
    with _serving(servicer) as address:
        yield servicer, address
        servicer.released.set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_that_it_is_not_finished(halting: tuple[_Halting, str], number: signal.Signals) -> None:
    Path("maps/link").symlink_to("a")
    Path("maps/large").unlink()
    with killed_on_failure(
        subprocess.Popen(
            [sys.executable, "-m", "holdfast", "--address", halting[1], "blob", "sync", "maps", "w"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    ) as process:
        assert halting[0].halted.wait(60)
        process.send_signal(number)
        printed, told = process.communicate()
    assert process.returncode == 128 + number
    assert told == "holdfast: passed over: maps/link: it is a symbolic link\n"
    assert printed == (
        "0 stored (0 bytes), 0 there already, 1 passed over, not finished: the same command goes on from here\n"
    )
