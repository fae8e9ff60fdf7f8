"""Observation and action layout: what a policy is given and what it answers, with units and ranges.

The layout's hash is its version. It is in every bundle's manifest; a robot refuses a bundle made for another.
"""

import msgspec

from contracts.canonical import hash_of

BEAMS = 36
CARROT_DISTANCES_M = (0.6, 1.5, 3.0)


class Field(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One named block of the observation or action vector; every value lies in [low, high]."""

    name: str
    size: int
    unit: str
    low: float
    high: float
    frame: str = ""
    about: str = ""


class ObservationLayout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The order, units and ranges of the observation (float32[size]) and of the command (float32[2])."""

    version: int
    history_interval_s: float
    observation: tuple[Field, ...]
    command: tuple[Field, ...]

    @property
    def size(self) -> int:
        """Length of the observation vector."""
        return sum(field.size for field in self.observation)

    def offset(self, name: str) -> int:
        """Index of the first value of the observation field ``name``; KeyError when there is none."""
        start = 0
        for field in self.observation:
            if field.name == name:
                return start
            start += field.size
        raise KeyError(name)

    def hash(self) -> str:
        """The layout's version: SHA-256 over its canonical JSON."""
        return hash_of(self)


def routing_layout(range_max_m: float = 8.0) -> ObservationLayout:
    """The layout of the routing policy for a lidar that sees ``range_max_m`` far."""
    reach_m = max(CARROT_DISTANCES_M)
    return ObservationLayout(
        version=1,
        history_interval_s=0.1,
        observation=(
            Field("beams", BEAMS, "m", 0.0, range_max_m, "base", "nearest return in each 10 degree sector"),
            Field("beams_before", BEAMS, "m", 0.0, range_max_m, "base", "the same, one interval ago"),
            Field(
                "carrots", 2 * len(CARROT_DISTANCES_M), "m", -reach_m, reach_m, "base", "x, y on the route"
            ),
            Field("goal", 2, "m", -20.0, 20.0, "base", "x, y of the goal"),
            Field("route_left", 1, "m", 0.0, 60.0, "", "cost of the route that is left"),
            Field("speed", 1, "m/s", -2.0, 2.0, "base"),
            Field("turn_rate", 1, "rad/s", -4.0, 4.0, "base"),
        ),
        command=(
            Field("speed", 1, "m/s", -2.0, 2.0, "base"),
            Field("turn_rate", 1, "rad/s", -4.0, 4.0, "base"),
        ),
    )


ROUTING_LAYOUT = routing_layout()
OBSERVATION_SIZE = ROUTING_LAYOUT.size
COMMAND_SIZE = 2
