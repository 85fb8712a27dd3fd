"""`compose.yaml`: what it says, and what comes of it when its services are run without a Docker engine."""

import re
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from minio import Minio
from minio.error import S3Error

import holdfast
from holdfast_server import config
from tests.support import s3_met
from tests.support.compositions import Composition, unescaped
from tests.support.containers import Container
from tests.support.dockerfiles import Instruction, read
from tests.support.file_trees import FileTree
from tests.support.images import Builder, Image
from tests.support.ports import held_port
from tests.support.s3_servers import MinioServer
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "compose.yaml").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
MINIO_DOCKERFILE = ROOT / "compose/minio.Dockerfile"
SERVICES: Mapping[str, Any] = Composition(ROOT / "compose.yaml", Path()).services

SECONDS = 120
"""For what comes about by itself."""

pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    uid, gid = service["user"].split(":")
    assert int(uid) > 0 < int(gid)
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    for word in ("privileged", "cap_add", "devices", "pid", "ipc", "userns_mode", "network"):
        assert word not in service
    assert all(mount.split(":")[0].isalpha() for mount in service["volumes"]), "no directory of the host"


def test_only_holdfast_is_published_and_only_on_the_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"holdfast": ["127.0.0.1:4653:4653", "127.0.0.1:4654:4654"]}
    assert SERVICES["keys"]["network_mode"] == SERVICES["ring"]["network_mode"] == "none"


def test_services_wait_for_those_that_they_need() -> None:
    made, healthy = ({"condition": f"service_{state}"} for state in ("completed_successfully", "healthy"))
    assert SERVICES["minio"]["depends_on"] == {"keys": made}
    assert SERVICES["holdfast"]["depends_on"] == {"keys": made, "ring": made, "minio": healthy}
    assert SERVICES["minio"]["healthcheck"]["test"][0] == "CMD"


def test_no_secret_stands_in_the_file() -> None:
    for service in SERVICES.values():
        for variable, value in service.get("environment", {}).items():
            if re.search("SECRET|PASSWORD|TOKEN", variable):
                assert variable.endswith("_FILE")
                assert value == "/keys/secret_key"
    long = re.findall(r"[\w+/=-]{16,}", TEXT)
    assert [word for word in long if re.search(r"\d", word) and not word.isupper()] == []


def test_the_variables_are_ones_that_the_server_knows() -> None:
    known = {setting.variable for setting in config.describe()}
    assert set(SERVICES["holdfast"]["environment"]) <= known
    assert SERVICES["holdfast"]["environment"]["HOLDFAST_S3__ENDPOINT"] == "http://minio:9000"


def test_calls_at_work_have_the_time_that_the_server_gives_them() -> None:
    grace = float(SERVICES["holdfast"]["stop_grace_period"].removesuffix("s"))
    assert grace > config.Settings.model_fields["drain_seconds"].default + 5


def test_minio_is_the_version_of_the_makefile() -> None:
    (makefiles,) = re.findall(r"^MINIO_VERSION := (\S+)$", MAKEFILE, re.MULTILINE)
    build, _final = read(MINIO_DOCKERFILE)
    assert build.last("ARG").assignments({}) == {"MINIO_VERSION": makefiles}
    assert "go install github.com/minio/minio@$MINIO_VERSION" in build.last("RUN").text
    assert "go install github.com/minio/minio@$(MINIO_VERSION)" in MAKEFILE
    assert SERVICES["minio"]["build"] == {"context": "compose", "dockerfile": "minio.Dockerfile"}


def minio_from_make(instruction: Instruction, tree: FileTree) -> bool:
    """Stand in for minutes of `go install` with what `make s3-server` has built by the same command."""
    if "go install" not in instruction.text:
        return False
    tree.at("/out").mkdir()
    shutil.copy2(MinioServer.built, tree.at("/out/minio"))
    return True


