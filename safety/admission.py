"""Which part of a command may pass, given what the lidar sees. Pure numpy, one robot or a batch."""

import math

import numpy as np
import numpy.typing as npt

from contracts.robot import RobotModel
from safety.config import MonitorConfig
from safety.geometry import approach_gap, free_distance, seen_from_disc, speed_cap

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
    if model.round:
        return _admit_round(
            config, model, points_x, points_y, command, velocity, config.reaction_s + scan_age_s
        )
    return _admit_long(config, model, points_x, points_y, command, velocity, config.reaction_s + scan_age_s)


def _admit_round(
    config: MonitorConfig,
    model: RobotModel,
    points_x: Array,
    points_y: Array,
    command: Array,
    velocity: Array,
    reaction_s: Array,
) -> tuple[Array, Array]:
    radius = np.full(command.shape[:-1], model.footprint_radius_m + config.margin_m)
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
    cap = np.minimum(cap, _approach_cap(config, model, points_x, points_y, speed))
    size = np.abs(speed)
    share = np.minimum(1.0, cap / np.where(size > 0.0, size, 1.0))
    share = np.where(size > 0.0, share, 1.0)
    creeping = share < config.turn_on_the_spot_below
    admitted = np.empty_like(command)
    admitted[..., 0] = np.where(creeping, 0.0, speed * share)
    admitted[..., 1] = np.where(creeping, turn_rate, turn_rate * share)
    return admitted, np.minimum(free_m, free_now_m)


def _approach_cap(
    config: MonitorConfig, model: RobotModel, points_x: Array, points_y: Array, speed: Array
) -> Array:
    """Speed that the gap in the approach sector allows, float64[...] m/s; seen from the leading end."""
    ends = model.footprint_offsets_m
    leading_m = np.where(speed >= 0.0, max(ends), min(ends))[..., None]
    gap_m = approach_gap(
        points_x - leading_m, points_y, speed, math.cos(config.approach_sector_rad), model.footprint_radius_m
    )
    return np.maximum(config.approach_per_s * gap_m, config.approach_mps)


def _admit_long(
    config: MonitorConfig,
    model: RobotModel,
    points_x: Array,
    points_y: Array,
    command: Array,
    velocity: Array,
    reaction_s: Array,
) -> tuple[Array, Array]:
    """Each disc of the footprint has its own path and its own speed; the most restricted one rules.

    Only the part of a disc's motion that is the base's own way is taken to be met by something that closes in.
    """
    speed, turn_rate = command[..., 0], command[..., 1]
    moving = np.where(np.abs(velocity[..., 0]) > MOVING_MPS, velocity[..., 0], 0.0)
    same_way = speed * moving > 0.0
    approach = _approach_cap(config, model, points_x, points_y, speed)
    size = np.abs(speed)
    share = np.where(size > 0.0, np.minimum(1.0, approach / np.where(size > 0.0, size, 1.0)), 1.0)
    turn_share = np.ones_like(share)
    free_m = np.full(share.shape, config.reach_m)
    for offset_m in model.footprint_offsets_m:

        def allowed(v: Array, w: Array, offset_m: float = offset_m) -> tuple[Array, Array, Array]:
            x, y, pace = seen_from_disc(points_x, points_y, v, w, offset_m)
            radius = np.full(pace.shape, model.footprint_radius_m + config.margin_m)
            free = free_distance(x, y, pace, w, radius, config.reach_m)
            moves = np.where(pace > 0.0, pace, 1.0)
            closing = config.obstacle_mps * np.abs(v) / moves
            return free, pace, speed_cap(free - config.standoff_m, model.braking_mps2, reaction_s, closing)

        free, pace, cap = allowed(speed, turn_rate)
        free_now, _, cap_now = allowed(moving, velocity[..., 1])
        cap = np.where(same_way, np.minimum(cap, cap_now), cap)
        share = np.minimum(share, np.where(pace > 0.0, cap / np.where(pace > 0.0, pace, 1.0), 1.0))
        _, turning, turn_cap = allowed(np.zeros_like(speed), turn_rate)
        turn_share = np.minimum(
            turn_share, np.where(turning > 0.0, turn_cap / np.where(turning > 0.0, turning, 1.0), 1.0)
        )
        free_m = np.minimum(free_m, np.minimum(free, free_now))
    on_the_spot = (size == 0.0) | (share < config.turn_on_the_spot_below)
    admitted = np.empty_like(command)
    admitted[..., 0] = np.where(on_the_spot, 0.0, speed * share)
    admitted[..., 1] = turn_rate * np.where(on_the_spot, turn_share, share)
    return admitted, free_m
