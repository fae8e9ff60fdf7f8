"""A floor at work without ROS: the rule-based controller drives, at a set rate."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sim.errors import SimConfigError
from sim.world.driver import RuleBasedDriver
from sim.world.journal import Journal, run_summary
from sim.world.run import STEP_S, FloorRun

RATE_MIN, RATE_MAX = 0.05, 1000.0


def run_alone(
    run: FloorRun, rate: float, duration_s: float | None, out: Path | None, stopped: Callable[[], bool]
) -> dict[str, Any]:
    """Step ``run`` at ``rate`` simulated seconds per second until ``stopped()`` or ``duration_s`` are over.

    Returns the summary; the caller closes ``run``.

    Raises:
        SimConfigError: a rate out of range, or an ``out`` that cannot be written.
    """
    if not RATE_MIN <= rate <= RATE_MAX:
        raise SimConfigError(f"rate is {rate}; it must be {RATE_MIN} to {RATE_MAX}")
    journal = Journal(out, run.warehouse) if out is not None else None
    driver = RuleBasedDriver(run)
    started_s = time.monotonic()
    deadline_s = started_s
    late_steps = 0
    while not stopped() and (duration_s is None or run.now_s < duration_s - STEP_S / 2):
        deadline_s += STEP_S / rate
        records = run.step(driver.command())
        if journal is not None:
            journal.records(records)
            journal.pose(run.now_ns, run.state)
        left_s = deadline_s - time.monotonic()
        if left_s > 0.0:
            time.sleep(left_s)
        else:
            late_steps += 1
            deadline_s = time.monotonic()
    summary = {**run_summary(run, time.monotonic() - started_s), "late_steps": late_steps}
    if journal is not None:
        journal.close(summary)
    return summary
