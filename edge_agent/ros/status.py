"""Status messages out of what the tick left behind. Texts are cut to what the interfaces allow."""

import math
from typing import Any

from outrider_msgs.msg import DecisionStatus, PolicyStatus, SafetyStatus

from contracts.decision import Source, in_words
from edge_agent.guard.filter import Filtered
from edge_agent.infer.ladder import Ladder
from edge_agent.infer.trial import Stage
from edge_agent.tick import Snapshot

BASE_FRAME = "base_link"
SOURCES = {
    Source.NONE: DecisionStatus.SOURCE_STOP,
    Source.POLICY: DecisionStatus.SOURCE_POLICY,
    Source.RULE_BASED: DecisionStatus.SOURCE_RULE_BASED,
    Source.RECOVERY: DecisionStatus.SOURCE_RECOVERY,
}


def safety_status(robot_id: str, stamp: Any, latest: Snapshot | Filtered) -> Any:
    """What the monitor decided in the last tick."""
    status, ruling = SafetyStatus(), latest.ruling
    status.header.stamp, status.header.frame_id = stamp, BASE_FRAME
    status.robot_id, status.tick = robot_id, latest.tick
    status.verdict, status.reason_code = int(ruling.verdict), int(ruling.reason)
    status.reason_text = in_words(ruling.reason)[:128]
    status.speed_in_mps, status.turn_rate_in_radps = latest.raw or (math.nan, math.nan)
    status.speed_out_mps, status.turn_rate_out_radps = ruling.command
    status.armed, status.estop_latched = latest.armed, latest.latched
    return status


def decision_status(robot_id: str, stamp: Any, latest: Snapshot, approved_s: float = 0.0) -> Any:
    """How the last tick's command came about; ``approved_s`` is what is left of a person's approval."""
    status = DecisionStatus()
    status.header.stamp, status.header.frame_id = stamp, BASE_FRAME
    status.robot_id, status.tick = robot_id, latest.tick
    status.policy_digest, status.source = latest.digest, SOURCES[latest.source]
    status.speed_raw_mps, status.turn_rate_raw_radps = latest.raw or (math.nan, math.nan)
    status.speed_final_mps, status.turn_rate_final_radps = latest.ruling.command
    status.mode, status.approved_s = int(latest.mode), approved_s
    status.speed_other_mps, status.turn_rate_other_radps = latest.other or (math.nan, math.nan)
    status.inference_us, status.tick_total_us = latest.infer_ns / 1e3, latest.total_ns / 1e3
    status.ticks_late, status.ticks_missed = latest.late, latest.missed
    return status


def policy_status(robot_id: str, stamp: Any, ladder: Ladder, detail: str) -> Any:
    """Which policy runs, and what happened last."""
    status = PolicyStatus()
    status.header.stamp, status.robot_id = stamp, robot_id
    policy, previous = ladder.policy, ladder.previous
    if policy is not None:
        status.digest_active, status.release_version = policy.digest, policy.version[:64]
        status.release_counter = policy.release_counter
        status.state = PolicyStatus.STATE_ACTIVE
    if previous is not None:
        status.digest_previous = previous.digest
    trial = ladder.trial
    if trial is not None and trial.stage is Stage.PROBATION:
        status.state = PolicyStatus.STATE_PROBATION
    elif "refused" in detail:
        status.state = PolicyStatus.STATE_REFUSED
    status.swap_count, status.detail = ladder.swaps, detail[:256]
    return status
