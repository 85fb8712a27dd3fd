"""A data directory that can be read but not written: puts are told so, and reads go on."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.raw_blobs import delete, entries, get, put, stat, stub_of
from tests.support.samples import MIB, sample
from tests.support.server_process import ServerProcess
from tests.support.statuses import refused

DATA = sample(MIB + 1)
READ_ONLY = 0o500
WRITABLE = 0o700


@pytest.fixture
def wrapper() -> list[str]:
    """Makes the bits of a file's mode bind: root's power to ignore them is given up."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("mode bits bind root only without its capabilities, and there is no command `setpriv`")
    wrapper = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    tried = subprocess.run([*wrapper, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"mode bits bind root only without its capabilities, and setpriv says: {tried.stderr.strip()}")
    return wrapper


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """The data directory; writable again in the end."""
    yield tmp_path / "data"
    set_mode(tmp_path / "data", WRITABLE)


@pytest.fixture
def server(data: Path, wrapper: list[str]) -> Iterator[ServerProcess]:
    """A server that may do what the modes allow."""
    with ServerProcess(data, wrapper=wrapper) as process:
        yield process
        set_mode(data, WRITABLE)


@pytest.fixture
def stub(server: ServerProcess) -> Iterator[Any]:
    """A stub of the server, with a blob `some/key` in its store."""
    with grpc.insecure_channel(server.address) as channel:
        put(stub_of(channel), "some/key", DATA)
        yield stub_of(channel)


def set_mode(top: Path, mode: int) -> None:
    for path in [top, *top.rglob("*")]:
        if path.is_dir():
            path.chmod(mode)


WRITES: dict[str, Callable[[Any], object]] = {
    "a put": lambda stub: put(stub, "new", DATA),
    "a put in a new directory": lambda stub: put(stub, "new/directory/key", DATA),
    "an overwrite": lambda stub: put(stub, "some/key", b"new"),
    "a conditional put": lambda stub: put(stub, "some/key", b"new", if_match_etag=stat(stub, "some/key").etag),
    "a delete": lambda stub: delete(stub, "some/key"),
}


@pytest.mark.parametrize("part", [".", "objects/tree"])
def test_writes_to_a_read_only_store_are_refused_and_reads_go_on(
    stub: Any, data: Path, tmp_path: Path, part: str
) -> None:
    set_mode(data / part, READ_ONLY)
    for name, write in WRITES.items():
        with refused() as refusal:
            write(stub)
        assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "READ_ONLY"), name
        assert str(tmp_path) not in refusal.message
        assert re.match(r"key '(new|some)", refusal.message)
        assert get(stub, "some/key") == DATA
        assert stat(stub, "some/key").size_bytes == len(DATA)
        assert [entry.key for entry in entries(stub)] == ["some/key"]
    assert list(data.glob("objects/scratch/*/*")) == []


def test_a_store_that_is_writable_again_takes_writes_again(stub: Any, data: Path) -> None:
    set_mode(data, READ_ONLY)
    with refused():
        put(stub, "new", DATA)
    set_mode(data, WRITABLE)
    for write in WRITES.values():
        write(stub)
    assert [entry.key for entry in entries(stub)] == ["new", "new/directory/key"]


def test_a_server_that_cannot_write_its_directory_says_so_in_a_line_and_ends(
    server: ServerProcess, stub: Any, data: Path, wrapper: list[str]
) -> None:
    server.stop()
    set_mode(data, READ_ONLY)
    with pytest.raises(RuntimeError) as ended:
        ServerProcess(data, wrapper=wrapper)
    assert "Traceback" not in str(ended.value)
    assert "holdfast-server: the filesystem backend cannot be opened" in str(ended.value)


@pytest.mark.parametrize("part", ["objects/tree", "objects/scratch", "holdfast/store"])
def test_a_server_that_cannot_read_its_directory_says_which_and_why(
    server: ServerProcess, stub: Any, data: Path, wrapper: list[str], part: str
) -> None:
    assert end_of(server, data, data / part, wrapper).endswith(f"{data / part}: Permission denied")


def test_a_server_that_cannot_read_its_whole_directory_says_so_in_a_line(
    server: ServerProcess, stub: Any, data: Path, wrapper: list[str]
) -> None:
    line = end_of(server, data, data, wrapper)
    assert line == f"holdfast-server: data directory {data} cannot be used: {data}/holdfast/store: Permission denied"


def test_a_server_that_cannot_look_for_checkpoints_says_so_in_a_line(
    server: ServerProcess, stub: Any, data: Path, wrapper: list[str]
) -> None:
    (data / "objects" / "tree" / "snapshots.d").mkdir()
    line = end_of(server, data, data / "objects" / "tree" / "snapshots.d", wrapper)
    assert line.startswith(f"holdfast-server: data directory {data} cannot be used: the list of 'snapshots/'")


def end_of(server: ServerProcess, data: Path, unreadable: Path, wrapper: list[str]) -> str:
    """Return the only line of a start in which something cannot be read."""
    server.stop()
    mode = unreadable.stat().st_mode
    unreadable.chmod(0)
    command = [*wrapper, sys.executable, "-m", "holdfast_server", "serve", "--listen", "127.0.0.1:0", "--http", ""]
    try:
        ended = subprocess.run(
            [*command, "--data-dir", str(data)], capture_output=True, text=True, check=False, timeout=60
        )
    finally:
        unreadable.chmod(mode)
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    return line


def test_what_cannot_be_read_is_named_and_is_one_line_in_the_log(server: ServerProcess, stub: Any, data: Path) -> None:
    directory = data / "objects" / "tree" / "some.d"
    directory.chmod(0)
    with refused() as refusal:
        stat(stub, "some/key")
    directory.chmod(WRITABLE)
    assert (refusal.reason, refusal.message) == (
        "BACKEND_UNAVAILABLE",
        "key 'some/key': the file system failed: EACCES",
    )
    assert get(stub, "some/key") == DATA
    assert server.wait_for_log("Call finished method=/holdfast.v1.BlobStore/GetBlob code=OK")
    (failed,) = [line for line in server.log if "ERROR Backend failed" in line]
    assert "key 'some/key'" in failed
    assert all(line.startswith("20") for line in server.log)  # no traceback behind any


def test_a_server_starts_below_a_directory_that_it_may_only_pass_through(tmp_path: Path, wrapper: list[str]) -> None:
    passage = tmp_path / "passage"
    (passage / "data").mkdir(parents=True)
    passage.chmod(0o311)
    try:
        with (
            ServerProcess(passage / "data", wrapper=wrapper) as server,
            grpc.insecure_channel(server.address) as channel,
        ):
            assert put(stub_of(channel), "some/key", DATA).size_bytes == len(DATA)
    finally:
        passage.chmod(WRITABLE)
