"""`holdfast-server copy`: one store becomes as another one is, however often it is run."""

import json
import os
import signal
import socket
import subprocess
import threading
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from holdfast_server.objects.info import Attributes
from tests.support.child_processes import killed_on_failure
from tests.support.fault_proxy import FOREVER, FaultProxy, ResetBefore, Seen
from tests.support.raw_blobs import get, put, stub_of
from tests.support.s3_servers import MinioServer, MotoServer, S3Server
from tests.support.s3_stores import OpenedStore, fresh_bucket, s3_environment
from tests.support.samples import MIB, sample
from tests.support.server_process import ServerProcess
from tests.support.transfers import (
    Found,
    command,
    damage,
    data_store,
    environment,
    files_in,
    fill,
    held_back,
    objects_in,
    objects_of,
    put_all,
    run,
)
from tests.support.waiting import wait_until

KINDS = {"a": b"1", "a-b": b"2", "a/b": b"3", "a/b/c": b"4", "ä/ö 🦉": b"5", "empty": b"", "large": sample(3 * MIB + 7)}
SERVICES = {"snapshots/room/latest": b"6", "chunks/o/1": b"7", "blocks/p/1": b"8", "hibernated/x": b"9"}
MANY = 600
FREE = 150
"""Of which so many are not held back."""
SAID = Attributes("text/plain", {"who": "Ünal", "empty": ""})


def settings_file(path: Path, server: S3Server, bucket: str) -> Path:
    path.write_text(
        f'[s3]\nendpoint = "http://{server.endpoint}"\nbucket = "{bucket}"\naccess_key = "{server.access_key}"\n'
        f'secret_key = "{server.secret_key}"\ncreate_bucket = true\npart_bytes = 5242880\n'
    )
    return path


def test_a_copy_has_the_same_objects_with_their_attributes(tmp_path: Path) -> None:
    fill(tmp_path / "from", KINDS | SERVICES)
    fill(tmp_path / "from", {"said": b"something"}, SAID)
    ran = run("copy", "--from", tmp_path / "from", "--to", tmp_path / "to")
    size = sum(map(len, (KINDS | SERVICES).values())) + len(b"something")
    assert (ran.code, ran.out, ran.err) == (0, f"12 objects copied, {size} bytes\n", "")
    copied = objects_in(tmp_path / "to")
    assert copied == objects_in(tmp_path / "from")
    assert copied["said"] == Found(b"something", "text/plain", {"who": "Ünal", "empty": ""})


def test_a_second_copy_finds_all_there_and_changes_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "from", KINDS, SAID)
    first = run("copy", "--from", tmp_path / "from", "--to", tmp_path / "to", "--json")
    before = files_in(tmp_path / "to")
    second = run("copy", "--from", tmp_path / "from", "--to", tmp_path / "to", "--json")
    assert first.count("copied", "present", "failed") == {"copied": len(KINDS), "present": 0, "failed": 0}
    assert second.count("copied", "present", "bytes") == {"copied": 0, "present": len(KINDS), "bytes": 0}
    assert files_in(tmp_path / "to") == before


def test_what_differs_is_replaced_and_what_only_the_target_has_stays(tmp_path: Path) -> None:
    fill(tmp_path / "from", {"bytes": b"new", "same": b"same", "size": b"longer"})
    fill(tmp_path / "from", {"said": b"x"}, SAID)
    fill(tmp_path / "to", {"bytes": b"old", "same": b"same", "size": b"short", "said": b"x", "zebra": b"own"})
    ran = run("copy", "--from", tmp_path / "from", "--to", tmp_path / "to", "--json")
    assert (ran.code, ran.count("copied", "replaced", "present")) == (0, {"copied": 3, "replaced": 3, "present": 1})
    assert objects_in(tmp_path / "to") == objects_in(tmp_path / "from") | {"zebra": Found(b"own", "", {})}


