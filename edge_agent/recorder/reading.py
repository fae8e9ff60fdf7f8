"""Reads log folders back: a robot's state or log folder, the hub's telemetry; torn, live and sealed ones.

``open_log`` reads the indexes of sealed segments, and live segments whole; ``load_log`` the records themselves.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from contracts.decision import DECISION_DTYPE
from contracts.errors import LogFormatError
from contracts.framelog import (
    SEGMENT_SUFFIX,
    Event,
    Kind,
    LostClass,
    Segment,
    SegmentHeader,
    decode_event,
    iterate_frames,
    list_segments,
    scan_frames,
)
from contracts.record_schema import to_present
from contracts.scan import RawScan, decode_scan
from edge_agent.errors import LogFolderError
from edge_agent.recorder.incidents import Before, Incident, find_onsets, of_decision, of_event
from edge_agent.recorder.sealed import SEALED_SUFFIX, PartKind, SealedSegment, list_sealed, open_sealed
from edge_agent.uplink.cursor import LogCursor

FOLDERS_MAX = 10_000
SCAN_SEARCH_NS = 1_000_000_000
_EMPTY = np.zeros(0, DECISION_DTYPE)
_EMPTY_SEQS = np.zeros(0, np.uint64)
_NOTHING = "(no *.olog or *.oseal file); is it the right folder?"


@dataclass
class Log:
    """The records of one folder: ``decisions`` DECISION_DTYPE[n] (or some of its fields), ``decision_seqs`` uint64[n].

    ``lost`` counts the records that are known to be gone, by why, ``lost_ranges`` has the sequence numbers around
    them; ``damage`` says what is torn or changed.
    """

    folder: Path
    robot: str
    decisions: npt.NDArray[np.void] = field(default_factory=lambda: _EMPTY)
    decision_seqs: npt.NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    events: list[tuple[int, Event]] = field(default_factory=list)
    debug: list[tuple[int, Event]] = field(default_factory=list)
    scan_seqs: list[int] = field(default_factory=list)
    """Numbers of the raw scans; their content is ``LogIndex.scans``'s."""
    headers: list[SegmentHeader] = field(default_factory=list)
    lost: dict[LostClass, int] = field(default_factory=dict)
    lost_ranges: list[tuple[int, int]] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    bytes_read: int = 0

    @property
    def records(self) -> int:
        """All records that are still there."""
        return len(self.decisions) + len(self.events) + len(self.debug) + len(self.scan_seqs)

    @property
    def span_ns(self) -> tuple[int, int]:
        """Wall times of the first and last decision; an empty span without any."""
        walls = self.decisions["wall_ns"]
        return (int(walls.min()), int(walls.max())) if len(walls) else (0, 0)

    def lose(self, why: LostClass, count: int, first_seq: int, last_seq: int) -> None:
        """Note that records between two sequence numbers are gone."""
        self.lost[why] = self.lost.get(why, 0) + count
        if self.lost_ranges and self.lost_ranges[-1][1] == first_seq - 1:
            first_seq = self.lost_ranges.pop()[0]
        self.lost_ranges.append((first_seq, last_seq))


@dataclass(frozen=True)
class Window:
    """What of a log to look at: ticks, or seconds since its first record; both ends count."""

    since_tick: int | None = None
    until_tick: int | None = None
    since_s: float | None = None
    until_s: float | None = None

    @property
    def bounded(self) -> bool:
        """Whether it leaves anything out."""
        return self != Window()


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
    paths = [path for suffix in (SEGMENT_SUFFIX, SEALED_SUFFIX) for path in root.rglob(f"*{suffix}")]
    found = sorted({path.parent for path in paths})[:FOLDERS_MAX]
    robots = {folder: _robot_of(folder) for folder in found}  # also refuses foreign files
    found = [folder for folder in found if robot in (None, robots[folder])]
    if not found:
        whose = f" of {robot}" if robot else ""
        raise LogFolderError(f"{root} holds no outrider log{whose} {_NOTHING}")
    return found


def _robot_of(folder: Path) -> str:
    unreadable: dict[Path, str] = {}
    robot = next((s.header.robot for s in list_segments(folder, unreadable) if s.header), "")
    refused = next((LogFormatError(why) for why in unreadable.values()), None)
    for path in list_sealed(folder) if not robot else ():
        try:
            return open_sealed(path).header.robot
        except LogFormatError as error:
            refused = error
    if refused and not robot:
        raise refused
    return robot


