"""The demonstration's ``report.html``, section by section."""

import numpy as np

from contracts.robot import AMR_SMALL
from outrider.demo import figures, watch
from outrider.demo.line import LINE_HEAD, line_cells
from outrider.demo.outcome import Drive, Outcome
from outrider.demo.report import Report
from outrider.demo.run import VERSIONS, Demo
from outrider.demo.service import BoardUpdate
from outrider.demo.settings import MIRROR, MIRRORED, NEWCOMER
from outrider.demo.words import DRIVEN_HEAD, EVALUATED_HEAD, driven_cells, evaluated_cells, tick_words
from sim.render.recorder import FloorRecorder
from sim.render.snapshot import take_snapshot
from sim.sensors.lidar import scan_state
from sim.world.state import WorldState
from trainer.learning.run import RunFolder

FILM_ROWS = 120
FILM_FRAMES_PER_S = 15.0
FILM_WIDTH_PX = 880
STEPS_HEAD = ["step", "what came of it"]


def report_page(demo: Demo, outcome: Outcome, drive: Drive) -> str:
    """The whole page as HTML; the film is left beside it, too."""
    report = Report(
        "Outrider: first flight",
        "A policy was trained, exported, signed and pushed over ZeroMQ to three ROS 2 robots in a PyBullet warehouse,"
        " and swapped in while they drove; then its successor was. Everything below was measured in that run.",
    )
    _cards(report, outcome)
    _drive(report, demo, outcome, drive)
    _push(report, demo, outcome, drive)
    _trace(report, outcome)
    _monitoring(report, outcome)
    _members(report, outcome)
    _training(report, demo)
    _evaluation(report, demo, outcome)
    _tick(report, outcome, drive)
    _records(report, outcome)
    _serial_lines(report, outcome)
    if outcome.board_update is not None:
        _firmware(report, outcome.board_update)
    _memory(report, demo)
    report.section("Where the time went", f"{outcome.total_s:.0f} s in all.")
    report.table(["stage", "s"], [[title, f"{took:.1f}"] for title, took in demo.facts.stage_s.items()])
    return report.page()


def _cards(report: Report, outcome: Outcome) -> None:
    newest, missed = outcome.evaluation[-1], outcome.missed_at_swaps
    moving = sum(row.contacts_moving for row in outcome.driven)
    report.cards(
        [
            (f"{newest.gain:+.0%}", f"time saved by {newest.name} (evaluation)", newest.gain > 0),
            (f"{newest.success:.1%}", "trips that arrive, unseen floors", newest.success >= 0.9),
            (f"{outcome.ticks.p50_us / 1000:.2f} ms", "tick p50", outcome.ticks.p50_us < 1000),
            (str(missed), "ticks missed around swaps", missed == 0),
            (str(moving), "contacts while moving (live drive)", moving == 0),
            ("yes" if outcome.records_agree else "no", "records sent = stored", outcome.records_agree),
        ]
    )


def _drive(report: Report, demo: Demo, outcome: Outcome, drive: Drive) -> None:
    report.section("The drive", "Each robot's way over the floor; rings mark where a policy was swapped in.")
    report.film(_film(demo, drive))
    report.picture(
        figures.floor_map(drive.warehouse, drive.track["pose"], outcome.swaps, drive.track["wall_s"]),
        "floor map",
    )
    report.table(DRIVEN_HEAD, [driven_cells(row) for row in outcome.driven])


def _push(report: Report, demo: Demo, outcome: Outcome, drive: Drive) -> None:
    newest = VERSIONS[-1]
    report.section(
        f"Pushing {newest} while they drive",
        "Black: measured speed; blue: what the policy was allowed; bands: how far the push was.",
    )
    pushed = [swap for swap in outcome.swaps if swap.version == newest]
    report.picture(figures.push_timeline(demo.facts.push[newest], pushed, drive.logs), "timeline of the push")
    report.table(
        ["robot", "version", "first tick", "ticks missed around it", "by a bare timer", "longest gap, ms"],
        [
            [s.robot, s.version, str(s.tick), str(s.missed_ticks), str(s.machine_missed), f"{s.gap_ms:.1f}"]
            for s in outcome.swaps
        ],
    )


def _trace(report: Report, outcome: Outcome) -> None:
    if not outcome.ways:
        return
    report.section(
        f"The way of {VERSIONS[-1]} as a trace",
        "Spans that hub and robots wrote by themselves, in files of their own, joined by their ids alone"
        " (OpenTelemetry). Probation is the new policy driving with the monitor watching it more closely.",
    )
    report.picture(figures.trace_timeline(outcome.ways), "spans of the update")


def _monitoring(report: Report, outcome: Outcome) -> None:
    report.section(
        "What monitoring sees",
        "The hub's /metrics, scraped once at the end, for Prometheus and Grafana (`outrider hub monitoring`). Robots do"
        " not record the reward: the mean time of a trip, at most 60 s, stands for it.",
    )
    report.table(watch.METRIC_HEAD, [watch.metric_cells(row) for row in outcome.metrics])
    robots = outcome.agent_metrics
    report.table(
        ["a robot's own (STATE/metrics.prom)", *robots],
        [
            [name, *(f"{found[name]:,.6g}" if name in found else "-" for found in robots.values())]
            for name in watch.AGENT_SHOWN
        ],
    )


