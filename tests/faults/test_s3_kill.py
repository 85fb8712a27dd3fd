"""kill -9 in the middle of an upload: the old object is there or the new one, and what is left is swept.

Where only the sender goes away, the upload is aborted at once.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.support.disk_operations import KEY, content
from tests.support.fault_proxy import Hang, Seen
from tests.support.paused_upload import PausedUpload
from tests.support.raw_blobs import get, put, trailer
from tests.support.s3_faults import uploads
from tests.support.s3_operations import OLD
from tests.support.s3_process import FaultyProcess
from tests.support.s3_servers import MotoServer, S3Server
from tests.support.s3_stores import OpenedStore, fresh_bucket, s3_environment
from tests.support.samples import MIB, sample
from tests.support.server_metrics import metric
from tests.support.server_process import ServerProcess
from tests.support.waiting import wait_until

DATA = sample(11 * MIB)
"""Three parts."""
ANY_AGE = timedelta(minutes=-1)
"""moto says of every upload that it began just now."""
SHA256 = hashlib.sha256(DATA).digest()


@pytest.fixture(params=["moto", "minio"])
def s3(request: pytest.FixtureRequest) -> S3Server:
    """Each server that keeps conditions."""
    server: S3Server = request.getfixturevalue(request.param)
    return server


@contextmanager
def uploading(server: ServerProcess, **declared: Any) -> Iterator[PausedUpload]:
    """Send all of DATA, and do not say that this was all."""
    with PausedUpload(server.address, KEY.text, DATA[:MIB], **declared) as upload:
        for start in range(MIB, len(DATA), MIB):
            upload.send(DATA[start : start + MIB])
        yield upload


def say_that_this_was_all(upload: PausedUpload) -> None:
    """Finish an upload that nobody will answer."""
    upload._parts.put(trailer())
    upload._parts.put(None)


def completes(request: Seen) -> bool:
    return request.method == "POST" and "uploadId" in request.query and request.path.endswith(f"/{KEY}")


def is_part(request: Seen) -> bool:
    return "partNumber" in request.query and request.path.endswith(f"/{KEY}")


def test_an_upload_in_parts(s3: S3Server) -> None:
    with FaultyProcess(s3) as process:
        put(process.stub, KEY.text, OLD)
        with uploading(process.server, sha256=SHA256):
            wait_until(lambda: [request.status for request in process.proxy.requests if is_part(request)] == [200, 200])
            process.server.kill()
        with OpenedStore(s3, bucket=process.bucket) as after:
            assert content(after.store, KEY) == OLD
            assert uploads(s3, process.bucket, KEY.text) == 1
            bucket = after.store._bucket
            assert bucket.sweep(timedelta(hours=1)) == 0
            # MinIO tells of those since its start, and only who asks without a prefix; old ones it aborts itself.
            assert bucket.sweep(ANY_AGE) == 1
            assert uploads(s3, process.bucket, KEY.text) == 0
            assert content(after.store, KEY) == OLD


def test_an_upload_whose_sender_goes_away(moto: MotoServer) -> None:
    with FaultyProcess(moto) as process:
        put(process.stub, KEY.text, OLD)
        with uploading(process.server, sha256=SHA256):
            wait_until(lambda: uploads(moto, process.bucket, KEY.text) == 1)
        wait_until(lambda: uploads(moto, process.bucket, KEY.text) == 0)
        assert get(process.stub, KEY.text) == OLD


def test_an_upload_to_the_spool(moto: MotoServer, tmp_path: Path) -> None:
    bucket = fresh_bucket()
    env = {**s3_environment(moto, bucket), "HOLDFAST_SPOOL_DIR": str(tmp_path / "spool")}
    with ServerProcess(env=env) as server, uploading(server):
        wait_until(lambda: metric(server, "holdfast_spool_used_bytes") > 0)
        server.kill()
    assert list((tmp_path / "spool").iterdir()) == []
    with OpenedStore(moto, bucket=bucket) as after:
        assert content(after.store, KEY) is None
    assert uploads(moto, bucket, KEY.text) == 0


@pytest.mark.parametrize(
    ("when", "done", "expected"), [("request", None, OLD), ("answer", 200, DATA)], ids=["before", "behind"]
)
def test_the_end_of_an_upload_in_parts(
    moto: MotoServer, when: Literal["request", "answer"], done: int | None, expected: bytes
) -> None:
    with FaultyProcess(moto) as process:
        put(process.stub, KEY.text, OLD)
        process.proxy.fail(Hang(when), when=completes)
        with uploading(process.server, sha256=SHA256) as upload:
            say_that_this_was_all(upload)
            wait_until(
                lambda: [request.upstream_status for request in process.proxy.requests if completes(request)] == [done]
            )
            process.server.kill()
        with OpenedStore(moto, bucket=process.bucket) as after:
            assert content(after.store, KEY) == expected
            assert uploads(moto, process.bucket, KEY.text) == (0 if done else 1)
