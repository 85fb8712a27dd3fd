"""The servers that are asked, each with one caller in this process."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.measure import IDLE, HasCpu, Run, timed
from benchmarks.processes import ServerProcess
from benchmarks.traffic import Caller


@dataclass(frozen=True, slots=True)
class Served:
    """A server, what its backend is called, who calls it, and the store behind it, if there is one."""

    name: str
    server: ServerProcess
    caller: Caller
    store: HasCpu = IDLE

    def timed(
        self,
        amount: int,
        work: Callable[[], object],
        times: int = 1,
        *,
        before: Callable[[], object] | None = None,
        after: Callable[[], object] | None = None,
    ) -> Run:
        """Do the work, which is for `amount`, so many times; what is done before and after each is outside the time."""
        runs = []
        for _ in range(times):
            if before is not None:
                before()
            runs.append(timed(amount, work, self.server, self.store))
            if after is not None:
                after()
        return Run(
            sum(run.amount for run in runs),
            sum(run.seconds for run in runs),
            sum(run.server_cpu for run in runs),
            sum(run.client_cpu for run in runs),
            sum(run.store_cpu for run in runs),
        )
