"""The command `holdfast-server`."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast_server import __version__, app, config, logs
from holdfast_server.checkpoints import key_commands, migrate_commands
from holdfast_server.data_directory import DataDirectoryError
from holdfast_server.health_command import health
from holdfast_server.rpc.server import BindError
from holdfast_server.transfer import commands as transfer

EX_CONFIG = 78
"""Exit code for wrong settings, from sysexits.h."""

cli = typer.Typer(
    name="holdfast-server", help="The Holdfast storage server.", no_args_is_help=True, pretty_exceptions_enable=False
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 (typer calls it)
    if wanted:
        typer.echo(f"holdfast-server {__version__}")
        raise typer.Exit


@cli.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Keep a program's bytes safe, over gRPC."""


@cli.command()
def serve(
    listen: Annotated[
        list[str] | None, typer.Option(help="gRPC address, host:port or unix:/path; repeatable. Port 0: a free one.")
    ] = None,
    http: Annotated[str | None, typer.Option(help="HTTP address for probes and metrics; empty: none.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(readable=False, help="Where data is kept. Without it: memory only.")
    ] = None,
    config_file: Annotated[
        Path | None, typer.Option("--config", readable=False, help="A TOML file with settings.")
    ] = None,
) -> None:
    """Serve until SIGTERM or SIGINT. Every setting is also a variable HOLDFAST_*, and a line in the file."""
    given: dict[str, Any] = {"listen": listen or None, "http": http, "data_dir": data_dir}
    try:
        chosen = config.load({name: value for name, value in given.items() if value is not None}, config_file)
        logs.configure(chosen.log_level, chosen.log_format)
        for name in config.unknown_variables():
            logs.log.warning("Unknown variable in the environment", extra={"fields": {"name": name}})
        code = app.serve(chosen)
    except config.ConfigError as error:
        typer.echo(f"holdfast-server: {error}", err=True)
        code = EX_CONFIG
    except (DataDirectoryError, BindError) as error:
        typer.echo(f"holdfast-server: {error}", err=True)
        code = 1
    raise typer.Exit(code)


cli.command()(health)


@cli.command()
def settings() -> None:
    """List every setting: its name in the file, its variable, its default, and what it does."""
    for setting in config.describe():
        typer.echo(f"{setting.name}\n  {setting.variable}={setting.default}\n  {setting.description}")


transfer.register(cli)
key_commands.register(cli)
migrate_commands.register(cli)


def _open_standard_files() -> None:
    """Open what is closed of standard input, output and error: else an object's file could become standard error."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one


def main() -> None:
    """Run the command line."""
    _open_standard_files()
    cli()