def _members(report: Report, outcome: Outcome) -> None:
    report.section("Who is in the fleet, and by what way")
    report.table(
        STEPS_HEAD,
        [
            [f"{NEWCOMER} enrols", "with a one-time token; it made its keys itself"],
            ["the token is used again", outcome.enrolment_refused],
            [
                f"{MIRRORED} behind mirror {MIRROR}",
                f"{outcome.mirrored_bytes:,} bytes of bundles; {outcome.mirror_avoided} times to the hub instead",
            ],
        ],
    )


def _training(report: Report, demo: Demo) -> None:
    report.section(
        "Training",
        "Taught by a tuned ORCA, then by trial; on the compiled twin, behind the same safety monitor as on the robot.",
    )
    curve = RunFolder.open(demo.run_folder).curve()
    report.picture(figures.training_curve(curve, demo.settings.steps_v1), "training curve")


def _evaluation(report: Report, demo: Demo, outcome: Outcome) -> None:
    folder, newest = demo.folder / "evaluation", VERSIONS[-1]
    report.section(
        "Evaluation",
        "PyBullet, floors nobody trained on, against the robots' rule-based controller and a tuned ORCA; failed trips"
        " count as 60 s, time saved is against the better of the two.",
    )
    report.picture((folder / "evaluation.png").read_bytes(), "evaluation")
    report.table(EVALUATED_HEAD, [evaluated_cells(row) for row in outcome.evaluation])
    heats = sorted(folder.glob(f"heat-*-{newest}.png"))
    if heats:
        report.section(
            f"Where {newest} waits, and where the monitor steps in", "On the first of those floors, per hour."
        )
        report.picture(heats[0].read_bytes(), "heat map")


def _tick(report: Report, outcome: Outcome, drive: Drive) -> None:
    report.section("The tick", tick_words(outcome.ticks))
    report.picture(figures.tick_histogram(drive.logs), "tick latency")


def _records(report: Report, outcome: Outcome) -> None:
    report.section("Records", "On each robot's disk, and at the hub.")
    report.table(
        ["robot", "decisions", "recorded", "acknowledged up to", "stored at the hub", "gaps"],
        [
            [robot, *map(str, (row.decisions, row.recorded, row.acknowledged, row.stored, row.gaps))]
            for robot, row in outcome.records.items()
        ],
    )


def _serial_lines(report: Report, outcome: Outcome) -> None:
    if not outcome.lines:
        return
    report.section(
        "Serial lines",
        "Agent to motor controller: the reference firmware, with PyBullet's motors and sensors.",
    )
    report.table(LINE_HEAD, [line_cells(line) for line in outcome.lines])


def _firmware(report: Report, update: BoardUpdate) -> None:
    report.section(
        f"New firmware for {update.robot}'s board",
        "While the robot stands. The emulated board stores and checks the image as a real one does; it does not run"
        " it.",
    )
    report.table(
        STEPS_HEAD,
        [
            ["an image with a foreign signature", update.refused],
            ["the line is cut in the midst", update.cut],
            ["flashed again", f"went on at byte {update.resumed_at_bytes:,} of {update.size_bytes:,}"],
            ["firmware", f"version {update.version_before} -> {update.version}, after a power cycle too"],
        ],
    )


def _memory(report: Report, demo: Demo) -> None:
    roles = ("supervisor", "control", "comms")
    report.section("Memory", "Proportional set size, MB, at the end of the drive.")
    report.table(
        ["robot", *roles, "all"],
        [
            [robot, *(f"{parts.get(role, 0.0):.0f}" for role in roles), f"{sum(parts.values()):.0f}"]
            for robot, parts in demo.facts.memory_mb.items()
        ],
    )


def _film(demo: Demo, drive: Drive) -> bytes:
    """Some seconds of the floor around the last push, five simulated frames a second, faster than life."""
    track, newest = drive.track, VERSIONS[-1]
    pushed = min(points[0][1] for points in demo.facts.push[newest].values() if points)
    middle = int(np.searchsorted(track["wall_s"], pushed))
    first = max(0, min(middle - FILM_ROWS // 3, len(track["time_s"]) - FILM_ROWS))
    path = demo.folder / "floor.mp4"
    robots, people = track["pose"].shape[1], track["people"].shape[1]
    state = WorldState([drive.warehouse], AMR_SMALL, robots, people)
    with FloorRecorder(path, drive.warehouse, FILM_FRAMES_PER_S, FILM_WIDTH_PX) as film:
        for row in range(first, min(first + FILM_ROWS, len(track["time_s"]))):
            state.pose[0], state.person_xy[0] = track["pose"][row], track["people"][row]
            caption = f"{newest} pushed" if row >= middle else VERSIONS[0]
            rays = scan_state(state)[0]
            film.take(take_snapshot(state, 0, float(track["time_s"][row]), ranges_m=rays, caption=caption))
    return path.read_bytes()
