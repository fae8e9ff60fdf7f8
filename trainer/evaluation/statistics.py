"""Intervals and tests for paired episodes. Trips of one episode share floor, people and each other's way, so whole
clusters are resampled, never single trips (Efron and Tibshirani 1993, ch. 8)."""

import math
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, ndtr, ndtri, stdtrit

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
SAMPLES = 4000
BATCH = 500
CLUSTERS_FEW = 10
"""Below this many clusters a bootstrap knows too little of how different they can be."""


class Interval(msgspec.Struct, frozen=True):
    """A value with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


class Excess(msgspec.Struct, frozen=True):
    """Contact rate minus the reference's, and the one-sided 95 % upper bound of the difference."""

    value: float
    high95: float
    margin: float

    @property
    def shown(self) -> bool:
        """Whether non-inferiority is shown."""
        return self.high95 < self.margin

    @property
    def verdict(self) -> str:
        """In words."""
        bound = f"upper 95 % bound {self.high95:+.2%}, margin {self.margin:.2%}"
        if self.shown:
            return f"no more contacts than the reference: shown ({bound})"
        if self.value > self.margin:
            return f"more contacts than the reference ({self.value:+.2%}; {bound})"
        return f"no more contacts than the reference: NOT shown ({bound}); drive more trips"


class Counts(NamedTuple):
    """Events among trips."""

    events: int
    trips: int


def exact_interval(counts: Counts) -> Interval:
    """Clopper-Pearson 95 % interval of a share (Clopper, Pearson 1934); counts trips as independent."""
    k, n = counts
    assert 0 <= k <= n, f"{k} of {n}"
    assert n > 0, "no trips"
    low = float(betaincinv(k, n - k + 1, 0.025)) if k else 0.0
    high = float(betaincinv(k + 1, n - k, 0.975)) if k < n else 1.0
    return Interval(k / n, low, high)


def mean_interval(clusters: Floats, seed: int = 0) -> Interval:
    """Mean of float64[n] cluster means of equal size, with a bootstrap interval over clusters."""
    draws = np.random.default_rng(seed).integers(len(clusters), size=(SAMPLES, len(clusters)))
    return _percentiles(float(clusters.mean()), clusters[draws].mean(axis=1), len(clusters))


def gain(reference: Floats, others: Floats, seed: int = 0) -> Interval:
    """Share of time saved, ``1 - mean(others) / mean(reference)``, with its interval.

    Training seeds and clusters are crossed (every seed drives all of them), so both are drawn with replacement,
    independently (the pigeonhole bootstrap, Owen 2007); with one seed that is the cluster bootstrap.

    Args:
        reference: float64[n], mean capped time of each cluster.
        others: float64[seeds, n], of the policies, in the same order.
        seed: of the draws.
    """
    value = 1.0 - float(others.mean()) / float(reference.mean())
    shares = [1.0 - new / old for old, new in _draws(reference, others, seed)]
    return _percentiles(value, np.concatenate(shares), len(reference))


def excess(reference: Floats, others: Floats, trips: int, margin: float, seed: int = 0) -> Excess:
    """Difference in contact rate against the reference, and a bound that is honest where contacts are rare.

    The bound is the larger of two: the bootstrap's 95 % quantile, which knows of clusters but says 0 when nothing has
    happened yet; and Newcombe's hybrid score bound (1998, method 10), which knows how little none in n says.

    Args:
        reference: float64[n], contact rate of each cluster.
        others: float64[seeds, n].
        trips: of one controller.
        margin: up to which a difference does not matter.
        seed: of the draws.
    """
    differences = np.concatenate([new - old for old, new in _draws(reference, others, seed)])
    new = Counts(round(float(others.mean(axis=1).sum()) * trips), trips * len(others))
    old = Counts(round(float(reference.mean()) * trips), trips)
    value = float(others.mean() - reference.mean())
    high = max(float(np.quantile(differences, _level(0.95, len(reference)))), newcombe_high95(new, old))
    return Excess(value, high, margin)


def newcombe_high95(new: Counts, old: Counts) -> float:
    """One-sided 95 % upper bound of the rate of ``new`` minus that of ``old`` (Newcombe 1998, method 10)."""
    rate_new, rate_old = new.events / new.trips, old.events / old.trips
    up = _wilson(new, 1.0) - rate_new
    down = rate_old - _wilson(old, -1.0)
    return rate_new - rate_old + math.hypot(up, down)


def _wilson(counts: Counts, sign: float) -> float:
    """One end of Wilson's score interval (1927), one-sided 95 %."""
    z, n = float(ndtri(0.95)), counts.trips
    rate = counts.events / n
    spread = z * math.sqrt(rate * (1.0 - rate) / n + z * z / (4.0 * n * n))
    return (rate + z * z / (2.0 * n) + sign * spread) / (1.0 + z * z / n)


def _draws(reference: Floats, others: Floats, seed: int) -> list[tuple[Floats, Floats]]:
    """Means of reference and others over drawn clusters and seeds, float64[BATCH] each, ``SAMPLES`` in all."""
    assert others.shape[1:] == reference.shape, f"{others.shape} against {reference.shape}"
    rng = np.random.default_rng(seed)
    seeds, clusters = others.shape
    drawn = []
    for _ in range(SAMPLES // BATCH):
        which = rng.integers(clusters, size=(BATCH, clusters))
        rows = rng.integers(seeds, size=(BATCH, seeds))
        new = others[rows[:, :, None], which[:, None, :]].mean(axis=(1, 2))
        drawn.append((reference[which].mean(axis=1), new))
    return drawn


def _percentiles(value: float, samples: Floats, clusters: int) -> Interval:
    high = _level(0.975, clusters)
    return Interval(value, *(float(end) for end in np.quantile(samples, (1.0 - high, high))))


def _level(wanted: float, clusters: int) -> float:
    """Quantile to take so that few clusters do not promise too much: the expanded percentile (Hesterberg 2015)."""
    if clusters < 2:
        return wanted
    return float(ndtr(math.sqrt(clusters / (clusters - 1)) * stdtrit(clusters - 1, wanted)))
