"""Settings: flags over variables over the file over defaults, and clear errors."""

from pathlib import Path

import pytest

from holdfast_server import config
from holdfast_server.config import ConfigError


@pytest.fixture(autouse=True)
def _no_settings_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in config.unknown_variables():
        monkeypatch.delenv(name)


def test_without_anything_it_is_memory_on_loopback() -> None:
    settings = config.load({})
    assert settings.listen == ("127.0.0.1:4653",)
    assert settings.http == "127.0.0.1:4654"
    assert settings.backend_of(settings.blob_store.backend) == "memory"


def test_a_data_directory_means_the_filesystem_unless_a_service_names_another(tmp_path: Path) -> None:
    settings = config.load({"data_dir": tmp_path})
    assert settings.backend_of(None) == "filesystem"
    assert settings.backend_of("memory") == "memory"


def test_the_spool_is_in_the_data_directory_or_where_the_system_has_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config.load({}).spool_dir is None
    assert config.load({"data_dir": tmp_path}).spool_dir == tmp_path / "spool"
    assert config.load({}).spool_max_bytes == 4 << 30
    monkeypatch.setenv("HOLDFAST_SPOOL_DIR", "")
    assert config.load({"data_dir": tmp_path}).spool_dir == tmp_path / "spool"
    monkeypatch.setenv("HOLDFAST_SPOOL_DIR", "/elsewhere")
    assert config.load({"data_dir": tmp_path}).spool_dir == Path("/elsewhere")


def test_the_key_ring_is_in_the_data_directory_or_where_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config.load({}).checkpoint_store.key_ring is None
    assert config.load({"data_dir": tmp_path}).checkpoint_store.key_ring == tmp_path / "keys.json"
    monkeypatch.setenv("HOLDFAST_CHECKPOINT_STORE__KEY_RING", "")
    assert config.load({"data_dir": tmp_path}).checkpoint_store.key_ring == tmp_path / "keys.json"
    monkeypatch.setenv("HOLDFAST_CHECKPOINT_STORE__KEY_RING", "/run/secrets/keys.json")
    for flags in ({}, {"data_dir": tmp_path}):
        settings = config.load(flags)
        assert settings.checkpoint_store.key_ring == Path("/run/secrets/keys.json")
        assert settings.checkpoint_store.enabled


def test_checkpoints_have_a_backend_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_CHECKPOINT_STORE__BACKEND", "memory")
    settings = config.load({"data_dir": tmp_path})
    assert settings.backend_of(settings.checkpoint_store.backend) == "memory"
    assert settings.backend_of(settings.blob_store.backend) == "filesystem"


def test_checkpoints_may_be_kept_for_ten_years(monkeypatch: pytest.MonkeyPatch) -> None:
    ten_years = 10 * 365.2 * 86_400
    monkeypatch.setenv("HOLDFAST_CHECKPOINT_STORE__KEEP_SECONDS", str(ten_years))
    monkeypatch.setenv("HOLDFAST_CHECKPOINT_STORE__TOMBSTONE_SECONDS", str(ten_years))
    settings = config.load({}).checkpoint_store
    assert (settings.keep_seconds, settings.tombstone_seconds) == (ten_years, ten_years)


def test_a_default_is_shown_with_all_its_digits() -> None:
    shown = {setting.name: setting.default for setting in config.describe()}
    assert shown["checkpoint_store.tombstone_seconds"] == "1209600"
    assert shown["checkpoint_store.watch_interval_seconds"] == "5"


def test_flags_win_over_variables_and_variables_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_text('http = "127.0.0.1:1"\ndrain_seconds = 1\nlog_level = "error"\n[memory]\nmax_bytes = 5000\n')
    monkeypatch.setenv("HOLDFAST_HTTP", "127.0.0.1:2")
    monkeypatch.setenv("HOLDFAST_DRAIN_SECONDS", "2")
    settings = config.load({"http": "127.0.0.1:3"}, file)
    assert (settings.http, settings.drain_seconds, settings.log_level) == ("127.0.0.1:3", 2, "error")
    assert settings.memory.max_bytes == 5000


def test_sections_are_reached_by_two_underscores_and_merge_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_text("[rpc]\nmax_concurrent_calls = 7\nkeepalive_seconds = 8\n")
    monkeypatch.setenv("HOLDFAST_RPC__KEEPALIVE_SECONDS", "9")
    monkeypatch.setenv("HOLDFAST_CONFIG", str(file))
    settings = config.load({})
    assert (settings.rpc.max_concurrent_calls, settings.rpc.keepalive_seconds) == (7, 9)


def test_lists_are_separated_by_commas_in_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_LISTEN", "127.0.0.1:0, unix:/run/holdfast.sock")
    assert config.load({}).listen == ("127.0.0.1:0", "unix:/run/holdfast.sock")


