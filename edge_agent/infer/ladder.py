"""The fallback ladder: policy, the policy before it, the rules. The monitor stands below every rung."""

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from contracts.decision import Source

FAILURES_MAX = 5
EVENTS_MAX = 64
TOLD_MAX, TOLD_SHARE = 20, 100
"""So many failures are told one by one; after that, every hundredth. All are counted."""
Command = tuple[float, float]
Floats = npt.NDArray[np.float32]


class Proposer(Protocol):
    """What the ladder needs of a policy (``edge_agent.infer.policy.Policy``)."""

    digest: str
    version: str
    release_counter: int
    digest_bytes: npt.NDArray[np.uint8]

    def run(self, observation: Floats) -> Command:
        """Speed in m/s and turn rate in rad/s; may raise, may be not finite."""


class Rules(Protocol):
    """The rule-based controller (``navigation.controllers.dwa.DwaController``)."""

    def command(self, observation: Floats) -> Command:
        """Speed in m/s and turn rate in rad/s."""


class Ladder:
    """Owned by the control thread. Another thread may only put a policy into ``incoming``.

    Args:
        rules: the last rung.
        slow_max_ns: a policy that takes longer has failed in that tick.
        clock_ns: monotonic.
    """

    def __init__(
        self, rules: Rules, slow_max_ns: int, clock_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._rules, self._slow_max_ns, self._clock_ns = rules, slow_max_ns, clock_ns
        self.policy: Proposer | None = None
        self.previous: Proposer | None = None
        self.incoming: Proposer | None = None
        self.failures = 0
        self.failures_in_all = 0
        self.swaps = 0
        self.events: deque[str] = deque(maxlen=EVENTS_MAX)

    def flip(self) -> bool:
        """Take the policy that waits, between two ticks; True when there was one."""
        incoming = self.incoming
        if incoming is None:
            return False
        if self.policy is not None:
            self.previous = self.policy
        # In this order: whoever waits for ``policy`` to change finds ``incoming`` empty.
        self.incoming = None
        self.policy = incoming
        self.failures = 0
        self.swaps += 1
        return True

    def propose(self, observation: Floats) -> tuple[Command, Source]:
        """A command and who gave it. Raises only when the rules do."""
        policy = self.policy
        if policy is not None:
            began_ns = self._clock_ns()
            try:
                command = policy.run(observation)
                fault = "" if math.isfinite(command[0]) and math.isfinite(command[1]) else "not finite"
            except Exception as error:
                fault = f"raised {type(error).__name__}"
            if not fault and self._clock_ns() - began_ns > self._slow_max_ns:
                fault = "too slow"
            if not fault:
                self.failures = 0
                return command, Source.POLICY
            self._failed(policy, fault)
        return self._rules.command(observation), Source.RULE_BASED

    def warm(self, observation: Floats) -> Command:
        """Ask whoever will be asked next, and leave it at that; returns some command, not theirs."""
        policy = self.incoming or self.policy
        if policy is None:
            self._rules.command(observation)
        else:
            policy.run(observation)
        return 0.5, 0.1

    def _failed(self, policy: Proposer, fault: str) -> None:
        self.failures += 1
        self.failures_in_all += 1
        if self.failures == 1 and (self.failures_in_all <= TOLD_MAX or not self.failures_in_all % TOLD_SHARE):
            self.events.append(f"policy {policy.version} failed ({fault}); the rules drive this tick")
        if self.failures < FAILURES_MAX:
            return
        self.policy, self.previous, self.failures = self.previous, None, 0
        below = f"policy {self.policy.version}" if self.policy else "the rules"
        self.events.append(
            f"policy {policy.version} dropped after {FAILURES_MAX} failures ({fault}): {below} drive now"
        )
