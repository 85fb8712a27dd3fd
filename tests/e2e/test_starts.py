"""Servers that start under odd settings, in odd surroundings, and with odd callers."""

import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from holdfast.v1 import blob_store_pb2 as pb
from tests.support.raw_blobs import chunk, get, header, put, stat, stub_of
from tests.support.samples import MIB
from tests.support.server_process import ServerProcess
from tests.support.statuses import refused

STRANGERS = 20


def test_an_empty_data_directory_setting_means_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with ServerProcess(env={"HOLDFAST_DATA_DIR": ""}) as server:
        assert server.wait_for_log("WARNING Nothing in memory survives this process")
        with grpc.insecure_channel(server.address) as channel:
            put(stub_of(channel), "key", b"data")
        assert server.stop() == 0
    assert list(tmp_path.iterdir()) == []


def loaded(pid: int, package: str) -> bool:
    """Tell whether a process has loaded a package that has compiled parts."""
    return any(f"/{package}/" in file.path for file in psutil.Process(pid).memory_maps())


def test_what_only_s3_needs_is_not_loaded_without_a_bucket(tmp_path: Path) -> None:
    import_module("minio")
    assert loaded(os.getpid(), "Crypto")  # comes with it
    with ServerProcess(tmp_path) as server:
        assert loaded(server.pid, "grpc")
        assert not loaded(server.pid, "Crypto")


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
def test_probes_answer_on_ipv6() -> None:
    with ServerProcess(args=["--http", "[::1]:0"]) as server:
        assert server.http.startswith("[::1]:")
        with urllib.request.urlopen(f"http://{server.http}/healthz", timeout=60) as answer:
            assert answer.read() == b"ok\n"


@pytest.mark.parametrize(
    ("name", "value", "setting"),
    [
        ("HOLDFAST_BLOB_STORE__MAX_BLOB_BYTES", str(2**63), "blob_store.max_blob_bytes"),
        ("HOLDFAST_RPC__KEEPALIVE_SECONDS", "1e9", "rpc.keepalive_seconds"),
    ],
)
def test_a_number_beyond_what_can_be_is_named(name: str, value: str, setting: str) -> None:
    command = [sys.executable, "-m", "holdfast_server", "serve", "--listen", "127.0.0.1:0", "--http", ""]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, name: value})
    try:
        _, text = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:  # it serves, and should not
        process.kill()
        _, text = process.communicate()
    assert process.returncode == 78
    assert f"setting {setting}" in text
    assert "Traceback" not in text


def test_probes_beyond_loopback_are_warned_of() -> None:
    with ServerProcess(args=["--http", "0.0.0.0:0"]) as server:
        assert any("WARNING Listening beyond this machine" in line and "0.0.0.0" in line for line in server.log)


def test_the_variable_of_the_command_line_is_not_warned_of() -> None:
    with ServerProcess(env={"HOLDFAST_ADDRESS": "127.0.0.1:4653"}) as server:
        assert [line for line in server.log if "HOLDFAST_ADDRESS" in line] == []


def test_a_server_without_standard_error_serves_and_keeps_its_log_out_of_the_data(tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'holdfast.sock'}"
    serve = [sys.executable, "-m", "holdfast_server", "serve", "--listen", address, "--http", ""]
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *serve, "--data-dir", str(tmp_path / "data")]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        with grpc.insecure_channel(address) as channel:
            grpc.channel_ready_future(channel).result(timeout=60)
            stub = stub_of(channel)
            put(stub, "key", b"data")
            assert get(stub, "key") == b"data"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    files = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert [path for path in files if b"Call finished" in path.read_bytes()] == []


def test_strangers_that_only_look_around_keep_nobody_out() -> None:
    left = threading.Event()

    def look() -> Iterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        left.wait()

    with (
        ServerProcess(env={"HOLDFAST_RPC__MAX_CONCURRENT_CALLS": "1"}) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        strangers = [reflection.ServerReflectionInfo(look(), timeout=120) for _ in range(STRANGERS)]
        with suppress(grpc.RpcError):  # to be refused is fine, too
            next(strangers[0])
        try:
            for _ in range(100):  # the other strangers come in meanwhile
                with refused() as refusal:
                    stub_of(channel).StatBlob(pb.StatBlobRequest(key="key"), timeout=60)
                assert (refusal.code, refusal.reason) == ("NOT_FOUND", "BLOB_NOT_FOUND")
        finally:
            left.set()
            for stranger in strangers:
                stranger.cancel()


def test_a_call_that_its_deadline_cut_is_logged_as_that_with_its_peer(server: ServerProcess) -> None:
    left = threading.Event()

    def stall() -> Iterator[pb.PutBlobRequest]:
        yield header("key")
        yield chunk(b"data")
        left.wait()

    with grpc.insecure_channel(server.address) as channel:
        # A call whose deadline passes while the machine stands still is cancelled, or never comes: so there are three.
        calls = [stub_of(channel).PutBlob.future(stall(), timeout=seconds) for seconds in (0.5, 8, 40)]
        line = server.wait_for_log(r"Call finished method=/holdfast.v1.BlobStore/PutBlob code=DEADLINE_EXCEEDED ")
        left.set()
        assert calls[0].code() is grpc.StatusCode.DEADLINE_EXCEEDED
        for call in calls:
            call.cancel()
    assert line is not None
    assert " peer=ipv4:127.0.0.1:" in line.string


def test_what_a_caller_sends_makes_no_long_lines(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.address) as channel:
        stub = stub_of(channel)
        put(stub, "key", b"data")
        with pytest.raises(grpc.RpcError):
            get(stub, "key", if_match_etag="x" * MIB)
        assert stat(stub, "key").size_bytes == 4
    assert server.wait_for_log("Call finished method=/holdfast.v1.BlobStore/StatBlob")
    assert max(len(line) for line in server.log) <= 2000
