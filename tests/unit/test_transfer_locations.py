"""What `--from` and `--to` name, and how long a store that is away is waited for."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast_server import config
from holdfast_server.config import ConfigError
from holdfast_server.data_directory import DataDirectoryError, is_new, open_data_directory
from holdfast_server.errors import BackendRefused, HoldfastError, Reason, Unavailable
from holdfast_server.objects.base import ALL_ATOMIC, Description, Durability, Listener
from holdfast_server.objects.memory import MemoryStore
from holdfast_server.objects.s3 import S3Options
from holdfast_server.transfer import locations
from holdfast_server.transfer.locations import Every, Location, LocationError, Where, check_different
from holdfast_server.transfer.work import Stopped

AWAY = Unavailable(Reason.BACKEND_UNAVAILABLE, "nobody answers")
REFUSED = BackendRefused(Reason.BACKEND_AUTH, "the keys are refused")


class Remote(MemoryStore):
    """A store that tells its listener what the test wants."""

    def __init__(self, first: HoldfastError | None) -> None:
        super().__init__()
        self._first = first
        self.tell: Listener = lambda _error: None

    def describe(self) -> Description:
        return Description("s3", Durability.REMOTE, ALL_ATOMIC, nested_keys=True, store_id="remote")

    def start(self, listener: Listener) -> None:
        self.tell = listener
        listener(self._first)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(locations, "_FIRST_ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(locations, "_ABSENCE_SECONDS", 0.2)
    monkeypatch.setattr(locations, "_RETRY_PAUSE_SECONDS", 0.001)
    yield  # noqa: PT022 (undone behind the test)


def test_a_store_that_does_not_answer_is_not_waited_for_for_ever() -> None:
    with pytest.raises(LocationError, match="s3: it cannot be used: nobody answers"):
        Location("s3", Remote(AWAY)).start()


def test_a_store_that_answers_late_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locations, "_FIRST_ANSWER_SECONDS", 30)
    store = Remote(AWAY)
    location = Location("s3", store)
    threading.Timer(0.05, lambda: store.tell(None)).start()
    location.start()


def test_a_refusal_is_not_waited_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locations, "_FIRST_ANSWER_SECONDS", 10_000)
    with pytest.raises(LocationError, match="the keys are refused"):
        Location("s3", Remote(REFUSED)).start()


def test_a_store_that_goes_away_is_waited_for_and_then_given_up() -> None:
    store = Remote(None)
    location = Location("s3", store)
    location.start()
    assert location.wait()
    store.tell(AWAY)
    with pytest.raises(Stopped, match="s3: it cannot be used any more: nobody answers"):
        location.wait()
    store.tell(None)
    assert location.wait()


def test_there_is_nothing_to_wait_for_where_a_disk_failed() -> None:
    local = Location("data", MemoryStore())
    local.start()
    remote = Location("s3", Remote(None))
    remote.start()
    assert not local.wait()
    assert not Every([local, local]).wait()
    assert Every([local, remote]).wait()


def bucket(prefix: str, name: str = "one", endpoint: str = "here:1") -> Location:
    options = S3Options(endpoint=endpoint, bucket=name, access_key="", secret_key="", prefix=prefix)
    return Location(f"{name}/{prefix}", MemoryStore(), Where(f"{name}/{prefix}", bucket=options))


def test_a_part_of_a_bucket_is_not_copied_into_itself() -> None:
    for source, target in ((bucket(""), bucket("backup/")), (bucket("a/b/"), bucket("a/"))):
        with pytest.raises(LocationError, match="lies in the other one"):
            check_different(source, target)
    check_different(bucket("a/"), bucket("b/"))
    check_different(bucket(""), bucket("backup/", name="two"))
    check_different(bucket(""), bucket("backup/", endpoint="there:1"))


def test_one_store_under_two_names_is_refused() -> None:
    with pytest.raises(LocationError, match="are the same store"):
        check_different(Location("a", Remote(None)), Location("b", Remote(None)))


def test_a_file_of_settings_stands_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_text("drain_seconds = 1\n")
    monkeypatch.setenv("HOLDFAST_DRAIN_SECONDS", "2")
    monkeypatch.setenv("HOLDFAST_CONFIG", str(tmp_path / "none.toml"))
    assert config.load_file(file).drain_seconds == 1
    assert config.load_file(None).drain_seconds == 30
    with pytest.raises(ConfigError, match=r"none\.toml"):
        config.load_file(tmp_path / "none.toml")


def test_what_an_s3_section_leaves_out_is_looked_for_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_text('[s3]\nbucket = "holdfast"\nregion = "eu-west-1"\n')
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "MINIO_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOLDFAST_S3__BUCKET", "another")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    options = config.load_file(file).s3_options
    assert options is not None
    assert (options.bucket, options.access_key, options.secret_key) == ("holdfast", "key", "secret")


def test_whether_a_data_directory_is_new_is_told_without_making_it(tmp_path: Path) -> None:
    assert is_new(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    assert is_new(tmp_path / "empty")
    assert list((tmp_path / "empty").iterdir()) == []
    open_data_directory(tmp_path / "ours")
    assert not is_new(tmp_path / "ours")
    (tmp_path / "file").touch()
    for foreign in (tmp_path, tmp_path / "file"):
        with pytest.raises(DataDirectoryError):
            is_new(foreign)
    assert not (tmp_path / "missing").exists()
