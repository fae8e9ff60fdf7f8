"""What the demonstration says of its serial lines, from what agent, floor and boards have left on disk."""

import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console
from typer.testing import CliRunner

from outrider.demo.line import LINE_HEAD, line_cells, read_board_events, read_lines
from outrider.demo.run import Demo
from outrider.demo.settings import ROBOTS, SHORT
from outrider.verbs.sim import app

pytest.importorskip("rclpy", reason="no ROS 2: run 'make setup', or source a distribution")

HOST = {
    "frames_out": 1000,
    "frames_in": 4000,
    "frames_bad": 2,
    "frames_unsent": 7,
    "round_trip_max_us": 2500.0,
}
BOARD = {"starts": 1, "good": 997, "bad": 3, "sent": 4002, "unsent": 1}
EVENTS = (
    ("started", ""), ("armed", "none"), ("stopping", "watchdog"), ("disarmed", "watchdog"),
    ("armed", "watchdog"), ("faulted", "bumper"), ("armed", "fault"), ("stopping", "stop_frame"),
)  # fmt: skip


def lay_out(folder: Path, board: dict[str, int], host: dict[str, float] | None) -> dict[str, Any]:
    """Files as a demonstration leaves them; the floor's summary."""
    (folder / "ports").mkdir()
    lines = [
        json.dumps({"wall_s": float(k), "robot": ROBOTS[0], "what": what, "why": why})
        for k, (what, why) in enumerate(EVENTS)
    ]
    (folder / "ports" / "events.jsonl").write_text("\n".join(lines) + '\n{"wall_s": 9.0, "ro')
    for robot in ROBOTS:
        (folder / robot).mkdir()
        if host is not None:
            (folder / robot / "serial.json").write_text(json.dumps(host))
    return {"robots": {robot: {"board": board} for robot in ROBOTS}}


def test_frames_losses_and_stops_are_counted(tmp_path: Path) -> None:
    floor = lay_out(tmp_path, BOARD, HOST)
    line, other, _ = read_lines(tmp_path, floor, tmp_path / "ports", {ROBOTS[0]: 2})
    assert (line.to_board, line.from_board, line.held_back, line.round_trip_max_ms) == (1000, 4000, 7, 2.5)
    assert line.lost == 3 + 2 + 1
    assert line.stops == {"watchdog": 1, "bumper": 1}, "a stop that the agent asked for is none of its own"
    assert (line.armed_again, other.armed_again, other.stops) == (2, 0, {})
    assert len(line_cells(line)) == len(LINE_HEAD)
    assert line_cells(line)[-2:] == ["watchdog 1, bumper 1", "2"]


def test_a_stop_after_the_end_was_asked_for_is_not_counted(tmp_path: Path) -> None:
    floor = lay_out(tmp_path, BOARD, HOST)
    assert read_lines(tmp_path, floor, tmp_path / "ports", {}, landed_s=4.5)[0].stops == {"watchdog": 1}


def test_what_cannot_be_known_is_not_made_up(tmp_path: Path) -> None:
    floor = lay_out(tmp_path, {"starts": 2, "good": 5}, HOST)
    assert read_lines(tmp_path, floor, tmp_path / "ports", {})[0].lost is None


def test_a_killed_agent_leaves_no_figures(tmp_path: Path) -> None:
    floor = lay_out(tmp_path, BOARD, None)
    line = read_lines(tmp_path, floor, tmp_path / "ports", {})[0]
    assert (line.lost, line.round_trip_max_ms, line.to_board) == (None, None, 0)
    assert "-" in line_cells(line)


def test_without_boards_there_are_no_events(tmp_path: Path) -> None:
    assert read_board_events(tmp_path) == []


def test_without_a_compiler_ros_drives_and_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said = io.StringIO()
    demo = Demo(tmp_path / "out", SHORT, Console(file=said, width=200))
    assert demo.serial is False
    assert said.getvalue().splitlines() == [
        "no motor controllers, ROS cmd_vel drives instead: no gcc on PATH, which compiles the emulated board: "
        "'apt-get install gcc libc6-dev'"
    ]
    asked = msgspec.structs.replace(SHORT, serial=False)
    assert Demo(tmp_path / "other", asked, Console(file=said)).serial is False


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        ((), 2, "--serial needs --ros"),
        (("--ros", "--randomise"), 2, "neither --randomise nor --fault"),
        (("--ros",), 1, "planar robots have none; use --physics wheeled"),
        (("--ros", "--physics", "wheeled", "--model", "tugger"), 1, "set up for amr_small"),
    ],
)
def test_a_floor_that_boards_cannot_drive_is_refused(
    more: tuple[str, ...], code: int, said: str, tmp_path: Path
) -> None:
    words = ["run", "--layout", "small", "--robots", "1", "--serial", str(tmp_path / "ports"), *more]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == code
    assert said in done.stderr
    assert not (tmp_path / "ports").exists()
