"""`holdfast-server import shellcade` and `export shellcade`: a file for each key becomes an object, and back."""

import hashlib
import os
import socket
from pathlib import Path

import pytest

from holdfast_server.objects.info import Attributes
from tests.support.s3_servers import MotoServer
from tests.support.s3_stores import s3_environment
from tests.support.samples import MIB, sample
from tests.support.transfers import (
    Found,
    damage,
    data_store,
    files_in,
    fill,
    objects_in,
    put_all,
    run,
    write_tree,
)


def artifact(data: bytes) -> str:
    return f"artifacts/{hashlib.sha256(data).hexdigest()}.wasm"


WASM = (b"\0asm one", sample(2 * MIB + 1))
TREE = {
    **{artifact(data): data for data in WASM},
    "snapshots/author/name-1": b"parked",
    "snapshots/author/name-2/00000000000000000042": b"sealed",
    "snapshots/author/name-2/latest": b"42",
    "catalog/ä 🦉.json": b"{}",
    ".hidden": b"",
}


def data_in(path: Path) -> dict[str, bytes]:
    return {key: found.data for key, found in objects_in(path).items()}


@pytest.mark.parametrize("prefix", ["", "shellcade/old/"])
def test_there_and_back_it_is_the_same_tree(prefix: str, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "blobs", TREE)
    for there in (0, len(TREE)):
        came = run("import", "shellcade", tree, "--to", tmp_path / "store", "--prefix", prefix, "--json")
        assert (came.code, came.err) == (0, "")
        assert came.count("copied", "present", "failed") == {"copied": len(TREE) - there, "present": there, "failed": 0}
    assert data_in(tmp_path / "store") == {prefix + key: data for key, data in TREE.items()}
    for there in (0, len(TREE)):
        went = run("export", "shellcade", tmp_path / "out", "--from", tmp_path / "store", "--prefix", prefix, "--json")
        assert (went.code, went.err) == (0, "")
        assert went.count("copied", "present") == {"copied": len(TREE) - there, "present": there}
    assert files_in(tmp_path / "out") == TREE


def test_a_bucket_takes_a_tree_and_gives_it_back(moto: MotoServer, tmp_path: Path) -> None:
    large = sample(11 * MIB)
    files = {artifact(large): large, "snapshots/r": sample(6 * MIB), "x": b""}
    env = s3_environment(moto) | {"HOLDFAST_SPOOL_MAX_BYTES": "1"}  # it must not need one
    came = run("import", "shellcade", write_tree(tmp_path / "blobs", files), "--to", "s3", "--json", env=env)
    assert (came.code, came.summary["copied"], came.err) == (0, 3, "")
    went = run("export", "shellcade", tmp_path / "out", "--from", "s3", "--json", env=env)
    assert (went.code, went.summary["copied"], went.err) == (0, 3, "")
    assert files_in(tmp_path / "out") == files


def test_changed_files_replace_what_is_there(tmp_path: Path) -> None:
    fill(tmp_path / "store", {"a": b"old", "b": b"same", "c": b"longer than it was", "own": b"1"})
    tree = write_tree(tmp_path / "blobs", {"a": b"new", "b": b"same", "c": b"short"})
    ran = run("import", "shellcade", tree, "--to", tmp_path / "store", "--json")
    assert (ran.code, ran.count("copied", "replaced", "present")) == (0, {"copied": 2, "replaced": 2, "present": 1})
    assert data_in(tmp_path / "store") == {"a": b"new", "b": b"same", "c": b"short", "own": b"1"}


def test_damage_in_the_store_is_found_and_mended_where_that_is_asked_for(tmp_path: Path) -> None:
    files = {"a": b"one", "b": sample(2 * MIB), artifact(b"wasm"): b"wasm"}
    tree = write_tree(tmp_path / "blobs", files)
    fill(tmp_path / "store", files, Attributes("text/plain"))
    for key in ("b", artifact(b"wasm")):
        damage(tmp_path / "store", key)
    ran = run("import", "shellcade", tree, "--to", tmp_path / "store", "--json")
    assert ran.count("replaced", "present") == {"replaced": 0, "present": 3}
    for flags in (["--dry-run"], []):
        ran = run("import", "shellcade", tree, "--to", tmp_path / "store", "--verify", "--json", *flags)
        assert (ran.code, ran.count("replaced", "present")) == (0, {"replaced": 2, "present": 1})
    assert objects_in(tmp_path / "store") == {key: Found(data, "text/plain", {}) for key, data in files.items()}


