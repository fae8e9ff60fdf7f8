"""The decision record as the tick fills it: every field by its name."""

import math

import numpy as np
import pytest

from contracts.decision import DECISION_DTYPE, Mode, Reason, Source, Verdict
from contracts.observation import OBSERVATION_SIZE
from edge_agent.actuate.record import U32_MAX, Recorder
from edge_agent.observe.slots import Goal, Odometry
from safety.monitor import Ruling
from tests.support.agent import FakePolicy

RULING = Ruling((0.25, -0.5), Verdict.LIMIT, Reason.SCAN_FROZEN, 1.75)
SEEN = np.arange(OBSERVATION_SIZE, dtype=np.float32)


def filled(recorder, policy, raw=(0.5, -1.0), source=Source.POLICY, odometry=None, goal=None, other=None):
    """The record after one tick."""
    recorder.decided(7, 8_000, -9_000, policy, source, RULING, raw, 5, SEEN if policy else None)
    recorder.beside(Mode.ASSIST, other, 0.125)
    recorder.sensed(odometry, goal, 2_000, 3_999)
    recorder.timed(-5, 11_000, 12_000, 13_000, 14_000, 2**40)
    return recorder.record[0]


def test_every_field_is_where_its_name_says():
    policy, seen = FakePolicy(), Odometry((1.0, 2.0, 3.0), (0.75, -0.125), 0)
    row = filled(
        Recorder(),
        policy,
        odometry=seen,
        goal=Goal(4.0, 5.0, 6),
        other=(0.5, 2.0),
    )
    found = {name: np.asarray(row[name]).tolist() for name in DECISION_DTYPE.names}
    assert found == {
        "tick": 7, "mono_ns": 8_000, "wall_ns": -9_000, "policy_digest": policy.digest_bytes.tolist(),
        "release_counter": policy.release_counter, "source": Source.POLICY, "verdict": Verdict.LIMIT,
        "reason": Reason.SCAN_FROZEN, "flags": 5, "pose": [1.0, 2.0, 3.0], "velocity": [0.75, -0.125],
        "goal": [4.0, 5.0], "clearance_m": 1.75, "raw_command": [0.5, -1.0], "final_command": [0.25, -0.5],
        "other_command": [0.5, 2.0], "other_reduction": 0.125, "scan_age_us": 2, "odometry_age_us": 3,
        "late_us": 0, "encode_us": 11, "infer_us": 12, "guard_us": 13, "publish_us": 14, "total_us": 36,
        "missed_ticks": U32_MAX, "trip": 6, "observation": SEEN.tolist(), "mode": Mode.ASSIST,
    }  # fmt: skip


def test_what_nobody_knew_is_nan_and_nothing_is_left_of_the_tick_before():
    recorder = Recorder()
    filled(
        recorder, FakePolicy(), odometry=Odometry((1.0, 2.0, 3.0), (0.75, -0.125), 0), goal=Goal(4.0, 5.0, 6)
    )
    row = filled(recorder, None, raw=None, source=Source.RULE_BASED)
    assert not row["policy_digest"].any()
    assert (row["release_counter"], row["trip"]) == (0, 0)
    assert not row["observation"].any()
    for name in ("pose", "velocity", "goal", "raw_command", "other_command"):
        assert np.isnan(row[name]).all(), name
    assert filled(recorder, FakePolicy())["policy_digest"].any()


@pytest.mark.parametrize("huge", [1e39, -1e300, math.inf])
def test_a_number_that_no_float32_holds_becomes_infinite(huge):
    row = filled(Recorder(), FakePolicy(), raw=(huge, 0.5), other=(0.5, huge))
    assert row["raw_command"].tolist() == [math.copysign(math.inf, huge), 0.5]
    assert row["other_command"].tolist() == [0.5, math.copysign(math.inf, huge)]
    assert row["final_command"].tolist() == [0.25, -0.5]
