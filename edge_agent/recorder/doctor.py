"""Is this robot well? Everything its state folder tells, offline: one verdict, and what to do.

Reads only. What cannot be known from a copied folder ("unknown") is said, and does not make the verdict worse.
"""

import enum
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np

from contracts.canonical import digest_hex
from contracts.decision import FLAG_ARMED, Reason, in_words
from contracts.errors import ContractError
from contracts.keyring import (
    CURVE_FILE,
    HUB_PUBLIC_FILE,
    TRUSTED_FILE,
    CurvePair,
    CurvePublic,
    party_folder,
    read_key_file,
)
from contracts.provenance import TrustedKeys
from edge_agent.errors import AgentError
from edge_agent.heartbeat import read_heartbeat
from edge_agent.recorder.chain import verify_folder
from edge_agent.recorder.key import KEY_FILE
from edge_agent.recorder.reading import LogIndex, find_folders, open_log
from edge_agent.recorder.recorder import LOG_BUDGET_BYTES, read_boot_id
from edge_agent.update.slots import ACTIVE_FILE, SlotStore
from edge_agent.uplink.uplink import read_acked
from safety.config import MonitorConfig

NS = 1_000_000_000
FREE_WARN_BYTES, FREE_BAD_BYTES = 2 * 1024**3, 256 * 1024**2
CLOCK_STEP_NS = NS
CLOCK_EPOCH_NS = 1_700_000_000 * NS
"""Nov 2023: a clock before it was never set."""
UNSENT_WARN = 100_000
RECENT_NS = 300 * NS
FAULTS_SHOWN = 5
SENSOR_SHARE_WARN = 0.01
SILENT_MAX_S = 2.0
_SENSOR_REASONS = [int(reason) for reason in Reason if 20 <= reason < 40]
_RECENT_FIELDS = (
    "reason", "flags", "scan_age_us", "odometry_age_us", "total_us", "missed_ticks",
)  # fmt: skip


class Level(enum.IntEnum):
    """How a finding is; the worst one is the verdict and the exit code, UNKNOWN apart."""

    WELL = 0
    LOOK = 1
    BAD = 2
    UNKNOWN = 3


class Finding(msgspec.Struct, frozen=True):
    """One thing looked at."""

    about: str
    level: Level
    what: str
    do: str = ""


class Diagnosis(msgspec.Struct, frozen=True):
    """All findings; ``verdict`` is the worst, unknown ones apart."""

    robot: str
    verdict: Level
    findings: tuple[Finding, ...]


class _Places(msgspec.Struct, frozen=True):
    """The settings that a doctor needs, out of control.json or comms.json."""

    robot_id: str = ""
    keys_dir: str = ""
    ring_name: str = ""
    hub_endpoint: str = ""


Found = Iterator[Finding]


def diagnose(state: Path) -> Diagnosis:
    """Look at everything.

    Raises:
        LogFolderError: the folder is missing or holds no log.
        LogFormatError: the log is foreign or of a newer version.
    """
    folders = find_folders(state)
    index = open_log(folders[0])
    places = _places(state)
    now_ns, here = time.time_ns(), any(h.boot_id == read_boot_id() for h in index.headers)
    checks: tuple[Callable[[], Found], ...] = (
        lambda: _disk(state, index, here),
        lambda: _clock(index, now_ns, here),
        lambda: _keys(state, places),
        lambda: _log(index),
        lambda: _slots(state),
        lambda: _running(places, here),
        lambda: _link(index, places),
        lambda: _sensors(index),
        lambda: _faults(index),
    )
    findings: list[Finding] = []
    for check in checks:
        try:
            findings += check()
        except (AgentError, ContractError, OSError) as error:
            findings.append(Finding("doctor", Level.LOOK, str(error)))
    known = [finding.level for finding in findings if finding.level is not Level.UNKNOWN]
    return Diagnosis(index.robot, max(known, default=Level.WELL), tuple(findings))


def _places(state: Path) -> _Places:
    found = _Places()
    for name in ("control.json", "comms.json"):
        try:
            more = msgspec.json.decode((state / name).read_bytes(), type=_Places)
        except (OSError, msgspec.MsgspecError):
            continue
        values = {f: getattr(more, f) or getattr(found, f) for f in _Places.__struct_fields__}
        found = _Places(**values)
    return found


