"""The audit takes the reward apart without a rest, and finds a reward that pays for something else."""

import json
import math

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from contracts.robot import AMR_SMALL
from navigation.action import decode_action
from outrider.verbs.reward import app
from sim.simulation import Simulation, SimulationConfig
from sim.tasks.delivery import Outcome, RewardConfig
from trainer.audit.audit import AuditConfig, Trip, audit_reward, correlate, suspicious_trips, warnings_of
from trainer.audit.export import write_audit
from trainer.audit.terms import MISMATCH_MAX, TERMS, AuditError, TermMeter
from trainer.evaluation.config import unseen_floors
from trainer.evaluation.controllers import RuleBased

FLOORS = unseen_floors(2)
SMALL = AuditConfig(robots=2, people=3, trips=2, top=3)


class Spinner:
    """Turns on the spot: never arrives."""

    name = "spinner"

    def begin(self, robots):
        del robots

    def commands(self, observations):
        return np.tile([0.0, 1.0], (len(observations), 1))


@pytest.fixture(scope="module")
def audit():
    return audit_reward(RuleBased(AMR_SMALL, 0.1), SMALL, FLOORS)


def random_steps(simulation, steps, meter, seed=0):
    rng = np.random.default_rng(seed)
    action = np.zeros((*simulation.reward.shape, 2), dtype=np.float32)
    outcomes = set()
    for _ in range(steps):
        action = np.clip(0.9 * action + rng.normal([0.1, 0.0], 0.3, action.shape), -1, 1).astype(np.float32)
        simulation.step(action, decode_action(action, AMR_SMALL))
        terms = meter.terms(action)
        assert np.abs(terms.sum(axis=-1) - simulation.reward).max() <= MISMATCH_MAX
        outcomes |= set(simulation.outcome.reshape(-1).tolist())
    return outcomes


def test_terms_add_up_through_every_way_a_trip_ends():
    settings = SimulationConfig(worlds=8, robots=4, people=5, guarded=False, trip_max_s=20.0)
    simulation = Simulation(FLOORS, settings, seed=3)
    meter = TermMeter(simulation)
    assert random_steps(simulation, 800, meter) == {
        Outcome.RUNNING,
        Outcome.ARRIVED,
        Outcome.CONTACT,
        Outcome.TIMEOUT,
    }
    assert 0.0 < meter.mismatch_max <= MISMATCH_MAX
    assert meter.unseen_steps == 0


@pytest.mark.parametrize("name", ["progress", "step_s", "change", "near", "reduced", "arrived", "contact"])
def test_each_term_is_its_own(name):
    """With one weight alone, one column alone is paid, and it is what the simulation paid."""
    weights = dict.fromkeys(TERMS, 0.0) | {name: -1.5}
    guarded = name == "reduced"
    config = SimulationConfig(
        worlds=8, robots=4, people=5, guarded=guarded, reward=RewardConfig(**weights), trip_max_s=20.0
    )
    simulation = Simulation(FLOORS, config, seed=3)
    meter = TermMeter(simulation)
    rng = np.random.default_rng(0)
    action = np.zeros((8, 4, 2), dtype=np.float32)
    column, paid = TERMS.index(name), 0.0
    for _ in range(800):
        action = np.clip(0.9 * action + rng.normal([0.1, 0.0], 0.3, action.shape), -1, 1).astype(np.float32)
        simulation.step(action, decode_action(action, AMR_SMALL))
        terms = meter.terms(action)
        assert np.delete(terms, column, axis=-1) == pytest.approx(0.0)
        paid += np.abs(terms[..., column]).sum()
    assert paid > 0.0


def test_another_reward_than_the_one_paid_is_noticed():
    simulation = Simulation(FLOORS, SimulationConfig(worlds=2, robots=2, people=1), seed=0)
    meter = TermMeter(simulation)
    other = msgspec.structs.replace(simulation.config.reward, step_s=-0.31)
    simulation.config = msgspec.structs.replace(simulation.config, reward=other)
    with pytest.raises(AuditError, match="the terms add up to"):
        random_steps(simulation, 1, meter)


def test_audit_of_the_rule_based_controller(audit):
    assert len(audit.trips) == 2 * SMALL.robots * SMALL.trips
    assert audit.mismatch_max <= MISMATCH_MAX
    assert audit.reward_hash == RewardConfig().hash()
    for trip in audit.trips:
        assert trip.total == pytest.approx(sum(trip.terms.values()))
        assert trip.terms["step_s"] == pytest.approx(RewardConfig().step_s * trip.trip_s)
        assert (trip.terms["arrived"] == 10.0) == (trip.outcome == "arrived")
        if trip.outcome == "arrived":
            assert math.dist(trip.path[-1], trip.goal) < 0.36
            assert len(trip.path) == round(trip.trip_s * 10) + 1
    totals = [audit.trips[number].total for number in audit.top]
    assert totals == sorted((trip.total for trip in audit.trips), reverse=True)[:3]
    again = audit_reward(RuleBased(AMR_SMALL, 0.1), SMALL, FLOORS)
    assert msgspec.json.encode(again) == msgspec.json.encode(audit)


