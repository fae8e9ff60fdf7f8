"""Learned values: fitted Q evaluation and regression of weighted returns, both ridge over fixed features."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trainer.offpolicy.episodes import Doubles, Floats, LoggedEpisodes
from trainer.offpolicy.overlap import OpeRefusedError
from trainer.offpolicy.policies import TargetPolicy

Features = Callable[[Floats, Floats], Doubles]
"""Features float64[n, K] of observations float32[n, S] and actions float32[n, A]."""
BLOCKS = 40
RIDGE = 1e-3
ACTION_DRAWS = 8
RANDOM_FEATURES = 96
FEATURE_STD_MIN, FEATURE_CLIP = 1e-3, 5.0


class RandomFeatures:
    """Normalised inputs, their random tanh features (Rahimi and Recht 2008) and a constant.

    Actions are clipped to [-1, 1] first, as the environment does.
    """

    def __init__(self, episodes: LoggedEpisodes, count: int = RANDOM_FEATURES, seed: int = 0) -> None:
        raw = self._raw(episodes.observations, episodes.actions)
        self._mean, self._std = raw.mean(axis=0), np.maximum(raw.std(axis=0), FEATURE_STD_MIN)
        rng = np.random.default_rng(seed)
        size = raw.shape[1]
        self._mix = rng.normal(0.0, 1.0 / np.sqrt(size), (size, count))
        # The action is 2 of 85 numbers and the only ones the policy chooses: it must reach every feature.
        actions = episodes.actions.shape[1]
        self._mix[-actions:] = rng.normal(0.0, 1.0, (actions, count))
        self._shift = rng.normal(0.0, 0.5, count)

    def __call__(self, observations: Floats, actions: Floats) -> Doubles:
        """Features float64[n, K]."""
        raw = self._raw(observations, actions)
        x = np.clip((raw - self._mean) / self._std, -FEATURE_CLIP, FEATURE_CLIP)
        return np.hstack([np.ones((len(x), 1)), x, np.tanh(x @ self._mix + self._shift)])

    @staticmethod
    def _raw(observations: Floats, actions: Floats) -> Doubles:
        return np.hstack([observations, np.clip(actions, -1.0, 1.0)]).astype(np.float64)


@dataclass(frozen=True)
class Moments:
    """What both regressions need, for each of ``B`` blocks of whole episodes: resampling them is a sum.

    Attributes:
        gram: float64[B, K, K], features with themselves.
        onward: float64[B, K, K], features with the expected features of the next step under the target.
        reward: float64[B, K], features with rewards.
        start: float64[B, K], sum of the expected features at the first step; starts: float64[B], how many.
    """

    gram: Doubles
    onward: Doubles
    reward: Doubles
    start: Doubles
    starts: Doubles

    def mixed(self, counts: Doubles) -> "Moments":
        """One block, made of ``counts`` float64[B] of each."""
        parts = (self.gram, self.onward, self.reward, self.start, self.starts)
        return Moments(*(np.tensordot(counts, part, axes=1)[None] for part in parts))


@dataclass(frozen=True)
class ValueData:
    """A log as features; ``moments`` are its sums."""

    features: Doubles
    expected: Doubles
    """Of the target's own action at each step, float64[T, K]."""
    block_of: Doubles
    moments: Moments


def prepare(
    episodes: LoggedEpisodes, target: TargetPolicy, features: Features, blocks: int = BLOCKS
) -> ValueData:
    """Features of every step and of what the target would do there; one pass over the log."""
    here = features(episodes.observations, episodes.actions)
    expected = _expected(features, target, episodes.observations)
    onward = _expected(features, target, episodes.next_observations())
    onward[episodes.nothing_follows()] = 0.0
    number = min(blocks, len(episodes))
    episode_block = np.arange(len(episodes)) * number // len(episodes)
    block_of = episode_block[episodes.episode_of]
    first = expected[episodes.offsets[:-1]]
    parts: list[tuple[Doubles, ...]] = []
    for block in range(number):
        rows, mine = block_of == block, episode_block == block
        part = here[rows]
        parts.append(
            (
                part.T @ part,
                part.T @ onward[rows],
                part.T @ episodes.rewards[rows],
                first[mine].sum(axis=0),
                np.array(float(mine.sum())),
            )
        )
    moments = Moments(*(np.stack(column) for column in zip(*parts, strict=True)))
    return ValueData(here, expected, block_of.astype(np.float64), moments)


