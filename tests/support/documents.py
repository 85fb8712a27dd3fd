"""Documents that are tested: the commands that they show are run, and what they show is compared with what comes out.

In a block marked `console`, lines that begin with `$ ` are commands (a line that ends in a backslash goes on), and the
lines behind each are its output. What differs from run to run (etags, key ids, times, addresses) is compared by form.
"""

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_VARYING = (
    (re.compile(r"\b[0-9a-f]{32}\b"), "<etag>"),
    (re.compile(r"\b[0-9a-f]{16}\b"), "<key id>"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?(Z|\+00:00| UTC)?"), "<time>"),
    (re.compile(r"\b127\.0\.0\.1:\d+\b"), "<address>"),
    (re.compile(r"[ \t]+$", re.MULTILINE), ""),
)


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


def run(command: str, directory: Path, env: Mapping[str, str]) -> str:
    """Run a command as a shell does, and return all that it prints."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=directory,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout
