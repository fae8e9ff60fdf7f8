"""Policies that can say how likely an action is: what off-policy evaluation asks of the policy it judges."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from contracts.robot import RobotModel
from navigation.action import encode_command
from trainer.errors import TrainerError
from trainer.evaluation.controllers import OnnxPolicy
from trainer.offpolicy.episodes import Doubles, Floats


class DeterministicPolicyError(TrainerError):
    """The policy always does the same; its actions have no density to weigh with."""


class TargetPolicy(Protocol):
    """A policy over actions that need not be clipped: float32[n, A] for observations float32[n, S]."""

    deterministic: bool

    def log_prob(self, observations: Floats, actions: Floats) -> Doubles:
        """Log-density (or log-probability) of the actions, float64[n].

        Raises:
            DeterministicPolicyError: there is none.
        """

    def sample(self, observations: Floats, rng: np.random.Generator) -> Floats:
        """Actions drawn from the policy."""

    def mean_action(self, observations: Floats) -> Floats:
        """The mean of each action."""


class GaussianPolicy:
    """A normal distribution around a mean, the same spread everywhere.

    Args:
        mean: float32[n, A] for float32[n, S].
        std: float64[A]; all zero for a deterministic policy.

    Raises:
        ValueError: a spread that is negative, not finite, or zero for some actions only.
    """

    def __init__(self, mean: Callable[[Floats], Floats], std: Doubles) -> None:
        if not np.isfinite(std).all() or (std < 0.0).any() or ((std == 0.0).any() and std.any()):
            raise ValueError(
                f"expected a spread above zero for each action, or zero for all, came {std.tolist()}"
            )
        self._mean, self.std = mean, std
        self.deterministic = not std.any()

    def log_prob(self, observations: Floats, actions: Floats) -> Doubles:
        """Log-density of the actions, float64[n]."""
        if self.deterministic:
            raise DeterministicPolicyError(
                "the policy is deterministic: its actions have no density. Give it the exploration noise it is to"
                " be judged with (--noise), and log with noise of the same kind ('outrider ope collect --noise')"
            )
        z = (actions.astype(np.float64) - self._mean(observations)) / self.std
        logs: Doubles = -0.5 * (z**2 + np.log(2.0 * np.pi)) - np.log(self.std)
        total: Doubles = logs.sum(axis=1)
        return total

    def sample(self, observations: Floats, rng: np.random.Generator) -> Floats:
        """Actions drawn from the policy, float32[n, A]."""
        mean = self.mean_action(observations)
        return (mean + self.std * rng.standard_normal(mean.shape)).astype(np.float32)

    def mean_action(self, observations: Floats) -> Floats:
        """The mean of each action, float32[n, A]."""
        return self._mean(observations)


def learned_policy(model: BaseAlgorithm, noise_std: float | None = None) -> GaussianPolicy:
    """A Gaussian policy of stable-baselines3 (PPO) with its own exploration, or with ``noise_std`` of the [-1, 1].

    Raises:
        DeterministicPolicyError: the algorithm's policy is of another kind (SAC, DQN).
    """
    if not isinstance(getattr(model.policy, "log_std", None), torch.nn.Parameter):
        raise DeterministicPolicyError(
            f"the policy of {type(model).__name__} is no plain Gaussian; export it and judge the bundle (--bundle"
            " with --noise)"
        )

    def mean(observations: Floats) -> Floats:
        with torch.no_grad():
            values: Floats = model.policy.get_distribution(torch.as_tensor(observations)).mode().numpy()
        return values

    own: Doubles = model.policy.log_std.detach().double().exp().numpy()
    return GaussianPolicy(mean, own if noise_std is None else np.full_like(own, noise_std))


def bundle_policy(network: bytes, noise_std: float, model: RobotModel) -> GaussianPolicy:
    """A bundle's network with exploration declared by the caller, in units of the action's [-1, 1]."""
    policy = OnnxPolicy(network, "target")

    def mean(observations: Floats) -> Floats:
        return encode_command(policy.commands(observations), model)

    return GaussianPolicy(mean, np.full(2, noise_std))
