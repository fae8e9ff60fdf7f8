"""Domain randomisation: what may differ from robot to robot and from crowd to crowd, as a typed config.

Tobin et al. 2017, Peng et al. 2018: a policy that has met many slightly wrong worlds drives in one more.
"""

import math
from typing import Annotated

import msgspec

from contracts.canonical import hash_of
from sim.errors import SimConfigError

Pair = tuple[float, float]
Steps = tuple[Annotated[int, msgspec.Meta(ge=0, le=3)], Annotated[int, msgspec.Meta(ge=0, le=3)]]


class Crowd(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Number, speed and manners of the people; each person draws its own within these."""

    present: Pair = (1.0, 1.0)
    """Share of a floor's people that is there."""
    pace_mps: Pair = (0.6, 1.4)
    polite_share: float = 0.7
    """Share that halts ``polite_gap_m`` before a robot; of the rest, half halt late and half do not."""
    polite_gap_m: float = 0.6
    late_gap_m: float = 0.2
    group_share: float = 0.2
    """Share that walks beside somebody else."""
    lurker_share: float = 0.15
    """Share that stands behind the end of a shelf and steps out when a robot comes near."""
    stops_per_s: float = 0.03
    """How often somebody stops on the way, for no reason a robot could see."""
    pause_max_s: float = 6.0


class Randomisation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ranges (lowest, highest) that a robot's properties are drawn from at each trip; all uniform."""

    drive_lag_s: Pair = (0.0, 0.08)
    """Time constant of the drive's answer to a command."""
    speed_scale: Pair = (0.95, 1.03)
    """True over commanded speed: worn or wrongly measured wheels."""
    turn_scale: Pair = (0.94, 1.06)
    payload_kg: Pair = (0.0, 20.0)
    friction: Pair = (0.9, 1.0)
    """Share of the model's acceleration and braking that the floor lets through."""
    lidar_noise_m: Pair = (0.0, 0.02)
    """Standard deviation of a range."""
    lidar_dropout: Pair = (0.0, 0.01)
    """Chance that a ray gives nothing."""
    lidar_bias_m: Pair = (-0.02, 0.02)
    blind_rad: Pair = (0.0, 0.12)
    """Width of a sector behind the robot that gives nothing."""
    odometry_speed_scale: Pair = (0.97, 1.03)
    odometry_turn_scale: Pair = (0.97, 1.03)
    localisation_m: Pair = (0.0, 0.05)
    """Standard deviation of the estimated place, wandering within seconds."""
    localisation_rad: Pair = (0.0, 0.02)
    observation_delay_steps: Steps = (0, 1)
    action_delay_steps: Steps = (0, 1)
    crowd: Crowd = Crowd()

    def check(self) -> "Randomisation":
        """Return self when every range is in order.

        Raises:
            SimConfigError: naming the range.
        """
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, tuple) and not -math.inf < value[0] <= value[1] < math.inf:
                raise SimConfigError(f"{name} is {value}; it must be a lowest and a highest value, in order")
        for name in ("speed_scale", "turn_scale", "friction", "odometry_speed_scale", "odometry_turn_scale"):
            if not getattr(self, name)[0] >= 0.1 or not getattr(self, name)[1] <= 2.0:
                raise SimConfigError(f"{name} is {getattr(self, name)}; it must lie within 0.1 and 2")
        for name in ("drive_lag_s", "payload_kg", "lidar_noise_m", "lidar_dropout", "blind_rad"):
            if getattr(self, name)[0] < 0.0:
                raise SimConfigError(f"{name} is {getattr(self, name)}; it must not be negative")
        if not 0.0 <= self.crowd.present[0] <= self.crowd.present[1] <= 1.0:
            raise SimConfigError(f"crowd.present is {self.crowd.present}; it must lie within 0 and 1")
        return self

    def scaled(self, share: float) -> "Randomisation":
        """The same with every range shrunk towards its nominal value; 0 is none, 1 is all, for a curriculum."""
        changed = {}
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, tuple):
                nominal = 1.0 if name.endswith("scale") or name == "friction" else 0.0
                shrunk = [nominal + share * (bound - nominal) for bound in value]
                steps = name.endswith("steps")
                changed[name] = (int(shrunk[0]), round(shrunk[1])) if steps else (shrunk[0], shrunk[1])
        return msgspec.structs.replace(self, **changed)

    def hash(self) -> str:
        """The config's version: SHA-256 over its canonical JSON."""
        return hash_of(self)


NOMINAL = Randomisation().scaled(0.0)
