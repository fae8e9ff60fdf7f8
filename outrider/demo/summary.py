"""The end of the demonstration: a summary on the terminal, ``summary.json``, and ``report.html``."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from contracts.robot import AMR_SMALL
from edge_agent.recorder.reading import Log, find_folders, load_log
from edge_agent.recorder.summary import summarize
from navigation.warehouse import Warehouse, load_warehouse
from outrider.demo import figures, measure
from outrider.demo.line import LINE_HEAD, Line, line_cells, read_lines
from outrider.demo.report import Report
from outrider.demo.run import TIMER_FILE, VERSIONS, Demo
from outrider.demo.settings import ROBOTS
from sim.render.recorder import FloorRecorder
from sim.render.snapshot import take_snapshot
from sim.sensors.lidar import scan_state
from sim.world.state import WorldState
from trainer.evaluation.evaluate import Evaluation
from trainer.learning.run import RunFolder

FILM_ROWS = 120
FILM_FRAMES_PER_S = 15.0
REASONS_SHOWN = 4


class Outcome(msgspec.Struct, frozen=True):
    """All figures of the summary."""

    total_s: float
    evaluation: list[dict[str, Any]]
    driven: list[measure.Driven]
    ticks: measure.Ticks
    swaps: list[measure.Swap]
    guarded: measure.Guarded
    memory_mb: dict[str, float]
    records: dict[str, dict[str, int]]
    records_agree: bool
    lines: list[Line]
    """Of the motor controllers; empty where ROS cmd_vel drove."""


def finish(demo: Demo, total_s: float) -> Outcome:
    """Read everything back from disk, print the summary, write ``summary.json`` and ``report.html``."""
    logs = {robot: load_log(find_folders(demo.folder / robot)[0]) for robot in ROBOTS}
    versions = {digest: version for version, digest in demo.facts.digests.items()}
    with np.load(demo.floor / "trajectory.npz") as stored:
        track = {name: stored[name] for name in stored.files}
    evaluation = msgspec.json.decode(
        (demo.folder / "evaluation" / "evaluation.json").read_bytes(), type=Evaluation
    )
    timer = measure.read_timer(demo.folder / TIMER_FILE)
    trips = measure.read_records(demo.floor / "deliveries.jsonl")
    records = _records(demo, logs)
    outcome = Outcome(
        total_s=total_s,
        evaluation=_evaluation_rows(evaluation),
        driven=measure.split_by_driver(trips, logs, versions, track["time_s"], track["wall_s"]),
        ticks=measure.tick_latency(logs),
        swaps=measure.find_swaps(logs, versions, timer),
        guarded=measure.guarded(logs),
        memory_mb={robot: sum(parts.values()) for robot, parts in demo.facts.memory_mb.items()},
        records=records,
        records_agree=all(
            row["recorded"] == row["stored"] == row["last_seq"] and row["gaps"] == 0
            for row in records.values()
        ),
        lines=_lines(demo),
    )
    (demo.folder / "summary.json").write_bytes(msgspec.json.format(msgspec.json.encode(outcome)))
    warehouse = load_warehouse(demo.floor / "floor.yaml")
    write_report(demo, outcome, logs, track, warehouse)
    print_summary(demo.console, demo.folder, outcome)
    return outcome


def _lines(demo: Demo) -> list[Line]:
    if not demo.serial:
        return []
    floor = json.loads((demo.floor / "summary.json").read_bytes())
    return read_lines(demo.folder, floor, demo.ports, demo.facts.armed_again, demo.facts.landed_s)


def _evaluation_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    rows = []
    for row in evaluation.results:
        gain = evaluation.gain_of(row.name)
        rows.append(
            {
                "name": row.name,
                "trips": row.trips,
                "success": row.success,
                "contacts": row.contacts,
                "timeouts": row.timeouts,
                "trip_s": row.trip_s,
                "delivery_s": row.delivery_s,
                "gain": gain.value,
                "gain_interval": (gain.low, gain.high),
            }
        )
    return rows


def _records(demo: Demo, logs: dict[str, Log]) -> dict[str, dict[str, int]]:
    rows = {}
    for robot, log in logs.items():
        facts = summarize(log)
        stored, durable, _ = demo.facts.stored.get(robot, (0, 0, 0))
        rows[robot] = {
            "decisions": len(log.decisions),
            "recorded": facts.records,
            "last_seq": facts.last_seq,
            "acknowledged": facts.acked_seq or 0,
            "stored": stored,
            "durable_seq": durable,
            "gaps": facts.gaps,
        }
    return rows


def print_summary(console: Console, folder: Path, outcome: Outcome) -> None:
    """The figures, as tables for the terminal."""
    table = Table(
        title="Evaluation: PyBullet, unseen floors, same orders, people and monitor", title_justify="left"
    )
    for name in ("controller", "trips", "success", "contacts", "s/trip", "s/delivery", "time saved (95 %)"):
        table.add_column(name, justify="left" if name == "controller" else "right")
    for row in outcome.evaluation:
        low, high = row["gain_interval"]
        gain = "reference" if low == high else f"{row['gain']:+.0%} ({low:+.0%} to {high:+.0%})"
        table.add_row(
            *(row["name"], str(row["trips"]), f"{row['success']:.1%}", str(row["contacts"])),
            *(f"{row['trip_s']:.1f}", _seconds(row["delivery_s"]), gain),
        )
    console.print(table)
    table = Table(title="Driven through ROS 2 (simulation time)", title_justify="left")
    for name in ("driver", "trips", "s/trip", "m/s", "deliveries", "s/delivery", "contacts moving/standing"):
        table.add_column(name, justify="left" if name == "driver" else "right")
    for driven in outcome.driven:
        table.add_row(*driven_cells(driven))
    console.print(table)
    for line in plain_lines(outcome):
        console.print(line, highlight=False, soft_wrap=True)
    report, own_log = folder / "report.html", f"outrider logs summary {folder / ROBOTS[0]}"
    console.print(f"\nReport: [bold]{report}[/bold]", highlight=False, soft_wrap=True)
    console.print(f"A robot's own log: {own_log}", highlight=False, soft_wrap=True)


def driven_cells(row: measure.Driven) -> list[str]:
    """One controller's drive as text cells."""
    return [
        row.name,
        str(row.trips) + (f" (+{row.trips_given_up} given up)" if row.trips_given_up else ""),
        _seconds(row.trip_s),
        "-" if row.made_good_mps is None else f"{row.made_good_mps:.2f}",
        str(row.deliveries),
        _seconds(row.delivery_s),
        f"{row.contacts_moving}/{row.contacts_standing}",
    ]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def plain_lines(outcome: Outcome) -> list[str]:
    """The figures that are no table."""
    ticks = outcome.ticks
    missed = sum(swap.missed_ticks for swap in outcome.swaps)
    bare = sum(swap.machine_missed for swap in outcome.swaps)
    gap = max((swap.gap_ms for swap in outcome.swaps), default=0.0)
    recorded = sum(row["recorded"] for row in outcome.records.values())
    stored = sum(row["stored"] for row in outcome.records.values())
    memory = max(outcome.memory_mb.values(), default=0.0)
    guarded = outcome.guarded
    reasons = ", ".join(
        f"{name} {count:,}" for name, count in list(guarded.by_reason.items())[:REASONS_SHOWN]
    )
    return [
        f"Tick (observation, inference, monitor, command), {ticks.count:,} ticks: p50 {ticks.p50_us / 1000:.2f} ms,"
        f" p99 {ticks.p99_us / 1000:.2f} ms, p99.9 {ticks.p99_9_us / 1000:.2f} ms; {ticks.missed} missed in all",
        f"Swaps: {len(outcome.swaps)} while driving, {missed} ticks missed around them (a bare timer beside them:"
        f" {bare}), longest gap {gap:.0f} ms",
        f"New policies: {guarded.probation:,} ticks on probation, {guarded.returned} sent back",
        f"Safety monitor: stepped in on {sum(guarded.by_reason.values()):,} of {guarded.armed:,} armed ticks"
        f" ({reasons})",
        f"Records: {recorded:,} on the robots, {stored:,} at the hub:"
        f" {'they agree' if outcome.records_agree else 'THEY DIFFER'}",
        f"Agent's memory: {memory:.0f} MB a robot (proportional set size of its three processes)",
        _serial_words(outcome.lines),
        f"Whole demonstration: {outcome.total_s:.0f} s",
    ]


