"""The robot's part of an update's trace: download, check, swap, probation, commit, each under the hub's order.

What the updater is at begins a span and ends the one before. When the swap came is in the decisions themselves: the
first tick under a new policy bears a flag. A comms that is started again goes on with the span it comes into.
"""

import time
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from contracts.decision import DECISION_DTYPE, FLAG_SWAPPED
from contracts.tracing import Span, SpanSink, span_id, trace_id

Phase = Literal["download", "check", "swap", "probation", "commit", "return"]


class _Open(NamedTuple):
    trace: str
    stage: int
    name: Phase
    start_ns: int


class UpdateTrace:
    """Tells of one robot's updates; without a sink, nothing."""

    def __init__(self, sink: SpanSink | None, robot: str, wall_ns: Callable[[], int] = time.time_ns) -> None:
        self._sink, self._robot, self._wall_ns = sink, robot, wall_ns
        self._open: _Open | None = None

    def phase(self, rollout: int, stage: int, release: str, name: Phase) -> None:
        """The updater begins with something; what it did before is done."""
        if self._sink is None:
            return
        trace, now_ns = trace_id(rollout, release, self._robot), self._wall_ns()
        known = self._open
        if known is not None and (known.trace, known.stage, known.name) == (trace, stage, name):
            return  # asked once more, or after a lost connection
        self._end(now_ns)
        self._open = _Open(trace, stage, name, now_ns)

    def decisions(self, records: Sequence[bytes]) -> None:
        """Look for the swap in what control decided (DECISION_DTYPE bytes)."""
        if self._sink is None or self._open is None or self._open.name != "swap" or not records:
            return
        rows = np.frombuffer(b"".join(records), DECISION_DTYPE)
        swapped = np.flatnonzero(rows["flags"] & FLAG_SWAPPED)
        if len(swapped):
            at_ns = int(rows["wall_ns"][swapped[0]])
            before = self._open
            self._end(at_ns)
            self._open = _Open(before.trace, before.stage, "probation", at_ns)

    def done(self, state: str, code: str = "", reason: str = "") -> None:
        """The order has come to its end; ``code`` where it was not followed."""
        self._end(self._wall_ns(), state, f"{code}: {reason}" if code else "")

    def _end(self, now_ns: int, state: str = "", error: str = "") -> None:
        if self._sink is None or self._open is None:
            return
        trace, stage, name, start_ns = self._open
        self._open = None
        about: dict[str, str | int] = {"outrider.robot": self._robot, "outrider.stage": stage}
        if state:
            about["outrider.state"] = state
        self._sink.write(
            Span(
                trace_id=trace, span_id=span_id(trace, name, stage, start_ns),
                parent_id=span_id(trace, "order", stage), name=name, start_ns=start_ns,
                end_ns=max(now_ns, start_ns), attributes=about, error=error,
            )
        )  # fmt: skip
