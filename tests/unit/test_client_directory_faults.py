"""`sync_directory` where files go wrong, and what it removes: nothing that it is not sure of."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import SyncOutcome, sync_directory
from holdfast.directories import MAX_SMALL_BYTES
from holdfast.trees import SteadyFile
from tests.support.s3_servers import MinioServer
from tests.support.s3_stores import fresh_bucket, s3_environment
from tests.support.samples import MIB
from tests.support.server_process import ServerProcess
from tests.support.synced import damage_record, emptied, empty_directory, make_files, outcomes, stored

_LARGE = MAX_SMALL_BYTES + 1


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server on files."""
    with ServerProcess(tmp_path_factory.mktemp("data")) as server:
        yield server


@pytest.fixture
def blobs(server: ServerProcess) -> Iterator[holdfast.Blobs]:
    """Its blobs: at first none."""
    with emptied(server) as blobs:
        yield blobs


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty directory."""
    return empty_directory(tmp_path)


class TestFilesThatGoWrong:
    def test_names_that_make_no_key_are_told_and_the_others_go_on(
        self, server: ServerProcess, blobs: holdfast.Blobs, root: Path
    ) -> None:
        bad = {
            b"control\n": "control character",
            b"x" * 201: "200",
            b"not \xff utf-8": "its name is not UTF-8",
            b"large\x01": "control character",
            b"/".join([b"y" * 199] * 5): "900",
        }
        for name in bad:
            path = root / os.fsdecode(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(_LARGE if name.startswith(b"large") else 1))
        make_files(root, {"good": b"1", "z": bytes(_LARGE)})
        results = {result.path: result for result in sync_directory(blobs, root, "p")}
        assert stored(server).keys() == {"p/good", "p/z"}
        for name, rule in bad.items():
            found = [result for path, result in results.items() if os.fsdecode(name).startswith(path)]
            assert [result.outcome for result in found] == [SyncOutcome.FAILED]
            assert rule in found[0].why

    def test_what_is_no_file_is_passed_over(self, server: ServerProcess, blobs: holdfast.Blobs, root: Path) -> None:
        make_files(root, {"file": b"1"})
        (root / "link").symlink_to("file")
        os.mkfifo(root / "pipe")
        results = list(sync_directory(blobs, root, ""))
        assert [(result.path, str(result.outcome), result.why) for result in results] == [
            ("link", "passed_over", "it is a symbolic link"),
            ("pipe", "passed_over", "it is a pipe"),
            ("file", "stored", ""),
        ]
        assert stored(server).keys() == {"file"}

    @pytest.mark.parametrize("size", [10, _LARGE, 3 * MIB])
    @pytest.mark.parametrize("changes", [1, 2])
    def test_a_file_that_changes_while_it_is_read_is_tried_once_again(  # noqa: PLR0917 (pytest names them)
        self,
        server: ServerProcess,
        blobs: holdfast.Blobs,
        root: Path,
        monkeypatch: pytest.MonkeyPatch,
        size: int,
        changes: int,
    ) -> None:
        make_files(root, {"changing": bytes(size), "steady": b"1"})
        os.utime(root / "changing", (5, 5))
        left = changes
        original = SteadyFile.read

        def reading(file: SteadyFile, wanted: int, /) -> bytes:
            nonlocal left
            data = original(file, wanted)
            if left and file.size_bytes == size and file.tell() == len(data):  # once in each try
                left -= 1
                (root / "changing").write_bytes(bytes([left + 1]) * size)
                os.utime(root / "changing", (6 + left, 6))
            return data

        monkeypatch.setattr(SteadyFile, "read", reading)
        results = {result.path: result for result in sync_directory(blobs, root, "")}
        assert results["steady"].outcome is SyncOutcome.STORED
        if changes == 1:
            assert results["changing"].outcome is SyncOutcome.STORED
            assert stored(server)["changing"] == b"\x01" * size
        else:
            assert results["changing"].outcome is SyncOutcome.FAILED
            assert results["changing"].why == "it changed while it was read, twice"
            assert stored(server).keys() == {"steady"}

    def test_a_file_that_vanishes_is_told(self, server: ServerProcess, blobs: holdfast.Blobs, root: Path) -> None:
        make_files(root, {"b": b"1", "c": b"2"})
        (root / "a").symlink_to("b")
        results = sync_directory(blobs, root, "", delete=True)
        blobs.put("surplus", b"")
        assert next(results).path == "a"
        (root / "b").unlink()
        assert [(result.path, str(result.outcome), result.why) for result in results] == [
            ("b", "failed", "it vanished before it was read"),
            ("c", "stored", ""),
        ]
        assert stored(server).keys() == {"c", "surplus"}

    def test_a_directory_that_becomes_a_link_does_not_lead_out(
        self, server: ServerProcess, blobs: holdfast.Blobs, root: Path, tmp_path: Path
    ) -> None:
        make_files(root, {"d/b": b"1", "d/large": bytes(_LARGE), "e": b"2"})
        make_files(tmp_path / "outside", {"b": b"secret", "large": b"secret" * MIB})
        (root / "d" / "a").symlink_to("b")
        blobs.put("d/gone", b"")
        results = sync_directory(blobs, root, "", delete=True)
        assert next(results).path == "d/a"
        (root / "d").rename(tmp_path / "moved")
        (root / "d").symlink_to(tmp_path / "outside")
        assert {(result.path, str(result.outcome), result.why) for result in results} == {
            ("d/b", "failed", "Not a directory"),
            ("d/large", "failed", "Not a directory"),
            ("e", "stored", ""),
        }
        assert stored(server) == {"e": b"2", "d/gone": b""}

    def test_what_the_store_refuses_is_told_of_each_file_and_the_others_go_on(self, root: Path) -> None:
        make_files(root, {"a": bytes(90_000), "b": bytes(90_000), "c": b"1", "large": bytes(400_000)})
        with ServerProcess(env={"HOLDFAST_MEMORY__MAX_BYTES": "120000"}) as server:
            with holdfast.connect(server.address) as client:
                results = list(sync_directory(client.blobs, root, ""))
            failed = {result.path: result.why for result in results if result.outcome is SyncOutcome.FAILED}
            assert "large" in failed
            assert len(failed) == 2
            assert all(why for why in failed.values())
            assert len(stored(server)) == 2

    @pytest.mark.parametrize("prefix", ["/a", "a//b", "chunks", "a/..", "x" * 201, "y/" * 450, "\udcff"])
    def test_a_prefix_that_makes_no_key_is_told_once(self, blobs: holdfast.Blobs, root: Path, prefix: str) -> None:
        make_files(root, {"a": b"1"})
        with pytest.raises(holdfast.InvalidArgument, match="prefix") as caught:
            list(sync_directory(blobs, root, prefix))
        assert caught.value.field == "prefix"

    def test_a_server_that_is_gone_ends_it(self, root: Path) -> None:
        make_files(root, {"a": b"1"})
        with holdfast.connect("127.0.0.1:1", retries=0) as client, pytest.raises(holdfast.Unavailable):
            list(sync_directory(client.blobs, root, ""))

    def test_a_server_that_goes_away_during_a_large_file_ends_it(self, root: Path) -> None:
        make_files(root, {"a": bytes(_LARGE), "b": bytes(_LARGE)})
        with ServerProcess() as server, holdfast.connect(server.address, retries=0) as client:
            results = sync_directory(client.blobs, root, "")
            assert next(results).outcome is SyncOutcome.STORED
            server.kill()
            with pytest.raises(holdfast.Unavailable):
                next(results)

    @pytest.mark.parametrize("name", ["missing", "file"])
    def test_what_is_no_directory_is_an_error_before_anything_is_asked(self, root: Path, name: str) -> None:
        make_files(root, {"file": b""})
        with holdfast.connect("127.0.0.1:1", retries=0) as client, pytest.raises(OSError, match=name):
            list(sync_directory(client.blobs, root / name, ""))


def _before_deletions(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """Do something once when all is listed, and before anything is deleted."""
    original = holdfast.Blobs.delete_many

    def after_it(some: holdfast.Blobs, *arguments: Any) -> Iterator[bool | holdfast.HoldfastError]:
        monkeypatch.undo()
        do()
        return original(some, *arguments)

    monkeypatch.setattr(holdfast.Blobs, "delete_many", after_it)


class TestRemoving:
    def test_blobs_that_the_directory_lacks_are_removed(
        self, server: ServerProcess, blobs: holdfast.Blobs, root: Path
    ) -> None:
        make_files(root, {"a": b"1", "deep/b": b"2"})
        for key in ("p/gone", "p/deep/gone", "p/a/below", "p/deep", "p/deep.txt"):
            blobs.put(key, b"surplus")
        outside = dict.fromkeys(("p", "p.txt", "p0", "pq/a", "a"), b"outside")
        for key, data in outside.items():
            blobs.put(key, data)
        became = outcomes(sync_directory(blobs, root, "p", delete=True))
        assert {path for path, outcome in became.items() if outcome == "removed"} == {
            "gone",
            "deep/gone",
            "a/below",
            "deep",
            "deep.txt",
        }
        assert stored(server) == {"p/a": b"1", "p/deep/b": b"2"} | outside

    def test_many_are_removed_and_none_without_being_asked(
        self, server: ServerProcess, blobs: holdfast.Blobs, root: Path
    ) -> None:
        make_files(root, {"a": b"1"})
        list(blobs.put_many(holdfast.NewBlob(f"p/{number:04}", b"") for number in range(2100)))
        assert outcomes(sync_directory(blobs, root, "p")) == {"a": "stored"}
        results = list(sync_directory(blobs, root, "p", delete=True))
        assert Counter(str(result.outcome) for result in results) == {"present": 1, "removed": 2100}
        assert stored(server).keys() == {"p/a"}

    def test_what_stands_where_something_was_passed_over_stays(
        self, server: ServerProcess, blobs: holdfast.Blobs, root: Path
    ) -> None:
        make_files(root, {"a": b"1"})
        (root / "link").symlink_to("/")
        for key in ("link", "link/missing", "link/etc/hostname", "gone"):
            blobs.put(key, b"")
        list(sync_directory(blobs, root, "", delete=True))
        assert stored(server).keys() == {"a", "link", "link/missing", "link/etc/hostname"}

    def test_nothing_is_removed_if_anything_failed(
        self, server: ServerProcess, blobs: holdfast.Blobs, root: Path
    ) -> None:
        make_files(root, {"a": b"1", "bad\n": b"2"})
        blobs.put("surplus", b"")
        assert outcomes(sync_directory(blobs, root, "", delete=True)) == {"a": "stored", "bad\n": "failed"}
        assert stored(server).keys() == {"a", "surplus"}

    def test_nothing_is_removed_if_a_directory_could_not_be_read(
        self, server: ServerProcess, blobs: holdfast.Blobs, root: Path
    ) -> None:
        make_files(root, {"b/1": b"1", "c": b"2"})
        (root / "a").symlink_to("b")
        blobs.put("b/1", b"1")
        results = sync_directory(blobs, root, "", delete=True)
        assert next(results).path == "a"
        (root / "b" / "1").unlink()
        (root / "b").rmdir()
        assert [(result.path, str(result.outcome)) for result in results] == [("b", "failed"), ("c", "stored")]
        assert stored(server).keys() == {"b/1", "c"}

    def test_an_empty_directory_removes_nothing(self, server: ServerProcess, blobs: holdfast.Blobs, root: Path) -> None:
        (root / "empty").mkdir()
        (root / "link").symlink_to("/")
        blobs.put("p/a", b"1")
        *_, last = sync_directory(blobs, root, "p", delete=True)
        assert (last.outcome, last.why) == (SyncOutcome.FAILED, "there is no file in it, and so nothing is removed")
        assert stored(server).keys() == {"p/a"}

    def test_what_others_change_after_it_was_listed_is_left_and_fails(
        self, server: ServerProcess, blobs: holdfast.Blobs, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_files(root, {"gone.txt": b"1"})
        for key in ("changed", "damaged", "gone", "mended", "surplus"):
            blobs.put(f"p/{key}", key.encode())
        damage_record(server, "p/damaged")
        damage_record(server, "p/mended")

        def change() -> None:
            blobs.put("p/changed", b"by others")
            blobs.put("p/mended", b"by others")
            blobs.delete("p/gone")

        _before_deletions(monkeypatch, change)
        results = {result.path: result for result in sync_directory(blobs, root, "p", delete=True)}
        assert {path: str(result.outcome) for path, result in results.items()} == {
            "gone.txt": "stored",
            "changed": "failed",
            "damaged": "removed",
            "gone": "removed",
            "mended": "failed",
            "surplus": "removed",
        }
        for path in ("changed", "mended"):
            assert results[path].why == "it was changed after it was listed, and is left"
        assert stored(server) == {"p/gone.txt": b"1", "p/changed": b"by others", "p/mended": b"by others"}

    def test_a_store_that_keeps_no_condition_is_asked_again_before_each(
        self, minio: MinioServer, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_files(root, {"a": b"1"})
        with (
            ServerProcess(env=s3_environment(minio, fresh_bucket())) as server,
            holdfast.connect(server.address) as client,
        ):
            blobs = client.blobs
            for key in ("changed", "gone", "surplus", "surplus2"):
                blobs.put(f"p/{key}", b"surplus")
            (refused,) = blobs.delete_many(["p/surplus"], [blobs.stat("p/surplus").etag])
            assert isinstance(refused, holdfast.ConditionUnsupported)

            def change() -> None:
                blobs.put("p/changed", b"by others")
                blobs.delete("p/gone")

            _before_deletions(monkeypatch, change)
            became = outcomes(sync_directory(blobs, root, "p", delete=True))
            assert {path for path, outcome in became.items() if outcome == "failed"} == {"changed"}
            assert Counter(became.values()) == {"stored": 1, "failed": 1, "removed": 3}
            assert stored(server) == {"p/a": b"1", "p/changed": b"by others"}

    @pytest.mark.parametrize("arrived", [False, True])
    def test_a_deletion_without_an_answer_is_looked_after(
        self,
        server: ServerProcess,
        blobs: holdfast.Blobs,
        root: Path,
        monkeypatch: pytest.MonkeyPatch,
        arrived: bool,
    ) -> None:
        make_files(root, {"a": b"1"})
        for key in ("p/x", "p/y"):
            blobs.put(key, b"")
        original = holdfast.Blobs.delete_many

        def unanswered(some: holdfast.Blobs, *arguments: Any) -> Iterator[bool | holdfast.HoldfastError]:
            if arrived:
                list(original(some, *arguments))
            raise holdfast.Unavailable("UNAVAILABLE", "away")

        monkeypatch.setattr(holdfast.Blobs, "delete_many", unanswered)
        became = outcomes(sync_directory(blobs, root, "p", delete=True))
        assert became == {"a": "stored", "x": "removed", "y": "removed"}
        assert stored(server).keys() == {"p/a"}

    def test_what_others_change_after_it_was_looked_at_again_is_left_too(
        self, server: ServerProcess, blobs: holdfast.Blobs, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_files(root, {"a": b"1"})
        blobs.put("p/x", b"")
        original = holdfast.Blobs.delete

        def unanswered(*_: Any) -> Iterator[bool | holdfast.HoldfastError]:
            raise holdfast.Unavailable("UNAVAILABLE", "away")

        def after_a_change(some: holdfast.Blobs, key: str, **options: Any) -> bool:
            blobs.put("p/x", b"by others")
            return original(some, key, **options)

        monkeypatch.setattr(holdfast.Blobs, "delete_many", unanswered)
        monkeypatch.setattr(holdfast.Blobs, "delete", after_a_change)
        assert outcomes(sync_directory(blobs, root, "p", delete=True)) == {"a": "stored", "x": "failed"}
        assert stored(server) == {"p/a": b"1", "p/x": b"by others"}

    def test_damaged_blobs_are_removed_too(self, server: ServerProcess, blobs: holdfast.Blobs, root: Path) -> None:
        make_files(root, {"a": b"1"})
        blobs.put("p/to-be-damaged", b"")
        damage_record(server, "p/to-be-damaged")
        assert outcomes(sync_directory(blobs, root, "p", delete=True))["to-be-damaged"] == "removed"
        assert stored(server).keys() == {"p/a"}
