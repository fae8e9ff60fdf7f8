"""Trips of one controller in the compiled twin: what a search rates settings by."""

import time
from collections.abc import Callable

import msgspec
import numpy as np

from contracts.robot import AMR_SMALL, RobotModel
from navigation.action import encode_command
from navigation.warehouse import Warehouse
from sim.simulation import Simulation, SimulationConfig
from sim.tasks.delivery import TRIP_MAX_S, Outcome
from sim.world.floors import Floors
from sim.world.generate import generate_mixed
from sim.world.layout_config import Family
from trainer.evaluation.controllers import Controller

CONTROL_HZ = 10


class TripsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much is driven: floors of all families with seeds ``first_seed`` and up, which no evaluation uses."""

    floors: int = 24
    difficulty: tuple[float, float] = (0.0, 0.6)
    robots: int = 3
    people: int = 5
    trips: int = 3
    seed: int = 0
    first_seed: int = 0


class TripsResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the trips went; ``trip_s`` is the mean over all of them, a failed one at the cap."""

    trip_s: float
    success: float
    contacts: int
    timeouts: int
    trips: int
    seconds: float
    """Wall time the driving took, s."""


class Course:
    """The floors of one search, solved once and driven again by every trial.

    Args:
        config: sizes and seeds.
        model: the robot.
    """

    def __init__(self, config: TripsConfig, model: RobotModel = AMR_SMALL) -> None:
        self.config, self.model = config, model
        self.warehouses: list[Warehouse] = generate_mixed(
            config.floors, config.first_seed, tuple(Family), config.difficulty
        )
        self._floors = Floors(self.warehouses, config.seed)

    def drive(self, controller: Controller, tell: Callable[[float], None] | None = None) -> TripsResult:
        """The first ``trips`` trips of every robot; same controller and config, same result but for ``seconds``.

        Args:
            controller: told of observations at 10 Hz.
            tell: called with the share of trips that have ended.
        """
        config, started = self.config, time.monotonic()
        settings = SimulationConfig(
            worlds=config.floors, robots=config.robots, people=config.people, control_hz=CONTROL_HZ
        )
        simulation = Simulation(
            self.warehouses, settings, seed=config.seed, model=self.model, floors=self._floors
        )
        shape = simulation.outcome.shape
        robots = shape[0] * shape[1]
        controller.begin(robots)
        ended = np.zeros(shape, dtype=np.int64)
        counts = np.zeros(len(Outcome), dtype=np.int64)
        total_s = 0.0
        while (ended < config.trips).any():
            command = controller.commands(simulation.observation.reshape(robots, -1)).reshape(*shape, 2)
            took_s = (simulation.trip_steps + 1) * simulation.step_s
            simulation.step(encode_command(command, self.model), command)
            counted = (simulation.outcome != Outcome.RUNNING) & (ended < config.trips)
            arrived = counted & (simulation.outcome == Outcome.ARRIVED)
            total_s += float(took_s[arrived].sum()) + TRIP_MAX_S * int((counted & ~arrived).sum())
            counts += np.bincount(simulation.outcome[counted], minlength=len(Outcome))
            ended += counted
            if tell is not None and counted.any():
                tell(float(ended.mean()) / config.trips)
        simulation.close()
        trips = robots * config.trips
        return TripsResult(
            trip_s=total_s / trips,
            success=float(counts[Outcome.ARRIVED]) / trips,
            contacts=int(counts[Outcome.CONTACT]),
            timeouts=int(counts[Outcome.TIMEOUT]),
            trips=trips,
            seconds=time.monotonic() - started,
        )
