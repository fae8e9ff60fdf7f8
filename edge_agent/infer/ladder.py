"""The fallback ladder: policy, the policy before it, the rules. The monitor stands below every rung."""

import copy
import math
import time
from collections import deque
from collections.abc import Callable

from msgspec.structs import replace

from contracts.decision import FLAG_RETURNED, FLAG_SWAPPED, Source
from edge_agent.infer.proposer import Command, Floats, Proposer, Rules
from edge_agent.infer.trial import SLOW, Habits, Stage, Trial, TrialConfig
from navigation.controllers.recovery import MEMORY, Recovery, recover, recovery_numbers

FAILURES_MAX = 5
EVENTS_MAX = 64
DROPPED_MAX = 8
TOLD_MAX, TOLD_SHARE = 20, 100
"""So many failures are told one by one; after that, every hundredth. All are counted."""
NO_COMMAND: Command = (math.nan, math.nan)


class Ladder:
    """Owned by the control thread. Another thread may only call ``offer`` and ``leave``.

    Args:
        rules: the last rung.
        slow_max_ns: a policy that takes longer has failed in that tick.
        tick_s: robot time between two ticks, s; the recovery counts in it.
        trial_config: what a new policy goes through.
        clock_ns: monotonic.
    """

    def __init__(
        self,
        rules: Rules,
        slow_max_ns: int,
        tick_s: float,
        trial_config: TrialConfig | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._rules, self._slow_max_ns, self._tick_s, self._clock_ns = rules, slow_max_ns, tick_s, clock_ns
        self._spare_rules = copy.deepcopy(rules)
        self._trial_config = trial_config or TrialConfig()
        self._recovery = recovery_numbers(Recovery())
        self._memory, self._out = [0.0] * MEMORY, [0.0, 0.0]
        self._spare_memory, self._spare_out = [0.0] * MEMORY, [0.0, 0.0]
        self._answer = NO_COMMAND
        self._incoming: Trial | None = None
        self._leaving = ""
        self._incumbents: tuple[Proposer | None, Proposer | None] = (None, None)
        self.habits = Habits(self._trial_config.probation_ticks)
        self.policy: Proposer | None = None
        self.previous: Proposer | None = None
        self.trial: Trial | None = None
        self.driver: Proposer | None = None
        """Whose command the last proposal was; None is the rules."""
        self.failures = 0
        self.failures_in_all = 0
        self.swaps = 0
        self.events: deque[str] = deque(maxlen=EVENTS_MAX)
        self.dropped: deque[tuple[Proposer, str]] = deque(maxlen=DROPPED_MAX)
        """Policies dropped outside a trial, and why; whoever remembers them takes them out."""

    def offer(self, policy: Proposer, shadow_s: float = 0.0) -> Trial:
        """Leave a policy to be tried, for ``shadow_s`` seconds in shadow alone where that is not 0.

        Look at the trial's ``over`` later. One at a time.
        """
        config = self._trial_config
        if shadow_s > 0.0:
            ticks = round(shadow_s / self._tick_s)
            config = replace(config, shadow_ticks=ticks, stage_max_s=shadow_s, drives=False)
        self._incoming = Trial(policy, config)
        return self._incoming

    def leave(self, digest: str) -> None:
        """Have the policy of that digest taken off, wherever it is, before the next tick's proposal."""
        self._leaving = digest

    def flip(self, now_ns: int) -> int:
        """Between two ticks: let the trial take its next step; FLAG_SWAPPED, FLAG_RETURNED or 0."""
        if self._leaving:
            return self._take_off(now_ns)
        if self.trial is None:
            if self._incoming is None:
                return 0
            self.trial, self._incoming = self._incoming, None
            self.trial.begin(now_ns)
            return 0
        trial = self.trial
        trial.expire(now_ns)
        if trial.stage is Stage.READY:
            self._incumbents = (self.policy, self.previous)
            self.policy, self.previous = trial.policy, self.policy or self.previous
            self.failures = 0
            self.swaps += 1
            trial.flipped(self.habits, now_ns)
            return FLAG_SWAPPED
        if not trial.over:
            return 0
        self.trial = None
        if self.policy is not trial.policy or trial.stage is Stage.PASSED:
            return 0
        self.policy, self.previous = self._incumbents
        self.failures = 0
        self.events.append(
            f"policy {trial.policy.version} returned ({trial.why}): {self._named()} drive again"
        )
        return FLAG_RETURNED

    def _take_off(self, now_ns: int) -> int:
        digest, self._leaving = self._leaving, ""
        if self._incoming is not None and self._incoming.policy.digest == digest:
            self._incoming.refuse("taken back")
            self._incoming = None
        if self.trial is not None and self.trial.policy.digest == digest:
            self.trial.refuse("taken back")
            return self.flip(now_ns)
        if self.previous is not None and self.previous.digest == digest:
            self.previous = None
        if self.policy is None or self.policy.digest != digest:
            return 0
        version = self.policy.version
        self.policy, self.previous, self.failures = self.previous, None, 0
        self.events.append(f"policy {version} taken back: {self._named()} drive again")
        return FLAG_RETURNED

    def propose(self, observation: Floats, policy_drives: bool = True) -> tuple[Command, Source]:
        """A command and who gave it. Raises only when the rules do."""
        policy = self.policy
        if policy is not None and policy_drives:
            fault = self._ask(policy, observation)
            if not fault:
                self.failures = 0
                self.driver = policy
                out = self._out
                # Of a memoryview come Python floats: they are reckoned as the compiled text does, in double.
                if recover(observation.data, *self._recovery, self._tick_s, self._memory, out):
                    return (out[0], out[1]), Source.RECOVERY
                return self._answer, Source.POLICY
            self._failed(policy, fault)
        self.rest()
        self.driver = None
        return self._rules.command(observation), Source.RULE_BASED

    def beside(self, observation: Floats, policy_too: bool) -> Command | None:
        """What a candidate in shadow, else (``policy_too``) the policy would do; None when there is none.

        Called after the tick's command has gone out.
        """
        trial = self.trial
        if trial is not None and trial.stage is Stage.SHADOW:
            fault = self._ask(trial.policy, observation)
            trial.shadowed(fault)
        elif policy_too and self.policy is not None:
            policy = self.policy
            fault = self._ask(policy, observation)
            if fault:
                self._failed(policy, fault)
            else:
                self.failures = 0
        else:
            return None
        return None if fault else self._answer

    def judge(self, asked: bool, late: bool, intervened: bool) -> None:
        """What became of a tick in which somebody drove; ``asked``: the policy was, wherever it runs."""
        trial = self.trial
        if trial is not None and trial.stage is Stage.PROBATION:
            if asked:
                trial.drove(late, intervened)
        else:
            self.habits.add(late, intervened)

    def advised(self, against: str) -> None:
        """The monitor advises against the policy that drives: on probation that is its end, if not forgiven."""
        policy, trial = self.policy, self.trial
        self.failures_in_all += 1
        if policy is not None and self._tell():
            self.events.append(f"policy {policy.version} is {against}; the rules drive until it is not")
        if trial is not None and trial.stage is Stage.PROBATION:
            trial.advised(against)

    def rest(self) -> None:
        """No policy drives: whoever does next has not stood yet."""
        self._memory[:] = (0.0,) * MEMORY

    def warm(self, observation: Floats) -> Command:
        """Ask whoever will be asked next, and leave it at that; returns some command, not theirs."""
        policy = self.policy
        if policy is None:
            self._spare_rules.command(observation)
        else:
            policy.run(observation)
            recover(observation.data, *self._recovery, 0.0, self._spare_memory, self._spare_out)
        return 0.5, 0.1

    def _ask(self, policy: Proposer, observation: Floats) -> str:
        """Put the policy's command into ``_answer``; "" or what is wrong with it."""
        began_ns = self._clock_ns()
        try:
            command = policy.run(observation)
            if not (math.isfinite(command[0]) and math.isfinite(command[1])):
                return "is not finite"
        except Exception as error:
            return f"raised {type(error).__name__}"
        self._answer = command
        return SLOW if self._clock_ns() - began_ns > self._slow_max_ns else ""

    def _failed(self, policy: Proposer, fault: str) -> None:
        self.failures += 1
        self.failures_in_all += 1
        if self.failures == 1 and self._tell():
            self.events.append(
                f"policy {policy.version} failed (its answer {fault}); the rules drive this tick"
            )
        trial = self.trial
        if trial is not None and trial.policy is policy:
            trial.failed(fault)
            return
        if self.failures < FAILURES_MAX:
            return
        self.policy, self.previous, self.failures = self.previous, None, 0
        why = f"dropped after {FAILURES_MAX} failures (its answer {fault})"
        self.dropped.append((policy, why))
        self.events.append(f"policy {policy.version} {why}: {self._named()} drive now")

    def _tell(self) -> bool:
        return self.failures_in_all <= TOLD_MAX or not self.failures_in_all % TOLD_SHARE

    def _named(self) -> str:
        return f"policy {self.policy.version}" if self.policy else "the rules"
