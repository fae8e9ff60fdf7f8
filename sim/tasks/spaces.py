"""The task's Gymnasium spaces, the same for one environment and for a batch."""

from typing import Any

import gymnasium
import numpy as np

from contracts.observation import ROUTING_LAYOUT


def observation_space() -> "gymnasium.spaces.Box[Any]":
    """Box float32[83] with the ranges of the observation layout."""
    low = np.concatenate([np.full(field.size, field.low) for field in ROUTING_LAYOUT.observation])
    high = np.concatenate([np.full(field.size, field.high) for field in ROUTING_LAYOUT.observation])
    return gymnasium.spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)


def action_space() -> "gymnasium.spaces.Box[Any]":
    """Box float32[2] in [-1, 1]: see ``navigation.action``."""
    return gymnasium.spaces.Box(-1.0, 1.0, (2,), dtype=np.float32)