def _disk(state: Path, index: LogIndex, here: bool) -> Found:
    used = sum(path.stat().st_size for path in index.folder.iterdir() if path.is_file())
    share = used / LOG_BUDGET_BYTES
    full = Level.LOOK if share > 0.95 else Level.WELL
    yield Finding("log size", full, f"{used / 1e6:.0f} MB, {100 * share:.0f} % of its budget")
    if not here:
        yield Finding("disk", Level.UNKNOWN, "this folder was copied from another machine")
        return
    free = shutil.disk_usage(state).free
    level = Level.BAD if free < FREE_BAD_BYTES else Level.LOOK if free < FREE_WARN_BYTES else Level.WELL
    do = "" if level is Level.WELL else "free some space: the log drops records, and no update fits"
    yield Finding("disk", level, f"{free / 1e9:.1f} GB free", do)


def _clock(index: LogIndex, now_ns: int, here: bool) -> Found:
    rows = index.recent(RECENT_NS, ())
    last_ns = int(rows["wall_ns"].max()) if len(rows) else index.first_wall_ns
    if last_ns < CLOCK_EPOCH_NS:
        yield Finding("clock", Level.BAD, "was never set", "set it (NTP): keys and updates expire by it")
        return
    if here and last_ns > now_ns + 60 * NS:
        yield Finding("clock", Level.BAD, "the newest record is from the future", "set the clock (NTP)")
        return
    offset = rows["wall_ns"] - rows["mono_ns"]
    steps = np.abs(np.diff(offset)) > CLOCK_STEP_NS if len(rows) else np.zeros(0, np.bool_)
    if steps.any():
        what = f"was set {int(steps.sum())} times in the last {RECENT_NS // NS} s of the log"
        yield Finding("clock", Level.LOOK, what, "see whether NTP keeps it; monotonic times are not touched")
        return
    yield Finding("clock", Level.WELL, f"steady; last record {_when(last_ns)}")


def _when(wall_ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(wall_ns / NS))


def _keys(state: Path, places: _Places) -> Found:
    own = state / KEY_FILE
    if own.exists() and own.stat().st_mode & 0o077:
        yield Finding("log key", Level.BAD, "is readable by others", f"chmod 600 {own}")
    if not places.keys_dir or not Path(places.keys_dir).is_dir():
        yield Finding("keys", Level.UNKNOWN, "their folder is not on this machine")
        return
    folder = party_folder(Path(places.keys_dir), "robots", places.robot_id)
    try:
        read_key_file(folder / CURVE_FILE, CurvePair, private=True)
        read_key_file(folder / HUB_PUBLIC_FILE, CurvePublic)
        TrustedKeys.load(folder / TRUSTED_FILE)
    except ContractError as error:
        yield Finding("keys", Level.BAD, str(error), "without them the robot hears of no update")
        return
    yield Finding("keys", Level.WELL, "curve pair, hub and release keys are readable")


def _log(index: LogIndex) -> Found:
    found = verify_folder(index.folder)
    for broken in [f for f in found.findings if f.state == "broken"][:FAULTS_SHOWN]:
        do = "copy the folder before anything else; `outrider logs verify` says more"
        yield Finding("log chain", Level.BAD, f"{broken.segment}: {broken.what}", do)
    for damage in index.damage:
        yield Finding("log", Level.LOOK, damage, "the whole records before it are read")
    if found.whole:
        yield Finding("log chain", Level.WELL, f"{found.sealed} sealed segments, {found.records} records")
    if found.dropped:
        do = "collect the log oftener, or bring the robot into reach of the hub"
        yield Finding("log", Level.LOOK, f"{found.dropped} records dropped for room, no incidents", do)


def _slots(state: Path) -> Found:
    if not (state / "slots" / ACTIVE_FILE).exists():
        yield Finding(
            "update slots", Level.LOOK, "no policy was ever committed: the rules drive", "release one"
        )
        return
    store = SlotStore(state)
    for name, entry in (("active", store.active()), ("previous", store.previous())):
        if entry is None:
            if name == "active":
                yield Finding(
                    "update slots", Level.BAD, "the active policy is missing: the rules drive", "release it"
                )
            continue
        same = digest_hex(Path(entry.path).read_bytes()) == entry.digest
        what = f"{name}: {entry.facts.policy_name} {entry.facts.version} {entry.digest[:12]}"
        if same:
            yield Finding("update slots", Level.WELL, what)
        else:
            yield Finding("update slots", Level.BAD, f"{what} was changed on disk", "release it again")