def _serial_words(lines: list[Line]) -> str:
    if not lines:
        return "Wheels: by cmd_vel over ROS, no motor controllers"
    frames = sum(line.to_board + line.from_board for line in lines)
    lost = [line.lost for line in lines if line.lost is not None]
    worst_ms = max(line.round_trip_max_ms or 0.0 for line in lines)
    stops = sum(sum(line.stops.values()) for line in lines)
    unknown = f" (unknown on {len(lines) - len(lost)} lines)" if len(lost) < len(lines) else ""
    return (
        f"Wheels: by motor controllers over the serial protocol: {frames:,} frames, {sum(lost)} lost{unknown},"
        f" worst round trip {worst_ms:.1f} ms; {stops} stops by themselves,"
        f" armed again {sum(line.armed_again for line in lines)} times"
    )


def write_report(
    demo: Demo, outcome: Outcome, logs: dict[str, Log], track: dict[str, Any], warehouse: Warehouse
) -> None:
    """``report.html`` beside the data it was made from."""
    best = outcome.evaluation[-1]
    missed = sum(swap.missed_ticks for swap in outcome.swaps)
    moving = sum(row.contacts_moving for row in outcome.driven)
    report = Report(
        "Outrider: first flight",
        "A policy was trained, exported, signed and pushed over ZeroMQ to three ROS 2 robots in a PyBullet warehouse,"
        " and swapped in while they drove; then its successor was. Everything below was measured in that run.",
    )
    report.cards(
        [
            (f"{best['gain']:+.0%}", f"time saved by {best['name']} (evaluation)", best["gain"] > 0),
            (f"{best['success']:.1%}", "trips that arrive, unseen floors", best["success"] >= 0.9),
            (f"{outcome.ticks.p50_us / 1000:.2f} ms", "tick p50", outcome.ticks.p50_us < 1000),
            (str(missed), "ticks missed around swaps", missed == 0),
            (str(moving), "contacts while moving (live drive)", moving == 0),
            ("yes" if outcome.records_agree else "no", "records sent = stored", outcome.records_agree),
        ]
    )
    report.section("The drive", "Each robot's way over the floor; rings mark where a policy was swapped in.")
    report.film(_film(demo, track, warehouse))
    report.picture(figures.floor_map(warehouse, track["pose"], outcome.swaps, track["wall_s"]), "floor map")
    report.table(
        ["driver", "trips", "s/trip", "m/s", "deliveries", "s/delivery", "contacts moving/standing"],
        [driven_cells(row) for row in outcome.driven],
    )
    report.section(
        f"Pushing {VERSIONS[1]} while they drive",
        "Black: measured speed; blue: what the policy was allowed; bands: how far the push was.",
    )
    pushed = [swap for swap in outcome.swaps if swap.version == VERSIONS[1]]
    report.picture(figures.push_timeline(demo.facts.push[VERSIONS[1]], pushed, logs), "timeline of the push")
    report.table(
        ["robot", "version", "first tick", "ticks missed around it", "by a bare timer", "longest gap, ms"],
        [
            [s.robot, s.version, str(s.tick), str(s.missed_ticks), str(s.machine_missed), f"{s.gap_ms:.1f}"]
            for s in outcome.swaps
        ],
    )
    report.section("Training", "On the compiled twin, behind the same safety monitor as on the robot.")
    curve = RunFolder.open(demo.run_folder).curve()
    report.picture(figures.training_curve(curve, demo.settings.steps_v1), "training curve")
    report.section(
        "Evaluation",
        "PyBullet, floors nobody trained on, against the robots' rule-based controller and a tuned ORCA; failed trips"
        " count as 60 s, time saved is against the better of the two.",
    )
    report.picture((demo.folder / "evaluation" / "evaluation.png").read_bytes(), "evaluation")
    report.table(
        ["controller", "trips", "success", "contacts", "timeouts", "s/trip", "s/delivery", "time saved"],
        [
            [
                *(
                    row["name"],
                    str(row["trips"]),
                    f"{row['success']:.1%}",
                    str(row["contacts"]),
                    str(row["timeouts"]),
                ),
                *(f"{row['trip_s']:.1f}", _seconds(row["delivery_s"]), f"{row['gain']:+.1%}"),
            ]
            for row in outcome.evaluation
        ],
    )
    heats = sorted((demo.folder / "evaluation").glob(f"heat-*-{VERSIONS[1]}.png"))
    if heats:
        report.section(
            f"Where {VERSIONS[1]} waits, and where the monitor steps in",
            "On the first of those floors, per hour.",
        )
        report.picture(heats[0].read_bytes(), "heat map")
    report.section("The tick", "; ".join(plain_lines(outcome)[:1]))
    report.picture(figures.tick_histogram(logs), "tick latency")
    report.section("Records", "On each robot's disk, and at the hub.")
    report.table(
        ["robot", "decisions", "recorded", "acknowledged up to", "stored at the hub", "gaps"],
        [
            [robot, *(str(row[name]) for name in ("decisions", "recorded", "acknowledged", "stored", "gaps"))]
            for robot, row in outcome.records.items()
        ],
    )
    if outcome.lines:
        report.section(
            "Serial lines",
            "Agent to motor controller: the reference firmware, with PyBullet's motors and sensors.",
        )
        report.table(LINE_HEAD, [line_cells(line) for line in outcome.lines])
    report.section("Memory", "Proportional set size, MB, at the end of the drive.")
    report.table(
        ["robot", "supervisor", "control", "comms", "all"],
        [
            [robot, *(f"{parts.get(name, 0.0):.0f}" for name in ("supervisor", "control", "comms")),
             f"{sum(parts.values()):.0f}"]
            for robot, parts in demo.facts.memory_mb.items()
        ],
    )  # fmt: skip
    report.section("Where the time went", f"{outcome.total_s:.0f} s in all.")
    report.table(["stage", "s"], [[title, f"{took:.1f}"] for title, took in demo.facts.stage_s.items()])
    (demo.folder / "report.html").write_text(report.page(), encoding="utf-8")
    (demo.folder / "facts.json").write_text(
        json.dumps(msgspec.to_builtins(demo.facts), indent=2), encoding="utf-8"
    )


def _film(demo: Demo, track: dict[str, Any], warehouse: Warehouse) -> bytes:
    """Some seconds of the floor around the last push, five simulated frames a second, faster than life."""
    pushed = min(points[0][1] for points in demo.facts.push[VERSIONS[1]].values() if points)
    middle = int(np.searchsorted(track["wall_s"], pushed))
    first = max(0, min(middle - FILM_ROWS // 3, len(track["time_s"]) - FILM_ROWS))
    path = demo.folder / "floor.mp4"
    robots, people = track["pose"].shape[1], track["people"].shape[1]
    state = WorldState([warehouse], AMR_SMALL, robots, people)
    with FloorRecorder(path, warehouse, FILM_FRAMES_PER_S, width_px=880) as film:
        for row in range(first, min(first + FILM_ROWS, len(track["time_s"]))):
            state.pose[0], state.person_xy[0] = track["pose"][row], track["people"][row]
            caption = f"{VERSIONS[1]} pushed" if row >= middle else VERSIONS[0]
            rays = scan_state(state)[0]
            film.take(take_snapshot(state, 0, float(track["time_s"][row]), ranges_m=rays, caption=caption))
    return path.read_bytes()