def test_a_tree_and_a_store_within_one_another_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / "trees/data", {"a": b"1"})
    before = files_in(tmp_path)
    (tmp_path / "link").symlink_to("trees")
    for inner, outer in (("trees/data/out", "trees/data"), ("link/data", "trees"), ("trees/data", "link")):
        tree, store = (inner, outer) if outer == "trees/data" else (outer, inner)
        ran = run("export", "shellcade", tmp_path / tree, "--from", tmp_path / store)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err == f"holdfast-server: {tmp_path / inner} lies in the directory of {tmp_path / outer}\n"
    ran = run("import", "shellcade", tmp_path / "trees", "--to", tmp_path / "link/data")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == f"holdfast-server: {tmp_path / 'link/data'} lies in the directory of {tmp_path / 'trees'}\n"
    (tmp_path / "link").unlink()
    assert files_in(tmp_path) == before


def test_what_is_known_of_an_object_stays_where_its_bytes_are_the_same(tmp_path: Path) -> None:
    fill(tmp_path / "store", {"a": b"same"}, Attributes("text/plain"))
    run("import", "shellcade", write_tree(tmp_path / "blobs", {"a": b"same"}), "--to", tmp_path / "store")
    assert objects_in(tmp_path / "store")["a"].content_type == "text/plain"


def test_an_artifact_that_is_not_what_its_name_says_is_not_taken(tmp_path: Path) -> None:
    name = artifact(b"promised")
    tree = write_tree(tmp_path / "blobs", {name: b"delivered", f"x/{name}": b"no promise", "artifacts/notes": b"1"})
    for flags in (["--dry-run"], []):
        ran = run("import", "shellcade", tree, "--to", tmp_path / "store", *flags)
        assert ran.code == 1
        assert ran.err == f"failed: {name}: it is damaged: its bytes are not those that its name is the sha256 of\n"
    assert data_in(tmp_path / "store") == {f"x/{name}": b"no promise", "artifacts/notes": b"1"}


def test_an_artifact_never_replaces_other_bytes(tmp_path: Path) -> None:
    name = artifact(b"promised")
    fill(tmp_path / "store", {name: b"other"})
    ran = run("import", "shellcade", write_tree(tmp_path / "b", {name: b"promised"}), "--to", tmp_path / "store")
    assert ran.code == 1
    assert "other bytes stand under its content address" in ran.err
    assert data_in(tmp_path / "store") == {name: b"other"}
    ran = run("export", "shellcade", tmp_path / "out", "--from", tmp_path / "store")
    assert (ran.code, ran.err) == (1, f"failed: {name}: its bytes are not those that its name is the sha256 of\n")
    assert files_in(tmp_path / "out") == {}


def test_unfinished_files_are_passed_over(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "blobs", {"a": b"1", ".tmp-123": b"x", "snapshots/.tmp-99": b"x"})
    ran = run("import", "shellcade", tree, "--to", tmp_path / "store")
    assert (ran.code, ran.out, ran.err) == (0, "1 object copied, 1 byte\n", "")


def test_keys_of_other_services_are_refused_and_the_others_taken(tmp_path: Path) -> None:
    refused = ["blocks/x", "chunks/o/1", "hibernated/x", "holdfast/y"]
    tree = write_tree(tmp_path / "blobs", {**dict.fromkeys(refused, b"x"), "snapshots/room": b"1"})
    ran = run("import", "shellcade", tree, "--to", tmp_path / "store")
    assert (ran.code, ran.out) == (1, "1 object copied, 1 byte\n4 FAILED\n")
    assert sorted(line.split(": ")[1] for line in ran.err.splitlines()) == refused
    assert all("reserved" in line for line in ran.err.splitlines())
    assert data_in(tmp_path / "store") == {"snapshots/room": b"1"}


def test_names_that_are_no_keys_are_named_and_the_others_taken(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "blobs", {"a": b"1", "tab\there": b"x", "s" * 201: b"x"})
    (tree / "d").mkdir()
    with open(os.fsencode(tree) + b"/d/\xff\x1b[31m", "wb"):  # noqa: PTH123 (a name that is no text)
        pass
    ran = run("import", "shellcade", tree, "--to", tmp_path / "store")
    assert ran.code == 1
    errors = sorted(ran.err.splitlines())
    assert [line.split(": ")[1] for line in errors] == ["d/\\xff\\x1b[31m", "s" * 201, "tab\\there"]
    for line, rule in zip(errors, ("not valid Unicode", "segment of 201 bytes", "control character"), strict=True):
        assert rule in line
    assert data_in(tmp_path / "store") == {"a": b"1"}