def _running(places: _Places, here: bool) -> Found:
    beat_ns, pid = read_heartbeat(places.ring_name) if here and places.ring_name else (0, 0)
    if not beat_ns:
        yield Finding("agent", Level.UNKNOWN, "does not run here")
        return
    silent_s = (time.monotonic_ns() - beat_ns) / NS
    if silent_s > SILENT_MAX_S:
        do = "see control.log; `outrider agent run` starts it"
        yield Finding("agent", Level.LOOK, f"control has been silent for {silent_s:.0f} s", do)
    else:
        yield Finding("agent", Level.WELL, f"control runs (process {pid})")


def _link(index: LogIndex, places: _Places) -> Found:
    events = [e for _, e in index.load(fields=()).events if e.name in ("hub_online", "hub_offline")]
    acked = read_acked(index.folder)
    last = [h.log_id for h in index.headers][-1:]
    unsent = _last_seq(index) - acked.acked_seq if acked and [acked.log_id] == last else None
    waiting = (
        "how much is unsent is not known" if unsent is None else f"{max(unsent, 0)} records not at the hub"
    )
    if not events:
        yield Finding("link", Level.LOOK, f"the hub was never reached; {waiting}", _reach(places))
    elif events[-1].name == "hub_offline":
        why = str(events[-1].detail.get("why", "")) or "no answer"
        yield Finding(
            "link",
            Level.LOOK,
            f"offline since {_when(events[-1].wall_ns)} ({why}); {waiting}",
            _reach(places),
        )
    else:
        level = Level.LOOK if unsent is not None and unsent > UNSENT_WARN else Level.WELL
        yield Finding("link", level, f"online since {_when(events[-1].wall_ns)}; {waiting}")


def _reach(places: _Places) -> str:
    return f"is {places.hub_endpoint or 'the hub'} reachable from here, and does it know this robot's key?"


def _last_seq(index: LogIndex) -> int:
    for live in reversed(index.live):
        seqs = [int(live.seqs[-1])] if len(live.seqs) else []
        seqs += [seq for seq, _ in live.events + live.debug]
        if seqs:
            return max(seqs)
    return index.sealed[-1].last_seq if index.sealed else 0


def _sensors(index: LogIndex) -> Found:
    rows = index.recent(RECENT_NS, _RECENT_FIELDS)
    if not len(rows):
        yield Finding("sensors", Level.UNKNOWN, "no decision in the log")
        return
    config = MonitorConfig()
    for name, limit_s in (("scan", config.scan_stale_max_s), ("odometry", config.odometry_stale_max_s)):
        ages_s = rows[f"{name}_age_us"] / 1e6
        p99_s, stale = float(np.percentile(ages_s, 99)), float((ages_s > limit_s).mean())
        level = Level.LOOK if stale > SENSOR_SHARE_WARN else Level.WELL
        what = f"{1e3 * min(p99_s, 3600.0):.0f} ms old at the 99th percentile, {100 * stale:.1f} % stale"
        yield Finding(name, level, what, "look at its cable, driver and network" if level else "")
    faulty = np.isin(rows["reason"], _SENSOR_REASONS)
    if faulty.mean() > SENSOR_SHARE_WARN:
        worst = int(np.bincount(rows["reason"][faulty]).argmax())
        what = f"{100 * faulty.mean():.0f} % of ticks had a sensor fault, mostly {in_words(Reason(worst))}"
        level = Level.BAD if bool(faulty[-1]) else Level.LOOK
        yield Finding("sensors", level, what, "see docs/safety/faults.md for what clears it")
    missed = np.diff(rows["missed_ticks"].astype(np.int64))
    skipped = int(missed[missed > 0].sum())
    level = Level.LOOK if skipped > SENSOR_SHARE_WARN * len(rows) else Level.WELL
    p99_us = float(np.percentile(rows["total_us"], 99))
    armed = "armed" if rows["flags"][-1] & FLAG_ARMED else "not armed"
    yield Finding("ticks", level, f"p99 {p99_us:.0f} us, {skipped} of {len(rows)} missed; {armed} at the end")


def _faults(index: LogIndex) -> Found:
    incidents = index.incidents
    if not incidents:
        yield Finding("faults", Level.WELL, "no incident in the log")
        return
    for incident in incidents[-FAULTS_SHOWN:]:
        tick = f"tick {incident.tick}: " if incident.tick else ""
        do = f"outrider logs show STATE --tick {incident.tick}" if incident.tick else ""
        yield Finding("last faults", Level.LOOK, f"{_when(incident.wall_ns)} {tick}{incident.what}", do)
