"""Downloads through the client: what is read, what is written to files, and what happens when a server dies."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

import holdfast
from holdfast import Content
from holdfast.retrying import Retrier
from tests.support.ports import held_port
from tests.support.samples import MIB, sample
from tests.support.server_process import ServerProcess

_DATA = sample(3 * MIB + 17)
_BIG = sample(MIB) * 24
"""Far more than a connection holds on its way."""


@pytest.fixture(scope="module", params=["memory", "filesystem"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[holdfast.Client]:
    """A client of a server on each backend that has the blobs `a`, `empty` and one of content."""
    data_dir = tmp_path_factory.mktemp("data") if request.param == "filesystem" else None
    with ServerProcess(data_dir) as server, holdfast.connect(server.address) as client:
        client.blobs.put("a", _DATA)
        client.blobs.put("empty", b"")
        client.blobs.put(Content("c/"), _DATA)
        yield client


@pytest.fixture
def blobs(client: holdfast.Client) -> holdfast.Blobs:
    """The server's blobs."""
    return client.blobs


class _Flaw(BaseException):
    """What no `except Exception` catches: Ctrl-C, for one."""


def test_a_reader_yields_chunks_of_a_mebibyte(blobs: holdfast.Blobs) -> None:
    with blobs.get("a") as reader:
        assert reader.info == blobs.stat("a")
        assert reader.range == holdfast.ByteRange(0, len(_DATA))
        chunks = list(reader)
    assert b"".join(chunks) == _DATA
    assert [len(chunk) for chunk in chunks] == [MIB, MIB, MIB, 17]


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        ({"offset": 5}, 5, len(_DATA)),
        ({"offset": MIB - 1, "length": 2}, MIB - 1, MIB + 1),
        ({"length": 1}, 0, 1),
        ({"offset": len(_DATA) - 1, "length": 100}, len(_DATA) - 1, len(_DATA)),
        ({"suffix_length": 18}, 3 * MIB - 1, len(_DATA)),
        ({"suffix_length": 1 << 40}, 0, len(_DATA)),
    ],
)
def test_a_range_is_just_those_bytes(blobs: holdfast.Blobs, wanted: dict[str, int], start: int, end: int) -> None:
    with blobs.get("a", **wanted) as reader:  # type: ignore[arg-type]  # only numbers are given
        assert reader.range == holdfast.ByteRange(start, end - start)
        assert reader.info.size_bytes == len(_DATA)
        assert reader.read() == _DATA[start:end]


def test_an_empty_blob_has_no_chunks(blobs: holdfast.Blobs) -> None:
    with blobs.get("empty") as reader:
        assert reader.range == holdfast.ByteRange(0, 0)
        assert list(reader) == []


def test_ranges_outside_are_refused_with_the_size(blobs: holdfast.Blobs) -> None:
    for wanted in ({"offset": len(_DATA)}, {"offset": len(_DATA) - 1, "length": 2, "exact": True}):
        with pytest.raises(holdfast.RangeNotSatisfiable) as caught:
            blobs.get("a", **wanted)  # type: ignore[arg-type]  # numbers and a boolean
        assert caught.value.size_bytes == len(_DATA)
    with pytest.raises(holdfast.InvalidArgument):
        blobs.get("a", offset=1, suffix_length=1)


def test_a_missing_blob_is_found_missing_before_any_byte(blobs: holdfast.Blobs, tmp_path: Path) -> None:
    with pytest.raises(holdfast.NotFound) as caught:
        blobs.get("missing")
    assert caught.value.details == {"key": "missing"}
    with pytest.raises(holdfast.NotFound):
        blobs.download("missing", tmp_path / "target")
    assert list(tmp_path.iterdir()) == []


def test_if_match_reads_just_the_blob_that_it_names(blobs: holdfast.Blobs) -> None:
    etag = blobs.stat("a").etag
    with blobs.get("a", if_match_etag=etag) as reader:
        assert reader.read() == _DATA
    with pytest.raises(holdfast.PreconditionFailed):
        blobs.get("a", if_match_etag="another")


def test_what_is_read_by_content_is_that_content(blobs: holdfast.Blobs) -> None:
    sha256 = blobs.stat("a").sha256
    with blobs.get(Content("c/", sha256=sha256), offset=MIB) as reader:
        assert reader.read() == _DATA[MIB:]


def test_a_reader_that_has_ended_yields_no_more(blobs: holdfast.Blobs) -> None:
    reader = blobs.get("a")
    assert reader.read() == _DATA
    assert reader.read() == b""
    reader.close()
    reader.close()


def test_a_closed_reader_does_not_look_like_the_end(blobs: holdfast.Blobs) -> None:
    with blobs.get("a") as reader:
        next(reader)
    with pytest.raises(ValueError, match="closed"):
        next(reader)


