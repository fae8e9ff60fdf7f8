"""Gates for scripts: ``gain>=0.10,success>=0.99`` held against an evaluation."""

import operator
import re
from collections.abc import Callable
from typing import NamedTuple

from trainer.errors import TrainConfigError
from trainer.evaluation.evaluate import Comparison, Evaluation

METRICS: dict[str, Callable[[Comparison], float]] = {
    "gain": lambda row: row.gain.value,
    "gain_low95": lambda row: row.gain.low,
    "success": lambda row: row.success.value,
    "success_low95": lambda row: row.success.low,
    "success_lowest": lambda row: row.success_lowest,
    "trip_s": lambda row: row.trip_s,
    "contact_excess": lambda row: row.contact_excess.value,
    "contact_excess_high95": lambda row: row.contact_excess.high95,
}
OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_GATE = re.compile(r"\s*([a-z0-9_]+)\s*(>=|<=|>|<)\s*(-?[0-9]+(?:\.[0-9]+)?)\s*$")


class Gate(NamedTuple):
    """One demand."""

    metric: str
    sign: str
    bound: float


def parse_gates(text: str) -> list[Gate]:
    """Demands with commas between.

    Raises:
        TrainConfigError: one is no ``metric>=number``, or there is no such metric.
    """
    gates = []
    for part in text.split(","):
        match = _GATE.match(part)
        if match is None or match[1] not in METRICS:
            raise TrainConfigError(
                f"'{part}' is no demand; write METRIC>=NUMBER (or <=, >, <), METRIC one of {', '.join(METRICS)}"
            )
        gates.append(Gate(match[1], match[2], float(match[3])))
    return gates


def missed(evaluation: Evaluation, gates: list[Gate]) -> list[str]:
    """What does not hold of a policy, in words; baselines are not asked."""
    policies = {result.group for result in evaluation.results if result.policy}
    rows = [row for row in evaluation.comparisons if row.name in policies]
    if not rows:
        return ["there is no policy to hold against the gates"]
    return [
        f"{row.name}: {gate.metric} is {METRICS[gate.metric](row):.4g}, asked for {gate.sign} {gate.bound:g}"
        for row in rows
        for gate in gates
        if not OPERATORS[gate.sign](METRICS[gate.metric](row), gate.bound)
    ]
