"""`holdfast-server import flatfs` and `export flatfs`: a Piri directory becomes a store, and the other way round."""

import fcntl
import hashlib
import os
import signal
import subprocess
from pathlib import Path

import pytest

from holdfast_server.objects.info import Attributes
from tests.support.child_processes import killed_on_failure
from tests.support.s3_servers import MotoServer
from tests.support.s3_stores import s3_environment
from tests.support.samples import MIB, sample
from tests.support.transfers import (
    SHARDING,
    Found,
    command,
    damage,
    environment,
    files_in,
    fill,
    flatfs_path,
    multihash,
    objects_in,
    run,
    write_flatfs,
    write_tree,
)
from tests.support.waiting import wait_until

HELLO = b"hello world"
HELLO_NAME = "ciqlstjhxgju2pqiuuxffv62pwv7vree57rxuu4a52iir55m4lx432i"
BLOBS = (HELLO, b"", b"\0\n", sample(2 * MIB + 3))


def key_of(blob: bytes, layout: str, prefix: str = "") -> str:
    """Return the key of a blob in the store."""
    names = {"flatfs": flatfs_path(blob), "base32": multihash(blob), "hex": hashlib.sha256(blob).hexdigest()}
    return prefix + names[layout]


def data_in(path: Path) -> dict[str, bytes]:
    return {key: found.data for key, found in objects_in(path).items()}


def test_the_known_name_of_hello_world(tmp_path: Path) -> None:
    write_tree(tmp_path / "piri", {"SHARDING": SHARDING.encode(), f"32/{HELLO_NAME}.data": HELLO})
    ran = run("import", "flatfs", tmp_path / "piri", "--to", tmp_path / "to")
    assert (ran.code, ran.out, ran.err) == (0, "1 object copied, 11 bytes\n", "")
    assert data_in(tmp_path / "to") == {f"32/{HELLO_NAME}.data": HELLO}
    assert run("export", "flatfs", tmp_path / "out", "--from", tmp_path / "to").code == 0
    assert (tmp_path / "out" / "32" / f"{HELLO_NAME}.data").read_bytes() == HELLO


@pytest.mark.parametrize(("layout", "prefix"), [("flatfs", ""), ("flatfs", "piri/"), ("base32", ""), ("hex", "x-")])
def test_there_and_back_it_is_the_same_tree(layout: str, prefix: str, tmp_path: Path) -> None:
    tree = write_flatfs(tmp_path / "piri", *BLOBS)
    # As `quux` and `a` of the vectors; neither is the digest of anything.
    write_tree(tree, {"uu/quux.data": b"opaque", "__/a.data": b"short"})
    options = ["--layout", layout, "--prefix", prefix, "--json"]
    came = run("import", "flatfs", tree, "--to", tmp_path / "store", *options)
    assert (came.code, came.err) == (0, "")
    assert came.count("copied", "opaque_names", "failed") == {"copied": 6, "opaque_names": 2, "failed": 0}
    wanted = {key_of(blob, layout, prefix): blob for blob in BLOBS}
    assert data_in(tmp_path / "store") == wanted | {f"{prefix}uu/quux.data": b"opaque", f"{prefix}__/a.data": b"short"}
    went = run("export", "flatfs", tmp_path / "out", "--from", tmp_path / "store", *options)
    assert (went.code, went.count("copied", "opaque_names", "skipped")) == (
        0,
        {"copied": 6, "opaque_names": 2, "skipped": 0},
    )
    assert files_in(tmp_path / "out") == files_in(tree)
    assert list((tmp_path / "out/.temp").iterdir()) == []


def test_a_second_run_finds_all_there(tmp_path: Path) -> None:
    tree = write_tree(write_flatfs(tmp_path / "piri", *BLOBS), {"uu/quux.data": b"opaque"})
    for there in (0, 5):
        came = run("import", "flatfs", tree, "--to", tmp_path / "store", "--json")
        assert (came.code, came.count("copied", "present")) == (0, {"copied": 5 - there, "present": there})
    for there in (0, 5):
        went = run("export", "flatfs", tmp_path / "out", "--from", tmp_path / "store", "--json")
        assert (went.code, went.count("copied", "present")) == (0, {"copied": 5 - there, "present": there})


