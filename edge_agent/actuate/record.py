"""Fills one reused decision record, neighbouring fields at once: a tick that writes them one by one through numpy pays
for each as much as for all of them here."""

import math
import struct

import numpy as np

from contracts.decision import DECISION_DTYPE, Mode, Source
from contracts.observation import OBSERVATION_SIZE
from edge_agent.infer.proposer import Command, Floats, Proposer
from edge_agent.observe.slots import Goal, Odometry
from safety.monitor import Ruling

U32_MAX = 2**32 - 1
_NAN2, _NAN3 = (math.nan,) * 2, (math.nan,) * 3
_NO_DIGEST = np.zeros(32, dtype=np.uint8)
_NO_OBSERVATION = np.zeros(OBSERVATION_SIZE, dtype=np.float32)
_CODES = {"u1": "B", "u2": "H", "u4": "I", "u8": "Q", "i8": "q", "f4": "f"}
Values = tuple[float, ...]
_F32_MAX = float(np.finfo(np.float32).max)


def _bounded(value: int) -> int:
    return 0 if value < 0 else min(value, U32_MAX)


class _Run:
    """Neighbouring fields of the record, from ``first`` to ``last``, written at once."""

    def __init__(self, record: memoryview, first: str, last: str) -> None:
        names, fields = list(DECISION_DTYPE.names or ()), dict(DECISION_DTYPE.fields or {})
        codes = "<"
        for name in names[names.index(first) : names.index(last) + 1]:
            kind, count = fields[name][0].base.str[1:], math.prod(fields[name][0].shape)
            codes += f"{count}s" if kind == "u1" and count > 1 else _CODES[kind] * count
        self._struct, self._begin, self._record = struct.Struct(codes), fields[first][1], record

    def write(self, *values: float | bytes) -> None:
        """One number for each value, bytes for a digest; what a float32 cannot hold becomes infinite."""
        try:
            self._struct.pack_into(self._record, self._begin, *values)
        except OverflowError:
            held = [
                math.copysign(math.inf, value)
                if isinstance(value, float) and abs(value) > _F32_MAX
                else value
                for value in values
            ]
            self._struct.pack_into(self._record, self._begin, *held)


class Recorder:
    """Owns ``record``, DECISION_DTYPE[1]. Times come in ns and are written in us.

    A tick calls ``decided``, ``beside``, ``sensed`` and ``timed``, in this order; after the last the record is whole.
    """

    def __init__(self) -> None:
        self.record = np.zeros(1, dtype=DECISION_DTYPE)
        data = self.record.data.cast("B")
        self._most = _Run(data, "tick", "trip")
        self._mode, self._sure = _Run(data, "mode", "mode"), _Run(data, "entropy_nats", "entropy_nats")
        self._when: Values = ()
        self._who: Values = ()
        self._command: Values = ()
        self._other: Values = ()
        self._known: Values = ()
        self._ages: Values = ()
        self._trip = 0
        self._digest, self._digest_of = _NO_DIGEST.tobytes(), _NO_DIGEST
        self._observation = self.record["observation"][0]

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
        self._when = tick, mono_ns, wall_ns
        digest, counter, entropy_nats = _NO_DIGEST, 0, math.nan
        if policy is not None and source is not Source.NONE:
            digest, counter, entropy_nats = policy.digest_bytes, policy.release_counter, policy.entropy_nats
        if digest is not self._digest_of:
            self._digest, self._digest_of = digest.tobytes(), digest
        self._sure.write(entropy_nats)
        self._who = counter, source, ruling.verdict, ruling.reason, flags
        self._command = ruling.clearance_m, *(_NAN2 if raw is None else raw), *ruling.command
        self._observation[:] = _NO_OBSERVATION if observation is None else observation

    def beside(self, mode: Mode, other: Command | None, other_reduction: float) -> None:
        """Who might drive, and what who did not drive wanted."""
        self._mode.write(mode)
        self._other = *(_NAN2 if other is None else other), other_reduction

    def sensed(
        self, odometry: Odometry | None, goal: Goal | None, scan_age_ns: int, odometry_age_ns: int
    ) -> None:
        """What the robot knew; NaN and the largest age where it knew nothing."""
        goal_m, trip = ((goal.x_m, goal.y_m), goal.trip) if goal else (_NAN2, 0)
        pose, velocity = (odometry.pose, odometry.velocity) if odometry else (_NAN3, _NAN2)
        self._known, self._trip = (*pose, *velocity, *goal_m), trip
        self._ages = _bounded(scan_age_ns // 1000), _bounded(odometry_age_ns // 1000)

    def timed(
        self, late_ns: int, encode_ns: int, infer_ns: int, guard_ns: int, publish_ns: int, missed: int
    ) -> None:
        """How long each stage took; the last call of a tick, which writes what the others were told, too."""
        self._most.write(
            *self._when, self._digest, *self._who, *self._known, *self._command, *self._other, *self._ages,
            _bounded(late_ns // 1000), _bounded(encode_ns // 1000), _bounded(infer_ns // 1000),
            _bounded(guard_ns // 1000), _bounded(publish_ns // 1000),
            _bounded((encode_ns + infer_ns + guard_ns) // 1000), _bounded(missed), self._trip,
        )  # fmt: skip
