"""What settings there are, for people: the command `settings`, the README's table, and typos in the environment."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from holdfast_server.config.origins import ENV_PREFIX
from holdfast_server.config.settings import Settings


@dataclass(frozen=True, slots=True)
class Described:
    """A setting for people: its name in the file (`section.name`), its variable, its default, and what it does."""

    name: str
    variable: str
    default: str
    description: str


def describe() -> list[Described]:
    """Return all settings, in the order in which they are declared."""
    return [_described(name, field) for name, field in _flattened(Settings)]


def unknown_variables() -> list[str]:
    """Return the `HOLDFAST_*` variables that no setting has.

    They are no error: Kubernetes puts `HOLDFAST_SERVICE_HOST` and its like there for a service of our name.
    """
    # The last is our own client's.
    known = {f"{ENV_PREFIX}CONFIG", f"{ENV_PREFIX}ADDRESS", *(setting.variable for setting in describe())}
    return sorted(name for name in os.environ if name.startswith(ENV_PREFIX) and name.upper() not in known)


def _flattened(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        section = _section(field)
        if section:
            yield from _flattened(section, f"{name}.")
        else:
            yield prefix + name, field


def _section(field: FieldInfo) -> type[BaseModel] | None:
    """Return the section that a field is, or may be."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _described(name: str, field: FieldInfo) -> Described:
    default = field.default
    if default is None:
        text = ""
    elif isinstance(default, tuple):
        text = ",".join(default)
    elif isinstance(default, bool):
        text = str(default).lower()
    else:
        text = f"{default:.12g}" if isinstance(default, float) else str(default)
    variable = ENV_PREFIX + name.replace(".", "__").upper()
    return Described(name, variable, text, field.description or "")
