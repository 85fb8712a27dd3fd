"""Uploads through the client: what arrives, and what does not."""

import io
import itertools
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

import holdfast
from holdfast import Content, Layout
from tests.support.samples import MIB, sample
from tests.support.server_process import ServerProcess


@pytest.fixture(scope="module", params=["memory", "filesystem"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[holdfast.Client]:
    """A client of a server on each backend."""
    data_dir = tmp_path_factory.mktemp("data") if request.param == "filesystem" else None
    with ServerProcess(data_dir) as server, holdfast.connect(server.address) as client:
        yield client


@pytest.fixture
def blobs(client: holdfast.Client) -> holdfast.Blobs:
    """The server's blobs, all of them gone."""
    for entry in client.blobs.list():
        assert isinstance(entry, holdfast.BlobEntry)
        client.blobs.delete(entry.key)
    return client.blobs


class _Flaw(Exception):
    """What goes wrong in a source."""


@pytest.mark.parametrize("size", [0, 1, MIB, 2 * MIB + 1])
def test_what_was_put_is_what_is_read(blobs: holdfast.Blobs, tmp_path: Path, size: int) -> None:
    data = sample(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    for given in (data, path, io.BytesIO(data), iter([data])):
        put = blobs.put("a/b", given, content_type="text/plain", metadata={"name": "ü"})
        assert put.created
        info = put.blob
        assert (info.key, info.size_bytes, info.sha256) == ("a/b", size, sha256(data).digest())
        assert (info.content_type, info.metadata) == ("text/plain", {"name": "ü"})
        assert blobs.stat("a/b") == info
        with blobs.get("a/b") as reader:
            assert reader.read() == data
            assert reader.info == info


@pytest.mark.parametrize("after", [0, 1, MIB, 2 * MIB, 5 * MIB])
@pytest.mark.parametrize("size_bytes", [None, 5 * MIB], ids=["undeclared", "declared"])
def test_a_source_that_fails_leaves_no_blob_and_its_error_comes_back(
    blobs: holdfast.Blobs, after: int, size_bytes: int | None
) -> None:
    flaw = _Flaw()

    def chunks() -> Iterator[bytes]:
        yield sample(after)
        raise flaw

    with pytest.raises(_Flaw) as caught:
        blobs.put("a", chunks(), size_bytes=size_bytes)
    assert caught.value is flaw
    assert list(blobs.list()) == []


def test_a_source_that_fails_instead_of_ending_an_empty_blob_leaves_none(blobs: holdfast.Blobs) -> None:
    def chunks() -> Iterator[bytes]:
        yield b""
        raise _Flaw

    with pytest.raises(_Flaw):
        blobs.put("a", chunks(), size_bytes=0)
    assert list(blobs.list()) == []


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, TimeoutError, holdfast.Unavailable])
def test_no_kind_of_error_of_a_source_is_taken_for_ours(blobs: holdfast.Blobs, kind: type[BaseException]) -> None:
    flaw = kind("UNAVAILABLE", "of another server")
    tries = 0

    def chunks() -> Iterator[bytes]:
        nonlocal tries
        tries += 1
        yield sample(3 * MIB)
        raise flaw

    with pytest.raises(kind) as caught:
        blobs.put("a", chunks())
    assert caught.value is flaw
    assert tries == 1
    assert list(blobs.list()) == []


@pytest.mark.parametrize("size", [1, 3 * MIB])
def test_progress_that_fails_at_the_last_byte_leaves_no_blob(blobs: holdfast.Blobs, size: int) -> None:
    def progress(sent: int, _total: int | None) -> None:
        if sent == size:
            raise _Flaw

    with pytest.raises(_Flaw):
        blobs.put("a", sample(size), progress=progress)
    assert list(blobs.list()) == []


def test_a_broken_put_leaves_the_old_blob(blobs: holdfast.Blobs) -> None:
    old = blobs.put("a", b"old").blob

    def chunks() -> Iterator[bytes]:
        yield sample(2 * MIB)
        raise _Flaw

    with pytest.raises(_Flaw):
        blobs.put("a", chunks())
    assert blobs.stat("a") == old


@pytest.mark.parametrize("declared", [0, 1, 2 * MIB - 1, 2 * MIB + 1])
def test_a_source_of_another_size_than_declared_leaves_no_blob(blobs: holdfast.Blobs, declared: int) -> None:
    with pytest.raises(holdfast.BrokenUpload, match=f"{declared} bytes were declared") as caught:
        blobs.put("a", iter([sample(2 * MIB)]), size_bytes=declared)
    assert (caught.value.reason, caught.value.field) == ("SIZE_MISMATCH", "size_bytes")
    assert list(blobs.list()) == []


def test_a_source_is_read_in_the_callers_thread(blobs: holdfast.Blobs) -> None:
    threads = set()

    def chunks() -> Iterator[bytes]:
        for _ in range(3):
            threads.add(threading.current_thread())
            yield sample(MIB)

    blobs.put("a", chunks())
    assert threads == {threading.current_thread()}


def test_a_refusal_ends_the_reading_of_an_endless_source(blobs: holdfast.Blobs) -> None:
    with pytest.raises(holdfast.InvalidArgument, match="'/a'") as caught:
        blobs.put("/a", itertools.repeat(sample(MIB)))
    assert (caught.value.reason, caught.value.field) == ("INVALID_KEY", "key")


def test_progress_counts_up_to_the_size(blobs: holdfast.Blobs) -> None:
    seen: list[tuple[int, int | None]] = []
    data = sample(2 * MIB + 5)
    blobs.put("a", data, progress=lambda sent, total: seen.append((sent, total)))
    assert seen == [(MIB, len(data)), (2 * MIB, len(data)), (len(data), len(data))]
    seen.clear()
    blobs.put("a", iter([b"of no", b"size"]), progress=lambda sent, total: seen.append((sent, total)))
    assert seen == [(9, None)]


def test_create_only_refuses_a_taken_key_and_says_what_is_there(blobs: holdfast.Blobs) -> None:
    there = blobs.put("a", b"first", create_only=True).blob
    with pytest.raises(holdfast.AlreadyExists) as caught:
        blobs.put("a", b"second", create_only=True)
    assert caught.value.reason == "ALREADY_EXISTS"
    assert caught.value.details == {"key": "a", "etag": there.etag, "sha256": there.sha256.hex()}
    assert blobs.get("a").read() == b"first"


def test_if_match_replaces_just_the_blob_that_it_names(blobs: holdfast.Blobs) -> None:
    first = blobs.put("a", b"first").blob
    second = blobs.put("a", b"second", if_match_etag=first.etag).blob
    with pytest.raises(holdfast.PreconditionFailed) as caught:
        blobs.put("a", b"third", if_match_etag=first.etag)
    assert caught.value.details["etag"] == second.etag
    with pytest.raises(holdfast.PreconditionFailed):
        blobs.put("missing", b"third", if_match_etag=first.etag)
    assert blobs.get("a").read() == b"second"


def test_two_conditions_at_once_are_refused(blobs: holdfast.Blobs) -> None:
    with pytest.raises(holdfast.InvalidArgument) as caught:
        blobs.put("a", b"", create_only=True, if_match_etag="e")
    assert (caught.value.reason, caught.value.field) == ("INVALID_CONDITION", "if_match_etag")


def test_content_makes_its_key_and_is_stored_once(blobs: holdfast.Blobs) -> None:
    data = sample(MIB + 1)
    digest = sha256(data)
    first = blobs.put(Content("artifacts/", ".wasm"), data)
    assert (first.created, first.blob.key) == (True, f"artifacts/{digest.hexdigest()}.wasm")
    again = blobs.put(Content("artifacts/", ".wasm", sha256=digest.digest()), iter([data]))
    assert (again.created, again.blob) == (False, first.blob)
    named = Content("artifacts/", ".wasm", sha256=digest.digest())
    assert blobs.get(named).read() == data
    assert blobs.stat(named) == first.blob
    assert blobs.delete(named)
    assert not blobs.delete(named)


@pytest.mark.parametrize(
    ("layout", "key"),
    [
        (Layout.HEX, "p/2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"),
        (Layout.BASE32_MULTIHASH, "p/ciqcz4snxjp3biyoe3udwkwfxhrj4gywdzob7j2clzzqim3csofzqja"),
        (Layout.FLATFS, "p/qj/ciqcz4snxjp3biyoe3udwkwfxhrj4gywdzob7j2clzzqim3csofzqja.data"),
    ],
)
def test_content_has_three_layouts(blobs: holdfast.Blobs, layout: Layout, key: str) -> None:
    assert blobs.put(Content("p/", layout=layout), b"hello").blob.key == key


def test_content_whose_bytes_have_another_digest_is_a_broken_upload(blobs: holdfast.Blobs) -> None:
    with pytest.raises(holdfast.BrokenUpload) as caught:
        blobs.put(Content(sha256=sha256(b"these").digest()), b"those")
    assert caught.value.reason == "CHECKSUM_MISMATCH"
    assert list(blobs.list()) == []


def test_a_request_that_no_message_can_hold_is_an_invalid_argument(blobs: holdfast.Blobs) -> None:
    with pytest.raises(holdfast.InvalidArgument):
        blobs.put("lone surrogate \udcff", b"")
    with pytest.raises(holdfast.InvalidArgument):
        blobs.get("a", offset=1 << 70)
    with pytest.raises(TypeError, match="named by a str or a Content"):
        blobs.stat(b"a")  # type: ignore[arg-type]  # the point