@pytest.mark.parametrize(
    ("name", "value", "names"),
    [
        ("HOLDFAST_LISTEN", "nonsense", "listen"),
        ("HOLDFAST_LISTEN", "127.0.0.1:99999", "listen"),
        ("HOLDFAST_LISTEN", "", "listen"),
        ("HOLDFAST_HTTP", ":80", "http"),
        ("HOLDFAST_DRAIN_SECONDS", "-1", "drain_seconds"),
        ("HOLDFAST_RPC__MAX_CONCURRENT_CALLS", "0", "rpc.max_concurrent_calls"),
        ("HOLDFAST_BLOB_STORE__MAX_BLOB_BYTES", "0", "blob_store.max_blob_bytes"),
        ("HOLDFAST_ALLOCATOR__ARENAS", "0", "allocator.arenas"),
        ("HOLDFAST_RPC__KEEPALIVE_SECONDS", "0", "rpc.keepalive_seconds"),
        ("HOLDFAST_FILESYSTEM__LOCK_TIMEOUT_SECONDS", "86401", "filesystem.lock_timeout_seconds"),
        ("HOLDFAST_BLOB_STORE__BACKEND", "tape", "blob_store.backend"),
        ("HOLDFAST_BLOB_STORE__BACKEND", "filesystem", "data_dir"),
        ("HOLDFAST_BLOB_STORE__BACKEND", "s3", "blob_store.backend: 's3' needs"),
        ("HOLDFAST_BLOB_STORE__COLOUR", "red", "blob_store.colour"),
        ("HOLDFAST_CHECKPOINT_STORE__BACKEND", "tape", "checkpoint_store.backend"),
        ("HOLDFAST_CHECKPOINT_STORE__BACKEND", "filesystem", "checkpoint_store.backend: 'filesystem' needs data_dir"),
        ("HOLDFAST_CHECKPOINT_STORE__BACKEND", "s3", "checkpoint_store.backend: 's3' needs"),
        ("HOLDFAST_CHECKPOINT_STORE__MAX_CHECKPOINT_BYTES", "0", "checkpoint_store.max_checkpoint_bytes"),
        ("HOLDFAST_CHECKPOINT_STORE__LOAD_MEMORY_BYTES", "-1", "checkpoint_store.load_memory_bytes"),
        ("HOLDFAST_CHECKPOINT_STORE__KEEP_LAST", "-1", "checkpoint_store.keep_last"),
        ("HOLDFAST_CHECKPOINT_STORE__KEEP_SECONDS", "316000000", "checkpoint_store.keep_seconds"),
        ("HOLDFAST_CHECKPOINT_STORE__TOMBSTONE_SECONDS", "-1", "checkpoint_store.tombstone_seconds"),
        ("HOLDFAST_CHECKPOINT_STORE__WATCH_INTERVAL_SECONDS", "0", "checkpoint_store.watch_interval_seconds"),
        ("HOLDFAST_CHECKPOINT_STORE__PRUNE_INTERVAL_SECONDS", "0", "checkpoint_store.prune_interval_seconds"),
        ("HOLDFAST_BLOB_STORE", "red", "blob_store"),
        ("HOLDFAST_SPOOL_MAX_BYTES", "0", "spool_max_bytes"),
        ("HOLDFAST_CONFIG", "/no/such/file.toml", "file.toml"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, names: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=names.replace(".", r"\.")):
        config.load({})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no toml", "config file {} is not TOML: Expected '=' after a key in a key/value pair (at line 1, column 4)"),
        ("colour = 'red'", "unknown setting colour (in {})"),
        ("[rpc]\ncolour = 'red'", "unknown setting rpc.colour (in {})"),
        ("[rpc]\nmax_concurrent_calls = 0", "setting rpc.max_concurrent_calls: Input should be {} (in {})"),
        ("listen = ['a:1', 'red']", "setting listen: 'red' is not host:port (in {})"),
        ("blob_store = 'red'", "setting blob_store: Input should be a valid dictionary or {} (in {})"),
        ("[s3]\nbucket = 'b'", "setting s3.bucket: 'b' is not a bucket's name: {} (in {})"),
        ("[blob_store]\nbackend = 's3'", "setting blob_store.backend: 's3' needs {} (in {})"),
    ],
)
def test_a_wrong_file_is_refused_by_its_name(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_text(content)
    with pytest.raises(ConfigError) as refused:
        config.load({}, file)
    first, *_, last = message.split("{}")
    assert str(refused.value).startswith(first)
    assert str(refused.value).endswith(f"{file}{last}")


def test_a_file_that_is_no_text_or_cannot_be_read_is_refused_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=f"^config file {file} is not TOML: "):
        config.load({}, file)
    with pytest.raises(ConfigError, match=f"^config file {tmp_path} cannot be read: Is a directory$"):
        config.load({}, tmp_path)


def test_a_wrong_value_is_told_with_where_it_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_text("http = 'of the file'\ndrain_seconds = -1")
    monkeypatch.setenv("holdfast_http", "of the variable")
    for flags, message in (
        ({"http": "of the flag"}, "setting http: 'of the flag' is not host:port (option --http)"),
        ({}, "setting http: 'of the variable' is not host:port (variable HOLDFAST_HTTP)"),
    ):
        with pytest.raises(ConfigError) as refused:
            config.load(flags, file)
        assert str(refused.value) == message
    with pytest.raises(ConfigError) as refused:
        config.load_file(file)
    assert str(refused.value) == f"setting http: 'of the file' is not host:port (in {file})"


def test_a_variable_with_a_section_and_no_object_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_BLOB_STORE", "red")
    with pytest.raises(ConfigError) as refused:
        config.load({})
    assert (
        str(refused.value) == "setting blob_store: it is a section, and no JSON object (variable HOLDFAST_BLOB_STORE)"
    )


def test_unknown_variables_are_told_and_known_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_LISTEN", "127.0.0.1:0")
    monkeypatch.setenv("HOLDFAST_RPC__KEEPALIVE_SECONDS", "9")
    monkeypatch.setenv("HOLDFAST_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("HOLDFAST_LISTN", "typo")
    assert config.unknown_variables() == ["HOLDFAST_LISTN", "HOLDFAST_SERVICE_HOST"]


def test_settings_are_frozen() -> None:
    settings = config.load({})
    with pytest.raises(ValueError, match="frozen"):
        settings.http = "elsewhere"
