"""The estimators: what the target would have earned in an episode, with an interval, or why the log cannot say.

All answer the same question: the mean over episodes of ``sum(discount^t * reward_t)`` over the first ``horizon``
steps. Sources: Precup, Sutton, Singh 2000 (per-decision and weighted importance sampling); Jiang and Li 2016
(doubly robust); Thomas and Brunskill 2016 (weighted doubly robust). Intervals are percentile bootstraps over
episodes (Efron 1979).
"""

from collections.abc import Callable
from functools import cached_property
from typing import Annotated

import msgspec
import numpy as np

from trainer.offpolicy import values
from trainer.offpolicy.episodes import Doubles, EpisodesError, LoggedEpisodes
from trainer.offpolicy.overlap import (
    OpeRefusedError,
    OverlapLimits,
    Weights,
    check_coverage,
    check_log,
    check_weights,
    kish,
    scaled,
    weigh,
)
from trainer.offpolicy.policies import DeterministicPolicyError, TargetPolicy

BOOTSTRAP_SAMPLES = 500
INTERVAL = (0.025, 0.975)
HORIZON_MAX = 10_000


class OpeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked, and when to refuse."""

    horizon: Annotated[int, msgspec.Meta(ge=1, le=HORIZON_MAX)] | None = None
    """Steps; None for the longest logged episode."""
    discount: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.99
    limits: OverlapLimits = OverlapLimits()
    seed: int = 0


class Estimate(msgspec.Struct, frozen=True):
    """One estimator's answer. ``ess`` is in episodes; ``interval`` is 95 %."""

    estimator: str
    value: float
    interval: tuple[float, float]
    ess: float
    weight_share_max: float


class Refusal(msgspec.Struct, frozen=True):
    """Why an estimator does not answer."""

    estimator: str
    reason: str


class OpeReport(msgspec.Struct, frozen=True):
    """Everything asked; ``logged`` is what the logging policy earned, by the plain mean."""

    episodes: int
    steps: int
    horizon: int
    discount: float
    logged: Estimate
    estimates: list[Estimate]
    refusals: list[Refusal]


Answer = tuple[Doubles, float, float]
"""Value of the log and of each bootstrap sample, float64[1 + samples]; effective episodes; largest share."""


