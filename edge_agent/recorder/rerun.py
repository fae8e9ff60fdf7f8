"""The safety monitor again over what was recorded: where raw scans are, around incidents, does it rule the same?

A monitor remembers: what moves, how fast its command grew, how long something has lasted. What it knew before the first
raw scan is not in a log; the first ``SETTLE_S`` of every stretch are therefore fed to it and not compared. What cannot
be run again is counted in ``Rerun.left_out`` and told in words.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from contracts.decision import FLAG_ARMED, FLAG_BLENDED, Reason, Source, Verdict, in_words
from contracts.robot import AMR_SMALL, ROBOT_MODELS
from contracts.scan import RawScan
from edge_agent.config import ControlConfig, load_settings
from edge_agent.errors import ConfigError
from edge_agent.guard.settings import load_safety
from edge_agent.guard.zones import zones_of
from edge_agent.recorder.reading import Log, LogIndex
from navigation.warehouse import load_warehouse
from safety.monitor import NS, Inputs, Ruling, SafetyMonitor
from safety.settings import SafetySettings
from safety.zones import Zone

SETTLE_S = 3.0
GAP_MAX_S = 0.5
"""Decisions farther apart do not belong to one stretch."""
TOLERANCE = 1e-3
"""m/s or rad/s: odometry and pose are recorded in float32."""
SHOWN_MAX = 10
CONTROL_FILE = "control.json"
OTHER_COMMANDERS = (Reason.OTHER_COMMANDER, Reason.STOP_REQUESTED, Reason.NOT_ARMED)
"""Said by a person or by ROS: taken from the record."""
CANNOT = (
    "arming, stops and resets by people are taken from the record; stamps of the odometry, tilt and how usual an "
    "observation was are not recorded: what only they decide is not run again"
)


class OtherRuling(msgspec.Struct, frozen=True):
    """A decision over which the monitor rules otherwise today."""

    seq: int
    tick: int
    recorded: str
    again: str


class Rerun(msgspec.Struct, frozen=True):
    """What came of it."""

    monitor: str
    """Which settings and zones it ran with."""
    compared: int
    same: int
    other_reason: int
    """Of the same: the command is, the reason given for it is not."""
    left_out: dict[str, int]
    """Decisions that were not compared, by why."""
    differs: tuple[OtherRuling, ...]
    """The first SHOWN_MAX of them."""
    cannot: str = CANNOT


def monitor_of(folder: Path, layout: Path | None = None) -> tuple[SafetyMonitor, float, str]:
    """The monitor that a log was recorded with, the robot's real-time factor, and in words what it is made of.

    ``control.json`` beside the log names floor and safety settings; what is not there is left out, and said so.

    Raises:
        ConfigError: a control.json that cannot be read, or a model that is not known.
        SafetyFileError, NavigationError: safety settings or floor cannot be used.
    """
    path = folder.parent / CONTROL_FILE
    config = load_settings(path, ControlConfig) if path.is_file() else None
    name = config.robot_model if config else AMR_SMALL.name
    if name not in ROBOT_MODELS:
        raise ConfigError(f"no robot model {name!r}; known: {', '.join(ROBOT_MODELS)}")
    model, settings, said = ROBOT_MODELS[name], SafetySettings(name), [f"model {name}"]
    zones: tuple[Zone, ...] = ()
    floor = layout or (Path(config.layout_path) if config and Path(config.layout_path).is_file() else None)
    warehouse = load_warehouse(floor) if floor else None
    if warehouse:
        zones = zones_of(warehouse)
    said.append(f"{len(zones)} zones of {floor}" if floor else "no zones: the floor is not here (--layout)")
    if config and config.safety_path and warehouse:
        settings, _ = load_safety(
            Path(config.safety_path), Path(config.keys_dir), model.name, warehouse.hash()
        )
        zones = (*zones, *settings.zones)
        said.append(f"settings of {config.safety_path}")
    else:
        said.append("built-in settings")
    monitor = SafetyMonitor(model, settings.monitor, settings.watch, zones, settings.fields)
    return monitor, config.real_time_factor if config else 1.0, ", ".join(said)


def rerun(log: Log, index: LogIndex, layout: Path | None = None) -> Rerun:
    """Rule again over every decision of ``log`` whose raw scan ``index`` holds; raises as ``monitor_of`` does."""
    _, factor, about = monitor_of(log.folder, layout)
    low_ns, high_ns = log.span_ns
    scans = [scan for _, scan in index.scans(low_ns - NS, high_ns + NS)]
    found = _Comparison()
    for rows in _stretches(log, scans, factor, found.left_out):
        found.run(rows, monitor_of(log.folder, layout)[0], factor)
    return Rerun(
        about, found.compared, found.same, found.other_reason, dict(found.left_out), tuple(found.differs)
    )


Row = tuple[int, np.void, RawScan]
"""Sequence number, decision and the scan it was made from."""


def _stretches(log: Log, scans: list[RawScan], factor: float, left_out: Counter[str]) -> Iterator[list[Row]]:
    """Decisions with their scans, cut where one is missing."""
    scans = sorted(scans, key=lambda scan: scan.arrived_ns)
    arrived = np.array([scan.arrived_ns for scan in scans], dtype=np.int64)
    mono = log.decisions["mono_ns"]
    places = np.searchsorted(arrived, mono, side="right") - 1
    stretch: list[Row] = []
    for seq, record, place in zip(log.decision_seqs.tolist(), log.decisions, places.tolist(), strict=True):
        fits = False
        if place >= 0:
            age_us = (int(record["mono_ns"]) - scans[place].arrived_ns) * factor / 1000
            fits = abs(age_us - int(record["scan_age_us"])) <= 2.0
        if not fits:
            left_out["without a raw scan"] += 1
        goes_on = stretch and 0 < int(record["mono_ns"]) - int(stretch[-1][1]["mono_ns"]) <= GAP_MAX_S * NS
        if stretch and not (fits and goes_on):
            yield stretch
            stretch = []
        if fits:
            stretch.append((seq, record, scans[place]))
    if stretch:
        yield stretch


class _Comparison:
    def __init__(self) -> None:
        self.compared = self.same = self.other_reason = 0
        self.left_out: Counter[str] = Counter()
        self.differs: list[OtherRuling] = []

    def run(self, rows: list[Row], monitor: SafetyMonitor, factor: float) -> None:
        """One stretch through a monitor that knows nothing yet."""
        began_ns = int(rows[0][1]["mono_ns"])
        monitor.armed = bool(rows[0][1]["flags"] & FLAG_ARMED)
        monitor.sent(_pair(rows[0][1]["final_command"]))
        for seq, record, scan in rows:
            inputs = _inputs(record, scan, factor)
            _told(monitor, record)
            ruling = monitor.step(inputs)
            monitor.settle()
            monitor.advise(inputs)
            recorded = _pair(record["final_command"])
            if record["reason"] == Reason.NO_GOAL and ruling.verdict <= Verdict.LIMIT:
                ruling = Ruling((0.0, 0.0), Verdict.STOP, Reason.NO_GOAL, ruling.clearance_m)
            if why := _not_comparable(record, (int(record["mono_ns"]) - began_ns) * factor):
                self.left_out[why] += 1
                if not _near(ruling.command, recorded):
                    monitor.sent(recorded)
            elif not self._compare(seq, record, ruling, recorded):
                monitor.sent(recorded)

    def _compare(self, seq: int, record: np.void, ruling: Ruling, recorded: tuple[float, float]) -> bool:
        self.compared += 1
        stopped = (ruling.verdict >= Verdict.STOP) == bool(record["verdict"] >= Verdict.STOP)
        if stopped and _near(ruling.command, recorded):
            self.same += 1
            self.other_reason += int(ruling.reason != record["reason"])
            return True
        if len(self.differs) < SHOWN_MAX:
            was = _words(int(record["verdict"]), int(record["reason"]), recorded)
            again = _words(ruling.verdict, ruling.reason, ruling.command)
            self.differs.append(OtherRuling(seq, int(record["tick"]), was, again))
        return False


def _inputs(record: np.void, scan: RawScan, factor: float) -> Inputs:
    now_ns = int(int(record["mono_ns"]) * factor)
    known = bool(np.isfinite(record["velocity"]).all())
    x, y, heading = (float(value) for value in record["pose"])
    idle = record["reason"] == Reason.NO_GOAL and not np.isfinite(record["raw_command"]).all()
    blended = bool(record["flags"] & FLAG_BLENDED)  # what was let through is as near as one gets
    command = _pair(record["final_command" if blended else "raw_command"])
    return Inputs(
        now_ns,
        scan.ranges_m,
        int(scan.arrived_ns * factor),
        _pair(record["velocity"]) if known else None,
        now_ns - 1000 * int(record["odometry_age_us"]),
        (0.0, 0.0) if idle else command if np.isfinite(command).all() else None,
        (x, y, heading) if np.isfinite((x, y, heading)).all() else None,
        command_from_policy=bool(record["source"] == Source.POLICY),
    )


def _told(monitor: SafetyMonitor, record: np.void) -> None:
    """What people and ROS said before this tick."""
    reason = record["reason"]
    if record["flags"] & FLAG_ARMED:
        monitor.armed = True
    elif reason in OTHER_COMMANDERS:
        monitor.armed = False
    monitor.stop_requested = bool(reason == Reason.STOP_REQUESTED)
    monitor.emergency = bool(reason == Reason.EMERGENCY_STOP_LATCHED)


def _not_comparable(record: np.void, since_ns: float) -> str:
    if since_ns < SETTLE_S * NS:
        return f"in the first {SETTLE_S:g} s of a stretch, while the monitor learns what moves"
    if record["flags"] & FLAG_BLENDED:
        return "blended after a change of driver: what the monitor was asked is not recorded"
    if not np.isfinite(record["velocity"]).all():
        return "without odometry, or with one that was not finite"
    return ""


def _pair(values: np.ndarray) -> tuple[float, float]:
    return float(values[0]), float(values[1])


def _near(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return max(abs(one[0] - other[0]), abs(one[1] - other[1])) <= TOLERANCE


def _words(verdict: int, reason: int, command: tuple[float, float]) -> str:
    named = in_words(Reason(reason)) if reason in set(Reason) else f"reason {reason}"
    said = in_words(Verdict(verdict)) if verdict in set(Verdict) else f"verdict {verdict}"
    return f"{said} ({named}), {command[0]:+.3f} m/s {command[1]:+.3f} rad/s"
