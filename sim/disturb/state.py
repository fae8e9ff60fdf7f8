"""The arrays of disturbances and faults of a batch of robots; compiled code draws from and works on them."""

import enum
from typing import Any, NamedTuple

import numpy as np

from contracts.robot import RobotModel
from sim.tasks.randomise import NOMINAL, Randomisation
from sim.world.random import streams

DELAY_MAX = 3
RING = DELAY_MAX + 1
PROPERTIES = (
    "drive_lag_s",
    "speed_scale",
    "turn_scale",
    "payload_kg",
    "friction",
    "lidar_noise_m",
    "lidar_dropout",
    "lidar_bias_m",
    "blind_rad",
    "odometry_speed_scale",
    "odometry_turn_scale",
    "localisation_m",
    "localisation_rad",
    "observation_delay_steps",
    "action_delay_steps",
)
(
    LAG,
    SPEED_SCALE,
    TURN_SCALE,
    PAYLOAD,
    FRICTION,
    NOISE,
    DROPOUT,
    BIAS,
    BLIND,
    ODOMETRY_SPEED,
    ODOMETRY_TURN,
    LOCALISATION,
    LOCALISATION_HEADING,
    OBSERVATION_DELAY,
    ACTION_DELAY,
) = range(len(PROPERTIES))
BLIND_MIDDLE = len(PROPERTIES)
"""Where the blind sector is, rad in the base frame; drawn together with the rest."""


class Fault(enum.IntFlag):
    """Faults on demand; several may hold at once."""

    NONE = 0
    DEAD_LIDAR = 1
    """Every ray is invalid."""
    FROZEN_SCAN = 2
    """The last scan comes again and again."""
    SLIPPING_WHEEL = 4
    """The left wheel has lost most of its grip; odometry does not notice."""
    STUCK_MOTOR = 8
    """The left wheel stands still."""
    LOST_LOCALISATION = 16
    """The estimated place has jumped away."""


class DisturbanceArrays(NamedTuple):
    """The arrays of a ``Disturbance``, for compiled code."""

    active: Any
    constants: Any
    low: Any
    high: Any
    properties: Any
    fault: Any
    base: Any
    random: Any
    pending: Any
    lagged: Any
    actuated: Any
    measured: Any
    estimated: Any
    drift: Any
    scans: Any
    places: Any
    clock: Any


class Disturbance:
    """Properties, faults and delay lines of ``E`` x ``R`` robots.

    Args:
        shape: (E, R).
        model: the robot.
        step_s: control step.
        randomise: ranges to draw from at each trip; None leaves every robot as its model says.
        seed: same seed, same draws for the same trip of the same robot, whatever happened before.

    Attributes:
        active: float64[1]; 0 while nothing is randomised and no fault was ever set, then compiled code skips it all.
        low, high: float64[properties].
        properties: float64[E, R, properties + 1].
        fault: int64[E, R] of ``Fault``.
        base: uint64[E * R], each robot's own stream; trips derive theirs from it.
        random: uint64[E * R], the running stream of noise.
        pending: float64[E, R, RING, 2] commands on their way; lagged float64[E, R, 2] what the drive has taken up.
        actuated: float64[E, R, 2], what the wheels are told in the end.
        measured: float64[E, R, 2], what odometry says.
        estimated: float64[E, R, 3], where localisation believes the robot to be; drift float64[E, R, 3] its error.
        scans: float32[E, R, RING, rays]; places float64[E, R, RING, 5] pose and velocity on their way.
        clock: int64[E, R], steps of the delay lines since the trip began.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        model: RobotModel,
        step_s: float,
        randomise: Randomisation | None,
        seed: int,
    ) -> None:
        ranges = (randomise or NOMINAL).check()
        pairs = np.array([getattr(ranges, name) for name in PROPERTIES], dtype=np.float64)
        self.low, self.high = pairs[:, 0].copy(), pairs[:, 1].copy()
        self.active = np.array([float(randomise is not None)])
        self.constants = np.array(
            [
                step_s,
                model.mass_kg,
                model.acceleration_max_mps2,
                model.braking_mps2,
                model.turn_acceleration_max_radps2,
                model.wheel_track_m,
                model.lidar.range_min_m,
                model.lidar.range_max_m,
            ]
        )
        self.properties = np.zeros((*shape, len(PROPERTIES) + 1))
        self.properties[..., : len(PROPERTIES)] = self.low
        self.fault = np.zeros(shape, dtype=np.int64)
        self.base = streams(seed + 104_729, shape[0] * shape[1])
        self.random = self.base.copy()
        self.pending = np.zeros((*shape, RING, 2))
        self.lagged = np.zeros((*shape, 2))
        self.actuated = np.zeros((*shape, 2))
        self.measured = np.zeros((*shape, 2))
        self.estimated = np.zeros((*shape, 3))
        self.drift = np.zeros((*shape, 3))
        self.scans = np.zeros((*shape, RING, model.lidar.rays), dtype=np.float32)
        self.places = np.zeros((*shape, RING, 5))
        self.clock = np.zeros(shape, dtype=np.int64)

    @property
    def arrays(self) -> DisturbanceArrays:
        """All of them, not copied."""
        return DisturbanceArrays(**{name: getattr(self, name) for name in DisturbanceArrays._fields})

    def set_fault(self, world: int, robot: int, fault: Fault) -> None:
        """Let ``fault`` hold for one robot from the next step on; ``Fault.NONE`` heals it."""
        self.fault[world, robot] = int(fault)
        self.active[0] = 1.0


def fault_named(text: str) -> Fault:
    """The fault of a name such as ``dead_lidar``, or several joined by ``+``.

    Raises:
        KeyError: no such fault; the message lists them.
    """
    fault = Fault.NONE
    for name in text.split("+"):
        try:
            fault |= Fault[name.strip().upper()]
        except KeyError:
            known = ", ".join(str(each.name).lower() for each in Fault)
            raise KeyError(f"no fault '{name}'; there are: {known}") from None
    return fault