@dataclass
class LiveSegment:
    """A live segment's records, read whole."""

    path: Path
    header: SegmentHeader | None
    decisions: npt.NDArray[np.void]
    seqs: npt.NDArray[np.uint64]
    events: list[tuple[int, Event]]
    debug: list[tuple[int, Event]]
    scans: list[tuple[int, bytes]]
    lost: list[tuple[int, LostClass]]
    damage: str
    bytes_read: int

    def incidents(self, before: Before) -> tuple[list[Incident], Before]:
        """Incidents of this segment, after what was before it."""
        onsets, before = find_onsets(self.decisions, before)
        found = [of_decision(int(self.seqs[row]), self.decisions[row]) for row in onsets.tolist()]
        found += [incident for seq, event in self.events if (incident := of_event(seq, event))]
        return sorted(found, key=lambda incident: incident.seq), before


class LogIndex:
    """One folder, opened: what is in it and where, without reading what is sealed."""

    def __init__(self, folder: Path) -> None:
        """Open; raises LogFormatError for foreign files, OSError. One segment of many may be unreadable."""
        self.folder = folder
        self.damage: list[str] = []
        self._scan_block: tuple[tuple[Path, int], list[tuple[int, bytes]]] | None = None
        sealed: dict[str, SealedSegment] = {}
        for path in list_sealed(folder):
            try:
                sealed[path.stem] = open_sealed(path)
            except LogFormatError as error:
                self.damage.append(str(error))
                continue
            if sealed[path.stem].damage:
                self.damage.append(sealed[path.stem].damage)
        self.sealed = list(sealed.values())
        unreadable: dict[Path, str] = {}
        segments = list_segments(folder, unreadable)
        if unreadable and not segments and not sealed:
            raise LogFormatError(next(iter(unreadable.values())))
        self.damage += unreadable.values()
        self.live = [_read_live(s) for s in segments if s.path.stem not in sealed]
        self.damage += [segment.damage for segment in self.live if segment.damage]

    @property
    def headers(self) -> list[SegmentHeader]:
        """Of all segments, oldest first."""
        return [s.header for s in self.sealed] + [s.header for s in self.live if s.header]

    @property
    def robot(self) -> str:
        """Whose log it is."""
        return self.headers[0].robot if self.headers else ""

    @cached_property
    def incidents(self) -> list[Incident]:
        """All incidents, oldest first."""
        found = [
            incident for segment in self.sealed for block in segment.blocks for incident in block.incidents
        ]
        before = Before()
        for segment in self.live:
            more, before = segment.incidents(before)
            found += more
        return found

    def next_incident(self, wall_ns: int) -> Incident | None:
        """The first incident after a wall time."""
        return next((i for i in self.incidents if i.wall_ns > wall_ns), None)

    @property
    def first_wall_ns(self) -> int:
        """Wall time of the first record; 0 for an empty log."""
        times = [block.span_ns[0] for segment in self.sealed for block in segment.blocks]
        for segment in self.live:
            times += [int(segment.decisions["wall_ns"].min())] if len(segment.decisions) else []
            times += [event.wall_ns for _, event in segment.events]
        return min(times, default=0)

    def recent(self, span_ns: int, fields: tuple[str, ...]) -> npt.NDArray[np.void]:
        """Some fields (and both times) of the decisions of the last ``span_ns``, of the last boot alone."""
        names = {*fields, "mono_ns", "wall_ns"}
        wanted = tuple(name for name in DECISION_DTYPE.names or () if name in names)
        boot = self.headers[-1].boot_id if self.headers else ""
        lives = [live for live in self.live if live.header and live.header.boot_id == boot]
        parts = [to_present(live.decisions[list(wanted)], wanted) for live in lives if len(live.decisions)]
        newest_ns = int(parts[-1]["mono_ns"][-1]) if parts else 0
        for segment in reversed(self.sealed):
            for block, entry in reversed([*enumerate(segment.blocks)]):
                newest_ns = newest_ns or entry.mono_ns[1]
                if segment.header.boot_id != boot or entry.mono_ns[1] < newest_ns - span_ns:
                    break
                parts.insert(0, segment.decisions(block, wanted))
        rows = np.concatenate(parts) if parts else np.zeros(0, _EMPTY[list(wanted)].dtype)
        return rows[rows["mono_ns"] >= newest_ns - span_ns]

    def decisions_of(self, seqs: npt.NDArray[np.uint64]) -> Iterator[tuple[int, np.void]]:
        """Whole decisions by ascending sequence numbers of one log; only their blocks are read."""
        for segment in self.sealed:
            for block, entry in enumerate(segment.blocks):
                if not ((seqs >= entry.first_seq) & (seqs <= entry.last_seq)).any():
                    continue
                own = segment.decision_seqs(block)
                rows = segment.decisions(block)
                for place in np.flatnonzero(np.isin(own, seqs)) if len(rows) else ():
                    yield int(own[place]), rows[place]
        for live in self.live:
            for place in np.flatnonzero(np.isin(live.seqs, seqs)):
                yield int(live.seqs[place]), live.decisions[place]

    def scans(self, low_wall_ns: int = 0, high_wall_ns: int = 2**63 - 1) -> Iterator[tuple[int, RawScan]]:
        """Numbers and raw scans from between two wall times, as they lie in the log; damaged parts are left out."""
        for segment in self.sealed:
            for block, entry in enumerate(segment.blocks):
                if entry.span_ns[1] >= low_wall_ns and entry.span_ns[0] <= high_wall_ns:
                    yield from _within(self._block_scans(segment, block), low_wall_ns, high_wall_ns)
        for live in self.live:
            yield from _within(live.scans, low_wall_ns, high_wall_ns)

    def _block_scans(self, segment: SealedSegment, block: int) -> list[tuple[int, bytes]]:
        """The last block asked for stays in memory: a screen asks for one tick after the other."""
        key = (segment.path, block)
        if self._scan_block is None or self._scan_block[0] != key:
            try:
                self._scan_block = key, segment.scans(block)
            except LogFormatError:
                self._scan_block = key, []
        return self._scan_block[1]

    def scan_of(self, record: np.void) -> RawScan | None:
        """The raw scan that a decision was made from: the newest that had come in; None where there is none."""
        now_ns, wall_ns = int(record["mono_ns"]), int(record["wall_ns"])
        near = self.scans(wall_ns - SCAN_SEARCH_NS, wall_ns + SCAN_SEARCH_NS)
        before = [scan for _, scan in near if 0 <= now_ns - scan.arrived_ns <= SCAN_SEARCH_NS]
        return max(before, key=lambda scan: scan.arrived_ns, default=None)

    def load(self, window: Window | None = None, fields: tuple[str, ...] | None = None) -> Log:
        """The records, of a window where one is given, decisions with some fields only where named.

        Blocks that a window leaves out are not read. A part that was changed or damaged is left out and named in
        ``damage``.
        """
        window = window or Window()
        log = Log(self.folder, self.robot, headers=self.headers, damage=list(self.damage))
        low_ns, high_ns = _limits(window, self.first_wall_ns)
        wanted = None
        if fields is not None:
            wanted = tuple(n for n in DECISION_DTYPE.names or () if n in {*fields, "tick", "wall_ns"})
        rows: list[npt.NDArray[np.void]] = []
        seqs: list[npt.NDArray[np.uint64]] = []
        for segment in self.sealed:
            log.bytes_read += segment.path.stat().st_size
            for block, entry in enumerate(segment.blocks):
                by_tick = _ticks_outside(window, entry.tick) and entry.decisions > 0
                if entry.span_ns[1] < low_ns or entry.span_ns[0] > high_ns or by_tick:
                    continue
                _take_block(log, segment, block, wanted, rows, seqs)
        for live in self.live:
            log.bytes_read += live.bytes_read
            rows.append(
                live.decisions if wanted is None else to_present(live.decisions[list(wanted)], wanted)
            )
            seqs.append(live.seqs)
            log.events += live.events
            log.debug += live.debug
            log.scan_seqs += [seq for seq, _ in live.scans]
            for seq, why in live.lost:
                log.lose(why, 1, seq, seq)
        if rows:
            log.decisions, log.decision_seqs = np.concatenate(rows), np.concatenate(seqs)
        return _cut(log, window, low_ns, high_ns) if window.bounded else log


