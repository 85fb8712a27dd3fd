"""Trees of local files as the client reads them: lazily, within bounds, as they stand still, and never out of them."""

import hashlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast import trees
from holdfast.trees import FileChanged, Found, NotAFile, SteadyFile, Tree
from tests.support.faulty_disk import open_files_below
from tests.support.samples import MIB, sample

_MAX_PATH_BYTES = 900


def _make(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())


def _walk(root: Path, max_path_bytes: int = _MAX_PATH_BYTES) -> list[Found]:
    with Tree(root) as tree:
        return list(tree.walk(max_path_bytes))


def _paths(root: Path) -> list[str]:
    return [found.path.decode() for found in _walk(root)]


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    """The tree of `tmp_path`."""
    with Tree(tmp_path) as tree:
        yield tree


class TestWalking:
    def test_files_come_in_the_order_of_their_names_and_directories_do_not(self, tmp_path: Path) -> None:
        _make(tmp_path, "b", "a/z", "a/b/c", "a/b.txt", "c", "ü", "B")
        (tmp_path / "empty").mkdir()
        assert _paths(tmp_path) == ["B", "a/b/c", "a/b.txt", "a/z", "b", "c", "ü"]

    def test_of_a_large_directory_some_names_are_held_at_a_time(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(trees, "_SORTED_NAMES", 10)
        names = [f"{number:03}" for number in range(105)]
        _make(tmp_path, *names)
        paths = _paths(tmp_path)
        assert sorted(paths) == names
        runs = [paths[start : start + 10] for start in range(0, 105, 10)]
        assert all(run == sorted(run) for run in runs)

    @pytest.mark.parametrize("names", [10, 20])
    def test_a_directory_with_just_as_many_names_is_read_whole(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: int
    ) -> None:
        monkeypatch.setattr(trees, "_SORTED_NAMES", 10)
        _make(tmp_path, *map(str, range(names)))
        assert len(_paths(tmp_path)) == names

    def test_a_directory_is_read_only_when_it_is_reached(self, tmp_path: Path) -> None:
        _make(tmp_path, "a", "b/1", "c")
        with Tree(tmp_path) as tree:
            walk = tree.walk(_MAX_PATH_BYTES)
            assert next(walk) == Found(b"a")
            _make(tmp_path, "b/2")
            assert [found.path for found in walk] == [b"b/1", b"b/2", b"c"]

    def test_what_is_no_file_is_told_and_not_followed(self, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        root = tmp_path / "root"
        _make(outside, "secret")
        _make(root, "file")
        (root / "to_file").symlink_to("file")
        (root / "to_directory").symlink_to(outside)
        (root / "to_nothing").symlink_to("nothing")
        os.mkfifo(root / "pipe")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(root / "socket"))
            assert _walk(root) == [
                Found(b"file"),
                Found(b"pipe", "a pipe"),
                Found(b"socket", "a socket"),
                Found(b"to_directory", "a symbolic link"),
                Found(b"to_file", "a symbolic link"),
                Found(b"to_nothing", "a symbolic link"),
            ]

    def test_names_need_not_be_text(self, tmp_path: Path) -> None:
        (tmp_path / os.fsdecode(b"d\xff")).mkdir()
        (tmp_path / os.fsdecode(b"d\xff/\xfe")).touch()
        assert [found.path for found in _walk(tmp_path)] == [b"d\xff/\xfe"]

    def test_a_directory_that_cannot_be_read_is_told_and_the_others_are_read(self, tmp_path: Path) -> None:
        _make(tmp_path, "a", "b/1", "c/1")
        with Tree(tmp_path) as tree:
            walk = tree.walk(_MAX_PATH_BYTES)
            assert next(walk) == Found(b"a")
            (tmp_path / "b" / "1").unlink()
            (tmp_path / "b").rmdir()
            assert list(walk) == [Found(b"b", why="No such file or directory"), Found(b"c/1")]

    def test_a_directory_that_became_a_link_is_not_followed(self, tmp_path: Path) -> None:
        root = tmp_path / "root"
        _make(tmp_path, "outside/secret", "root/a", "root/b/1")
        with Tree(root) as tree:
            walk = tree.walk(_MAX_PATH_BYTES)
            next(walk)
            (root / "b" / "1").unlink()
            (root / "b").rmdir()
            (root / "b").symlink_to(tmp_path / "outside")
            (told,) = walk
            assert told.path == b"b"
            assert told.why

    def test_a_directory_too_deep_for_any_key_is_told_and_not_entered(self, tmp_path: Path) -> None:
        _make(tmp_path, "abc/de/f", "abc/x")
        assert _walk(tmp_path, 5) == [
            Found(b"abc/de", why="what is in it has a path of more than 5 bytes"),
            Found(b"abc/x"),
        ]

    def test_a_deep_tree_needs_few_open_files(self, tmp_path: Path) -> None:
        _make(tmp_path, "/".join("d" * 440))
        with Tree(tmp_path) as tree:
            for found in tree.walk(_MAX_PATH_BYTES):
                assert found.path.count(b"/") == 439
                assert _open_files(tmp_path) <= 3
        assert _open_files(tmp_path) == 0

    def test_a_tree_stays_the_same_directory_whatever_takes_its_place(self, tmp_path: Path) -> None:
        root = tmp_path / "root"
        _make(root, "a")
        with Tree(root) as tree:
            root.rename(tmp_path / "moved")
            root.mkdir()
            assert list(tree.walk(_MAX_PATH_BYTES)) == [Found(b"a")]
            assert not tree.lacks(b"a")

    @pytest.mark.parametrize("name", ["missing", "file"])
    def test_what_is_no_directory_is_an_error_with_its_name(self, tmp_path: Path, name: str) -> None:
        _make(tmp_path, "file")
        with pytest.raises(OSError, match=name):
            Tree(tmp_path / name)

    def test_the_bytes_of_all_files_are_counted(self, tmp_path: Path, tree: Tree) -> None:
        _make(tmp_path, "12", "a/4")
        (tmp_path / "link").symlink_to("12")
        assert tree.total_bytes(_MAX_PATH_BYTES) == 5


def _open_files(root: Path) -> int:
    """Return how many are open at and below it, and no others: what earlier tests have left may close meanwhile."""
    return len([path for path in open_files_below(root.parent) if f"{path}/".startswith(f"{root}/")])


class TestReading:
    @pytest.mark.parametrize("size", [0, 1, 1000, MIB + 1])
    def test_a_file_is_read_whole(self, tmp_path: Path, tree: Tree, size: int) -> None:
        data = sample(size)
        (tmp_path / "a").write_bytes(data)
        moved: list[int] = []
        with tree.open(b"a") as file:
            assert file.size_bytes == size
            assert file.sha256(moved.append) == hashlib.sha256(data).digest()
            assert file.read_all() == data
        assert moved[-1:] == ([size] if size else [])

    @pytest.mark.parametrize(
        "change",
        [
            lambda path: path.write_bytes(b"x" * 1000),
            lambda path: os.truncate(path, 1001),
            lambda path: os.truncate(path, 400),
            lambda path: os.truncate(path, 0),
            lambda path: os.utime(path, (1, 1)),
        ],
        ids=["rewritten", "longer", "shorter", "emptied", "touched"],
    )
    def test_a_file_that_changes_while_it_is_read_is_found_out(
        self, tmp_path: Path, tree: Tree, change: Callable[[Path], object]
    ) -> None:
        path = tmp_path / "a"
        path.write_bytes(bytes(1000))
        os.utime(path, (5, 5))  # so that it shows, however coarse the clock of the file system
        reads: list[Callable[[SteadyFile], object]] = [
            lambda file: list(iter(lambda: file.read(600), b"")),
            lambda file: file.read_all(),
            lambda file: file.sha256(lambda _: None),
        ]
        for read in reads:
            with tree.open(b"a") as file:
                file.read(10)
                file.seek(0)
                change(path)
                with pytest.raises(FileChanged):
                    read(file)
            path.write_bytes(bytes(1000))
            os.utime(path, (5, 5))

    def test_a_file_that_grows_is_not_read_beyond_its_size(self, tmp_path: Path, tree: Tree) -> None:
        path = tmp_path / "a"
        path.write_bytes(bytes(1000))
        with tree.open(b"a") as file:
            os.truncate(path, MIB)
            assert len(file.read(1000)) == 1000
            with pytest.raises(FileChanged):
                file.read(1)

    def test_what_took_the_place_of_a_file_is_not_read(self, tmp_path: Path, tree: Tree) -> None:
        _make(tmp_path, "file")
        (tmp_path / "link").symlink_to("file")
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "directory").mkdir()
        for name, other in [("link", "a symbolic link"), ("pipe", "a pipe"), ("directory", "a directory")]:
            with pytest.raises(NotAFile, match=other), tree.open(name.encode()):
                pass
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "socket"))
            with pytest.raises(NotAFile, match="a socket"), tree.open(b"socket"):
                pass
        with pytest.raises(FileNotFoundError), tree.open(b"missing"):
            pass


