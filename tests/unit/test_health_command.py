"""Where the health check looks for its server: where a server with the same settings listens."""

from pathlib import Path

import pytest

from holdfast_server import config
from holdfast_server.health_command import DEFAULT_ADDRESS, Unhealthy, first_address, reachable
from tests.support.s3_variables import loader

ENVIRONMENTS: tuple[dict[str, str], ...] = (
    {},
    {"HOLDFAST_LISTEN": "127.0.0.1:1234"},
    {"HOLDFAST_LISTEN": "unix:/run/holdfast.sock,0.0.0.0:1234"},
    {"HOLDFAST_LISTEN": " , 0.0.0.0:1234 , 127.0.0.1:5"},
    {"holdfast_listen": "[::1]:1234"},
)
FILES = (
    "",
    'listen = ["127.0.0.1:77", "127.0.0.1:78"]',
    'listen = "127.0.0.1:77, 127.0.0.1:78"',
    'http = ""\n[rpc]\nkeepalive_seconds = 3',
)


@pytest.mark.parametrize("text", FILES)
@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("by", ["flag", "variable", "nothing"])
def test_the_address_is_the_first_that_the_settings_have(
    environment: dict[str, str], text: str, by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_text(text)
    variables = {**environment, **({"HOLDFAST_CONFIG": str(file)} if by == "variable" else {})}
    given = file if by == "flag" else None
    settings = loader(monkeypatch)(variables, given)
    assert first_address(variables, given) == settings.listen[0]


def test_the_default_is_the_servers() -> None:
    assert config.Settings.model_fields["listen"].default[0] == DEFAULT_ADDRESS


@pytest.mark.parametrize(
    ("listen", "called"),
    [
        ("127.0.0.1:4653", "127.0.0.1:4653"),
        ("0.0.0.0:4653", "127.0.0.1:4653"),
        ("[::]:4653", "127.0.0.1:4653"),
        ("[::0]:4653", "127.0.0.1:4653"),
        ("[::1]:4653", "[::1]:4653"),
        ("10.0.0.7:4653", "10.0.0.7:4653"),
        ("storage.example:4653", "storage.example:4653"),
        ("unix:/run/holdfast.sock", "unix:/run/holdfast.sock"),
        ("unix:relative.sock", "unix:relative.sock"),
    ],
)
def test_a_server_that_listens_everywhere_is_called_on_the_loopback(listen: str, called: str) -> None:
    assert reachable(listen) == called


@pytest.mark.parametrize("address", ["", "4653", ":4653", "localhost:", "unix:", "a\nb:1"])
def test_what_is_no_address_is_refused_by_name(address: str) -> None:
    with pytest.raises(Unhealthy, match="is neither host:port nor unix:/path") as caught:
        reachable(address)
    assert repr(address) in str(caught.value)


def test_a_free_port_cannot_be_known() -> None:
    with pytest.raises(Unhealthy, match="name the one from its log with --address"):
        reachable("127.0.0.1:0")


@pytest.mark.parametrize("text", ["listen = 7", "listen = []", "listen = [7]", 'listen = ","'])
def test_settings_without_an_address_are_no_healthy_server(text: str, tmp_path: Path) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_text(text)
    with pytest.raises(Unhealthy, match="setting listen: it names no address"):
        first_address({}, file)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "holdfast.toml"
    with pytest.raises(Unhealthy, match=r"holdfast\.toml cannot be read: No such file or directory"):
        first_address({}, file)
    file.write_text("listen = [")
    with pytest.raises(Unhealthy, match=r"holdfast\.toml is not TOML"):
        first_address({"HOLDFAST_CONFIG": str(file)})
    file.write_bytes(b"\xff")
    with pytest.raises(Unhealthy, match=r"holdfast\.toml is not TOML"):
        first_address({"HOLDFAST_CONFIG": str(file)})
