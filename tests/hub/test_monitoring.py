"""Dashboard and alert rules ask for what is exported: real endpoints are scraped, and hold every metric they name."""

import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from contracts.decision import Reason
from edge_agent.recorder.recorder import Recorder
from fleet_hub.observe.metrics import POLICY_FAMILIES
from fleet_hub.observe.rollup import (
    COHORTS_MAX,
    POLICIES_MAX,
    RobotSums,
    RollupReader,
    StoreFigures,
    by_policy_and_cohort,
)
from fleet_hub.store.erasure import erase
from fleet_hub.store.figures import gather, write_figures
from fleet_hub.store.live import LiveFigures
from fleet_hub.store.replay import Ingest
from fleet_hub.store.tombstones import Tombstone
from navigation.novelty import drift_reference
from outrider.verbs import hub as hub_verb
from tests.hub.test_store import LOG, trip_rows, write_log
from tests.hub.test_store_metrics import scrape
from tests.recorder.support import drive, stop_at
from tests.support.fleet import Fleet, free_port, make_bundle
from tests.support.waiting import wait_for

NAME = re.compile(r"\boutrider_[a-z_]+\b")
NS = 10**9


@pytest.fixture
def ready(tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Dashboard and rules as an operator gets them."""
    done = CliRunner().invoke(hub_verb.app, ["monitoring", str(tmp_path / "ready")])
    assert done.exit_code == 0, done.output
    folder = tmp_path / "ready"
    dashboard = json.loads((folder / "outrider-dashboard.json").read_text())
    return dashboard, yaml.safe_load((folder / "outrider-alerts.yaml").read_text())


def named(dashboard: dict[str, Any], rules: dict[str, Any]) -> set[str]:
    """Every metric that either asks for."""
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    asked += [str(variable["query"]) for variable in dashboard["templating"]["list"]]
    asked += [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    return set(NAME.findall("\n".join(asked)))


def fill(data: Path, digest: str, bundle: bytes, now_ns: int) -> None:
    """What an ingest leaves: trips of two robots under a policy with a bundle, and of one under the rules."""
    (data / "bundles").mkdir(parents=True)
    (data / "bundles" / f"{digest}.outrider").write_bytes(bundle)
    for robot, policy in (("robot_1", digest), ("robot_2", "")):
        rows = trip_rows(1, now_ns - 120 * NS, 20)
        rows["policy_digest"] = np.frombuffer(bytes.fromhex(policy or "00" * 32), np.uint8)
        rows["entropy_nats"] = 0.5 if policy else np.nan
        write_log(data, rows, robot=robot)
    with Ingest(data) as ingest:
        ingest.run(all_now=True)
        write_figures(ingest.store, gather(ingest.store, now_ns))


def test_every_metric_they_name_is_exported(
    tmp_path: Path, keys: Path, ready: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    rng = np.random.default_rng(0)
    usual = drift_reference(rng.normal(0.5, 0.2, (500, 83)).astype(np.float32))
    bundle = make_bundle(keys, version="v7", drift_reference=usual)
    digest = hashlib.sha256(bundle).hexdigest()
    fill(tmp_path / "data", digest, bundle, time.time_ns())
    fleet, port = Fleet(tmp_path, keys), free_port()
    try:
        fleet.start_hub("--no-ingest", "--metrics", str(port))
        fleet.ring()
        fleet.start_comms()
        robots = 'outrider_hub_robots_policy{policy="none"}'
        found = wait_for(lambda: (f := scrape(port)).get(robots) and f, "a robot in the figures")
    finally:
        fleet.close()
    recorder = Recorder(tmp_path / "robot", "robot_1")
    rows = drive(60)
    stop_at(rows, 40, Reason.SCAN_STALE)
    recorder.decisions([row.tobytes() for row in rows])
    recorder.event("hub_audit_failed", first_seq=1, last_seq=2, count=0)
    recorder.maintain(10**12)
    recorder.close()
    lines = (tmp_path / "robot" / "metrics.prom").read_text().splitlines()
    exported = {key.split("{")[0] for key in found} | {
        re.split("[{ ]", ln)[0] for ln in lines if ln[0] != "#"
    }
    assert named(*ready) <= exported
    assert 'outrider_uplink_audits_failed_total{robot="robot_1"} 1' in lines
    assert 'outrider_erasures_refused_total{robot="robot_1"} 0' in lines
    assert {f"outrider_hub_policy_{suffix}" for suffix in POLICY_FAMILIES} <= exported
    mine = '{policy="v7",cohort="none"}'
    assert found[f"outrider_hub_policy_ticks{mine}"] == 200
    assert found[f"outrider_hub_policy_entropy_nats{mine}"] == 0.5
    assert found[f"outrider_hub_policy_trip_seconds{mine}"] == pytest.approx(19.9)
    assert found[f"outrider_hub_policy_trip_success_share{mine}"] == 1
    assert found[f"outrider_hub_policy_intervention_share{mine}"] == pytest.approx(0.1)
    assert found['outrider_hub_policy_ticks{policy="none",cohort="none"}'] == 200
    assert 'outrider_hub_policy_entropy_nats{policy="none",cohort="none"}' not in found
    assert 60 < found["outrider_hub_rollup_age_seconds"] < 300


def test_rules_and_panels_are_whole(ready: tuple[dict[str, Any], dict[str, Any]]) -> None:
    dashboard, rules = ready
    idents = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(idents)) == len(idents)
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert all(target["expr"] for target in panel.get("targets", ()))
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in alerts}) == len(alerts) > 15
    for rule in alerts:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
        assert rule["expr"].count("(") == rule["expr"].count(")")


def test_policies_and_cohorts_are_bounded_and_nothing_is_lost_on_the_way() -> None:
    sums = tuple(
        RobotSums(robot=f"r{robot}", policy=f"v{robot % 40}", ticks=10 + robot, latency_max_us=robot, trips=1)
        for robot in range(200)
    )
    sites = {f"r{robot}": f"site{robot % 50}" for robot in range(150)}
    found = by_policy_and_cohort(StoreFigures(NS, 3600, sums), sites)
    assert len({one.policy for one in found}) <= POLICIES_MAX + 1
    assert len({one.cohort for one in found}) <= COHORTS_MAX + 1
    assert "none" in {one.cohort for one in found}  # the fifty robots without a site
    assert sum(one.sums.ticks for one in found) == sum(one.ticks for one in sums)
    assert max(one.sums.latency_max_us for one in found) == 199


def test_figures_that_are_not_whole_leave_the_last_ones(tmp_path: Path) -> None:
    reader = RollupReader(tmp_path / "figures.json", {})
    assert (reader.policies(), reader.age_s(NS)) == ((), None)
    write_figures(tmp_path, StoreFigures(5 * NS, 3600, (RobotSums(robot="r", policy="v1", ticks=3),)))
    assert reader.policies()[0].sums.ticks == 3
    assert reader.age_s(65 * NS) == 60.0
    (tmp_path / "figures.json").write_bytes(b'{"newest_wall_ns": 9, "wind')
    assert reader.policies()[0].sums.ticks == 3


def test_a_robot_whose_clock_is_years_ahead_does_not_move_the_window(tmp_path: Path) -> None:
    now_ns = 1_800_000_000 * NS
    write_log(tmp_path, trip_rows(1, now_ns - 300 * NS, 20), robot="robot_1")
    write_log(tmp_path, trip_rows(1, 2 * now_ns, 20), robot="robot_2")
    with Ingest(tmp_path) as ingest:
        ingest.run(all_now=True)
        found = gather(ingest.store, now_ns)
    assert {one.robot for one in found.sums} == {"robot_1"}


def test_figures_are_of_what_the_store_has_not_taken_too(tmp_path: Path) -> None:
    """Half of a minute-old log is in no closed segment; nothing counts twice, and what is erased is gone."""
    now_ns = time.time_ns()
    rows = np.concatenate([trip_rows(n + 1, now_ns - (90 - 30 * n) * NS, 20) for n in range(3)])
    (tmp_path / "store").mkdir(parents=True)
    write_log(tmp_path, rows[:400])
    live = LiveFigures(tmp_path)

    def ticks() -> tuple[int, int]:
        live.update(now_ns)
        found = gather(tmp_path / "store", now_ns, live)
        return sum(one.ticks for one in found.sums), sum(one.trips for one in found.sums)

    with Ingest(tmp_path) as ingest:
        assert ingest.run(wall_ns=now_ns).records == 0  # its only segment may still be written to
        assert ticks() == (400, 2)
        assert now_ns - live.newest_wall_ns < 45 * NS
        write_log(tmp_path, rows[400:500], first_seq=401)
        assert ticks() == (500, 2)  # only what is new is read
        ingest.run(all_now=True)
        assert list(live.minutes(0, 2**62))
        assert ticks() == (500, 2)
        assert not list(live.minutes(0, 2**62))  # the store has it now
        write_log(tmp_path, rows[500:], first_seq=501)
        assert ticks()[0] == 600
    erase(tmp_path, Tombstone("robot_1", now_ns - 31 * NS, now_ns), "anna", "a test")
    kept = ticks()
    assert kept[1] == 2
    assert 0 < kept[0] <= 400  # the store's minutes go whole
    (segment,) = sorted((tmp_path / "telemetry" / "robot_1" / LOG).glob("*.olog"))[-1:]
    segment.write_bytes(segment.read_bytes()[:-3])
    assert ticks() == kept
