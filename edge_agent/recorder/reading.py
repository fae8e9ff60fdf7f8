"""Reads log folders back: a robot's state or log folder, the hub's telemetry; torn and live ones too."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from contracts.decision import DECISION_DTYPE
from contracts.errors import LogFormatError
from contracts.framelog import (
    SEGMENT_SUFFIX,
    Event,
    Kind,
    Segment,
    SegmentHeader,
    decode_event,
    iterate_frames,
    list_segments,
    scan_frames,
)
from edge_agent.errors import LogFolderError

FOLDERS_MAX = 10_000
_EMPTY = np.zeros(0, DECISION_DTYPE)


@dataclass
class Log:
    """The records of one folder: ``decisions`` DECISION_DTYPE[n], ``decision_seqs`` uint64[n]."""

    folder: Path
    robot: str
    decisions: npt.NDArray[np.void] = field(default_factory=lambda: _EMPTY)
    decision_seqs: npt.NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    events: list[tuple[int, Event]] = field(default_factory=list)
    headers: list[SegmentHeader] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    bytes_read: int = 0

    @property
    def records(self) -> int:
        """Decisions and events together."""
        return len(self.decisions) + len(self.events)


@dataclass(frozen=True)
class Window:
    """Part of a log: by tick, or by seconds after its first record. None leaves an end open."""

    since_tick: int | None = None
    until_tick: int | None = None
    since_s: float | None = None
    until_s: float | None = None


def parse_window(since: str | None, until: str | None) -> Window:
    """``1200`` is a tick, ``90s`` a time in seconds after the log's first record; raises LogFolderError."""
    values: dict[str, float] = {}
    for name, text in (("since", since), ("until", until)):
        if text is None:
            continue
        try:
            if text.endswith("s"):
                values[f"{name}_s"] = float(text[:-1])
            else:
                values[f"{name}_tick"] = int(text)
        except ValueError:
            raise LogFolderError(
                f"--{name}: expected a tick like 1200 or seconds like 90s, came {text!r}"
            ) from None
    return Window(**values)  # type: ignore[arg-type]


def find_folders(root: Path, robot: str | None = None) -> list[Path]:
    """Folders below ``root`` that hold segments; raises LogFolderError when there are none."""
    if not root.is_dir():
        raise LogFolderError(f"no folder {root}; give a robot's state folder or the hub's telemetry folder")
    found = sorted({path.parent for path in root.rglob(f"*{SEGMENT_SUFFIX}")})[:FOLDERS_MAX]
    robots = {folder: _robot_of(folder) for folder in found}  # also refuses foreign files
    found = [folder for folder in found if robot in (None, robots[folder])]
    if not found:
        whose = f" of {robot}" if robot else ""
        raise LogFolderError(
            f"{root} holds no outrider log{whose} (no {SEGMENT_SUFFIX} file); is it the right folder?"
        )
    return found


def _robot_of(folder: Path) -> str:
    return next((s.header.robot for s in list_segments(folder) if s.header), "")


def load_log(folder: Path, window: Window | None = None) -> Log:
    """Every whole record of one folder, damage noted; raises LogFormatError for foreign files."""
    log = Log(folder, _robot_of(folder))
    payloads: list[bytes] = []
    seqs: list[int] = []
    for segment in list_segments(folder):
        _load_segment(segment, log, payloads, seqs)
    if payloads:
        log.decisions = np.frombuffer(b"".join(payloads), dtype=DECISION_DTYPE)
        log.decision_seqs = np.array(seqs, dtype=np.uint64)
    return log if window is None else _cut(log, window)


def _load_segment(segment: Segment, log: Log, payloads: list[bytes], seqs: list[int]) -> None:
    data = segment.path.read_bytes()
    log.bytes_read += len(data)
    if segment.header is None:
        log.damage.append(f"{segment.path.name}: torn inside its header")
        return
    log.headers.append(segment.header)
    for frame in iterate_frames(data, segment.data_start):
        if frame.kind is Kind.DECISION:
            payloads.append(frame.payload)
            seqs.append(frame.seq)
        else:
            log.events.append((frame.seq, decode_event(frame.payload)))
    if scan := scan_frames(data, segment.data_start).damage:
        log.damage.append(f"{segment.path.name}: {scan}")


def first_wall_ns(log: Log) -> int:
    """Wall time of the log's first record; 0 for an empty one."""
    times = [int(log.decisions["wall_ns"].min())] if len(log.decisions) else []
    return min(times + [event.wall_ns for _, event in log.events], default=0)


def _cut(log: Log, window: Window) -> Log:
    start_ns = first_wall_ns(log)
    low_ns = start_ns + int((window.since_s or 0.0) * 1e9)
    high_ns = start_ns + int(window.until_s * 1e9) if window.until_s is not None else 2**63 - 1
    wall, tick = log.decisions["wall_ns"], log.decisions["tick"]
    keep = (wall >= low_ns) & (wall <= high_ns)
    if window.since_tick is not None:
        keep &= tick >= np.uint64(max(window.since_tick, 0))
    if window.until_tick is not None:
        keep &= tick <= np.uint64(max(window.until_tick, 0))
    if (window.since_tick, window.until_tick) != (None, None) and keep.any():
        low_ns, high_ns = max(low_ns, int(wall[keep].min())), min(high_ns, int(wall[keep].max()))
    log.decisions, log.decision_seqs = log.decisions[keep], log.decision_seqs[keep]
    log.events = [(seq, event) for seq, event in log.events if low_ns <= event.wall_ns <= high_ns]
    return log


def follow(folder: Path) -> Iterator[tuple[int, Kind, bytes] | None]:
    """Records appended from now on; None whenever there is nothing new. Never ends by itself."""
    offsets = {path: path.stat().st_size for path in folder.glob(f"*{SEGMENT_SUFFIX}")}
    while True:
        came = False
        try:
            segments = list_segments(folder)
        except LogFormatError:
            segments = []
        for segment in segments:
            start = offsets.get(segment.path, segment.data_start)
            if segment.header is None or segment.path.stat().st_size <= start:
                continue
            with segment.path.open("rb") as file:
                file.seek(start)
                data = file.read()
            for frame in iterate_frames(data):
                came = True
                yield frame.seq, frame.kind, frame.payload
            offsets[segment.path] = start + scan_frames(data).good_bytes
        if not came:
            yield None