def fitted_q(moments: Moments, discount: float, horizon: int) -> Doubles:
    """Weights float64[H + 1, K] of ``Q_h``, the value of acting once and following the target for ``h`` steps in all.

    Fitted Q evaluation (Le, Voloshin, Yue 2019), finite horizon: ``Q_0 = 0``,
    ``Q_h = r + discount * E[Q_(h-1)(next, target's action)]``.

    Raises:
        OpeRefusedError: the values diverge.
    """
    gram, onward, reward = moments.gram.sum(axis=0), moments.onward.sum(axis=0), moments.reward.sum(axis=0)
    solved = np.linalg.solve(_ridged(gram), np.column_stack([onward, reward]))
    step, first = discount * solved[:, :-1], solved[:, -1]
    weights = np.zeros((horizon + 1, len(reward)))
    with np.errstate(over="ignore", invalid="ignore"):
        for steps in range(1, horizon + 1):
            weights[steps] = first + step @ weights[steps - 1]
    if not np.isfinite(weights).all() or np.abs(weights).max() > 1e12:
        raise OpeRefusedError(
            "fitted Q evaluation diverges on this log; shorten the horizon or log more episodes"
        )
    return weights


def start_value(moments: Moments, weights: Doubles) -> float:
    """Mean value of the first step, for the weights float64[K] of a Q."""
    return float(moments.start.sum(axis=0) @ weights / moments.starts.sum())


def weighted_returns(
    episodes: LoggedEpisodes, step_log: Doubles, discount: float, horizon: int
) -> tuple[Doubles, Doubles]:
    """Importance-weighted return of the next ``horizon`` steps from each step, float64[T], and where it is known.

    The first action's ratio is left out: it is the action that Q is asked about (Q-Reg: Farajtabar, Chow,
    Ghavamzadeh 2018; Voloshin et al. 2019).
    """
    ratio = np.exp(np.minimum(step_log, 700.0))
    last = episodes.offsets[1:] - 1
    target = np.zeros(len(ratio))
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(horizon):
            onward = np.append(ratio[1:] * target[1:], 0.0)
            onward[last] = 0.0
            target = episodes.rewards + discount * onward
    ends = np.repeat(episodes.offsets[1:], episodes.lengths)
    known = np.repeat(episodes.ended, episodes.lengths) | (np.arange(len(ratio)) + horizon <= ends)
    return target, known.astype(np.float64)


def regressed_returns(data: ValueData, returns: Doubles, known: Doubles) -> Moments:
    """The moments of a regression of returns float64[T] on the features of the steps where they are known."""
    blocks = len(data.moments.starts)
    gram = np.zeros_like(data.moments.gram)
    reward = np.zeros_like(data.moments.reward)
    for block in range(blocks):
        rows = (data.block_of == block) & (known > 0.0)
        gram[block] = data.features[rows].T @ data.features[rows]
        reward[block] = data.features[rows].T @ returns[rows]
    return Moments(gram, data.moments.onward, reward, data.moments.start, data.moments.starts)


def regression(moments: Moments) -> Doubles:
    """Ridge weights float64[K]."""
    weights: Doubles = np.linalg.solve(_ridged(moments.gram.sum(axis=0)), moments.reward.sum(axis=0))
    return weights


def own_fitted_q(episodes: LoggedEpisodes, data: ValueData, discount: float, horizon: int) -> float:
    """Fitted Q evaluation of the logging policy itself, with the next actions that it took: its answer is known."""
    here, last = data.features, episodes.offsets[1:] - 1
    onward = np.vstack([here[1:], here[:1]])
    onward[last] = 0.0
    usable = np.ones(len(here), dtype=np.bool_)
    usable[last] = episodes.ended
    rows = here[usable]
    gram, products = rows.T @ rows, rows.T @ onward[usable]
    own = _own(episodes, data, gram[None], products[None], (rows.T @ episodes.rewards[usable])[None])
    return start_value(own, fitted_q(own, discount, horizon)[-1])


def own_regression(episodes: LoggedEpisodes, data: ValueData, discount: float, horizon: int) -> float:
    """The regression of the logging policy's own returns: its answer is known."""
    returns, known = weighted_returns(episodes, np.zeros(len(episodes.rewards)), discount, horizon)
    fitted = regressed_returns(data, returns, known)
    own = _own(episodes, data, fitted.gram, fitted.onward, fitted.reward)
    return start_value(own, regression(own))


def _own(
    episodes: LoggedEpisodes, data: ValueData, gram: Doubles, onward: Doubles, reward: Doubles
) -> Moments:
    first = data.features[episodes.offsets[:-1]]
    return Moments(gram, onward, reward, first.sum(axis=0)[None], np.array([float(len(first))]))


def _ridged(gram: Doubles) -> Doubles:
    return gram + RIDGE * max(1.0, float(np.trace(gram)) / len(gram)) * np.eye(len(gram))


def _expected(features: Features, target: TargetPolicy, observations: Floats) -> Doubles:
    """Features of the target's action: its mean over draws, exact where it is deterministic."""
    if target.deterministic:
        return features(observations, target.mean_action(observations))
    rng = np.random.default_rng(0)
    total = features(observations, target.sample(observations, rng))
    for _ in range(ACTION_DRAWS - 1):
        total += features(observations, target.sample(observations, rng))
    return total / ACTION_DRAWS
