"""Logs episodes in the twin, in the form that off-policy evaluation reads."""

import numpy as np

from navigation.action import decode_action
from sim.simulation import Simulation
from sim.tasks.delivery import Outcome
from trainer.offpolicy.episodes import EpisodesError, Floats, LoggedEpisodes
from trainer.offpolicy.policies import TargetPolicy

EPISODES_MAX = 100_000


def collect_episodes(
    policy: TargetPolicy, simulation: Simulation, count: int, seed: int, steps_max: int | None = None
) -> LoggedEpisodes:
    """Log the first trip of every robot after a reset, and reset until there are ``count``.

    First trips only: which trips fit into a fixed time depends on the policy, where a first trip begins does not.
    With several robots on a floor all of them follow ``policy``; a log of one robot a floor is the one whose
    weights are exact.

    Args:
        policy: drawn from; where it is deterministic, the log has no probabilities (NaN).
        simulation: is reset; same seed, same episodes.
        count: how many episodes.
        seed: of the simulation and of the draws.
        steps_max: stop logging a trip after this many steps (such a trip counts as cut, not as ended).

    Raises:
        EpisodesError: a count or a number of steps out of range.
    """
    if not 1 <= count <= EPISODES_MAX or (steps_max is not None and steps_max < 1):
        raise EpisodesError(
            f"{count} episodes of at most {steps_max} steps: need 1 to {EPISODES_MAX} and 1 at least"
        )
    rng = np.random.default_rng(seed)
    logs: list[_Batch] = []
    have = 0
    while have < count:
        logs.append(_Batch(policy, simulation, seed + len(logs) * 10_007, rng, steps_max))
        have += simulation.reward.size
    return _joined(logs, count)


class _Batch:
    """One trip of every robot, as arrays over steps and robots."""

    def __init__(
        self,
        policy: TargetPolicy,
        simulation: Simulation,
        seed: int,
        rng: np.random.Generator,
        steps_max: int | None,
    ) -> None:
        robots = simulation.reward.size
        shape = (*simulation.reward.shape, 2)
        self.lengths = np.zeros(robots, dtype=np.int64)
        self.ended = np.zeros(robots, dtype=np.bool_)
        steps: list[tuple[Floats, Floats, np.ndarray, np.ndarray]] = []
        observation = simulation.reset(seed).reshape(robots, -1).copy()
        self.final = observation.copy()
        while not self.ended.all() and (steps_max is None or len(steps) < steps_max):
            action = policy.sample(observation, rng)
            logs = np.full(robots, np.nan) if policy.deterministic else policy.log_prob(observation, action)
            driven = np.clip(action, -1.0, 1.0).reshape(shape)
            simulation.step(driven, decode_action(driven, simulation.model))
            steps.append((observation, action, logs, simulation.reward.reshape(-1).copy()))
            running = ~self.ended
            done = simulation.outcome.reshape(-1) != Outcome.RUNNING
            observation = simulation.observation.reshape(robots, -1).copy()
            terminal = simulation.terminal_observation.reshape(robots, -1)
            self.final[running] = np.where(done[:, None], terminal, observation)[running]
            self.lengths[running] += 1
            self.ended |= done
        self.observations, self.actions, self.logs, self.rewards = (
            np.stack(column) for column in zip(*steps, strict=True)
        )


def _joined(batches: list[_Batch], count: int) -> LoggedEpisodes:
    pairs = [(batch, robot) for batch in batches for robot in range(len(batch.lengths))][:count]
    lengths = [int(batch.lengths[robot]) for batch, robot in pairs]

    def joined(name: str) -> np.ndarray:
        parts = [getattr(b, name)[:length, robot] for (b, robot), length in zip(pairs, lengths, strict=True)]
        return np.concatenate(parts)

    return LoggedEpisodes(
        observations=joined("observations"),
        actions=joined("actions"),
        log_probabilities=joined("logs"),
        rewards=joined("rewards"),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        ended=np.array([batch.ended[robot] for batch, robot in pairs]),
        final_observations=np.stack([batch.final[robot] for batch, robot in pairs]),
    )
