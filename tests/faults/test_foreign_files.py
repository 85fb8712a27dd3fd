"""Links and other things in the tree that Holdfast did not put there: not followed, not shown, not touched."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from holdfast_server.errors import HoldfastError, IntegrityFailed
from holdfast_server.objects.base import ListQuery
from holdfast_server.objects.body import Body
from holdfast_server.objects.filesystem import FilesystemStore
from holdfast_server.objects.filesystem.disk import Disk
from holdfast_server.objects.key import ObjectKey
from tests.support.disk_operations import content, read

KEY = ObjectKey("some/key")
BESIDE = ObjectKey("some/beside")


class OldKernel(Disk):
    """Opens a directory at a time, as where openat2(2) is not there."""

    opens_paths = False


@pytest.fixture(params=[Disk, OldKernel])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FilesystemStore]:
    """A store in `tmp_path / "root"`."""
    with closing(FilesystemStore(tmp_path / "root", disk=request.param())) as store:
        yield store


@pytest.mark.parametrize("opens_paths", [True, False])
def test_objects_are_opened_in_one_step_where_the_kernel_can(
    tmp_path: Path, opens_paths: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[bytes] = []

    class Watched(Disk):
        def open_path(self, path: bytes, *, dir_fd: int) -> int:
            opened.append(path)
            return self.open(path, os.O_RDONLY, dir_fd=dir_fd)

    monkeypatch.setattr(Watched, "opens_paths", opens_paths)
    with closing(FilesystemStore(tmp_path / "watched", disk=Watched())) as store:
        store.put(KEY, Body.of(b"data"))
        assert content(store, KEY) == b"data"
    assert opened == ([b"some.d/key.f"] if opens_paths else [])


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Where its objects are."""
    return tmp_path / "root" / "tree"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """The objects of another store, under the same keys."""
    with closing(FilesystemStore(tmp_path / "elsewhere")) as other:
        other.put(KEY, Body.of(b"not yours"))
    return tmp_path / "elsewhere" / "tree"


def names(store: FilesystemStore, query: ListQuery | None = None) -> list[str]:
    return [item.name for item in store.list(query or ListQuery())]


def test_a_link_to_a_file_is_not_followed(store: FilesystemStore, tree: Path, elsewhere: Path) -> None:
    store.put(BESIDE, Body.of(b"beside"))
    (tree / "some.d" / "key.f").symlink_to(elsewhere / "some.d" / "key.f")
    with pytest.raises(IntegrityFailed):
        store.get(KEY)
    with pytest.raises(IntegrityFailed):
        store.stat(KEY)
    with pytest.raises(IntegrityFailed):
        store.copy(KEY, ObjectKey("target"))
    assert names(store) == [BESIDE.text]


def test_a_link_to_a_file_is_replaced_and_removed_and_its_target_stays(
    store: FilesystemStore, tree: Path, elsewhere: Path
) -> None:
    target = elsewhere / "some.d" / "key.f"
    before = target.read_bytes()
    store.put(BESIDE, Body.of(b"beside"))
    link = tree / "some.d" / "key.f"
    link.symlink_to(target)
    store.put(KEY, Body.of(b"mine"))
    assert not link.is_symlink()
    assert read(store, KEY) == b"mine"
    assert store.delete(KEY)
    link.symlink_to(target)
    assert store.delete(KEY)
    assert not link.is_symlink()
    assert target.read_bytes() == before


ON_A_KEY: dict[str, Callable[[FilesystemStore], object]] = {
    "get": lambda store: store.get(KEY),
    "stat": lambda store: store.stat(KEY),
    "put": lambda store: store.put(KEY, Body.of(b"mine")),
    "delete": lambda store: store.delete(KEY),
    "copy from it": lambda store: store.copy(KEY, ObjectKey("target")),
    "copy to it": lambda store: store.copy(ObjectKey("source"), KEY),
}


