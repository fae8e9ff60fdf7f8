"""The worlds of a stage of training, in the twin, as a batched environment."""

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.base_class import BaseAlgorithm

from navigation.warehouse import Warehouse
from sim.simulation import Simulation, SimulationConfig
from sim.world.generate import generate_mixed, generate_warehouse
from trainer.episodes.vec_env import BatchedVecEnv
from trainer.errors import RunError
from trainer.learning.algorithms import ENVIRONMENTS_GROUP, load_plugin
from trainer.learning.config import BUILT_IN_ENVIRONMENT, Stage, TrainConfig

STAGE_SEEDS = 7_368_787
"""Between the seeds of two stages, so that the same people do not come again."""


def make_floors(config: TrainConfig, stage: Stage) -> list[Warehouse]:
    """The training floors of a stage."""
    if stage.families:
        return generate_mixed(config.floors, config.floor_seed, stage.families, stage.difficulty)
    return [generate_warehouse(config.floor_seed + index) for index in range(config.floors)]


def make_simulation(config: TrainConfig, stage_number: int = 0, first_world: int = 0) -> Simulation:
    """The training worlds of a stage, in the twin; from world ``first_world`` on, where others hold the rest."""
    stage = config.stages()[stage_number]
    randomise = config.randomise.scaled(stage.randomise_scale) if config.randomise else None
    settings = SimulationConfig(
        worlds=config.worlds,
        robots=config.robots + stage.robots_rule_based + stage.robots_broken,
        robots_rule_based=stage.robots_rule_based,
        robots_broken=stage.robots_broken,
        people=stage.people,
        randomise=randomise,
        reward=config.reward,
        monitor=config.monitor,
    )
    seed = stage_seed(config, stage_number)
    floors = make_floors(config, stage)
    shift = first_world % len(floors)
    return Simulation(
        floors[shift:] + floors[:shift], settings, seed=seed, model=config.robot, threads=config.sim_threads
    )


def stage_seed(config: TrainConfig, stage_number: int) -> int:
    """The seed of a stage's worlds; the run's own in the first."""
    return config.seed + STAGE_SEEDS * stage_number


def make_environment(
    config: TrainConfig, table: npt.NDArray[np.float32] | None, stage_number: int = 0, first_world: int = 0
) -> BatchedVecEnv:
    """The training environment; a plugged-in one where the config names one.

    Raises:
        RunError: a plug-in gave no environment that can be trained in and resumed.
    """
    if config.environment == BUILT_IN_ENVIRONMENT:
        return BatchedVecEnv(make_simulation(config, stage_number, first_world), table)
    factory = load_plugin(ENVIRONMENTS_GROUP, config.environment, BUILT_IN_ENVIRONMENT)
    made = factory(config, table, stage_number)
    if not isinstance(made, BatchedVecEnv):
        raise RunError(
            f"environment {config.environment!r} gave a {type(made).__name__}; expected a BatchedVecEnv"
            " of trainer.episodes.vec_env, or a subclass"
        )
    return made


def enter_stage(
    model: BaseAlgorithm,
    environment: BatchedVecEnv,
    config: TrainConfig,
    table: npt.NDArray[np.float32] | None,
    stage_number: int,
    first_world: int = 0,
) -> None:
    """Go on in the worlds of another stage, from their beginning."""
    environment.replace(make_environment(config, table, stage_number, first_world).simulation)
    environment.seed(stage_seed(config, stage_number))
    model._last_obs = environment.reset()
    model._last_episode_starts[:] = True
