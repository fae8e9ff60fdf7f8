"""How far an observation is from those of a reference drive: the same number where it is made and on the robot.

Features are the observation, with the beams of before replaced by what has changed since: each is almost the other, and
only their difference tells noise from a room. Per block (beams, changes, the rest) the mean absolute z-score is taken,
each score at most ``CAP``: a few strange beams are a new shelf, many are a new world.
"""

import numpy as np
import numpy.typing as npt

from contracts.manifest import DriftReference
from contracts.observation import BEAMS, OBSERVATION_SIZE, ROUTING_LAYOUT

Floats = npt.NDArray[np.float32]
BEFORE = ROUTING_LAYOUT.offset("beams_before")
BLOCKS = np.array([0, BEFORE, BEFORE + BEAMS])
SIZES = np.diff([*BLOCKS, OBSERVATION_SIZE])
CAP = 5.0
STD_MIN = 1e-3
RARE_SHARE = 0.999
DIGITS = 6


def _scores(observations: Floats, mean: Floats, std: Floats) -> npt.NDArray[np.float64]:
    """Mean absolute z-scores float64[n, 3] of observations float32[n, 83]."""
    z = np.minimum(np.abs((_features(observations) - mean) / std), CAP)
    scores: npt.NDArray[np.float64] = np.add.reduceat(z, BLOCKS, axis=1) / SIZES
    return scores


def _features(observations: Floats) -> npt.NDArray[np.float64]:
    found = observations.astype(np.float64)
    found[:, BEFORE : BEFORE + BEAMS] = observations[:, :BEAMS] - observations[:, BEFORE : BEFORE + BEAMS]
    return found


def drift_reference(observations: Floats) -> DriftReference:
    """What is usual in observations float32[n, 83] of an ordinary drive."""
    features = _features(observations)
    mean, std = features.mean(axis=0), features.std(axis=0) + STD_MIN
    scores = _scores(observations, mean, std)
    rare = np.quantile(scores, RARE_SHARE, axis=0)
    typical = np.median(scores, axis=0)
    parts = ([float(f"{value:.{DIGITS}g}") for value in part] for part in (mean, std, typical, rare))
    return DriftReference(*(tuple(part) for part in parts))


class Novelty:
    """Of one policy's reference. ``of`` reuses its buffers: one thread at a time.

    A value of 0 is typical, 2 as strange as one observation in a thousand of the reference drive;
    ``safety.config.WatchConfig.novelty_max`` says how much lasting strangeness sends the policy home.
    """

    def __init__(self, reference: DriftReference) -> None:
        typical, rare = np.array(reference.typical), np.array(reference.rare)
        half = 0.5 * (rare - typical)
        before = slice(BEFORE, BEFORE + BEAMS)
        self._mean = np.array(reference.mean, dtype=np.float32)
        self._mean[before] *= -1.0  # what is taken from the beams is: before, and the usual change
        self._inverse_std = (1.0 / np.array(reference.std)).astype(np.float32)
        self._cap = np.full(OBSERVATION_SIZE, CAP, dtype=np.float32)
        # A column more for what is typical, times one.
        self._weights = np.zeros((len(BLOCKS), OBSERVATION_SIZE + 1), dtype=np.float32)
        self._weights[:, -1] = -typical / half
        for row, (begin, size) in enumerate(zip(BLOCKS, SIZES, strict=True)):
            self._weights[row, begin : begin + size] = 1.0 / (size * half[row])
        self._scores = np.ones(OBSERVATION_SIZE + 1, dtype=np.float32)
        self._work = self._scores[:-1]
        self._change = self._work[before]
        self._blocks = np.empty(len(BLOCKS), dtype=np.float32)

    def of(self, observation: Floats) -> float:
        """The novelty of an observation float32[83]: that of its strangest block; NaN where it holds one."""
        work, change, blocks = self._work, self._change, self._blocks
        np.subtract(observation, self._mean, work)
        np.subtract(observation[:BEAMS], change, change)
        np.multiply(work, self._inverse_std, work)
        np.absolute(work, work)
        np.minimum(work, self._cap, out=work)
        np.dot(self._weights, self._scores, blocks)  # what is not a number makes every block none
        novelty: float = max(blocks.tolist())
        return novelty
