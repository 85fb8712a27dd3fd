"""Every RPC by hand, with the real grpcurl and the server's own reflection: no proto file, no stub."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import holdfast
from tests.support.child_processes import killed_on_failure
from tests.support.samples import MIB, sample
from tests.support.server_process import ServerProcess

GRPCURL = Path(sys.executable).parent / "grpcurl"
PATIENTLY = ("-plaintext", "-connect-timeout", "60")
_DATA = re.compile(rb'^\s*"data": "([^"]*)"')


def grpcurl(server: ServerProcess, *args: str, request: str = "") -> str:
    """Return what grpcurl prints. The method stands in `args`."""
    flags = [*PATIENTLY, *(["-d", "@"] if request else []), server.address]
    done = subprocess.run(
        [GRPCURL, *flags, *args], input=request, capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout + done.stderr


def call(server: ServerProcess, method: str, request: str) -> dict[str, object]:
    answer: dict[str, object] = json.loads(grpcurl(server, f"holdfast.v1.{method}", request=request))
    return answer


def test_reflection_lists_and_describes_the_services(server: ServerProcess) -> None:
    assert grpcurl(server, "list").split() == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "holdfast.v1.BlobStore",
        "holdfast.v1.CheckpointStore",
        "holdfast.v1.Server",
    ]
    described = grpcurl(server, "describe", "holdfast.v1.BlobStore")
    for method in ("PutBlob", "GetBlob", "StatBlob", "DeleteBlob", "ListBlobs"):
        assert method in described


def test_a_blob_goes_in_and_out(server: ServerProcess) -> None:
    data = base64.b64encode(b"hello world").decode()
    header = '{"header": {"key": "greeting", "content_type": "text/plain"}}'
    put = call(server, "BlobStore/PutBlob", f'{header} {{"chunk": {{"data": "{data}"}}}} {{"trailer": {{}}}}')
    assert put["created"] is True
    stat = call(server, "BlobStore/StatBlob", '{"key": "greeting"}')
    assert stat["blob"] == put["blob"]
    got = grpcurl(server, "holdfast.v1.BlobStore/GetBlob", request='{"key": "greeting", "offset": 6}')
    assert base64.b64encode(b"world").decode() in got
    listed = call(server, "BlobStore/ListBlobs", '{"prefix": "gr"}')
    assert [blob["key"] for blob in listed["blobs"]] == ["greeting"]  # type: ignore[attr-defined]
    assert call(server, "BlobStore/DeleteBlob", '{"key": "greeting"}') == {"existed": True}


def test_a_content_address_is_made_by_the_server(server: ServerProcess) -> None:
    header = '{"header": {"content": {"prefix": "artifacts/", "suffix": ".wasm"}}}'
    put = call(server, "BlobStore/PutBlob", header + ' {"chunk": {"data": "aGk="}} {"trailer": {}}')
    assert put["blob"]["key"] == f"artifacts/{hashlib.sha256(b'hi').hexdigest()}.wasm"  # type: ignore[index]


def test_a_refusal_shows_reason_and_field(server: ServerProcess) -> None:
    shown = grpcurl(server, "holdfast.v1.BlobStore/StatBlob", request='{"key": "../x"}')
    for part in ("InvalidArgument", '"reason": "INVALID_KEY"', '"field": "key"', '"domain": "holdfast"'):
        assert part in shown


def test_server_info_and_health(server: ServerProcess) -> None:
    assert "holdfast.v1.BlobStore" in grpcurl(server, "holdfast.v1.Server/GetServerInfo")
    assert "SERVING" in grpcurl(server, "grpc.health.v1.Health/Check")


def test_a_large_blob_put_from_python_is_read_back_the_same(filesystem_server: ServerProcess) -> None:
    server = filesystem_server
    data = sample(64 * MIB + 5)
    with holdfast.connect(server.address) as client:
        client.blobs.put("large", data)
    command = [GRPCURL, *PATIENTLY, "-d", '{"key": "large"}', server.address, "holdfast.v1.BlobStore/GetBlob"]
    found = hashlib.sha256()
    with killed_on_failure(subprocess.Popen(command, stdout=subprocess.PIPE)) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if match := _DATA.match(line):
                found.update(base64.b64decode(match[1]))
    assert process.returncode == 0
    assert found.digest() == hashlib.sha256(data).digest()
