"""The S3 store goes away in the middle of `holdfast-server copy`, and comes back: the copy waits, and goes on."""

import json
import subprocess
from pathlib import Path

from tests.support import s3_met
from tests.support.child_processes import killed_on_failure
from tests.support.s3_servers import MinioServer
from tests.support.s3_stores import OpenedStore, fresh_bucket, s3_environment
from tests.support.samples import sample
from tests.support.transfers import command, environment, fill, objects_in, objects_of, put_all
from tests.support.waiting import wait_until

OBJECTS = {f"k{number:03}": sample(30_000, number) for number in range(400)}


def begun(*arguments: object, env: dict[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        command("copy", *arguments, "--json"), env=environment(env), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_a_target_that_comes_back_gets_all(tmp_path: Path) -> None:
    s3_met.require(MinioServer)
    fill(tmp_path / "from", OBJECTS)
    with MinioServer() as server:
        env = s3_environment(server, bucket := fresh_bucket())

        def there() -> int:
            client = server.client()
            return client.bucket_exists(bucket) and sum(1 for _ in client.list_objects(bucket, prefix="k"))

        with killed_on_failure(begun("--from", tmp_path / "from", "--to", "s3", env=env)) as process:
            wait_until(lambda: there() > 20 or process.poll() is not None)
            server.stop()
            server.start()
            out, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, b"")
        assert json.loads(out)["copied"] == len(OBJECTS)
        with OpenedStore(server, bucket=bucket) as opened:
            assert objects_of(opened.store) == objects_in(tmp_path / "from")


def test_a_source_that_comes_back_is_copied_whole(tmp_path: Path) -> None:
    s3_met.require(MinioServer)
    with MinioServer() as server:
        with OpenedStore(server) as opened:
            put_all(opened.store, OBJECTS)
        env = s3_environment(server, opened.bucket)
        with killed_on_failure(begun("--from", "s3", "--to", tmp_path / "to", env=env)) as process:
            wait_until(lambda: len(list((tmp_path / "to").glob("objects/tree/*.f"))) > 20)
            server.stop()
            server.start()
            out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, b"")
    assert json.loads(out)["copied"] == len(OBJECTS)
    assert {key: found.data for key, found in objects_in(tmp_path / "to").items()} == OBJECTS
