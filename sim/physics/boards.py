"""Robots whose wheels are turned by motor controllers: the seam between PyBullet and whatever speaks to the boards.

Knows no protocol: ``Boards`` is what somebody else brings (``firmware_interface.emulator.fleet``).
"""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from contracts.robot import AMR_SMALL
from sim.errors import SimConfigError
from sim.physics.pybullet_physics import PyBulletPhysics, WheelReading
from sim.world.run import STEP_S, FloorRun

GRAVITY_MPS2 = 9.81
IDLE_W = 25.0
"""Computer, lidar and radio."""
CAPACITY_J = 480.0 * 3600.0
EMPTY_V, FULL_V, RESISTANCE_OHM = 22.0, 25.2, 0.05
DRIVE_EFFICIENCY = 0.8
DRIVEN_MAX_RADPS = 100.0
"""A board that asks for more, or for nothing that is a number, gets a standstill."""


class Boards(Protocol):
    """The motor controllers of a floor, by the robots' names."""

    def shafts_radps(self, name: str) -> tuple[float, float]:
        """What the motors do now, rad/s left and right; zero without a board."""

    def tell(self, name: str, sample: tuple[Any, ...]) -> None:
        """What the sensors see; see ``BoardDrive.after_step``."""

    def look(self) -> None:
        """Called once a step, before the first ``tell``: starts boards that are due, raises where that fails."""

    def counts(self) -> dict[str, dict[str, int]]:
        """What each board has counted."""


class Battery:
    """Seven lithium cells: voltage falls in a straight line with the charge, and with the current."""

    def __init__(self) -> None:
        self.charge, self.current_a, self.voltage_v = 1.0, 0.0, FULL_V

    def draw(self, power_w: float, step_s: float) -> None:
        """Take ``power_w`` for ``step_s``; negative charges."""
        open_v = EMPTY_V + (FULL_V - EMPTY_V) * self.charge
        self.current_a = power_w / open_v
        self.voltage_v = open_v - RESISTANCE_OHM * self.current_a
        self.charge = min(max(self.charge - power_w * step_s / CAPACITY_J, 0.0), 1.0)


class BoardDrive:
    """Turns a floor's wheels as the boards' motors do, and tells the boards what came of it.

    Args:
        run: a floor with wheeled robots; what is randomised or broken between command and wheels has no effect here.
        boards: the motor controllers.

    Raises:
        SimConfigError: another floor.
    """

    def __init__(self, run: FloorRun, boards: Boards) -> None:
        check_run(run)
        self._run, self._boards = run, boards
        self._physics: PyBulletPhysics = run.physics
        self._batteries = [Battery() for _ in run.names]
        self._before = self._physics.read_wheels(0).velocity
        self.driven_radps: npt.NDArray[np.float64] = np.zeros((len(run.names), 2))

    def before_step(self) -> None:
        """Take over what the motors do."""
        asked = np.array([self._boards.shafts_radps(name) for name in self._run.names])
        sane = (np.abs(asked) <= DRIVEN_MAX_RADPS).all(
            axis=1
        )  # what is not a number is not below anything either
        self.driven_radps = np.where(sane[:, None], asked, 0.0)
        self._physics.shaft_radps = self.driven_radps

    def after_step(self) -> WheelReading:
        """Tell each board what its robot's sensors see."""
        self._boards.look()
        seen = self._physics.read_wheels(0)
        for robot, name in enumerate(self._run.names):
            left, right = seen.wheels_radps[robot].tolist()
            driven = self.driven_radps[robot].tolist()
            battery = self._batteries[robot]
            # What is braked away is heat.
            power_w = max(float(seen.wheels_radps[robot] @ seen.torque_nm[robot]), 0.0) / DRIVE_EFFICIENCY
            battery.draw(IDLE_W + power_w, STEP_S)
            forward, sideways, turn = seen.velocity[robot].tolist()
            grows, drifts, _ = ((seen.velocity[robot] - self._before[robot]) / STEP_S).tolist()
            # In a turning frame (REP 103): velocity's change, and turn rate times velocity.
            acceleration = (grows - turn * sideways, drifts + turn * forward, GRAVITY_MPS2)
            self._boards.tell(
                name,
                (
                    (left, right),
                    (driven[0], driven[1]),
                    acceleration,
                    (0.0, 0.0, turn),
                    battery.voltage_v,
                    battery.current_a,
                    battery.charge,
                    int(seen.bumpers[robot]),
                ),
            )
        self._before = seen.velocity
        return seen

    def counts(self) -> dict[str, dict[str, int]]:
        """What each board has counted."""
        return self._boards.counts()


def check_run(run: FloorRun) -> None:
    """Whether boards can drive this floor's robots; raises SimConfigError."""
    if run.physics.kind != "wheeled":
        raise SimConfigError("boards turn wheels, and planar robots have none; use --physics wheeled")
    if run.model != AMR_SMALL:
        raise SimConfigError(
            f"boards are set up for {AMR_SMALL.name} (wheels, track, limits), not for {run.model.name}; use that one"
        )
