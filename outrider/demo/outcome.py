"""All figures of a finished demonstration, read back from what hub, robots and floor left on disk."""

import json
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edge_agent.recorder.metrics import METRICS_FILE
from edge_agent.recorder.reading import Log, find_folders, load_log
from edge_agent.recorder.summary import summarize
from navigation.warehouse import Warehouse, load_warehouse
from outrider.demo import measure, watch
from outrider.demo.line import Line, read_lines
from outrider.demo.run import TIMER_FILE, VERSIONS, Demo
from outrider.demo.service import BoardUpdate
from outrider.demo.settings import MIRRORED, ROBOTS
from trainer.evaluation.evaluate import Evaluation

MIRROR_AVOIDED = "mirror_avoided"
"""The robot's own word for it (``edge_agent/uplink/routes.py``)."""


class Evaluated(msgspec.Struct, frozen=True):
    """One controller in the evaluation; times in s, a failed trip at its cap."""

    name: str
    trips: int
    success: float
    contacts: int
    timeouts: int
    trip_s: float
    delivery_s: float | None
    is_reference: bool
    gain: float
    """Share of the reference's time that it saves."""
    gain_interval: tuple[float, float]


class Records(msgspec.Struct, frozen=True):
    """One robot's records, counted on its disk and at the hub."""

    decisions: int
    recorded: int
    last_seq: int
    acknowledged: int
    stored: int
    durable_seq: int
    gaps: int

    @property
    def agree(self) -> bool:
        """Whether the hub has each record that the robot made, once."""
        return self.recorded == self.stored == self.last_seq and self.gaps == 0


class Outcome(msgspec.Struct, frozen=True):
    """All figures of the summary."""

    total_s: float
    evaluation: list[Evaluated]
    driven: list[measure.Driven]
    ticks: measure.Ticks
    swaps: list[measure.Swap]
    guarded: measure.Guarded
    memory_mb: dict[str, float]
    records: dict[str, Records]
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

    @property
    def missed_at_swaps(self) -> int:
        """Ticks missed around all swaps."""
        return sum(swap.missed_ticks for swap in self.swaps)


@dataclass(frozen=True)
class Drive:
    """What the drive left, row by row.

    Attributes:
        logs: each robot's own.
        track: of the floor, by name: ``time_s`` and ``wall_s`` float64[n], ``pose`` float32[n, robots, 3],
            ``people`` float32[n, people, 2].
        warehouse: the floor.
    """

    logs: dict[str, Log]
    track: dict[str, npt.NDArray[Any]]
    warehouse: Warehouse


def read_drive(demo: Demo) -> Drive:
    """The robots' logs and the floor's trajectories."""
    with np.load(demo.floor / "trajectory.npz") as stored:
        track = {name: stored[name] for name in stored.files}
    logs = {robot: load_log(find_folders(demo.folder / robot)[0]) for robot in ROBOTS}
    return Drive(logs, track, load_warehouse(demo.floor / "floor.yaml"))


def read_outcome(demo: Demo, drive: Drive, total_s: float) -> Outcome:
    """Every figure, from files alone."""
    facts, logs, track = demo.facts, drive.logs, drive.track
    versions = {digest: version for version, digest in facts.digests.items()}
    evaluation = msgspec.json.decode(
        (demo.folder / "evaluation" / "evaluation.json").read_bytes(), type=Evaluation
    )
    timer = measure.read_timer(demo.folder / TIMER_FILE)
    trips = measure.read_records(demo.floor / "deliveries.jsonl")
    records = _records(demo, logs)
    return Outcome(
        total_s=total_s,
        evaluation=_evaluated(evaluation),
        driven=measure.split_by_driver(trips, logs, versions, track["time_s"], track["wall_s"]),
        ticks=measure.tick_latency(logs),
        swaps=measure.find_swaps(logs, versions, timer),
        guarded=measure.guarded(logs),
        memory_mb={robot: sum(parts.values()) for robot, parts in facts.memory_mb.items()},
        records=records,
        records_agree=all(row.agree for row in records.values()),
        lines=_lines(demo),
        enrolment_refused=facts.enrolment_refused,
        mirrored_bytes=watch.served_bytes(demo.folder / "logs" / "mirror.log", MIRRORED),
        mirror_avoided=sum(event.name == MIRROR_AVOIDED for _, event in logs[MIRRORED].events),
        metrics=watch.policy_rows(watch.parse_metrics(facts.hub_metrics)),
        agent_metrics={robot: _own_metrics(demo, robot) for robot in ROBOTS},
        ways=watch.ways(watch.read_steps(demo.traces.glob("*.jsonl")), facts.released_s[VERSIONS[-1]]),
        board_update=facts.board_update,
    )


def _lines(demo: Demo) -> list[Line]:
    if not demo.serial:
        return []
    floor: dict[str, Any] = json.loads((demo.floor / "summary.json").read_bytes())
    return read_lines(demo.folder, floor, demo.ports, demo.facts.armed_again, demo.facts.landed_s)


def _own_metrics(demo: Demo, robot: str) -> dict[str, float]:
    path = demo.folder / robot / METRICS_FILE
    return watch.agent_figures(watch.parse_metrics(path.read_text())) if path.exists() else {}


def _evaluated(evaluation: Evaluation) -> list[Evaluated]:
    rows = []
    for row in evaluation.results:
        gain = evaluation.gain_of(row.name)
        rows.append(
            Evaluated(
                name=row.name,
                trips=row.trips,
                success=row.success,
                contacts=row.contacts,
                timeouts=row.timeouts,
                trip_s=row.trip_s,
                delivery_s=row.delivery_s,
                is_reference=row.name == evaluation.reference,
                gain=gain.value,
                gain_interval=(gain.low, gain.high),
            )
        )
    return rows


def _records(demo: Demo, logs: dict[str, Log]) -> dict[str, Records]:
    rows = {}
    for robot, log in logs.items():
        counted = summarize(log)
        stored, durable, _ = demo.facts.stored.get(robot, (0, 0, 0))
        rows[robot] = Records(
            decisions=len(log.decisions),
            recorded=counted.records,
            last_seq=counted.last_seq,
            acknowledged=counted.acked_seq or 0,
            stored=stored,
            durable_seq=durable,
            gaps=counted.gaps,
        )
    return rows
