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
    """A differential-drive robot; its footprint is one disc, or several equal ones in a row along its x axis."""

    name: str = "amr_small"
    footprint_radius_m: float = 0.30
    footprint_offsets_m: tuple[float, ...] = (0.0,)
    """Centres of the discs along x in the base frame, from the rear to the front."""
    height_m: float = 0.35
    speed_max_mps: float = 1.2
    reverse_max_mps: float = 0.3
    turn_rate_max_radps: float = 1.8
    acceleration_max_mps2: float = 1.2
    braking_mps2: float = 1.6
    turn_acceleration_max_radps2: float = 5.0
    mass_kg: float = 30.0
    wheel_radius_m: float = 0.08
    wheel_track_m: float = 0.40
    """Between the driven wheels' contact points."""
    lidar: LidarModel = LidarModel()

    @property
    def reach_m(self) -> float:
        """Distance from the base frame's origin to the farthest point of the footprint."""
        return self.footprint_radius_m + max(abs(offset) for offset in self.footprint_offsets_m)

    @property
    def round(self) -> bool:
        """Whether it can always turn on the spot."""
        return self.footprint_offsets_m == (0.0,)

    def hash(self) -> str:
        """The model's version: SHA-256 over its canonical JSON."""
        return hash_of(self)


AMR_SMALL = RobotModel()
TUGGER = RobotModel(
    name="tugger",
    footprint_radius_m=0.30,
    footprint_offsets_m=(-0.30, 0.0, 0.30),
    height_m=0.45,
    turn_rate_max_radps=1.2,
    acceleration_max_mps2=0.8,
    braking_mps2=1.3,
    turn_acceleration_max_radps2=3.0,
    mass_kg=80.0,
    wheel_radius_m=0.10,
    wheel_track_m=0.48,
)
"""A long one, 1.2 m by 0.6 m, driven in the middle: where it turns, both of its ends swing out."""
ROBOT_MODELS = {model.name: model for model in (AMR_SMALL, TUGGER)}
