"""How fast training steps, and how long it takes to a policy that works in PyBullet on unseen floors.

``python -m benchmarks.training [--quick]``. ``train.vs_sb3_defaults`` is compared with stable-baselines3's PPO on
eight Gymnasium environments in the same run. ``train.seconds_to_95`` is printed in the full run only: training
goes in slices, after each the exported policy is judged in PyBullet on floors it has not seen; the time of
judging is not counted, that of setting up each slice is.
"""

import statistics
import tempfile
import time
from pathlib import Path

import msgspec
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from benchmarks._report import quick_asked, report
from contracts.robot import AMR_SMALL
from sim.gym_env import WarehouseEnv
from trainer.evaluation.config import EvaluationConfig, unseen_floors
from trainer.evaluation.drive import onnx
from trainer.evaluation.evaluate import evaluate
from trainer.export.onnx import DeployedPolicy, export_onnx
from trainer.learning.config import TrainConfig
from trainer.learning.run import RunFolder
from trainer.learning.train import load_policy, train

ENDLESS = 10**9
ROUNDS, ROUND_S = 3, 15.0
ROUNDS_QUICK, ROUND_QUICK_S = 2, 5.0
REFERENCE_ENVIRONMENTS = 8
REFERENCE_STEPS, REFERENCE_STEPS_QUICK = 2048, 256
"""Steps per environment and batch; 2048 is the library's default."""
SLICE_S, SECONDS_MAX = 10.0, 500.0
WORTH_JUDGING = 0.90
GOAL = 0.95


def our_rate(folder: Path, seconds: float) -> float:
    """Robot-steps per second of a new run with the default config, its first batch left out."""
    run = RunFolder.create(folder, TrainConfig())
    train(run, ENDLESS, seconds_max=seconds)
    curve = run.curve()
    return (curve[-1].steps - curve[0].steps) / (curve[-1].seconds - curve[0].seconds)


def reference_rate(steps: int) -> float:
    """The same for PPO as the library comes, on a lone robot in PyBullet a time."""
    environments = DummyVecEnv(
        [lambda seed=seed: WarehouseEnv(floor_seed=seed, robots=1) for seed in range(REFERENCE_ENVIRONMENTS)]
    )
    model = PPO("MlpPolicy", environments, n_steps=steps, device="cpu", seed=0)
    started = time.perf_counter()
    model.learn(steps * REFERENCE_ENVIRONMENTS)
    elapsed = time.perf_counter() - started
    environments.close()
    return steps * REFERENCE_ENVIRONMENTS / elapsed


def success_in_pybullet(run: RunFolder) -> float:
    """Share of trips that arrive, of the exported policy on unseen floors."""
    network = export_onnx(DeployedPolicy(load_policy(run), AMR_SMALL))
    config = EvaluationConfig()
    result = evaluate([onnx(network, "trained")], config, unseen_floors(config.floors))
    return result.results[0].success


def seconds_to_goal(folder: Path, seed: int = 0) -> float | None:
    """Seconds spent in training when the policy first passes 95 % in PyBullet; None where it never does."""
    run = RunFolder.create(folder, msgspec.structs.replace(TrainConfig(), seed=seed))
    spent_s = 0.0
    resume = False
    while spent_s < SECONDS_MAX:
        started = time.perf_counter()
        last = train(run, ENDLESS, resume, seconds_max=SLICE_S)
        spent_s += time.perf_counter() - started
        resume = True
        if last is not None and last.success >= WORTH_JUDGING and success_in_pybullet(run) >= GOAL:
            return spent_s
    return None


def main() -> None:
    """Measure and print."""
    quick = quick_asked(__doc__ or "")
    torch.set_num_threads(1)
    rounds, seconds = (ROUNDS_QUICK, ROUND_QUICK_S) if quick else (ROUNDS, ROUND_S)
    reference_steps = REFERENCE_STEPS_QUICK if quick else REFERENCE_STEPS
    ours, reference = [], []
    with tempfile.TemporaryDirectory() as folder:
        # The first batch compiles the twin where its sources have changed.
        train(RunFolder.create(Path(folder) / "warm", TrainConfig()), 1)
        for number in range(rounds):
            ours.append(our_rate(Path(folder) / f"rate-{number}", seconds))
            if number == 0 or quick:
                reference.append(reference_rate(reference_steps))
        report(
            "train.vs_sb3_defaults",
            statistics.median(ours) / statistics.median(reference),
            "times",
            "higher",
            1.0,
            f"{statistics.median(ours):,.0f} robot-steps/s against {statistics.median(reference):,.0f} of PPO as it"
            f" comes, 8 PyBullet environments, batches of {reference_steps} steps each",
        )
        if quick:
            return
        took_s = seconds_to_goal(Path(folder) / "goal")
        report(
            "train.seconds_to_95",
            SECONDS_MAX if took_s is None else took_s,
            "s",
            "lower",
            about="until 95 % success in PyBullet on unseen floors"
            + ("" if took_s is not None else f"; never reached within {SECONDS_MAX:.0f} s"),
        )


if __name__ == "__main__":
    main()
