"""The rest of the client: stat, delete, list, server info, and how it connects."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import pytest

import holdfast
from holdfast import BlobEntry, CommonPrefix
from tests.support.log_marks import mark
from tests.support.samples import sample
from tests.support.server_process import ServerProcess

_KEYS = ["a", "a!", "a/b", "a/c/d", "a0", "b", "ö/x", "\uffee", "\U0001f600"]
"""In byte order of their UTF-8."""


@pytest.fixture(scope="module", params=["memory", "filesystem"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server on each backend, with a blob under each of `_KEYS`."""
    data_dir = tmp_path_factory.mktemp("data") if request.param == "filesystem" else None
    with ServerProcess(data_dir) as server:
        with holdfast.connect(server.address) as client:
            for key in _KEYS:
                client.blobs.put(key, key.encode())
        yield server


@pytest.fixture
def client(server: ServerProcess) -> Iterator[holdfast.Client]:
    """A client of it."""
    with holdfast.connect(server.address) as client:
        yield client


def _names(items: Iterator[BlobEntry | CommonPrefix]) -> list[str]:
    return [item.prefix if isinstance(item, CommonPrefix) else item.key for item in items]


@pytest.mark.parametrize("page_size", [0, 1, 2, 100])
def test_a_list_has_all_blobs_in_byte_order_whatever_its_pages(client: holdfast.Client, page_size: int) -> None:
    assert _names(client.blobs.list(page_size=page_size)) == _KEYS
    assert _names(client.blobs.list("a/", page_size=page_size)) == ["a/b", "a/c/d"]
    assert _names(client.blobs.list(start_after="a/c", page_size=page_size)) == _KEYS[3:]


@pytest.mark.parametrize("page_size", [0, 1, 2, 100])
def test_entries_and_common_prefixes_come_in_one_order(client: holdfast.Client, page_size: int) -> None:
    items = list(client.blobs.list(delimiter="/", page_size=page_size))
    assert _names(iter(items)) == ["a", "a!", "a/", "a0", "b", "ö/", "\uffee", "\U0001f600"]
    assert [type(item) for item in items[:3]] == [BlobEntry, BlobEntry, CommonPrefix]


def test_an_entry_says_what_stat_says(client: holdfast.Client) -> None:
    entry = next(client.blobs.list("a/b"))
    info = client.blobs.stat("a/b")
    assert entry == BlobEntry("a/b", info.size_bytes, info.etag, info.update_time, damaged=False)


def test_a_list_asks_for_a_page_only_when_it_is_reached(server: ServerProcess, client: holdfast.Client) -> None:
    before = mark(server, client.blobs.stat, "before-the-list")
    items = client.blobs.list(page_size=2)
    assert _names(islice(items, 3)) == _KEYS[:3]
    after = mark(server, client.blobs.stat, "after-the-list")
    assert sum("ListBlobs" in line for line in server.log[before:after]) == 2


def test_a_page_is_continued_by_its_token(client: holdfast.Client) -> None:
    first = client.blobs.list_page(page_size=4)
    assert _names(iter(first.items)) == _KEYS[:4]
    second = client.blobs.list_page(page_size=100, page_token=first.next_page_token)
    assert _names(iter(second.items)) == _KEYS[4:]
    assert second.next_page_token == ""
    with pytest.raises(holdfast.InvalidArgument) as caught:
        client.blobs.list_page("a", page_token=first.next_page_token)
    assert (caught.value.reason, caught.value.field) == ("INVALID_PAGE_TOKEN", "page_token")


def test_stat_tells_the_time_in_utc(client: holdfast.Client) -> None:
    client.blobs.put("now", b"")
    stored = client.blobs.stat("now").update_time
    client.blobs.delete("now")
    assert stored.tzinfo is UTC
    assert abs(datetime.now(UTC) - stored) < timedelta(minutes=5)


def test_delete_tells_whether_something_was_there(client: holdfast.Client) -> None:
    client.blobs.put("gone", b"")
    assert client.blobs.delete("gone")
    assert not client.blobs.delete("gone")
    with pytest.raises(holdfast.NotFound):
        client.blobs.stat("gone")


def test_delete_if_match_deletes_just_the_blob_that_it_names(client: holdfast.Client) -> None:
    etag = client.blobs.put("gone", b"").blob.etag
    with pytest.raises(holdfast.PreconditionFailed):
        client.blobs.delete("gone", if_match_etag="another")
    assert client.blobs.delete("gone", if_match_etag=etag)
    with pytest.raises(holdfast.PreconditionFailed):
        client.blobs.delete("gone", if_match_etag=etag)


def test_results_are_frozen_values(client: holdfast.Client) -> None:
    info = client.blobs.stat("a")
    assert hash(info) == hash(client.blobs.stat("a"))
    with pytest.raises(AttributeError):
        info.key = "b"  # type: ignore[misc]  # the point


def test_server_info_tells_limits_and_backends(server: ServerProcess, client: holdfast.Client) -> None:
    info = client.server_info()
    assert info.version
    assert info.limits.max_page_size == 10_000
    assert info.limits.max_room_id_bytes == 512
    assert [service.name for service in info.services] == ["holdfast.v1.BlobStore", "holdfast.v1.CheckpointStore"]
    for backend in (service.backend for service in info.services):
        assert (backend.name, backend.durability) in {("memory", "process"), ("filesystem", "disk")}
        assert (backend.condition_mode, backend.nested_keys) == ("atomic", True)
        assert bool(backend.store_id) == (backend.name == "filesystem")


def test_threads_can_share_a_client(client: holdfast.Client) -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        data = sample(100_000, number)
        client.blobs.put(f"threads/{number}", data)
        if client.blobs.get(f"threads/{number}").read() != data or not client.blobs.delete(f"threads/{number}"):
            wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_unix_socket_is_an_address_too(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/holdfast.sock"
    with ServerProcess(listen=address) as server, holdfast.connect(address) as client:
        assert server.address == address
        assert client.blobs.put("a", b"over a socket").blob.size_bytes == 13


def test_the_library_takes_nothing_from_the_environment(
    client: holdfast.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with holdfast.connect(client.address, retries=0) as other:
        assert other.server_info() == client.server_info()
    with pytest.raises(ValueError, match="address is empty"):
        holdfast.connect("")


@pytest.mark.parametrize("wrong", [{"timeout": 0}, {"timeout": -1}, {"retries": -1}])
def test_time_and_tries_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"is not above 0|is negative"):
        holdfast.connect("127.0.0.1:1", **wrong)
