"""Which part of a command may pass, given what the lidar sees. Pure numpy, one robot or a batch."""

import math

import numpy as np
import numpy.typing as npt

from contracts.robot import RobotModel
from safety.config import MonitorConfig
from safety.geometry import approach_gap, free_distance, speed_cap

Array = npt.NDArray[np.float64]
MOVING_MPS = 0.05
"""Measured speed in m/s above which the arc the robot is on counts too, not only the commanded one."""


def admit(
    config: MonitorConfig,
    model: RobotModel,
    points_x: Array,
    points_y: Array,
    command: Array,
    velocity: Array,
    scan_age_s: Array,
) -> tuple[Array, Array]:
    """Reduce commands so that braking stays possible along the commanded arc and along the present one.

    Args:
        config: the monitor's settings.
        model: footprint and braking.
        points_x, points_y: float64[..., n] m in the base frame, what the lidar sees.
        command: float64[..., 2] speed m/s and turn rate rad/s, finite.
        velocity: float64[..., 2] the same, measured.
        scan_age_s: float64[...] s.

    Returns:
        The admitted command float64[..., 2], nowhere larger than ``command``, and the free distance in m
        along the more restrictive arc, float64[...].
    """
    radius = np.full(command.shape[:-1], model.footprint_radius_m + config.margin_m)
    reaction_s = config.reaction_s + scan_age_s
    speed, turn_rate = command[..., 0], command[..., 1]
    moving = np.where(np.abs(velocity[..., 0]) > MOVING_MPS, velocity[..., 0], 0.0)
    # The commanded arc and the present one, side by side: one pass over the points serves both.
    speeds = np.stack([speed, moving])
    turn_rates = np.stack([turn_rate, velocity[..., 1]])
    free_m, free_now_m = free_distance(points_x, points_y, speeds, turn_rates, radius, config.reach_m)
    cap, cap_now = speed_cap(
        np.stack([free_m, free_now_m]) - config.standoff_m,
        model.braking_mps2,
        reaction_s,
        config.obstacle_mps,
    )
    same_way = speed * moving > 0.0
    cap = np.where(same_way, np.minimum(cap, cap_now), cap)
    gap_m = approach_gap(
        points_x, points_y, speed, math.cos(config.approach_sector_rad), model.footprint_radius_m
    )
    cap = np.minimum(cap, np.maximum(config.approach_per_s * gap_m, config.approach_mps))
    size = np.abs(speed)
    share = np.minimum(1.0, cap / np.where(size > 0.0, size, 1.0))
    share = np.where(size > 0.0, share, 1.0)
    creeping = share < config.turn_on_the_spot_below
    admitted = np.empty_like(command)
    admitted[..., 0] = np.where(creeping, 0.0, speed * share)
    admitted[..., 1] = np.where(creeping, turn_rate, turn_rate * share)
    return admitted, np.minimum(free_m, free_now_m)