def test_a_bucket_takes_a_tree_and_gives_it_back(moto: MotoServer, tmp_path: Path) -> None:
    blobs = (HELLO, b"", sample(11 * MIB))
    tree = write_tree(write_flatfs(tmp_path / "piri", *blobs), {"uu/quux.data": sample(6 * MIB)})
    env = s3_environment(moto, spool_max_bytes="1") | {"HOLDFAST_SPOOL_MAX_BYTES": "1"}  # it must not need one
    env.pop("HOLDFAST_S3__SPOOL_MAX_BYTES")
    came = run("import", "flatfs", tree, "--to", "s3", "--json", env=env)
    assert (came.code, came.summary["copied"], came.err) == (0, 4, "")
    went = run("export", "flatfs", tmp_path / "out", "--from", "s3", "--json", env=env)
    assert (went.code, went.summary["copied"], went.err) == (0, 4, "")
    assert files_in(tmp_path / "out") == files_in(tree)


def test_what_these_programs_keep_besides_is_passed_over(tmp_path: Path) -> None:
    tree = write_flatfs(tmp_path / "piri", HELLO)
    besides = ("_README", "diskUsage.cache", ".temp/temp-123", "32/put-4567", "put-1", "du-88")
    write_tree(tree, dict.fromkeys(besides, b"x"))
    ran = run("import", "flatfs", tree, "--to", tmp_path / "to", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.count("copied", "skipped", "failed") == {"copied": 1, "skipped": 0, "failed": 0}


def test_files_that_are_no_blobs_are_named_and_skipped(tmp_path: Path) -> None:
    tree = write_flatfs(tmp_path / "piri", HELLO)
    write_tree(tree, {"notes.txt": b"x", "32/README": b"x"})
    ran = run("import", "flatfs", tree, "--to", tmp_path / "to")
    assert (ran.code, ran.out) == (0, "1 object copied, 11 bytes\n2 skipped\n")
    assert sorted(line.split(": ")[:2] for line in ran.err.splitlines()) == [
        ["skipped", "32/README"],
        ["skipped", "notes.txt"],
    ]


def test_what_could_be_a_blob_and_is_not_taken_fails(tmp_path: Path) -> None:
    tree = write_flatfs(tmp_path / "piri", HELLO)
    write_tree(tree, {"32/UPPER.data": b"x", "abc/x.data": b"x", "32/32/x": b"x", "x.data": b"x", "put-1/x.data": b"x"})
    os.mkfifo(tree / "32" / "pipe.data")
    ran = run("import", "flatfs", tree, "--to", tmp_path / "to")
    assert (ran.code, ran.out) == (1, "1 object copied, 11 bytes\n6 FAILED\n")
    assert sorted(line.split(": ")[:2] for line in ran.err.splitlines()) == [
        ["failed", name] for name in ("32/32", "32/UPPER.data", "32/pipe.data", "abc", "put-1", "x.data")
    ]


def test_a_tree_with_upper_case_names_fails_and_the_rule_is_named(tmp_path: Path) -> None:
    tree = write_tree(
        write_flatfs(tmp_path / "tree"), {flatfs_path(blob)[:-5].upper() + ".data": blob for blob in BLOBS}
    )
    ran = run("import", "flatfs", tree, "--to", tmp_path / "to")
    assert (ran.code, ran.out) == (1, "0 objects copied, 0 bytes\n4 FAILED\n")
    assert all("lower-case letters, digits" in line for line in ran.err.splitlines())


def test_a_place_for_unfinished_files_on_another_disk_is_passed_over(tmp_path: Path) -> None:
    tree = write_flatfs(tmp_path / "piri", HELLO)
    (tmp_path / "elsewhere").mkdir()
    (tree / ".temp").symlink_to(tmp_path / "elsewhere")
    ran = run("import", "flatfs", tree, "--to", tmp_path / "to")
    assert (ran.code, ran.err) == (0, "")


def test_damaged_files_are_named_and_not_taken(tmp_path: Path) -> None:
    tree = write_flatfs(tmp_path / "piri", *BLOBS)
    (tree / flatfs_path(HELLO)).write_bytes(b"hello worlD")
    (tree / flatfs_path(BLOBS[3])).write_bytes(BLOBS[3][:-1])
    for flags in (["--dry-run"], []):
        ran = run("import", "flatfs", tree, "--to", tmp_path / "to", *flags)
        assert ran.code == 1
        assert sorted(ran.err.splitlines()) == sorted(
            f"failed: {flatfs_path(blob)}: it is damaged: its bytes are not those that its name is the sha256 of"
            for blob in (HELLO, BLOBS[3])
        )
    assert data_in(tmp_path / "to") == {flatfs_path(blob): blob for blob in BLOBS[1:3]}


def test_a_file_in_a_shard_that_is_not_its_own_is_named(tmp_path: Path) -> None:
    tree = write_tree(write_flatfs(tmp_path / "piri"), {f"aa/{HELLO_NAME}.data": HELLO})
    ran = run("import", "flatfs", tree, "--to", tmp_path / "to")
    assert (ran.code, ran.err) == (1, f"failed: aa/{HELLO_NAME}.data: it belongs into the directory '32'\n")


def test_a_name_that_only_looks_like_a_multihash_is_taken_as_it_is(tmp_path: Path) -> None:
    odd = HELLO_NAME[:-1] + "j"  # the same bytes, with bits behind the last one that are not zero
    tree = write_tree(write_flatfs(tmp_path / "piri"), {f"32/{odd}.data": b"anything"})
    ran = run("import", "flatfs", tree, "--to", tmp_path / "to", "--layout", "hex", "--json")
    assert ran.count("copied", "opaque_names") == {"copied": 1, "opaque_names": 1}
    assert data_in(tmp_path / "to") == {f"32/{odd}.data": b"anything"}


def test_other_bytes_under_a_content_address_are_a_conflict(tmp_path: Path) -> None:
    tree = write_flatfs(tmp_path / "piri", HELLO)
    fill(tmp_path / "to", {flatfs_path(HELLO): b"something else"})
    ran = run("import", "flatfs", tree, "--to", tmp_path / "to")
    assert ran.code == 1
    assert "other bytes stand under its content address" in ran.err
    assert data_in(tmp_path / "to") == {flatfs_path(HELLO): b"something else"}


def test_an_object_whose_record_is_damaged_is_replaced(tmp_path: Path) -> None:
    tree = write_flatfs(tmp_path / "piri", HELLO)
    fill(tmp_path / "to", {flatfs_path(HELLO): HELLO})
    (tmp_path / "to/objects/tree/32.d" / f"{HELLO_NAME}.data.f").write_bytes(b"nothing of ours")
    ran = run("import", "flatfs", tree, "--to", tmp_path / "to", "--json")
    assert (ran.code, ran.summary["replaced"]) == (0, 1)
    assert data_in(tmp_path / "to") == {flatfs_path(HELLO): HELLO}


def test_damage_in_the_store_is_found_and_mended_where_that_is_asked_for(tmp_path: Path) -> None:
    blobs = (HELLO, sample(2 * MIB))
    tree = write_flatfs(tmp_path / "piri", *blobs)
    fill(tmp_path / "to", {flatfs_path(blob): blob for blob in blobs}, Attributes("text/plain"))
    damage(tmp_path / "to", flatfs_path(blobs[1]))
    ran = run("import", "flatfs", tree, "--to", tmp_path / "to", "--json")
    assert (ran.code, ran.count("replaced", "present")) == (0, {"replaced": 0, "present": 2})
    for flags in (["--dry-run"], []):
        ran = run("import", "flatfs", tree, "--to", tmp_path / "to", "--verify", "--json", *flags)
        assert (ran.code, ran.count("replaced", "present")) == (0, {"replaced": 1, "present": 1})
    assert objects_in(tmp_path / "to") == {flatfs_path(blob): Found(blob, "text/plain", {}) for blob in blobs}


def test_verifying_replaces_no_other_bytes_under_a_content_address(tmp_path: Path) -> None:
    tree = write_flatfs(tmp_path / "piri", HELLO)
    fill(tmp_path / "to", {flatfs_path(HELLO): b"something else"})
    ran = run("import", "flatfs", tree, "--to", tmp_path / "to", "--verify")
    assert ran.code == 1
    assert data_in(tmp_path / "to") == {flatfs_path(HELLO): b"something else"}


def test_another_sharding_is_refused_both_ways_and_nothing_is_changed(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", {flatfs_path(HELLO): HELLO, "SHARDING": b"/repo/flatfs/shard/v1/prefix/2\n"})
    fill(tmp_path / "store", {"a": b"1"})
    before = files_in(tree)
    came = run("import", "flatfs", tree, "--to", tmp_path / "to")
    went = run("export", "flatfs", tree, "--from", tmp_path / "store")
    for ran in (came, went):
        assert (ran.code, ran.out, len(ran.err.splitlines())) == (1, "", 1)
        assert "its sharding function is '/repo/flatfs/shard/v1/prefix/2'" in ran.err
    assert not (tmp_path / "to").exists()
    assert files_in(tree) == before


def test_a_missing_or_a_foreign_directory_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "store", {"a": b"1"})
    assert "no such directory" in run("import", "flatfs", tmp_path / "none", "--to", tmp_path / "to").err
    assert "copy" in run("import", "flatfs", tmp_path / "store", "--to", tmp_path / "to").err
    assert "copy" in run("export", "flatfs", tmp_path / "store", "--from", tmp_path / "store").err
    (tmp_path / "file").touch()
    assert "cannot be used" in run("import", "flatfs", tmp_path / "file", "--to", tmp_path / "to").err
    assert not (tmp_path / "to").exists()


def test_a_prefix_that_makes_no_keys_is_refused(tmp_path: Path) -> None:
    tree = write_flatfs(tmp_path / "piri", HELLO)
    ran = run("import", "flatfs", tree, "--to", tmp_path / "to", "--prefix", "chunks/")
    assert (ran.code, ran.out) == (2, "")
    assert "--prefix" in ran.err
    assert not (tmp_path / "to").exists()


def test_links_are_named_and_not_followed(tmp_path: Path) -> None:
    outside = write_tree(tmp_path / "outside", {f"{HELLO_NAME}.data": HELLO})
    tree = write_flatfs(tmp_path / "piri", b"other")
    (tree / "32").symlink_to(outside)
    (tree / "__").mkdir()
    (tree / "__" / "a.data").symlink_to(outside / f"{HELLO_NAME}.data")
    ran = run("import", "flatfs", tree, "--to", tmp_path / "to")
    assert (ran.code, sorted(line.split(": ")[1] for line in ran.err.splitlines())) == (1, ["32", "__/a.data"])
    assert data_in(tmp_path / "to") == {flatfs_path(b"other"): b"other"}


def test_an_export_takes_only_what_belongs_there(tmp_path: Path) -> None:
    fill(
        tmp_path / "store",
        {
            flatfs_path(HELLO): HELLO,
            flatfs_path(b"other"): b"not the other",
            multihash(b"base32"): b"base32",
            "maps/one": b"1",
            "uu/quux.data": b"opaque",
            "xx/quux.data": b"in another shard",
            "snapshots/room/latest": b"2",
        },
    )
    ran = run("export", "flatfs", tmp_path / "out", "--from", tmp_path / "store")
    assert ran.code == 1  # bytes that are not those of their name
    said = {tuple(line.split(": ")[:2]) for line in ran.err.splitlines()}
    assert said == {
        ("failed", flatfs_path(b"other")),
        ("skipped", multihash(b"base32")),
        ("skipped", "maps/one"),
        ("skipped", "xx/quux.data"),
    }
    wanted = {"SHARDING": SHARDING.encode(), flatfs_path(HELLO): HELLO, "uu/quux.data": b"opaque"}
    assert files_in(tmp_path / "out") == wanted


def test_damaged_files_are_replaced_by_an_export_and_others_stay(tmp_path: Path) -> None:
    fill(tmp_path / "store", {flatfs_path(blob): blob for blob in BLOBS})
    tree = write_flatfs(tmp_path / "out", *BLOBS, b"only there")
    (tree / flatfs_path(HELLO)).write_bytes(b"hello worlD")
    (tree / flatfs_path(BLOBS[3])).write_bytes(b"short")
    ran = run("export", "flatfs", tree, "--from", tmp_path / "store", "--json")
    assert (ran.code, ran.count("replaced", "copied", "present")) == (0, {"replaced": 2, "copied": 2, "present": 2})
    assert files_in(tree) == files_in(write_flatfs(tmp_path / "wanted", *BLOBS, b"only there"))


def test_a_file_of_other_bytes_is_replaced_by_wish_alone_where_its_name_tells_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "store", {"uu/quux.data": b"ours"})
    tree = write_tree(write_flatfs(tmp_path / "out"), {"uu/quux.data": b"theirs"})
    ran = run("export", "flatfs", tree, "--from", tmp_path / "store")
    why = "a file of other bytes is there; --overwrite replaces it"
    assert (ran.code, ran.err) == (1, f"failed: uu/quux.data: {why}\n")
    assert (tree / "uu/quux.data").read_bytes() == b"theirs"
    assert run("export", "flatfs", tree, "--from", tmp_path / "store", "--overwrite").code == 0
    assert (tree / "uu/quux.data").read_bytes() == b"ours"


