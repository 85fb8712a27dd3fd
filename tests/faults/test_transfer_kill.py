"""kill -9 in the middle of `holdfast-server copy`: run again, it ends with equal trees."""

import os
import secrets
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

import pytest

from tests.support.s3_servers import MinioServer
from tests.support.s3_stores import OpenedStore, fresh_bucket, s3_environment
from tests.support.samples import MIB, sample
from tests.support.transfers import command, environment, fill, objects_in, objects_of, run
from tests.support.waiting import wait_until

KILLS = 10


def copy_with_kills(
    arguments: list[object], there: Callable[[], int], moments: list[int], env: Mapping[str, str] | None = None
) -> None:
    """Run a copy once for each moment, and kill it when so many objects are there."""
    for moment in moments:
        process = subprocess.Popen(
            command(*arguments), env=environment(env), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        with process:
            try:
                wait_until(lambda: there() >= moment or process.poll() is not None, 120)  # noqa: B023 (ends in the loop)
            finally:
                process.kill()


@pytest.fixture
def seed(record_property: Callable[[str, object], None]) -> int:
    """The seed of the moments, shown with a failure."""
    chosen = int(os.environ.get("HOLDFAST_TEST_SEED") or secrets.randbelow(1 << 32))
    record_property("seed", chosen)
    print(f"HOLDFAST_TEST_SEED={chosen}")  # noqa: T201 (pytest shows it where the test fails)
    return chosen


def test_ten_kills_among_ten_thousand_objects_leave_equal_trees(tmp_path: Path, seed: int) -> None:
    objects = {f"p{number % 10}/k{number:05}": b"object %d" % number * (number % 50) for number in range(10_000)}
    fill(tmp_path / "from", objects)
    tree = tmp_path / "to/objects/tree"

    def there() -> int:
        return sum(len(os.listdir(entry)) for entry in os.scandir(tree)) if tree.exists() else 0  # noqa: PTH208 (quicker)

    arguments: list[object] = ["copy", "--from", tmp_path / "from", "--to", tmp_path / "to", "--json"]
    moments = sorted(Random(seed).sample(range(1, len(objects)), KILLS))
    copy_with_kills(arguments, there, moments)
    left = there()
    assert moments[-1] <= left
    ran = run(*arguments)
    assert (ran.code, ran.err) == (0, "")
    assert ran.count("copied", "present") == {"copied": len(objects) - left, "present": left}
    copied = objects_in(tmp_path / "to")
    assert copied == objects_in(tmp_path / "from")
    assert {key: found.data for key, found in copied.items()} == objects
    assert list((tmp_path / "to/objects/scratch").iterdir()) == []


def test_kills_on_the_way_to_s3_leave_equal_objects(minio: MinioServer, tmp_path: Path, seed: int) -> None:
    objects = {f"p{number % 10}/k{number:05}": b"object %d" % number for number in range(400)}
    large = {f"large/{number}": sample(11 * MIB, number) for number in range(2)}
    fill(tmp_path / "from", objects | large)
    env = s3_environment(minio, bucket := fresh_bucket())

    def there() -> int:
        client = minio.client()
        if not client.bucket_exists(bucket):
            return 0
        return sum(
            not (found.object_name or "").startswith("holdfast/")
            for found in client.list_objects(bucket, recursive=True)
        )

    moments = sorted(Random(seed).sample(range(len(objects)), KILLS // 2))
    copy_with_kills(["copy", "--from", tmp_path / "from", "--to", "s3"], there, moments, env)
    ran = run("copy", "--from", tmp_path / "from", "--to", "s3", "--json", env=env)
    assert (ran.code, ran.err) == (0, "")
    assert ran.summary["copied"] + ran.summary["present"] == len(objects | large)
    with OpenedStore(minio, bucket=bucket) as opened:
        assert objects_of(opened.store) == objects_in(tmp_path / "from")
