"""How a server starts, tells that it is well, and stops."""

import re
import signal
import socket
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_status import rpc_status

from holdfast.v1 import blob_store_pb2 as pb
from holdfast.v1 import blob_store_pb2_grpc, server_pb2, server_pb2_grpc, types_pb2
from tests.support.server_process import ServerProcess
from tests.support.waiting import wait_until

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def health(channel: grpc.Channel, service: str = "") -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        health_pb2.HealthCheckRequest.SerializeToString,
        health_pb2.HealthCheckResponse.FromString,
    )
    return int(check(request, timeout=60).status)


def http(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


class SlowUpload:
    """An upload that is at work until it is told to finish."""

    def __init__(self, channel: grpc.Channel, server: ServerProcess) -> None:
        self._parts: SimpleQueue[pb.PutBlobRequest | None] = SimpleQueue()
        self._parts.put(pb.PutBlobRequest(header=pb.PutBlobHeader(key="slow")))
        self._parts.put(pb.PutBlobRequest(chunk=types_pb2.DataChunk(data=b"data")))
        self.call = blob_store_pb2_grpc.BlobStoreStub(channel).PutBlob.future(self._requests())
        wait_until(lambda: "holdfast_calls_at_work 1.0" in http(server.http, "/metrics")[1])

    def _requests(self) -> Iterator[pb.PutBlobRequest]:
        while (part := self._parts.get()) is not None:
            yield part

    def finish(self) -> pb.PutBlobResponse:
        self._parts.put(pb.PutBlobRequest(trailer=types_pb2.UploadTrailer()))
        self._parts.put(None)
        return self.call.result(timeout=60)

    def abandon(self) -> None:
        self._parts.put(None)


def test_health_is_told_per_service(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.address) as channel:
        for name in ("", "holdfast.v1.BlobStore", "holdfast.v1.Server"):
            assert health(channel, name) == SERVING
        with pytest.raises(grpc.RpcError) as unknown:
            health(channel, "holdfast.v1.Unknown")
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


def test_http_answers_probes_and_metrics(server: ServerProcess) -> None:
    assert http(server.http, "/healthz") == (200, "ok\n")
    assert http(server.http, "/readyz") == (200, "ready\n")
    code, text = http(server.http, "/metrics")
    assert code == 200
    for name in ("grpc_server_handled_total", "holdfast_object_operations_total", "process_resident_memory_bytes"):
        assert name in text
    assert http(server.http, "/elsewhere")[0] == 404


def test_server_info_tells_backend_and_limits(server: ServerProcess, request: pytest.FixtureRequest) -> None:
    with grpc.insecure_channel(server.address) as channel:
        info = server_pb2_grpc.ServerStub(channel).GetServerInfo(server_pb2.GetServerInfoRequest())
    assert [service.name for service in info.services] == ["holdfast.v1.BlobStore", "holdfast.v1.CheckpointStore"]
    for service in info.services:
        assert (service.backend.name == "memory") == (service.backend.durability == server_pb2.DURABILITY_PROCESS)
        assert service.backend.condition_mode == server_pb2.CONDITION_MODE_ATOMIC
    assert info.limits.max_chunk_bytes == 2 << 20


@pytest.fixture
def patient_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that would wait for an hour for calls to finish."""
    with ServerProcess(tmp_path / "data", env={"HOLDFAST_DRAIN_SECONDS": "3600"}) as process:
        yield process


def test_sigterm_lets_calls_finish_and_refuses_new_ones(patient_server: ServerProcess) -> None:
    server = patient_server
    with grpc.insecure_channel(server.address) as channel:
        upload = SlowUpload(channel, server)
        server.signal(signal.SIGTERM)
        assert server.wait_for_log("Draining.*calls_at_work=1")
        assert health(channel) == NOT_SERVING
        assert http(server.http, "/readyz") == (503, "not ready\n")
        assert http(server.http, "/healthz") == (200, "ok\n")

        def refused() -> bool:
            try:
                blob_store_pb2_grpc.BlobStoreStub(channel).StatBlob(pb.StatBlobRequest(key="k"))
            except grpc.RpcError as error:
                return error.code() is grpc.StatusCode.UNAVAILABLE and _reason(error) == "DRAINING"
            return False

        wait_until(refused)
        assert upload.finish().blob.size_bytes == 4
        assert server.wait() == 0
    assert server.wait_for_log("Server stopped all_calls_finished=True")


def _reason(error: grpc.RpcError) -> str:
    assert isinstance(error, grpc.Call)
    status = rpc_status.from_call(error)
    assert status is not None
    assert any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in status.details)
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    return str(info.reason)


def test_a_notice_lets_calls_in_after_not_serving(tmp_path: Path) -> None:
    with ServerProcess(env={"HOLDFAST_DRAIN_NOTICE_SECONDS": "600"}) as server:
        with grpc.insecure_channel(server.address) as channel:
            server.signal(signal.SIGTERM)
            wait_until(lambda: health(channel) == NOT_SERVING)
            with pytest.raises(grpc.RpcError) as missing:
                blob_store_pb2_grpc.BlobStoreStub(channel).StatBlob(pb.StatBlobRequest(key="k"))
            assert missing.value.code() is grpc.StatusCode.NOT_FOUND
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_stops_at_once(patient_server: ServerProcess, number: int) -> None:
    server = patient_server
    with grpc.insecure_channel(server.address) as channel:
        upload = SlowUpload(channel, server)
        server.signal(number)
        assert server.wait_for_log("Draining")
        server.signal(number)
        assert server.wait() == 0
        with pytest.raises(grpc.RpcError):
            upload.call.result(timeout=60)
        upload.abandon()
    assert server.wait_for_log("Server stopped all_calls_finished=False")


def test_a_drain_ends_when_its_time_is_up(tmp_path: Path) -> None:
    with (
        ServerProcess(tmp_path / "data", env={"HOLDFAST_DRAIN_SECONDS": "0.3"}) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        upload = SlowUpload(channel, server)
        assert server.stop() == 0
        assert server.wait_for_log("Server stopped all_calls_finished=False")
        upload.abandon()
    with ServerProcess(tmp_path / "data") as again, grpc.insecure_channel(again.address) as channel:
        assert list(blob_store_pb2_grpc.BlobStoreStub(channel).ListBlobs(pb.ListBlobsRequest()).blobs) == []


def test_a_signal_that_comes_while_nobody_waits_stays_pending(filesystem_server: ServerProcess) -> None:
    ending = {signal.SIGTERM, signal.SIGINT}
    threads = []
    for path in Path(f"/proc/{filesystem_server.pid}/task").glob("*/status"):
        with suppress(FileNotFoundError, ProcessLookupError):  # Threads may end meanwhile.
            threads.append(path.read_text())
    masks = [{name: int(mask, 16) for name, mask in re.findall(r"Sig(\w+):\s+(\w+)", text)} for text in threads]
    assert masks, "a server has threads"
    open_to = [mask for mask in masks if not all(mask["Blk"] >> (number - 1) & 1 for number in ending)]
    assert len(open_to) <= 1, "only the one that waits for them, or none before it does, has them not blocked"
    assert not any(mask["Cgt"] >> (signal.SIGTERM - 1) & 1 for mask in masks), "and none handles it"


def test_an_idle_server_stops_at_once(filesystem_server: ServerProcess) -> None:
    assert filesystem_server.stop() == 0


def test_tcp_and_a_unix_socket_serve_the_same_store(tmp_path: Path) -> None:
    path = tmp_path / "holdfast.sock"
    with ServerProcess(args=["--listen", f"unix:{path}"]) as server:
        tcp, unix = server.address.split(",")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with grpc.insecure_channel(tcp) as channel:
            header = pb.PutBlobHeader(key="k", size_bytes=0)
            blob_store_pb2_grpc.BlobStoreStub(channel).PutBlob(iter([pb.PutBlobRequest(header=header)]))
        with grpc.insecure_channel(unix) as channel:
            assert blob_store_pb2_grpc.BlobStoreStub(channel).StatBlob(pb.StatBlobRequest(key="k")).blob.key == "k"


def test_a_unix_socket_in_use_is_not_taken_over_and_a_dead_one_is(tmp_path: Path) -> None:
    path = tmp_path / "holdfast.sock"
    with ServerProcess(listen=f"unix:{path}") as server:
        code, text = serve_and_fail("--listen", f"unix:{path}")
        assert code == 1
        assert "a server is listening there" in text
        with grpc.insecure_channel(server.address) as channel:
            assert health(channel) == SERVING
        server.kill()
    assert path.exists()
    with ServerProcess(listen=f"unix:{path}") as server, grpc.insecure_channel(server.address) as channel:
        assert health(channel) == SERVING


def test_a_unix_socket_that_cannot_be_made_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, reason in (
        (tmp_path / "none" / "s.sock", f"{tmp_path}/none: No such file or directory"),
        (tmp_path / "file" / "s.sock", f"{tmp_path}/file: Not a directory"),
        (tmp_path / ("s" * 108), "its path has more than 107 bytes"),
    ):
        refusal = f"holdfast-server: cannot listen on unix:{path}: {reason}"
        code, text = serve_and_fail("--listen", f"unix:{path}")
        *log, last = text.splitlines()
        assert (code, last) == (1, refusal)
        assert all(line.startswith("20") for line in log)  # ours: gRPC had nothing to say


def test_a_settings_file_that_may_not_be_read_is_named_and_no_usage_error(tmp_path: Path) -> None:
    code, text = serve_and_fail("--config", str(tmp_path))
    assert (code, text) == (78, f"holdfast-server: config file {tmp_path} cannot be read: Is a directory\n")


def test_listening_beyond_loopback_is_warned_of() -> None:
    with ServerProcess(listen="0.0.0.0:0") as server:
        assert server.wait_for_log("WARNING Listening beyond this machine, without authentication")


def serve_and_fail(*args: str, **env: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "holdfast_server", "serve", "--http", "", *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=env or None)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def test_a_port_in_use_is_named_and_not_shared(server: ServerProcess) -> None:
    code, text = serve_and_fail("--listen", server.address)
    assert code == 1
    assert f"cannot listen on {server.address}" in text


def test_an_http_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, text = serve_and_fail("--listen", "127.0.0.1:0", "--http", f"127.0.0.1:{port}")
    assert code == 1
    assert f"cannot listen on 127.0.0.1:{port} for HTTP" in text


def test_wrong_settings_end_with_one_line_and_code_78() -> None:
    code, text = serve_and_fail("--listen", "nonsense")
    assert code == 78
    assert "holdfast-server: setting listen" in text


def test_a_foreign_data_directory_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    code, text = serve_and_fail("--listen", "127.0.0.1:0", "--data-dir", str(tmp_path))
    assert code == 1
    assert "holiday.jpg" in text


def test_memory_warns_that_nothing_survives() -> None:
    with ServerProcess() as server:
        assert server.wait_for_log("WARNING Nothing in memory survives this process service=holdfast.v1.BlobStore")


def test_a_service_that_is_switched_off_is_not_there() -> None:
    with (
        ServerProcess(env={"HOLDFAST_BLOB_STORE__ENABLED": "false"}) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        with pytest.raises(grpc.RpcError) as missing:
            blob_store_pb2_grpc.BlobStoreStub(channel).StatBlob(pb.StatBlobRequest(key="k"))
        assert missing.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_the_log_can_be_json() -> None:
    with ServerProcess(env={"HOLDFAST_LOG_FORMAT": "json"}, ready=r'"grpc": "([^"]+)".*"http": "([^"]+)"') as server:
        assert server.wait_for_log(r'^\{"time": "[^"]+Z", "level": "INFO", "event": "Server ready"')


def test_unknown_variables_are_warned_of() -> None:
    with ServerProcess(env={"HOLDFAST_LISTN": "typo"}) as server:
        assert server.wait_for_log("WARNING Unknown variable in the environment name=HOLDFAST_LISTN")
