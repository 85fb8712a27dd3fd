"""Documents that are tested: the commands that they show are run, and what they show is compared with what comes out.

In a block marked `console`, lines that begin with `$ ` are commands (a line that ends in a backslash goes on), and the
lines behind each are its output. What differs from run to run (etags, key ids, times, addresses) is compared by form.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.child_processes import killed_on_failure
from tests.support.waiting import wait_until

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_VARYING = (
    (re.compile(r"\b[0-9a-f]{32}\b"), "<etag>"),
    (re.compile(r"\b[0-9a-f]{16}\b"), "<key id>"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?(Z|\+00:00| UTC)?"), "<time>"),
    (re.compile(r"\b127\.0\.0\.1:\d+\b"), "<address>"),
    (re.compile(r"[ \t]+$", re.MULTILINE), ""),
)
_SECONDS = 240
_PATIENT = (
    ("grpcurl -plaintext ", f"grpcurl -plaintext -connect-timeout {_SECONDS} "),
    ("holdfast-server health", f"holdfast-server health --timeout {_SECONDS}"),
)
"""Commands that give a server a few seconds only, and what they are run as: it may stand still for longer."""

_UNTIL_ENDED = re.compile(r"timeout (\d+) (?=\S)")


@dataclass(frozen=True)
class Step:
    """A command and the output that the document shows for it."""

    command: str
    output: str


def blocks(document: str, language: str) -> list[str]:
    """Return the code blocks of one language."""
    return [code for found, code in _BLOCK.findall(document) if found == language]


def steps(block: str) -> Iterator[Step]:
    """Yield the commands of a `console` block with their outputs."""
    command, output = "", ""
    goes_on = False
    for line in block.splitlines():
        if goes_on:
            command += "\n" + line
        elif line.startswith("$ "):
            if command:
                yield Step(command, output)
            command, output = line.removeprefix("$ "), ""
        else:
            output += line + "\n"
            continue
        goes_on = line.endswith("\\")
    if command:
        yield Step(command, output)


def form(text: str) -> str:
    """Return a text with what varies replaced by its name."""
    for pattern, name in _VARYING:
        text = pattern.sub(name, text)
    return text.strip()


def run(command: str, directory: Path, env: Mapping[str, str], shown: str = "") -> str:
    """Run a command as a shell does, and return all that it prints.

    One that goes on for ever stands behind `timeout` and its seconds: it is ended when these are over and the output is
    the one that is `shown`. Other bounds of time are widened.
    """
    for short, long in _PATIENT:
        command = command.replace(short, long)
    if endless := _UNTIL_ENDED.match(command):
        return _run_until(shown, int(endless[1]), command.removeprefix(endless[0]), directory, env)
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=directory,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    return done.stdout


def _run_until(shown: str, seconds: int, command: str, directory: Path, env: Mapping[str, str]) -> str:
    assert shown, f"the document shows nothing that could be waited for: {command}"
    with tempfile.NamedTemporaryFile() as output:

        def has_come() -> bool:
            return process.poll() is not None or form(Path(output.name).read_text()) == form(shown)

        with killed_on_failure(
            subprocess.Popen(
                ["bash", "-c", f"exec {command}"], cwd=directory, env=env, stdout=output, stderr=subprocess.STDOUT
            )
        ) as process:
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
            with suppress(TimeoutError):  # then the output is another one, and its reader says so
                wait_until(has_come, _SECONDS / 4)
            process.terminate()
        return Path(output.name).read_text()