def test_links_and_special_files_are_named_and_not_read(tmp_path: Path) -> None:
    outside = write_tree(tmp_path / "outside", {"secret": b"secret"})
    tree = write_tree(tmp_path / "blobs", {"a": b"1"})
    (tree / "file").symlink_to(outside / "secret")
    (tree / "directory").symlink_to(outside)
    (tree / "nowhere").symlink_to("none")
    os.mkfifo(tree / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tree / "socket"))
        ran = run("import", "shellcade", tree, "--to", tmp_path / "store")
    assert ran.code == 1
    named = sorted(line.split(": ")[1] for line in ran.err.splitlines())
    assert named == ["directory", "file", "nowhere", "pipe", "socket"]
    assert data_in(tmp_path / "store") == {"a": b"1"}


def test_the_directory_itself_may_be_a_link(tmp_path: Path) -> None:
    write_tree(tmp_path / "blobs", {"a": b"1"})
    (tmp_path / "link").symlink_to("blobs")
    assert run("import", "shellcade", tmp_path / "link", "--to", tmp_path / "store").code == 0
    (tmp_path / "out").mkdir()
    (tmp_path / "way").symlink_to("out")
    assert run("export", "shellcade", tmp_path / "way", "--from", tmp_path / "store").code == 0
    assert files_in(tmp_path / "out") == {"a": b"1"}


def test_a_prefix_that_makes_no_keys_is_refused(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "blobs", {"a": b"1"})
    ran = run("import", "shellcade", tree, "--to", tmp_path / "to", "--prefix", "no-slash")
    assert (ran.code, ran.out) == (2, "")
    assert "--prefix" in ran.err
    assert not (tmp_path / "to").exists()


def test_a_key_below_another_one_has_no_place_in_a_tree(tmp_path: Path) -> None:
    fill(tmp_path / "store", {"a": b"1", "a-b": b"2", "a/b": b"3", "a/c/d": b"4", "b/c": b"5"})
    ran = run("export", "shellcade", tmp_path / "out", "--from", tmp_path / "store")
    assert ran.code == 1
    assert sorted(ran.err.splitlines()) == [
        f"failed: a/{name}: the file of 'a' is where its directory would be" for name in ("b", "c/d")
    ]
    assert files_in(tmp_path / "out") == {"a": b"1", "a-b": b"2", "b/c": b"5"}


def test_what_stands_in_the_way_is_named_and_stays(tmp_path: Path) -> None:
    fill(tmp_path / "store", {"a/b": b"1", "c": b"2", "d": b"3"})
    tree = write_tree(tmp_path / "out", {"a": b"a file", "c/x": b"a directory"})
    ran = run("export", "shellcade", tree, "--from", tmp_path / "store")
    assert ran.code == 1
    assert sorted(line.split(": ")[1] for line in ran.err.splitlines()) == ["a/b", "c"]
    assert files_in(tree) == {"a": b"a file", "c/x": b"a directory", "d": b"3"}


def test_nothing_is_written_outside(tmp_path: Path) -> None:
    fill(tmp_path / "store", {"file": b"new", "directory/file": b"new", "deep/way/file": b"new", "fine": b"1"})
    outside = write_tree(tmp_path / "outside", {"file": b"untouched"})
    tree = tmp_path / "out"
    (tree / "deep").mkdir(parents=True)
    (tree / "file").symlink_to(outside / "file")
    (tree / "directory").symlink_to(outside)
    (tree / "deep" / "way").symlink_to("../../outside")
    ran = run("export", "shellcade", tree, "--from", tmp_path / "store")
    assert ran.code == 1
    assert sorted(line.split(": ")[1] for line in ran.err.splitlines()) == ["deep/way/file", "directory/file", "file"]
    assert files_in(outside) == {"file": b"untouched"}
    assert (tree / "file").is_symlink()
    assert (tree / "fine").read_bytes() == b"1"


