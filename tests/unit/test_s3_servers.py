"""The S3 servers that other tests stand on: that they store, can be stopped and started again, and leave nothing."""

import http.client
import io
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest
import urllib3
from minio import Minio
from minio.error import S3Error

from tests.support import s3_met
from tests.support.ports import held_port
from tests.support.s3_servers import MinioServer, MotoServer, RcloneServer, S3Server
from tests.support.samples import MIB, sample

Buckets = Callable[[S3Server], str]
WRITERS = 8


def put(client: Minio, bucket: str, key: str, data: bytes = b"data", metadata: Mapping[str, str] | None = None) -> None:
    client.put_object(bucket, key, io.BytesIO(data), len(data), metadata=dict(metadata or {}))


def get(client: Minio, bucket: str, key: str) -> bytes:
    with client.get_object(bucket, key) as answer:
        return answer.read()


def keys(client: Minio, bucket: str, prefix: str = "") -> list[str | None]:
    return [item.object_name for item in client.list_objects(bucket, prefix, recursive=True)]


def race(client: Minio, bucket: str, key: str) -> list[int]:
    """Return the statuses of writers that create a key at once."""
    url = client.presigned_put_object(bucket, key)  # minio's own methods take no conditions.
    start = threading.Barrier(WRITERS)

    def create() -> int:
        start.wait()
        return client._http.request("PUT", url, body=b"data", headers={"If-None-Match": "*"}).status

    with ThreadPoolExecutor(WRITERS) as pool:
        return [writer.result() for writer in [pool.submit(create) for _ in range(WRITERS)]]


@contextmanager
def begun_upload(server: S3Server, path: str) -> Iterator[None]:
    """Send 3 of 300 bytes; the connection ends with the block."""
    with socket.create_connection(address(server)) as connection:
        connection.sendall(f"PUT {path} HTTP/1.1\r\nHost: {server.endpoint}\r\nContent-Length: 300\r\n\r\nabc".encode())
        yield


def address(server: S3Server) -> tuple[str, int]:
    host, port = server.endpoint.split(":")
    return host, int(port)


def test_what_is_stored_comes_back(s3_server: S3Server, fresh_bucket: Buckets) -> None:
    client, bucket = s3_server.client(), fresh_bucket(s3_server)
    put(client, bucket, "a/b c", b"small", {"x-amz-meta-one": "1; a=b%20c", "x-amz-meta-under_score": "2"})
    put(client, bucket, "empty", b"")
    assert get(client, bucket, "a/b c") == b"small"
    assert get(client, bucket, "empty") == b""
    found = client.stat_object(bucket, "a/b c")
    assert found.size == 5
    assert found.metadata is not None
    assert found.metadata["x-amz-meta-one"] == "1; a=b%20c"
    assert found.metadata["x-amz-meta-under_score"] == "2"
    assert keys(client, bucket) == ["a/b c", "empty"]
    client.remove_object(bucket, "a/b c")
    assert keys(client, bucket) == ["empty"]


def test_an_upload_in_parts_comes_back(s3_server: S3Server, fresh_bucket: Buckets) -> None:
    client, bucket = s3_server.client(), fresh_bucket(s3_server)
    data = sample(12 * MIB + 5)
    client.put_object(
        bucket,
        "parts",
        io.BytesIO(data),
        -1,
        part_size=5 * MIB,
        metadata={"x-amz-meta-one": "1"},
        num_parallel_uploads=1,
    )
    found = client.stat_object(bucket, "parts")
    assert found.metadata is not None
    assert found.metadata["x-amz-meta-one"] == "1"
    assert get(client, bucket, "parts") == data


def test_a_bucket_is_emptied_behind_the_test(s3_server: S3Server, fresh_bucket: Buckets) -> None:
    client, bucket = s3_server.client(), fresh_bucket(s3_server)
    for number in range(3):
        put(client, bucket, f"folder/{number}")
    s3_server.empty_bucket(bucket)
    assert keys(client, bucket) == []


@pytest.mark.parametrize("s3_server", ["moto", "minio"], indirect=True)
def test_of_writers_that_create_only_one_wins(s3_server: S3Server, fresh_bucket: Buckets) -> None:
    client, bucket = s3_server.client(), fresh_bucket(s3_server)
    for round_ in range(10):
        assert sorted(race(client, bucket, f"key-{round_}")) == [200, *[412] * (WRITERS - 1)]


def test_rclone_ignores_conditions(rclone: RcloneServer, fresh_bucket: Buckets) -> None:
    assert race(rclone.client(), fresh_bucket(rclone), "key") == [200] * WRITERS