def test_the_target_keeps_its_own_marker(tmp_path: Path) -> None:
    fill(tmp_path / "from", {"a": b"1"})
    fill(tmp_path / "to", {})
    marker = (tmp_path / "to/holdfast/store").read_bytes()
    run("copy", "--from", tmp_path / "from", "--to", tmp_path / "to")
    assert (tmp_path / "to/holdfast/store").read_bytes() == marker
    assert marker != (tmp_path / "from/holdfast/store").read_bytes()


def test_a_prefix_chooses_keys(tmp_path: Path) -> None:
    fill(tmp_path / "from", KINDS)
    fill(tmp_path / "to", {"a": b"own"})
    ran = run("copy", "--from", tmp_path / "from", "--to", tmp_path / "to", "--prefix", "a/", "--json")
    assert ran.summary["copied"] == 2
    assert {key: found.data for key, found in objects_in(tmp_path / "to").items()} == {
        "a": b"own",
        "a/b": b"3",
        "a/b/c": b"4",
    }


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "from", {"new": b"12345", "old": b"1", "same": b"1"})
    fill(tmp_path / "to", {"old": b"2", "same": b"1"})
    before = files_in(tmp_path / "to")
    ran = run("copy", "--from", tmp_path / "from", "--to", tmp_path / "to", "--dry-run")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert sorted(lines[:2]) == ["would copy new (5 bytes)", "would replace old (1 byte)"]
    assert lines[2:] == [
        "2 objects would be copied, 6 bytes",
        "1 of them in place of something else",
        "1 there already",
    ]
    assert files_in(tmp_path / "to") == before


def test_a_dry_run_does_not_make_the_target(tmp_path: Path) -> None:
    fill(tmp_path / "from", {"new": b"12345"})
    ran = run("copy", "--from", tmp_path / "from", "--to", tmp_path / "to", "--dry-run", "--json")
    assert ran.count("copied", "dry_run") == {"copied": 1, "dry_run": True}
    assert not (tmp_path / "to").exists()


def test_a_damaged_object_is_named_and_the_others_are_copied(tmp_path: Path) -> None:
    fill(tmp_path / "from", {"a": b"one", "b/bad": b"two", "c": b"three"})
    damage(tmp_path / "from", "b/bad")
    ran = run("copy", "--from", tmp_path / "from", "--to", tmp_path / "to")
    assert ran.code == 1
    assert ran.err.startswith("failed: b/bad: key 'b/bad': ")
    assert ran.out.splitlines() == ["2 objects copied, 8 bytes", "1 FAILED"]
    assert objects_in(tmp_path / "to").keys() == {"a", "c"}


def test_damage_does_not_reach_what_was_copied_before(tmp_path: Path) -> None:
    fill(tmp_path / "from", {"a": b"one", "b": b"two"})
    run("copy", "--from", tmp_path / "from", "--to", tmp_path / "to")
    damage(tmp_path / "from", "a")
    ran = run("copy", "--from", tmp_path / "from", "--to", tmp_path / "to", "--json")
    assert ran.count("present", "copied") == {"present": 2, "copied": 0}
    assert objects_in(tmp_path / "to")["a"].data == b"one"


def test_a_record_that_cannot_be_read_in_the_target_is_replaced(tmp_path: Path) -> None:
    fill(tmp_path / "from", {"a": b"one"})
    fill(tmp_path / "to", {"a": b"one"})
    (tmp_path / "to/objects/tree/a.f").write_bytes(b"nothing of ours")
    ran = run("copy", "--from", tmp_path / "from", "--to", tmp_path / "to", "--json")
    assert (ran.code, ran.summary["replaced"]) == (0, 1)
    assert objects_in(tmp_path / "to") == objects_in(tmp_path / "from")


def test_damage_in_the_target_is_found_and_mended_where_that_is_asked_for(tmp_path: Path) -> None:
    fill(tmp_path / "from", {"a": b"one", "b": sample(2 * MIB)})
    run("copy", "--from", tmp_path / "from", "--to", tmp_path / "to")
    damage(tmp_path / "to", "b")
    ran = run("copy", "--from", tmp_path / "from", "--to", tmp_path / "to", "--json")
    assert ran.count("replaced", "present") == {"replaced": 0, "present": 2}
    for flags in (["--dry-run"], []):
        ran = run("copy", "--from", tmp_path / "from", "--to", tmp_path / "to", "--verify", "--json", *flags)
        assert (ran.code, ran.count("replaced", "present")) == (0, {"replaced": 1, "present": 1})
    assert objects_in(tmp_path / "to") == objects_in(tmp_path / "from")


