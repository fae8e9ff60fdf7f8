"""The end of the demonstration: a summary on the terminal, ``summary.json``, and ``report.html``."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from contracts.robot import AMR_SMALL
from edge_agent.recorder.metrics import METRICS_FILE
from edge_agent.recorder.reading import Log, find_folders, load_log
from edge_agent.recorder.summary import summarize
from navigation.warehouse import Warehouse, load_warehouse
from outrider.demo import figures, measure, watch
from outrider.demo.line import LINE_HEAD, Line, line_cells, read_lines
from outrider.demo.report import Report
from outrider.demo.run import TIMER_FILE, VERSIONS, Demo
from outrider.demo.service import BoardUpdate
from outrider.demo.settings import MIRROR, MIRRORED, NEWCOMER, ROBOTS
from sim.render.recorder import FloorRecorder
from sim.render.snapshot import take_snapshot
from sim.sensors.lidar import scan_state
from sim.world.state import WorldState
from trainer.evaluation.evaluate import Evaluation
from trainer.learning.run import RunFolder

FILM_ROWS = 120
FILM_FRAMES_PER_S = 15.0
REASONS_SHOWN = 4
MIRROR_AVOIDED = "mirror_avoided"
"""The robot's own word for it (``edge_agent/uplink/routes.py``)."""


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
    enrolment_refused: str
    """What came of the newcomer's token when it was used again."""
    mirrored_bytes: int
    """Of bundles that came to MIRRORED by the mirror."""
    mirror_avoided: int
    """How often it went to the hub instead."""
    metrics: list[watch.PolicyRow]
    agent_metrics: dict[str, dict[str, float]]
    """Robot -> figure -> value, as its own metrics file has them at the end."""
    ways: dict[str, list[watch.Step]]
    """Robot -> the spans of its update to the last version."""
    board_update: BoardUpdate | None


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
        enrolment_refused=demo.facts.enrolment_refused,
        mirrored_bytes=watch.served_bytes(demo.folder / "logs" / "mirror.log", MIRRORED),
        mirror_avoided=sum(event.name == MIRROR_AVOIDED for _, event in logs[MIRRORED].events),
        metrics=watch.policy_rows(watch.parse_metrics(demo.facts.hub_metrics)),
        agent_metrics={robot: _own_metrics(demo.folder / robot) for robot in ROBOTS},
        ways=watch.ways(watch.read_steps(demo.traces.glob("*.jsonl")), demo.facts.released_s[VERSIONS[-1]]),
        board_update=demo.facts.board_update,
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


def _own_metrics(state: Path) -> dict[str, float]:
    path = state / METRICS_FILE
    return watch.agent_figures(watch.parse_metrics(path.read_text())) if path.exists() else {}


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
    table = Table(title="The hub's /metrics, scraped once at the end", title_justify="left")
    for name in watch.METRIC_HEAD:
        table.add_column(name, justify="left" if name == watch.METRIC_HEAD[0] else "right")
    for told in outcome.metrics:
        table.add_row(*watch.metric_cells(told))
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
        *_board_words(outcome.board_update),
        f"Enrolment: {NEWCOMER} by a one-time token; used again: {outcome.enrolment_refused}",
        f"Mirror {MIRROR}: brought {MIRRORED} {outcome.mirrored_bytes:,} bytes of bundles; it went to the hub instead"
        f" {outcome.mirror_avoided} times",
        *_trace_words(outcome.ways),
        f"Whole demonstration: {outcome.total_s:.0f} s",
    ]


def _board_words(update: BoardUpdate | None) -> list[str]:
    if update is None:
        return []
    return [
        f"Firmware of {update.robot}'s board: {update.version_before} -> {update.version}, {update.size_bytes:,} bytes;"
        f" a foreign signature was refused, the line was cut, it went on at byte {update.resumed_at_bytes:,}"
    ]


def _trace_words(ways: dict[str, list[watch.Step]]) -> list[str]:
    took = {
        robot: max(step.end_s for step in steps) - min(step.start_s for step in steps)
        for robot, steps in ways.items()
    }
    words = ", ".join(f"{robot} {seconds:.1f} s" for robot, seconds in took.items())
    return [f"Traces of {VERSIONS[-1]}, from release to commit: {words}"] if took else []


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
    if outcome.ways:
        report.section(
            f"The way of {VERSIONS[-1]} as a trace",
            "Spans that hub and robots wrote by themselves, in files of their own, joined by their ids alone"
            " (OpenTelemetry). Probation is the new policy driving with the monitor watching it more closely.",
        )
        report.picture(figures.trace_timeline(outcome.ways), "spans of the update")
    report.section(
        "What monitoring sees",
        "The hub's /metrics, scraped once at the end, for Prometheus and Grafana (`outrider hub monitoring`). Robots do"
        " not record the reward: the mean time of a trip, at most 60 s, stands for it.",
    )
    report.table(watch.METRIC_HEAD, [watch.metric_cells(row) for row in outcome.metrics])
    report.table(*_agent_table(outcome.agent_metrics))
    report.section("Who is in the fleet, and by what way", "")
    report.table(["step", "what came of it"], _fleet_rows(outcome))
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
    if outcome.board_update is not None:
        update = outcome.board_update
        report.section(
            f"New firmware for {update.robot}'s board",
            "While the robot stands. The emulated board stores and checks the image as a real one does; it does not run"
            " it.",
        )
        report.table(
            ["step", "what came of it"],
            [
                ["an image with a foreign signature", update.refused],
                ["the line is cut in the midst", update.cut],
                ["flashed again", f"went on at byte {update.resumed_at_bytes:,} of {update.size_bytes:,}"],
                ["firmware", f"version {update.version_before} -> {update.version}, after a power cycle too"],
            ],
        )
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


def _agent_table(figures_by_robot: dict[str, dict[str, float]]) -> tuple[list[str], list[list[str]]]:
    """The robots' own metrics files, a figure a row."""
    rows = [
        [name, *(f"{found[name]:,.6g}" if name in found else "-" for found in figures_by_robot.values())]
        for name in watch.AGENT_SHOWN
    ]
    return ["a robot's own (STATE/metrics.prom)", *figures_by_robot], rows


def _fleet_rows(outcome: Outcome) -> list[list[str]]:
    return [
        [f"{NEWCOMER} enrols", "with a one-time token; it made its keys itself"],
        ["the token is used again", outcome.enrolment_refused],
        [
            f"{MIRRORED} behind mirror {MIRROR}",
            f"{outcome.mirrored_bytes:,} bytes of bundles; {outcome.mirror_avoided} times to the hub instead",
        ],
    ]


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
