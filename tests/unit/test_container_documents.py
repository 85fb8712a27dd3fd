"""What the documents say of containers: the pod's settings are ones that there are, and its times go together."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from holdfast_server import config
from tests.support.dockerfiles import read
from tests.support.documents import blocks

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
OPERATIONS = (ROOT / "docs/operations.md").read_text()
FINAL = read(ROOT / "Dockerfile")[-1]
UID = int(FINAL.last("USER").text.split(":")[0])


@pytest.fixture
def pod() -> Any:
    """The pod's specification in the documents."""
    (block,) = [block for block in blocks(OPERATIONS, "yaml") if "initContainers" in block]
    return yaml.safe_load(block)


def test_the_pods_variables_are_ones_that_the_server_knows(pod: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (sidecar,) = pod["initContainers"]
    environment = {each["name"]: each["value"] for each in sidecar["env"]}
    assert set(environment) <= {setting.variable for setting in config.describe()}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = config.load({})
    assert settings.listen == ("127.0.0.1:4653",)
    assert settings.http == "0.0.0.0:4654"
    assert pod["terminationGracePeriodSeconds"] > settings.drain_seconds + settings.drain_notice_seconds


def test_the_pods_probes_ask_pages_that_there_are_where_they_are(pod: Any) -> None:
    (sidecar,) = pod["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    asked = {name: sidecar[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    ready, alive = ({"path": path, "port": 4654} for path in ("/readyz", "/healthz"))
    assert asked == {"startup": ready, "readiness": ready, "liveness": alive}
    assert sidecar["ports"][0]["containerPort"] == 4654


def test_the_pod_confines_the_sidecar_and_lends_it_its_volume(pod: Any) -> None:
    (sidecar,) = pod["initContainers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["fsGroup"] == UID
    assert sidecar["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    (mount,) = sidecar["volumeMounts"]
    assert FINAL.last("VOLUME").words() == [mount["mountPath"]]
    assert [volume["name"] for volume in pod["volumes"]] == [mount["name"]]


@pytest.mark.parametrize("document", [README, OPERATIONS], ids=["README", "operations"])
def test_documents_publish_ports_on_the_loopback_only(document: str) -> None:
    (command,) = [line for line in document.splitlines() if line.startswith("docker run")]
    published = [word for word in command.split() if word.count(":") >= 1 and word[0].isdigit()]
    assert published == ["127.0.0.1:4653:4653", "127.0.0.1:4654:4654"]
    assert command.endswith("--volume holdfast:/data holdfast")


def test_documents_name_the_user_of_the_image() -> None:
    assert f"uid and gid {UID}" in OPERATIONS
