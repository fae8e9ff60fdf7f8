"""The training loop: batch by batch on the twin, in one process; between two batches all state is at rest."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stable_baselines3.common.callbacks import BaseCallback

from sim.tasks.delivery import TRIP_MAX_S, Outcome
from trainer.errors import RunError
from trainer.learning.algorithms import Algorithm, algorithm_of
from trainer.learning.checkpoint import (
    Checkpoint,
    encode_checkpoint,
    load_policy,
    read_checkpoint,
    restore,
    restore_weights,
)
from trainer.learning.imitation import Lesson, imitate
from trainer.learning.logs import run_logger
from trainer.learning.progress import Progress
from trainer.learning.run import CurvePoint, Goal, RunFolder
from trainer.learning.scene import enter_stage, make_environment, make_simulation

if TYPE_CHECKING:
    from trainer.scale_out.config import ScaleOutConfig

__all__ = ["CHECKPOINT_EVERY_S", "load_policy", "make_simulation", "train"]

CHECKPOINT_EVERY_S = 20.0
Report = Callable[[CurvePoint | Lesson], None]


def train(
    run: RunFolder,
    steps: int | None = None,
    resume: bool = False,
    report: Report | None = None,
    seconds_max: float | None = None,
    warm_start: RunFolder | None = None,
    stop_early: bool = True,
    scale_out: "ScaleOutConfig | None" = None,
) -> CurvePoint | None:
    """Train for ``steps`` more robot-steps; the last checkpoint is whole however it ends.

    Args:
        run: the folder.
        steps: robot-steps to take in this call, rounded up to whole batches; None to finish what was asked before.
        resume: go on from the checkpoint, bit for bit as if there had been no break.
        report: called after each round of imitation and each batch.
        seconds_max: stop earlier, after the first batch that ends beyond it.
        warm_start: begin with this run's weights, normaliser and optimiser.
        stop_early: whether the config's early stop counts.
        scale_out: collect in Ray actors; going on is then not bit for bit, their worlds begin anew.

    Returns:
        The last point of the curve; None where there is none.

    Raises:
        RunError: nothing to resume, a checkpoint that cannot be read or written, an environment that gave NaN, or
            no memory left.
        TrainConfigError: an algorithm or environment that nobody provides, or settings it does not take.
        ScaleOutError: Ray is missing, its cluster cannot be reached, or its actors do not collect.
        KeyboardInterrupt: after the running batch and its checkpoint; at once when it comes twice.
    """
    import torch

    torch.set_num_threads(1)
    algorithm = algorithm_of(run.config)
    saved = read_checkpoint(run) if resume else None
    before = saved or (read_checkpoint(warm_start) if warm_start else None)
    target = _target(run, steps, saved)
    if saved is not None and saved.steps >= target:
        points = run.curve()
        return points[-1] if points else None
    try:
        loop = _Loop(run, algorithm, before, resume, scale_out)
        try:
            if before is None and run.config.imitation is not None:
                imitate(loop.model, run.config, report)
            return loop.run_to(target, report, seconds_max, stop_early)
        finally:
            loop.close()
    except OSError as error:
        raise RunError(f"{run.path} cannot be written: {error}; the last checkpoint is whole") from None
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "alloc" not in str(error):
            raise
        raise RunError(
            "out of memory; the last checkpoint is whole, give it fewer worlds and train anew"
        ) from None


def _target(run: RunFolder, steps: int | None, saved: Checkpoint | None) -> int:
    """Robot-steps of the run in all; writes down what is asked anew."""
    if steps is not None:
        target = steps + (saved.steps if saved else 0)
        if saved is not None:
            saved.head.progress.forget_stop()
        run.set_goal(Goal(target))
        return target
    goal = run.goal()
    if goal is None:
        raise RunError(f"{run.path} does not say how many steps it was asked for; give --steps")
    return saved.steps if saved is not None and goal.ended_early else goal.target_steps


class _Loop:
    """A model in its environment, from the start or a checkpoint."""

    def __init__(
        self,
        run: RunFolder,
        algorithm: Algorithm,
        before: Checkpoint | None,
        resume: bool,
        scale_out: "ScaleOutConfig | None",
    ) -> None:
        config = run.config
        self.run, self.algorithm, self.config, self.scale_out = run, algorithm, config, scale_out
        self.progress = before.head.progress if before is not None and resume else Progress()
        if scale_out is None:
            self.environment = make_environment(config, algorithm.table(config), self.progress.stage)
        else:
            from trainer.scale_out.remote_worlds import RemoteWorlds

            self.environment = RemoteWorlds(config, algorithm, scale_out, run)
        try:
            self.model = algorithm.make(config, self.environment, config.seed)
            if before is not None and resume:
                restore(before, self.model, self.environment)
                run.cut_curve(before.steps)
            elif before is not None:
                restore_weights(before, self.model)
                self.model.num_timesteps = 0
            self.model.set_logger(run_logger(run))
            if scale_out is not None:
                self.environment.attach(self.model, self.progress.stage)
        except BaseException:
            self.environment.close()
            raise
        self.watch = _Watch(self.progress)

    def close(self) -> None:
        """Let go of the simulation's threads and the logs."""
        self.environment.close()
        self.model.logger.close()

    def run_to(
        self, target: int, report: Report | None, seconds_max: float | None, stop_early: bool
    ) -> CurvePoint | None:
        """Batch after batch; a checkpoint now and then, and at the end."""
        seconds_before, started = self.progress.seconds, time.perf_counter()
        saved_s, point = 0.0, None
        with _interrupt_asked() as interrupted:
            while True:
                self._batch()
                spent_s = time.perf_counter() - started
                self.progress.seconds = round(seconds_before + spent_s, 3)
                point = self._point()
                reason = self._move_on(point.steps)
                reason = reason if stop_early else ""
                self.run.append_curve(point)
                self._log(point)
                if report is not None:
                    report(point)
                out_of_time = seconds_max is not None and spent_s >= seconds_max
                ends = point.steps >= target or bool(reason) or out_of_time or interrupted.is_set()
                if ends or spent_s - saved_s > CHECKPOINT_EVERY_S:
                    self.run.save_checkpoint(encode_checkpoint(self.model, self.environment, self.progress))
                    saved_s = spent_s
                if reason:
                    self.run.set_goal(Goal(target, reason))
                if interrupted.is_set():
                    raise KeyboardInterrupt
                if ends:
                    return point

    def _batch(self) -> None:
        """Collect and learn: afterwards nothing is under way, so that a checkpoint holds all there is."""
        progress, model, environment = self.progress, self.model, self.environment
        config = self.config.in_stage(progress.stage, progress.stage_began)
        steps = self.algorithm.batch_steps(config, environment.num_envs)
        environment.multipliers[:] = progress.multipliers
        self.algorithm.before_batch(model, config)
        model.learn(total_timesteps=steps, callback=self.watch, log_interval=None, reset_num_timesteps=False)
        self.algorithm.after_batch(model, config)
        self.reduced = environment.take_reduced_mean()
        progress.end_batch(self.config.constraints, self.reduced)

    def _move_on(self, steps: int) -> str:
        """Go to the next stage where this one is learned; in the last one, why to stop, if so."""
        stages, progress = self.config.stages(), self.progress
        if progress.stage + 1 >= len(stages):
            return progress.stop_reason(self.config.stop)
        if progress.stage_learned(stages[progress.stage], steps):
            progress.next_stage(steps)
            self._enter_stage()
        return ""

    def _enter_stage(self) -> None:
        model, environment, stage = self.model, self.environment, self.progress.stage
        if self.scale_out is not None:
            environment.stage = stage  # travels to the actors with the next weights
        else:
            enter_stage(model, environment, self.config, self.algorithm.table(self.config), stage)

    def _point(self) -> CurvePoint:
        progress, policy = self.progress, self.model.policy
        return CurvePoint(
            seconds=progress.seconds,
            steps=int(self.model.num_timesteps),
            success=progress.share(Outcome.ARRIVED),
            contact=progress.share(Outcome.CONTACT),
            timeout=progress.share(Outcome.TIMEOUT),
            trip_s=progress.mean(progress.trip_s, TRIP_MAX_S),
            reward=progress.mean(progress.returns),
            std=float(policy.log_std.detach().exp().mean()) if hasattr(policy, "log_std") else 0.0,
            reduced=self.reduced,
            trips=len(progress.outcomes),
            stage=progress.stage,
            multiplier_contact=progress.multipliers[0],
            multiplier_reduced=progress.multipliers[1],
        )

    def _log(self, point: CurvePoint) -> None:
        logger = self.model.logger
        for name in ("success", "contact", "timeout", "trip_s", "reward", "std", "reduced", "stage"):
            logger.record(f"trips/{name}", getattr(point, name))
        if any(self.progress.multipliers):
            logger.record("constraints/contact", point.multiplier_contact)
            logger.record("constraints/reduced", point.multiplier_reduced)
        logger.dump(point.steps)


class _Watch(BaseCallback):  # type: ignore[misc]
    """Counts the trips that end."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if info:
                self._progress.trip_ended(info["outcome"], info["trip_s"], info["episode"]["r"])
        return True


@contextmanager
def _interrupt_asked() -> Iterator[threading.Event]:
    """Ctrl-C sets what is yielded, so that the batch can end; the second one interrupts at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, frame: Any) -> None:
        if asked.is_set():
            signal.default_int_handler(number, frame)
        asked.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
