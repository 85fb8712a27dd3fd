"""Names and directories of flatfs and shellcade trees: what they are, and which are refused."""

import hashlib
from pathlib import Path

import pytest

from holdfast_server.errors import InvalidArgument
from holdfast_server.transfer import shellcade
from holdfast_server.transfer.flatfs import Keys, Layout, made_flatfs, name_of, opened_flatfs, sha256_in, shard_of
from holdfast_server.transfer.tree import TreeError
from tests.support.transfers import SHARDING, files_in, flatfs_path, write_tree

HELLO = b"hello world"
DIGEST = hashlib.sha256(HELLO).digest()
NAME = "ciqlstjhxgju2pqiuuxffv62pwv7vree57rxuu4a52iir55m4lx432i"


@pytest.mark.parametrize(("name", "shard"), [("quux", "uu"), ("a", "__"), ("ab", "_a"), ("abc", "ab"), (NAME, "32")])
def test_the_shard_is_the_two_characters_before_the_last(name: str, shard: str) -> None:
    assert shard_of(name) == shard


def test_a_multihash_is_the_name_of_a_digest() -> None:
    assert name_of(DIGEST) == NAME
    assert sha256_in(NAME) == DIGEST


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a",
        "quux",
        NAME[:-1],
        NAME + "a",
        NAME.upper(),
        NAME + "=",
        NAME[:-1] + "j",
        "d" + NAME[1:],
        NAME[:-1] + "1",
    ],
)
def test_all_else_is_none(name: str) -> None:
    assert sha256_in(name) is None


@pytest.mark.parametrize("prefix", ["", "x/", "x-"])
@pytest.mark.parametrize(
    ("layout", "key"),
    [(Layout.FLATFS, f"32/{NAME}.data"), (Layout.BASE32, NAME), (Layout.HEX, DIGEST.hex())],
)
def test_keys_and_names_lead_to_each_other(prefix: str, layout: Layout, key: str) -> None:
    keys = Keys(prefix, layout)
    assert keys.of(NAME).text == prefix + key
    assert keys.name_in(prefix + key) == NAME
    assert keys.of("quux").text == f"{prefix}uu/quux.data"
    assert keys.name_in(f"{prefix}uu/quux.data") == "quux"


@pytest.mark.parametrize("layout", Layout)
def test_keys_of_other_layouts_and_of_none_are_not_taken_for_names(layout: Layout) -> None:
    keys = Keys("", layout)
    own = keys.of(NAME).text
    others = {
        f"32/{NAME}.data",
        NAME,
        DIGEST.hex(),
        "xx/quux.data",
        "quux.data",
        "quux",
        "uu/QUUX.data",
        "a/uu/quux.data",
    }
    others |= {f"uu/quux{tail}" for tail in ("", ".data.data", "/.data")} | {DIGEST.hex().upper(), f"{NAME}.data"}
    for key in others - {own}:
        assert keys.name_in(key) is None, key


@pytest.mark.parametrize("prefix", ["chunks/", "a//", "\x07", "a" * 900])
def test_a_prefix_that_makes_no_keys_of_blobs_is_refused(prefix: str) -> None:
    for layout in Layout:
        with pytest.raises(InvalidArgument):
            Keys(prefix, layout)


@pytest.mark.parametrize("prefix", ["no-slash", "/", "a//", "holdfast/", "chunks/x/", "../", "a\n/"])
def test_a_prefix_that_makes_no_paths_is_refused(prefix: str) -> None:
    with pytest.raises(InvalidArgument):
        shellcade.check_prefix(prefix)


@pytest.mark.parametrize("prefix", ["", "a/", "snapshots/", "a/b-c/"])
def test_other_prefixes_are_taken(prefix: str) -> None:
    shellcade.check_prefix(prefix)


@pytest.mark.parametrize(
    ("sharding", "said"),
    [
        (b"/repo/flatfs/shard/v1/prefix/2\n", "prefix/2"),
        (b"/repo/flatfs/shard/v1/next-to-last/3\n", "next-to-last/3"),
        (b"", "''"),
        (SHARDING.encode() * 100, "sharding function"),
    ],
)
def test_another_sharding_is_refused_both_ways(sharding: bytes, said: str, tmp_path: Path) -> None:
    files = {flatfs_path(HELLO): HELLO, "SHARDING": sharding}
    tree = write_tree(tmp_path / "tree", files)
    with pytest.raises(TreeError, match=said), opened_flatfs(tree):
        pass
    for dry_run in (True, False):
        with pytest.raises(TreeError, match=said), made_flatfs(tree, dry_run=dry_run):
            pass
    assert files_in(tree) == files


def test_a_directory_with_something_else_is_no_place_for_a_tree(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", {flatfs_path(HELLO): HELLO})
    with pytest.raises(TreeError, match="it is no flatfs tree"), opened_flatfs(tree):
        pass
    for dry_run in (True, False):
        with pytest.raises(TreeError, match="holds '32' but no flatfs tree"), made_flatfs(tree, dry_run=dry_run):
            pass
    assert files_in(tree) == {flatfs_path(HELLO): HELLO}


@pytest.mark.parametrize("sharding", [SHARDING, SHARDING.strip(), f" {SHARDING}\n"])
def test_blanks_around_the_sharding_do_not_matter(sharding: str, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", {"SHARDING": sharding.encode()})
    with opened_flatfs(tree), made_flatfs(tree):
        pass
    assert files_in(tree) == {"SHARDING": sharding.encode()}


def test_a_start_that_was_killed_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "tree" / ".temp").mkdir(parents=True)
    (tmp_path / "tree" / "lost+found").mkdir()
    with made_flatfs(tmp_path / "tree"):
        pass
    assert files_in(tmp_path / "tree") == {"SHARDING": SHARDING.encode()}