@pytest.mark.parametrize("how", ["closed", "forgotten"])
def test_a_download_that_is_given_up_ends_on_the_server(how: str) -> None:
    with ServerProcess() as server, holdfast.connect(server.address) as client:
        client.blobs.put("big", _BIG)
        reader = client.blobs.get("big")
        next(reader)
        if how == "closed":
            reader.close()
        else:
            del reader
        assert server.wait_for_log(r"Call finished .*GetBlob.*CANCELLED")


def test_a_download_is_the_whole_blob_in_a_file(blobs: holdfast.Blobs, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"what was there")
    seen: list[tuple[int, int | None]] = []
    info = blobs.download("a", target, progress=lambda done, total: seen.append((done, total)))
    assert info == blobs.stat("a")
    assert target.read_bytes() == _DATA
    assert seen == [(done, len(_DATA)) for done in (MIB, 2 * MIB, 3 * MIB, len(_DATA))]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    blobs.download("empty", str(target))
    assert target.read_bytes() == b""
    blobs.download("a", target, offset=7, length=5)
    assert target.read_bytes() == _DATA[7:12]


def test_a_download_has_the_mode_of_a_new_file(blobs: holdfast.Blobs, tmp_path: Path) -> None:
    umask = os.umask(0o027)
    try:
        blobs.download("empty", tmp_path / "target")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "target").stat().st_mode) == 0o640


def test_a_download_that_is_broken_off_leaves_what_was_there(blobs: holdfast.Blobs, tmp_path: Path) -> None:
    def progress(done: int, _total: int | None) -> None:
        if done > MIB:
            assert len(list(tmp_path.iterdir())) == 2  # there is a temporary file, in the same directory
            raise _Flaw

    target = tmp_path / "target"
    target.write_bytes(b"what was there")
    with pytest.raises(_Flaw):
        blobs.download("a", target, progress=progress)
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert target.read_bytes() == b"what was there"


def test_a_download_is_synced_before_it_takes_its_name(
    blobs: holdfast.Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[int, bool]] = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        fsync(descriptor)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            synced.append((os.fstat(descriptor).st_size, (tmp_path / "target").exists()))

    monkeypatch.setattr(os, "fsync", noting)
    blobs.download("a", tmp_path / "target")
    assert synced == [(len(_DATA), False)]


def test_a_download_follows_a_symbolic_link(blobs: holdfast.Blobs, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "file")
    blobs.download("a", tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "file").read_bytes() == _DATA


def test_a_download_replaces_neither_directories_nor_devices(blobs: holdfast.Blobs, tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        blobs.download("a", tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="Not a regular file"):
        blobs.download("a", tmp_path / "pipe")
    with pytest.raises(FileNotFoundError):
        blobs.download("a", tmp_path / "missing" / "target")
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


class _Restarting:
    """A server that is killed in mid-download, and comes back when the client pauses before its next try."""

    def __init__(self, data_dir: Path, port: int) -> None:
        self._data_dir = data_dir
        self.process = ServerProcess(data_dir, listen=f"127.0.0.1:{port}")
        self.address = self.process.address
        self.meanwhile: list[str] = []
        """`replace` or `delete`: what becomes of the blob before the client is back."""

    def come_back(self, _seconds: float) -> None:
        if not self.process.is_running:
            self.process = ServerProcess(self._data_dir, listen=self.address)
            with holdfast.connect(self.address) as other:
                for what in self.meanwhile:
                    if what == "replace":
                        other.blobs.put("big", b"something else")
                    else:
                        other.blobs.delete("big")

    def client(self) -> holdfast.Client:
        return holdfast.Client(self.address, Retrier(retries=20, sleep=self.come_back))


@pytest.fixture
def restarting(tmp_path: Path) -> Iterator[_Restarting]:
    """A server with the blob `big`."""
    with held_port() as port:  # which nobody else is given while it is away
        restarting = _Restarting(tmp_path / "data", port)
        with restarting.client() as client:
            client.blobs.put("big", _BIG)
        yield restarting
        with restarting.process:
            pass


def test_a_download_outlives_the_server(restarting: _Restarting, tmp_path: Path) -> None:
    with restarting.client() as client:

        def progress(done: int, _total: int | None) -> None:
            if done == MIB:
                restarting.process.kill()

        client.blobs.download("big", tmp_path / "target", progress=progress)
    assert (tmp_path / "target").read_bytes() == _BIG
    assert restarting.process.is_running


@pytest.mark.parametrize(
    ("what", "kind", "message"),
    [
        ("replace", holdfast.PreconditionFailed, "'big' was replaced while it was read"),
        ("delete", holdfast.NotFound, "'big' was deleted while it was read"),
    ],
)
def test_bytes_of_two_blobs_are_never_joined(
    restarting: _Restarting, what: str, kind: type[Exception], message: str
) -> None:
    restarting.meanwhile.append(what)
    with restarting.client() as client, client.blobs.get("big") as reader:
        next(reader)
        restarting.process.kill()
        with pytest.raises(kind, match=message):
            reader.read()
        with pytest.raises(ValueError, match="closed"):
            next(reader)
