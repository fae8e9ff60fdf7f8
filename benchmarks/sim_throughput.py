"""Robot-steps per second of the twin and of PyBullet, each the full step: monitor, people, physics, rays, reward.

``python -m benchmarks.sim_throughput [--quick]``. The reference is the plain way in the same run: PyBullet's
planar robots with ``rayTestBatch`` as lidar, and nothing else. Blocks are interleaved; medians are shown.
"""

import statistics
import time
from collections.abc import Callable
from typing import cast

import numpy as np

from benchmarks._report import quick_asked, report
from contracts.observation import ROUTING_LAYOUT
from contracts.robot import AMR_SMALL
from navigation.action import decode_action
from sim.physics.pybullet_physics import Kind, PyBulletPhysics, ray_test
from sim.simulation import Simulation, SimulationConfig
from sim.world.generate import generate_warehouse

FLOORS = 16
ROBOTS_IN_ONE_WORLD = 32
ROUNDS, BLOCK_S = 9, 2.0
ROUNDS_QUICK, BLOCK_QUICK_S = 5, 0.6

Step = Callable[[], None]


def stepping(simulation: Simulation) -> Step:
    """Drive all robots along their routes, turning towards the point 0.6 m ahead; its cost counts as ours."""
    carrot = ROUTING_LAYOUT.offset("carrots")

    def step() -> None:
        seen = simulation.observation
        bearing = np.arctan2(seen[..., carrot + 1], seen[..., carrot])
        action = np.empty((*bearing.shape, 2), dtype=np.float32)
        action[..., 0] = np.maximum(1.0 - np.abs(bearing), 0.0)
        action[..., 1] = np.clip(1.5 * bearing, -1.0, 1.0)
        simulation.step(action, decode_action(action, simulation.model))

    return step


def twin() -> tuple[Step, int]:
    """Training's worlds, on one thread."""
    config = SimulationConfig()
    simulation = Simulation([generate_warehouse(seed) for seed in range(FLOORS)], config, threads=1)
    return stepping(simulation), simulation.reward.size


def pybullet_world() -> Simulation:
    """One floor with 32 robots."""
    config = SimulationConfig(worlds=1, robots=ROBOTS_IN_ONE_WORLD)
    return Simulation([generate_warehouse(0)], config)


def in_pybullet(kind: str) -> tuple[Step, int]:
    """32 robots in one world, the same step as the twin's."""
    simulation = pybullet_world()
    simulation.use_physics(PyBulletPhysics(simulation.state, AMR_SMALL, cast(Kind, kind)))
    return stepping(simulation), simulation.reward.size


def plain() -> tuple[Step, int]:
    """The reference: the same 32 planar robots, PyBullet moves them and casts their rays."""
    simulation = pybullet_world()
    state = simulation.state
    physics = PyBulletPhysics(state, AMR_SMALL, "planar")
    command = np.full((1, ROBOTS_IN_ONE_WORLD, 2), (0.3, 0.6))

    def step() -> None:
        physics.advance(state, command, simulation.step_s)
        for robot in range(ROBOTS_IN_ONE_WORLD):
            ray_test(physics, state, 0, robot)

    return step, ROBOTS_IN_ONE_WORLD


def rate(step: Step, robots: int, block_s: float) -> float:
    """Robot-steps per second over one block."""
    started = time.perf_counter()
    steps = 0
    while (elapsed := time.perf_counter() - started) < block_s:
        step()
        steps += 1
    return steps * robots / elapsed


def main() -> None:
    """Measure and print."""
    quick = quick_asked(__doc__ or "")
    rounds, block_s = (ROUNDS_QUICK, BLOCK_QUICK_S) if quick else (ROUNDS, BLOCK_S)
    subjects = {
        "twin": twin(),
        "pybullet_planar": in_pybullet("planar"),
        "pybullet_wheeled": in_pybullet("wheeled"),
        "plain": plain(),
    }
    rates: dict[str, list[float]] = {name: [] for name in subjects}
    for step, _ in subjects.values():
        step()  # compiles
    for _ in range(rounds):
        for name, (step, robots) in subjects.items():
            rates[name].append(rate(step, robots, block_s))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    reference = medians.pop("plain")
    about = "robot-steps on one core; reference: planar PyBullet robots with rayTestBatch, nothing else"
    for name, value in medians.items():
        report(f"{name}.steps_per_s", value, "steps/s", "higher", reference, about)


if __name__ == "__main__":
    main()
