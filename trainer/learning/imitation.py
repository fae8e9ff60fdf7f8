"""Learning from a teacher first: data set aggregation (DAgger; Ross, Gordon, Bagnell 2011).

The policy begins where a tuned baseline or several policies together (``trainer.learning.teachers``) are instead of at
nothing, and learns by trial what those do not know. In the first round the teacher drives, disturbed now and then;
afterwards the policy drives, so that it is taught what to do where its own mistakes lead it. In all rounds what counts
is what the teacher would have done.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from stable_baselines3 import PPO

from contracts.observation import OBSERVATION_SIZE
from navigation.action import encode_command
from trainer.episodes.vec_env import BatchedVecEnv
from trainer.learning.network import actor_parameters, normalisers
from trainer.learning.scene import make_environment
from trainer.learning.teachers import make_teacher

if TYPE_CHECKING:
    from trainer.learning.config import ImitationConfig, TrainConfig

SEED_SHIFT = 1_299_709
"""Between the seeds of these worlds and of those learned in afterwards."""


class Disturbance(NamedTuple):
    """Share of actions that are disturbed, and how much, in units of the robot's range."""

    share: float
    std: float


TEACHER_DRIVES, POLICY_DRIVES = Disturbance(0.3, 0.4), Disturbance(0.2, 0.3)


class Lesson(NamedTuple):
    """A round has ended. ``error``: mean smooth L1 distance to the teacher's actions, in units of the robot's range."""

    teacher: str
    number: int
    of: int
    error: float


def imitate(model: PPO, config: "TrainConfig", report: Callable[[Lesson], None] | None = None) -> None:
    """Bring the actor of a fresh model to what the teacher would do; its critic knows nothing yet.

    Same config, same weights. Worlds and random numbers of the run itself are not touched.

    Args:
        model: a policy with a continuous action and a ``Normaliser``, which learns from these observations too.
        config: of the run; its first stage's worlds, and ``imitation``.
        report: called after each round.

    Raises:
        TrainConfigError: there is no such teacher.
    """
    settings = config.imitation
    assert settings is not None
    environment = make_environment(config, None)
    try:
        school = _School(model, environment, settings, config.seed)
        for number in range(1, settings.rounds + 1):
            school.drive(first=number == 1)
            error = school.learn(settings.epochs_last if number == settings.rounds else settings.epochs)
            if report is not None:
                report(Lesson(settings.teacher, number, settings.rounds, error))
    finally:
        environment.close()
    if hasattr(model.policy, "average"):
        model.policy.average.restart(model.policy)


class _School:
    """Teacher, pupil, and all that was seen so far with what the teacher would have done."""

    def __init__(
        self, model: PPO, environment: BatchedVecEnv, settings: "ImitationConfig", seed: int
    ) -> None:
        self._policy, self._environment, self._settings = model.policy, environment, settings
        self._robot = environment.simulation.model
        self._teacher = make_teacher(
            settings.teacher, self._robot, environment.simulation.step_s, environment.num_envs
        )
        self._random = np.random.default_rng(seed + SEED_SHIFT)
        self._order = torch.Generator().manual_seed(seed + SEED_SHIFT)
        environment.seed(seed + SEED_SHIFT)
        self._observation = environment.reset()
        kept = settings.rounds * -(-settings.steps_per_round // settings.keep_every) * environment.num_envs
        self._seen = np.empty((kept, OBSERVATION_SIZE), dtype=np.float32)
        self._told = np.empty((kept, 2), dtype=np.float32)
        self._kept = 0

    def drive(self, first: bool) -> None:
        """A round: collect; in the first one the teacher's own actions are carried out."""
        disturbance = TEACHER_DRIVES if first else POLICY_DRIVES
        for step in range(self._settings.steps_per_round):
            told = np.clip(encode_command(self._teacher.commands(self._observation), self._robot), -1.0, 1.0)
            if step % self._settings.keep_every == 0:
                rows = slice(self._kept, self._kept + len(told))
                self._seen[rows], self._told[rows] = self._observation, told
                self._kept = rows.stop
            action = self._disturbed(told if first else self._answer(), disturbance)
            self._observation = self._environment.step(action)[0]
        if first:
            for normaliser in normalisers(self._policy):
                normaliser.update(torch.from_numpy(self._seen[: self._kept]))

    def _answer(self) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            answer: npt.NDArray[np.float32] = self._mean(torch.from_numpy(self._observation)).numpy()
        return answer

    def _mean(self, observations: torch.Tensor) -> torch.Tensor:
        policy = self._policy
        with torch.no_grad():
            features = policy.extract_features(observations)
        mean: torch.Tensor = policy.action_net(policy.mlp_extractor.forward_actor(features))
        return mean

    def _disturbed(
        self, action: npt.NDArray[np.float32], disturbance: Disturbance
    ) -> npt.NDArray[np.float32]:
        chosen = self._random.random(len(action)) < disturbance.share
        noise = self._random.normal(0.0, disturbance.std, action.shape) * chosen[:, None]
        return np.clip(action + noise, -1.0, 1.0).astype(np.float32)

    def learn(self, epochs: int) -> float:
        """Fit the actor to all that was collected; the mean error of the last epoch."""
        seen, told = torch.from_numpy(self._seen[: self._kept]), torch.from_numpy(self._told[: self._kept])
        size = min(self._settings.batch_size, len(seen))
        batches = len(seen) // size
        optimiser = torch.optim.Adam(actor_parameters(self._policy), self._settings.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * batches)
        total = 0.0
        for _ in range(epochs):
            order, total = torch.randperm(len(seen), generator=self._order), 0.0
            for first in range(0, batches * size, size):
                batch = order[first : first + size]
                loss = torch.nn.functional.smooth_l1_loss(self._mean(seen[batch]), told[batch], beta=0.2)
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
                total += loss.item()
        return total / batches