@pytest.fixture(scope="module")
def minio_image(namespace: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    s3_met.require(MinioServer)
    builder = Builder(MINIO_DOCKERFILE, MINIO_DOCKERFILE.parent, tmp_path_factory.mktemp("minio"), minio_from_make)
    yield builder.image
    builder.remove()


class Composed:
    """The services of the composition, one by one, on free ports of the loopback."""

    def __init__(self, image: Image, minio_image: Image, folder: Path, ports: Sequence[int]) -> None:
        self.composition = Composition(ROOT / "compose.yaml", folder)
        self._image = image
        self._minio_image = minio_image
        self._minio_address, self.address, self._http = (f"127.0.0.1:{port}" for port in ports)

    def key(self) -> str:
        """Run the service `keys` to its end, and return what it made."""
        entry = self.composition.entry("keys", self._image, environment={})
        done = self._image.tree.run(self.composition.command("keys", self._image), entry)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        (made,) = entry.volumes["/data"].iterdir()
        assert made.name == "secret_key"
        assert stat.S_IMODE(made.stat().st_mode) == 0o600
        return made.read_text()

    def ring(self) -> bytes:
        """Run the service `ring` to its end, and return the key ring that it made."""
        entry = self.composition.entry("ring", self._image, environment={})
        assert self._image.tree.run(self.composition.command("ring", self._image), entry).returncode == 0
        made = entry.volumes["/data"] / "keys.json"
        assert stat.S_IMODE(made.stat().st_mode) == 0o600
        return made.read_bytes()

    def minio(self) -> Container:
        """Start MinIO; it is not waited for."""
        command = self.composition.command("minio", self._minio_image)
        assert command.count(":9000") == 1
        here = [self._minio_address if part == ":9000" else part for part in command]
        # With the tools of its base, for the health check.
        entry = self.composition.entry("minio", self._minio_image, environment={}, tools=True)
        return Container(self._minio_image, entry, here)

    def minio_health(self, container: Container) -> int:
        """Run the health check of MinIO, and return its exit code."""
        _cmd, *test = self.composition.services["minio"]["healthcheck"]["test"]
        host, port = self._minio_address.split(":")
        assert any(f"{host}/9000" in part for part in test)
        return container.run([unescaped(part).replace(f"{host}/9000", f"{host}/{port}") for part in test]).returncode

    def holdfast(self) -> Container:
        """Start Holdfast; it is not waited for."""
        here = {
            "HOLDFAST_LISTEN": self.address,
            "HOLDFAST_HTTP": self._http,
            "HOLDFAST_S3__ENDPOINT": f"http://{self._minio_address}",
        }
        entry = self.composition.entry("holdfast", self._image, environment=here)
        return Container(self._image, entry, self.composition.command("holdfast", self._image))

    def client(self, key: str) -> Minio:
        """Return a client of MinIO."""
        return Minio(self._minio_address, access_key="holdfast", secret_key=key, secure=False, region="us-east-1")


@pytest.fixture
def composed(image: Image, minio_image: Image, tmp_path: Path) -> Iterator[Composed]:
    with held_port() as one, held_port() as two, held_port() as three:
        yield Composed(image, minio_image, tmp_path / "volumes", (one, two, three))


def test_the_key_is_made_once_and_differs_from_any_other(
    composed: Composed, image: Image, minio_image: Image, tmp_path: Path
) -> None:
    key = composed.key()
    assert re.fullmatch(r"[0-9a-f]{40}", key)
    assert composed.key() == key
    assert Composed(image, minio_image, tmp_path / "others", (0, 0, 0)).key() != key


def test_the_sealing_keys_are_made_once_and_only_holdfast_sees_them(composed: Composed) -> None:
    ring = composed.ring()
    assert composed.ring() == ring
    mounted = {name: {mount.split(":")[0] for mount in service["volumes"]} for name, service in SERVICES.items()}
    assert [name for name, volumes in mounted.items() if "data" in volumes] == ["ring", "holdfast"]


def test_the_services_come_up_as_composed_and_keep_what_was_put(composed: Composed, image: Image) -> None:
    key, ring = composed.key(), composed.ring()
    with composed.minio() as minio:
        wait_until(lambda: composed.minio_health(minio) == 0, SECONDS)
        with composed.holdfast() as server:
            server.wait_for_log("Server ready")
            assert server.health().returncode == 0
            with holdfast.connect(composed.address) as client:
                client.blobs.put("key", b"bytes")
                client.checkpoints.save("arena", 0, b"state")
            listed = composed.client(key).list_objects("holdfast", recursive=True)
            assert any("key" in str(item.object_name) for item in listed)
            assert server.stop() == 0
            assert key not in server.log + minio.log
        with pytest.raises(S3Error) as refusal:
            composed.client("minioadmin").list_buckets()
        assert refusal.value.code == "SignatureDoesNotMatch"
    assert (composed.key(), composed.ring()) == (key, ring)
    with composed.minio() as minio, composed.holdfast() as server:
        server.wait_for_log("Server ready")
        with holdfast.connect(composed.address) as client, client.blobs.get("key") as blob:
            assert blob.read() == b"bytes"
            with client.checkpoints.load("arena") as state:
                assert state.read() == b"state"
        minio.process().kill()
        wait_until(lambda: composed.minio_health(minio) != 0, SECONDS)


def test_no_secret_is_in_a_variable(composed: Composed, image: Image) -> None:
    key = composed.key()
    for name in ("minio", "holdfast"):
        entry = composed.composition.entry(name, image, environment={})
        assert key not in " ".join(entry.environment.values())
        assert entry.modes["/keys"] == "ro"
