"""What kind of robot this is: its shape, its limits and its lidar. Trained for and driven with the same."""

import math

import msgspec

from contracts.canonical import hash_of


class LidarModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A planar lidar at the robot's centre; ray ``i`` points at ``angle_min_rad + i * angle_step_rad``.

    Angles are in the robot's base frame, counter-clockwise, zero ahead (REP 103).
    """

    rays: int = 180
    angle_min_rad: float = -math.pi
    range_min_m: float = 0.05
    range_max_m: float = 8.0

    @property
    def angle_step_rad(self) -> float:
        """Angle between neighbouring rays in rad; the rays cover the full circle once."""
        return 2.0 * math.pi / self.rays


class RobotModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A differential-drive robot with a circular footprint centred on its base frame."""

    name: str = "amr_small"
    footprint_radius_m: float = 0.30
    height_m: float = 0.35
    speed_max_mps: float = 1.2
    reverse_max_mps: float = 0.3
    turn_rate_max_radps: float = 1.8
    acceleration_max_mps2: float = 1.2
    braking_mps2: float = 1.6
    turn_acceleration_max_radps2: float = 5.0
    lidar: LidarModel = LidarModel()

    def hash(self) -> str:
        """The model's version: SHA-256 over its canonical JSON."""
        return hash_of(self)


AMR_SMALL = RobotModel()
ROBOT_MODELS = {AMR_SMALL.name: AMR_SMALL}
