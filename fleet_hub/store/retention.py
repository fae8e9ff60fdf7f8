"""How long the hub keeps what: by class, age and size, except for what somebody holds. Whole files go, oldest first.

Rules and holds are a YAML or JSON file of the hub's owner. ``records`` are the intake's own logs: of them only closed
segments go that the store has taken in, and the newest ``SEGMENTS_KEPT`` of a log stay, for the hub reads from them
where a robot's log ends.
"""

import time
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec

from contracts.framelog import list_segments
from contracts.keyring import PartyName
from contracts.replay import KINDS, WALL_MAX_NS, stored_files
from fleet_hub.errors import RetentionError
from fleet_hub.store.replay import Ingest

RULES_MAX_BYTES = 256 * 1024
SEGMENTS_KEPT = 4
DAY_NS = 86_400 * 10**9
RECORDS = "records"
DataClass = Literal["decisions", "episodes", "minutes", "records"]
Positive = Annotated[float, msgspec.Meta(gt=0.0, le=1e9)]


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much of a class is kept; what is not given has no limit."""

    data: DataClass
    days_max: Positive | None = None
    gigabytes_max: Positive | None = None


class Hold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept whatever the rules say: a robot's ("" is all), in a time, of a policy ("" is any)."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    kind: Literal["legal", "training"]
    robot: PartyName | Literal[""] = ""
    since: datetime | None = None
    until: datetime | None = None
    policy_digest: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{8,64})?$")] = ""


class Retention(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    rules: Annotated[tuple[Rule, ...], msgspec.Meta(min_length=1, max_length=16)]
    holds: Annotated[tuple[Hold, ...], msgspec.Meta(max_length=1024)] = ()


class Kept(msgspec.Struct):
    """What one class has, and what of it goes."""

    data: str
    files: int = 0
    size_bytes: int = 0
    held_files: int = 0
    removed_files: int = 0
    removed_bytes: int = 0


class _File(NamedTuple):
    path: Path
    name: str
    """In the catalogue; "" for a segment of the intake."""
    robot: str
    policies: frozenset[str]
    wall_ns: tuple[int, int]
    size_bytes: int


def load_retention(path: Path) -> Retention:
    """Read rules; raises RetentionError."""
    try:
        with path.open("rb") as file:
            data = file.read(RULES_MAX_BYTES + 1)
        if len(data) > RULES_MAX_BYTES:
            raise RetentionError(f"{path} is larger than {RULES_MAX_BYTES} bytes; it holds no rules")
        rules = msgspec.yaml.decode(data, type=Retention)
    except OSError as error:
        raise RetentionError(f"no rules at {path} ({error.strerror})") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())  # YAML's parser speaks in paragraphs
        raise RetentionError(f"{path}: {why}; see docs/operations/store.md") from None
    if len({rule.data for rule in rules.rules}) != len(rules.rules):
        raise RetentionError(f"{path}: two rules for one class; join them")
    naive = [h.name for h in rules.holds for at in (h.since, h.until) if at is not None and at.tzinfo is None]
    if naive:
        raise RetentionError(
            f"{path}: hold {naive[0]!r} has a time without its zone; write 2026-11-23T10:00:00Z"
        )
    return rules


def retain(data: Path, rules: Retention, now_ns: int | None = None, dry_run: bool = False) -> list[Kept]:
    """Remove what the rules do not keep; with ``dry_run`` only say what would go.

    Raises:
        DataFolderError: ``data`` is no hub's.
        StoreBusyError: somebody ingests all the time.
        OSError: the disk refused; what went before is gone.
    """
    now_ns = time.time_ns() if now_ns is None else now_ns
    found = []
    with Ingest(data) as ingest:
        for rule in rules.rules:
            files = sorted(_files(ingest, data, rule.data), key=lambda file: file.wall_ns[1])
            kept = Kept(rule.data, len(files), sum(file.size_bytes for file in files))
            for file in _too_much(files, rule, rules.holds, now_ns, kept):
                kept.removed_files += 1
                kept.removed_bytes += file.size_bytes
                if not dry_run:
                    ingest.forget(file.name, file.path)
            found.append(kept)
    return found


def _files(ingest: Ingest, data: Path, kind: str) -> Iterator[_File]:
    if kind != RECORDS:
        assert kind in KINDS
        for file in stored_files(ingest.store, kind):
            wall = (file.first_wall_ns, file.last_wall_ns)
            policies = frozenset({file.policy_digest})
            yield _File(ingest.store / file.path, file.path, file.robot, policies, wall, file.size_bytes)
        return
    for folder in sorted((data / "telemetry").glob("*/*")):
        segments = [segment for segment in list_segments(folder) if segment.header is not None]
        taken = ingest.taken(folder.parent.name, folder.name)
        for segment, after in pairwise(segments):
            assert segment.header is not None
            assert after.header is not None
            if segment in segments[-SEGMENTS_KEPT:] or after.header.first_seq - 1 > taken:
                continue
            wall = (segment.header.created_wall_ns, after.header.created_wall_ns)
            size = segment.path.stat().st_size
            yield _File(segment.path, "", folder.parent.name, frozenset(), wall, size)


def _too_much(
    files: list[_File], rule: Rule, holds: tuple[Hold, ...], now_ns: int, kept: Kept
) -> Iterator[_File]:
    """Oldest first: those beyond the age, then as many as the size needs."""
    oldest_ns = now_ns - int(rule.days_max * DAY_NS) if rule.days_max is not None else -1
    size_max = rule.gigabytes_max * 1e9 if rule.gigabytes_max is not None else float("inf")
    left = float(kept.size_bytes)
    for file in files:
        if file.wall_ns[1] >= oldest_ns and left <= size_max:
            return
        if any(_holds(hold, file) for hold in holds):
            kept.held_files += 1
            continue
        left -= file.size_bytes
        yield file


def _holds(hold: Hold, file: _File) -> bool:
    """Files of several robots, and logs, whose policies are not known here, are held to be on the safe side."""
    since = int(hold.since.timestamp() * 1e9) if hold.since else 0
    until = int(hold.until.timestamp() * 1e9) if hold.until else WALL_MAX_NS
    robot = hold.robot in ("", file.robot) or not file.robot
    digests = {digest for digest in file.policies if digest}
    policy = not hold.policy_digest or not digests or any(d.startswith(hold.policy_digest) for d in digests)
    return robot and policy and file.wall_ns[0] <= until and file.wall_ns[1] >= since
