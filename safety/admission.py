"""Which part of a command may pass, given what the lidar sees. One robot, numpy with preallocated buffers."""

import numpy as np
import numpy.typing as npt

from contracts.robot import RobotModel
from safety.config import MonitorConfig
from safety.geometry import STILL_MPS, Arc, Points, speed_cap
from safety.movers import RATE_MAX

MOVING_MPS = 0.05
"""Measured speed in m/s above which the arc the robot is on counts too, not only the commanded one."""
BETWEEN = (0.25, 0.5, 0.75)
"""Parts of a change of turn rate at which the way is looked at as well."""


class Admission:
    """Reduces commands so that braking stays possible along the commanded arc and along the present one.

    A footprint is one disc or several; each has its own path and its own speed, the most restricted one rules.
    ``sim.twin.guard.admit_one`` is the same, compiled.

    Args:
        config: the monitor's settings.
        model: footprint, braking and lidar.
    """

    def __init__(self, config: MonitorConfig, model: RobotModel) -> None:
        self._config, self._braking_mps2, self._offsets_m = (
            config,
            model.braking_mps2,
            model.footprint_offsets_m,
        )
        lidar = model.lidar
        angles = lidar.angle_min_rad + np.arange(lidar.rays) * lidar.angle_step_rad
        self._directions = np.cos(angles), np.sin(angles)
        self._radius_m = model.footprint_radius_m + config.margin_m
        self._ranges = np.empty(lidar.rays)
        self._points = Points(lidar.rays)
        self._known: dict[Arc, float] = {}
        """Free ways of this call: the arc that is wanted is often the one the robot is on."""

    def see(self, ranges_m: npt.NDArray[np.float32]) -> None:
        """Take over a scan, float32[rays] m, clean (``safety.scan``)."""
        self._ranges[:] = ranges_m
        self._points.put(self._ranges, self._directions)

    def admit(
        self, command: tuple[float, float], velocity: tuple[float, float], scan_age_s: float
    ) -> tuple[float, float, float]:
        """What of ``command`` may pass after the last scan that was seen.

        Args:
            command: speed m/s and turn rate rad/s, finite.
            velocity: the same, measured, finite.
            scan_age_s: s.

        Returns:
            Speed and turn rate, nowhere larger than ``command``, and the free distance in m along the more
            restrictive arc.
        """
        config, known = self._config, self._known
        known.clear()
        speed, turn_rate = command
        if not max(abs(speed), abs(turn_rate), abs(velocity[0]), abs(velocity[1])) <= RATE_MAX:
            return 0.0, 0.0, 0.0  # No robot's: paces overflow, and nothing is known of the way.
        moving = velocity[0] if abs(velocity[0]) > MOVING_MPS else 0.0
        reaction_s = config.reaction_s + scan_age_s
        share, turn_share, least_m = 1.0, 1.0, config.reach_m
        for offset_m in self._offsets_m:
            wanted, now = Arc(speed, turn_rate, offset_m), Arc(moving, velocity[1], offset_m)
            free_m, now_m = self._free(wanted), self._free(now)
            cap = self._cap(wanted, free_m, reaction_s)
            if speed * moving > 0.0:
                cap = min(cap, self._cap(now, now_m, reaction_s))
            if (pace := wanted.pace) > 0.0:
                share = min(share, cap / pace)
            least_m = min(least_m, free_m, now_m)
            if offset_m == 0.0:
                continue  # Turning, it stays where it is.
            turning = Arc(0.0, turn_rate, offset_m)
            if (pace := turning.pace) > 0.0:
                turn_share = min(turn_share, self._cap(turning, self._free(turning), reaction_s) / pace)
        if speed == 0.0 or share < config.turn_on_the_spot_below:
            return 0.0, turn_rate * turn_share, least_m
        return speed * share, turn_rate * share, least_m

    def between(
        self, command: tuple[float, float], turn_rate: float, scan_age_s: float
    ) -> tuple[float, float]:
        """What of ``command`` may pass while the robot turns over to it from the measured ``turn_rate``, rad/s.

        Both ends of a quick change of direction can be free, and the way straight on between them not.

        Returns:
            Speed and turn rate, nowhere larger than ``command``.
        """
        speed, wanted = command
        turns = [turn_rate + part * (wanted - turn_rate) for part in BETWEEN]
        share = min(self.room((speed, turn), scan_age_s) for turn in turns)
        if share < self._config.turn_on_the_spot_below:
            return 0.0, wanted
        return speed * share, wanted * share

    def room(self, motion: tuple[float, float], scan_age_s: float) -> float:
        """The share, 0 to 1, of ``motion`` (m/s, rad/s) at which a base on that arc can still brake."""
        reaction_s, share = self._config.reaction_s + scan_age_s, 1.0
        self._known.clear()
        for offset_m in self._offsets_m:
            arc = Arc(*motion, offset_m)
            if (pace := arc.pace) > 0.0:
                share = min(share, self._cap(arc, self._free(arc), reaction_s) / pace)
        return share

    def _free(self, arc: Arc) -> float:
        """Free distance in m along an arc; the full reach for a disc that stands still. Of equal ones asked once."""
        free_m = self._known.get(arc)
        if free_m is None:
            reach_m = self._config.reach_m
            free_m = self._points.free_distance(arc, self._radius_m, reach_m) if arc.pace > 0.0 else reach_m
            self._known[arc] = free_m
        return free_m

    def _cap(self, arc: Arc, free_m: float, reaction_s: float) -> float:
        """Speed in m/s that the free distance leaves to a disc.

        Only the part of its motion that is the base's own way is taken to be met by something that closes in.
        """
        config = self._config
        closing_mps = config.obstacle_mps * abs(arc.speed) / max(arc.pace, STILL_MPS)
        return speed_cap(free_m - config.standoff_m, self._braking_mps2, reaction_s, closing_mps)
