"""A content address stands for its bytes alone: other bytes under its key are never taken for them, and damage heals.

Run on the store itself and over gRPC through the client, as `test_blob_store.py` is.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

import holdfast
from holdfast import Content
from holdfast.v1 import blob_store_pb2 as pb
from holdfast.v1 import blob_store_pb2_grpc
from holdfast_server.blobs.store import BlobStore
from holdfast_server.objects.base import ObjectStore
from holdfast_server.objects.filesystem import FilesystemStore
from holdfast_server.objects.memory import MemoryStore
from tests.support import statuses
from tests.support.direct_blobs import DirectBlobs, refused
from tests.support.server_process import ServerProcess

DATA = b"hello world" * 500
SHA256 = hashlib.sha256(DATA).digest()
CONTENT = Content("art/", ".wasm", sha256=SHA256)
KEY = f"art/{SHA256.hex()}.wasm"
HEALED = "A damaged blob was replaced"


@dataclass(frozen=True)
class Place:
    """Blobs, where their files are, and what tells whether a line with a text got into the log."""

    blobs: DirectBlobs | holdfast.Blobs
    tree: Path
    has_logged: Callable[[str], bool]

    def file(self) -> Path:
        """Return where the blob with DATA is."""
        return self.tree / "art.d" / f"{SHA256.hex()}.wasm.f"

    def read(self, address: str | Content) -> bytes:
        with self.blobs.get(address) as reader:
            return reader.read()


@contextmanager
def place(how: str, backend: str, directory: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Place]:
    if how == "direct":
        objects: ObjectStore = MemoryStore() if backend == "memory" else FilesystemStore(directory / "objects")
        yield Place(DirectBlobs(BlobStore(objects)), directory / "objects" / "tree", lambda text: text in caplog.text)
        objects.close()
        return
    data_dir = None if backend == "memory" else directory / "data"
    with ServerProcess(data_dir) as server, holdfast.connect(server.address) as client:
        yield Place(
            client.blobs,
            directory / "data" / "objects" / "tree",
            lambda text: server.wait_for_log(text) is not None,
        )


@pytest.fixture(params=["direct memory", "direct filesystem", "grpc memory", "grpc filesystem"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Place]:
    """Every backend, with the wire and without."""
    how, backend = request.param.split()
    with place(how, backend, tmp_path, caplog) as made:
        yield made


@pytest.fixture(params=["direct", "grpc"])
def on_files(request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Place]:
    """The backend whose bytes can be damaged, with the wire and without."""
    with place(request.param, "filesystem", tmp_path, caplog) as made:
        yield made


def test_other_bytes_under_its_key_are_not_taken_for_the_content(anywhere: Place) -> None:
    blobs = anywhere.blobs
    blobs.put(CONTENT, DATA)
    blobs.put(KEY, b"other")
    with refused("INTEGRITY_FAILED"):
        anywhere.read(CONTENT)
    with refused("INTEGRITY_FAILED"):
        blobs.stat(CONTENT)
    with refused("INTEGRITY_FAILED"):
        blobs.delete(CONTENT)
    assert anywhere.read(KEY) == b"other"
    assert blobs.delete(KEY) is True


def test_the_same_bytes_put_by_key_are_the_content(anywhere: Place) -> None:
    blobs = anywhere.blobs
    info = blobs.put(KEY, DATA).blob
    assert blobs.stat(CONTENT) == info
    assert anywhere.read(CONTENT) == DATA
    assert blobs.put(CONTENT, DATA).created is False
    assert blobs.delete(CONTENT) is True


@pytest.mark.parametrize("position", [10, -40], ids=["data", "record"])
def test_a_damaged_blob_is_healed_by_a_put_of_its_content(on_files: Place, position: int) -> None:
    on_files.blobs.put(CONTENT, DATA)
    stored = bytearray(on_files.file().read_bytes())
    stored[position] ^= 1
    on_files.file().write_bytes(stored)
    with refused("INTEGRITY_FAILED"):
        on_files.read(KEY)
    put = on_files.blobs.put(CONTENT, DATA)
    assert (put.created, put.blob.key, put.blob.sha256) == (True, KEY, SHA256)
    assert on_files.read(CONTENT) == DATA
    assert on_files.has_logged(HEALED)
    assert on_files.blobs.put(CONTENT, DATA).created is False


@pytest.mark.parametrize("position", [10, -40], ids=["data", "record"])
def test_a_damaged_blob_is_healed_by_a_copy_to_its_content_address(on_files: Place, position: int) -> None:
    on_files.blobs.put("source", DATA)
    on_files.blobs.put(CONTENT, DATA)
    stored = bytearray(on_files.file().read_bytes())
    stored[position] ^= 1
    on_files.file().write_bytes(stored)
    copy = on_files.blobs.copy("source", CONTENT)
    assert (copy.created, copy.blob.key) == (True, KEY)
    assert on_files.read(CONTENT) == DATA
    assert on_files.has_logged(HEALED)
    assert on_files.blobs.copy("source", CONTENT).created is False


def test_a_damaged_source_does_not_replace_a_damaged_blob(on_files: Place) -> None:
    on_files.blobs.put("source", DATA)
    on_files.blobs.put(CONTENT, DATA)
    damaged = {}
    for file in (on_files.tree / "source.f", on_files.file()):
        damaged[file] = b"?" + file.read_bytes()[1:]
        file.write_bytes(damaged[file])
    with refused("INTEGRITY_FAILED"):
        on_files.blobs.copy("source", CONTENT)
    assert all(file.read_bytes() == stored for file, stored in damaged.items())


def test_a_damaged_blob_is_neither_missing_nor_there(on_files: Place) -> None:
    on_files.blobs.put("a", DATA)
    stored = bytearray((on_files.tree / "a.f").read_bytes())
    stored[-40] ^= 1
    (on_files.tree / "a.f").write_bytes(stored)
    found = list(on_files.blobs.find_missing(["a", "b"]))
    assert [getattr(one, "reason", one) for one in found] == ["INTEGRITY_FAILED", True]
    [got] = on_files.blobs.get_many(["a"])
    assert getattr(got, "reason", None) == "INTEGRITY_FAILED"


def test_an_undamaged_blob_is_not_replaced(on_files: Place) -> None:
    on_files.blobs.put(CONTENT, DATA)
    stored = on_files.file().read_bytes()
    assert on_files.blobs.put(CONTENT, DATA).created is False
    assert on_files.file().read_bytes() == stored


def test_wrong_bytes_do_not_heal_a_damaged_blob(on_files: Place) -> None:
    on_files.blobs.put(CONTENT, DATA)
    damaged = b"?" + on_files.file().read_bytes()[1:]
    on_files.file().write_bytes(damaged)
    with refused("CHECKSUM_MISMATCH"):
        on_files.blobs.put(CONTENT, DATA[1:])
    assert on_files.file().read_bytes() == damaged


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (pb.ContentAddress(prefix="../x/", sha256=SHA256), "content.prefix"),
        (pb.ContentAddress(prefix="chunks/", sha256=SHA256), "content.prefix"),
        (pb.ContentAddress(prefix="a/", suffix="/", sha256=SHA256), "content.suffix"),
    ],
)
def test_the_field_that_makes_no_key_is_named(server: ServerProcess, content: pb.ContentAddress, field: str) -> None:
    with grpc.insecure_channel(server.address) as channel:
        stub = blob_store_pb2_grpc.BlobStoreStub(channel)
        header = pb.PutBlobRequest(header=pb.PutBlobHeader(content=content, size_bytes=0))
        calls: list[Callable[[], object]] = [
            lambda: stub.PutBlob(iter([header])),
            lambda: list(stub.GetBlob(pb.GetBlobRequest(content=content))),
            lambda: stub.StatBlob(pb.StatBlobRequest(content=content)),
            lambda: stub.DeleteBlob(pb.DeleteBlobRequest(content=content)),
        ]
        for call in calls:
            with statuses.refused() as refusal:
                call()
            assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "INVALID_KEY")
            assert refusal.fields == [field]


def test_a_replacement_that_fails_is_not_logged_as_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with place("direct", "filesystem", tmp_path, caplog) as made:
        made.blobs.put(CONTENT, DATA)
        made.file().write_bytes(b"?" + made.file().read_bytes()[1:])
        with refused("CHECKSUM_MISMATCH"):
            made.blobs.put(CONTENT, DATA[1:])
        assert not made.has_logged(HEALED)
