"""The control thread: absolute deadlines, sleep, a short spin, tick. Deadlines that passed are skipped."""

import gc
import sys
import threading
import time
from typing import Protocol

SWITCH_INTERVAL_S = 0.0005
SPIN_NS = 700_000
WARM_LEAD_NS = 2_500_000
"""How long before the deadline warm runs begin; the rest is spun away: a sleep would cool what they warmed."""
WARM_RUNS = 4
"""The first finds cold caches and takes several times as long as the last."""
WARM_PERIOD_MIN_NS = 20_000_000
"""Shorter periods go without a warm run: caches are warm enough, and it would double the tick's cost."""
WARM_ROOM_NS = 350_000
"""A warm run begins no later than this before the deadline."""
JOIN_MAX_S = 2.0
SWEEP_EVERY_TICKS = 32
SWEEP_OLD_EVERY_SWEEPS = 64
SWEEP_ROOM_NS = 5_000_000
"""The collector only runs when the next deadline is at least this far away."""
NS = 1_000_000_000


class Core(Protocol):
    """What the loop runs (``edge_agent.tick.TickCore``, ``edge_agent.guard.filter.FilterCore``)."""

    def tick(self, deadline_ns: int, missed: int) -> None:
        """Run one tick; never raises."""

    def warm(self) -> None:
        """Get ready for a tick that is due in a moment."""


class ControlLoop:
    """Runs ``core.tick`` every ``period_ns`` from ``start`` to ``stop``."""

    def __init__(self, core: Core, period_ns: int) -> None:
        self._core, self._period_ns = core, period_ns
        self._stopping = False
        self._thread: threading.Thread | None = None
        self.missed = 0
        self._ticks_unswept = self._sweeps = 0

    @property
    def running(self) -> bool:
        """Whether the thread lives."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begin to tick. From here on the collector runs only between two ticks, where there is room."""
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        gc.collect()
        gc.freeze()
        gc.disable()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its present tick."""
        self._stopping = True
        if self._thread is not None:
            self._thread.join(JOIN_MAX_S)
            self._thread = None
        # What was frozen must be found again: the middleware only lets go of its shared memory when collected.
        gc.unfreeze()
        gc.enable()

    def _run(self) -> None:
        deadline_ns = time.monotonic_ns() + self._period_ns
        while not self._stopping:
            self._wait(deadline_ns)
            behind_ns = time.monotonic_ns() - deadline_ns
            if behind_ns >= self._period_ns:
                skipped = behind_ns // self._period_ns
                self.missed += skipped
                deadline_ns += skipped * self._period_ns
            self._core.tick(deadline_ns, self.missed)
            deadline_ns += self._period_ns
            self._sweep(deadline_ns)

    def _sweep(self, deadline_ns: int) -> None:
        """Collect young cycles now and then: the ROS callbacks make some, and a robot runs all day."""
        self._ticks_unswept += 1
        if self._ticks_unswept < SWEEP_EVERY_TICKS or deadline_ns - time.monotonic_ns() < SWEEP_ROOM_NS:
            return
        self._ticks_unswept = 0
        self._sweeps += 1
        gc.collect(1 if self._sweeps % SWEEP_OLD_EVERY_SWEEPS == 0 else 0)

    def _wait(self, deadline_ns: int) -> None:
        left_ns = deadline_ns - time.monotonic_ns()
        if self._period_ns >= WARM_PERIOD_MIN_NS and left_ns > WARM_LEAD_NS:
            time.sleep((left_ns - WARM_LEAD_NS) / NS)
            for _ in range(WARM_RUNS):
                if deadline_ns - time.monotonic_ns() < WARM_ROOM_NS:
                    break
                self._core.warm()
            left_ns = 0
        if left_ns > SPIN_NS:
            time.sleep((left_ns - SPIN_NS) / NS)
        while time.monotonic_ns() < deadline_ns:
            pass
