"""What went over the serial lines between agents and motor controllers. Pure: files in, figures out."""

import json
import math
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.actuate.serial_sink import FIGURES_FILE
from firmware_interface.emulator.fleet import EVENTS_FILE
from outrider.demo.settings import ROBOTS

ASKED = ("stop_frame", "disarm")
"""Reasons of a stop that the agent itself asked for."""


class BoardEvent(msgspec.Struct, frozen=True):
    """A line of the boards' ``events.jsonl``."""

    wall_s: float
    robot: str
    what: str
    why: str


class Line(msgspec.Struct, frozen=True):
    """One robot's line. Lost: damaged, or put on the line and never counted as received, or no room at the board."""

    robot: str
    to_board: int
    from_board: int
    lost: int | None
    """None where board or agent have started anew meanwhile: each counts from its own start."""
    held_back: int
    """Not put on the line: no session yet, or the link's own thread was just writing; the next one goes."""
    round_trip_max_ms: float | None
    """None where the agent has left no figures: it was killed."""
    stops: dict[str, int]
    """How often the board stopped by itself, by reason."""
    armed_again: int


def read_board_events(ports: Path, until_s: float = math.inf) -> list[BoardEvent]:
    """The boards' changes of state so far, or up to a wall time; none before the first."""
    try:
        lines = (ports / EVENTS_FILE).read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    decoder = msgspec.json.Decoder(BoardEvent)
    found = [decoder.decode(line) for line in lines[:-1]]  # the last one may be half written
    return [event for event in found if event.wall_s <= until_s]


def read_lines(
    folder: Path, floor: dict[str, Any], ports: Path, armed_again: dict[str, int], landed_s: float = math.inf
) -> list[Line]:
    """The lines of a finished demonstration.

    Args:
        folder: of the demonstration, with the robots' state folders.
        floor: the floor's summary.
        ports: the boards' folder.
        armed_again: by robot.
        landed_s: wall time at which the agents were asked to end; that their boards stop then is no news.
    """
    events = read_board_events(ports, landed_s)
    return [_line(robot, folder, floor, events, armed_again.get(robot, 0)) for robot in ROBOTS]


def _line(
    robot: str, folder: Path, floor: dict[str, Any], events: list[BoardEvent], armed_again: int
) -> Line:
    board = floor["robots"][robot]["board"]
    try:
        host = json.loads((folder / robot / FIGURES_FILE).read_bytes())
    except FileNotFoundError:
        host = {}
    stops: dict[str, int] = {}
    before = ""
    for event in events:
        if event.robot == robot:
            if before == "armed" and event.why not in ASKED:
                why = event.why or event.what
                stops[why] = stops.get(why, 0) + 1
            before = event.what
    lost = worst_ms = None
    if host and board["starts"] == 1 and host["frames_out"] >= board.get("good", 0):
        unseen = host["frames_out"] - board.get("good", 0)
        lost = int(unseen + host["frames_bad"] + board.get("unsent", 0))
    if host:
        worst_ms = host["round_trip_max_us"] / 1000.0
    sent, came = int(host.get("frames_out", 0)), int(host.get("frames_in", 0))
    held_back = int(host.get("frames_unsent", 0))
    return Line(robot, sent, came, lost, held_back, worst_ms, stops, armed_again)


def line_cells(line: Line) -> list[str]:
    """One line as text cells."""
    stops = ", ".join(f"{why} {count}" for why, count in line.stops.items())
    return [
        line.robot,
        f"{line.to_board:,}",
        f"{line.from_board:,}",
        "-" if line.lost is None else f"{line.lost:,}",
        f"{line.held_back:,}",
        "-" if line.round_trip_max_ms is None else f"{line.round_trip_max_ms:.1f}",
        stops or "none",
        str(line.armed_again),
    ]


LINE_HEAD = [
    "robot",
    "frames to board",
    "from it",
    "lost",
    "held back",
    "worst round trip, ms",
    "stopped by itself",
    "armed again",
]
