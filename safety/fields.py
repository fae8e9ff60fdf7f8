"""Speed-indexed protective fields: what must be free around the robot for it to go faster than so much.

Like the field sets of a safety scanner (IEC 61496-3), but each field says which speeds it forbids while something is in
it, so that a robot which has slowed down does not forget why. They come on top of the braking distance, never in its
place.
"""

import math

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.decision import Reason
from contracts.robot import RobotModel
from safety.errors import ZoneError
from safety.watch.debounce import Debounce

Pair = tuple[float, float]
CLEAR_SCANS = 5
"""So many scans in a row must find a field free: who walks along its edge would let the robot jerk."""


class ProtectiveField(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rectangle before the robot in its direction of travel, from its middle to ``ahead_m`` beyond its footprint."""

    above_mps: float
    """No faster than this while something is in it; 0 is a stop field."""
    ahead_m: float
    beside_m: float = 0.0
    """How much wider than the footprint, on either side."""

    def check(self) -> "ProtectiveField":
        """Return self when it is a field.

        Raises:
            ZoneError: a number that is not finite or below zero, or no length ahead.
        """
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0.0 or (name == "ahead_m" and value == 0.0):
                raise ZoneError(
                    f"{name} of a protective field is {value}; it must be finite and not below zero"
                )
        return self


class FieldGuard:
    """Reduces commands to what the occupied fields allow.

    Args:
        fields: checked here.
        model: footprint and lidar.

    Raises:
        ZoneError: see ``ProtectiveField.check``.
    """

    def __init__(self, fields: tuple[ProtectiveField, ...], model: RobotModel) -> None:
        self._fields = [field.check() for field in fields]
        angles = model.lidar.angle_min_rad + np.arange(model.lidar.rays) * model.lidar.angle_step_rad
        self._cosines, self._sines = np.cos(angles), np.sin(angles)
        self._reach_m, self._radius_m = model.reach_m, model.footprint_radius_m
        self._occupied = [{sign: Debounce(1, CLEAR_SCANS) for sign in (1.0, -1.0)} for _ in fields]

    @property
    def any(self) -> bool:
        """Whether there is a field at all."""
        return bool(self._fields)

    def see(self, ranges_m: npt.NDArray[np.float32], counts: npt.NDArray[np.bool_]) -> None:
        """Take in a new scan float32[rays], m; ``counts`` bool[rays]: those that have hit something."""
        x, y = (ranges_m * self._cosines)[counts], np.abs(ranges_m * self._sines)[counts]
        for field, both in zip(self._fields, self._occupied, strict=True):
            beside = y <= self._radius_m + field.beside_m
            for sign, occupied in both.items():
                along = sign * x
                within = beside & (along >= 0.0) & (along <= self._reach_m + field.ahead_m)
                occupied.step(bool(within.any()))

    def limit(self, command: Pair) -> tuple[Pair, Reason]:
        """The part of ``command``, m/s and rad/s, that may pass: its arc is kept, but where it stops it may turn."""
        speed, turn_rate = command
        if speed == 0.0 or not self._fields:
            return command, Reason.CLEAR
        sign = math.copysign(1.0, speed)
        allowed = min(
            (
                field.above_mps
                for field, both in zip(self._fields, self._occupied, strict=True)
                if both[sign].tripped
            ),
            default=math.inf,
        )
        if abs(speed) <= allowed:
            return command, Reason.CLEAR
        if allowed == 0.0:
            return (0.0, turn_rate), Reason.PROTECTIVE_FIELD
        share = allowed / abs(speed)
        return (speed * share, turn_rate * share), Reason.PROTECTIVE_FIELD
