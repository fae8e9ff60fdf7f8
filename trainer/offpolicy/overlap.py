"""How far the log can speak for another policy: weights, effective sample sizes, and when to refuse."""

import math
from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np

from trainer.errors import TrainerError
from trainer.offpolicy.episodes import Doubles, EpisodesError, LoggedEpisodes
from trainer.offpolicy.policies import TargetPolicy

Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class OpeRefusedError(TrainerError):
    """The log cannot answer; the message names the number that says so."""


class OverlapLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When an estimator refuses."""

    episodes_min: Annotated[int, msgspec.Meta(ge=2)] = 20
    ess_min: Annotated[float, msgspec.Meta(ge=1.0)] = 15.0
    """Kish effective sample size, in episodes."""
    ess_share_min: Share = 0.05
    weight_share_max: Share = 0.5
    """Largest share of all weight that one episode may have."""
    step_ess_share_min: Share = 0.1
    """Effective share of single steps, for the estimators that learn values from them."""
    covered_min: Share = 0.8
    """Mean one-step weight: 1 where the log covers the target's actions (Owen 2013, ch. 9)."""
    distance_max: Annotated[float, msgspec.Meta(gt=0.0)] = 1.5
    """Of a deterministic target's actions from the logged ones, in spreads of the logging policy."""


@dataclass(frozen=True)
class Weights:
    """Importance weights of a log for one target.

    Attributes:
        step_log: float64[T], log of the ratio of each step.
        cumulative_log: float64[E, H], log of the product of ratios up to each step; stays where an episode is over.
    """

    step_log: Doubles
    cumulative_log: Doubles


def kish(weights: Doubles) -> float:
    """Kish (1965) effective sample size ``(sum w)^2 / sum w^2`` of weights float64[n]; 0 where all are 0."""
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares > 0.0 else 0.0


def scaled(logs: Doubles) -> Doubles:
    """``exp(logs)`` divided by its largest in each column: what a ratio of sums may use without overflow."""
    shares: Doubles = np.exp(logs - logs.max(axis=0, keepdims=True))
    return shares


def check_log(episodes: LoggedEpisodes, horizon: int, limits: OverlapLimits) -> None:
    """Whether the log can be used for anything.

    Raises:
        OpeRefusedError: too few episodes, unknown or impossible probabilities, episodes cut before the horizon.
    """
    if horizon < 1:
        raise EpisodesError(f"horizon is {horizon}; it must be 1 step at least")
    if len(episodes) < limits.episodes_min:
        raise OpeRefusedError(
            f"{len(episodes)} episodes, at least {limits.episodes_min} are needed; log more"
        )
    unknown = int((~np.isfinite(episodes.log_probabilities)).sum())
    if unknown:
        raise OpeRefusedError(
            f"{unknown} of {len(episodes.rewards)} logged actions have no finite probability: the logging policy was"
            " deterministic or its probabilities were not written; log with exploration"
            " ('outrider ope collect --noise 0.2')"
        )
    cut = ~episodes.ended & (episodes.lengths < horizon)
    if cut.any():
        raise OpeRefusedError(
            f"{int(cut.sum())} episodes were cut before the horizon of {horizon} steps, the first after"
            f" {int(episodes.lengths[cut][0])}; choose a shorter horizon or log whole episodes"
        )


def weigh(episodes: LoggedEpisodes, target: TargetPolicy, horizon: int) -> Weights:
    """Importance weights of every step and of every beginning of an episode.

    Raises:
        OpeRefusedError: the target's probabilities are not numbers, or it would never do what was logged.
        DeterministicPolicyError: the target has none.
    """
    logs = target.log_prob(episodes.observations, episodes.actions)
    if np.isnan(logs).any() or (logs == np.inf).any():
        raise OpeRefusedError("the target policy's probabilities of the logged actions are not numbers")
    step_log = logs - episodes.log_probabilities
    cumulative = np.cumsum(episodes.padded(step_log, horizon, 0.0), axis=1)
    none_left = (cumulative == -np.inf).all(axis=0)
    if none_left.any():
        raise OpeRefusedError(
            f"after step {int(none_left.argmax()) + 1} no logged episode could have come from the target: its actions"
            " are outside the logging policy's support"
        )
    return Weights(step_log, cumulative)


def check_weights(ess: float, largest: float, count: int, limits: OverlapLimits) -> None:
    """Whether weighted episodes carry an estimate; raises OpeRefusedError."""
    needed = max(limits.ess_min, limits.ess_share_min * count)
    if not ess >= needed:
        raise OpeRefusedError(
            f"effective sample size {ess:.1f} of {count} episodes, at least {needed:.1f} is needed; the target is too"
            " far from the logging policy for this horizon: shorten --horizon, log more, or log closer to it"
        )
    if not largest <= limits.weight_share_max:
        raise OpeRefusedError(
            f"one episode has {largest:.0%} of all weight, at most {limits.weight_share_max:.0%} is allowed"
        )


def check_coverage(episodes: LoggedEpisodes, target: TargetPolicy, limits: OverlapLimits) -> float:
    """Whether the log shows what the target does, one step at a time; returns the effective share of steps.

    For a deterministic target, which has no weights, it is the distance of its actions from the logged ones in
    spreads of the logging policy (read from the entropy of a normal distribution), as ``exp(-distance^2)``: the
    share that a normal target of the same spread would have.

    Raises:
        OpeRefusedError: it does not.
    """
    if target.deterministic:
        return _distance_share(episodes, target, limits)
    step_log = weigh(episodes, target, 1).step_log
    ratio = np.exp(np.minimum(step_log, 700.0))
    covered, share = float(ratio.mean()), kish(scaled(step_log)) / len(step_log)
    if not share >= limits.step_ess_share_min:
        raise OpeRefusedError(
            f"{share:.1%} of the logged steps count for the target, at least {limits.step_ess_share_min:.0%} is"
            " needed: its actions are outside what was logged"
        )
    if not covered >= limits.covered_min:
        raise OpeRefusedError(
            f"only {covered:.0%} of what the target does lies inside what was logged, at least"
            f" {limits.covered_min:.0%} is needed: its actions are outside the logging policy's support"
        )
    return share


def _distance_share(episodes: LoggedEpisodes, target: TargetPolicy, limits: OverlapLimits) -> float:
    size = episodes.actions.shape[1]
    spread = math.exp(
        -float(episodes.log_probabilities.mean()) / size - 0.5 * math.log(2.0 * math.pi * math.e)
    )
    gap = (target.mean_action(episodes.observations) - episodes.actions.astype(np.float64)) / spread
    distance = math.sqrt(max(0.0, float((gap**2).sum(axis=1).mean()) - size))
    if not distance <= limits.distance_max:
        raise OpeRefusedError(
            f"the deterministic target's actions are {distance:.1f} spreads from the logged ones, at most"
            f" {limits.distance_max} is allowed; log with more exploration or closer to the target"
        )
    return math.exp(-(distance**2))
