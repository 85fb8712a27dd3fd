"""The command `holdfast` and what is around it: terminals, pipes that close, signals."""

import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import google_crc32c
import grpc
import pytest

import holdfast
from holdfast.v1 import blob_store_pb2 as pb
from holdfast.v1 import blob_store_pb2_grpc
from holdfast.v1.types_pb2 import ByteRange, DataChunk
from tests.support.child_processes import killed_on_failure
from tests.support.samples import MIB, sample
from tests.support.server_process import ServerProcess
from tests.support.waiting import wait_until

_DATA = sample(MIB) * 16
_LONG = "long/" + ("x" * 190 + "/") * 2


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server that has the blob `big`, and more small ones than a pipe holds the list of."""
    with ServerProcess() as server, holdfast.connect(server.address) as client:
        client.blobs.put("big", _DATA)
        for number in range(300):
            client.blobs.put(f"{_LONG}{number:03}", b"")
        yield server.address


def _command(address: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "holdfast", "--address", address, *arguments]


def _read_terminal(descriptor: int) -> bytes:
    """Return what was written to a terminal until everybody closed it."""
    read = []
    try:
        while data := os.read(descriptor, 65536):
            read.append(data)
    except OSError:  # how Linux tells the end
        pass
    finally:
        os.close(descriptor)
    return b"".join(read)


def _on_terminal(command: list[str], *, stdout: bool) -> tuple[int, bytes, bytes]:
    """Run a command with stderr, and perhaps stdout, on a terminal; return exit code, stdout if not there, terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=theirs if stdout else subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "COLUMNS": "300"},  # so that neither a path nor a speed decides what there is room for
    )
    os.close(theirs)
    with ThreadPoolExecutor(1) as pool, killed_on_failure(process):
        terminal = pool.submit(_read_terminal, ours)
        printed, _ = process.communicate()
        return process.returncode, printed or b"", terminal.result()


def test_progress_is_shown_on_a_terminal_and_only_there(address: str, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(_DATA)
    for arguments in (["blob", "put", str(source), "copy"], ["blob", "get", "big", str(target)]):
        code, printed, terminal = _on_terminal(_command(address, *arguments), stdout=False)
        assert code == 0
        assert b"MiB" in terminal
        assert b"\x1b" not in printed
        assert printed.count(b"\n") == 1
        quiet = subprocess.run(_command(address, *arguments), capture_output=True, check=True)
        assert quiet.stderr == b""
    assert target.read_bytes() == _DATA


def test_one_progress_bar_is_shown_over_a_directory_with_its_failures(address: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for name in ("a", "b", "bad\n"):
        (root / name).write_bytes(_DATA)
    code, printed, terminal = _on_terminal(_command(address, "blob", "sync", str(root), "synced"), stdout=False)
    assert code == 1
    assert b"/48.0 MiB" in terminal
    assert rb"bad\n: key 'synced/bad\n' has a control" in terminal.replace(b"\r\n", b"")
    assert printed == b"2 stored (%d bytes), 0 there already, 1 FAILED\n" % (2 * len(_DATA))


def test_a_progress_bar_shows_no_control_characters_of_a_name(address: str, tmp_path: Path) -> None:
    source = tmp_path / "\x1b]0;title\x07"
    source.write_bytes(_DATA)
    code, _, terminal = _on_terminal(_command(address, "blob", "put", str(source), "copy"), stdout=False)
    assert code == 0
    assert rb"\x1b]0;title\x07" in terminal
    assert b"\x1b]0;" not in terminal


def test_bytes_stay_clean_beside_a_progress_bar(address: str) -> None:
    code, printed, terminal = _on_terminal(_command(address, "blob", "get", "big"), stdout=False)
    assert (code, printed) == (0, _DATA)
    assert b"MiB" in terminal


def test_bytes_do_not_go_to_a_terminal_unasked(address: str) -> None:
    code, _, terminal = _on_terminal(_command(address, "blob", "get", "big"), stdout=True)
    assert code == 2
    assert b"stdout is a terminal" in terminal
    assert _DATA[:100] not in terminal
    code, _, terminal = _on_terminal(_command(address, "blob", "get", f"{_LONG}000", "-"), stdout=True)
    assert (code, terminal) == (0, b"")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["blob", "get", "big", "-"], ["blob", "ls", "-r"]])
def test_a_reader_that_leaves_ends_the_command_quietly(
    address: str, arguments: list[str], unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with killed_on_failure(
        subprocess.Popen(_command(address, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_put_leaves_no_blob(address: str, number: signal.Signals) -> None:
    with killed_on_failure(
        subprocess.Popen(
            _command(address, "blob", "put", "-", "interrupted"), stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(_DATA)
        process.stdin.flush()  # all but what a pipe holds has been read
        process.send_signal(number)
        assert process.stderr.read() == b""
    assert process.returncode == 128 + number
    with holdfast.connect(address) as client, pytest.raises(holdfast.NotFound):
        client.blobs.stat("interrupted")


class _Halting(blob_store_pb2_grpc.BlobStoreServicer):
    """Sends the first half of a blob, and then nothing."""

    def __init__(self) -> None:
        self.halted = threading.Event()
        self.released = threading.Event()

    def GetBlob(self, request: pb.GetBlobRequest, context: grpc.ServicerContext) -> Iterator[pb.GetBlobResponse]:
        yield pb.GetBlobResponse(
            info=pb.BlobInfo(key="a", size_bytes=2, etag="e", sha256=bytes(32), range=ByteRange(length=2))
        )
        yield pb.GetBlobResponse(chunk=DataChunk(data=b"x", crc32c=google_crc32c.value(b"x")))
        self.halted.set()
        self.released.wait()


@pytest.fixture
def halting() -> Iterator[str]:
    """The address of a server that halts in mid-download."""
    servicer = _Halting()  # type: ignore[abstract]  # the other calls are not made
    server = grpc.server(ThreadPoolExecutor(2))
    blob_store_pb2_grpc.add_BlobStoreServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    servicer.released.set()
    server.stop(None).wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_get_leaves_what_was_there(halting: str, tmp_path: Path, number: signal.Signals) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"what was there")
    with killed_on_failure(
        subprocess.Popen(
            _command(halting, "blob", "get", "a", str(target)), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2)  # the temporary one among them
        process.send_signal(number)
        assert process.stderr.read() == b""
        assert process.stdout.read() == b""
    assert process.returncode == 128 + number
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert target.read_bytes() == b"what was there"