def test_a_damaged_object_does_not_reach_the_tree(tmp_path: Path) -> None:
    fill(tmp_path / "store", {flatfs_path(HELLO): HELLO, flatfs_path(b"other"): b"other"})
    damage(tmp_path / "store", flatfs_path(HELLO))
    tree = write_flatfs(tmp_path / "out")
    (tree / "32").mkdir()
    (tree / flatfs_path(HELLO)).write_bytes(b"older")
    ran = run("export", "flatfs", tree, "--from", tmp_path / "store")
    assert ran.code == 1
    assert f"failed: {flatfs_path(HELLO)}: " in ran.err
    assert (tree / flatfs_path(HELLO)).read_bytes() == b"older"
    assert (tree / flatfs_path(b"other")).read_bytes() == b"other"
    assert list((tree / ".temp").iterdir()) == []


def test_nothing_is_written_through_links(tmp_path: Path) -> None:
    fill(tmp_path / "store", {flatfs_path(HELLO): HELLO, "__/a.data": b"1"})
    outside = write_tree(tmp_path / "outside", {"victim": b"untouched"})
    tree = write_flatfs(tmp_path / "out")
    (tree / "32").symlink_to(outside)
    (tree / "__").mkdir()
    (tree / "__" / "a.data").symlink_to(outside / "victim")
    ran = run("export", "flatfs", tree, "--from", tmp_path / "store")
    assert (ran.code, len(ran.err.splitlines())) == (1, 2)
    assert files_in(outside) == {"victim": b"untouched"}
    assert (tree / "__" / "a.data").is_symlink()