def test_an_empty_store_is_copied(tmp_path: Path) -> None:
    fill(tmp_path / "from", {})
    assert run("copy", "--from", tmp_path / "from", "--to", tmp_path / "to").out == "0 objects copied, 0 bytes\n"


@pytest.mark.parametrize("there", [True, False], ids=["empty", "missing"])
def test_a_source_without_a_store_is_refused_and_not_made(tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "typo").mkdir()
    ran = run("copy", "--from", tmp_path / "typo", "--to", tmp_path / "to")
    assert (ran.code, ran.out) == (1, "")
    assert "there is no store of Holdfast" in ran.err
    assert len(ran.err.splitlines()) == 1
    assert not list(tmp_path.glob("*/*"))


def test_a_foreign_target_is_left_alone(tmp_path: Path) -> None:
    fill(tmp_path / "from", {"a": b"1"})
    (tmp_path / "to").mkdir()
    (tmp_path / "to/holiday.jpg").touch()
    for flags in ([], ["--dry-run"]):
        ran = run("copy", "--from", tmp_path / "from", "--to", tmp_path / "to", *flags)
        assert (ran.code, ran.out) == (1, "")
        assert "holiday.jpg" in ran.err
    assert files_in(tmp_path / "to") == {"holiday.jpg": b""}


