"""`compose.yaml`, read, and its services as containers that run without a Docker engine, on ports of the loopback."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support.file_trees import Entry
from tests.support.images import Image


class Composition:
    """A compose file. Named volumes are made below `folder`, as Docker does at their first use."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._read: dict[str, Any] = yaml.safe_load(path.read_text())
        self._folder = folder
        self._volumes: dict[str, Path] = {}

    @property
    def services(self) -> Mapping[str, Mapping[str, Any]]:
        """What is said of each service."""
        found: Mapping[str, Mapping[str, Any]] = self._read["services"]
        return found

    @property
    def volumes(self) -> Mapping[str, Any]:
        """What is said of each volume."""
        found: Mapping[str, Any] = self._read["volumes"]
        return found

    def entry(self, name: str, image: Image, *, environment: Mapping[str, str], tools: bool = False) -> Entry:
        """Return how a service's container is entered; `environment` stands in for some of its variables."""
        service = self.services[name]
        volumes, modes = {}, {}
        for mount in service["volumes"]:
            volume, path, *mode = mount.split(":")
            if volume not in self._volumes:
                self._folder.mkdir(exist_ok=True)
                assert volume in self.volumes
                self._volumes[volume] = image.volume(path, self._folder / volume)
            volumes[path], modes[path] = self._volumes[volume], mode[0] if mode else "rw"
        assert service["user"] == image.user
        return image.entry(
            environment={**service.get("environment", {}), **environment},
            volumes=volumes,
            modes=modes,
            read_only=service["read_only"],
            tools=tools,
        )

    def command(self, name: str, image: Image) -> list[str]:
        """Return what a service runs."""
        service = self.services[name]
        own = [unescaped(part) for part in service.get("command", [])]
        start = service.get("entrypoint") or image.stage.last("ENTRYPOINT").words()
        return [*start, *(own or image.stage.last("CMD").words())]


def unescaped(text: str) -> str:
    """Return what compose makes of a text: `$$` is a dollar sign, and no other is in it."""
    assert "$" not in text.replace("$$", "")
    return text.replace("$$", "$")
