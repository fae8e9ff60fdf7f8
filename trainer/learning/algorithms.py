"""The learning algorithms, all behind one small interface; others plug in as entry points ``outrider.algorithms``."""

import math
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, Protocol, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import FloatSchedule
from stable_baselines3.common.vec_env import VecEnv

from trainer.errors import TrainConfigError
from trainer.learning.config import DqnConfig, NetworkConfig, OffPolicyConfig, PpoConfig, TrainConfig
from trainer.learning.network import Normaliser, WeightAverage, actor_parameters, normalisers

Settings = TypeVar("Settings", bound=msgspec.Struct)
ALGORITHMS_GROUP, ENVIRONMENTS_GROUP = "outrider.algorithms", "outrider.environments"


class Algorithm(Protocol):
    """How a run makes and feeds a model of stable-baselines3. A plug-in is an object, or class, with these."""

    def check(self, config: TrainConfig) -> None:
        """Refuse settings that are out of range, with a TrainConfigError."""

    def table(self, config: TrainConfig) -> npt.NDArray[np.float32] | None:
        """None for continuous actions; the actions float32[n, 2] in [-1, 1] that it chooses from otherwise."""

    def make(self, config: TrainConfig, environment: VecEnv, seed: int | None) -> BaseAlgorithm:
        """A fresh model; with ``Normaliser`` as its features extractor to be exported."""

    def batch_steps(self, config: TrainConfig, environments: int) -> int:
        """Robot-steps in a batch, after which the curve gets a point and a checkpoint can be written."""

    def before_batch(self, model: BaseAlgorithm, config: TrainConfig) -> None:
        """Set what changes with ``model.num_timesteps``."""

    def after_batch(self, model: BaseAlgorithm, config: TrainConfig) -> None:
        """Feed the normalisers."""


class PpoAlgorithm:
    """Proximal policy optimisation."""

    def check(self, config: TrainConfig) -> None:
        """All settings are checked by their types."""

    def table(self, config: TrainConfig) -> None:
        """Continuous actions."""

    def make(self, config: TrainConfig, environment: VecEnv, seed: int | None) -> BaseAlgorithm:
        """A fresh PPO."""
        ppo = config.ppo
        kwargs = {**policy_kwargs(config.network), "log_std_init": ppo.log_std_start}
        model = PPO(
            "MlpPolicy",
            environment,
            n_steps=ppo.steps_per_world,
            batch_size=ppo.batch_size,
            n_epochs=ppo.epochs,
            learning_rate=ppo.learning_rate,
            gamma=ppo.discount,
            gae_lambda=ppo.gae_lambda,
            clip_range=ppo.clip_range,
            ent_coef=ppo.entropy,
            seed=seed,
            device="cpu",
            policy_kwargs=kwargs,
        )
        if ppo.average_share > 0.0:
            model.policy.average = WeightAverage(model.policy)
        return model

    def batch_steps(self, config: TrainConfig, environments: int) -> int:
        """One rollout."""
        return environments * config.ppo.steps_per_world

    def before_batch(self, model: BaseAlgorithm, config: TrainConfig) -> None:
        """The learning rate, and how much is still tried out; after imitation only the critic learns at first."""
        _apply(model, config.ppo)
        steps, rate = int(model.num_timesteps), config.ppo.learning_rate_at(int(model.num_timesteps))
        if config.imitation is not None:
            acts = steps >= config.imitation.critic_steps
            rate = rate if acts else config.imitation.critic_learning_rate
            for parameter in (*actor_parameters(model.policy), model.policy.log_std):
                parameter.requires_grad_(acts)
        model.lr_schedule = FloatSchedule(rate)
        with torch.no_grad():
            model.policy.log_std.clamp_(max=math.log(config.ppo.std_max_at(steps)))

    def after_batch(self, model: BaseAlgorithm, config: TrainConfig) -> None:
        """The mean of the weights moves on; the normaliser sees the whole rollout, before the next one."""
        if config.ppo.average_share > 0.0:
            model.policy.average.update(model.policy, config.ppo.average_share)
        observations = model.rollout_buffer.observations
        update_normalisers(model, observations.reshape(-1, observations.shape[-1]))


def _apply(model: BaseAlgorithm, ppo: PpoConfig) -> None:
    """What a stage may set otherwise than the run; with another length of rollout goes another buffer."""
    model.n_epochs, model.batch_size, model.ent_coef = ppo.epochs, ppo.batch_size, ppo.entropy
    model.clip_range = FloatSchedule(ppo.clip_range)
    rollout = ppo.steps_per_world, ppo.discount, ppo.gae_lambda
    if (model.n_steps, model.gamma, model.gae_lambda) == rollout:
        return
    model.n_steps, model.gamma, model.gae_lambda = rollout
    model.rollout_buffer = type(model.rollout_buffer)(
        ppo.steps_per_world,
        model.observation_space,
        model.action_space,
        device=model.device,
        gamma=ppo.discount,
        gae_lambda=ppo.gae_lambda,
        n_envs=model.n_envs,
    )


