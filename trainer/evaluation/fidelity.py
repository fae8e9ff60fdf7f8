"""How far the compiled twin may be trusted: one policy in every physics, and the twin's motion and rays in PyBullet."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.robot import ROBOT_MODELS, RobotModel
from navigation.action import encode_command
from navigation.warehouse import Station, StationKind, Warehouse
from sim.physics.pybullet_physics import Kind, PyBulletPhysics, ray_test
from sim.simulation import Simulation, SimulationConfig
from sim.world.generate import Family, generate_mixed
from trainer.errors import TrainConfigError
from trainer.evaluation.config import UNSEEN_FLOOR_SEED, EvaluationConfig, Physics, unseen_floors
from trainer.evaluation.drive import Contender, Progress, baseline
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.policies import load_policies

PHYSICS: tuple[Physics, ...] = ("twin", "planar", "wheeled")
BULLET: tuple[Kind, ...] = ("planar", "wheeled")
FALLBACK = "dwa"
HALL_M = 200.0
DRIVE_S = 10.0
SMOOTH_PERIODS_S = (1.5, 8.0)
RAY_APART_M = 0.01


class Driven(msgspec.Struct, frozen=True):
    """One controller in one physics on the same episodes."""

    model: str
    controller: str
    physics: str
    trips: int
    success: float
    contacts: int
    trip_s: float
    seconds: float
    """Wall time, compiling and building the floors among it."""


class MotionError(msgspec.Struct, frozen=True):
    """Twin against PyBullet after 10 s of the same random smooth commands, no monitor, no contact."""

    model: str
    physics: str
    drives: int
    way_m: float
    """Mean way driven."""
    place_mean_m: float
    place_max_m: float
    heading_mean_rad: float
    heading_max_rad: float


class RayError(msgspec.Struct, frozen=True):
    """Analytic lidar against ``rayTestBatch``, robots and people in view."""

    model: str
    rays: int
    median_m: float
    p99_m: float
    apart_share: float
    """Share that differs by more than 1 cm: a ray grazes a corner, hits for one and misses for the other."""


class FidelityReport(msgspec.Struct, frozen=True):
    """All of it."""

    policy: str
    floors: int
    driven: list[Driven]
    motion: list[MotionError]
    rays: list[RayError]


def measure_fidelity(
    policy: Path, keys: Path, config: EvaluationConfig, quick: bool = False, progress: Progress | None = None
) -> FidelityReport:
    """Drive and compare, every robot model in turn; a model the policy is not made for is driven by ``dwa``.

    Args:
        policy: bundle, run folder or network.
        keys: the fleet's key folder.
        config: floors, episodes, robots, people and trips of the drives; its model and physics are not used.
        quick: fewer random drives and rays.
        progress: called with (share done, note).

    Raises:
        TrainerError, BundleError: as ``load_policies``, where no model can be driven by it.
    """
    tell = progress or (lambda *_: None)
    warehouses = unseen_floors(config.floors, config.families, config.difficulty)
    driven: list[Driven] = []
    total = len(ROBOT_MODELS) * len(PHYSICS)
    contenders = {name: _driver(policy, keys, model) for name, model in ROBOT_MODELS.items()}
    for name, contender in contenders.items():
        for physics in PHYSICS:
            tell(len(driven) / (total + 1), f"{name} {physics}")
            started = time.monotonic()
            asked = msgspec.structs.replace(config, model=name, physics=physics)
            row = evaluate([contender], asked, warehouses).results[0]
            took_s = time.monotonic() - started
            driven.append(
                Driven(name, row.name, physics, row.trips, row.success, row.contacts, row.trip_s, took_s)
            )
    tell(total / (total + 1), "motion and rays")
    drives, floors = (8, 2) if quick else (64, 12)
    return FidelityReport(
        policy.name,
        config.floors,
        driven,
        [motion_error(model, kind, drives) for model in ROBOT_MODELS.values() for kind in BULLET],
        [ray_error(model, floors) for model in ROBOT_MODELS.values()],
    )


def _driver(policy: Path, keys: Path, model: RobotModel) -> Contender:
    """The policy; where a bundle is for other robots, the fallback."""
    try:
        loaded = load_policies([policy], keys, model).contenders
    except TrainConfigError:
        if model.name == next(iter(ROBOT_MODELS)) or not policy.is_file():
            raise
        return baseline(FALLBACK)
    if len(loaded) != 1:
        raise TrainConfigError(f"{policy} holds {len(loaded)} policies; give one of them")
    # A bare network's commands are in the units of the robot it was made for, which it does not say.
    return loaded[0] if policy.suffix != ".onnx" or model.name == "amr_small" else baseline(FALLBACK)


def motion_error(model: RobotModel, kind: Kind, drives: int, seed: int = 0) -> MotionError:
    """See ``MotionError``: ``drives`` robots, each far from all others on an empty floor."""
    side = int(np.ceil(np.sqrt(drives)))
    spacing_m = HALL_M / (side + 1)
    assert spacing_m > 2 * DRIVE_S * model.speed_max_mps / 2, "robots stay apart"
    stations = (
        Station("p", StationKind.PICK, 2.0, 2.0),
        Station("d", StationKind.DROP, HALL_M - 2.0, HALL_M - 2.0),
    )
    hall = Warehouse("hall", HALL_M, HALL_M, (), stations)
    settings = SimulationConfig(worlds=1, robots=drives, people=0, guarded=False, trip_max_s=1e6)
    rng = np.random.default_rng(seed)
    places = spacing_m * (1 + np.column_stack(np.divmod(np.arange(drives), side)))
    start = np.column_stack([places, rng.uniform(-np.pi, np.pi, drives)])
    commands = smooth_commands(model, drives, rng)
    ends, way_m = [], 0.0
    for physics in (None, kind):
        simulation = Simulation([hall], settings, seed=seed, model=model)
        simulation.state.pose[0] = start
        simulation.state.velocity[:] = 0.0
        if physics is not None:
            simulation.use_physics(PyBulletPhysics(simulation.state, model, physics))
        for command in commands:
            simulation.step(encode_command(command[None], model), command[None])
            if physics is None:
                way_m += float(np.abs(simulation.state.velocity[0, :, 0]).mean()) * simulation.step_s
        ends.append(simulation.state.pose[0].copy())
        simulation.close()
    place_m = np.hypot(*(ends[1] - ends[0])[:, :2].T)
    heading_rad = np.abs(np.remainder(ends[1][:, 2] - ends[0][:, 2] + np.pi, 2 * np.pi) - np.pi)
    return MotionError(
        model.name, kind, drives, way_m, float(place_m.mean()), float(place_m.max()),
        float(heading_rad.mean()), float(heading_rad.max()),
    )  # fmt: skip


def smooth_commands(
    model: RobotModel, drives: int, rng: np.random.Generator, control_hz: int = 10
) -> npt.NDArray[np.float64]:
    """Commands float64[steps, drives, 2] over 10 s: sums of three sines of random period and phase, within limits."""
    time_s = np.arange(round(DRIVE_S * control_hz))[:, None, None, None] / control_hz
    shape = (1, drives, 2, 3)
    period_s, phase = rng.uniform(*SMOOTH_PERIODS_S, shape), rng.uniform(0.0, 2 * np.pi, shape)
    waves = np.sin(2 * np.pi * time_s / period_s + phase).mean(axis=-1)
    middle = (model.speed_max_mps - model.reverse_max_mps) / 2
    reach = (model.speed_max_mps + model.reverse_max_mps) / 2
    return np.stack([middle + reach * waves[..., 0], model.turn_rate_max_radps * waves[..., 1]], axis=-1)


def ray_error(model: RobotModel, floors: int) -> RayError:
    """See ``RayError``: six robots and six people on each of ``floors`` unseen floors of all families."""
    differences = []
    for index, warehouse in enumerate(generate_mixed(floors, UNSEEN_FLOOR_SEED, tuple(Family))):
        settings = SimulationConfig(worlds=1, robots=6, people=6)
        simulation = Simulation([warehouse], settings, seed=index, model=model)
        physics = PyBulletPhysics(simulation.state, model, "planar")
        simulation.use_physics(physics)
        for robot in range(settings.robots):
            reference = ray_test(physics, simulation.state, 0, robot)
            differences.append(np.abs(simulation.ranges[0, robot] - reference))
        simulation.close()
    apart = np.concatenate(differences)
    return RayError(
        model.name, len(apart), float(np.median(apart)), float(np.quantile(apart, 0.99)),
        float((apart > RAY_APART_M).mean()),
    )  # fmt: skip


def markdown(report: FidelityReport) -> str:
    """The report as text with tables."""
    lines = [
        f"The same policy ({report.policy}) in every physics, {report.floors} unseen floors, the same episodes:",
        "",
        *_table(
            ("robot", "driven by", "physics", "trips", "success", "contacts", "s/trip (failed: 60)", "wall s"),
            report.driven,
            lambda row: (
                *(row.model, row.controller, row.physics, str(row.trips), f"{row.success:.1%}"),
                *(str(row.contacts), f"{row.trip_s:.2f}", f"{row.seconds:.0f}"),
            ),
        ),
        "",
        f"The twin's motion against PyBullet's after {DRIVE_S:.0f} s of the same random smooth commands, no monitor:",
        "",
        *_table(
            ("robot", "physics", "drives", "way, m", "place mean, m", "place max, m", "heading mean, rad", "max, rad"),
            report.motion,
            lambda row: (
                *(row.model, row.physics, str(row.drives), f"{row.way_m:.1f}", f"{row.place_mean_m:.4f}"),
                *(f"{row.place_max_m:.4f}", f"{row.heading_mean_rad:.4f}", f"{row.heading_max_rad:.4f}"),
            ),
        ),
        "",
        "The analytic lidar against `rayTestBatch`, people and robots in view:",
        "",
        *_table(
            ("robot", "rays", "median, m", "99 %, m", "apart by more than 1 cm"),
            report.rays,
            lambda row: (
                row.model, str(row.rays), f"{row.median_m:.6f}", f"{row.p99_m:.5f}", f"{row.apart_share:.3%}",
            ),
        ),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _table(heads: tuple[str, ...], rows: Sequence[Any], cells: Callable[[Any], tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (heads, ("---",) * len(heads), *map(cells, rows))]
