"""Fills one reused decision record: every field through a view made once, so that a tick allocates little."""

import math

import numpy as np

from contracts.decision import DECISION_DTYPE, Mode, Source
from contracts.observation import OBSERVATION_SIZE
from edge_agent.infer.proposer import Command, Floats, Proposer
from edge_agent.observe.slots import Goal, Odometry
from safety.monitor import Ruling

U32_MAX = 2**32 - 1
_NO_DIGEST = np.zeros(32, dtype=np.uint8)
_NO_OBSERVATION = np.zeros(OBSERVATION_SIZE, dtype=np.float32)


def _bounded(value: int) -> int:
    return 0 if value < 0 else min(value, U32_MAX)


class Recorder:
    """Owns ``record``, DECISION_DTYPE[1]. Times come in ns and are written in us."""

    def __init__(self) -> None:
        self.record = np.zeros(1, dtype=DECISION_DTYPE)
        self._fields = {name: self.record[name] for name in DECISION_DTYPE.names or ()}
        self._digest = self._fields["policy_digest"][0]
        self._observation = self._fields["observation"][0]

    def decided(
        self,
        tick: int,
        mono_ns: int,
        wall_ns: int,
        policy: Proposer | None,
        source: Source,
        ruling: Ruling,
        raw: Command | None,
        flags: int,
        observation: Floats | None,
    ) -> None:
        """Who proposed what, and what became of it."""
        fields = self._fields
        fields["tick"][0], fields["mono_ns"][0], fields["wall_ns"][0] = tick, mono_ns, wall_ns
        asked = policy is not None and source is not Source.NONE
        self._digest[:] = policy.digest_bytes if asked and policy is not None else _NO_DIGEST
        fields["release_counter"][0] = policy.release_counter if asked and policy is not None else 0
        fields["entropy_nats"][0] = policy.entropy_nats if asked and policy is not None else math.nan
        fields["source"][0], fields["verdict"][0], fields["reason"][0] = source, ruling.verdict, ruling.reason
        fields["flags"][0] = flags
        fields["clearance_m"][0] = ruling.clearance_m
        fields["raw_command"][0] = raw if raw is not None else (math.nan, math.nan)
        fields["final_command"][0] = ruling.command
        self._observation[:] = _NO_OBSERVATION if observation is None else observation

    def beside(self, mode: Mode, other: Command | None, other_reduction: float) -> None:
        """Who might drive, and what who did not drive wanted."""
        fields = self._fields
        fields["mode"][0], fields["other_reduction"][0] = mode, other_reduction
        fields["other_command"][0] = other if other is not None else (math.nan, math.nan)

    def sensed(
        self, odometry: Odometry | None, goal: Goal | None, scan_age_ns: int, odometry_age_ns: int
    ) -> None:
        """What the robot knew; NaN and the largest age where it knew nothing."""
        fields = self._fields
        fields["pose"][0] = odometry.pose if odometry else (math.nan,) * 3
        fields["velocity"][0] = odometry.velocity if odometry else (math.nan,) * 2
        fields["goal"][0] = (goal.x_m, goal.y_m) if goal else (math.nan,) * 2
        fields["trip"][0] = goal.trip if goal else 0
        fields["scan_age_us"][0] = _bounded(scan_age_ns // 1000)
        fields["odometry_age_us"][0] = _bounded(odometry_age_ns // 1000)

    def timed(
        self, late_ns: int, encode_ns: int, infer_ns: int, guard_ns: int, publish_ns: int, missed: int
    ) -> None:
        """How long each stage took."""
        fields = self._fields
        fields["late_us"][0] = _bounded(late_ns // 1000)
        fields["encode_us"][0] = _bounded(encode_ns // 1000)
        fields["infer_us"][0] = _bounded(infer_ns // 1000)
        fields["guard_us"][0] = _bounded(guard_ns // 1000)
        fields["publish_us"][0] = _bounded(publish_ns // 1000)
        fields["total_us"][0] = _bounded((encode_ns + infer_ns + guard_ns) // 1000)
        fields["missed_ticks"][0] = _bounded(missed)
