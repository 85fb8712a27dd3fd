"""The image: its Dockerfile's instructions are carried out without a Docker engine, and what comes of them is run."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import holdfast
from holdfast_server.health_command import DEFAULT_TIMEOUT_SECONDS
from tests.support.build_contexts import Ignored, files
from tests.support.containers import Container
from tests.support.dockerfiles import Stage, read
from tests.support.images import Image
from tests.support.ports import held_port
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
BUILD, FINAL = read(ROOT / "Dockerfile")
DOCKERFILES = {"holdfast": ROOT / "Dockerfile", "minio": ROOT / "compose/minio.Dockerfile"}
ENVIRONMENT = "/opt/holdfast"

pytestmark = pytest.mark.timeout(900)


@contextmanager
def serving(image: Image, data: Path, **settings: str) -> Iterator[tuple[Container, str]]:
    """Run a container with `/data` in a directory that stays; yield it with its address."""
    with held_port() as port, held_port() as http:
        address = f"127.0.0.1:{port}"
        own = {"HOLDFAST_LISTEN": address, "HOLDFAST_HTTP": f"127.0.0.1:{http}", **settings}
        with Container(image, image.entry(environment=own, volumes={"/data": data}, read_only=True)) as container:
            container.wait_for_log("Server ready")
            yield container, address


@pytest.fixture
def data(image: Image, tmp_path: Path) -> Path:
    """A new volume at `/data`."""
    return image.volume("/data", tmp_path / "data")


def test_the_image_serves_and_its_health_check_says_so(image: Image, data: Path) -> None:
    with serving(image, data) as (container, address):
        with holdfast.connect(address) as client:
            client.blobs.put("key", b"bytes")
            with client.blobs.get("key") as blob:
                assert blob.read() == b"bytes"
        check = container.health()
    assert (check.returncode, check.stdout) == (0, f"the server at {address} is serving\n")


def test_it_stops_by_its_signal_and_what_it_stored_is_there_again(image: Image, data: Path) -> None:
    with serving(image, data) as (container, address):
        with holdfast.connect(address) as client:
            client.blobs.put("key", b"bytes")
        assert container.stop() == 0
        assert "Server stopped all_calls_finished=True" in container.log
        check = container.health()
        assert (check.returncode, check.stdout) == (1, "")
        assert check.stderr == f"holdfast-server: the server at {address} cannot be reached\n"
    with serving(image, data) as (_, address), holdfast.connect(address) as client, client.blobs.get("key") as blob:
        assert blob.read() == b"bytes"


def test_it_is_unhealthy_while_it_drains(image: Image, data: Path) -> None:
    with serving(image, data, HOLDFAST_DRAIN_NOTICE_SECONDS="600") as (container, address):
        container.process().terminate()
        wait_until(lambda: container.health().returncode == 1)
        check = container.health()
        assert check.stderr == f"holdfast-server: the server at {address} is not serving\n"


def test_it_runs_as_process_1_of_a_user_without_rights(image: Image, data: Path) -> None:
    with serving(image, data) as (container, _):
        process = container.process()
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert 0 not in process.uids()
    assert re.search(r"^NSpid:.*\s1$", status, re.MULTILINE)
    assert set(re.findall(r"^Cap(?:Inh|Prm|Eff|Amb):\s+(\w+)$", status, re.MULTILINE)) == {"0" * 16}


def test_it_can_write_its_data_and_nothing_else(image: Image, data: Path) -> None:
    entry = image.entry(volumes={"/data": data})

    def writes(path: str) -> bool:
        code = f"import tempfile; tempfile.TemporaryFile(dir={path!r})"
        return image.tree.run(["python", "-c", code], entry).returncode == 0

    assert writes("/data")
    for path in ("/", "/opt/holdfast", "/opt/holdfast/bin", "/usr/local/bin", "/etc"):
        assert not writes(path), path


def test_nothing_of_the_build_is_in_the_image_but_the_environment(image: Image) -> None:
    assert image.copied == [(ENVIRONMENT, ENVIRONMENT)]
    assert not [name for name in ("src", "wheels") if image.tree.at(name).exists()]
    top = {path.name for path in image.tree.directory.iterdir() if path.is_dir() and any(path.iterdir())}
    assert top - {"root"} <= {
        "opt",
        "usr",
        *(machine for machine in ("bin", "sbin", "lib", "lib64", "lib32", "libx32")),
    }


def test_no_build_tools_are_in_the_image(image: Image) -> None:
    assert FINAL.base.partition(":")[2].startswith("3.11-slim")
    installers = re.compile(r"(pip|setuptools|wheel|hatchling|ensurepip|conda|uv|easy_install)([-.0-9]|$)")
    compilers = re.compile(r"(gcc|g\+\+|cc|c\+\+|clang|ld|make|cargo|rustc|go)(-[\d.]+)?$")
    found = [
        path
        for top in ("opt", "usr/local")
        for path in image.tree.at(top).rglob("*")
        if path.parent.name in {"bin", "site-packages", "python3.11"}
        and (installers.match(path.name) or compilers.match(path.name))
    ]
    assert found == []
    assert not re.search(r"apt|apk|pip install|curl|wget", " ".join(run.text for run in FINAL.all("RUN")))
    for module in ("pip", "ensurepip", "setuptools", "hatchling"):
        assert image.tree.run(["python", "-c", f"import {module}"], image.entry()).returncode == 1, module


def test_everything_that_is_fetched_is_held_to_the_constraints() -> None:
    steps = [step for run in BUILD.all("RUN") for step in run.text.split("&&") if re.search(r"\bpip\b", step)]
    fetching = [step for step in steps if "--no-deps --no-build-isolation" not in step and "venv" not in step]
    assert len(steps) > len(fetching) > 0
    assert [step for step in fetching if "--constraint constraints.txt" not in step] == []


def test_every_version_is_the_one_of_the_constraints(image: Image) -> None:
    named = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    tested = {normal(name): version for name, version in named.items()}
    listed = "from importlib.metadata import distributions as d; [print(one.name, one.version) for one in d()]"
    done = image.tree.run(["python", "-c", listed], image.entry())
    installed = {normal(name): version for name, version in map(str.split, done.stdout.splitlines())}
    assert "grpcio" in installed
    assert {name for name, version in installed.items() if tested.get(name) != version} == {"holdfast"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_health_check_compiles_nothing(image: Image) -> None:
    code = (
        "import os, sys; from holdfast_server import health_command\n"
        "specs = [module.__spec__ for module in sys.modules.values() if getattr(module, '__spec__', None)]\n"
        "compiled = [s for s in specs if s.has_location and s.origin.endswith('.py')]\n"
        "print(len(compiled), [s.name for s in compiled if not os.path.exists(s.cached)])"
    )
    done = image.tree.run(["python", "-c", code], image.entry())
    count, _, missing = done.stdout.strip().partition(" ")
    assert int(count) > 100, done.stderr
    assert missing == "[]"


def test_the_image_says_what_a_runtime_needs_to_know(image: Image) -> None:
    uid, gid = (int(number) for number in image.user.split(":"))
    assert uid >= 10_000 <= gid
    assert image.command == ["holdfast-server", "serve"]
    assert FINAL.last("STOPSIGNAL").text == "SIGTERM"
    assert FINAL.last("VOLUME").words() == ["/data"]
    assert image.environment["HOLDFAST_DATA_DIR"] == "/data"
    ports = [image.environment[name].removeprefix("0.0.0.0:") for name in ("HOLDFAST_LISTEN", "HOLDFAST_HTTP")]
    assert FINAL.last("EXPOSE").words() == ports == ["4653", "4654"]
    assert FINAL.health_command() == ["holdfast-server", "health"]
    for stage in (BUILD, FINAL):
        assert stage.base == BUILD.base
    label = FINAL.last("LABEL").assignments({})
    assert all(name.startswith("org.opencontainers.image.") for name in label)
    # The check's own time-out ends first: so its line is what the runtime keeps.
    assert float(FINAL.last("HEALTHCHECK").flags["timeout"].removesuffix("s")) > DEFAULT_TIMEOUT_SECONDS + 1


@pytest.mark.parametrize("path", DOCKERFILES.values(), ids=DOCKERFILES)
def test_a_dockerfile_names_versions_and_no_registry(path: Path) -> None:
    stages: list[Stage] = read(path)
    for stage in stages:
        name, _, tag = stage.base.partition(":")
        assert "/" not in name
        assert re.fullmatch(r"(\d[\d.]*-)?(slim-)?trixie(-slim)?", tag), stage.base
    assert "slim" in stages[-1].base
    assert stages[-1].last("USER").text == "10001:10001"


KEPT = (
    "pyproject.toml",
    "constraints.txt",
    "README.md",
    "server/holdfast_server/app.py",
    "clients/python/holdfast/v1/server_pb2.py",
)
SECRET = (
    ".git/config",
    ".venv/bin/python",
    ".env",
    "data/objects/tree/a",
    "minio/x",
    "id_rsa",
    "secret_key",
    "compose/minio.Dockerfile",
    "tests/conftest.py",
    "server/.env",
    "server/data/a",
    "server/holdfast_server/__pycache__/app.cpython-311.pyc",
    "server/holdfast_server/objects/old.pyc",
    "clients/python/.venv/bin/python",
    "clients/python/holdfast.egg-info/PKG-INFO",
    "clients/go/holdfast.go",
    ".mypy_cache/x.json",
)


def test_the_build_context_has_what_is_built_and_nothing_else() -> None:
    ignored = Ignored((ROOT / ".dockerignore").read_text())
    assert [path for path in KEPT if path in ignored] == []
    assert [path for path in SECRET if path not in ignored] == []
    tops = {path.split("/holdfast")[0] for path in files(ROOT, ignored)}
    assert tops == {"pyproject.toml", "constraints.txt", "README.md", "server", "clients/python"}
