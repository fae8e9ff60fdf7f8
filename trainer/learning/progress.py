"""What a run knows about itself between two batches: the window of trips, the stage, the multipliers."""

from collections.abc import Sequence

import msgspec
import numpy as np

from sim.tasks.delivery import TRIP_MAX_S, Outcome
from trainer.learning.config import ConstraintsConfig, Stage, StopConfig

TRIPS_WINDOW = 1000


class Progress(msgspec.Struct, forbid_unknown_fields=True):
    """Is written into every checkpoint; nothing else steers a run."""

    seconds: float = 0.0
    outcomes: list[int] = []
    trip_s: list[float] = []
    returns: list[float] = []
    batch_trips: int = 0
    batch_contacts: int = 0
    stage: int = 0
    stage_began: int = 0
    """Robot-steps of the run when the stage began."""
    stage_streak: int = 0
    stop_streak: int = 0
    best_success: float = 0.0
    since_best: int = 0
    multipliers: tuple[float, float] = (0.0, 0.0)
    """Of a contact; of a second in which the monitor takes all speed away."""

    def trip_ended(self, outcome: int, trip_s: float, episode_return: float) -> None:
        """Count a trip; one that failed counts as long as the longest."""
        self.outcomes.append(outcome)
        self.trip_s.append(trip_s if outcome == Outcome.ARRIVED else TRIP_MAX_S)
        self.returns.append(episode_return)
        self.batch_trips += 1
        self.batch_contacts += outcome == Outcome.CONTACT

    def end_batch(self, constraints: ConstraintsConfig, reduced_mean: float) -> None:
        """Cut the window to its length and move the multipliers."""
        for window in (self.outcomes, self.trip_s, self.returns):
            del window[:-TRIPS_WINDOW]
        contacts = self.batch_contacts / self.batch_trips if self.batch_trips else None
        self.multipliers = next_multipliers(constraints, self.multipliers, contacts, reduced_mean)
        self.batch_trips = self.batch_contacts = 0

    def share(self, outcome: Outcome) -> float:
        """Share of the window's trips that ended so."""
        return self.outcomes.count(outcome) / max(1, len(self.outcomes))

    def mean(self, window: Sequence[float], empty: float = 0.0) -> float:
        """Mean of one of the windows."""
        return float(np.mean(window)) if window else empty

    def stage_learned(self, stage: Stage, steps: int) -> bool:
        """Count this batch; whether ``stage`` is done after ``steps`` robot-steps of the run."""
        good = len(self.outcomes) >= stage.trips_min and self.share(Outcome.ARRIVED) >= stage.success
        self.stage_streak = self.stage_streak + 1 if good else 0
        long = stage.steps_max is not None and steps - self.stage_began >= stage.steps_max
        return long or self.stage_streak >= stage.batches

    def next_stage(self, steps: int) -> None:
        """Begin the next stage with empty windows."""
        self.stage, self.stage_began, self.stage_streak = self.stage + 1, steps, 0
        self.outcomes, self.trip_s, self.returns = [], [], []
        self.forget_stop()

    def forget_stop(self) -> None:
        """Count anew towards an early stop."""
        self.stop_streak, self.best_success, self.since_best = 0, 0.0, 0

    def stop_reason(self, stop: StopConfig) -> str:
        """Count this batch; why the run should stop now, empty where it should not."""
        if len(self.outcomes) < stop.trips_min:
            return ""
        success = self.share(Outcome.ARRIVED)
        self.stop_streak = self.stop_streak + 1 if stop.success is not None and success >= stop.success else 0
        if success >= self.best_success + stop.improvement_min:
            self.best_success, self.since_best = success, 0
        else:
            self.since_best += 1
        if self.stop_streak >= stop.batches:
            return f"success was {stop.success:.1%} or more for {stop.batches} batches"
        if stop.patience_batches is not None and self.since_best >= stop.patience_batches:
            return f"success has not risen above {self.best_success:.1%} for {self.since_best} batches"
        return ""


def next_multipliers(
    config: ConstraintsConfig,
    multipliers: tuple[float, float],
    contacts_per_trip: float | None,
    reduced_mean: float,
) -> tuple[float, float]:
    """Move each multiplier along its constraint's excess, within [0, ``multiplier_max``].

    Reward-constrained policy optimisation (Tessler, Mankowitz, Mannor 2018, equation 9): the policy maximises
    reward minus multiplier times cost, the multiplier rises while the cost is above its limit.

    Args:
        config: the limits; None means no constraint, and a multiplier of zero.
        multipliers: those of the batch that has ended.
        contacts_per_trip: of that batch; None when no trip ended, the multiplier then stays.
        reduced_mean: share of the commanded speed that the monitor took away in that batch.
    """
    rate, most = config.multiplier_rate, config.multiplier_max

    def moved(multiplier: float, cost: float | None, limit: float | None) -> float:
        if limit is None:
            return 0.0
        return multiplier if cost is None else min(most, max(0.0, multiplier + rate * (cost - limit)))

    return (
        moved(multipliers[0], contacts_per_trip, config.contacts_per_trip_max),
        moved(multipliers[1], reduced_mean, config.reduced_mean_max),
    )