def trip(number, outcome="arrived", trip_s=20.0, **terms):
    filled = dict.fromkeys(TERMS, 0.0) | terms
    capped = trip_s if outcome == "arrived" else 60.0
    return Trip(
        number, "f", 0, 0, outcome, trip_s, capped, sum(filled.values()), filled, (0.0, 0.0), [(0.0, 0.0)]
    )


def test_well_paid_trips_that_do_not_deliver_are_listed():
    plain = [trip(k, trip_s=10.0 + k, progress=5.0 - 0.1 * k, arrived=10.0) for k in range(12)]
    circling = trip(12, "timeout", 60.0, progress=40.0)
    crash = trip(13, "contact", 4.0, progress=30.0)
    slow = trip(14, trip_s=55.0, progress=20.0, arrived=10.0)
    found = {
        suspicion.trip: suspicion.reason for suspicion in suspicious_trips([*plain, circling, crash, slow])
    }
    assert set(found) == {12, 13, 14}
    assert "ended by timeout" in found[12]
    assert "most of it from progress" in found[12]
    assert "took 55.0 s" in found[14]
    assert suspicious_trips(plain) == []
    assert suspicious_trips([trip(k, progress=1.0) for k in range(4)]) == [], "all alike: none is slow"


def test_correlations_as_worked_by_hand():
    trips = [
        trip(k, trip_s=s, progress=p) for k, (s, p) in enumerate([(10, 4.0), (20, 3.0), (30, 3.0), (40, 0.0)])
    ]
    found = {(c.term, c.goal): c for c in correlate(trips)}
    pair = found["progress", "trip_s"]
    assert pair.spearman == pytest.approx(-4.5 / math.sqrt(5.0 * 4.5)), "ties share the mean rank"
    assert pair.pearson == pytest.approx(np.corrcoef([10, 20, 30, 40], [4, 3, 3, 0])[0, 1])
    assert found["progress", "arrived"].pearson is None
    assert found["near", "trip_s"].spearman is None


def test_a_reward_that_pays_for_dawdling_is_called_out():
    """Paid per second instead of charged: those that never arrive earn most."""
    hacked = msgspec.structs.replace(SMALL, reward=RewardConfig(step_s=2.0, arrived=0.0, progress=0.0))
    driver = audit_reward(RuleBased(AMR_SMALL, 0.1), hacked, FLOORS)
    spinner = audit_reward(Spinner(), hacked, FLOORS)
    both = [msgspec.structs.replace(t, number=k) for k, t in enumerate([*driver.trips, *spinner.trips])]
    assert suspicious_trips(both)
    assert any("rises with trip_s" in text for text in warnings_of(correlate(both)))
    honest = [*audit_reward(RuleBased(AMR_SMALL, 0.1), SMALL, FLOORS).trips]
    honest += audit_reward(Spinner(), SMALL, FLOORS).trips
    assert warnings_of(correlate(honest)) == []


def test_files_for_people(audit, tmp_path):
    chosen = write_audit(audit, FLOORS, tmp_path / "out")
    assert chosen[:3] == audit.top
    for number in chosen:
        record = json.loads((tmp_path / "out" / "trips" / f"trip_{number:04}.json").read_text())
        assert record["trip"]["number"] == number
        assert len(record["trip"]["path"]) > 10
        assert (tmp_path / "out" / "trips" / f"trip_{number:04}.png").read_bytes()[:4] == b"\x89PNG"
    before = (tmp_path / "out" / "audit.json").read_bytes()
    with pytest.raises(AuditError, match="holds an audit already"):
        write_audit(audit, FLOORS, tmp_path / "out")
    assert (tmp_path / "out" / "audit.json").read_bytes() == before


def test_from_the_command_line(trained, tiny_yaml, tmp_path):
    runner = CliRunner()
    shown = runner.invoke(app, ["show", "--config", str(tiny_yaml), "--json"])
    assert json.loads(shown.stdout)["hash"] == RewardConfig().hash()
    assert RewardConfig().hash() in runner.invoke(app, ["show"]).stdout
    words = (
        f"audit --run {trained.path} --out {tmp_path / 'out'} --floors 1 --robots 1 --trips 1 --top 1".split()
    )
    result = runner.invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "rank correlation" in result.stdout
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["controller"] == "tiny"
    assert runner.invoke(app, words).exit_code == 1
    bad = tmp_path / "bad.yaml"
    bad.write_text("reward: {speed: 1.0}\n")
    refusal = runner.invoke(app, ["audit", "--config", str(bad), "--out", str(tmp_path / "none")])
    assert refusal.exit_code == 1
    assert not (tmp_path / "none").exists()
