"""Controllers compared in PyBullet on floors nobody trained on: same floors, orders and people, same monitor."""

from collections.abc import Callable
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.robot import AMR_SMALL, RobotModel
from navigation.action import encode_command
from navigation.warehouse import Warehouse
from safety.config import MonitorConfig
from sim.physics.pybullet_physics import PyBulletPhysics
from sim.simulation import Simulation, SimulationConfig
from sim.tasks.delivery import Outcome
from sim.world.floors import Floors
from sim.world.generate import generate_warehouse
from trainer.evaluation.controllers import Controller

UNSEEN_FLOOR_SEED = 1_000_000
BOOTSTRAP_SAMPLES = 2000
Progress = Callable[[float, str], None]


class EvaluationConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much is driven. Trips alternate between pick and drop stations; two make a delivery."""

    floors: int = 8
    robots: int = 3
    people: int = 5
    trips: int = 4
    physics: Literal["planar", "wheeled"] = "planar"
    control_hz: int = 10
    seed: int = 0
    monitor: MonitorConfig = MonitorConfig()


class ControllerResult(msgspec.Struct, frozen=True):
    """How one controller did; times in s, a failed trip counts as the cap; intervals are 95 % bootstrap."""

    name: str
    trips: int
    success: float
    contacts: int
    timeouts: int
    trip_s: float
    trip_s_interval: tuple[float, float]
    delivery_s: float | None
    """None with an odd single trip."""
    success_trip_s: float | None
    """Mean of the trips that arrived; None where none did."""
    reduced: float
    trip_times_s: list[float]
    outcomes: list[int]


class Evaluation(msgspec.Struct, frozen=True):
    """All controllers; the first is the reference of the gains."""

    config: EvaluationConfig
    floors: list[str]
    results: list[ControllerResult]
    gains: list[float]
    """Share of capped trip time saved against the first controller, one for each result."""
    gain_intervals: list[tuple[float, float]]


def unseen_floors(count: int) -> list[Warehouse]:
    """Generated floors whose seeds no training run uses."""
    return [generate_warehouse(UNSEEN_FLOOR_SEED + index) for index in range(count)]


def evaluate(
    controllers: list[Controller],
    config: EvaluationConfig,
    warehouses: list[Warehouse],
    progress: Progress | None = None,
    model: RobotModel = AMR_SMALL,
) -> Evaluation:
    """Let every controller drive the same trips.

    Args:
        controllers: the first one is the reference.
        config: how much.
        warehouses: one world on each.
        progress: called with (share done, note).
        model: the robot.
    """
    floors = Floors(warehouses, config.seed)
    results = []
    for number, controller in enumerate(controllers):

        def tell(share: float, number: int = number, name: str = controller.name) -> None:
            if progress is not None:
                progress((number + share) / len(controllers), name)

        results.append(_drive(controller, config, warehouses, floors, model, tell))
    gains = [_gain(results[0], result) for result in results]
    return Evaluation(
        config,
        [warehouse.name for warehouse in warehouses],
        results,
        [gain for gain, _ in gains],
        [interval for _, interval in gains],
    )


def _drive(
    controller: Controller,
    config: EvaluationConfig,
    warehouses: list[Warehouse],
    floors: Floors,
    model: RobotModel,
    tell: Callable[[float], None],
) -> ControllerResult:
    settings = SimulationConfig(
        worlds=len(warehouses),
        robots=config.robots,
        people=config.people,
        control_hz=config.control_hz,
        monitor=config.monitor,
    )
    simulation = Simulation(warehouses, settings, seed=config.seed, model=model, floors=floors)
    simulation.use_physics(PyBulletPhysics(simulation.state, model, config.physics))
    shape = simulation.outcome.shape
    robots = shape[0] * shape[1]
    controller.begin(robots)
    times = np.full((*shape, config.trips), settings.trip_max_s)
    outcomes = np.zeros((*shape, config.trips), dtype=np.int64)
    ended = np.zeros(shape, dtype=np.int64)
    reduced: list[float] = []
    try:
        while (ended < config.trips).any():
            command = controller.commands(simulation.observation.reshape(robots, -1)).reshape(*shape, 2)
            took_s = (simulation.trip_steps + 1) * simulation.step_s
            simulation.step(encode_command(command, model), command)
            reduced.append(float(simulation.reduced.mean()))
            for world, robot in np.argwhere(simulation.outcome != Outcome.RUNNING):
                trip = ended[world, robot]
                if trip < config.trips:
                    outcome = simulation.outcome[world, robot]
                    outcomes[world, robot, trip] = outcome
                    if outcome == Outcome.ARRIVED:
                        times[world, robot, trip] = took_s[world, robot]
                ended[world, robot] += 1
            tell(float(np.minimum(ended, config.trips).mean()) / config.trips)
    finally:
        simulation.close()
    return _result(controller.name, times, outcomes, float(np.mean(reduced)))


def _result(
    name: str, times: npt.NDArray[np.float64], outcomes: npt.NDArray[np.int64], reduced: float
) -> ControllerResult:
    flat = times.reshape(-1)
    arrived = outcomes == Outcome.ARRIVED
    pairs = times[..., : times.shape[-1] // 2 * 2].reshape(*times.shape[:-1], -1, 2)
    means = _resampled(flat[None]).mean(axis=-1)[0]
    return ControllerResult(
        name=name,
        trips=int(flat.size),
        success=float(arrived.mean()),
        contacts=int((outcomes == Outcome.CONTACT).sum()),
        timeouts=int((outcomes == Outcome.TIMEOUT).sum()),
        trip_s=float(flat.mean()),
        trip_s_interval=(float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))),
        delivery_s=float(pairs.sum(axis=-1).mean()) if pairs.size else None,
        success_trip_s=float(times[arrived].mean()) if arrived.any() else None,
        reduced=reduced,
        trip_times_s=[round(float(value), 2) for value in flat],
        outcomes=[int(value) for value in outcomes.reshape(-1)],
    )


def _gain(reference: ControllerResult, other: ControllerResult) -> tuple[float, tuple[float, float]]:
    """Share of time saved, and its 95 % interval over trips resampled in pairs (Efron 1979)."""
    both = np.array([reference.trip_times_s, other.trip_times_s])
    sampled = _resampled(both).mean(axis=-1)
    shares = 1.0 - sampled[1] / sampled[0]
    interval = (float(np.quantile(shares, 0.025)), float(np.quantile(shares, 0.975)))
    return 1.0 - other.trip_s / reference.trip_s, interval


def _resampled(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """float64[rows, samples, n]: the same draws with replacement for each row."""
    rng = np.random.default_rng(0)
    draws = rng.integers(rows.shape[-1], size=(BOOTSTRAP_SAMPLES, rows.shape[-1]))
    return rows[:, draws]
