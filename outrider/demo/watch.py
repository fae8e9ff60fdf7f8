"""What an operator's monitoring sees of the demonstration: metrics scraped once, spans joined by their ids. Pure."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from outrider.demo.children import DemoError

POLICY_METRIC = "outrider_hub_policy_"
SHOWN = (
    "ticks", "trips", "trip_success_share", "trip_capped_seconds", "entropy_nats", "intervention_share",
    "latency_seconds",
)  # fmt: skip
AGENT_SHOWN = (
    "outrider_decisions_total", "outrider_incidents_total", "outrider_missed_ticks_total",
    "outrider_tick_worst_seconds", "outrider_log_bytes", "outrider_uplink_unsent_records",
)  # fmt: skip
WAY = ("release", "order", "download", "check", "swap", "probation", "commit")
"""The spans of one update, in order; those from download on are the robot's."""


class PolicyRow(msgspec.Struct, frozen=True):
    """What the hub's /metrics say of one policy; the values are those of SHOWN, None where there is no sample."""

    policy: str
    values: tuple[float | None, ...]


class Step(msgspec.Struct, frozen=True):
    """A span of one robot's update; wall time in s."""

    robot: str
    trace: str
    name: str
    start_s: float
    end_s: float
    error: str


def parse_metrics(text: str) -> list[Sample]:
    """Every sample of a scrape.

    Raises:
        DemoError: it is not Prometheus's text format.
    """
    try:
        return [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    except ValueError as error:
        raise DemoError(f"expected metrics in Prometheus's text format, came: {error}") from None


def policy_rows(samples: Iterable[Sample]) -> list[PolicyRow]:
    """A row for each policy that the hub tells of; one site is all that the demonstration has."""
    found: dict[str, dict[str, float]] = {}
    for sample in samples:
        if sample.name.startswith(POLICY_METRIC) and "policy" in sample.labels:
            figure = sample.name.removeprefix(POLICY_METRIC)
            found.setdefault(sample.labels["policy"], {})[figure] = float(sample.value)
    return [PolicyRow(policy, tuple(map(values.get, SHOWN))) for policy, values in sorted(found.items())]


def agent_figures(samples: Iterable[Sample]) -> dict[str, float]:
    """A robot's own figures by name; those that have labels are added up."""
    found: dict[str, float] = {}
    for sample in samples:
        if sample.name in AGENT_SHOWN:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def read_steps(files: Iterable[Path]) -> list[Step]:
    """The spans in files of OTLP's JSON lines, in order of time; a file that is not there has none."""
    found = []
    for path in files:
        for line in path.read_bytes().splitlines() if path.exists() else ():
            for group in json.loads(line)["resourceSpans"]:
                for scope in group["scopeSpans"]:
                    found += [_step(span) for span in scope["spans"]]
    return sorted(found, key=lambda step: step.start_s)


def _step(span: dict[str, Any]) -> Step:
    about = {item["key"]: item["value"].get("stringValue", "") for item in span["attributes"]}
    start_s, end_s = (int(span[f"{end}TimeUnixNano"]) / 1e9 for end in ("start", "end"))
    error = span.get("status", {}).get("message", "")
    return Step(about.get("outrider.robot", ""), span["traceId"], span["name"], start_s, end_s, error)


def ways(steps: Iterable[Step], since_s: float) -> dict[str, list[Step]]:
    """Robot -> the spans of its newest update that was ordered after a wall time, from release to commit."""
    newest: dict[str, str] = {}
    for step in steps:
        if step.name == "order" and step.start_s >= since_s:
            newest[step.robot] = step.trace
    return {
        robot: [step for step in steps if step.trace == trace and step.name in WAY]
        for robot, trace in sorted(newest.items())
    }


def served_bytes(log: Path, robot: str) -> int:
    """Of bundles, as a mirror says when it ends; 0 where it says nothing of the robot."""
    found = re.findall(rf"^served to {re.escape(robot)}: (\d+) bytes", log.read_text(), re.MULTILINE)
    return sum(map(int, found))


def metric_cells(row: PolicyRow) -> list[str]:
    """One policy as text cells."""
    ticks, trips, success, capped_s, entropy, stepped_in, latency_s = row.values
    return [
        "rule-based" if row.policy == "none" else row.policy,
        _cell(ticks, "{:,.0f}"), _cell(trips, "{:.0f}"), _cell(success, "{:.0%}"), _cell(capped_s, "{:.1f}"),
        _cell(entropy, "{:.2f}"), _cell(stepped_in, "{:.2%}"),
        _cell(None if latency_s is None else 1e3 * latency_s, "{:.2f}"),
    ]  # fmt: skip


METRIC_HEAD = [
    "policy", "ticks", "trips", "success", "s/trip (for the reward)", "entropy, nats", "interventions", "tick, ms",
]  # fmt: skip


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
