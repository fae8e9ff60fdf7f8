"""What the ladder needs of those who propose commands."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from navigation.novelty import Novelty

Command = tuple[float, float]
"""Speed in m/s and turn rate in rad/s, base frame."""
Floats = npt.NDArray[np.float32]


class Proposer(Protocol):
    """A policy (``edge_agent.infer.policy.Policy``)."""

    digest: str
    version: str
    release_counter: int
    digest_bytes: npt.NDArray[np.uint8]
    novelty: Novelty | None

    @property
    def entropy_nats(self) -> float:
        """Of its action distribution at the last ``run``; NaN where it has none."""

    def run(self, observation: Floats) -> Command:
        """Speed in m/s and turn rate in rad/s; may raise, may be not finite."""


class Rules(Protocol):
    """The rule-based controller (``navigation.controllers.dwa.DwaController``)."""

    def command(self, observation: Floats) -> Command:
        """Speed in m/s and turn rate in rad/s."""
