"""Dockerfiles, read as far as ours go; what they do not use is refused, so that no test passes over it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_ASSIGNMENT = re.compile(r'(?P<name>[\w.]+)=(?:"(?P<quoted>[^"]*)"|(?P<plain>\S*))(?:\s+|$)')


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: `COPY --from=build a b` has the name COPY, one flag, and the text `a b`."""

    name: str
    flags: Mapping[str, str]
    text: str

    def words(self) -> list[str]:
        """Return the arguments: of the form `["a", "b"]`, or those between spaces."""
        return [str(word) for word in json.loads(self.text)] if self.text.startswith("[") else self.text.split()

    def assignments(self, known: Mapping[str, str]) -> dict[str, str]:
        """Return what `ENV`, `ARG` or `LABEL` assign, with known variables in the place of `$NAME`."""
        found: dict[str, str] = {}
        end = 0
        while match := _ASSIGNMENT.match(self.text, end):
            value = match["plain"] if match["quoted"] is None else match["quoted"]
            found[match["name"]] = _VARIABLE.sub(lambda name: known[name[1] or name[2]], value)
            end = match.end()
        assert end == len(self.text), self
        return found


@dataclass(frozen=True, slots=True)
class Stage:
    """What stands from one `FROM` to the next."""

    base: str
    name: str
    instructions: tuple[Instruction, ...]

    def all(self, name: str) -> list[Instruction]:
        """Return the instructions of one name."""
        return [instruction for instruction in self.instructions if instruction.name == name]

    def last(self, name: str) -> Instruction:
        """Return the one of this name that counts: the last."""
        return self.all(name)[-1]

    def health_command(self) -> list[str]:
        """Return the command of `HEALTHCHECK`, in the form without a shell."""
        command = self.last("HEALTHCHECK").text.removeprefix("CMD").strip()
        assert command.startswith("["), command
        return [str(word) for word in json.loads(command)]


def read(path: Path) -> list[Stage]:
    """Return the stages of a Dockerfile."""
    lines = (line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
    text = re.sub(r"\\\n\s*", "", "\n".join(lines))
    stages: list[Stage] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction = _instruction(line)
        if instruction.name == "FROM":
            base, *named = instruction.words()
            stages.append(Stage(base, named[1] if named else "", ()))
        else:
            last = stages.pop()
            stages.append(Stage(last.base, last.name, (*last.instructions, instruction)))
    return stages


def _instruction(line: str) -> Instruction:
    name, _, rest = line.partition(" ")
    flags = {}
    while rest.lstrip().startswith("--"):
        flag, _, rest = rest.lstrip().partition(" ")
        key, _, value = flag.removeprefix("--").partition("=")
        flags[key] = value
    return Instruction(name, flags, rest.strip())