def test_a_store_is_not_copied_to_itself(tmp_path: Path) -> None:
    fill(tmp_path / "data", {"a": b"1"})
    (tmp_path / "link").symlink_to("data")
    ran = run("copy", "--from", tmp_path / "data", "--to", tmp_path / "link")
    assert (ran.code, ran.out) == (1, "")
    assert "are the same store" in ran.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--from", "s3", "--to", "x"], 78, "HOLDFAST_S3__BUCKET"),
        (["--from", "", "--to", "x"], 78, "a location is empty"),
        (["--from", "none.toml", "--to", "x"], 78, "none.toml"),
        (["--to", "x"], 2, "--from"),
        (["--from", "x", "--to", "y", "--jobs", "0"], 2, "--jobs"),
        (["--from", "x", "--to", "y", "--prefix", "a\nb"], 2, "control character"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: list[str], code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run("copy", *arguments)
    assert ran.code == code
    assert said in ran.err
    assert list(tmp_path.iterdir()) == []


def test_what_is_in_memory_is_no_location(tmp_path: Path) -> None:
    (tmp_path / "memory.toml").write_text('log_level = "info"\n')
    ran = run("copy", "--from", tmp_path / "memory.toml", "--to", tmp_path / "to")
    assert (ran.code, ran.out) == (78, "")
    assert "memory" in ran.err


def test_a_settings_file_stands_alone(tmp_path: Path) -> None:
    fill(tmp_path / "from", {"a": b"1"})
    fill(tmp_path / "other", {"b": b"2"})
    (tmp_path / "from.toml").write_text(f'data_dir = "{tmp_path / "from"}"\n')
    env = {"HOLDFAST_DATA_DIR": str(tmp_path / "other"), "HOLDFAST_S3__BUCKET": "half-of-a-section"}
    ran = run("copy", "--from", tmp_path / "from.toml", "--to", tmp_path / "to", env=env)
    assert (ran.code, ran.err) == (0, "")
    assert objects_in(tmp_path / "to").keys() == {"a"}


def test_names_do_not_move_the_terminals_cursor(tmp_path: Path) -> None:
    fill(tmp_path / "from", {"right\u202eleft": b"1"})
    damage(tmp_path / "from", "right\u202eleft")
    ran = run("copy", "--from", tmp_path / "from", "--to", tmp_path / "to")
    assert ran.err.startswith("failed: right\\u202eleft: ")
    assert "\u202e" not in ran.err


def test_a_copy_of_a_served_store_is_consistent_object_by_object(
    filesystem_server: ServerProcess, tmp_path: Path
) -> None:
    keys = [f"k{number:02}" for number in range(40)]
    ended = threading.Event()

    def rewrite() -> None:
        with grpc.insecure_channel(filesystem_server.address) as channel:
            stub = stub_of(channel)
            version = 0
            while not ended.is_set():
                for key in keys:
                    put(stub, key, f"{version:04}{key}".encode() * (1 + version % 7))
                version += 1

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        wait_until(lambda: len(objects_names(tmp_path / "data")) == len(keys))
        for _ in range(3):
            ran = run("copy", "--from", tmp_path / "data", "--to", tmp_path / "to")
            assert (ran.code, ran.err) == (0, "")
            for key, found in objects_in(tmp_path / "to").items():
                version = int(found.data[:4])
                assert found.data == f"{version:04}{key}".encode() * (1 + version % 7)
    finally:
        ended.set()
        writer.join()


def objects_names(path: Path) -> list[Path]:
    return list((path / "objects" / "tree").glob("*.f"))


def test_a_running_server_serves_what_is_copied_to_it(filesystem_server: ServerProcess, tmp_path: Path) -> None:
    fill(tmp_path / "from", {"a/b": b"copied"})
    assert run("copy", "--from", tmp_path / "from", "--to", tmp_path / "data").code == 0
    with grpc.insecure_channel(filesystem_server.address) as channel:
        assert get(stub_of(channel), "a/b") == b"copied"


def test_a_store_goes_to_s3_and_back(s3_server: S3Server, tmp_path: Path) -> None:
    objects = {key: data for key, data in KINDS.items() if not key.startswith("a/")} | SERVICES
    fill(tmp_path / "from", objects, SAID)
    env = s3_environment(s3_server)
    there = run("copy", "--from", tmp_path / "from", "--to", "s3", "--json", env=env)
    assert (there.code, there.summary["copied"], there.err) == (0, len(objects), "")
    again = run("copy", "--from", tmp_path / "from", "--to", "s3", "--json", env=env)
    assert again.count("copied", "present") == {"copied": 0, "present": len(objects)}
    back = run("copy", "--from", "s3", "--to", tmp_path / "to", "--json", env=env)
    assert (back.code, back.summary["copied"]) == (0, len(objects))
    assert objects_in(tmp_path / "to") == objects_in(tmp_path / "from")


def test_two_buckets_are_two_settings_files(moto: MotoServer, minio: MinioServer, tmp_path: Path) -> None:
    one = settings_file(tmp_path / "one.toml", moto, fresh_bucket())
    two = settings_file(tmp_path / "two.toml", minio, bucket := fresh_bucket())
    objects = {"large": sample(11 * MIB), "said/what": b"1", "said/who": b"2"}
    with OpenedStore(moto, bucket=one.read_text().split('bucket = "')[1].split('"')[0]) as opened:
        put_all(opened.store, objects, SAID)
    ran = run("copy", "--from", one, "--to", two, "--json")
    assert (ran.code, ran.summary["copied"], ran.err) == (0, 3, "")
    with OpenedStore(minio, bucket=bucket) as opened:
        found = objects_of(opened.store)
    assert found == {key: Found(data, SAID.content_type, dict(SAID.metadata)) for key, data in objects.items()}
    assert "are the same store" in run("copy", "--from", two, "--to", two).err


def test_what_the_lists_of_the_target_would_hide_is_named_and_not_copied(minio: MinioServer, tmp_path: Path) -> None:
    fill(tmp_path / "from", {"a": b"1", "a-b": b"2", "a/b": b"3", "b/c": b"4", "b/c/d/e": b"5"})
    fill(tmp_path / "from", {"own/x": b"6"})
    with OpenedStore(minio) as opened:
        put_all(opened.store, {"own": b"the target's"})
    ran = run("copy", "--from", tmp_path / "from", "--to", "s3", env=s3_environment(minio, opened.bucket))
    assert ran.code == 1
    assert sorted(line.split(": ")[1] for line in ran.err.splitlines()) == ["a/b", "b/c/d/e", "own/x"]
    assert "3 objects copied" in ran.out


def test_a_missing_bucket_is_not_made_for_a_source(moto: MotoServer, tmp_path: Path) -> None:
    env = s3_environment(moto)
    ran = run("copy", "--from", "s3", "--to", tmp_path / "to", env=env)
    assert (ran.code, ran.out) == (1, "")
    assert len(ran.err.splitlines()) == 1
    assert "bucket" in ran.err
    assert not moto.client().bucket_exists(env["HOLDFAST_S3__BUCKET"])
    assert not (tmp_path / "to").exists()


def keys_in(server: S3Server, bucket: str) -> set[str | None]:
    return {found.object_name for found in server.client().list_objects(bucket, recursive=True)}


@pytest.mark.parametrize("prefix", ["", "wrong/"])
def test_a_source_without_a_store_in_its_bucket_is_refused_and_not_made(
    prefix: str, moto: MotoServer, tmp_path: Path
) -> None:
    bucket = fresh_bucket()
    moto.client().make_bucket(bucket)
    if prefix:
        with OpenedStore(moto, bucket=bucket) as opened:
            put_all(opened.store, {"a": b"1"})
    before = keys_in(moto, bucket)
    env = s3_environment(moto, bucket, prefix=prefix)
    for command_line in (["copy"], ["export", "shellcade", tmp_path / "to"]):
        to = ["--to", tmp_path / "to"] if command_line == ["copy"] else []
        ran = run(*command_line, "--from", "s3", *to, env=env)
        under = f" under the prefix '{prefix}'" if prefix else ""
        why = f"there is no store of Holdfast in the bucket '{bucket}'{under}: no object '{prefix}holdfast/store'"
        assert (ran.code, ran.out, ran.err) == (1, "", f"holdfast-server: s3: {why}\n")
    assert keys_in(moto, bucket) == before
    assert not (tmp_path / "to").exists()


def test_a_dry_run_makes_neither_bucket_nor_store(moto: MotoServer, tmp_path: Path) -> None:
    fill(tmp_path / "from", {"a": b"1", "b": b"22"})
    env = s3_environment(moto, bucket := fresh_bucket())
    for made in (False, True):
        if made:
            moto.client().make_bucket(bucket)
        ran = run("copy", "--from", tmp_path / "from", "--to", "s3", "--dry-run", "--json", env=env)
        assert (ran.code, ran.count("copied", "dry_run"), ran.err) == (0, {"copied": 2, "dry_run": True}, "")
        assert moto.client().bucket_exists(bucket) == made
    assert keys_in(moto, bucket) == set()
    assert run("copy", "--from", tmp_path / "from", "--to", "s3", env=env).code == 0
    before = keys_in(moto, bucket)
    ran = run("copy", "--from", tmp_path / "from", "--to", "s3", "--dry-run", "--json", env=env)
    assert ran.count("copied", "present") == {"copied": 0, "present": 2}
    assert keys_in(moto, bucket) == before


def test_a_dry_run_fails_where_the_bucket_would_not_be_made(moto: MotoServer, tmp_path: Path) -> None:
    fill(tmp_path / "from", {"a": b"1"})
    env = s3_environment(moto, create_bucket="false")
    for flags in ([], ["--dry-run"]):
        ran = run("copy", "--from", tmp_path / "from", "--to", "s3", *flags, env=env)
        assert (ran.code, ran.out) == (1, "")
        assert "does not exist" in ran.err


def test_a_part_of_a_bucket_is_known_under_another_name_of_its_server(minio: MinioServer, tmp_path: Path) -> None:
    whole = settings_file(tmp_path / "whole.toml", minio, fresh_bucket())
    part = tmp_path / "part.toml"
    part.write_text(whole.read_text().replace("127.0.0.1", "localhost") + 'prefix = "backup/"\n')
    assert "localhost" in part.read_text()
    fill(tmp_path / "from", {"a": b"1"})
    assert run("copy", "--from", tmp_path / "from", "--to", whole).code == 0
    for source, target in ((whole, part), (part, whole)):
        ran = run("copy", "--from", source, "--to", target)
        assert (ran.code, ran.out) == (1, "")
        assert "the prefix 'backup/'" in ran.err
        assert "lies in the other one" in ran.err


def test_a_part_of_a_bucket_goes_to_the_same_part_of_another_one(minio: MinioServer, tmp_path: Path) -> None:
    one = settings_file(tmp_path / "one.toml", minio, fresh_bucket())
    two = settings_file(tmp_path / "two.toml", minio, fresh_bucket())
    inner = settings_file(tmp_path / "inner.toml", minio, one.read_text().split('bucket = "')[1].split('"')[0])
    for file in (inner, two):
        file.write_text(file.read_text() + 'prefix = "backup/"\n')
    fill(tmp_path / "from", {"a": b"1"})
    for target in (one, inner):
        assert run("copy", "--from", tmp_path / "from", "--to", target).code == 0
    assert run("copy", "--from", inner, "--to", two, "--json").summary["copied"] == 1
    # The outer one has a marker under `backup/`, and it is not that of the target.
    ran = run("copy", "--from", one, "--to", two, "--json")
    assert "lies in" not in ran.err


def test_directories_within_one_another_are_refused_and_nothing_is_made(tmp_path: Path) -> None:
    fill(tmp_path / "outer/data", {"a": b"1"})
    (tmp_path / "link").symlink_to("outer/data/objects")
    (tmp_path / "inner.toml").write_text(f'data_dir = "{tmp_path}/link/x"\n')
    before = files_in(tmp_path)
    for target, inner in (("outer/data/backup", 1), ("link/x", 1), ("inner.toml", 1), ("outer", 0)):
        for flags in ([], ["--dry-run"]):
            ran = run("copy", "--from", tmp_path / "outer/data", "--to", tmp_path / target, *flags)
            names = [tmp_path / "outer/data", tmp_path / target]
            said = f"holdfast-server: {names[inner]} lies in the directory of {names[1 - inner]}\n"
            assert (ran.code, ran.out, ran.err) == (1, "", said)
    assert files_in(tmp_path) == before


def test_a_key_above_one_that_the_target_has_is_named_and_not_copied(minio: MinioServer, tmp_path: Path) -> None:
    theirs = {"a!": b"1", "a/b": b"2", "b/c": b"3", "d0": b"4", "e": b"5"}
    fill(tmp_path / "from", {"a": b"new", "a/b": b"new", "b": b"new", "d": b"new", "e": b"new"})
    with OpenedStore(minio) as opened:
        put_all(opened.store, theirs)
        ran = run("copy", "--from", tmp_path / "from", "--to", "s3", env=s3_environment(minio, opened.bucket))
        assert ran.code == 1
        assert sorted(ran.err.splitlines()) == [
            f"failed: {key}: the lists of the target would hide the key '{below}', which it has below this one"
            for key, below in (("a", "a/b"), ("b", "b/c"))
        ]
        found = {key: found.data for key, found in objects_of(opened.store).items()}
        assert found == theirs | {"a/b": b"new", "d": b"new", "e": b"new"}


def test_help_says_what_a_dry_run_does_not_write() -> None:
    for command_line in (["copy"], ["import", "flatfs"], ["export", "shellcade"]):
        assert "Write no object, and say" in " ".join(run(*command_line, "--help").out.replace("│", " ").split())


def test_wrong_keys_are_told_in_a_line(minio: MinioServer, tmp_path: Path) -> None:
    fill(tmp_path / "from", {"a": b"1"})
    ran = run("copy", "--from", tmp_path / "from", "--to", "s3", env=s3_environment(minio, secret_key="hunter2-wrong"))
    assert (ran.code, ran.out) == (1, "")
    assert len(ran.err.splitlines()) == 1
    assert "hunter2" not in ran.err


def test_a_copy_that_waits_for_its_store_can_be_ended(moto: MotoServer, tmp_path: Path) -> None:
    fill(tmp_path / "from", {f"k{number:03}": sample(100_000) for number in range(300)})
    puts = 0

    def is_away(request: Seen) -> bool:
        """Once some objects are there, for good."""
        nonlocal puts
        puts += request.method == "PUT" and "/k" in request.path
        return puts > 20

    with FaultProxy(moto.endpoint) as proxy:
        away = proxy.fail(ResetBefore(), when=is_away, times=FOREVER)
        env = s3_environment(moto, endpoint=f"http://{proxy.endpoint}")
        process = subprocess.Popen(
            command("copy", "--from", tmp_path / "from", "--to", "s3", "--json"),
            env=environment(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with killed_on_failure(process):
            wait_until(lambda: away.met > 0)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert b"Traceback" not in err
    summary = json.loads(out)
    assert summary["stopped"] == "SIGTERM came"
    assert summary["finished"] is False
    assert 0 < summary["copied"] < len(objects_names(tmp_path / "from"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_it_says_how_far_it_got(number: signal.Signals, tmp_path: Path) -> None:
    keys = [f"k{number:05}" for number in range(MANY)]
    fill(tmp_path / "from", dict.fromkeys(keys, b"some bytes"))
    fill(tmp_path / "to", {})
    (tmp_path / "to.toml").write_text(f'data_dir = "{tmp_path}/to"\n[filesystem]\nlock_timeout_seconds = 3600\n')
    with held_back(tmp_path / "to", keys, free=FREE):
        process = subprocess.Popen(
            command("copy", "--from", tmp_path / "from", "--to", tmp_path / "to.toml", "--json"),
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with killed_on_failure(process):
            wait_until(lambda: len(objects_names(tmp_path / "to")) > 100)
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (128 + number, b"")
    summary = json.loads(out)
    assert summary["copied"] == len(objects_names(tmp_path / "to"))
    assert 100 < summary["copied"] < MANY
    assert (summary["finished"], summary["stopped"]) == (False, f"{number.name} came")
    assert list((tmp_path / "to/objects/scratch").iterdir()) == []
    ran = run("copy", "--from", tmp_path / "from", "--to", tmp_path / "to", "--json")
    assert ran.count("copied", "present") == {"copied": MANY - summary["copied"], "present": summary["copied"]}


def test_a_reader_of_the_summary_that_has_gone_is_no_failure(tmp_path: Path) -> None:
    fill(tmp_path / "from", {"a": b"1"})
    ours, theirs = socket.socketpair()
    with closing(theirs):
        ours.close()
        done = subprocess.run(
            command("copy", "--from", tmp_path / "from", "--to", tmp_path / "to"),
            env=environment(),
            stdout=theirs.fileno(),
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_person_sees_a_bar(tmp_path: Path) -> None:
    fill(tmp_path / "from", KINDS | {"bad": b"1"})
    damage(tmp_path / "from", "bad")
    code, shown = on_a_terminal(command("copy", "--from", tmp_path / "from", "--to", tmp_path / "to"))
    assert code == 1
    assert f"{len(KINDS) + 1} objects" in shown
    assert "failed: bad: key 'bad'" in shown


def on_a_terminal(arguments: list[str]) -> tuple[int, str]:
    """Run a command whose standard error is a terminal, and return its code and what the terminal was told."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        arguments, env=environment({"TERM": "xterm", "COLUMNS": "120"}), stdout=subprocess.DEVNULL, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    try:
        with killed_on_failure(process):
            while data := read_terminal(ours):
                shown += data
    finally:
        os.close(ours)
    return process.returncode, shown.decode()


def read_terminal(fd: int) -> bytes:
    try:
        return os.read(fd, 4096)
    except OSError:  # EIO: its other end was closed
        return b""


def test_one_job_does_it_too(tmp_path: Path) -> None:
    fill(tmp_path / "from", KINDS)
    run("copy", "--from", tmp_path / "from", "--to", tmp_path / "to", "--jobs", "1")
    with data_store(tmp_path / "to") as store:
        assert objects_of(store) == objects_in(tmp_path / "from")
