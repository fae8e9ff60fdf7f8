"""The benchmark runner: finds every benchmark, shows a missed target, writes whole files."""

import json

import pytest

from benchmarks._report import report
from benchmarks.run_all import TARGETS, benchmark_names, met, table, write_results


def result(name, value, better):
    return {
        "name": name, "value": value, "unit": "x", "better": better, "reference": 2.0, "ratio": value / 2.0,
    }  # fmt: skip


def test_every_benchmark_is_found():
    assert {"delivery_time", "edge_tick", "ray_rollouts", "sim_throughput", "training"} <= set(
        benchmark_names()
    )
    assert "run_all" not in benchmark_names()


@pytest.mark.parametrize(
    ("name", "value", "better", "good"),
    [
        ("twin.steps_per_s", 60_000.0, "higher", True),
        ("twin.steps_per_s", 59_999.0, "higher", False),
        ("tick.p50_us", 1_000.0, "lower", True),
        ("tick.p50_us", 1_001.0, "lower", False),
        ("delivery.contact_excess_high95", 0.005, "lower", True),
        ("delivery.contact_excess_high95", 0.0051, "lower", False),
        ("something.else", 1.0, "lower", None),
    ],
)
def test_target_is_met_at_its_value(name, value, better, good):
    assert met(result(name, value, better)) is good
    text = table([result(name, value, better)])
    assert ("MISSED" in text) == (good is False)
    assert (" met " in text) == (good is True)


def test_shares_are_told_apart(capsys):
    """Two digits would round half a per cent away."""
    report("delivery.contact_excess_high95", 0.00512, "share", "lower")
    came = json.loads(capsys.readouterr().out)
    assert came["value"] == 0.0051
    assert met(came) is False
    assert "<= 0.0050" in table([came])
    assert "MISSED" in table([came])


def test_results_are_lines_of_json(tmp_path, capsys):
    report("train.vs_sb3_defaults", 12.345, "steps/s", "higher", 2.0)
    report("train.seconds_to_95", 99.0, "s", "lower")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == {
        "name": "train.vs_sb3_defaults", "value": 12.35, "unit": "steps/s", "better": "higher",
        "reference": 2.0, "ratio": 6.173,
    }  # fmt: skip
    assert lines[1]["ratio"] is None
    assert {line["name"] for line in lines} <= set(TARGETS)
    write_results(lines, tmp_path / "latest.jsonl")
    assert [json.loads(line) for line in (tmp_path / "latest.jsonl").read_text().splitlines()] == lines
    assert [path.name for path in tmp_path.iterdir()] == ["latest.jsonl"]
