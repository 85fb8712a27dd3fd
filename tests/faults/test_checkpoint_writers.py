"""Sixteen writers of one room in two servers, one of which is killed: no acknowledged epoch is lost or goes back."""

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest

from holdfast.v1 import checkpoint_store_pb2 as pb
from holdfast_server.checkpoints import key_file
from holdfast_server.checkpoints.key_ring import KeyRing
from tests.support.checkpoint_calls import entries, load, saving, stat, stub_of
from tests.support.ports import held_port
from tests.support.s3_servers import MinioServer
from tests.support.s3_stores import fresh_bucket, s3_environment
from tests.support.samples import sample
from tests.support.server_process import ServerProcess
from tests.support.waiting import wait_until

ROOM = "arena/7"
WRITERS = 16
KILL_AFTER = 50
MORE = 20
SECONDS = 120
AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
KEPT = (pb.SAVE_OUTCOME_STORED, pb.SAVE_OUTCOME_EXISTS_SAME)
RECONNECT = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500))


@dataclass
class Ledger:
    """What the writers were told. An epoch is `kept` with the bytes that were acknowledged, and nobody else's."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    over: threading.Event = field(default_factory=threading.Event)
    """Tells the writers to end. They repeat what was not answered before they do."""
    kept: dict[int, bytes] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    unanswered: int = 0
    found_after: int = 0
    """Saves that were repeated, and had been done."""

    def wait_for(self, more: int) -> None:
        """Return once so many more were acknowledged, or something is wrong."""
        most = len(self.kept) + more
        wait_until(lambda: len(self.kept) >= most or bool(self.wrong), SECONDS)

    def note(self, epoch: int, data: bytes, answer: pb.SaveCheckpointResponse) -> None:
        with self.lock:
            if answer.next_epoch <= epoch:
                self.wrong.append(f"after {epoch} to go on at {answer.next_epoch}")
            if answer.outcome not in KEPT:
                return
            if epoch in self.kept:
                self.wrong.append(f"epoch {epoch} was acknowledged twice")
            if answer.latest_epoch < epoch:
                self.wrong.append(f"the pointer was at {answer.latest_epoch} when {epoch} was acknowledged")
            self.found_after += answer.outcome == pb.SAVE_OUTCOME_EXISTS_SAME
            self.kept[epoch] = data


def write(writer: int, address: str, ledger: Ledger) -> None:
    """Save epoch after epoch, each at what the answer before said; repeat what was not answered."""
    epoch = 1
    with grpc.insecure_channel(address, options=RECONNECT) as channel:
        stub = stub_of(channel)
        for number in itertools.count():
            if ledger.over.is_set():
                return
            data = b"%d of writer %d: " % (number, writer) + sample(5_000 * (writer % 3), seed=number)
            answer = None
            while answer is None:
                try:
                    answer = stub.SaveCheckpoint(
                        saving(ROOM, epoch, data, writer_id=f"writer-{writer}"), timeout=SECONDS, wait_for_ready=True
                    )
                except grpc.RpcError as error:
                    if error.code() not in AWAY:
                        ledger.wrong.append(f"writer {writer} was refused: {error}")
                        return
                    ledger.unanswered += 1
            ledger.note(epoch, data, answer)
            epoch = answer.next_epoch


def watch(call: Any, watched: list[int]) -> None:
    try:
        for answer in call:
            watched.append(answer.epoch if answer.HasField("epoch") else -1)  # noqa: PERF401 (it never ends)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.CANCELLED:
            raise


def poll(stub: Any, polled: list[int], over: threading.Event) -> None:
    while not over.wait(0.01):
        try:
            polled.append(stat(stub, ROOM).epoch)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise


@contextmanager
def seen_from(address: str) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the epochs that a watch is told, and those that a poller finds, as they come."""
    watched: list[int] = []
    polled: list[int] = []
    over = threading.Event()
    with grpc.insecure_channel(address) as channel, ThreadPoolExecutor(2) as pool:
        stub = stub_of(channel)
        call = stub.WatchCheckpoints(pb.WatchCheckpointsRequest(room_ids=[ROOM]))
        done = [pool.submit(watch, call, watched), pool.submit(poll, stub, polled, over)]
        try:
            yield watched, polled
        finally:
            over.set()
            call.cancel()
        for each in done:
            each.result()


Start = Callable[..., ServerProcess]


@pytest.fixture(params=["filesystem", "minio"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    """What starts a server on one directory, or on one bucket with one key ring."""
    environment = {"HOLDFAST_CHECKPOINT_STORE__WATCH_INTERVAL_SECONDS": "0.05"}
    data: Path | None = tmp_path / "data"
    if request.param == "minio":
        minio: MinioServer = request.getfixturevalue("minio")
        key_file.create(tmp_path / "ring.json", KeyRing.fresh())
        environment |= s3_environment(minio, fresh_bucket())
        environment["HOLDFAST_CHECKPOINT_STORE__KEY_RING"] = str(tmp_path / "ring.json")
        data = None
    return lambda **options: ServerProcess(data, env=environment, **options)


def test_no_acknowledged_epoch_of_many_writers_is_lost_when_a_server_is_killed(start: Start) -> None:
    ledger = Ledger()
    with ExitStack() as stack:
        address = f"127.0.0.1:{stack.enter_context(held_port())}"
        dying, living, third = (stack.enter_context(start(**at)) for at in ({"listen": address}, {}, {}))
        watched, polled = stack.enter_context(seen_from(third.address))
        threads = [
            threading.Thread(target=write, args=(number, (address, living.address)[number % 2], ledger))
            for number in range(WRITERS)
        ]
        for thread in threads:
            thread.start()
        try:
            while not ledger.unanswered and not ledger.wrong:  # a kill may come when all have their answers
                ledger.wait_for(KILL_AFTER)
                dying.kill()
                ledger.wait_for(MORE)
                dying = stack.enter_context(start(listen=address))
            ledger.wait_for(KILL_AFTER)
            wait_until(lambda: all(len(set(seen)) > MORE for seen in (watched, polled)) or bool(ledger.wrong))
        finally:
            ledger.over.set()
            for thread in threads:
                thread.join()  # each save has a time-out
        assert ledger.wrong == []
        heir = dying
        highest = max(ledger.kept)
        for server in (living, heir, third):
            with grpc.insecure_channel(server.address) as channel:
                check(stub_of(channel), ledger, highest)
        wait_until(lambda: watched[-1] == highest)
    for seen in (watched, polled):
        assert all(earlier <= later for earlier, later in pairwise(seen)), seen
    assert len(set(watched)) == len(watched)


def check(stub: Any, ledger: Ledger, highest: int) -> None:
    """Check that all that was acknowledged is there, and the pointer names the highest."""
    info, data = load(stub, ROOM)
    assert (info.epoch, info.latest_epoch, data) == (highest, highest, ledger.kept[highest])
    for epoch, expected in ledger.kept.items():
        info, data = load(stub, ROOM, epoch=epoch)
        assert data == expected, f"epoch {epoch}"
        assert info.writer_id == "writer-" + data.split(b":")[0].split()[-1].decode()
    # What is there and was not acknowledged was under way when the server was killed; it is whole, too.
    assert {entry.epoch for entry in entries(stub, ROOM)} >= set(ledger.kept)
    assert all(entry.status.code == 0 for entry in entries(stub, ROOM))