class TestLinksOnTheWay:
    """A directory of the tree is replaced by a link to one outside, with files of the same names."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """A tree."""
        _make(tmp_path / "root", "a/1", "a/b/2")
        _make(tmp_path / "outside", "1", "2", "b/2", "b/secret")
        return tmp_path / "root"

    @pytest.mark.parametrize(("replaced", "path"), [("a", b"a/1"), ("a", b"a/b/2"), ("a/b", b"a/b/2")])
    def test_a_file_is_not_opened_through_them(self, root: Path, replaced: str, path: bytes) -> None:
        assert Found(path) in _walk(root)
        with Tree(root) as tree:
            _replace_by_link(root / replaced)
            with pytest.raises(OSError, match="Not a directory"), tree.open(path):
                pass

    def test_a_directory_that_was_open_already_is_still_the_one_that_was_listed(self, root: Path) -> None:
        _make(root, "a/b/3")
        with Tree(root) as tree:
            with tree.open(b"a/b/2") as file:
                assert file.read_all() == b"a/b/2"
            _replace_by_link(root / "a")
            with tree.open(b"a/b/3") as file:
                assert file.read_all() == b"a/b/3"

    def test_directories_below_them_are_not_walked(self, root: Path) -> None:
        with Tree(root) as tree:
            walk = tree.walk(_MAX_PATH_BYTES)
            assert next(walk) == Found(b"a/1")
            _replace_by_link(root / "a")
            assert list(walk) == [Found(b"a/b", why="Not a directory")]

    def test_what_is_behind_them_is_not_counted(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Tree, "walk", lambda *_: iter([Found(b"a/1"), Found(b"a/b/2")]))
        with Tree(root) as tree:
            assert tree.total_bytes(_MAX_PATH_BYTES) == len("a/1" + "a/b/2")
            _replace_by_link(root / "a/b")
            assert tree.total_bytes(_MAX_PATH_BYTES) == len("a/1")

    def test_what_would_be_behind_them_is_not_known_to_be_lacking(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = os.stat

        def replacing(path: bytes, **options: Any) -> os.stat_result:
            found = original(path, **options)
            if path == b"a":
                monkeypatch.undo()
                _replace_by_link(root / "a")
            return found

        with Tree(root) as tree:
            monkeypatch.setattr(os, "stat", replacing)
            with pytest.raises(OSError, match="Not a directory"):
                tree.lacks(b"a/missing")

    def test_what_took_the_place_of_an_open_directory_is_not_lacking(self, root: Path) -> None:
        with Tree(root) as tree:
            with tree.open(b"a/1"):
                pass
            (root / "a").rename(root / "moved")
            _make(root, "a/new")
            assert not tree.lacks(b"a/new")
            assert tree.lacks(b"a/1")

    def test_many_files_of_a_directory_cost_one_walk_to_it(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        _make(root, *(f"a/b/{number}" for number in range(50)))
        opened: list[bytes] = []
        original = os.open

        def counting(path: bytes, *arguments: Any, **options: Any) -> int:
            opened.append(path)
            return original(path, *arguments, **options)

        with Tree(root) as tree:
            monkeypatch.setattr(os, "open", counting)
            for number in range(50):
                with tree.open(b"a/b/%d" % number):
                    pass
            monkeypatch.undo()
            assert _open_files(root) <= 2
        assert opened[:2] == [b"a", b"b"]
        assert len(opened) == 52
        assert _open_files(root) == 0


def _replace_by_link(directory: Path) -> None:
    """Put a link in the place of a directory: to one outside that has what the directory had."""
    root = next(parent for parent in directory.parents if parent.name == "root")
    directory.rename(root.with_name("moved"))
    directory.symlink_to(root.with_name("outside"))


class TestLacking:
    @pytest.mark.parametrize(
        ("path", "lacks"),
        [
            ("file", False),
            ("a/file", False),
            ("missing", True),
            ("a/missing", True),
            ("a/missing/deep", True),
            ("a", True),
            ("file/below", True),
            ("link", False),
            ("pipe", False),
            ("link/below", False),
            ("link/missing", False),
            ("nothing", False),
            ("nothing/below", False),
        ],
    )
    def test_only_what_is_known_not_to_be_there_is_lacking(
        self, tmp_path: Path, tree: Tree, path: str, lacks: bool
    ) -> None:
        _make(tmp_path, "file", "a/file", "a/below")
        (tmp_path / "link").symlink_to("a")
        (tmp_path / "nothing").symlink_to("nowhere")
        os.mkfifo(tmp_path / "pipe")
        assert tree.lacks(path.encode()) is lacks

    def test_what_cannot_be_found_out_is_an_error(self, tree: Tree) -> None:
        with pytest.raises(OSError, match="too long"):
            tree.lacks(b"x" * 300)
