"""The commands `copy`, `import` and `export` of `holdfast-server`."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from holdfast_server import calls, logs
from holdfast_server.config import ConfigError
from holdfast_server.data_directory import DataDirectoryError
from holdfast_server.errors import Cancelled, HoldfastError, InvalidArgument
from holdfast_server.objects.key import check_text
from holdfast_server.transfer.bar import bar
from holdfast_server.transfer.copying import Copying
from holdfast_server.transfer.flatfs import FlatfsExport, FlatfsImport, Keys, Layout, made_flatfs, opened_flatfs
from holdfast_server.transfer.incoming import Incoming
from holdfast_server.transfer.locations import (
    Every,
    LocationError,
    Where,
    check_apart,
    check_different,
    opened_source,
    opened_target,
)
from holdfast_server.transfer.outcome import Done, Moved, Task, printable
from holdfast_server.transfer.outgoing import Outgoing
from holdfast_server.transfer.report import Report, say_error
from holdfast_server.transfer.shellcade import (
    ShellcadeExport,
    ShellcadeImport,
    check_prefix,
    made_shellcade,
    opened_shellcade,
)
from holdfast_server.transfer.signals import Stopping, stopping_on_signals
from holdfast_server.transfer.tree import TreeError
from holdfast_server.transfer.work import Stopped, work_off

T = TypeVar("T")

_EXIT_FAILURE = 1
_DEFAULT_JOBS = 8
_MOST_JOBS = 64
_LOCATION = "a data directory, a settings file (.toml), or `s3` for the S3 settings of the environment."

_importing = typer.Typer(help="Take the directory of another program into a store.", no_args_is_help=True)
_exporting = typer.Typer(help="Write the directory of another program from a store.", no_args_is_help=True)

_From = Annotated[str, typer.Option("--from", help=f"The store to read: {_LOCATION}")]
_To = Annotated[str, typer.Option("--to", help=f"The store to write: {_LOCATION}")]
_Prefix = Annotated[str, typer.Option(help="What the keys in the store begin with.")]
_Layout = Annotated[Layout, typer.Option(help="How the keys in the store are made of a sha256.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Write no object, and say what would be done.")]
_Verify = Annotated[
    bool, typer.Option("--verify", help="Read the bytes of what the target has already, and replace what is damaged.")
]
_Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace files of other bytes, also where the name tells no sha256.")
]
_ReplaceSealed = Annotated[
    bool,
    typer.Option(
        "--replace-sealed",
        help="Replace also what Holdfast has sealed: rooms go back to their old state. "
        "Not those of which it has sealed epochs that DIR lacks: these fail, and stay as they are.",
    ),
]
_Jobs = Annotated[int, typer.Option(min=1, max=_MOST_JOBS, help="How many objects at once.")]
_AsJson = Annotated[bool, typer.Option("--json", help="The summary as a JSON document.")]
_Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The directory.")]

Begin = Callable[[ExitStack, Moved], Iterator[Task]]
"""Opens what is needed, to be closed with the stack, and returns the tasks."""


@dataclass(frozen=True, slots=True)
class _How:
    dry_run: bool
    jobs: int
    as_json: bool


def register(cli: typer.Typer) -> None:
    """Add the commands."""
    cli.command("copy")(_copy)
    cli.add_typer(_importing, name="import")
    cli.add_typer(_exporting, name="export")


def _copy(
    *,
    source: _From,
    target: _To,
    prefix: Annotated[str, typer.Option(help="Only keys that begin with it.")] = "",
    verify: _Verify = False,
    dry_run: _DryRun = False,
    jobs: _Jobs = _DEFAULT_JOBS,
    as_json: _AsJson = False,
) -> None:
    """Copy what a store holds to another one, where it is not the same already. No server need run.

    It may be run again at any time, and goes on where it was interrupted. What only the target has is left alone.
    """
    _check(lambda: check_text(prefix, "prefix"))

    def begin(stack: ExitStack, moved: Moved) -> Iterator[Task]:
        read = stack.enter_context(opened_source(source))
        written = stack.enter_context(opened_target(target, read.where, dry_run=dry_run))
        check_different(read, written)
        return Copying(read.store, written.store, Every([read, written]), prefix, dry_run, verify, moved).tasks()

    _carry_out(begin, _How(dry_run, jobs, as_json))


@_importing.command("flatfs")
def _import_flatfs(
    directory: _Directory,
    *,
    target: _To,
    prefix: _Prefix = "",
    layout: _Layout = Layout.FLATFS,
    verify: _Verify = False,
    dry_run: _DryRun = False,
    jobs: _Jobs = _DEFAULT_JOBS,
    as_json: _AsJson = False,
) -> None:
    """Take a flatfs directory, as Piri keeps its blobs, into a store."""
    keys = _check(lambda: Keys(prefix, layout))

    def begin(stack: ExitStack, moved: Moved) -> Iterator[Task]:
        tree = stack.enter_context(opened_flatfs(directory))
        written = stack.enter_context(opened_target(target, Where(str(directory), directory), dry_run=dry_run))
        return FlatfsImport(Incoming(tree, written.store, written, dry_run, verify, moved), keys).tasks()

    _carry_out(begin, _How(dry_run, jobs, as_json))


@_exporting.command("flatfs")
def _export_flatfs(
    directory: _Directory,
    *,
    source: _From,
    prefix: _Prefix = "",
    layout: _Layout = Layout.FLATFS,
    overwrite: _Overwrite = False,
    dry_run: _DryRun = False,
    jobs: _Jobs = _DEFAULT_JOBS,
    as_json: _AsJson = False,
) -> None:
    """Write a flatfs directory, as Piri keeps its blobs, from a store."""
    keys = _check(lambda: Keys(prefix, layout))

    def begin(stack: ExitStack, moved: Moved) -> Iterator[Task]:
        read = stack.enter_context(opened_source(source))
        check_apart(read.where, Where(str(directory), directory))
        tree = stack.enter_context(made_flatfs(directory, dry_run=dry_run))
        return FlatfsExport(Outgoing(tree, read.store, read, dry_run, overwrite, moved), keys).tasks()

    _carry_out(begin, _How(dry_run, jobs, as_json))


@_importing.command("shellcade")
def _import_shellcade(
    directory: _Directory,
    *,
    target: _To,
    prefix: _Prefix = "",
    verify: _Verify = False,
    replace_sealed: _ReplaceSealed = False,
    dry_run: _DryRun = False,
    jobs: _Jobs = _DEFAULT_JOBS,
    as_json: _AsJson = False,
) -> None:
    """Take a directory with a file for each key, as shellcade keeps its blobs, into a store.

    What Holdfast has sealed there since is left alone.
    """
    _check(lambda: check_prefix(prefix))

    def begin(stack: ExitStack, moved: Moved) -> Iterator[Task]:
        tree = stack.enter_context(opened_shellcade(directory))
        written = stack.enter_context(opened_target(target, Where(str(directory), directory), dry_run=dry_run))
        incoming = Incoming(tree, written.store, written, dry_run, verify, moved, replace_sealed)
        return ShellcadeImport(incoming, prefix).tasks()

    _carry_out(begin, _How(dry_run, jobs, as_json))


@_exporting.command("shellcade")
def _export_shellcade(
    directory: _Directory,
    *,
    source: _From,
    prefix: _Prefix = "",
    overwrite: _Overwrite = False,
    dry_run: _DryRun = False,
    jobs: _Jobs = _DEFAULT_JOBS,
    as_json: _AsJson = False,
) -> None:
    """Write a directory with a file for each key, as shellcade keeps its blobs, from a store."""
    _check(lambda: check_prefix(prefix))

    def begin(stack: ExitStack, moved: Moved) -> Iterator[Task]:
        read = stack.enter_context(opened_source(source))
        check_apart(read.where, Where(str(directory), directory))
        tree = stack.enter_context(made_shellcade(directory, dry_run=dry_run))
        return ShellcadeExport(Outgoing(tree, read.store, read, dry_run, overwrite, moved), prefix).tasks()

    _carry_out(begin, _How(dry_run, jobs, as_json))


def _check(rule: Callable[[], T]) -> T:
    """Return what a rule returns; what it refuses was a wrong option."""
    try:
        return rule()
    except InvalidArgument as error:
        raise typer.BadParameter(error.message, param_hint="--prefix") from None


def _carry_out(begin: Begin, how: _How) -> None:
    """Do what was begun, and end the process with the exit code that tells how it went."""
    logs.configure("error", "text")
    with stopping_on_signals() as stopping:
        try:
            code = _carried_out(begin, how, stopping)
        except Cancelled:
            code = stopping.exit_code
        except ConfigError as error:
            code = _refused(str(error), os.EX_CONFIG)
        except (DataDirectoryError, LocationError, TreeError) as error:
            code = _refused(str(error), _EXIT_FAILURE)
        except HoldfastError as error:
            code = _refused(error.message, _EXIT_FAILURE)
        except OSError as error:
            code = _refused(": ".join(str(part) for part in (error.filename, error.strerror) if part), _EXIT_FAILURE)
    raise typer.Exit(code)


def _carried_out(begin: Begin, how: _How, stopping: Stopping) -> int:
    with ExitStack() as stack:
        # Where a line tells of each object, that is progress enough.
        shown = stack.enter_context(bar(wanted=how.as_json or not how.dry_run))
        report = Report(as_json=how.as_json, dry_run=how.dry_run, say_error=shown.say_error)
        with calls.working_for(calls.Call(is_active=lambda: not stopping.is_set())):
            tasks = begin(stack, shown.moved)

        def tell(done: Done) -> None:
            report.tell(done)
            shown.counted(report.objects)

        stopped = ""
        try:
            work_off(tasks, how.jobs, tell, stopping.is_set)
        except Stopped as error:
            stopped = str(error)
        except HoldfastError as error:
            stopped = error.message
    if stopping.is_set():
        stopped = f"{stopping.name} came"
    report.summarize(stopped)
    if stopping.is_set():
        return stopping.exit_code
    if stopped:
        return _refused(stopped, _EXIT_FAILURE)
    return _EXIT_FAILURE if report.has_failures else 0


def _refused(message: str, code: int) -> int:
    say_error(f"holdfast-server: {printable(message)}")
    return code
