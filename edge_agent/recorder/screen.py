"""``outrider logs ui``: one decision at a time, where it lies in the log, and what was going on around it."""

from typing import ClassVar

import numpy as np
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Footer, Static

from contracts.decision import FLAG_ARMED, digest_text
from contracts.observation import BEAMS, ROUTING_LAYOUT
from edge_agent.recorder.drawing import bars, draw_beams, draw_scan
from edge_agent.recorder.pages import Pages
from edge_agent.recorder.reading import LogIndex
from edge_agent.recorder.values import name_of

LIDAR_COLUMNS, LIDAR_LINES = 44, 22
AROUND_NS = 10_000_000_000
"""What the bars show, before and after the cursor."""
AROUND_ROWS_MAX = 4_000
ROBOT_RADIUS_M = 0.3
RANGE_MAX_M = ROUTING_LAYOUT.observation[0].high
STEP_S = 0.05
SPEEDS = (0.25, 0.5, 1.0, 2.0, 5.0, 20.0)
"""Of the replay, against time."""
STYLES = {-1: "dim", 0: "green", 1: "yellow", 2: "red", 3: "red", 4: "bold red"}
"""By verdict."""
NS = 1_000_000_000


class LogScreen(App[None]):
    """The screen over one opened log."""

    TITLE = "outrider logs"
    CSS = """
    #head { height: 1; background: $primary-darken-2; }
    #timeline { height: 3; padding: 0 1; }
    #lidar { width: 46; padding: 0 1; border: round $primary; }
    #detail { width: 1fr; padding: 0 1; border: round $primary; }
    #bars { height: 6; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right", "step(1)", "next tick"),
        Binding("left", "step(-1)", "tick before"),
        Binding("down", "seconds(1)", "1 s on"),
        Binding("up", "seconds(-1)", "1 s back"),
        Binding("pagedown", "seconds(60)", "1 min on", show=False),
        Binding("pageup", "seconds(-60)", "1 min back", show=False),
        Binding("home", "go(0)", "start", show=False),
        Binding("end", "go(-1)", "end", show=False),
        Binding("n", "incident(1)", "next incident"),
        Binding("p", "incident(-1)", "incident before"),
        Binding("space", "replay", "replay"),
        Binding("plus,equals_sign", "faster(1)", "faster", show=False),
        Binding("minus", "faster(-1)", "slower", show=False),
        Binding("q", "quit", "end"),
    ]

    def __init__(self, index: LogIndex) -> None:
        """Begins at the log's first decision."""
        super().__init__()
        self.index = index
        self.pages_of_log = Pages(index)
        self.incidents = index.incidents
        self._incident_rows = [self.pages_of_log.row_of(incident) for incident in self.incidents]
        self.cursor = 0
        self.playing = False
        self.speed = 1.0
        self._play_ns = 0.0

    def compose(self) -> ComposeResult:
        """Head, timeline, lidar beside the decision, bars, keys."""
        yield Static(id="head")
        yield Static(id="timeline")
        with Horizontal():
            yield Static(id="lidar")
            with Vertical():
                yield Static(id="detail")
        yield Static(id="bars")
        yield Footer()

    def on_mount(self) -> None:
        """Draw, and begin to tick for the replay."""
        self.set_interval(STEP_S, self._play)
        self.draw()

    def on_resize(self) -> None:
        """Timeline and bars are as wide as the screen."""
        self.draw()

    def action_step(self, rows: int) -> None:
        """Move by ticks."""
        self._move(self.cursor + rows)

    def action_go(self, row: int) -> None:
        """To a row; -1 is the last."""
        self._move(len(self.pages_of_log) - 1 if row < 0 else row)

    def action_seconds(self, seconds: int) -> None:
        """Move by time."""
        at = self.pages_of_log.rows(self.cursor, self.cursor + 1)
        if len(at):
            self._move(self._row_at(int(at["wall_ns"][0]) + seconds * NS))

    def action_incident(self, direction: int) -> None:
        """To the next incident, or the one before."""
        rows = [row for row in self._incident_rows if (row - self.cursor) * direction > 0]
        if rows:
            self._move(min(rows) if direction > 0 else max(rows))
        else:
            self.notify("no incident after this one" if direction > 0 else "no incident before this one")

    def action_replay(self) -> None:
        """Start or stop."""
        self.playing = not self.playing
        at = self.pages_of_log.rows(self.cursor, self.cursor + 1)
        self._play_ns = float(at["wall_ns"][0]) if len(at) else 0.0
        self.draw()

    def action_faster(self, direction: int) -> None:
        """Another speed of the replay."""
        place = SPEEDS.index(self.speed) + direction
        self.speed = SPEEDS[min(max(place, 0), len(SPEEDS) - 1)]
        self.draw()

    def _play(self) -> None:
        if not self.playing:
            return
        self._play_ns += STEP_S * self.speed * NS
        self._move(self._row_at(int(self._play_ns)))
        if self.cursor >= len(self.pages_of_log) - 1:
            self.playing = False

    def _move(self, row: int) -> None:
        self.cursor = min(max(row, 0), max(len(self.pages_of_log) - 1, 0))
        self.draw()

    def _row_at(self, wall_ns: int) -> int:
        """The row at a wall time, looked for from the cursor on, page by page."""
        low, pages = 0, self.pages_of_log.pages
        for page in pages:
            if page.wall_ns[0] <= wall_ns <= page.wall_ns[1]:
                rows = self.pages_of_log.rows(low, low + page.count)
                return low + int(np.searchsorted(rows["wall_ns"], wall_ns))
            if wall_ns < page.wall_ns[0]:
                return low
            low += page.count
        return low - 1

    def draw(self) -> None:
        """All of it, for the cursor."""
        if not self.query("#head"):
            return
        rows = self.pages_of_log.rows(self.cursor, self.cursor + 1)
        if not len(rows):
            self.query_one("#head", Static).update(f"{self.index.robot}: no decision in this log")
            return
        record = rows[0]
        self.query_one("#head", Static).update(self._head(record))
        self.query_one("#timeline", Static).update(self._timeline())
        command = record["final_command"]
        arrow = (float(command[0]), float(command[1])) if np.isfinite(command).all() else (0.0, 0.0)
        self._draw_lidar(record, arrow)
        self.query_one("#detail", Static).update(self._detail(record))
        self.query_one("#bars", Static).update(self._bars(int(record["wall_ns"])))

    def _draw_lidar(self, record: np.void, arrow: tuple[float, float]) -> None:
        """The raw scan where the log has it, else the sectors that the policy was shown."""
        lidar = self.query_one("#lidar", Static)
        scan = self.index.scan_of(record)
        if scan is None:
            lidar.border_title = "sectors"
            beams = record["observation"][:BEAMS].tolist()
            picture = draw_beams(beams, LIDAR_COLUMNS, LIDAR_LINES, RANGE_MAX_M, ROBOT_RADIUS_M, arrow)
        else:
            lidar.border_title = f"raw scan, {len(scan.ranges_m)} rays"
            picture = draw_scan(
                scan.ranges_m.tolist(), (scan.angle_min_rad, scan.angle_step_rad), LIDAR_COLUMNS, LIDAR_LINES,
                min(RANGE_MAX_M, scan.range_max_m), ROBOT_RADIUS_M, arrow,
            )  # fmt: skip
        lidar.update(picture)

    def _head(self, record: np.void) -> str:
        at_s = (int(record["wall_ns"]) - self.index.first_wall_ns) / NS
        state = f"replay x{self.speed:g}" if self.playing else "stands"
        damage = f"  {len(self.index.damage)} DAMAGED" if self.index.damage else ""
        return (
            f" {self.index.robot}  {np.datetime64(int(record['wall_ns']), 'ns')}Z  +{at_s:.2f} s  "
            f"tick {int(record['tick'])}  {self.cursor + 1} of {len(self.pages_of_log)}  {state}{damage}"
        )

    def _timeline(self) -> Text:
        width = max(self.size.width - 2, 10)
        total = max(len(self.pages_of_log), 1)
        text = Text()
        for worst in self.pages_of_log.worst(width):
            text.append("█" if worst >= 0 else "·", STYLES.get(worst, "magenta"))
        marks, cursor = [" "] * width, [" "] * width
        for row in self._incident_rows:
            marks[min(row * width // total, width - 1)] = "!"
        cursor[min(self.cursor * width // total, width - 1)] = "▲"
        text.append("\n" + "".join(marks), "bold red")
        text.append("\n" + "".join(cursor), "bold")
        return text

    def _detail(self, record: np.void) -> Text:
        names = {
            field: name_of(field, int(record[field])) for field in ("source", "mode", "verdict", "reason")
        }
        digest = digest_text(record["policy_digest"])[:12] or "none"
        entropy = float(record["entropy_nats"])
        surely = f"entropy {entropy:+.3f} nats" if np.isfinite(entropy) else "entropy unknown"
        armed = "armed" if record["flags"] & FLAG_ARMED else "not armed"
        text = Text()
        text.append(f"who drives  {names['source']}, mode {names['mode']}, policy {digest}, {armed}\n")
        text.append(f"wanted      {_command(record['raw_command'])}\n")
        text.append(f"allowed     {_command(record['final_command'])}\n", "bold")
        text.append("why         ")
        why = f"{names['verdict']}: {names['reason'].replace('_', ' ')}\n"
        text.append(why, STYLES.get(int(record["verdict"]), "magenta"))
        text.append(f"the other   {_command(record['other_command'])}\n", "dim")
        text.append(f"clearance   {float(record['clearance_m']):.2f} m\n")
        text.append(f"pose        {_numbers(record['pose'])}  (x m, y m, heading rad)\n")
        text.append(f"velocity    {_command(record['velocity'])}\n")
        text.append(f"goal        {_numbers(record['goal'])}, trip {int(record['trip'])}\n")
        text.append(f"config      {digest_text(record['config_digest']) or 'none'}; {surely}\n")
        ages = [int(record[f"{name}_age_us"]) / 1e3 for name in ("scan", "odometry")]
        text.append(f"ages        scan {ages[0]:.0f} ms, odometry {ages[1]:.0f} ms\n")
        stages = ", ".join(f"{n} {int(record[f'{n}_us'])}" for n in ("encode", "infer", "guard", "publish"))
        text.append(
            f"tick        {int(record['total_us'])} us ({stages}), {int(record['late_us'])} us late\n"
        )
        for incident, row in zip(self.incidents, self._incident_rows, strict=True):
            if row == self.cursor:
                text.append(f"INCIDENT    {incident.what}\n", "bold red")
        return text

    def _bars(self, wall_ns: int) -> Text:
        width = max(self.size.width - 16, 10)
        rows = self.pages_of_log.rows(self.cursor - AROUND_ROWS_MAX // 2, self.cursor + AROUND_ROWS_MAX // 2)
        rows = rows[np.abs(rows["wall_ns"] - wall_ns) <= AROUND_NS]
        text = Text()
        for name, values, unit in (
            ("wanted", np.abs(rows["raw_command"][:, 0]), "m/s"),
            ("allowed", np.abs(rows["final_command"][:, 0]), "m/s"),
            ("tick", rows["total_us"].astype(np.float64), "us"),
            ("late", rows["late_us"].astype(np.float64), "us"),
        ):
            finite = values[np.isfinite(values)]
            high = float(finite.max(initial=0.0))
            text.append(f"{name:8}{bars(values, width, high)} {high:.3g} {unit}\n")
        before = int((rows["wall_ns"] < wall_ns).sum())
        text.append(" " * (8 + before * width // max(len(rows), 1)) + "▲", "bold")
        return text


def _command(command: np.ndarray) -> str:
    if not np.isfinite(command).all():
        return "nothing"
    return f"{float(command[0]):+.3f} m/s  {float(command[1]):+.3f} rad/s"


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{float(value):.2f}" for value in values)
