"""The robot's own figures for Prometheus, as a text file: STATE/metrics.prom, for node_exporter's textfile collector.

No server on the robot. Labels are bounded: verdicts, and the one policy that drives. Counters start at 0 with comms.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from contracts.atomic import write_atomically
from contracts.decision import Verdict, digest_text

METRICS_FILE = "metrics.prom"
_HELP = {
    "outrider_decisions_total": ("counter", "Decisions recorded, by the monitor's verdict."),
    "outrider_incidents_total": ("counter", "Incidents: stops that are no routine, and faults of the log."),
    "outrider_missed_ticks_total": ("counter", "Ticks that never ran, since control started."),
    "outrider_tick_worst_seconds": ("gauge", "Slowest tick since the last writing."),
    "outrider_late_worst_seconds": ("gauge", "Latest tick since the last writing."),
    "outrider_sync_worst_seconds": ("gauge", "Slowest fdatasync since the last writing."),
    "outrider_log_bytes": ("gauge", "What the log takes on disk."),
    "outrider_log_lost_records_total": ("counter", "Records that could not be written."),
    "outrider_log_disk_errors_total": ("counter", "Times that the disk refused."),
    "outrider_log_sealed_segments_total": ("counter", "Segments sealed."),
    "outrider_uplink_unsent_records": ("gauge", "Records that the hub has not acknowledged."),
    "outrider_uplink_forgotten_records_total": (
        "counter",
        "Records that the hub acknowledged and does not have.",
    ),
    "outrider_uplink_audits_failed_total": (
        "counter",
        "Times that the hub could not prove to have what it acknowledged.",
    ),
    "outrider_erasures_refused_total": (
        "counter",
        "Orders for erasure that were refused: forged, old, of another robot.",
    ),
    "outrider_policy_entropy_nats": ("gauge", "Mean entropy of the policy's actions since the last writing."),
    "outrider_config_info": ("gauge", "1; the label begins the hash of the settings in force."),
    "outrider_policy_info": ("gauge", "1; the label says which policy drives."),
}
COUNTED_EVENTS = {
    "hub_audit_failed": "outrider_uplink_audits_failed_total",
    "erasure_refused": "outrider_erasures_refused_total",
}
"""Events that have a counter of their own."""
Samples = dict[str, float]
"""Values by metric name, labels included."""


class TickFigures:
    """Adds up what the decisions say between two writings."""

    def __init__(self) -> None:
        self._verdicts = np.zeros(len(Verdict), dtype=np.int64)
        self._missed = 0
        self._worst_us = self._late_us = 0
        self._policy = self._config = ""
        self._entropy, self._entropy_ticks = 0.0, 0

    def take(self, rows: npt.NDArray[np.void]) -> None:
        """Count DECISION_DTYPE[n], n >= 1."""
        known = rows["verdict"][rows["verdict"] < len(self._verdicts)]
        self._verdicts += np.bincount(known, minlength=len(self._verdicts))
        self._worst_us = max(self._worst_us, int(rows["total_us"].max()))
        self._late_us = max(self._late_us, int(rows["late_us"].max()))
        self._missed = int(rows["missed_ticks"][-1])
        self._policy = digest_text(rows["policy_digest"][-1])[:12] or "none"
        self._config = digest_text(rows["config_digest"][-1]) or "none"
        known_nats = rows["entropy_nats"][np.isfinite(rows["entropy_nats"])]
        self._entropy += float(known_nats.sum(dtype=np.float64))
        self._entropy_ticks += len(known_nats)

    def samples(self) -> Samples:
        """Counters, and the worst since the last call."""
        found: Samples = {
            f'outrider_decisions_total{{verdict="{verdict.name.lower()}"}}': float(self._verdicts[verdict])
            for verdict in Verdict
        }
        found["outrider_missed_ticks_total"] = self._missed
        found["outrider_tick_worst_seconds"] = self._worst_us / 1e6
        found["outrider_late_worst_seconds"] = self._late_us / 1e6
        found[f'outrider_policy_info{{policy="{self._policy}"}}'] = 1.0
        found[f'outrider_config_info{{config="{self._config or "none"}"}}'] = 1.0
        if self._entropy_ticks:
            found["outrider_policy_entropy_nats"] = self._entropy / self._entropy_ticks
        self._worst_us = self._late_us = 0
        self._entropy, self._entropy_ticks = 0.0, 0
        return found


def metrics_text(samples: Samples, robot: str) -> str:
    """Samples in Prometheus's text format, every one with the robot's name."""
    lines: list[str] = []
    for name, (kind, about) in _HELP.items():
        own = {key: value for key, value in samples.items() if key.split("{")[0] == name}
        if not own:
            continue
        lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
        for key, value in own.items():
            labels = key[len(name) :].strip("{}")
            joined = ",".join(part for part in (f'robot="{robot}"', labels) if part)
            lines.append(f"{name}{{{joined}}} {int(value) if value == int(value) else round(value, 6)}")
    return "\n".join(lines) + "\n"


def write_metrics(state_dir: Path, robot: str, samples: Samples) -> None:
    """Replace STATE/metrics.prom; raises OSError."""
    write_atomically(state_dir / METRICS_FILE, metrics_text(samples, robot).encode(), durable=False)
