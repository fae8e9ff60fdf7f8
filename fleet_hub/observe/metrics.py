"""The hub's figures for Prometheus: http://HOST:PORT/metrics, text format 0.0.4.

The hub's loop makes the text once a second; a thread of its own hands out the newest, so that no scrape ever waits
for the hub nor the hub for a scrape. Labels are bounded: at most POLICIES_MAX policies and COHORTS_MAX sites, the
rest is "other"; no robot names.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import msgspec

from fleet_hub.errors import AddressBusyError
from fleet_hub.observe.rollup import PolicyFigures, RobotSums

POLICIES_MAX = 16
REQUEST_MAX_S = 5.0
STEP_S = 1.0
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


Family = tuple[str, str, str, Iterable[tuple[str, float]]]
"""Name, kind, help, samples."""


class HubFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What the hub knows at one moment; counters are since its start."""

    robots: int
    robots_online: int
    robots_by_policy: dict[str, int]
    """Versions that robots said they run; "" is none."""
    records_stored: int
    records_duplicate: int
    messages_dropped: int
    sessions: int
    turn_worst_s: float
    """Slowest turn of the loop since the last figures."""
    policies: tuple[PolicyFigures, ...] = ()
    """Of the newest rollups."""
    rollup_age_s: float | None = None
    """How old the newest record in the figures by policy is; None without any."""


def metrics_text(figures: HubFigures) -> str:
    """Figures in Prometheus's text format."""
    families: list[Family] = [
        ("outrider_hub_robots", "gauge", "Robots in the allow-list.", [("", figures.robots)]),
        ("outrider_hub_robots_online", "gauge", "Robots heard of lately.", [("", figures.robots_online)]),
        ("outrider_hub_robots_policy", "gauge", "Robots by the policy they run.", _by_policy(figures)),
        ("outrider_hub_records_total", "counter", "Records stored.", [("", figures.records_stored)]),
        (
            "outrider_hub_duplicates_total",
            "counter",
            "Records that came twice.",
            [("", figures.records_duplicate)],
        ),
        (
            "outrider_hub_dropped_total",
            "counter",
            "Messages a slow peer did not take.",
            [("", figures.messages_dropped)],
        ),
        ("outrider_hub_sessions", "gauge", "Connections.", [("", figures.sessions)]),
        (
            "outrider_hub_turn_worst_seconds",
            "gauge",
            "Slowest turn of the loop.",
            [("", figures.turn_worst_s)],
        ),
    ]
    if figures.rollup_age_s is not None:
        name, about = "outrider_hub_rollup_age_seconds", "Age of the newest record in the figures by policy."
        families.append((name, "gauge", about, [("", figures.rollup_age_s)]))
    lines = []
    for name, kind, about, samples in [*families, *_policy_families(figures.policies)]:
        lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
        lines += [
            f"{name}{labels} {value:.6g}" if value % 1 else f"{name}{labels} {int(value)}"
            for labels, value in samples
        ]
    return "\n".join(lines) + "\n"


POLICY_FAMILIES: dict[str, tuple[str, Callable[[RobotSums], tuple[float, float]]]] = {
    "ticks": ("Ticks.", lambda s: (s.ticks, 1)),
    "intervention_share": (
        "Share of ticks in which the monitor took most of a command.",
        lambda s: (s.interventions, s.ticks),
    ),
    "stop_share": ("Share of ticks in which it stopped the robot.", lambda s: (s.stops, s.ticks)),
    "latency_seconds": (
        "A tick's usual time: the mean of each minute's median.",
        lambda s: (s.latency_us / 1e6, s.ticks),
    ),
    "latency_worst_seconds": ("The slowest tick.", lambda s: (s.latency_max_us / 1e6, 1)),
    "entropy_nats": ("Mean entropy of the actions.", lambda s: (s.entropy_nats, s.entropy_ticks)),
    "drift": (
        "Mean strangeness of what it sees: 0 is usual, 2 as one observation in a thousand of its reference.",
        lambda s: (s.drift, s.drift_ticks),
    ),
    "trips": ("Trips that ended.", lambda s: (s.trips, 1)),
    "trip_success_share": ("Share of trips that arrived.", lambda s: (s.trips_arrived, s.trips)),
    "trip_contact_share": ("Share of trips with a contact.", lambda s: (s.trips_touched, s.trips)),
    "trip_seconds": ("Mean time of a trip that arrived.", lambda s: (s.arrived_s, s.trips_arrived)),
    "trip_capped_seconds": (
        "Mean time of all trips; one that did not arrive took 60 s. Stands for the reward, which robots do not record.",
        lambda s: (s.capped_s, s.trips),
    ),
}
"""Sum and weight; a mean over nothing is left out. All over the newest hour, by policy and site."""


def _policy_families(policies: tuple[PolicyFigures, ...]) -> Iterator[Family]:
    for suffix, (about, share) in POLICY_FAMILIES.items():
        samples = [
            (f'{{policy="{_escaped(one.policy)}",cohort="{_escaped(one.cohort)}"}}', total / weight)
            for one in policies
            for total, weight in [share(one.sums)]
            if weight
        ]
        if samples:
            yield f"outrider_hub_policy_{suffix}", "gauge", about, samples


def _by_policy(figures: HubFigures) -> list[tuple[str, float]]:
    counts = Counter(figures.robots_by_policy)
    kept = counts.most_common(POLICIES_MAX)
    other = counts.total() - sum(count for _, count in kept)
    rows = [(version or "none", count) for version, count in kept] + ([("other", other)] if other else [])
    return [(f'{{policy="{_escaped(version)}"}}', float(count)) for version, count in rows]


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class MetricsServer:
    """Serves the newest text; ``text`` may be replaced from any thread."""

    def __init__(self, address: str) -> None:
        """Listen at PORT of this machine alone, or at HOST:PORT; raises AddressBusyError."""
        host, _, port = address.rpartition(":")
        self.text = ""
        try:
            self._server = HTTPServer((host or "127.0.0.1", int(port)), self._handler())
        except (OSError, ValueError, OverflowError) as error:
            raise AddressBusyError(
                f"cannot serve metrics at {address!r}: {error}; give another --metrics [HOST:]PORT"
            ) from None
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            timeout = REQUEST_MAX_S

            def do_GET(self) -> None:
                """Answer /metrics."""
                found = self.path.split("?")[0] == "/metrics"
                body = outer.text.encode() if found else b"see /metrics\n"
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", CONTENT_TYPE)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing: a scrape is no event."""

        return Handler