def _within(
    scans: list[tuple[int, bytes]], low_wall_ns: int, high_wall_ns: int
) -> Iterator[tuple[int, RawScan]]:
    for seq, payload in scans:
        scan = decode_scan(payload)
        if low_wall_ns <= scan.wall_ns <= high_wall_ns:
            yield seq, scan


def _take_block(
    log: Log,
    segment: SealedSegment,
    block: int,
    fields: tuple[str, ...] | None,
    rows: list[npt.NDArray[np.void]],
    seqs: list[npt.NDArray[np.uint64]],
) -> None:
    """Add what is left of a block; what is damaged is named, what was dropped is counted."""
    entry = segment.blocks[block]
    for part, mark in zip(entry.parts, segment.dropped[block], strict=True):
        why = LostClass(mark) if mark else None
        try:
            if why is None and part.kind is PartKind.SAMPLES:
                rows.append(segment.decisions(block, fields))
                seqs.append(segment.decision_seqs(block))
            elif why is None and part.kind is PartKind.EVENTS:
                log.events += segment.events(block)
            elif why is None and part.kind is PartKind.DEBUG:
                log.debug += segment.events(block, Kind.DEBUG)
            elif why is None:
                log.scan_seqs += [entry.first_seq + at for at, kind in entry.others if kind is Kind.SCAN]
        except LogFormatError as error:
            log.damage.append(str(error))
            why = LostClass.DAMAGED
        if why is not None:
            log.lose(why, part.count, entry.first_seq, entry.last_seq)


