"""1,000 hot swaps at 100 Hz, and as many ticks without: what a swap costs the ticks around it.

``python -m benchmarks.hot_swap [--quick]``. Prints JSON lines.

The real tick, everything but ROS. Each round loads a new session beside the tick, has it go through shadow, flip
and probation as any other (with stages of few ticks, so that many fit), and is followed by a round as long
without a swap: late ticks are compared in pairs. Policies alternate between two ends of what a robot may be told.
"""

import math
import sys
import threading
import time

import numpy as np
import numpy.typing as npt

from benchmarks._report import quick_asked, report
from benchmarks.edge_tick import Bench, random_policy
from contracts.decision import DECISION_DTYPE, FLAG_BLENDED, FLAG_SWAPPED
from contracts.robot import AMR_SMALL
from edge_agent.infer.trial import Stage, TrialConfig
from edge_agent.realtime import prepare

RATE_HZ = 100
SWAPS = 1000
SECONDS_QUICK, SECONDS_MAX = 38.0, 900.0
ROUND_TICKS = 8
CONFIG = TrialConfig(shadow_ticks=2, probation_ticks=3, slow_max=3, late_extra=100, interventions_extra=100)
CENTRES = ((0.3, 1.0), (0.9, -1.0))
SLACK = 1e-5
Records = npt.NDArray[np.void]


class SwapBench:
    """Rounds with and without a swap, and every record of them."""

    def __init__(self) -> None:
        self._networks = [random_policy(centre) for centre in CENTRES]
        self.bench = Bench(self._networks[0], RATE_HZ, CONFIG)
        self.records: list[bytes] = []
        self.passed = self.refused = 0

    def round(self, swap: bool) -> tuple[int, int]:
        """Ticks that ran or were missed in a round, and how many of those were late or missed."""
        core, loop = self.bench.core, self.bench.loop
        ticks, late, missed = core.ticks, core.late, loop.missed
        loader = threading.Thread(target=self._load) if swap else None
        if loader:
            loader.start()
        while core.ticks - ticks < ROUND_TICKS or (loader and loader.is_alive()):
            self.bench.wait_tick()
            self.records += self.bench.drain()
            self.bench.feed()
        missed_now = loop.missed - missed
        return core.ticks - ticks + missed_now, core.late - late + missed_now

    def _load(self) -> None:
        """What the agent's loader does: a new session, warmed, offered; then wait for the end of its trial."""
        network = self._networks[(self.passed + self.refused + 1) % 2]
        trial = self.bench.ladder.offer(self.bench.make_policy(network))
        while not trial.over:
            time.sleep(0.005)
        if trial.stage is Stage.PASSED:
            self.passed += 1
        else:
            self.refused += 1


def step_excess(records: Records) -> float:
    """The largest change of the command beyond the limits from a flip until the blend has ended, as a share.

    0 is none: every change of speed or turn rate was at most what the robot accelerates or brakes in a tick.
    Ticks in which the monitor itself took something away are not the swap's.
    """
    flags = records["flags"].astype(np.int64)
    blended = (flags & (FLAG_BLENDED | FLAG_SWAPPED)) > 0
    blended[1:] |= blended[:-1]  # the tick in which the command meets the policy's
    final = records["final_command"].astype(np.float64)
    steps = np.diff(final, axis=0)
    towards_zero = np.abs(final[1:, 0]) < np.abs(final[:-1, 0])
    speed_max = np.where(towards_zero, AMR_SMALL.braking_mps2, AMR_SMALL.acceleration_max_mps2) / RATE_HZ
    speed = np.abs(steps[:, 0]) / (speed_max + SLACK) - 1.0
    turn = np.abs(steps[:, 1]) / (AMR_SMALL.turn_acceleration_max_radps2 / RATE_HZ + SLACK) - 1.0
    counted = blended[1:] & (records["verdict"][1:] == 0)
    assert counted.any(), "no blended tick was recorded: nothing was measured"
    return max(0.0, float(np.maximum(speed, turn)[counted].max()))


def main() -> None:
    """Measure and print."""
    quick = quick_asked(__doc__ or "")
    done = prepare(True, (), lambda line: print(line, file=sys.stderr))
    swaps = SwapBench()
    bench = swaps.bench
    pairs: list[tuple[float, float]] = []
    try:
        bench.gate.monitor.armed = True
        bench.loop.start()
        end_s = time.monotonic() + (SECONDS_QUICK if quick else SECONDS_MAX)
        while swaps.passed + swaps.refused < SWAPS and time.monotonic() < end_s:
            with_swap, without = swaps.round(True), swaps.round(False)
            pairs.append((with_swap[1] / with_swap[0], without[1] / without[0]))
        bench.loop.stop()
        leftover = bench.drain()
    finally:
        bench.close()
    swaps.records += leftover
    records = np.frombuffer(b"".join(swaps.records), DECISION_DTYPE)
    gaps = int((np.diff(records["tick"].astype(np.int64)) - 1).sum())
    silent = int((~np.isfinite(records["raw_command"]).all(axis=1)).sum())
    shares = np.array(pairs)
    excess = shares[:, 0] - shares[:, 1]
    error = float(excess.std(ddof=1)) / math.sqrt(len(excess))
    about = f"at {RATE_HZ} Hz, {swaps.refused} refused on trial, {len(records)} ticks, with {', '.join(done)}"
    report("swap.count", swaps.passed, "swaps", "higher", about=about)
    about = "ticks whose record is missing or holds no finite proposal"
    report("swap.ticks_without_decision", gaps + silent, "ticks", "lower", about=about)
    about = f"share of late or missed ticks, with swaps minus without, in pairs; standard error {error:.4f}"
    report("swap.late_tick_excess", float(excess.mean()), "share", "lower", about=about)
    report("swap.late_ticks", float(shares[:, 0].mean()), "share", "lower", float(shares[:, 1].mean()))
    about = "largest change of the command beyond the robot's acceleration after a flip, as a share of it"
    report("swap.command_step_excess", step_excess(records), "share", "lower", about=about)


if __name__ == "__main__":
    main()
