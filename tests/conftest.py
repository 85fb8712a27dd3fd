"""Fixtures for all tests. `tests/README.md` is the map."""

import os
import secrets
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings

from tests.support import s3_met
from tests.support.s3_servers import MinioServer, MotoServer, RcloneServer, S3Server
from tests.support.server_process import ServerProcess

_Kind = TypeVar("_Kind", bound=S3Server)

_OUTPUT_LINES = 100

# No example is too slow on a machine that others use, and each run tries the same ones: none is refused by bad luck.
# Who looks for longer, with the variables that the models have for that, tries others each time.
settings.register_profile(
    "holdfast",
    deadline=None,
    derandomize=not any(name.endswith("_MODEL_EXAMPLES") for name in os.environ),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("holdfast")

# What is started in the background by a shell ignores it, and hands that on: the processes that tests interrupt, too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["memory", "filesystem"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerProcess]:
    """A real server process on each backend."""
    with ServerProcess(tmp_path / "data" if request.param == "filesystem" else None) as process:
        yield process


@pytest.fixture
def filesystem_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A real server process on a directory of its own: `tmp_path / "data"`."""
    with ServerProcess(tmp_path / "data") as process:
        yield process


def _running(kind: type[_Kind]) -> Iterator[_Kind]:
    s3_met.require(kind)
    with kind() as process:
        yield process


@pytest.fixture(scope="session")
def moto() -> Iterator[MotoServer]:
    """moto, shared by the tests of a worker. Who stops a server starts one of their own."""
    yield from _running(MotoServer)


@pytest.fixture(scope="session")
def minio() -> Iterator[MinioServer]:
    """MinIO, shared likewise."""
    yield from _running(MinioServer)


@pytest.fixture(scope="session")
def rclone() -> Iterator[RcloneServer]:
    """rclone, shared likewise."""
    yield from _running(RcloneServer)


@pytest.fixture(params=[kind.name for kind in s3_met.KINDS])
def s3_server(request: pytest.FixtureRequest) -> S3Server:
    """Each of the shared S3 servers."""
    shared: S3Server = request.getfixturevalue(request.param)
    return shared


@pytest.fixture
def fresh_bucket() -> Iterator[Callable[[S3Server], str]]:
    """What makes an empty bucket on an S3 server, and returns its name."""
    made: list[tuple[S3Server, str]] = []

    def make(on: S3Server) -> str:
        name = f"test-{secrets.token_hex(8)}"
        on.make_bucket(name)
        made.append((on, name))
        return name

    yield make
    for on, name in made:
        on.empty_bucket(name)  # moto and rclone keep all that they have in memory.


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Keep tests together that share what takes long to make."""
    from tests.support.distribution import Scheduling  # noqa: PLC0415 (xdist may be switched off)

    return Scheduling(config, log) if config.getoption("dist") == "loadgroup" else None


def pytest_report_header() -> str:
    """Say which S3 servers there are. Only the controller of a distributed run has a header and a summary."""
    return s3_met.line()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say it again at the end, where it is read."""
    complete = not s3_met.missing()
    terminalreporter.write_sep("=", s3_met.line(), green=complete, red=not complete, bold=not complete)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the S3 servers of a failed test have printed."""
    report = yield
    if report.failed and call.when == "call" and isinstance(item, pytest.Function):
        for server in item.funcargs.values():
            if isinstance(server, S3Server):
                output = "\n".join(server.output.splitlines()[-_OUTPUT_LINES:])
                report.sections.append((f"Output of {server.name}", output))
    return report
