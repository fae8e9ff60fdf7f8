"""The sequential test keeps its level however often it is looked at, and finds what is worse; trips are cut right."""

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.decision import DECISION_DTYPE, FLAG_ARMED, Mode, Reason, Source
from contracts.plan import Gate
from fleet_hub.rollout.gates import BEFORE_ROUNDS_MIN, SPAN, judge_gate, lower_bound, rounds
from fleet_hub.rollout.trips import ARRIVED_M, TRIP_MAX_S, Trip, TripWatch

Floats = npt.NDArray[np.float64]
NS = 1_000_000_000


@pytest.mark.parametrize("failing", [0.0, 0.01, 0.3])
def test_the_bound_is_rarely_ever_above_the_mean(failing: float) -> None:
    """200 runs of 200 rounds, looked at after every round: at most 5 % ever wrong (binomial, 5 standard deviations)."""
    rng, alpha, runs = np.random.default_rng(5), 0.05, 200
    wrong = 0
    for _ in range(runs):
        values = np.where(rng.random(200) < failing, 1.0, rng.gamma(4.0, 0.06, 200)).clip(0.0, 1.0)
        mean = failing + (1.0 - failing) * 0.24
        wrong += lower_bound(values, alpha) > mean
    assert wrong <= alpha * runs + 5.0 * np.sqrt(alpha * (1 - alpha) * runs)


def test_peeking_changes_nothing() -> None:
    """The bound after n rounds is the best of all looks before: looking in between cannot make it better."""
    values = np.random.default_rng(1).uniform(-0.5, 0.7, 1200)
    looks = [lower_bound(values[:count], 0.05) for count in range(1, 1200, 37)]
    assert looks == sorted(looks)
    assert looks[-1] > -0.1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1.0, 1.0), max_size=60), st.floats(0.001, 0.2))
def test_a_bound_is_always_a_bound(values: list[float], alpha: float) -> None:
    found = lower_bound(np.array(values), alpha)
    assert -1.0 <= found <= 1.0
    assert lower_bound(np.array(values), alpha / 10.0) <= found
    if values:
        assert found <= max(values) + 0.01


def test_extremes() -> None:
    assert lower_bound(np.zeros(0), 0.05) == -1.0
    assert lower_bound(np.full(200, 1.0), 0.05) > 0.9
    assert lower_bound(np.full(200, -1.0), 0.05) == -1.0
    assert lower_bound(np.array([1.0, 1.0]), 0.05) == -1.0  # two rounds prove nothing


def test_rounds_are_whole_and_limited() -> None:
    canaries = [np.array([0.5, 0.6, 0.7]), np.array([0.5, 0.6])]
    assert rounds(canaries, [np.array([0.1, 0.6, 0.7, 0.8])]) == pytest.approx([0.4, 0.0])
    assert len(rounds(canaries, [])) == 0
    assert len(rounds([], canaries)) == 0
    many = [np.array([1.0])] * 8
    assert rounds(many, [np.array([0.0])]) == pytest.approx([SPAN])
    assert rounds(many[:1], [np.array([0.0])]) == pytest.approx([1.0])  # one canary's failure counts in full


def group(rng: np.random.Generator, robots: int, count: int, low: float, high: float) -> list[Floats]:
    return [rng.uniform(low, high, count) for _ in range(robots)]


def test_what_sets_robots_apart_is_no_effect() -> None:
    """Canaries at a slow site, as slow as before: no stop; without the rounds before it would look like one."""
    rng, gate = np.random.default_rng(2), Gate("delivery_time_s", 3.0)
    after = group(rng, 4, 400, 0.3, 0.5), group(rng, 8, 400, 0.2, 0.4)
    before = group(rng, 4, 300, 0.3, 0.5), group(rng, 8, 300, 0.2, 0.4)
    good = judge_gate(gate, 0.01, after, before)
    assert good.verdict == "promote"
    assert good.low < 0.0 < good.high
    assert good.before_rounds == 300
    blind = judge_gate(gate, 0.01, after, ([], []))
    assert (blind.verdict, blind.before_rounds) == ("stop", 0)
    few = tuple([values[: BEFORE_ROUNDS_MIN - 1] for values in found] for found in before)
    assert judge_gate(gate, 0.01, after, (few[0], few[1])).before_rounds == 0


@pytest.mark.parametrize(
    ("extra", "verdict"), [(0.0, "promote"), (0.02, "promote"), (0.15, "stop"), (0.6, "stop")]
)
def test_a_margin_is_taken_and_more_is_not(extra: float, verdict: str) -> None:
    rng, gate = np.random.default_rng(3), Gate("delivery_time_s", 3.6)  # 0.06 of the scale
    before = group(rng, 4, 400, 0.2, 0.4), group(rng, 8, 400, 0.2, 0.4)
    after = group(rng, 4, 800, 0.2 + extra, 0.4 + extra), group(rng, 8, 800, 0.2, 0.4)
    assert judge_gate(gate, 0.01, after, before).verdict == verdict


