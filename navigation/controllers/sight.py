"""What a rule-based controller may believe of its beams."""

import numpy as np
import numpy.typing as npt

from contracts.observation import BEAMS, ROUTING_LAYOUT
from contracts.robot import RobotModel

BLIND_SHARE = 0.5
"""Nothing can stand nearer to the lidar than this share of the footprint's radius."""


def over_blind_sectors(observations: npt.NDArray[np.float32], model: RobotModel) -> npt.NDArray[np.float32]:
    """Observations float32[..., 83] in which a sector the lidar does not see is taken as empty; a copy if one is.

    An invalid sector reads as the lidar's shortest range, inside the robot itself. A controller that took it
    for an obstacle would never move again; the monitor stops every motion towards it in any case.
    """
    beams = observations[..., : 2 * BEAMS]
    blind = beams < BLIND_SHARE * model.footprint_radius_m
    if not blind.any():
        return observations
    seen = observations.copy()
    seen[..., : 2 * BEAMS][blind] = ROUTING_LAYOUT.observation[0].high
    return seen
