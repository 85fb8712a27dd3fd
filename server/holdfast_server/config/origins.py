"""Where a setting was given: what an operator has to look at who is told that it is wrong. Never what it is."""

import os
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ENV_PREFIX = "HOLDFAST_"
_LEVELS = "__"


class FileError(Exception):
    """The settings file cannot be read; the message names it."""


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """A settings file, read: `content` are its settings. There may be none, and then its path is None."""

    path: Path | None = None
    content: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, path: Path | None) -> "SettingsFile":
        """Read a file. Raises `FileError`."""
        if path is None:
            return cls()
        try:
            with path.open("rb") as file:
                return cls(path, tomllib.load(file))
        except FileNotFoundError:
            raise FileError(f"config file {path} does not exist") from None
        except OSError as error:
            raise FileError(f"config file {path} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise FileError(f"config file {path} is not TOML: {error}") from None

    def has(self, name: str) -> bool:
        """Tell whether it has a setting, or a section, of this name (`section.name`)."""
        content: Any = self.content
        for part in name.split("."):
            if not isinstance(content, Mapping) or part not in content:
                return False
            content = content[part]
        return True


def origin(name: str, flags: Collection[str], file: SettingsFile, *, with_variables: bool) -> str:
    """Return where a setting (`section.name`) was given, in the order in which one counts before the other.

    Empty if it was given nowhere by itself.
    """
    if name in flags:
        return f"option --{name.replace('_', '-')}"
    variable = ENV_PREFIX + name.replace(".", _LEVELS).upper()
    for given in sorted(map(str.upper, os.environ)) if with_variables else ():
        if given == variable or given.startswith(variable + _LEVELS):
            return f"variable {given}"
    if file.has(name):
        return f"in {file.path}"
    section, _, _ = name.rpartition(".")
    return origin(section, flags, file, with_variables=with_variables) if section else ""
