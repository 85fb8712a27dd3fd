"""The command `holdfast-server checkpoints migrate`: what shellcade wrote becomes what we write, in its place."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from holdfast_server import calls, config, logs
from holdfast_server.checkpoints import key_file
from holdfast_server.checkpoints.fitness import Fitness
from holdfast_server.checkpoints.key_file import RingFile
from holdfast_server.checkpoints.key_ring import KeyRingError
from holdfast_server.checkpoints.migration import Migration, Plan
from holdfast_server.checkpoints.migration_report import MigrationReport
from holdfast_server.checkpoints.names import SNAPSHOTS
from holdfast_server.checkpoints.opening import WaitingRoom
from holdfast_server.config import ConfigError, Settings
from holdfast_server.data_directory import DataDirectoryError
from holdfast_server.errors import Cancelled, HoldfastError
from holdfast_server.objects.spool import Spool
from holdfast_server.transfer.bar import bar
from holdfast_server.transfer.locations import LocationError, opened_in_place
from holdfast_server.transfer.outcome import Done, Moved, printable
from holdfast_server.transfer.report import say_error
from holdfast_server.transfer.signals import Stopping, stopping_on_signals
from holdfast_server.transfer.work import Stopped, work_off

_EXIT_FAILURE = 1
_DEFAULT_JOBS = 8
_MOST_JOBS = 64

_checkpoints = typer.Typer(help="Work on the checkpoints of a store.", no_args_is_help=True)


def register(cli: typer.Typer) -> None:
    """Add the commands."""
    cli.add_typer(_checkpoints, name="checkpoints")


@_checkpoints.command("migrate")
def _migrate(
    *,
    data_dir: Annotated[Path | None, typer.Option(help="The data directory, as for `serve`.")] = None,
    config_file: Annotated[
        Path | None, typer.Option("--config", help="A TOML file with settings, as for `serve`.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Verify everything, rewrite nothing.")] = False,
    jobs: Annotated[int, typer.Option(min=1, max=_MOST_JOBS, help="How many objects at once.")] = _DEFAULT_JOBS,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as a JSON document.")] = False,
) -> None:
    """Rewrite what shellcade wrote, in its place, in the form of Holdfast.

    It may be run again at any time, and goes on where it was interrupted. Servers may run meanwhile, with
    `checkpoint_store.legacy`; shellcade may not.
    """
    logs.configure("error", "text")
    with stopping_on_signals() as stopping:
        try:
            settings = _settings(data_dir, config_file)
            plan = Plan(settings.checkpoint_store.encrypt, dry_run)
            code = _migrated(settings, plan, jobs, stopping, as_json=as_json)
        except Cancelled:
            code = stopping.exit_code
        except ConfigError as error:
            code = _refused(str(error), os.EX_CONFIG)
        except (DataDirectoryError, LocationError, KeyRingError) as error:
            code = _refused(str(error), _EXIT_FAILURE)
        except HoldfastError as error:
            code = _refused(error.message, _EXIT_FAILURE)
        except OSError as error:
            code = _refused(": ".join(str(part) for part in (error.filename, error.strerror) if part), _EXIT_FAILURE)
    raise typer.Exit(code)


def _settings(data_dir: Path | None, config_file: Path | None) -> Settings:
    """Return the settings that `serve` would have. Raises `ConfigError`."""
    settings = config.load({} if data_dir is None else {"data_dir": data_dir}, config_file)
    if settings.backend_of(settings.checkpoint_store.backend) == "memory":
        raise ConfigError("the backend is memory, and what that holds is in no other process's reach")
    if settings.checkpoint_store.key_ring is None:
        raise ConfigError("setting checkpoint_store.key_ring: it is not given, and neither is a data directory")
    return settings


def _migrated(settings: Settings, plan: Plan, jobs: int, stopping: Stopping, *, as_json: bool) -> int:
    with ExitStack() as stack:
        shown = stack.enter_context(bar(wanted=as_json or not plan.dry_run))
        report = MigrationReport(as_json=as_json, dry_run=plan.dry_run, say_error=shown.say_error)
        with calls.working_for(calls.Call(is_active=lambda: not stopping.is_set())):
            migration = stack.enter_context(_opened(settings, plan, shown.moved))

        def tell(done: Done) -> None:
            report.tell(done)
            shown.counted(report.objects)

        stopped = ""
        try:
            for tasks in migration.phases():
                work_off(tasks, jobs, tell, stopping.is_set)
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


@contextmanager
def _opened(settings: Settings, plan: Plan, moved: Moved) -> Iterator[Migration]:
    chosen = settings.checkpoint_store
    path = chosen.key_ring
    if path is None:
        raise KeyRingError("there is no key ring")
    _ = key_file.read(path).signing  # so that what is wrong with it is told here, and not in a log
    keys = RingFile(path)
    with opened_in_place(settings, chosen.backend, adopt_prefix=SNAPSHOTS) as location:
        Fitness(location.store, keys, single_writer=settings.s3 is not None and settings.s3.single_writer).check()
        waiting_room = WaitingRoom(Spool(settings.spool_dir, settings.spool_max_bytes), chosen.load_memory_bytes)
        yield Migration(location.store, keys, waiting_room, location, plan=plan, moved=moved)


def _refused(message: str, code: int) -> int:
    say_error(f"holdfast-server: {printable(message)}")
    return code
