"""What the demonstration reads of metrics and traces, from the very text and files that hub and robots write."""

from pathlib import Path

import msgspec
import pytest

from contracts.tracing import Span, SpanFile, span_id, trace_id
from edge_agent.recorder.metrics import metrics_text as agent_text
from fleet_hub.observe.metrics import HubFigures
from fleet_hub.observe.metrics import metrics_text as hub_text
from fleet_hub.observe.rollup import PolicyFigures, RobotSums
from outrider.demo import watch
from outrider.demo.children import DemoError

IDLE = HubFigures(
    robots=3, robots_online=3, robots_by_policy={"2.0.0": 3}, records_stored=9, records_duplicate=0,
    messages_dropped=0, sessions=4, turn_worst_s=0.01,
)  # fmt: skip


def sums(policy: str, ticks: int) -> RobotSums:
    return RobotSums(
        robot="robot_1", policy=policy, ticks=ticks, interventions=ticks // 10, latency_us=900.0 * ticks, trips=2,
        trips_arrived=1, capped_s=90.0,
    )  # fmt: skip


def test_the_hubs_metrics_become_a_row_a_policy() -> None:
    told = tuple(PolicyFigures(name, "none", sums(name, 1000)) for name in ("none", "2.0.0", 'a"b'))
    rows = watch.policy_rows(watch.parse_metrics(hub_text(msgspec.structs.replace(IDLE, policies=told))))
    assert len(rows) == 3
    cells = {row.policy: watch.metric_cells(row) for row in rows}
    assert cells["2.0.0"] == ["2.0.0", "1,000", "2", "50%", "45.0", "-", "10.00%", "0.90"]
    assert cells["none"][0] == "rule-based"
    assert {len(found) for found in cells.values()} == {len(watch.METRIC_HEAD)}
    assert watch.policy_rows(watch.parse_metrics(hub_text(IDLE))) == []


def test_a_robots_figures_are_added_up_over_their_labels() -> None:
    samples = {
        'outrider_decisions_total{verdict="pass"}': 90.0, 'outrider_decisions_total{verdict="limit"}': 10.0,
        "outrider_tick_worst_seconds": 0.0125,
    }  # fmt: skip
    found = watch.agent_figures(watch.parse_metrics(agent_text(samples, "robot_1")))
    assert found == {"outrider_decisions_total": 100.0, "outrider_tick_worst_seconds": 0.0125}


def test_a_line_that_is_no_sample_is_named() -> None:
    with pytest.raises(DemoError, match=r"text format, came: .*'many'"):
        watch.parse_metrics(agent_text({"outrider_log_bytes": 1.0}, "robot_1") + "outrider_log_bytes many\n")


def write(path: Path, *spans: tuple[int, str, str, int, int, str]) -> None:
    sink = SpanFile(path, "outrider")
    for rollout, robot, name, start_s, end_s, error in spans:
        trace = trace_id(rollout, "d" * 64, robot)
        sink.write(
            Span(
                trace_id=trace, span_id=span_id(trace, name, 0), name=name, start_ns=start_s * 10**9,
                end_ns=end_s * 10**9, attributes={"outrider.robot": robot, "outrider.stage": 0}, error=error,
            )
        )  # fmt: skip
    sink.close()


def test_spans_of_two_files_are_joined_and_only_the_newest_update_is_shown(tmp_path: Path) -> None:
    hub, robot = tmp_path / "hub.jsonl", tmp_path / "robot_1.jsonl"
    old = [(1, "robot_1", name, 10, 20, "") for name in ("release", "order")]
    new = [
        (2, "robot_1", "update", 30, 50, ""),
        (2, "robot_1", "release", 30, 31, ""),
        (2, "robot_1", "order", 31, 50, ""),
    ]
    write(hub, *old, *new)
    write(robot, (2, "robot_1", "download", 32, 35, ""), (2, "robot_1", "check", 35, 40, "golden: by 0.2"))
    (found,) = watch.ways(watch.read_steps([hub, robot, tmp_path / "none"]), 25.0).values()
    assert [(step.name, step.start_s, step.error) for step in found] == [
        ("release", 30.0, ""), ("order", 31.0, ""), ("download", 32.0, ""), ("check", 35.0, "golden: by 0.2"),
    ]  # fmt: skip
    assert watch.ways(watch.read_steps([hub]), 60.0) == {}


def test_what_a_mirror_served_is_read_from_its_last_words(tmp_path: Path) -> None:
    log = tmp_path / "mirror.log"
    log.write_text(
        "mirror north listens\nserved to robot_2: 1200 bytes of bundles\nserved to robot_22: 7 bytes\n"
    )
    assert watch.served_bytes(log, "robot_2") == 1200
    assert watch.served_bytes(log, "robot_1") == 0
