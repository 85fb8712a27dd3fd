"""State machines of hypothesis, run on one variant of what they drive."""

import zlib
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test


def run_machine(machine: Callable[[], Any], variant: str, *, examples: int, steps: int) -> None:
    """Run a machine so often, with so many steps each time. Raises what it raises.

    Each variant draws calls of its own: the same in each run, unless `tests/conftest.py` finds that more are asked for.
    """
    drawn = settings(
        max_examples=examples,
        stateful_step_count=steps,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    if drawn.derandomize:
        machine = seed(zlib.crc32(variant.encode()))(machine)
    run_state_machine_as_test(machine, settings=drawn)  # type: ignore[arg-type]  # says it wants a class; takes any maker
