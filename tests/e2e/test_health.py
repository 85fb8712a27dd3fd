"""The command `holdfast-server health`, as a container runtime runs it: an exit code, and one line."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from holdfast_server.cli import cli
from tests.support.documents import blocks, form, run, steps
from tests.support.s3_process import WAITING
from tests.support.server_process import ServerProcess
from tests.support.waiting import wait_until

OPERATIONS = (Path(__file__).parents[2] / "docs/operations.md").read_text()
BLOB_STORE = "holdfast.v1.BlobStore"
HEAVY = ("minio", "urllib3", "prometheus_client", "pydantic_settings", "holdfast", "holdfast_server.config")
"""What `health` has no time to import."""


PATIENTLY = ("--timeout", "60")


def health(*args: str, how: Sequence[str] = PATIENTLY, **env: str) -> tuple[int, str]:
    """Run the command; return its exit code, and its line on standard output or, if it fails, on standard error."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    command = [sys.executable, "-m", "holdfast_server", "health", *how, *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env={**inherited, **env})
    said, silent = (done.stderr, done.stdout) if done.returncode else (done.stdout, done.stderr)
    assert silent == ""
    assert said.endswith("\n")
    return done.returncode, said.removesuffix("\n")


@pytest.fixture(scope="module")
def serving() -> Iterator[ServerProcess]:
    with ServerProcess() as process:
        yield process


@pytest.fixture
def closed_port() -> Iterator[str]:
    """An address where nobody listens, and nobody will."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{holder.getsockname()[1]}"


def test_a_serving_server_is_healthy(serving: ServerProcess) -> None:
    address = serving.address
    assert health("--address", address) == (0, f"the server at {address} is serving")
    assert health("--address", address, "--service", BLOB_STORE) == (0, f"{BLOB_STORE} at {address} is serving")


def test_an_unknown_service_is_not_healthy_and_named(serving: ServerProcess) -> None:
    found = health("--address", serving.address, "--service", "holdfast.v1.Nothing")
    assert found == (1, f"holdfast-server: the server at {serving.address} has no service 'holdfast.v1.Nothing'")


def test_a_server_whose_backend_is_away_is_not_serving(closed_port: str) -> None:
    env = {
        "HOLDFAST_S3__ENDPOINT": f"http://{closed_port}",
        "HOLDFAST_S3__BUCKET": "bucket",
        "HOLDFAST_S3__ACCESS_KEY": "key",
        "HOLDFAST_S3__SECRET_KEY": "secret",
    }
    with ServerProcess(env=env, ready=WAITING) as server:
        at = server.address
        assert health("--address", at) == (1, f"holdfast-server: the server at {at} is not serving")
        code, said = health("--address", at, "--service", BLOB_STORE)
        assert (code, said) == (1, f"holdfast-server: {BLOB_STORE} at {at} is not serving")
        assert health("--address", at, "--service", "holdfast.v1.Server")[0] == 0


def test_a_draining_server_is_not_serving(tmp_path: Path) -> None:
    with ServerProcess(env={"HOLDFAST_DRAIN_NOTICE_SECONDS": "600"}) as server:
        server.signal(signal.SIGTERM)
        wait_until(lambda: health("--address", server.address)[1].endswith("is not serving"))
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_a_server_that_is_not_there_cannot_be_reached(closed_port: str, tmp_path: Path) -> None:
    for address in (closed_port, f"unix:{tmp_path}/nobody.sock"):
        found = health("--address", address)
        assert found == (1, f"holdfast-server: the server at {address} cannot be reached")


def test_a_server_that_hangs_is_not_waited_for(serving: ServerProcess) -> None:
    serving.signal(signal.SIGSTOP)
    try:
        found = health("--address", serving.address, "--timeout", "0.5")
    finally:
        serving.signal(signal.SIGCONT)
    assert found == (1, f"holdfast-server: the server at {serving.address} did not answer within 0.5 s")


def test_a_listener_that_says_nothing_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        found = health("--address", address, how=())
    assert found == (1, f"holdfast-server: the server at {address} did not answer within 3 s")


def test_a_server_of_something_else_is_not_healthy(serving: ServerProcess) -> None:
    code, said = health("--address", serving.http)
    assert code == 1
    assert said.startswith(f"holdfast-server: the server at {serving.http} ")
    assert "\n" not in said


def test_a_unix_socket_is_asked(tmp_path: Path) -> None:
    listen = f"unix:{tmp_path}/holdfast.sock"
    with ServerProcess(listen=listen):
        assert health(HOLDFAST_LISTEN=listen) == (0, f"the server at {listen} is serving")
    assert health(HOLDFAST_LISTEN=listen)[0] == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]"])
def test_a_server_that_listens_everywhere_is_asked_on_the_loopback(host: str) -> None:
    if host == "[::]" and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6 beside IPv4")
    with ServerProcess(listen=f"{host}:0") as server:
        port = server.address.rpartition(":")[2]
        found = health(HOLDFAST_LISTEN=server.address)
    assert found == (0, f"the server at 127.0.0.1:{port} is serving")


def test_the_first_address_of_the_settings_is_asked(serving: ServerProcess, closed_port: str, tmp_path: Path) -> None:
    at = serving.address
    assert health(HOLDFAST_LISTEN=f"{at},{closed_port}")[0] == 0
    assert health(HOLDFAST_LISTEN=f"{closed_port},{at}")[0] == 1
    file = tmp_path / "holdfast.toml"
    file.write_text(f'listen = ["{at}"]')
    assert health("--config", str(file))[0] == 0
    assert health(HOLDFAST_CONFIG=str(file))[0] == 0
    assert health("--config", str(file), HOLDFAST_LISTEN=closed_port)[0] == 1
    assert health("--address", at, HOLDFAST_LISTEN=closed_port)[0] == 0


def test_no_proxy_stands_between(serving: ServerProcess, closed_port: str) -> None:
    proxy = f"http://{closed_port}"
    assert health("--address", serving.address, http_proxy=proxy, https_proxy=proxy, grpc_proxy=proxy)[0] == 0


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    code, said = health("--config", str(tmp_path / "none.toml"))
    assert code == 1
    assert said == f"holdfast-server: config file {tmp_path}/none.toml cannot be read: No such file or directory"


def test_what_is_no_name_is_refused_without_a_traceback() -> None:
    code, said = health("--address", "127.0.0.1:1", "--service", "\udcff")
    assert (code, said) == (1, "holdfast-server: '\\udcff' is not the name of a service")


def test_the_check_imports_nothing_that_takes_long() -> None:
    code = (
        "import sys; sys.argv[1:] = ['health', '--address', '127.0.0.1:1']\n"
        "from holdfast_server.__main__ import main\n"
        "try: main()\n"
        f"finally: print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "[]\n")


def test_the_whole_command_line_has_it_too(serving: ServerProcess) -> None:
    assert "health" in CliRunner().invoke(cli, ["--help"]).output
    assert CliRunner().invoke(cli, ["health", *PATIENTLY, "--address", serving.address]).exit_code == 0


def test_the_documented_calls_say_what_is_shown(serving: ServerProcess, tmp_path: Path) -> None:
    (block,) = [block for block in blocks(OPERATIONS, "console") if "holdfast-server health" in block]
    env = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "HOLDFAST_LISTEN": serving.address,
    }
    for step in steps(block):
        assert form(run(step.command, tmp_path, env)) == form(step.output), step.command
