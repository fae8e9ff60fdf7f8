"""Are canaries worse than control robots? A test that may be looked at after every trip and keeps its level.

**Blocked by robot, concurrent.** Trips are taken in rounds: round ``j`` is the ``j``-th trip of every canary and of
every control robot since the stage began, and ``d_j`` the mean of the canaries minus the mean of the controls. The
same robots' rounds from before the stage give what sets these robots apart anyway. With ``x`` the figure in [0, 1],
``E d_after - E d_before`` is what the release changes: robots, sites and the hour of the day cancel.

**Anytime-valid.** For a mean ``m`` the wealth ``K_n(m) = prod_j (1 + l_j (d_j - m))`` with bets ``l_j >= 0`` fixed
before round ``j`` is a non-negative supermartingale whenever ``E[d_j | past] <= m``, so by Ville's inequality
``P(some n: K_n(m) >= 1/a) <= a``. All ``m`` with ``sup_n K_n(m) < 1/a`` are a one-sided confidence sequence
(Howard, Ramdas, McAuliffe, Sekhon, Annals of Statistics 49, 2021; bets and mixture as in Waudby-Smith and Ramdas,
"Estimating means of bounded random variables by betting", JRSS B 86, 2024; the same guarantee for peeking as the
mSPRT of Johari, Pekelis, Walsh 2017, but for any distribution in [0, 1]: trip times have heavy tails). ``K_n(m)``
falls with ``m``, so that the bound is found on a grid and rounded to the safe side.

**A round counts at most SPAN** (more where one canary's failure alone weighs more). While the release changes
nothing, rounds before and after have one distribution, cut or not, so the level is untouched; bets can be as much
larger as the span is smaller, which is what makes this quick. Effects near a margin (at most a tenth of the scale)
hardly reach the span; far larger ones look smaller than they are.

A gate's share of the plan's level is split in four: lower and upper bound, before and after. Failed trips count with
the cap: leaving them out would flatter a policy that never arrives.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from contracts.messages import GateView
from contracts.plan import Gate
from fleet_hub.rollout.events import Verdict
from fleet_hub.rollout.trips import TRIP_MAX_S, Trip

ROUNDS_MAX = 20_000
BEFORE_ROUNDS_MAX = 400
BEFORE_ROUNDS_MIN = 10
"""With fewer rounds before, robots are taken to be alike; the evidence says so (``before_rounds`` 0)."""
SPAN = 0.25
GRID = 401
_BET_MAX = 0.9
"""Of the largest bet that can never lose everything."""
_PRIOR_ROUNDS, _PRIOR_VARIANCE = 4.0, 0.02
Floats = npt.NDArray[np.float64]

SCALE = {
    "delivery_time_s": TRIP_MAX_S,
    "aborted": 1.0,
    "contacts": 1.0,
    "near_misses": 1.0,
    "interventions": 1.0,
    "slow_ticks": 1.0,
    "fallbacks": 1.0,
}
"""Largest value of each figure, in its unit: at most this for every trip."""


def value_of(trip: Trip, metric: str) -> float:
    """A trip's figure in [0, 1]; more is worse."""
    value = float(getattr(trip, metric)) / SCALE[metric]
    return min(max(value, 0.0), 1.0) if value == value else 1.0


def rounds(canaries: Sequence[Floats], controls: Sequence[Floats]) -> Floats:
    """Differences float64[n] of the rounds that are complete, in [-span, span]; none without both groups."""
    groups = [*canaries, *controls]
    count = min((len(values) for values in groups), default=0) if canaries and controls else 0
    if not count:
        return np.zeros(0)
    count = min(count, ROUNDS_MAX)
    mean_canaries = np.mean([values[:count] for values in canaries], axis=0)
    mean_controls = np.mean([values[:count] for values in controls], axis=0)
    span = span_of(canaries)
    return np.asarray(np.clip(mean_canaries - mean_controls, -span, span), dtype=np.float64)


def span_of(canaries: Sequence[Floats]) -> float:
    """How much a round may count: a single canary's failure always in full."""
    return max(SPAN, 1.0 / max(len(canaries), 1))