class OffPolicy:
    """What SAC and DQN have in common."""

    def settings(self, config: TrainConfig) -> OffPolicyConfig:
        """The algorithm's part of the config."""
        raise NotImplementedError

    def check(self, config: TrainConfig) -> None:
        """The buffer has to hold a batch of all robots."""
        settings, environments = self.settings(config), config.worlds * config.robots
        if settings.buffer_size < environments * settings.steps_per_world:
            raise TrainConfigError(
                f"buffer_size is {settings.buffer_size}; expected room for a batch of all robots,"
                f" {environments * settings.steps_per_world}"
            )

    def batch_steps(self, config: TrainConfig, environments: int) -> int:
        """``steps_per_world`` control steps."""
        return environments * self.settings(config).steps_per_world

    def before_batch(self, model: BaseAlgorithm, config: TrainConfig) -> None:
        """Nothing changes with the steps."""

    def after_batch(self, model: BaseAlgorithm, config: TrainConfig) -> None:
        """The normalisers see what this batch has added to the replay buffer."""
        buffer, count = model.replay_buffer, self.settings(config).steps_per_world
        rows = (buffer.pos - 1 - np.arange(count)) % buffer.buffer_size
        update_normalisers(model, buffer.observations[rows].reshape(-1, buffer.observations.shape[-1]))

    def arguments(self, config: TrainConfig) -> dict[str, Any]:
        """What both constructors of stable-baselines3 take."""
        settings = self.settings(config)
        return {
            "buffer_size": settings.buffer_size,
            "learning_starts": settings.learning_starts,
            "batch_size": settings.batch_size,
            "train_freq": 1,
            "gradient_steps": settings.gradient_steps,
            "learning_rate": settings.learning_rate,
            "gamma": settings.discount,
            "device": "cpu",
            "policy_kwargs": policy_kwargs(config.network),
        }


class SacAlgorithm(OffPolicy):
    """Soft actor-critic."""

    def settings(self, config: TrainConfig) -> OffPolicyConfig:
        """``sac`` of the config."""
        return config.sac

    def table(self, config: TrainConfig) -> None:
        """Continuous actions."""

    def make(self, config: TrainConfig, environment: VecEnv, seed: int | None) -> BaseAlgorithm:
        """A fresh SAC."""
        return SAC(
            "MlpPolicy",
            environment,
            tau=config.sac.target_rate,
            ent_coef=f"auto_{config.sac.temperature_start}",
            seed=seed,
            **self.arguments(config),
        )


class DqnAlgorithm(OffPolicy):
    """Deep Q-learning over a grid of actions, which the policy holds as a buffer."""

    def settings(self, config: TrainConfig) -> OffPolicyConfig:
        """``dqn`` of the config."""
        return config.dqn

    def table(self, config: TrainConfig) -> npt.NDArray[np.float32]:
        """Each speed with each turn, float32[n, 2]."""
        return action_grid(config.dqn)

    def make(self, config: TrainConfig, environment: VecEnv, seed: int | None) -> BaseAlgorithm:
        """A fresh DQN."""
        model = DQN(
            "MlpPolicy",
            environment,
            target_update_interval=config.dqn.target_every_steps,
            seed=seed,
            **self.arguments(config),
        )
        model.policy.register_buffer("action_table", torch.as_tensor(action_grid(config.dqn)))
        return model

    def before_batch(self, model: BaseAlgorithm, config: TrainConfig) -> None:
        """The share of random actions."""
        model.exploration_schedule = FloatSchedule(config.dqn.explore_at(int(model.num_timesteps)))


def action_grid(dqn: DqnConfig) -> npt.NDArray[np.float32]:
    """Actions float32[n, 2]: each speed with each turn, both in [-1, 1]."""
    return np.array([(speed, turn) for speed in dqn.speeds for turn in dqn.turns], dtype=np.float32)


def policy_kwargs(network: NetworkConfig) -> dict[str, Any]:
    """The network, as all policies of stable-baselines3 take it."""
    return {
        "features_extractor_class": Normaliser,
        "features_extractor_kwargs": {"history": network.history},
        "net_arch": list(network.hidden),
        "activation_fn": torch.nn.ELU,
    }


def update_normalisers(model: BaseAlgorithm, observations: npt.NDArray[np.float32]) -> None:
    """Show observations float32[n, size] to every normaliser of a model."""
    tensor = torch.as_tensor(observations)
    for normaliser in normalisers(model.policy):
        normaliser.update(tensor)


BUILT_IN: dict[str, Callable[[], Algorithm]] = {"ppo": PpoAlgorithm, "sac": SacAlgorithm, "dqn": DqnAlgorithm}


def algorithm_of(config: TrainConfig) -> Algorithm:
    """The algorithm that a config names, its settings checked.

    Raises:
        TrainConfigError: no such algorithm, or a setting it does not take.
    """
    made = BUILT_IN[config.algorithm]() if config.algorithm in BUILT_IN else _plugged_algorithm(config)
    made.check(config)
    return made


def _plugged_algorithm(config: TrainConfig) -> Algorithm:
    found = load_plugin(ALGORITHMS_GROUP, config.algorithm, ", ".join(BUILT_IN))
    algorithm: Algorithm = found() if isinstance(found, type) else found
    return algorithm


def load_plugin(group: str, name: str, built_in: str) -> Any:
    """The object behind an entry point.

    Raises:
        TrainConfigError: nobody provides ``name``, or it cannot be imported.
    """
    there = {point.name: point for point in entry_points(group=group)}
    if name not in there:
        raise TrainConfigError(
            f"{group.removeprefix('outrider.')}: no {name!r}; there are {', '.join([built_in, *sorted(there)])}."
            f" Install the package that provides it (entry point group {group!r})"
        )
    try:
        return there[name].load()
    except (ImportError, AttributeError) as error:
        raise TrainConfigError(f"entry point {name!r} of {group!r} cannot be loaded: {error}") from None


def plugin_settings(config: TrainConfig, kind: type[Settings]) -> Settings:
    """``plugin`` of the config as a plug-in's own frozen struct.

    Raises:
        TrainConfigError: an unknown key or a value out of range.
    """
    try:
        return msgspec.convert(config.plugin, kind)
    except msgspec.ValidationError as error:
        raise TrainConfigError(f"plugin: {error}") from None
