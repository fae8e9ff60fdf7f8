"""Drives every contender over every floor, in as many processes as wanted; the numbers do not depend on how many."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from contracts.robot import RobotModel
from navigation.action import encode_command
from navigation.controllers.recovery import Recovery
from navigation.warehouse import Warehouse
from sim.simulation import Simulation
from sim.world.floors import Floors
from trainer.errors import RunError, TrainConfigError
from trainer.evaluation.config import EvaluationConfig
from trainer.evaluation.controllers import Controller, OnnxPolicy, RuleBased, make_controller
from trainer.evaluation.metrics import Heat, TripMeter, WatchedPhysics
from trainer.processes import end_with_parent

Progress = Callable[[float, str], None]
Trips = npt.NDArray[Any]
"""Trips of dtype ``trainer.evaluation.metrics.TRIP``."""
RULE_BASED = "rule-based"
"""What the robots fall back to: DWA with its default settings; not one of the tuned baselines."""


class Contender(NamedTuple):
    """Something that drives. ``make`` must be picklable where several processes are used.

    Attributes:
        name: unique among contenders.
        make: called with robot model, time between calls in s, and seed.
        group: what several training seeds of one policy have in common; otherwise its own name.
        policy: False for a baseline.
    """

    name: str
    make: Callable[[RobotModel, float, int], Controller]
    group: str
    policy: bool = True


class Drives(NamedTuple):
    """Everything that was driven.

    Attributes:
        trips: flat, dtype ``TRIP``; sorted by controller, floor, episode, robot, trip.
        heat: by (controller, floor).
    """

    contenders: list[Contender]
    warehouses: list[Warehouse]
    trips: Trips
    heat: dict[tuple[int, int], Heat]

    def tables(self) -> list[Trips]:
        """The trips of each contender."""
        return [self.trips[self.trips["controller"] == k] for k in range(len(self.contenders))]


class _Job(NamedTuple):
    controller: int
    floor: int
    contender: Contender
    warehouse: Warehouse
    config: EvaluationConfig


def baseline(name: str) -> Contender:
    """A tuned baseline, or ``rule-based``; an unknown name is refused by ``make``."""
    return Contender(name, partial(_make_baseline, name), name, policy=False)


def _make_baseline(name: str, model: RobotModel, tick_s: float, seed: int) -> Controller:
    return RuleBased(model, tick_s) if name == RULE_BASED else make_controller(name, model, tick_s, seed)


def onnx(network: bytes, name: str, group: str = "") -> Contender:
    """An exported network; ``group`` names several training seeds of one policy."""
    return Contender(name, partial(_make_onnx, network, name), group or name)


def _make_onnx(network: bytes, name: str, model: RobotModel, tick_s: float, seed: int) -> Controller:
    del model, tick_s, seed
    return OnnxPolicy(network, name)


def drive_all(
    contenders: list[Contender],
    config: EvaluationConfig,
    warehouses: list[Warehouse],
    progress: Progress | None = None,
    jobs: int = 1,
) -> Drives:
    """Let every contender drive the same episodes. Same arguments, same bits, whatever ``jobs``.

    Args:
        contenders: with unique names.
        config: how much.
        warehouses: ``config.episodes`` worlds on each.
        progress: called with (share done, note).
        jobs: processes; 1 drives in this one.

    Raises:
        TrainConfigError: a config that cannot be driven, no contender, two of one name, no such baseline.
        SimConfigError: no floor.
        RunError: a process was killed.
    """
    config.check()
    names = [contender.name for contender in contenders]
    if not names or len(set(names)) < len(names):
        raise TrainConfigError(f"controllers are {names}; give at least one, each with a name of its own")
    work = [
        _Job(number, floor, contender, warehouse, config)
        for number, contender in enumerate(contenders)
        for floor, warehouse in enumerate(warehouses)
    ]
    if not work:
        Floors(warehouses)  # says what is missing
    for contender in contenders:
        if not contender.policy:
            contender.make(config.robot(), 1.0 / config.control_hz, 0)
    tell = progress or _silent
    found: dict[tuple[int, int], tuple[Trips, Heat]] = {}
    for job, trips, heat in _alone(work, tell) if jobs == 1 else _in_processes(work, tell, jobs):
        found[job.controller, job.floor] = trips, heat
    ordered = sorted(found)
    return Drives(
        contenders,
        warehouses,
        np.concatenate([found[key][0] for key in ordered]),
        {key: found[key][1] for key in ordered},
    )


def _silent(share: float, note: str) -> None:
    del share, note


def _alone(work: list[_Job], tell: Progress) -> Iterator[tuple[_Job, Trips, Heat]]:
    for number, job in enumerate(work):

        def step(share: float, number: int = number, name: str = job.contender.name) -> None:
            tell((number + share) / len(work), name)

        yield job, *_drive(job, step)


def _in_processes(work: list[_Job], tell: Progress, jobs: int) -> Iterator[tuple[_Job, Trips, Heat]]:
    """As ``_alone``; whatever ends this generator early, Ctrl-C too, ends the processes it has started."""
    context = multiprocessing.get_context("spawn")
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(min(jobs, len(work)), mp_context=context, initializer=_begin_worker)
    try:
        futures = {pool.submit(_drive, job): job for job in work}
        for done, future in enumerate(as_completed(futures), 1):
            job = futures[future]
            try:
                trips, heat = future.result()
            except BrokenProcessPool as error:
                raise RunError(f"a process that drove was killed: {error}") from None
            tell(done / len(work), job.contender.name)
            yield job, trips, heat
        pool.shutdown()
    except BaseException:
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        pool.shutdown(wait=True, cancel_futures=True)
        raise


def _begin_worker() -> None:
    """One thread of arithmetic; Ctrl-C is the parent's to handle; without a parent there is nothing to do."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = "1"
    end_with_parent()


def _drive(job: _Job, tell: Callable[[float], None] | None = None) -> tuple[Trips, Heat]:
    """One contender on one floor; the streams depend on the config's seed and the floor's number only."""
    config, model = job.config, job.config.robot()
    seed = int(np.random.SeedSequence([config.seed, job.floor]).generate_state(1)[0])
    settings = config.simulation(Recovery() if job.contender.policy else None)
    simulation = Simulation([job.warehouse], settings, seed=seed, model=model)
    try:
        physics = WatchedPhysics(simulation, config.physics)
        simulation.use_physics(physics)
        controller = job.contender.make(model, simulation.step_s, seed)
        stations = simulation.floors.station_xy[0, : simulation.floors.station_count[0]]
        heat = Heat(job.warehouse.width_m, job.warehouse.height_m, stations)
        meter = TripMeter(simulation, physics, config.trips, heat)
        worlds, learners = meter.ended.shape
        controller.begin(worlds * learners)
        command = np.zeros((worlds, config.robots, 2))
        while not meter.done:
            seen = simulation.observation[:, :learners].reshape(worlds * learners, -1)
            command[:, :learners] = controller.commands(seen).reshape(worlds, learners, 2)
            meter.before()
            simulation.step(encode_command(command, model), command)
            meter.after()
            if tell is not None:
                tell(float(np.minimum(meter.ended, config.trips).mean()) / config.trips)
    finally:
        simulation.close()
    trips = meter.records.reshape(-1)
    trips["controller"], trips["floor"] = job.controller, job.floor
    return trips, heat
