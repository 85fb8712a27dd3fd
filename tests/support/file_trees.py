"""Root file systems for processes: directories that are put together and entered in a mount namespace of their own.

What makes up the machine (libraries, devices, `/etc`) is bound in from this one, read-only; the rest are plain files
below a directory. Root needs nothing else; others need user namespaces, and ids of their own for the users in it.
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

_LIBRARIES = ("/etc", "/lib", "/lib32", "/lib64", "/libx32", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/share")
_TOOLS = ("/bin", "/sbin", "/usr/bin", "/usr/sbin")
_SECONDS = 600
_NO_ENTRY = 125
"""The exit code if a mount fails, as Docker's own."""


class NoNamespace(Exception):
    """This machine gives no mount namespace with more than one user; the message says what was missing."""


@cache
def namespace_command() -> tuple[str, ...]:
    """Return the command that runs another one as root of namespaces of its own. Raises `NoNamespace`."""
    ids = () if os.geteuid() == 0 else ("--map-root-user", "--map-auto")
    # Twice: a process that changes its user outlives the one that `--kill-child` ties it to. The first namespace of
    # process ids is of one that does not, and ends all in it with itself.
    command = ("unshare", *ids, "--mount", "--pid", "--fork", "--kill-child", "unshare", "--pid", "--fork")
    # What is needed: mounts, process ids of its own, and another user.
    trial = "mount -t tmpfs tmpfs /tmp && mount -t proc proc /proc && chroot --userspec=10001:10001 --groups= / true"
    try:
        done = subprocess.run([*command, "sh", "-c", trial], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise NoNamespace("there is no command `unshare`") from None
    if done.returncode:
        raise NoNamespace(f"`{' '.join(command)}` and then `{trial}` say: {done.stderr.strip()}")
    return command


@dataclass(frozen=True)
class FileTree:
    """A root file system in `directory`."""

    directory: Path

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o755)
        for name in ("/tmp", "/proc", "/dev", "/etc", "/usr", "/usr/local/bin"):
            self.at(name).mkdir(parents=True, exist_ok=True)

    def at(self, path: str) -> Path:
        """Return where an absolute path in the tree is for this process."""
        return self.directory / path.lstrip("/")

    def command(self, command: Sequence[str], how: "Entry") -> list[str]:
        """Return the command that runs another one in the tree, as process 1."""
        root = str(self.directory)
        steps = [["mount", "--bind", root, root]]
        for path in (*_LIBRARIES, *(_TOOLS if how.tools else ())):
            steps += self._bound(path)
        steps.append(["mount", "--rbind", "/dev", f"{root}/dev"])
        for path, source in how.volumes.items():
            self.at(path).mkdir(parents=True, exist_ok=True)
            steps.append(["mount", "--bind", "-o", how.modes.get(path, "rw"), str(source), f"{root}{path}"])
        if how.read_only:
            steps.append(["mount", "-o", "remount,bind,ro", root])
        steps.append(["mount", "-t", "proc", "proc", f"{root}/proc"])
        script = f"{' && '.join(shlex.join(step) for step in steps)} || exit {_NO_ENTRY}; umask 022"
        chroot = [_which("chroot"), f"--userspec={how.user}", "--groups=", root, *command]
        environment = [f"{name}={value}" for name, value in how.environment.items()]
        last = ["exec", _which("env"), "-i", *environment, _which("setpriv"), "--no-new-privs", *chroot]
        return [*namespace_command(), "sh", "-c", f"{script}; {shlex.join(last)}"]

    def run(self, command: Sequence[str], how: "Entry") -> "subprocess.CompletedProcess[str]":
        """Run a command in the tree to its end."""
        whole = self.command(command, how)
        done = subprocess.run(
            whole, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=_SECONDS
        )
        assert done.returncode != _NO_ENTRY, done.stderr
        return done

    def remove(self) -> None:
        """Remove it, also what belongs to users that only the namespace has."""
        subprocess.run([*namespace_command(), "rm", "-rf", str(self.directory)], check=True, timeout=_SECONDS)

    def _bound(self, path: str) -> list[list[str]]:
        source, target = Path(path), self.at(path)
        if source.is_symlink():
            if not target.is_symlink():
                target.symlink_to(source.readlink())
            return []
        if not source.is_dir():
            return []
        target.mkdir(parents=True, exist_ok=True)
        return [["mount", "--bind", "-o", "ro", path, str(target)]]


@dataclass(frozen=True)
class Entry:
    """How a tree is entered: as `user` (`uid:gid`), with these variables and no others.

    `tools`: with the machine's programs of `/bin` and `/usr/bin`. `volumes` are directories of this machine by their
    paths in the tree; `modes` has `ro` for some of these.
    """

    user: str = "0:0"
    environment: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, Path] = field(default_factory=dict)
    modes: Mapping[str, str] = field(default_factory=dict)
    tools: bool = False
    read_only: bool = False


def _which(name: str) -> str:
    found = shutil.which(name)
    assert found is not None, name
    return found
