"""How strange a policy's observations are to it, reckoned at the hub: what ``navigation.novelty`` says on the robot.

The hub imports no room, and takes many rows at once; a test holds the two to the same numbers.
"""

import numpy as np
import numpy.typing as npt

from contracts.manifest import DriftReference
from contracts.observation import BEAMS, OBSERVATION_SIZE, ROUTING_LAYOUT

ROWS_AT_ONCE = 4096
_BEFORE = ROUTING_LAYOUT.offset("beams_before")
_BLOCKS = np.array([0, _BEFORE, _BEFORE + BEAMS])
_SIZES = np.diff([*_BLOCKS, OBSERVATION_SIZE])
_CAP = 5.0


class Drift:
    """Of one policy's reference. A value of 0 is usual, 2 as strange as one observation in a thousand."""

    def __init__(self, reference: DriftReference) -> None:
        self._mean = np.array(reference.mean, np.float32)
        self._inverse_std = (1.0 / np.array(reference.std)).astype(np.float32)
        typical = np.array(reference.typical)
        self._typical, self._half = typical, 0.5 * (np.array(reference.rare) - typical)

    def of(self, observations: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Novelty float64[n] of observations float32[n, 83]; NaN for one that holds a NaN."""
        parts = [
            self._some(observations[at : at + ROWS_AT_ONCE])
            for at in range(0, len(observations), ROWS_AT_ONCE)
        ]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _some(self, observations: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        seen = observations.copy()
        seen[:, _BEFORE : _BEFORE + BEAMS] = (
            observations[:, :BEAMS] - observations[:, _BEFORE : _BEFORE + BEAMS]
        )
        scores = np.minimum(np.abs((seen - self._mean) * self._inverse_std), _CAP)
        blocks = np.add.reduceat(scores, _BLOCKS, axis=1, dtype=np.float64) / _SIZES
        novelty: npt.NDArray[np.float64] = ((blocks - self._typical) / self._half).max(axis=1)
        return novelty
