"""The command `holdfast`: global options, exit codes, and what becomes of errors."""

import signal
import sys
from dataclasses import asdict
from importlib.metadata import version
from typing import Annotated, Protocol, runtime_checkable

import typer

from holdfast import (
    batch_commands,
    blob_commands,
    checkpoint_commands,
    errors,
    retention_commands,
    snapshot_commands,
    sync_command,
)
from holdfast.exit_codes import EXIT_FAILURE, EXIT_OUTPUT_CLOSED, exit_code_of
from holdfast.retrying import DEFAULT_RETRIES, DEFAULT_TIMEOUT_SECONDS, Retrier
from holdfast.session import DEFAULT_ADDRESS, Session
from holdfast.terminal import Output, OutputClosed, open_closed_streams

_EPILOG = """**Exit codes**

- 0: done
- 1: another failure, e.g. of a local file, or a full store
- 2: wrong usage, or an argument that breaks a rule
- 3: there is no such blob, room, checkpoint or snapshot
- 4: a condition failed: --create-only, --if-match, other bytes under a content address or at an epoch, or others
  were faster
- 5: the bytes are damaged
- 6: the server cannot be reached, is overloaded, or did not answer in time
- 130: interrupted
- 141: whoever read the output has gone
"""

cli = typer.Typer(
    name="holdfast",
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
server = typer.Typer(help="Ask about the server.", no_args_is_help=True)
blob_commands.blob.add_typer(sync_command.sync)
blob_commands.blob.add_typer(batch_commands.batch)
checkpoint_commands.checkpoint.add_typer(retention_commands.retention)
checkpoint_commands.checkpoint.add_typer(snapshot_commands.snapshot)
cli.add_typer(blob_commands.blob, name="blob")
cli.add_typer(checkpoint_commands.checkpoint, name="checkpoint")
cli.add_typer(server, name="server")


def _print_version(wanted: bool) -> None:  # noqa: FBT001 (typer calls it)
    if wanted:
        typer.echo(f"holdfast {version('holdfast')}")
        raise typer.Exit


@cli.callback()
def _root(
    context: typer.Context,
    *,
    address: Annotated[
        str, typer.Option(envvar="HOLDFAST_ADDRESS", help="The server: host:port or unix:/path.")
    ] = DEFAULT_ADDRESS,
    timeout: Annotated[
        float, typer.Option(min=0.001, help="Seconds that a call may take, or a transfer may stand still.")
    ] = DEFAULT_TIMEOUT_SECONDS,
    retries: Annotated[int, typer.Option(min=0, help="Further tries of what is safe to repeat.")] = DEFAULT_RETRIES,
    as_json: Annotated[bool, typer.Option("--json", help="Results and errors as JSON, for machines.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Store blobs and rooms on a Holdfast server and fetch them: whole and verified, or not at all."""
    if not address:
        raise typer.BadParameter("it is empty", param_hint="--address")
    try:
        Retrier(retries, timeout)
    except ValueError as error:  # the option's own minimum lets infinity pass
        raise typer.BadParameter(str(error), param_hint="--timeout") from None
    session: Session = context.obj
    session.output.as_json = as_json
    session.address, session.timeout, session.retries = address, timeout, retries


@server.command("info")
def _info(context: typer.Context) -> None:
    """Tell what the server is and what it can do."""
    session: Session = context.obj
    with session.connect() as client:
        info = client.server_info()
    if session.output.as_json:
        session.output.document(asdict(info))
        return
    rows = {"version": info.version}
    for service in info.services:
        backend = service.backend
        facts = [backend.name, f"durability {backend.durability}", f"conditions {backend.condition_mode}"]
        modes = asdict(backend.conditions)
        facts += [f"of {name} {mode}" for name, mode in modes.items() if mode != backend.condition_mode]
        facts.append("nested keys" if backend.nested_keys else "no nested keys")
        if backend.store_id:
            facts.append(f"store {backend.store_id}")
        if backend.not_ready_reason:
            facts.append(f"NOT READY: {backend.not_ready_reason}")
        rows[service.name] = ", ".join(facts)
    session.output.table(rows | {name: str(limit) for name, limit in asdict(info.limits).items()})


@runtime_checkable
class _UsageError(Protocol):
    """click's ClickException, which newer versions of typer carry along under a private name."""

    exit_code: int

    def format_message(self) -> str: ...


def _run(output: Output, arguments: list[str]) -> int:
    try:
        code: int | None = typer.main.get_command(cli).main(
            arguments, prog_name="holdfast", standalone_mode=False, obj=Session(output)
        )
        output.flush()
    except OutputClosed:
        output.discard()
        return EXIT_OUTPUT_CLOSED
    return code or 0


def _report(output: Output, error: Exception) -> int:
    if isinstance(error, errors.HoldfastError):
        code = exit_code_of(error)
        message = error.message
    elif isinstance(error, _UsageError):
        code = error.exit_code
        if not error.format_message():  # no arguments: the help was printed instead
            return code
        message = error.format_message()
        if (context := getattr(error, "ctx", None)) is not None:
            message += f" (see {context.command_path} --help)"
    elif isinstance(error, OSError):
        code = EXIT_FAILURE
        message = ": ".join(str(part) for part in (error.filename, error.strerror) if part) or str(error)
    else:
        code = EXIT_FAILURE
        message = f"unexpected {type(error).__name__}: {error}"
    output.error(message, code, error)
    try:
        output.flush()
    except (OutputClosed, OSError):
        output.discard()
    return code


class _Signals:
    """Ends the command at a signal, with everything half done undone. `received` is the signal that came, or 0."""

    def __init__(self) -> None:
        self.received = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._receive)

    def _receive(self, number: int, _frame: object) -> None:
        self.received = number
        raise SystemExit(128 + number)


def main() -> None:
    """Run the command line, and exit with its code."""
    open_closed_streams()
    signals = _Signals()
    arguments = sys.argv[1:]
    # Until the options are parsed: a wrong option is told in the form that was asked for.
    output = Output(as_json="--json" in arguments)
    try:
        code = _run(output, arguments)
    except Exception as error:  # noqa: BLE001 (nobody should have to read a traceback)
        # A signal that comes while gRPC waits on a lock can come out as a RuntimeError about the lock.
        code = 128 + signals.received if signals.received else _report(output, error)
    sys.exit(code)
