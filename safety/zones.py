"""Zones of the map that a robot keeps out of, stays in or drives slowly in; looked at a braking distance ahead."""

import math
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.decision import Reason
from contracts.robot import RobotModel
from safety.config import MonitorConfig, WatchConfig
from safety.errors import ZoneError
from safety.geometry import speed_cap

Array = npt.NDArray[np.float64]
Pair = tuple[float, float]
SAMPLES = 24
"""Places looked at along the way ahead; what it is refused for is taken to begin one place earlier."""
DEEPER_M = 1e-6
REASONS = {"keep_out": Reason.KEEP_OUT, "stay_in": Reason.STAY_IN, "speed_limit": Reason.SPEED_ZONE}


class Zone(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A polygon in the map frame, m, without holes. ``keep_out`` and ``stay_in`` hold for the whole footprint."""

    kind: Literal["keep_out", "stay_in", "speed_limit"]
    corners_m: tuple[Pair, ...]
    speed_mps: float | None = None
    """Of a ``speed_limit``: the most that is driven in it."""

    def check(self) -> "Zone":
        """Return self when it is a zone.

        Raises:
            ZoneError: fewer than three corners, two in one place, no area, a number not finite, or a speed missing,
                not above zero or out of place.
        """
        corners = np.array(self.corners_m, dtype=np.float64).reshape(-1, 2)
        if len(corners) < 3 or not np.isfinite(corners).all():
            raise ZoneError(f"a {self.kind} zone needs three finite corners or more, came {self.corners_m}")
        after = np.roll(corners, -1, axis=0)
        area_m2 = 0.5 * abs(float(np.sum(corners[:, 0] * after[:, 1] - corners[:, 1] * after[:, 0])))
        if (corners == after).all(axis=1).any() or area_m2 < 1e-6:
            raise ZoneError(f"a {self.kind} zone needs an area and no corner twice, came {self.corners_m}")
        if self.kind == "speed_limit":
            if self.speed_mps is None or not math.isfinite(self.speed_mps) or self.speed_mps <= 0.0:
                raise ZoneError(
                    f"a speed_limit zone needs a finite speed_mps above zero, came {self.speed_mps}"
                )
        elif self.speed_mps is not None:
            raise ZoneError(f"a {self.kind} zone has no speed_mps, came {self.speed_mps}; leave it out")
        return self


def rectangle(
    x_min_m: float, y_min_m: float, x_max_m: float, y_max_m: float
) -> tuple[Pair, Pair, Pair, Pair]:
    """The corners of an upright rectangle."""
    return (x_min_m, y_min_m), (x_max_m, y_min_m), (x_max_m, y_max_m), (x_min_m, y_max_m)


def signed_distance(places_m: Array, corners_m: Array) -> Array:
    """Distance in m from places float64[n, 2] to a polygon float64[m, 2]'s edge, negative inside: float64[n].

    Source:
        Inside by the even-odd rule (Shimrat, Algorithm 112, CACM 1962).
    """
    begin, edge = corners_m, np.roll(corners_m, -1, axis=0) - corners_m
    to = places_m[:, None] - begin
    share = np.clip((to * edge).sum(axis=2) / (edge * edge).sum(axis=1), 0.0, 1.0)
    apart = to - share[..., None] * edge
    nearest = np.sqrt((apart * apart).sum(axis=2).min(axis=1))
    level = (to[..., 1] < 0.0) != (to[..., 1] < edge[:, 1])
    crossing_x = edge[:, 0] * to[..., 1] / np.where(edge[:, 1] == 0.0, 1.0, edge[:, 1])
    inside = (level & (to[..., 0] < crossing_x)).sum(axis=1) % 2 == 1
    signed: Array = np.where(inside, -nearest, nearest)
    return signed


class ZoneGuard:
    """Reduces commands so that braking ends before a zone is entered, or its speed is reached by then.

    The footprint counts as its circumscribed circle, so turning on the spot is always allowed. A robot that is
    already where it must not be may move out; every motion that leads it deeper is refused.

    Args:
        zones: checked here.
        model: reach and braking.
        config, watch: reaction time, standoff and margin.

    Raises:
        ZoneError: see ``Zone.check``.
    """

    def __init__(
        self, zones: tuple[Zone, ...], model: RobotModel, config: MonitorConfig, watch: WatchConfig
    ) -> None:
        self._zones = [(zone.check(), np.array(zone.corners_m, dtype=np.float64)) for zone in zones]
        self._config, self._braking_mps2 = config, model.braking_mps2
        self._apart_m = model.reach_m + watch.zone_margin_m

    def limit(
        self, command: Pair, velocity: Pair, pose: tuple[float, float, float], age_s: float
    ) -> tuple[Pair, Reason]:
        """The part of ``command`` that the zones let pass, and the zone that took most; CLEAR where none did.

        Args:
            command, velocity: speed m/s and turn rate rad/s, commanded and measured, finite.
            pose: x, y in m and heading in rad, map frame, finite.
            age_s: of the pose, s.
        """
        speed, turn_rate = command
        if speed == 0.0 or not self._zones:
            return command, Reason.CLEAR
        config, braking = self._config, self._braking_mps2
        reaction_s = config.reaction_s + age_s
        fastest = max(abs(speed), abs(velocity[0]))
        ahead_m = fastest * reaction_s + fastest * fastest / (2.0 * braking) + config.standoff_m
        step_m = ahead_m / (SAMPLES - 2)
        places: Array | None = None
        allowed, reason = abs(speed), Reason.CLEAR
        for zone, corners in self._zones:
            if zone.kind != "stay_in" and _far(pose, corners, ahead_m + step_m + self._apart_m):
                continue
            if places is None:
                places = _places(pose, math.copysign(1.0, speed), turn_rate / abs(speed), step_m)
            free_m = self._free(zone, corners, places, step_m)
            if zone.speed_mps is None:
                cap = speed_cap(free_m - config.standoff_m, braking, reaction_s, 0.0)
            else:
                lag, inside = braking * reaction_s, max(free_m, 0.0)
                cap = math.sqrt(lag * lag + zone.speed_mps**2 + 2.0 * braking * inside) - lag
                cap = max(cap, zone.speed_mps)
            if cap < allowed:
                allowed, reason = cap, REASONS[zone.kind]
        share = allowed / abs(speed)
        if share < config.turn_on_the_spot_below and reason is not Reason.SPEED_ZONE:
            return (0.0, turn_rate), reason
        return (speed * share, turn_rate * share), reason

    def _free(self, zone: Zone, corners: Array, places: Array, step_m: float) -> float:
        """Way in m until the footprint enters the zone (leaves it, for ``stay_in``), infinite for never."""
        apart = signed_distance(places, corners)
        gap = (-apart if zone.kind == "stay_in" else apart) - self._apart_m
        if zone.kind == "speed_limit":
            entered = gap < 0.0
        else:
            entered = gap < min(0.0, float(gap[0]) - DEEPER_M)
        first = int(entered.argmax())
        return max(first - 1, 0) * step_m if entered[first] else math.inf


def _far(pose: tuple[float, float, float], corners: Array, within_m: float) -> bool:
    low, high = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    return any(not low[k] - within_m < pose[k] < high[k] + within_m for k in range(2))


def _places(pose: tuple[float, float, float], direction: float, curvature: float, step_m: float) -> Array:
    """Places float64[SAMPLES, 2] along the arc from ``pose``, its own first; ``curvature`` in rad per m of way."""
    way = np.arange(SAMPLES) * step_m
    heading = pose[2] + 0.5 * curvature * way
    chord = direction * way * np.sinc(0.5 * curvature * way / math.pi)
    return np.stack([pose[0] + chord * np.cos(heading), pose[1] + chord * np.sin(heading)], axis=1)
