"""What fragments collected inside Ray actors gain over a call a step, and how long a lost node holds a batch up.

``python -m benchmarks.ray_rollouts [--quick]``. All in one simulated cluster on this machine: a head and two nodes, two
actors, each with the same number of environments in either way. The reference is the usual one: the policy sits at the
learner, ``step`` of one environment is one call, all calls of a step are under way at once. The gentler reference, one
call for all environments of an actor, is measured too and told in ``about``.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from benchmarks._report import quick_asked, report
from sim.simulation import Simulation
from trainer.episodes.vec_env import BatchedVecEnv
from trainer.learning.algorithms import algorithm_of
from trainer.learning.config import TrainConfig
from trainer.learning.run import RunFolder
from trainer.learning.scene import make_simulation
from trainer.scale_out.cluster import import_ray
from trainer.scale_out.config import ScaleOutConfig
from trainer.scale_out.remote_worlds import RemoteWorlds

ACTORS = 2
ENVIRONMENTS = 32
"""Of each actor; a world with one robot each."""
CONFIG = TrainConfig(worlds=ACTORS * ENVIRONMENTS, robots=1, floors=4, sim_threads=1)
ROUNDS, BLOCK_S = 5, 4.0
ROUNDS_QUICK, BLOCK_QUICK_S = 3, 0.6
RECOVERIES, RECOVERIES_QUICK = 3, 1
RECOVERY_MAX_S = 90.0
NODE = {"num_cpus": 2, "object_store_memory": 150_000_000}


class StepActor:
    """The same environments, stepped from outside: each by itself, or all by one call."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        config = msgspec.structs.replace(CONFIG, worlds=ENVIRONMENTS)
        batch = make_simulation(config)
        alone = msgspec.structs.replace(batch.config, worlds=1)
        warehouses = batch.floors.warehouses
        self._single = [
            BatchedVecEnv(Simulation(warehouses, alone, seed, floors=batch.floors))
            for seed in range(ENVIRONMENTS)
        ]
        self._batch = BatchedVecEnv(batch)

    def step(self, index: int | None, action: npt.NDArray[np.float32]) -> tuple[Any, ...]:
        """One step of environment ``index``, or of all where it is None."""
        answer: tuple[Any, ...] = (self._batch if index is None else self._single[index]).step(action)
        return answer


def by_call(ray: Any, actors: list[Any], policy: Any, batched: bool) -> Callable[[], int]:
    """One step of all environments, by calls; robot-steps it took."""
    calls = [(actor, index) for actor in actors for index in ([None] if batched else range(ENVIRONMENTS))]
    rows = ENVIRONMENTS if batched else 1
    observation = np.zeros((len(calls) * rows, policy.observation_space.shape[0]), dtype=np.float32)

    def step() -> int:
        nonlocal observation
        with torch.no_grad():
            actions = policy(torch.from_numpy(observation))[0].numpy()
        parts = actions.reshape(len(calls), rows, -1)
        replies = ray.get(
            [actor.step.remote(index, part) for (actor, index), part in zip(calls, parts, strict=True)]
        )
        observation = np.concatenate([reply[0] for reply in replies])
        return len(observation)

    return step


def rate(step: Callable[[], int], block_s: float) -> float:
    """Robot-steps per second over one block."""
    started, steps = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < block_s:
        steps += step()
    return steps / elapsed


def recovery(cluster: Any, worlds: RemoteWorlds, batch: Callable[[], int]) -> tuple[float, float]:
    """Seconds from a node's end to the next whole batch after the loss, and to one that two actors collected.

    Raises:
        TimeoutError: the place that was lost is not filled in time.
    """
    batch()
    pool, lost_before = worlds.pool, worlds.pool.counts.lost
    alive = {node.node_id: node for node in cluster.worker_nodes}
    victim = alive[pool.nodes[max(number for number, node in pool.nodes.items() if node in alive)]]
    started = time.perf_counter()
    cluster.remove_node(victim, allow_graceful=False)
    whole_s = None
    while (elapsed := time.perf_counter() - started) < RECOVERY_MAX_S:
        batch()
        elapsed = time.perf_counter() - started
        if pool.counts.lost == lost_before:
            continue
        whole_s = elapsed if whole_s is None else whole_s
        if len({fragment.request.actor for fragment in worlds.fragments}) == ACTORS:
            return whole_s, elapsed
    raise TimeoutError(
        f"one actor of {ACTORS} is still missing {RECOVERY_MAX_S:.0f} s after its node was lost"
    )


def rates(
    ray: Any, steppers: list[Any], model: Any, batch: Callable[[], int], rounds: int, block_s: float
) -> tuple[float, float, float]:
    """Medians of robot-steps/s: fragments, a call for each environment's step, a call for each actor's."""
    subjects = (
        batch,
        by_call(ray, steppers, model.policy, batched=False),
        by_call(ray, steppers, model.policy, batched=True),
    )
    for step in subjects:
        step()  # compiles
    measured = [[rate(step, block_s) for step in subjects] for _ in range(rounds)]
    fragments, single, batched = (statistics.median(column) for column in zip(*measured, strict=True))
    return fragments, single, batched


def main() -> None:
    """Measure and print."""
    quick = quick_asked(__doc__ or "")
    torch.set_num_threads(1)
    ray = import_ray()
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False}
    )
    try:
        for _ in range(ACTORS):
            cluster.add_node(wait=False, **NODE)
        cluster.wait_for_nodes()
        with tempfile.TemporaryDirectory() as folder:
            run = RunFolder.create(Path(folder) / "run", CONFIG)
            _measure(ray, cluster, run, quick)
    finally:
        cluster.shutdown()


def _measure(ray: Any, cluster: Any, run: RunFolder, quick: bool) -> None:
    algorithm = algorithm_of(CONFIG)
    worlds = RemoteWorlds(CONFIG, algorithm, ScaleOutConfig(address=cluster.address, actors=ACTORS), run)
    try:
        stepping = ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(StepActor)
        steppers = [stepping.remote() for _ in range(ACTORS)]
        model = algorithm.make(CONFIG, worlds, CONFIG.seed)
        worlds.attach(model, 0)
        rounds, block_s = (ROUNDS_QUICK, BLOCK_QUICK_S) if quick else (ROUNDS, BLOCK_S)
        fragments, single, batched = rates(
            ray, steppers, model, lambda: worlds.collect(model), rounds, block_s
        )
        report(
            "ray.vs_per_step_rpc",
            fragments / single,
            "x",
            "higher",
            1.0,
            f"{ACTORS} actors of {ENVIRONMENTS} robots: fragments {fragments:,.0f} robot-steps/s; reference, one"
            f" environment's step a call, {single:,.0f}; all environments of an actor in one call: {batched:,.0f}",
        )
        for stepper in steppers:
            ray.kill(stepper)
        seconds = []
        for number in range(RECOVERIES_QUICK if quick else RECOVERIES):
            if number:
                cluster.add_node(**NODE)
            seconds.append(recovery(cluster, worlds, lambda: worlds.collect(model)))
        told = ", ".join(f"{whole_s:.1f} and {full_s:.1f}" for whole_s, full_s in seconds)
        report(
            "ray.recovery_s",
            statistics.median(full_s for _, full_s in seconds),
            "s",
            "lower",
            about="from a node's end to the next whole batch that all actors have collected again; each time, s to the"
            f" first whole batch, by whoever was left, and to that one: {told}. After the first time one node held all",
        )
    finally:
        worlds.close()


if __name__ == "__main__":
    main()