def test_nothing_is_nothing() -> None:
    found = judge_gate(Gate("contacts", 0.05), 0.01, ([], []), ([], []))
    assert (found.verdict, found.rounds) == ("undecided", 0)


def records(count: int, trip: int = 1, start_s: float = 0.0, rate_hz: float = 20.0, **fields: Any) -> Any:
    """An armed robot that a policy drives, 10 m from its goal."""
    made = np.zeros(count, DECISION_DTYPE)
    made["mono_ns"] = ((start_s + np.arange(count) / rate_hz) * NS).astype(np.int64)
    made["wall_ns"] = made["mono_ns"] + 1_000 * NS
    made["trip"], made["flags"], made["mode"], made["source"] = (
        trip,
        FLAG_ARMED,
        Mode.CONTROLLER,
        Source.POLICY,
    )
    made["goal"], made["clearance_m"], made["policy_digest"] = (10.0, 0.0), 1.0, 7
    made["raw_command"], made["final_command"] = (1.0, 0.0), (1.0, 0.0)
    for name, value in fields.items():
        made[name] = value
    return made


def arrival(made: Any, at: int) -> Any:
    """The robot is at its goal from record ``at`` on."""
    made["pose"][at:, 0] = 10.0 - ARRIVED_M / 2
    return made


def watch(*batches: Any) -> list[Trip]:
    found, seq, watching = [], 1, TripWatch()
    for batch in batches:
        found += watching.add(batch, np.arange(seq, seq + len(batch), dtype=np.int64))
        seq += len(batch)
    return found


def test_a_trip_is_the_way_to_its_goal() -> None:
    (trip,) = watch(arrival(records(400), 300))
    assert trip.delivery_time_s == pytest.approx(15.0)
    assert (trip.first_seq, trip.last_seq) == (1, 301)
    assert trip.policy == "07" * 32
    assert (trip.aborted, trip.contacts, trip.interventions, trip.fallbacks) == (0.0, 0.0, 0.0, 0.0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 699), max_size=12))
def test_batches_do_not_matter(cuts: list[int]) -> None:
    rows = np.concatenate([arrival(records(400), 250), arrival(records(300, 2, 20.0), 100)])
    edges = [0, *sorted(set(cuts)), len(rows)]
    assert watch(*[rows[a:b] for a, b in pairwise(edges)]) == watch(rows)
    assert len(watch(rows)) == 2


def test_who_never_arrives_is_aborted_in_time() -> None:
    (trip,) = watch(records(2000))
    assert (trip.aborted, trip.delivery_time_s) == (1.0, TRIP_MAX_S)
    assert trip.last_seq == 1201


def test_what_happened_on_the_way() -> None:
    rows = arrival(records(200), 199)
    rows["clearance_m"][50] = 0.0
    rows["reason"][:20], rows["final_command"][:20] = Reason.OBSTACLE_AHEAD, (0.1, 0.0)
    rows["reason"][20:40] = Reason.OBSTACLE_AHEAD  # braked a little: no intervention
    rows["source"][:50] = Source.RULE_BASED
    rows["raw_command"][60] = np.nan
    rows["total_us"][:10] = 30_000
    (trip,) = watch(rows)
    assert (trip.contacts, trip.near_misses) == (1.0, 1.0)
    assert trip.interventions == pytest.approx(20 / 200)
    assert trip.fallbacks == pytest.approx(50 / 200)
    assert trip.slow_ticks == pytest.approx(10 / 200)


@pytest.mark.parametrize(
    ("batches", "count"),
    [
        ([records(100, trip=0)], 0),
        ([records(2000, flags=0)], 0),
        ([arrival(records(100, reason=Reason.STOP_REQUESTED), 50)], 0),
        ([records(100), arrival(records(100, 2, 10.0), 50)], 1),
        ([records(100, 5), arrival(records(100, 5, start_s=-50.0), 50)], 1),
    ],
    ids=[
        "no goal",
        "never armed",
        "stopped by an operator",
        "another goal before it came",
        "control restarted",
    ],
)
def test_what_is_no_trip(batches: list[Any], count: int) -> None:
    assert len(watch(*batches)) == count


def test_the_time_before_arming_does_not_count() -> None:
    rows = arrival(records(400), 300)
    rows["flags"][:100] = 0
    (trip,) = watch(rows)
    assert trip.delivery_time_s == pytest.approx(10.0)
