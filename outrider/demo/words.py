"""The outcome of a demonstration in words and table cells, alike on the terminal and in the report. Pure."""

from outrider.demo import measure, watch
from outrider.demo.line import Line
from outrider.demo.outcome import Evaluated, Outcome
from outrider.demo.run import VERSIONS
from outrider.demo.service import BoardUpdate
from outrider.demo.settings import MIRROR, MIRRORED, NEWCOMER

REASONS_SHOWN = 4
EVALUATED_HEAD = [
    "controller", "trips", "success", "contacts", "timeouts", "s/trip", "s/delivery", "time saved (95 %)",
]  # fmt: skip
DRIVEN_HEAD = ["driver", "trips", "s/trip", "m/s", "deliveries", "s/delivery", "contacts moving/standing"]


def evaluated_cells(row: Evaluated) -> list[str]:
    """One controller's evaluation as text cells."""
    low, high = row.gain_interval
    return [
        row.name,
        str(row.trips),
        f"{row.success:.1%}",
        str(row.contacts),
        str(row.timeouts),
        f"{row.trip_s:.1f}",
        _seconds(row.delivery_s),
        "reference" if row.is_reference else f"{row.gain:+.1%} ({low:+.1%} to {high:+.1%})",
    ]


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
    bare = sum(swap.machine_missed for swap in outcome.swaps)
    gap_ms = max((swap.gap_ms for swap in outcome.swaps), default=0.0)
    recorded = sum(row.recorded for row in outcome.records.values())
    stored = sum(row.stored for row in outcome.records.values())
    memory_mb = max(outcome.memory_mb.values(), default=0.0)
    guarded = outcome.guarded
    return [
        tick_words(outcome.ticks),
        f"Swaps: {len(outcome.swaps)} while driving, {outcome.missed_at_swaps} ticks missed around them (a bare timer"
        f" beside them: {bare}), longest gap {gap_ms:.0f} ms",
        f"New policies: {guarded.probation:,} ticks on probation, {guarded.returned} sent back",
        _guarded_words(guarded),
        f"Records: {recorded:,} on the robots, {stored:,} at the hub:"
        f" {'they agree' if outcome.records_agree else 'THEY DIFFER'}",
        f"Agent's memory: {memory_mb:.0f} MB a robot (proportional set size of its three processes)",
        _serial_words(outcome.lines),
        *_board_words(outcome.board_update),
        f"Enrolment: {NEWCOMER} by a one-time token; used again: {outcome.enrolment_refused}",
        f"Mirror {MIRROR}: brought {MIRRORED} {outcome.mirrored_bytes:,} bytes of bundles; it went to the hub instead"
        f" {outcome.mirror_avoided} times",
        *_trace_words(outcome.ways),
        f"Whole demonstration: {outcome.total_s:.0f} s",
    ]


def tick_words(ticks: measure.Ticks) -> str:
    """The latency of all robots' ticks."""
    return (
        f"Tick (observation, inference, monitor, command), {ticks.count:,} ticks: p50 {ticks.p50_us / 1000:.2f} ms,"
        f" p99 {ticks.p99_us / 1000:.2f} ms, p99.9 {ticks.p99_9_us / 1000:.2f} ms; {ticks.missed} missed in all"
    )


def _guarded_words(guarded: measure.Guarded) -> str:
    reasons = list(guarded.by_reason.items())[:REASONS_SHOWN]
    return (
        f"Safety monitor: stepped in on {sum(guarded.by_reason.values()):,} of {guarded.armed:,} armed ticks"
        f" ({', '.join(f'{name} {count:,}' for name, count in reasons)})"
    )


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
