"""kill -9 of `holdfast blob sync`, again and again, and of its server: run once more, the trees are equal."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from holdfast.v1 import blob_store_pb2 as pb
from tests.support.raw_blobs import TIMEOUT_SECONDS, entries, get, stub_of
from tests.support.s3_servers import MotoServer
from tests.support.s3_stores import fresh_bucket, s3_environment
from tests.support.server_process import ServerProcess
from tests.support.waiting import wait_until

PREFIX = "worlds/"
BATCH = 100
SECONDS = 120
_PIPE_BYTES = 4096
"""How far a run may be ahead of who reads what it prints: a few dozen lines."""

Tree = dict[str, bytes]
"""Bytes by key."""


def make_tree(root: Path, chance: random.Random, files: int, most_bytes: int) -> Tree:
    """Make files of up to `most_bytes`, and some that are streamed; return the blobs that they should become."""
    tree: Tree = {}
    for number in range(files):
        size = chance.randrange(300_000, 2_000_000) if number % 1000 == 7 else chance.randrange(most_bytes)
        path = f"{chance.randrange(20):02}/{chance.randrange(5)}/{number}"
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data := chance.randbytes(size))
        tree[PREFIX + path] = data
    return tree


def put_surplus(server: ServerProcess, tree: Tree, chance: random.Random, count: int) -> None:
    """Store blobs that the directory lacks, and other bytes under some of its keys."""
    new = {f"{PREFIX}surplus/{number}": b"surplus" for number in range(count)}
    new |= dict.fromkeys(chance.sample(sorted(tree), 20), b"older")
    with grpc.insecure_channel(server.address) as channel:
        stub: Any = stub_of(channel)
        keys = list(new)
        for start in range(0, len(keys), 1000):
            items = [pb.BatchPutBlobsItem(key=key, data=new[key]) for key in keys[start : start + 1000]]
            answer = stub.BatchPutBlobs(pb.BatchPutBlobsRequest(items=items), timeout=TIMEOUT_SECONDS)
            assert not any(result.status.code for result in answer.results)


def sizes(server: ServerProcess) -> dict[str, int]:
    """List what is below the prefix, through the generated stub."""
    with grpc.insecure_channel(server.address) as channel:
        return {entry.key: entry.size_bytes for entry in entries(stub_of(channel), PREFIX)}


def stored(server: ServerProcess) -> Tree:
    """Read all of it, likewise."""
    found: Tree = {}
    with grpc.insecure_channel(server.address) as channel:
        stub: Any = stub_of(channel)
        keys = list(sizes(server))
        for start in range(0, len(keys), BATCH):
            some = keys[start : start + BATCH]
            items = [pb.BlobAddress(key=key) for key in some]
            answer = stub.BatchGetBlobs(pb.BatchGetBlobsRequest(items=items), timeout=TIMEOUT_SECONDS)
            for key, result in zip(some, answer.results, strict=True):
                # What does not fit into a batch comes by itself.
                found[key] = get(stub, key) if result.status.code else result.data
    return found


class Sync:
    """`holdfast blob sync --delete` as a process. `seen(outcome)` is called for each line that it prints of a blob."""

    def __init__(self, root: Path, server: ServerProcess, seen: Callable[[str], None] = lambda _: None) -> None:
        self._seen = seen
        command = [sys.executable, "-m", "holdfast", "--address", server.address, "--retries", "0", "--json"]
        self._process = subprocess.Popen(
            [*command, "blob", "sync", str(root), PREFIX, "--delete"],
            stdout=subprocess.PIPE,
            pipesize=_PIPE_BYTES,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def has_ended(self) -> bool:
        """Whether it is over."""
        return self._process.poll() is not None

    def kill(self) -> None:
        """Kill it at once."""
        self._process.kill()

    def wait(self) -> int:
        """Wait for its end, and return its exit code."""
        try:
            self._process.wait(SECONDS)
        finally:
            self._process.kill()  # if it does not end
            self._reader.join()
            with self._process:
                pass
        return self._process.returncode

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            # The last line of a killed process may be half a line.
            if line.endswith(b"\n") and "outcome" in (told := json.loads(line)):
                self._seen(told["outcome"])


@dataclass
class Countdown:
    """Does something when an outcome was seen for the n-th time."""

    outcome: str
    left: int
    do: Callable[[], None]

    def __call__(self, outcome: str) -> None:
        if outcome == self.outcome:
            self.left -= 1
            if self.left == 0:
                self.do()


def calls(server: ServerProcess) -> int:
    return sum("Call finished" in line for line in server.log)


def kill_after_blobs(root: Path, server: ServerProcess, outcome: str, number: int, *, with_server: bool = False) -> str:
    """Kill a run as soon as it told of so many blobs; perhaps its server first."""
    started = threading.Event()

    def kill() -> None:
        started.wait()
        if with_server:
            server.kill()
        run.kill()

    run = Sync(root, server, Countdown(outcome, number, kill))
    started.set()
    assert run.wait() in ({-signal.SIGKILL, 6} if with_server else {-signal.SIGKILL})
    return f"{number} {outcome}{', and the server' if with_server else ''}"


def kill_after_calls(root: Path, server: ServerProcess, number: int) -> str:
    """Kill a run as soon as the server has answered so many calls of it."""
    before = calls(server)
    run = Sync(root, server)
    try:
        wait_until(lambda: run.has_ended or calls(server) >= before + number)
    finally:
        run.kill()
        ended = run.wait()
    assert ended == -signal.SIGKILL
    return f"{number} calls"


def sync_whole(root: Path, server: ServerProcess) -> None:
    run = Sync(root, server)
    assert run.wait() == 0


@pytest.fixture
def chance() -> random.Random:
    """Chance, which a failed test can be repeated with."""
    seed = int(os.environ.get("HOLDFAST_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    say(f"HOLDFAST_TEST_SEED={seed}")
    return random.Random(seed)


def say(what: str) -> None:
    """Tell what pytest shows if the test fails."""
    sys.stdout.write(f"{what}\n")


def missing(server: ServerProcess, tree: Tree) -> int:
    return len(tree.keys() - sizes(server).keys())


def test_ten_kills_and_one_run_more_make_ten_thousand_files_equal(tmp_path: Path, chance: random.Random) -> None:
    root, data = tmp_path / "root", tmp_path / "data"
    tree = make_tree(root, chance, 10_000, 4000)
    kinds = ["calls", "blobs", "blobs", "blobs", "blobs and server"]
    moments = [*kinds, *chance.sample(kinds, 4)]
    server = ServerProcess(data)
    try:
        put_surplus(server, tree, chance, 2100)
        for done, moment in enumerate(moments):
            # Enough must be left for the kills to come, and what is on its way at a kill is stored as well.
            left = missing(server, tree)
            number = chance.randrange(1, max(2, left // (len(moments) - done + 1)))
            if moment == "calls":
                how = kill_after_calls(root, server, chance.randrange(1, 6))
            else:
                how = kill_after_blobs(root, server, "stored", number, with_server="server" in moment)
            if not server.is_running:
                server = ServerProcess(data)
            say(f"killed after {how}: {left} files were missing, and {missing(server, tree)} are now")
        # A thousand are removed at a time, and while these are told of the next thousand may be on its way.
        how = kill_after_blobs(root, server, "removed", chance.randrange(1, 900))
        say(f"killed after {how}: {len(sizes(server)) - len(tree)} blobs are too many")
        assert len(sizes(server)) > len(tree)
        sync_whole(root, server)
        assert stored(server) == tree
    finally:
        server.kill()


def test_kills_and_one_run_more_make_the_files_equal_in_a_bucket(
    moto: MotoServer, tmp_path: Path, chance: random.Random
) -> None:
    root = tmp_path / "root"
    tree = make_tree(root, chance, 800, 20_000)  # so many that a run takes longer than a test may stand still
    with ServerProcess(env=s3_environment(moto, fresh_bucket())) as server:
        put_surplus(server, tree, chance, 30)
        say(f"killed after {kill_after_calls(root, server, chance.randrange(1, 4))}")
        for _ in range(2):
            number = chance.randrange(1, missing(server, tree) // 3)
            say(f"killed after {kill_after_blobs(root, server, 'stored', number)}")
        sync_whole(root, server)
        assert stored(server) == tree