def open_log(folder: Path) -> LogIndex:
    """Open one folder of segments; raises LogFormatError for foreign files."""
    return LogIndex(folder)


def load_log(folder: Path, window: Window | None = None) -> Log:
    """Every whole record of one folder, damage noted; raises LogFormatError for foreign files."""
    return LogIndex(folder).load(window)


def _read_live(segment: Segment) -> LiveSegment:
    try:
        data = segment.path.read_bytes()
    except FileNotFoundError:
        raise LogFormatError(f"{segment.path.name} was sealed while it was being read; try again") from None
    header, name = segment.header, segment.path.name
    if header is None:
        torn = f"{name}: torn inside its header"
        return LiveSegment(segment.path, None, _EMPTY, _EMPTY_SEQS, [], [], [], [], torn, len(data))
    payloads: list[bytes] = []
    seqs: list[int] = []
    others: dict[Kind, list[tuple[int, Event]]] = {Kind.EVENT: [], Kind.DEBUG: []}
    lost: list[tuple[int, LostClass]] = []
    scans: list[tuple[int, bytes]] = []
    for frame in iterate_frames(data, segment.data_start, segment.record_bytes):
        if frame.kind is Kind.DECISION:
            payloads.append(frame.payload)
            seqs.append(frame.seq)
        elif frame.kind is Kind.SCAN:
            scans.append((frame.seq, frame.payload))
        elif frame.kind is Kind.LOST:
            why = LostClass(frame.payload[0]) if frame.payload[0] in set(LostClass) else LostClass.DAMAGED
            lost.append((frame.seq, why))
        else:
            others[frame.kind].append((frame.seq, decode_event(frame.payload)))
    damage = scan_frames(data, segment.data_start, segment.record_bytes).damage
    rows = to_present(np.frombuffer(b"".join(payloads), header.record_dtype(name)))
    return LiveSegment(
        segment.path, header, rows, np.array(seqs, np.uint64), others[Kind.EVENT], others[Kind.DEBUG], scans, lost,
        f"{name}: {damage}" if damage else "", len(data),
    )  # fmt: skip


def _limits(window: Window, start_ns: int) -> tuple[int, int]:
    low_ns = start_ns + int((window.since_s or 0.0) * 1e9)
    return low_ns, start_ns + int(window.until_s * 1e9) if window.until_s is not None else 2**63 - 1


def _ticks_outside(window: Window, ticks: tuple[int, int]) -> bool:
    """Whether a block surely has no tick of the window; one with a restart inside is always read."""
    if ticks[0] > ticks[1]:
        return False
    low = window.since_tick is not None and ticks[1] < window.since_tick
    return low or (window.until_tick is not None and ticks[0] > window.until_tick)


def _cut(log: Log, window: Window, low_ns: int, high_ns: int) -> Log:
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
    log.debug = [(seq, event) for seq, event in log.debug if low_ns <= event.wall_ns <= high_ns]
    log.scan_seqs = []  # of the window's blocks, not of the window
    return log


def follow(folder: Path) -> Iterator[tuple[int, Kind, bytes] | None]:
    """Records appended from now on; None whenever there is nothing new. Never ends by itself."""
    cursor = LogCursor(folder, withhold=False)
    log_id, seq = _end_of(folder)
    cursor.seek(log_id, seq + 1)
    while True:
        _, count, frames = cursor.read(2**63, 1000, 512 * 1024)
        for frame in iterate_frames(frames):
            yield frame.seq, frame.kind, frame.payload
        if count:
            continue
        newest = [s.header for s in list_segments(folder, {}) if s.header]
        if newest and newest[-1].log_id != log_id:
            log_id = newest[-1].log_id
            cursor.seek(log_id, 1)
        yield None


def _end_of(folder: Path) -> tuple[str, int]:
    """Log id and last sequence number of what is there now."""
    for segment in reversed(list_segments(folder, {})):
        if segment.header:
            scan = scan_frames(segment.path.read_bytes(), segment.data_start, segment.record_bytes)
            return segment.header.log_id, scan.last_seq or segment.header.first_seq - 1
    for path in reversed(list_sealed(folder)):
        found = open_sealed(path)
        return found.header.log_id, found.last_seq
    return "", 0
