"""The normaliser that lives inside the policy: it is trained, saved and exported with the weights."""

import copy

import gymnasium
import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from contracts.observation import BEAMS, OBSERVATION_SIZE, ROUTING_LAYOUT

CLIP = 5.0
VARIANCE_MIN = 1e-4


class Normaliser(BaseFeaturesExtractor):  # type: ignore[misc]
    """``clip((x - mean) / std, -5, 5)`` with mean and variance of all observations seen so far.

    The statistics are buffers, updated once per batch of episodes by ``update`` (Chan, Golub, LeVeque 1979),
    never inside a gradient step. Without ``history`` the beams of one interval ago come out as zeros.
    """

    mean: torch.Tensor
    variance: torch.Tensor
    count: torch.Tensor
    seen: torch.Tensor

    def __init__(self, observation_space: gymnasium.spaces.Box, history: bool = True) -> None:
        size = int(observation_space.shape[0])
        super().__init__(observation_space, size)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))
        self.register_buffer("count", torch.tensor(1e-4))
        self.register_buffer("seen", torch.ones(size))
        if not history and size == OBSERVATION_SIZE:
            start = ROUTING_LAYOUT.offset("beams_before")
            self.seen[start : start + BEAMS] = 0.0

    def update(self, observations: torch.Tensor) -> None:
        """Take in a batch float32[n, size]."""
        batch_count = torch.tensor(float(observations.shape[0]))
        batch_mean = observations.mean(dim=0)
        batch_variance = observations.var(dim=0, unbiased=False)
        delta = batch_mean - self.mean
        total = self.count + batch_count
        self.mean += delta * batch_count / total
        spread = self.variance * self.count + batch_variance * batch_count
        self.variance.copy_((spread + delta**2 * self.count * batch_count / total) / total)
        self.count.copy_(total)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Normalised observations float32[n, size]."""
        scaled = (observations - self.mean) / torch.sqrt(self.variance + VARIANCE_MIN)
        return torch.clamp(scaled, -CLIP, CLIP) * self.seen


class WeightAverage(torch.nn.Module):
    """A running mean of a PPO policy's weights: part of the policy's state, never of its gradient.

    The mean of a noisy end is better than any of its points (Polyak, Juditsky 1992; Izmailov et al. 2018).
    """

    updates: torch.Tensor

    def __init__(self, policy: ActorCriticPolicy) -> None:
        super().__init__()
        self.body = copy.deepcopy(policy.mlp_extractor.policy_net).requires_grad_(False)
        self.head = copy.deepcopy(policy.action_net).requires_grad_(False)
        self.register_buffer("updates", torch.tensor(0.0))

    def restart(self, policy: ActorCriticPolicy) -> None:
        """Forget what was; begin at the present weights."""
        self.updates.zero_()
        self.update(policy, 1.0)
        self.updates.zero_()

    @torch.no_grad()
    def update(self, policy: ActorCriticPolicy, share: float) -> None:
        """Take in the present weights; the mean reaches back over about ``share`` of all updates so far."""
        self.updates += 1.0
        weight = 1.0 / max(1.0, share * float(self.updates))
        own = [*self.body.parameters(), *self.head.parameters()]
        for mean, parameter in zip(own, actor_parameters(policy), strict=True):
            mean.lerp_(parameter, weight)


def actor_parameters(policy: ActorCriticPolicy) -> list[torch.nn.Parameter]:
    """What the mean of the action depends on, of an actor-critic policy; its spread not included."""
    return [*policy.mlp_extractor.policy_net.parameters(), *policy.action_net.parameters()]


def normalisers(policy: torch.nn.Module) -> list[Normaliser]:
    """Every normaliser of a policy: one in PPO's, one for each network in the others'. All see the same."""
    return [module for module in policy.modules() if isinstance(module, Normaliser)]
