"""`holdfast blob sync`."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.descriptions import size_of
from holdfast.directories import Synced, SyncOutcome, sync_directory
from holdfast.exit_codes import EXIT_FAILURE
from holdfast.session import Session
from holdfast.terminal import Output, printable, progress_bar

sync = typer.Typer()


@sync.command("sync")
def sync_blobs(
    context: typer.Context,
    directory: Annotated[str, typer.Argument(metavar="DIR", help="The directory.", show_default=False)],
    prefix: Annotated[
        str,
        typer.Argument(metavar="PREFIX", help='What the keys start with; "" for none.', show_default=False),
    ],
    *,
    delete: Annotated[
        bool, typer.Option("--delete", help="Then remove the blobs under PREFIX that DIR lacks, if nothing failed.")
    ] = False,
    whole_store: Annotated[
        bool, typer.Option("--whole-store", help="Let --delete remove with an empty PREFIX: from all blobs.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing, and tell what would be.")] = False,
) -> None:
    """Store the files of a directory as blobs, but for those that are there with the same bytes.

    A file's key is PREFIX, a / unless PREFIX is empty or ends in one, and its path in DIR. Links, sockets and devices
    are passed over. A file that fails is told, and the others go on; then the exit code is 1. Interrupted, run it
    again: it goes on where it was. What others change while --delete removes is left, and fails. With --json one object
    a line for each blob stored or removed, and a summary.
    """
    session: Session = context.obj
    if delete and not prefix and not whole_store:
        message = "it is empty, and --delete would remove what DIR lacks from the whole store: say --whole-store, too"
        raise typer.BadParameter(message, param_hint="PREFIX")
    report = _Report(session.output, directory, dry_run=dry_run)
    finished = False
    try:
        with session.connect() as client, progress_bar(directory) as progress:
            found = sync_directory(client.blobs, directory, prefix, delete=delete, dry_run=dry_run, progress=progress)
            for became in found:
                report.tell(became)
        finished = True
    finally:
        report.summarize(delete=delete, finished=finished)
    raise typer.Exit(EXIT_FAILURE if report.failed else 0)


class _Report:
    """Tells what becomes of the files, and counts them."""

    def __init__(self, output: Output, directory: str, *, dry_run: bool) -> None:
        self._output = output
        self._directory = directory
        self._dry_run = dry_run
        self._counts: Counter[SyncOutcome] = Counter()
        self._stored_bytes = 0

    @property
    def failed(self) -> int:
        """How many failed."""
        return self._counts[SyncOutcome.FAILED]

    def tell(self, became: Synced) -> None:
        """Tell what became of a file: on stderr if it did not go its way, and on stdout for machines and dry runs."""
        self._counts[became.outcome] += 1
        message = f"{printable(str(Path(self._directory, became.path)))}: {became.why}"
        match became.outcome:
            case SyncOutcome.FAILED:
                self._output.error(message, EXIT_FAILURE, details={"path": became.path, "key": became.key})
            case SyncOutcome.PASSED_OVER:
                self._output.note(f"passed over: {message}", {"passed_over": became.path, "why": became.why})
            case SyncOutcome.STORED:
                self._stored_bytes += became.size_bytes
                self._changed(became, "store")
            case SyncOutcome.REMOVED:
                self._changed(became, "remove")
            case SyncOutcome.PRESENT:
                pass

    def summarize(self, *, delete: bool, finished: bool) -> None:
        """Tell how many there were of each, if there was anything to do."""
        if not (finished or self._counts):
            return
        if self._output.as_json:
            summary: dict[str, Any] = {str(outcome): self._counts[outcome] for outcome in SyncOutcome}
            summary |= {"stored_bytes": self._stored_bytes, "dry_run": self._dry_run, "finished": finished}
            self._output.document({"summary": summary})
            return
        would = "would be " if self._dry_run else ""
        stored, present = self._counts[SyncOutcome.STORED], self._counts[SyncOutcome.PRESENT]
        parts = [f"{stored} {would}stored ({size_of(self._stored_bytes)})", f"{present} there already"]
        if delete:
            parts.append(f"{self._counts[SyncOutcome.REMOVED]} {would}removed")
        if passed_over := self._counts[SyncOutcome.PASSED_OVER]:
            parts.append(f"{passed_over} passed over")
        if self.failed:
            parts.append(f"{self.failed} FAILED")
        if not finished:
            parts.append("not finished: the same command goes on from here")
        self._output.line(", ".join(parts))

    def _changed(self, became: Synced, verb: str) -> None:
        if self._output.as_json:
            changed = {"key": became.key, "outcome": str(became.outcome), "size_bytes": became.size_bytes}
            self._output.document(changed)
        elif self._dry_run:
            self._output.line(f"would {verb} {became.key}")
