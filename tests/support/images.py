"""Images, built from Dockerfiles without a Docker engine: each stage is a file tree, each instruction is carried out.

A stage begins with what its base image has beside the machine: `python` has this interpreter in `/usr/local`, with pip
and without bytecode, as the real one; the others have nothing.
"""

import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import build_contexts
from tests.support.dockerfiles import Instruction, Stage, read
from tests.support.file_trees import Entry, FileTree

_HOME = "/root"
"""Of the user who builds, in every base image."""

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOT_IN_BASE = shutil.ignore_patterns("site-packages", "__pycache__", "test", "tests", "config-*", "idlelib", "*.a")
_NETWORK = re.compile(
    r"PIP_(\w*INDEX_URL|CERT|CLIENT_CERT|FIND_LINKS|TRUSTED_HOST|PROXY|DEFAULT_TIMEOUT|CONFIG_FILE)"
    r"|SSL_CERT_FILE|REQUESTS_CA_BUNDLE|https?_proxy|no_proxy",
    re.IGNORECASE,
)
"""The variables that say how this machine reaches packages; pip's others would change what is built."""


class BuildError(Exception):
    """A RUN failed; the message has what it said."""


@dataclass
class Image:
    """What a stage has come to."""

    stage: Stage
    tree: FileTree
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": _SYSTEM_PATH})
    user: str = "0:0"
    directory: str = "/"
    copied: list[tuple[str, str]] = field(default_factory=list)
    """What was copied from other stages, as source and target."""

    @property
    def command(self) -> list[str]:
        """What a container runs."""
        return [*self.stage.last("ENTRYPOINT").words(), *self.stage.last("CMD").words()]

    def entry(self, **changes: object) -> Entry:
        """Return how a container enters it; `environment` adds to the image's own."""
        added = changes.pop("environment", {})
        assert isinstance(added, Mapping)
        environment = {"HOME": "/", **self.environment, **added}
        return Entry(user=self.user, environment=environment, **changes)  # type: ignore[arg-type]

    def volume(self, path: str, directory: Path) -> Path:
        """Make a new volume, as Docker does: with what the image has at its path, and that one's owner."""
        directory.mkdir()
        entry = Entry(environment=self.environment, tools=True, volumes={"/new": directory})
        done = self.tree.run(["cp", "--archive", "--no-target-directory", path, "/new"], entry)
        assert done.returncode == 0, done.stderr
        return directory


class Builder:
    """Builds the images of a Dockerfile below `folder`, as root of a namespace. Raises `BuildError`, `NoNamespace`.

    `run` may carry out a RUN itself, and then returns True. pip has its ordinary cache and the settings of who calls.
    """

    def __init__(
        self,
        dockerfile: Path,
        context: Path,
        folder: Path,
        run: Callable[[Instruction, FileTree], bool] = lambda _run, _tree: False,
    ) -> None:
        self._context = context
        self._run = run
        self._images: list[Image] = []
        for number, stage in enumerate(read(dockerfile)):
            image = Image(stage, FileTree(folder / f"stage-{number}"))
            if stage.base.startswith("python:"):
                _put_python(image)
            self._images.append(image)
            for instruction in stage.instructions:
                self._carry_out(instruction, image)

    @property
    def image(self) -> Image:
        """The last stage's, which is what is tagged."""
        return self._images[-1]

    def remove(self) -> None:
        """Remove all that was built."""
        for image in self._images:
            image.tree.remove()

    def _carry_out(self, instruction: Instruction, image: Image) -> None:
        match instruction.name:
            case "ARG" | "ENV":
                image.environment |= instruction.assignments(image.environment)
            case "WORKDIR":
                image.directory = instruction.text
                image.tree.at(instruction.text).mkdir(parents=True, exist_ok=True)
            case "USER":
                image.user = instruction.text
            case "COPY":
                self._copy(instruction, image)
            case "RUN":
                if not self._run(instruction, image.tree):
                    _run(instruction, image)
            case "CMD" | "ENTRYPOINT" | "EXPOSE" | "HEALTHCHECK" | "LABEL" | "STOPSIGNAL" | "VOLUME":
                pass  # said of the image, and done by nobody
            case _:
                raise AssertionError(f"nothing here carries out {instruction}")

    def _copy(self, instruction: Instruction, image: Image) -> None:
        *sources, target = instruction.words()
        assert set(instruction.flags) <= {"from"}, instruction
        if "from" in instruction.flags:
            (image_from,) = [one for one in self._images if one.stage.name == instruction.flags["from"]]
            image.copied += [(source, target) for source in sources]
            found = [image_from.tree.at(source) for source in sources]
        else:
            found = [self._context / source for source in sources]
        place = image.tree.at(str(Path(image.directory) / target))
        for source in found:
            if source.is_dir():
                shutil.copytree(source, place, symlinks=True, dirs_exist_ok=True)
            else:
                into = place / source.name if target.endswith("/") else place
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, into)


def context_of(directory: Path, to: Path) -> Path:
    """Copy what a build is sent of a directory."""
    ignored = build_contexts.Ignored((directory / ".dockerignore").read_text())
    build_contexts.copy(directory, build_contexts.files(directory, ignored), to)
    return to


def _run(instruction: Instruction, image: Image) -> None:
    network = {name: value for name, value in os.environ.items() if _NETWORK.fullmatch(name)}
    environment = {**image.environment, **network, "HOME": "/root"}
    environment.pop("PIP_NO_CACHE_DIR", None)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pip"
    cache.mkdir(parents=True, exist_ok=True)
    lent = {f"{_HOME}/.config/pip": Path.home() / ".config/pip"}
    # What those variables name, and who resolves names, if that is not in `/etc`.
    for path in (*map(Path, network.values()), Path("/etc/resolv.conf").resolve()):
        if path.is_absolute() and path.exists() and path.parts[1] != "etc":
            folder = path if path.is_dir() else path.parent
            lent[str(folder)] = folder
    lent = {path: folder for path, folder in lent.items() if folder.is_dir()}
    entry = Entry(
        image.user, environment, {f"{_HOME}/.cache/pip": cache, **lent}, dict.fromkeys(lent, "ro"), tools=True
    )
    done = image.tree.run(["sh", "-c", f"cd {image.directory} && {instruction.text}"], entry)
    if done.returncode:
        raise BuildError(f"RUN {instruction.text}\n{done.stdout}\n{done.stderr}")


def _put_python(image: Image) -> None:
    base, version = Path(sys.base_prefix), f"python{sys.version_info.major}.{sys.version_info.minor}"
    local = image.tree.at("/usr/local")
    shutil.copytree(base / "lib" / version, local / "lib" / version, symlinks=True, ignore=_NOT_IN_BASE)
    for library in (base / "lib").glob("libpython*.so*"):
        shutil.copy2(library, local / "lib", follow_symlinks=False)
    shutil.copy2(base / "bin" / version, local / "bin" / version)
    for name in ("python", "python3"):
        (local / "bin" / name).symlink_to(version)
    # In the image the linker knows of it.
    image.environment["LD_LIBRARY_PATH"] = "/usr/local/lib"
    command = ["sh", "-c", "python -m ensurepip --default-pip && find /usr/local -name '*.pyc' -delete"]
    done = image.tree.run(command, Entry(environment=image.environment, tools=True))
    if done.returncode:
        raise BuildError(f"pip of the base: {done.stderr}")
