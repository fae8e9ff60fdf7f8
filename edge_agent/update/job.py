"""What an order asks of this robot, and what follows from a check's result. Pure: no disk, no network, no clock."""

from typing import Literal

import msgspec

from contracts.plan import Release
from contracts.trust import Code, DirectorFacts, Wanted
from edge_agent.update.checker import CHECK_KILLED, CheckResult
from edge_agent.update.mailbox import Kind
from edge_agent.update.orders import Accepted

CHECK_KILLS_MAX = 20
"""So often in a row the check of one bundle may be ended from outside before the bundle is held to be at fault.

With waits up to BACKOFF_MAX_S in between that is some eight minutes. Three were too few: who kills a check, or
starves it, is mostly not the bundle. What is its own doing (``check_costly``, ``check_failed``) is refused at once.
"""
MIRRORED = frozenset(Code)
"""What a bad mirror can bring about; a bundle's own faults are the bundle's, whoever served it."""
Next = Literal["stage", "check_again", "ask_elsewhere", "refuse"]


class Job(msgspec.Struct, frozen=True):
    """The order being followed."""

    rollout: int
    stage: int
    kind: Kind
    release: Release
    shadow_s: float
    plan_digest: str

    @property
    def digest(self) -> str:
        """SHA-256 of the bundle file."""
        return self.release.digest


class Verdict(msgspec.Struct, frozen=True):
    """What to do now; code and reason where it may come to a refusal."""

    next: Next
    code: str = ""
    reason: str = ""


def job_of(accepted: Accepted) -> Job:
    """What an accepted order asks."""
    order, stage = accepted.order, accepted.stage
    kind: Kind = "run"
    if order.action != "run":
        kind = "revert" if order.action == "revert" else "shadow"
    shadow_s = stage.soak_s if kind == "shadow" else 0.0
    return Job(order.rollout, order.stage, kind, accepted.plan.release, shadow_s, accepted.plan_digest)


def wanted_of(job: Job, robot: str) -> Wanted:
    """What both repositories must say of its bundle."""
    return Wanted(job.digest, DirectorFacts(robot, job.rollout, job.stage, job.kind, job.plan_digest))


def verdict_on(result: CheckResult, kills: int, release: Release) -> Verdict:
    """What follows from a check of ``release``; ``kills`` of its checks were ended from outside, this one counted."""
    facts = result.facts
    if facts is None:
        killed = result.code == CHECK_KILLED and kills < CHECK_KILLS_MAX
        if killed or result.code == Code.UNREACHABLE:
            return Verdict("check_again")
        follows: Next = "ask_elsewhere" if result.code in MIRRORED else "refuse"
        return Verdict(follows, result.code, f"{result.code}: {result.reason}")
    promised = (release.digest, release.policy_name, release.version, release.release_counter)
    if (facts.digest, facts.policy_name, facts.version, facts.release_counter) != promised:
        return Verdict("refuse", "wrong_release", "the bundle says something else of itself than the plan")
    return Verdict("stage")
