"""`sync_directory`: what is stored, and how, and what is left alone."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import holdfast
from holdfast import directories, sync_directory
from holdfast.directories import MAX_SMALL_BYTES
from holdfast.trees import SteadyFile, Tree
from holdfast.v1 import blob_store_pb2 as pb
from tests.support.batch_store import BatchStore, serving
from tests.support.log_marks import mark
from tests.support.samples import MIB, sample
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


def calls(server: ServerProcess, before: int, after: int) -> Counter[str]:
    """How often each call was made between these two lines of the log."""
    return Counter(re.findall(r"Call finished .*BlobStore/(\w+)", "".join(server.log[before + 1 : after])))


FILES = {
    "a": b"1",
    "deep/er/b": b"2",
    "deep/empty": b"",
    "small": sample(MAX_SMALL_BYTES, 1),
    "large": sample(_LARGE, 2),
    "larger": sample(3 * MIB + 7, 3),
    "ü \u202e.txt": b"3",
}


class TestStoring:
    def test_blobs_become_what_the_files_are(self, server: ServerProcess, blobs: holdfast.Blobs, root: Path) -> None:
        make_files(root, FILES)
        results = list(sync_directory(blobs, root, "maps"))
        assert {result.key: result.size_bytes for result in results} == {
            f"maps/{path}": len(data) for path, data in FILES.items()
        }
        assert outcomes(results) == dict.fromkeys(FILES, "stored")
        assert stored(server) == {f"maps/{path}": data for path, data in FILES.items()}

    @pytest.mark.parametrize(
        ("prefix", "key"), [("maps", "maps/a"), ("maps/", "maps/a"), ("maps/x.y", "maps/x.y/a"), ("", "a")]
    )
    def test_a_slash_stands_between_prefix_and_path(
        self, server: ServerProcess, blobs: holdfast.Blobs, root: Path, prefix: str, key: str
    ) -> None:
        make_files(root, {"a": b"1"})
        assert [result.key for result in sync_directory(blobs, root, prefix)] == [key]
        assert list(stored(server)) == [key]

    def test_what_is_there_is_left_alone_with_its_attributes(
        self, server: ServerProcess, blobs: holdfast.Blobs, root: Path
    ) -> None:
        make_files(root, FILES)
        for path in ("a", "larger"):
            blobs.put(path, FILES[path], content_type="a/b", metadata={"x": "y"})
        before = {path: blobs.stat(path) for path in ("a", "larger")}
        list(sync_directory(blobs, root, ""))
        assert outcomes(sync_directory(blobs, root, "")) == dict.fromkeys(FILES, "present")
        assert {path: blobs.stat(path) for path in ("a", "larger")} == before

    def test_only_what_differs_is_stored(self, server: ServerProcess, blobs: holdfast.Blobs, root: Path) -> None:
        make_files(root, FILES)
        list(sync_directory(blobs, root, ""))
        changed = {
            "a": b"x",  # the same size
            "deep/empty": b"no more",
            "larger": sample(3 * MIB + 7, 4),
            "small": sample(_LARGE, 5),  # and large now
            "large": b"small now",
            "deep/new": b"new",
        }
        make_files(root, changed)
        became = outcomes(sync_directory(blobs, root, ""))
        assert {path for path, outcome in became.items() if outcome == "stored"} == changed.keys()
        assert stored(server) == FILES | changed

    def test_small_files_take_few_calls_and_large_ones_a_stream_each(
        self, server: ServerProcess, blobs: holdfast.Blobs, root: Path
    ) -> None:
        make_files(root, {f"{number:03}": b"%d" % number for number in range(700)})
        make_files(root, {"edge": bytes(MAX_SMALL_BYTES), "large": bytes(_LARGE)})
        before = mark(server, blobs.stat, "before-few-calls")
        assert Counter(outcomes(sync_directory(blobs, root, "p")).values()) == {"stored": 702}
        made = calls(server, before, mark(server, blobs.stat, "after-few-calls"))
        assert (made["PutBlob"], made["StatBlob"]) == (1, 1)
        assert made["FindMissingBlobs"] == 2  # one of them asks for the prefix
        assert 1 <= made["BatchPutBlobs"] <= 2

    def test_a_large_file_is_read_twice_only_if_it_may_be_there(
        self, server: ServerProcess, blobs: holdfast.Blobs, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hashed: list[int] = []
        original = SteadyFile.sha256

        def counted(file: SteadyFile, moved: Callable[[int], None]) -> bytes:
            hashed.append(file.size_bytes)
            return original(file, moved)

        monkeypatch.setattr(SteadyFile, "sha256", counted)
        make_files(root, {"missing": bytes(_LARGE), "other": bytes(_LARGE + 1)})
        blobs.put("other", bytes(_LARGE))
        list(sync_directory(blobs, root, ""))
        assert hashed == []
        list(sync_directory(blobs, root, ""))
        assert hashed == [_LARGE, _LARGE + 1]

    def test_files_are_held_in_groups(self, blobs: holdfast.Blobs, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        opened: list[bytes] = []
        original = Tree.open

        def counted(tree: Tree, path: bytes) -> object:
            opened.append(path)
            return original(tree, path)

        monkeypatch.setattr(Tree, "open", counted)
        make_files(root, {f"{number:02}": bytes(1000) for number in range(60)})
        for name, bound in [("_MAX_GROUP_FILES", 10), ("_MAX_GROUP_BYTES", 10_999)]:
            with monkeypatch.context() as patched:
                patched.setattr(directories, name, bound)
                opened.clear()
                results = sync_directory(blobs, root, name.lower().strip("_"))
                for number, _ in enumerate(results):
                    assert len(opened) <= number + 12
                assert len(opened) == 60

    def test_a_group_is_stored_before_the_next_is_asked_for_and_found_there_the_next_time(self, root: Path) -> None:
        names = [f"{number:04}" for number in range(2500)]
        make_files(root, dict.fromkeys(names, b""))
        store = BatchStore()  # type: ignore[abstract]  # the other calls are not made

        def away_after_the_first(request: Any, context: grpc.ServicerContext) -> None:
            if isinstance(request, pb.FindMissingBlobsRequest) and store.blobs:
                context.abort(grpc.StatusCode.UNAVAILABLE, "away")

        store.answer = away_after_the_first
        with serving(store) as address, holdfast.connect(address, retries=0) as client:
            with pytest.raises(holdfast.Unavailable):
                list(sync_directory(client.blobs, root, ""))
            assert sorted(store.blobs) == names[:2000]
            store.answer = None
            store.requests.clear()
            became = outcomes(sync_directory(client.blobs, root, ""))
        assert Counter(became.values()) == {"present": 2000, "stored": 500}
        puts = [request for request in store.requests if isinstance(request, pb.BatchPutBlobsRequest)]
        assert [item.key for request in puts for item in request.items] == names[2000:]

    def test_damaged_blobs_are_stored_again(
        self, server: ServerProcess, blobs: holdfast.Blobs, root: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        make_files(root, {"damaged/small": b"1", "damaged/large": bytes(_LARGE), "whole": b"2"})
        list(sync_directory(blobs, root, ""))
        for key in ("damaged/small", "damaged/large"):
            damage_record(server, key)
            with pytest.raises(holdfast.IntegrityFailed):
                blobs.stat(key)
        assert outcomes(sync_directory(blobs, root, "")) == {
            "damaged/small": "stored",
            "damaged/large": "stored",
            "whole": "present",
        }
        assert blobs.get("damaged/small").read() == b"1"
        assert blobs.get("damaged/large").read() == bytes(_LARGE)

    def test_a_dry_run_changes_nothing_and_tells_what_would_be(
        self, server: ServerProcess, blobs: holdfast.Blobs, root: Path
    ) -> None:
        make_files(root, {"a": b"1", "large": bytes(_LARGE), "there": b"2"})
        blobs.put("there", b"2")
        blobs.put("surplus", b"3")
        before = stored(server)
        dry = list(sync_directory(blobs, root, "", delete=True, dry_run=True))
        assert stored(server) == before
        assert dry == list(sync_directory(blobs, root, "", delete=True))
        assert outcomes(dry) == {"a": "stored", "large": "stored", "there": "present", "surplus": "removed"}

    def test_progress_counts_the_bytes_of_all_files(self, blobs: holdfast.Blobs, root: Path) -> None:
        make_files(root, FILES)
        total = sum(map(len, FILES.values()))
        for _ in range(2):  # stored, and found to be there
            moves: list[tuple[int, int | None]] = []
            sums = [0]
            for result in sync_directory(blobs, root, "", progress=lambda *move, to=moves: to.append(move)):
                sums.append(sums[-1] + result.size_bytes)
            assert {size for _, size in moves} == {total}
            assert [done for done, _ in moves] == sorted(done for done, _ in moves)
            assert moves[-1][0] == total
            within_a_large_one = {done for done, _ in moves}.difference(sums)
            assert len(within_a_large_one) >= 2


def test_digests_are_those_of_the_bytes_that_are_sent(blobs: holdfast.Blobs, root: Path) -> None:
    make_files(root, FILES)
    for result in sync_directory(blobs, root, "p"):
        assert result.key is not None
        assert blobs.stat(result.key).sha256 == hashlib.sha256(FILES[result.path]).digest()
