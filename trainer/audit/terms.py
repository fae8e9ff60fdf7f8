"""The reward of each step, taken apart in numpy; the sum must be what the compiled task paid."""

import numpy as np
import numpy.typing as npt

from contracts.observation import BEAMS, ROUTING_LAYOUT
from sim.simulation import Simulation
from sim.tasks.delivery import Outcome
from trainer.errors import TrainerError

Doubles = npt.NDArray[np.float64]
TERMS = ("progress", "step_s", "change", "near", "reduced", "arrived", "contact")
MISMATCH_MAX = 1e-5
_LEFT = ROUTING_LAYOUT.offset("route_left")
_LEFT_MAX_M = next(field.high for field in ROUTING_LAYOUT.observation if field.name == "route_left")


class AuditError(TrainerError):
    """The audit cannot be run, or its terms do not add up to the reward that was paid."""


class TermMeter:
    """Recomputes the terms of ``RewardConfig`` from what a simulation shows, one step after the other.

    Make it right after a reset and call ``terms`` once after each step, ``before`` once before it.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._action_before = np.zeros((*simulation.reward.shape, 2), dtype=np.float32)
        self._left_before = simulation.left_m.copy()
        self.mismatch_max = 0.0
        self.unseen_steps = 0
        """Last steps of failed trips with more than 60 m to go: the observation ends there, the audit cannot see on."""

    def terms(self, action: npt.NDArray[np.float32]) -> Doubles:
        """Terms float64[E, R, 7] of the step just taken with ``action`` float32[E, R, 2], in the order of ``TERMS``.

        Raises:
            AuditError: they do not add up to ``simulation.reward``.
        """
        simulation, weights = self._simulation, self._simulation.config.reward
        over = simulation.outcome != Outcome.RUNNING
        seen = np.where(over[..., None], simulation.terminal_observation, simulation.observation)
        left = np.where(over, seen[..., _LEFT].astype(np.float64), simulation.left_m)
        nearest = np.minimum(seen[..., :BEAMS].min(axis=-1), simulation.model.lidar.range_max_m)
        change = np.abs(action.astype(np.float64) - self._action_before).sum(axis=-1)
        closeness = (weights.near_m - nearest) / (weights.near_m - simulation.model.footprint_radius_m)
        terms = np.stack(
            [
                weights.progress * (self._left_before - left),
                np.full(left.shape, weights.step_s * simulation.step_s),
                weights.change * change,
                weights.near * np.maximum(closeness, 0.0),
                weights.reduced * simulation.reduced,
                weights.arrived * (simulation.outcome == Outcome.ARRIVED),
                weights.contact * (simulation.outcome == Outcome.CONTACT),
            ],
            axis=-1,
        )
        unseen = over & (seen[..., _LEFT] >= _LEFT_MAX_M)
        self._settle(terms, unseen)
        moved = over & (simulation.outcome != Outcome.ARRIVED)
        self._action_before = np.where(moved[..., None], np.float32(0.0), action)
        self._left_before = simulation.left_m.copy()
        return terms

    def _settle(self, terms: Doubles, unseen: npt.NDArray[np.bool_]) -> None:
        difference = np.abs(terms.sum(axis=-1) - self._simulation.reward)[~unseen]
        self.unseen_steps += int(unseen.sum())
        self.mismatch_max = max(self.mismatch_max, float(difference.max(initial=0.0)))
        if not self.mismatch_max <= MISMATCH_MAX:
            raise AuditError(
                f"the terms add up to {self.mismatch_max:.2e} beside the reward that was paid, at most"
                f" {MISMATCH_MAX:.0e} is rounding; trainer/audit/terms.py and sim/tasks/kernels.py no longer agree"
            )
