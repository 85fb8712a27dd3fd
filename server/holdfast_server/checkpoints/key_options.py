"""What the commands `holdfast-server keys ...` have in common: their options, and how they fail."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from holdfast_server import config
from holdfast_server.checkpoints.key_file import KeyRingMissing
from holdfast_server.checkpoints.key_ring import KeyRingError
from holdfast_server.config import ConfigError

EXIT_FAILURE = 1
_ID = re.compile(r"[0-9a-fA-F]{16}")


def key_id(text: str) -> bytes:
    """Return the id that an argument is. Raises `typer.BadParameter`."""
    if not _ID.fullmatch(text):
        raise typer.BadParameter("it is not 16 hex digits, as `keys list` shows it")
    return bytes.fromhex(text)


KeyRingPath = Annotated[Path | None, typer.Option(help="The file with the keys. Without it: the one `serve` uses.")]
DataDir = Annotated[Path | None, typer.Option(help="The data directory, as for `serve`.")]
Config = Annotated[Path | None, typer.Option("--config", help="A TOML file with settings, as for `serve`.")]
Id = Annotated[bytes, typer.Argument(metavar="ID", parser=key_id, help="The key, as `keys list` shows it.")]


def ring_path(key_ring: Path | None, data_dir: Path | None, config_file: Path | None) -> Path:
    """Return where the ring is that `serve` would use. Raises `ConfigError`."""
    if key_ring is not None:
        return key_ring
    flags = {} if data_dir is None else {"data_dir": data_dir}
    found = config.load(flags, config_file).checkpoint_store.key_ring
    if found is None:
        raise ConfigError("setting checkpoint_store.key_ring: it is not given, and neither is a data directory")
    return found


@contextmanager
def failures_told() -> Iterator[None]:
    """End the process with a line on standard error where the block fails."""
    try:
        yield
    except ConfigError as error:
        fail(str(error), os.EX_CONFIG)
    except KeyRingMissing as error:
        fail(f"{error}: `holdfast-server keys generate` makes one", EXIT_FAILURE)
    except KeyRingError as error:
        fail(str(error), EXIT_FAILURE)
    except OSError as error:
        fail(": ".join(str(part) for part in (error.filename, error.strerror) if part), EXIT_FAILURE)


def fail(message: str, code: int) -> NoReturn:
    """End the process with a line on standard error."""
    typer.echo(f"holdfast-server: {message}", err=True)
    raise typer.Exit(code)
