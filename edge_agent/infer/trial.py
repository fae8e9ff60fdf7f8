"""A new policy's way to the last word: shadow beside the one that drives, flip, probation. No thread, no clock.

Shadow: it is asked after the command has gone out; it must answer, be finite and in time. Probation: it drives;
an answer that is no command sends it back at once, and so do more slow answers or late ticks than there may be.
Interventions come in bursts: somebody stands in the way. So more of them than there may be prolong the probation, and
send it back when there is no end to them.
"""

import enum
import math
from typing import Annotated

import msgspec

from edge_agent.infer.proposer import Proposer

Ticks = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
SLOW = "too slow"
SIGMAS = 3.0
"""How far above what is usual here a count may lie by chance, in standard deviations of a Poisson count."""
PROLONGED_MAX = 3
"""What is forgiven in so many ``probation_ticks``, and more, ends it at once; by then it is over either way."""
NS = 1_000_000_000


class TrialConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long a new policy is tried, and what it may do wrong."""

    shadow_ticks: Ticks = 20
    probation_ticks: Ticks = 100
    stage_max_s: Annotated[float, msgspec.Meta(gt=0.0, le=600.0)] = 30.0
    """Wall time after which shadow or probation is over, though nobody asked the policy that often."""
    slow_max: Ticks = 3
    """So many slow answers are forgiven in each stage: a busy machine."""
    late_extra: Ticks = 10
    """So many late ticks are forgiven beyond what is usual here and what chance adds to it."""
    interventions_extra: Ticks = 30
    """The same for ticks in which the monitor took most of the command away, in each ``probation_ticks``."""
    advice_max: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 0
    """So often the monitor may advise against it on probation; the rules drive meanwhile, whatever this is."""
    drives: bool = True
    """Whether shadow is followed by probation; else it is over then."""


class Stage(enum.Enum):
    """How far a trial is."""

    WAITING = "waiting"
    SHADOW = "shadow"
    READY = "ready"
    PROBATION = "probation"
    PASSED = "passed"
    REFUSED = "refused"


class Habits:
    """What is usual here: shares of late ticks and interventions, averaged exponentially over ``memory`` ticks."""

    def __init__(self, memory: int) -> None:
        self._weight = 1.0 / memory
        self.late = 0.0
        self.intervened = 0.0

    def add(self, late: bool, intervened: bool) -> None:
        """Count one tick in which somebody drove."""
        self.late += (late - self.late) * self._weight
        self.intervened += (intervened - self.intervened) * self._weight


class Trial:
    """One candidate. Owned by the control thread; others may read ``over``, then ``why`` and ``detail``."""

    def __init__(self, policy: Proposer, config: TrialConfig) -> None:
        self.policy, self._config = policy, config
        self.stage = Stage.WAITING
        self.why = ""
        """Why it was refused, beginning with the stage."""
        self._asked = self._slow = self._late = self._intervened = self._advised = 0
        self._late_share = self._intervened_share = 0.0
        self._end_ns = 0
        self._timed_out = False

    @property
    def over(self) -> bool:
        """Whether it has passed or was refused."""
        return self.stage is Stage.PASSED or self.stage is Stage.REFUSED

    @property
    def detail(self) -> str:
        """How the probation ended, for people."""
        if not self._config.drives:
            return f"after {self._asked} ticks in shadow; it does not drive"
        if not self._timed_out:
            return f"after {self._asked} ticks on probation"
        return (
            f"asked only {self._asked} times in {self._config.stage_max_s:g} s on probation, without a fault"
        )

    def begin(self, now_ns: int) -> None:
        """It runs beside the one that drives, from now on."""
        self._enter(Stage.SHADOW, now_ns)

    def flipped(self, habits: Habits, now_ns: int) -> None:
        """It drives from now on; ``habits`` are those of the ticks before."""
        self._late_share, self._intervened_share = habits.late, habits.intervened
        self._enter(Stage.PROBATION, now_ns)

    def shadowed(self, fault: str) -> None:
        """It was asked in shadow; ``fault`` is "" for a good answer."""
        self._asked += 1
        self.failed(fault)
        if self.stage is Stage.SHADOW and self._asked >= self._config.shadow_ticks:
            self._end_shadow()

    def failed(self, fault: str) -> None:
        """Count what was wrong with an answer; "" is nothing."""
        if fault == SLOW:
            self._slow += 1
            if self._slow > self._config.slow_max:
                self.refuse(f"{self._slow} of {self._asked} answers too slow")
        elif fault:
            self.refuse(f"its answer {fault}")

    def drove(self, late: bool, intervened: bool) -> None:
        """It was asked in a tick of its probation."""
        self._asked += 1
        self._late += late
        self._intervened += intervened
        late_max = self._usual(self._late_share) + self._config.late_extra
        if self._late > late_max:
            self._refuse_for("late ticks", self._late, self._late_share)
        forgiven = self._config.interventions_extra
        if self._intervened > self._usual(self._intervened_share) + PROLONGED_MAX * forgiven:
            self._refuse_for("interventions", self._intervened, self._intervened_share)
        if (
            self.stage is Stage.PROBATION
            and self._asked >= self._config.probation_ticks
            and not self._troubled
        ):
            self.stage = Stage.PASSED

    @property
    def _troubled(self) -> bool:
        """Whether the monitor has intervened more often so far than is forgiven in as many ticks."""
        periods = max(1.0, self._asked / self._config.probation_ticks)
        allowed = self._usual(self._intervened_share) + periods * self._config.interventions_extra
        return self._intervened > allowed

    def _usual(self, share: float) -> float:
        """How many of the ticks so far are usual here, and what chance adds to it."""
        usual = share * self._asked
        return usual + SIGMAS * math.sqrt(usual)

    def _refuse_for(self, what: str, count: int, share: float) -> None:
        usual = share * self._asked
        self.refuse(f"{count} {what} in {self._asked} ticks, {usual:.1f} were usual before")

    def advised(self, against: str) -> None:
        """The monitor advises against it on probation."""
        self._advised += 1
        if self._advised > self._config.advice_max:
            self.refuse(f"the monitor finds it {against}")

    def expire(self, now_ns: int) -> None:
        """End a stage that has lasted too long: nobody asked, so nothing was wrong, if nothing was until then."""
        if now_ns < self._end_ns:
            return
        if self.stage is Stage.SHADOW:
            self._end_shadow()
        elif self.stage is Stage.PROBATION and self._troubled:
            self._refuse_for("interventions", self._intervened, self._intervened_share)
        elif self.stage is Stage.PROBATION:
            self._timed_out, self.stage = True, Stage.PASSED

    def refuse(self, why: str) -> None:
        """It has failed."""
        self.why = self.why or f"{self.stage.value}: {why}"
        self.stage = Stage.REFUSED

    def _end_shadow(self) -> None:
        self.stage = Stage.READY if self._config.drives else Stage.PASSED

    def _enter(self, stage: Stage, now_ns: int) -> None:
        self.stage = stage
        self._asked = self._slow = 0
        self._end_ns = now_ns + int(self._config.stage_max_s * NS)