def test_the_place_for_unfinished_files_is_no_way_out(tmp_path: Path) -> None:
    fill(tmp_path / "store", {flatfs_path(HELLO): HELLO})
    outside = write_tree(tmp_path / "outside", {"temp-holdfast-old": b"not ours"})
    tree = write_flatfs(tmp_path / "out")
    (tree / ".temp").symlink_to(outside)
    ran = run("export", "flatfs", tree, "--from", tmp_path / "store")
    assert ran.code == 1
    assert files_in(outside) == {"temp-holdfast-old": b"not ours"}


def test_dry_runs_write_nothing(tmp_path: Path) -> None:
    tree = write_flatfs(tmp_path / "piri", HELLO)
    came = run("import", "flatfs", tree, "--to", tmp_path / "to", "--dry-run")
    assert came.out == f"would copy {flatfs_path(HELLO)} (11 bytes)\n1 object would be copied, 11 bytes\n"
    assert not (tmp_path / "to").exists()
    fill(tmp_path / "store", {flatfs_path(HELLO): HELLO})
    for made in (False, True):
        if made:
            (tmp_path / "out").mkdir()
        went = run("export", "flatfs", tmp_path / "out", "--from", tmp_path / "store", "--dry-run", "--json")
        assert (went.code, went.summary["copied"]) == (0, 1)
    assert list((tmp_path / "out").iterdir()) == []


