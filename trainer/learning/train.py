"""The training loop: PPO of stable-baselines3 on the twin, in one process, with checkpoints and a curve."""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.utils import FloatSchedule

from sim.simulation import Simulation, SimulationConfig
from sim.tasks.delivery import TRIP_MAX_S, Outcome
from sim.world.generate import generate_warehouse
from trainer.episodes.vec_env import BatchedVecEnv
from trainer.errors import RunError
from trainer.learning.config import TrainConfig
from trainer.learning.network import Normaliser
from trainer.learning.run import CurvePoint, RunFolder

TRIPS_WINDOW = 1000
CHECKPOINT_EVERY_S = 20.0
Report = Callable[[CurvePoint], None]


def make_simulation(config: TrainConfig) -> Simulation:
    """The training worlds of a config, in the twin."""
    floors = [generate_warehouse(config.floor_seed + index) for index in range(config.floors)]
    settings = SimulationConfig(
        worlds=config.worlds,
        robots=config.robots,
        people=config.people,
        reward=config.reward,
        monitor=config.monitor,
    )
    return Simulation(floors, settings, seed=config.seed, threads=config.sim_threads)


def train(
    run: RunFolder,
    steps: int,
    resume: bool = False,
    report: Report | None = None,
    seconds_max: float | None = None,
) -> CurvePoint | None:
    """Train for ``steps`` more robot-steps; leaves a whole checkpoint however it ends.

    Args:
        run: the folder.
        steps: robot-steps to take in this call.
        resume: go on from the checkpoint: weights, optimiser, normaliser and step count.
        report: called after each batch.
        seconds_max: stop earlier, after this long.

    Returns:
        The last point of the curve; None when it was stopped before the first batch ended.

    Raises:
        RunError: nothing to resume, or a checkpoint that cannot be read.
        KeyboardInterrupt: passed on after the checkpoint has been written.
    """
    torch.set_num_threads(1)
    before = run.curve()
    simulation = make_simulation(run.config)
    environment = BatchedVecEnv(simulation)
    try:
        model = _load(run, environment) if resume else _new(run.config, environment)
        model.set_logger(configure(str(run.path / "tensorboard"), ["tensorboard"]))
        watch = _Watch(run, report, seconds_max, before[-1].seconds if resume and before else 0.0)
        try:
            model.learn(total_timesteps=steps, callback=watch, reset_num_timesteps=not resume)
        finally:
            run.save_checkpoint(lambda path: model.save(path))
            model.logger.close()
    finally:
        environment.close()
    return watch.last


def load_policy(run: RunFolder) -> PPO:
    """The trained model of a run, without an environment.

    Raises:
        RunError: there is no checkpoint, or it cannot be read.
    """
    return _read_checkpoint(run, None)


def _new(config: TrainConfig, environment: BatchedVecEnv) -> PPO:
    ppo = config.ppo
    return PPO(
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
        seed=config.seed,
        device="cpu",
        policy_kwargs={
            "features_extractor_class": Normaliser,
            "net_arch": list(ppo.hidden),
            "activation_fn": torch.nn.ELU,
            "log_std_init": ppo.log_std_start,
        },
    )


def _load(run: RunFolder, environment: BatchedVecEnv) -> PPO:
    model = _read_checkpoint(run, environment)
    # Another stream than the first part's, or the same worlds would come again.
    environment.seed(run.config.seed + int(model.num_timesteps) % 2**31)
    return model


def _read_checkpoint(run: RunFolder, environment: BatchedVecEnv | None) -> PPO:
    path = run.require_checkpoint()
    try:
        return PPO.load(path, env=environment, device="cpu")
    except Exception as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(f"{path} is not a checkpoint of this version: {detail}; train the run anew") from None


class _Watch(BaseCallback):  # type: ignore[misc]
    """Feeds the normaliser, writes the curve and checkpoints, and ends the run in time."""

    def __init__(
        self, run: RunFolder, report: Report | None, seconds_max: float | None, seconds_before: float
    ) -> None:
        super().__init__()
        self.last: CurvePoint | None = None
        self._run, self._report = run, report
        self._seconds_max, self._seconds_before = seconds_max, seconds_before
        self._outcomes: deque[int] = deque(maxlen=TRIPS_WINDOW)
        self._trip_s: deque[float] = deque(maxlen=TRIPS_WINDOW)
        self._returns: deque[float] = deque(maxlen=TRIPS_WINDOW)

    def _on_training_start(self) -> None:
        self._started = self._saved = time.perf_counter()

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if info:
                self._outcomes.append(info["outcome"])
                arrived = info["outcome"] == Outcome.ARRIVED
                self._trip_s.append(info["trip_s"] if arrived else TRIP_MAX_S)
                self._returns.append(info["episode"]["r"])
        return self._seconds_max is None or time.perf_counter() - self._started < self._seconds_max

    def _on_rollout_end(self) -> None:
        buffer = self.model.rollout_buffer
        observations = torch.as_tensor(buffer.observations).reshape(-1, buffer.observations.shape[-1])
        self.model.policy.features_extractor.update(observations)
        rate = self._run.config.ppo.learning_rate_at(int(self.model.num_timesteps))
        self.model.lr_schedule = FloatSchedule(rate)
        now = time.perf_counter()
        self.last = self._point(now)
        self._run.append_curve(self.last)
        for name in ("success", "contact", "timeout", "trip_s", "std", "reduced"):
            self.logger.record(f"trips/{name}", getattr(self.last, name))
        if self._report is not None:
            self._report(self.last)
        if now - self._saved > CHECKPOINT_EVERY_S:
            self._run.save_checkpoint(lambda path: self.model.save(path))
            self._saved = now

    def _point(self, now: float) -> CurvePoint:
        counts = np.bincount(np.array(self._outcomes, dtype=np.int64), minlength=len(Outcome))
        shares = counts / max(1, len(self._outcomes))
        environment: Any = self.training_env
        return CurvePoint(
            seconds=round(self._seconds_before + now - self._started, 3),
            steps=int(self.model.num_timesteps),
            success=float(shares[Outcome.ARRIVED]),
            contact=float(shares[Outcome.CONTACT]),
            timeout=float(shares[Outcome.TIMEOUT]),
            trip_s=float(np.mean(self._trip_s)) if self._trip_s else TRIP_MAX_S,
            reward=float(np.mean(self._returns)) if self._returns else 0.0,
            std=float(self.model.policy.log_std.detach().exp().mean()),
            reduced=float(environment.simulation.reduced.mean()),
            trips=len(self._outcomes),
        )