def test_moto_keeps_connections(moto: MotoServer, fresh_bucket: Buckets) -> None:
    bucket = fresh_bucket(moto)
    connection = http.client.HTTPConnection(moto.endpoint)
    connection.connect()
    connection.auto_open = 0  # A connection that moto closes is not opened again, but an error.
    with closing(connection):
        for method, key, status in [
            ("PUT", "key", 200),
            ("HEAD", "key", 200),
            ("GET", "key", 200),
            ("HEAD", "missing", 404),
            ("GET", "missing", 404),
            ("DELETE", "key", 204),
            ("GET", "", 200),
        ]:
            body = sample(MIB) if method == "PUT" else None
            connection.request(method, f"/{bucket}/{key}", body, {"Authorization": "as moto believes every key"})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == status


def test_moto_stores_nothing_of_an_upload_cut_short(moto: MotoServer, fresh_bucket: Buckets) -> None:
    client, bucket = moto.client(), fresh_bucket(moto)
    with begun_upload(moto, f"/{bucket}/cut"):
        pass
    put(client, bucket, "whole")
    assert keys(client, bucket) == ["whole"]


def test_in_moto_a_stalled_upload_holds_up_nobody(moto: MotoServer, fresh_bucket: Buckets) -> None:
    client, bucket = moto.client(), fresh_bucket(moto)
    with begun_upload(moto, f"/{bucket}/stalled"):
        put(client, bucket, "key")
        assert get(client, bucket, "key") == b"data"


@pytest.mark.parametrize("s3_server", ["minio", "rclone"], indirect=True)
@pytest.mark.parametrize("right", [{"access_key"}, {"secret_key"}])
def test_wrong_keys_are_refused(s3_server: S3Server, fresh_bucket: Buckets, right: set[str]) -> None:
    stranger = Minio(
        s3_server.endpoint,
        access_key=s3_server.access_key if "access_key" in right else "guessed-wrongly",
        secret_key=s3_server.secret_key if "secret_key" in right else "guessed-wrongly",
        secure=False,
        region="us-east-1",
    )
    with pytest.raises(S3Error) as refused:
        stranger.bucket_exists(fresh_bucket(s3_server))
    assert refused.value.code == "AccessDenied"


def test_minio_leads_no_browser_to_a_console(minio: MinioServer) -> None:
    browser = {"User-Agent": "Mozilla/5.0", "Accept": "text/html"}
    assert urllib3.request("GET", f"http://{minio.endpoint}/", headers=browser, redirect=False).status == 403


def test_what_minio_stores_outlives_its_process() -> None:
    s3_met.require(MinioServer)
    with MinioServer() as server:
        client, endpoint, pid = server.client(), server.endpoint, server.pid
        server.make_bucket("bucket")
        put(client, "bucket", "one", metadata={"x-amz-meta-one": "1"})
        server.stop()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address(server))
        server.start()
        put(client, "bucket", "two")
        server.kill()
        server.start()
        assert (server.endpoint, server.pid != pid) == (endpoint, True)
        assert keys(client, "bucket") == ["one", "two"]
        found = client.stat_object("bucket", "one")
        assert found.metadata is not None
        assert found.metadata["x-amz-meta-one"] == "1"


def test_a_port_is_held_for_the_server_that_names_it() -> None:
    with held_port() as port:
        with socket.socket() as other, pytest.raises(OSError, match="Address already in use"):
            other.bind(("127.0.0.1", port))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        for _ in range(2):
            with socket.create_server(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)):
                pass


@pytest.mark.parametrize("kind", s3_met.KINDS)
def test_a_server_listens_on_the_loopback_only_and_leaves_nothing(
    kind: type[S3Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_met.require(kind)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with kind() as server:
        process = psutil.Process(server.pid)
        listening = {tuple(found.laddr) for found in process.net_connections() if found.status == psutil.CONN_LISTEN}
        host, port = address(server)
        assert {(host, port)} <= listening <= {(host, port), ("::1", port)}
        assert list(tmp_path.iterdir()) != []
    assert not process.is_running()
    assert list(tmp_path.iterdir()) == []


class Broken(S3Server):
    name = "broken"

    def _command(self) -> list[str]:
        return [sys.executable, "-c", "import sys; sys.exit('there is no bread')"]


def test_a_server_that_does_not_start_tells_why_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(RuntimeError, match="broken did not start: it ended at once\nthere is no bread"):
        Broken()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_server_is_told_and_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in s3_met.KINDS:
        monkeypatch.setattr(kind, "built", tmp_path)
    monkeypatch.setattr(MinioServer, "built", tmp_path / "not there")
    monkeypatch.delenv("CI", raising=False)
    assert s3_met.line() == "S3 servers: moto yes, minio NO (make s3-server builds it), rclone yes"
    s3_met.require(MotoServer)
    with pytest.raises(pytest.skip.Exception, match="no minio: make s3-server builds it"):
        s3_met.require(MinioServer)


def test_a_missing_server_is_a_failure_in_ci(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MinioServer, "built", tmp_path / "not there")
    monkeypatch.setenv("CI", "true")
    with pytest.raises((pytest.fail.Exception, pytest.skip.Exception), match="make s3-server builds it") as ended:
        s3_met.require(MinioServer)
    assert ended.type is pytest.fail.Exception