class _Question:
    """One log, one target: what the estimators share, made when first asked for."""

    def __init__(
        self,
        episodes: LoggedEpisodes,
        target: TargetPolicy,
        config: OpeConfig,
        features: values.Features | None,
    ) -> None:
        self.episodes, self.target, self.config = episodes, target, config
        self.horizon = config.horizon or int(episodes.lengths.max())
        self.discounts = config.discount ** np.arange(self.horizon)
        self.rewards = episodes.padded(episodes.rewards, self.horizon, 0.0)
        self._features = features
        count = len(episodes)
        rng = np.random.default_rng(config.seed)
        drawn = rng.multinomial(count, np.full(count, 1.0 / count), BOOTSTRAP_SAMPLES)
        self.counts: Doubles = np.vstack([np.ones(count), drawn])
        """How often each episode is in the log itself (once) and in each bootstrap sample."""

    @cached_property
    def weights(self) -> Weights:
        return weigh(self.episodes, self.target, self.horizon)

    @cached_property
    def data(self) -> values.ValueData:
        features = self._features or values.RandomFeatures(self.episodes)
        return values.prepare(self.episodes, self.target, features)

    @cached_property
    def coverage(self) -> float:
        return check_coverage(self.episodes, self.target, self.config.limits)

    @cached_property
    def q_weights(self) -> Doubles:
        return values.fitted_q(self.data.moments, self.config.discount, self.horizon)

    def trajectory_overlap(self) -> tuple[float, float]:
        """Effective episodes and largest share of whole-trajectory weights, checked."""
        weight = scaled(self.weights.cumulative_log[:, -1:])[:, 0]
        return self._checked(kish(weight), float(weight.max() / weight.sum()))

    def decision_overlap(self) -> tuple[float, float]:
        """The same for per-decision weights: a step's variance goes with 1/ESS, so the mean is harmonic, discounted."""
        weight = scaled(self.weights.cumulative_log)
        ess = weight.sum(axis=0) ** 2 / (weight**2).sum(axis=0)
        shares = weight.max(axis=0) / weight.sum(axis=0)
        mean = self.discounts.sum() / (self.discounts / ess).sum()
        return self._checked(float(mean), float(self.discounts @ shares / self.discounts.sum()))

    def value_overlap(self) -> tuple[float, float]:
        """Values are learned from single steps: their effective share, of all episodes."""
        return self.coverage * len(self.episodes), 1.0 / len(self.episodes)

    @cached_property
    def logged(self) -> "Estimate":
        """What the logging policy earned."""
        count = len(self.episodes)
        sampled = self.counts @ (self.rewards @ self.discounts) / count
        return _estimate("logged", (sampled, float(count), 1.0 / count))

    def check_values(self, own: float) -> None:
        """Whether values learned from the log tell the log's own return; an interval shows no such bias."""
        low, high = self.logged.interval
        if not low <= own <= high:
            raise OpeRefusedError(
                f"values learned this way miss the log's own return: {own:.3f}, where {self.logged.value:.3f}"
                f" ({low:.3f} to {high:.3f}) was logged; the features do not carry this horizon: shorten it"
            )

    def block_draws(self) -> Doubles:
        """How often each block of episodes is in the log and in each of the bootstrap samples for learned values."""
        blocks = len(self.data.moments.starts)
        rng = np.random.default_rng(self.config.seed)
        drawn = rng.multinomial(blocks, np.full(blocks, 1.0 / blocks), BOOTSTRAP_SAMPLES // 5)
        return np.vstack([np.ones(blocks), drawn])

    def _checked(self, ess: float, share: float) -> tuple[float, float]:
        check_weights(ess, share, len(self.episodes), self.config.limits)
        return ess, share


def _wis(q: _Question) -> Answer:
    overlap = q.trajectory_overlap()
    weight = scaled(q.weights.cumulative_log[:, -1:])[:, 0]
    return q.counts @ (weight * (q.rewards @ q.discounts)) / (q.counts @ weight), *overlap


def _pdis(q: _Question) -> Answer:
    overlap = q.decision_overlap()
    weight = np.exp(np.minimum(q.weights.cumulative_log, 700.0))
    return q.counts @ ((weight * q.rewards) @ q.discounts) / len(q.episodes), *overlap


def _pdwis(q: _Question) -> Answer:
    overlap = q.decision_overlap()
    weight = scaled(q.weights.cumulative_log)
    return (q.counts @ (weight * q.rewards) / (q.counts @ weight)) @ q.discounts, *overlap


def _corrections(q: _Question) -> tuple[Doubles, Doubles]:
    """``Q(s_t, a_t)`` and ``V(s_t)`` float64[E, H] with as many steps left as the horizon leaves."""
    q_table, v_table = np.zeros_like(q.rewards), np.zeros_like(q.rewards)
    starts, lengths = q.episodes.offsets[:-1], q.episodes.lengths
    for step in range(q.horizon):
        going = lengths > step
        rows, weights = starts[going] + step, q.q_weights[q.horizon - step]
        q_table[going, step] = q.data.features[rows] @ weights
        v_table[going, step] = q.data.expected[rows] @ weights
    return q_table, v_table


def _doubly_robust(q: _Question, weighted: bool) -> Answer:
    overlap = q.decision_overlap()
    q_table, v_table = _corrections(q)
    logs = q.weights.cumulative_log
    logs_before = np.hstack([np.zeros((len(logs), 1)), logs[:, :-1]])
    if weighted:
        now, before = scaled(logs), scaled(logs_before)
        sums_now, sums_before = q.counts @ now, q.counts @ before
    else:
        now, before = np.exp(np.minimum(logs, 700.0)), np.exp(np.minimum(logs_before, 700.0))
        sums_now = sums_before = np.full((1, 1), float(len(q.episodes)))
    steps = q.counts @ (now * (q.rewards - q_table)) / sums_now + q.counts @ (before * v_table) / sums_before
    return steps @ q.discounts, *overlap


def _fqe(q: _Question) -> Answer:
    overlap = q.value_overlap()
    q.check_values(values.own_fitted_q(q.episodes, q.data, q.config.discount, q.horizon))
    moments = [q.data.moments.mixed(counts) for counts in q.block_draws()]
    found = np.array(
        [values.start_value(m, values.fitted_q(m, q.config.discount, q.horizon)[-1]) for m in moments]
    )
    worst, bound = float(np.abs(found).max()), float(np.abs(q.rewards).max() * q.discounts.sum())
    if worst > bound:
        raise OpeRefusedError(
            f"fitted Q evaluation gives {worst:.3g}, more than rewards of this size can add up to ({bound:.3g});"
            " it diverges on this log: shorten the horizon or log more"
        )
    return found, *overlap


def _dm(q: _Question) -> Answer:
    overlap = q.decision_overlap()
    q.check_values(values.own_regression(q.episodes, q.data, q.config.discount, q.horizon))
    returns, known = values.weighted_returns(q.episodes, q.weights.step_log, q.config.discount, q.horizon)
    if not np.isfinite(returns).all():
        raise OpeRefusedError("the weighted returns overflow; shorten the horizon")
    moments = values.regressed_returns(q.data, returns, known)
    found = [values.start_value(m, values.regression(m)) for m in map(moments.mixed, q.block_draws())]
    return np.array(found), *overlap


ESTIMATORS: dict[str, Callable[[_Question], Answer]] = {
    "wis": _wis,
    "pdis": _pdis,
    "pdwis": _pdwis,
    "dr": lambda q: _doubly_robust(q, weighted=False),
    "wdr": lambda q: _doubly_robust(q, weighted=True),
    "fqe": _fqe,
    "dm": _dm,
}


def evaluate_offline(
    episodes: LoggedEpisodes,
    target: TargetPolicy,
    config: OpeConfig | None = None,
    estimators: tuple[str, ...] = tuple(ESTIMATORS),
    features: values.Features | None = None,
) -> OpeReport:
    """Judge ``target`` from a log.

    Args:
        episodes: of another policy, with its probabilities.
        target: the policy to judge.
        config: horizon, discount and limits.
        estimators: names from ``ESTIMATORS``.
        features: for the learned values; ``RandomFeatures`` of the log without.

    Raises:
        EpisodesError: an estimator that does not exist.
    """
    unknown = set(estimators) - set(ESTIMATORS)
    if unknown:
        raise EpisodesError(f"no estimator {', '.join(sorted(unknown))}; there are {', '.join(ESTIMATORS)}")
    config = config or OpeConfig()
    question = _Question(episodes, target, config, features)
    estimates: list[Estimate] = []
    refusals: list[Refusal] = []
    for name in estimators:
        try:
            check_log(episodes, question.horizon, config.limits)
            estimates.append(_estimate(name, ESTIMATORS[name](question)))
        except (OpeRefusedError, DeterministicPolicyError) as error:
            refusals.append(Refusal(name, str(error)))
    return OpeReport(
        len(episodes),
        len(episodes.rewards),
        question.horizon,
        config.discount,
        question.logged,
        estimates,
        refusals,
    )


def _estimate(name: str, answer: Answer) -> Estimate:
    sampled, ess, share = answer
    if not np.isfinite(sampled).all():
        raise OpeRefusedError("the estimate is not a finite number; the target is too far from the log")
    low, high = np.quantile(sampled[1:], INTERVAL)
    return Estimate(name, float(sampled[0]), (float(low), float(high)), ess, share)