def lower_bound(differences: Floats, alpha: float) -> float:
    """Lower confidence sequence of the mean of ``differences`` (float64[n] in [-1, 1]), at its best so far.

    The chance that it is ever above the mean is at most ``alpha``, however often it is looked at.
    """
    if not len(differences):
        return -1.0
    means = np.linspace(-1.0, 1.0, GRID)
    before = np.arange(len(differences)) + _PRIOR_ROUNDS
    total = np.concatenate([[0.0], np.cumsum(differences)[:-1]])
    average = total / before
    square = np.concatenate([[0.0], np.cumsum((differences - average) ** 2)[:-1]])
    variance = (square + _PRIOR_ROUNDS * _PRIOR_VARIANCE) / before
    best = np.full(GRID, -np.inf)
    wealth = np.zeros(GRID)
    step = 512
    for start in range(0, len(differences), step):
        part = slice(start, start + step)
        gap = average[part, None] - means[None, :]
        bet = np.clip(gap / (variance[part, None] + gap**2), 0.0, _BET_MAX / (1.0 + means + 1e-9))
        walk = wealth + np.cumsum(np.log1p(bet * (differences[part, None] - means[None, :])), axis=0)
        best, wealth = np.maximum(best, walk.max(axis=0)), walk[-1]
    refuted = np.flatnonzero(best >= np.log(1.0 / alpha))
    return float(means[refuted[-1]]) if len(refuted) else -1.0


def _interval(differences: Floats, span: float, alpha: float) -> tuple[float, float]:
    scaled = differences / span
    return lower_bound(scaled, alpha) * span, -lower_bound(-scaled, alpha) * span


def judge_gate(
    gate: Gate,
    level: float,
    after: tuple[Sequence[Floats], Sequence[Floats]],
    before: tuple[Sequence[Floats], Sequence[Floats]],
) -> GateView:
    """Compare canaries with controls in one figure.

    Args:
        gate: the figure and how much worse is still taken.
        level: chance of a false stop that this gate may use up.
        after: figures in [0, 1] of canaries and of controls since the stage began, an array a robot, in order.
        before: of the same robots, in the same order, from before.

    Returns:
        Promote when the release is surely at most ``margin`` worse; else stop when it is surely worse at all.
    """
    scale, alpha = SCALE[gate.metric], level / 4.0
    now = rounds(*after)
    then = rounds(*(tuple(values[-BEFORE_ROUNDS_MAX:] for values in group) for group in before))
    low, high = _interval(now, span_of(after[0]), alpha)
    shift, shift_low, shift_high = 0.0, 0.0, 0.0
    if len(then) >= BEFORE_ROUNDS_MIN:
        shift = float(then.mean())
        shift_low, shift_high = _interval(then, span_of(before[0]), alpha)
    low, high = (low - shift_high) * scale, (high - shift_low) * scale
    verdict: Verdict = "undecided"
    if len(now) and high <= gate.margin:
        verdict = "promote"
    elif len(now) and low > 0.0:
        verdict = "stop"
    difference = (float(now.mean()) - shift) * scale if len(now) else 0.0
    known = len(then) if len(then) >= BEFORE_ROUNDS_MIN else 0
    return GateView(gate.metric, gate.margin, verdict, len(now), known, difference, low, high)


def judge(
    gates: Sequence[Gate],
    level: float,
    after: tuple[Sequence[Sequence[Trip]], Sequence[Sequence[Trip]]],
    before: tuple[Sequence[Sequence[Trip]], Sequence[Sequence[Trip]]],
) -> tuple[Verdict, tuple[GateView, ...]]:
    """All gates of a stage: stop when one says so, promote when all do."""
    views = []
    for gate in gates:
        figures = [
            [np.array([value_of(trip, gate.metric) for trip in trips]) for trips in group]
            for group in (*after, *before)
        ]
        views.append(judge_gate(gate, level / len(gates), (figures[0], figures[1]), (figures[2], figures[3])))
    verdicts = {view.verdict for view in views}
    if "stop" in verdicts:
        return "stop", tuple(views)
    return ("promote" if verdicts == {"promote"} or not views else "undecided"), tuple(views)