def test_content_types_that_are_lost_are_counted(tmp_path: Path) -> None:
    fill(tmp_path / "store", {flatfs_path(HELLO): HELLO}, Attributes("text/plain"))
    fill(tmp_path / "store", {flatfs_path(b""): b""})
    ran = run("export", "flatfs", tmp_path / "out", "--from", tmp_path / "store")
    assert ran.out == "2 objects copied, 11 bytes\n1 with a content type or metadata, which have no place there\n"


def test_two_exports_do_not_write_to_one_directory(tmp_path: Path) -> None:
    fill(tmp_path / "store", {flatfs_path(HELLO): HELLO})
    tree = write_flatfs(tmp_path / "out")
    fd = os.open(tree, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        ran = run("export", "flatfs", tree, "--from", tmp_path / "store")
    finally:
        os.close(fd)
    assert (ran.code, ran.err) == (1, f"holdfast-server: {tree}: another export is writing to it\n")


def test_a_killed_export_leaves_no_half_file_and_the_next_one_sweeps(tmp_path: Path) -> None:
    blobs = [sample(200_000, seed) for seed in range(300)]
    fill(tmp_path / "store", {flatfs_path(blob): blob for blob in blobs})
    tree = tmp_path / "out"
    arguments = command("export", "flatfs", tree, "--from", tmp_path / "store")
    for wanted in (5, 100):
        with killed_on_failure(subprocess.Popen(arguments, env=environment(), stdout=subprocess.DEVNULL)) as process:
            wait_until(lambda: len(list(tree.glob("??/*.data"))) >= wanted, 120)  # noqa: B023 (ends in the loop)
            process.send_signal(signal.SIGKILL)
        left = [
            path for path in tree.glob("??/*.data") if flatfs_path(path.read_bytes()) != str(path.relative_to(tree))
        ]
        assert left == []
    (tree / ".temp" / "temp-holdfast-0").write_bytes(b"left by a dead one")
    (tree / ".temp" / "temp-123").write_bytes(b"Piri's own")
    ran = run("export", "flatfs", tree, "--from", tmp_path / "store", "--json")
    assert ran.code == 0
    assert ran.summary["present"] >= 100
    assert files_in(tree / ".temp") == {"temp-123": b"Piri's own"}
    (tree / ".temp" / "temp-123").unlink()
    assert files_in(tree) == {"SHARDING": SHARDING.encode(), **{flatfs_path(blob): blob for blob in blobs}}