@pytest.mark.parametrize("call", ON_A_KEY)
@pytest.mark.parametrize("relative", [False, True], ids=["absolute", "relative"])
def test_a_link_to_a_directory_is_not_followed(
    store: FilesystemStore, tree: Path, elsewhere: Path, call: str, *, relative: bool
) -> None:
    store.put(ObjectKey("source"), Body.of(b"mine"))
    target = elsewhere / "some.d"
    (tree / "some.d").symlink_to(os.path.relpath(target, tree) if relative else target)
    before = [path.read_bytes() for path in sorted(target.iterdir())]
    with pytest.raises(IntegrityFailed):
        ON_A_KEY[call](store)
    assert [path.read_bytes() for path in sorted(target.iterdir())] == before
    assert names(store) == ["source"]
    assert names(store, ListQuery(delimiter=True)) == ["source"]
    assert names(store, ListQuery("some/")) == []


def regular_file(path: Path) -> None:
    path.write_bytes(b"foreign")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as bound:
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            bound.bind(f"/proc/self/fd/{directory}/{path.name}")  # a path of sockets has at most 107 bytes
        finally:
            os.close(directory)


def dangling_link(path: Path) -> None:
    path.symlink_to("nothing")


FOREIGN: list[tuple[str, Callable[[Path], None]]] = [
    ("README", regular_file),
    (".DS_Store", regular_file),
    ("key.f~", regular_file),
    ("key.tmp", regular_file),
    ("other.d", regular_file),
    (".f", regular_file),
    ("..f", regular_file),
    ("...f", regular_file),
    ("\udcff.f", regular_file),
    ("control\x01.f", regular_file),
    ("x" * 201 + ".f", regular_file),
    ("foreign", Path.mkdir),
    (".d", Path.mkdir),
    ("..d", Path.mkdir),
    ("other.f", Path.mkdir),
    ("other.f", dangling_link),
    ("other.d", dangling_link),
    ("other.f", unix_socket),
    ("other.f", pipe),
]
"""Names that no put makes, and kinds of files that no put makes."""


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("name", "make"), FOREIGN, ids=[f"{make.__name__} {name[:12]!a}" for name, make in FOREIGN])
def test_lists_pass_over_what_is_foreign(
    store: FilesystemStore, tree: Path, name: str, make: Callable[[Path], None]
) -> None:
    for key in (BESIDE, KEY, ObjectKey("top")):
        store.put(key, Body.of(key.text.encode()))
    for directory in (tree, tree / "some.d"):
        make(directory / name)
    assert names(store) == [BESIDE.text, KEY.text, "top"]
    assert names(store, ListQuery(delimiter=True)) == ["some/", "top"]
    assert names(store, ListQuery("some/", delimiter=True)) == [BESIDE.text, KEY.text]
    assert [content(store, key) for key in (BESIDE, KEY)] == [b"some/beside", b"some/key"]


@pytest.mark.parametrize("name", ["\udcff.d", ".d", "control\x01.d"], ids=ascii)
def test_a_directory_with_nothing_but_foreign_directories_is_no_prefix(
    store: FilesystemStore, tree: Path, name: str
) -> None:
    store.put(ObjectKey("top"), Body.of(b"top"))
    (tree / "empty.d" / name).mkdir(parents=True)
    assert names(store) == ["top"]
    assert names(store, ListQuery(delimiter=True)) == ["top"]
    assert names(store, ListQuery("empty/")) == []


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [Path.mkdir, unix_socket, pipe, dangling_link])
def test_what_is_no_file_is_not_an_object(store: FilesystemStore, tree: Path, make: Callable[[Path], None]) -> None:
    store.put(BESIDE, Body.of(b"beside"))
    make(tree / "some.d" / "key.f")
    for call in ("get", "stat", "copy from it"):
        with pytest.raises(HoldfastError) as refused:
            ON_A_KEY[call](store)
        assert isinstance(refused.value, IntegrityFailed), call