def test_an_export_does_not_replace_what_differs_unless_it_is_asked_to(tmp_path: Path) -> None:
    name = artifact(b"wasm")
    fill(tmp_path / "store", {"a": b"new", "c": b"longer", name: b"wasm"})
    tree = write_tree(tmp_path / "out", {"a": b"old", "c": b"short", name: b"damaged"})
    for flags in (["--dry-run"], []):
        ran = run("export", "shellcade", tree, "--from", tmp_path / "store", "--json", *flags)
        assert (ran.code, ran.count("replaced", "failed")) == (1, {"replaced": 1, "failed": 2})
        why = "a file of other bytes is there; --overwrite replaces it"
        assert sorted(ran.err.splitlines()) == [f"failed: {key}: {why}" for key in ("a", "c")]
    assert files_in(tree) == {"a": b"old", "c": b"short", name: b"wasm"}


def test_an_export_that_is_asked_to_replaces_what_differs_and_leaves_the_rest(tmp_path: Path) -> None:
    fill(tmp_path / "store", {"a": b"new", "b": b"same", "c": b"longer"})
    tree = write_tree(
        tmp_path / "out", {"a": b"old", "b": b"same", "c": b"short", "own": b"1", ".tmp-holdfast-1": b"x"}
    )
    ran = run("export", "shellcade", tree, "--from", tmp_path / "store", "--overwrite", "--json")
    assert (ran.code, ran.count("copied", "replaced", "present")) == (0, {"copied": 2, "replaced": 2, "present": 1})
    assert files_in(tree) == {"a": b"new", "b": b"same", "c": b"longer", "own": b"1"}


def test_a_damaged_object_does_not_reach_the_tree(tmp_path: Path) -> None:
    fill(tmp_path / "store", {"a": sample(2 * MIB), "b": b"2"})
    damage(tmp_path / "store", "a")
    tree = write_tree(tmp_path / "out", {"a": b"older"})
    ran = run("export", "shellcade", tree, "--from", tmp_path / "store", "--overwrite")
    assert (ran.code, ran.err.startswith("failed: a: ")) == (1, True)
    assert files_in(tree) == {"a": b"older", "b": b"2"}


def test_content_types_and_metadata_that_are_lost_are_counted(tmp_path: Path) -> None:
    with data_store(tmp_path / "store") as store:
        put_all(store, {"a": b"1"}, Attributes("text/plain"))
        put_all(store, {"b": b"2"}, Attributes("", {"who": "me"}))
        put_all(store, {"c": b"3"})
    for flags in (["--dry-run"], []):
        ran = run("export", "shellcade", tmp_path / "out", "--from", tmp_path / "store", *flags, "--json")
        assert ran.count("copied", "attributes_lost") == {"copied": 3, "attributes_lost": 2}


def test_a_name_that_shellcade_would_hide_is_named(tmp_path: Path) -> None:
    fill(tmp_path / "store", {"rooms/.tmp-1": b"1", ".tmp-x/a": b"2"})
    ran = run("export", "shellcade", tmp_path / "out", "--from", tmp_path / "store")
    assert ran.code == 1
    assert [line.split(": ")[1] for line in ran.err.splitlines()] == ["rooms/.tmp-1"]
    assert files_in(tmp_path / "out") == {".tmp-x/a": b"2"}


def test_objects_of_other_services_stay_where_they_are(tmp_path: Path) -> None:
    fill(tmp_path / "store", {"a": b"1", "chunks/o/1": b"2", "blocks/p": b"3", "snapshots/r": b"4"})
    ran = run("export", "shellcade", tmp_path / "out", "--from", tmp_path / "store")
    assert (ran.code, ran.err) == (0, "")
    assert files_in(tmp_path / "out") == {"a": b"1", "snapshots/r": b"4"}


def test_a_directory_that_cannot_be_written_is_told_in_a_line(tmp_path: Path) -> None:
    fill(tmp_path / "store", {"a": b"1"})
    (tmp_path / "file").touch()
    ran = run("export", "shellcade", tmp_path / "file", "--from", tmp_path / "store")
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (1, "", 1)


def test_dry_runs_write_nothing(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "blobs", {"a": b"12"})
    came = run("import", "shellcade", tree, "--to", tmp_path / "to", "--dry-run")
    assert came.out == "would copy a (2 bytes)\n1 object would be copied, 2 bytes\n"
    assert not (tmp_path / "to").exists()
    fill(tmp_path / "store", {"a": b"12", "b/c": b"3"})
    write_tree(tmp_path / "out", {"a": b"34"})
    went = run(
        "export", "shellcade", tmp_path / "out", "--from", tmp_path / "store", "--overwrite", "--dry-run", "--json"
    )
    assert went.count("copied", "replaced") == {"copied": 2, "replaced": 1}
    assert files_in(tmp_path / "out") == {"a": b"34"}
