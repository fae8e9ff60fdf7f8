"""Runs every benchmark here, one after the other, and holds the results against the targets.

``python -m benchmarks.run_all [--quick]``. Writes ``benchmarks/results/latest.jsonl``. A missed target is shown,
not an error: machines differ. A benchmark that fails is one.
"""

import json
import pkgutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks._report import quick_asked

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "latest.jsonl"
SECONDS_MAX = 1200.0

TARGETS: dict[str, float] = {
    "twin.steps_per_s": 60_000.0,
    "pybullet_planar.steps_per_s": 18_000.0,
    "pybullet_wheeled.steps_per_s": 4_000.0,
    "train.vs_sb3_defaults": 10.0,
    "train.seconds_to_95": 300.0,
    "delivery.capped_time_gain": 0.10,
    "delivery.capped_time_gain_low95": 0.05,
    "delivery.success": 0.99,
    "delivery.contact_excess_high95": 0.005,
    "ray.vs_per_step_rpc": 10.0,
    "ray.recovery_s": 20.0,
    "tick.p50_us": 1_000.0,
    "tick.swap_missed": 0.0,
    "tick.swap_without_decision": 0.0,
    "swap.ticks_without_decision": 0.0,
    "swap.late_tick_excess": 0.02,
    "swap.command_step_excess": 0.0,
    "agent.cpu_core_fraction": 0.15,
    "agent.rss_mb": 150.0,
    "monitor.360.p50_us": 100.0,
    "monitor.1080.p50_us": 150.0,
    "adversary.static_contacts": 0.0,
    "adversary.moving_contacts": 0.0,
    "adversary.ticks": 1_000_000.0,
    "adversary.benign_throughput": 0.95,
    "record.p99_us": 50.0,
    "record.mb_per_8h": 180.0,
    "log.open_s": 0.5,
    "log.next_incident_ms": 50.0,
    "query.fleet_chart_ms": 100.0,
    "query.robot_minute_ms": 150.0,
    "intake.records_per_s": 100_000.0,
    "intake.vs_bare_pushpull": 1.0,
    "intake.reconnect_4000_s": 15.0,
    "intake.hub_rss_mb": 400.0,
    "intake.reconnect_rss_mb": 400.0,
    "serial.command_p99_us": 200.0,
    "serial.call_p99_us": 200.0,
    "serial.stop_ms_max": 100.0,
    "serial.sustained_hz": 199.0,
    "serial.fuzz_bytes": 100_000_000.0,
    "serial.wrong_commands": 0.0,
    "update.one_stage_s": 30.0,
    "update.four_stages_s": 60.0,
    "update.vs_bare_curve": 2.5,
    "update.hub_peak_mb": 400.0,
    "update.poll_ms": 10.0,
    "update.poll_bytes": 1024.0,
    "update.overhead_fraction": 0.005,
    "gate.false_stop_rate": 0.05,
    "gate.bad_policy_exposed_fraction": 0.02,
    "gate.good_promoted_fraction": 1.0,
    "gate.revert_s": 30.0,
}
"""At least this where higher is better, at most this where lower is."""


def benchmark_names() -> list[str]:
    """The modules of this folder that measure something."""
    names = (module.name for module in pkgutil.iter_modules([str(HERE)]))
    return sorted(name for name in names if not name.startswith("_") and name != "run_all")


def run(name: str, quick: bool) -> tuple[list[dict[str, Any]], bool]:
    """Results of one benchmark in a process of its own, and whether it ended well."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *(["--quick"] if quick else [])]
    started = time.monotonic()
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, cwd=HERE.parent, timeout=SECONDS_MAX, check=False
        )
    except subprocess.TimeoutExpired:
        print(f"{name}: did not end within {SECONDS_MAX:.0f} s", file=sys.stderr)
        return [], False
    results = []
    for line in done.stdout.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and "name" in value and "value" in value:
            results.append(value)
    print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    return results, done.returncode == 0 and bool(results)


def met(result: dict[str, Any]) -> bool | None:
    """Whether the target is met; None where there is none."""
    target = TARGETS.get(result["name"])
    if target is None:
        return None
    value = float(result["value"])
    return value >= target if result["better"] == "higher" else value <= target


def shown_number(value: float) -> str:
    """Large numbers to tenths, shares to a ten thousandth."""
    return f"{value:,.1f}" if abs(value) >= 10.0 else f"{value:.4f}"


def table(results: list[dict[str, Any]]) -> str:
    """All results against their targets, as text."""
    head = f"{'benchmark':<32}{'value':>14}  {'unit':<9}{'target':>11}  {'':<8}{'reference':>13}{'ratio':>9}"
    lines = [head, "-" * len(head)]
    for result in results:
        target, good = TARGETS.get(result["name"]), met(result)
        sign = ">=" if result["better"] == "higher" else "<="
        shown = "" if target is None else f"{sign} {shown_number(target)}"
        verdict = {None: "", True: "met", False: "MISSED"}[good]
        reference = "" if result.get("reference") is None else shown_number(result["reference"])
        ratio = "" if result.get("ratio") is None else f"{result['ratio']:.2f}"
        lines.append(
            f"{result['name']:<32}{shown_number(result['value']):>14}  {result['unit']:<9}{shown:>11}  {verdict:<8}"
            f"{reference:>13}{ratio:>9}"
        )
    return "\n".join(lines)


def write_results(results: list[dict[str, Any]], path: Path = RESULTS) -> None:
    """Write all results, whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.write_text("".join(json.dumps(result) + "\n" for result in results))
    fresh.replace(path)


def main() -> int:
    """Run, show and write; 0 unless a benchmark failed."""
    quick = quick_asked(__doc__ or "")
    results: list[dict[str, Any]] = []
    failed: list[str] = []
    for name in benchmark_names():
        came, good = run(name, quick)
        results += [{**result, "benchmark": name, "quick": quick} for result in came]
        if not good:
            failed.append(name)
    write_results(results)
    print(table(results))
    missed = [result["name"] for result in results if met(result) is False]
    if missed:
        print(f"\nMISSED: {', '.join(missed)}")
    if failed:
        print(f"\nFAILED: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
