"""The rollout's state machine: events in, events out, time as an argument. No disk, no socket, no clock.

``State.apply`` folds events, ``decide`` says what happens next, ``order_for`` what a robot should be told. Only
events are kept: a hub that was killed folds them again and goes on where it was.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from contracts.plan import Plan, Stage
from fleet_hub.rollout import events as ev

NS = 1_000_000_000
UNDER_WAY = frozenset({"ordered", "downloading", "staged"})
DONE = frozenset({"soaked", "shadowed"})
FAILED = frozenset({"refused", "failed", "silent"})
OPEN = frozenset({"running", "paused"})
NOT_TAKEN_BACK = frozenset({"refused", "shadowed", "left"})
"""These have nothing of the release to take back, or nobody can tell them."""
Action = Literal["run", "shadow", "revert"]


@dataclass
class Track:
    """One robot in one rollout; times are the hub's wall clock."""

    stage: int
    state: str
    since_ns: int
    active_ns: int = 0
    code: str = ""
    reason: str = ""


@dataclass
class Fleet:
    """What the hub knows at one moment: who belongs to which stages, and when each robot was last heard."""

    members: Mapping[int, frozenset[str]]
    heard_ns: Mapping[str, int]
    online: frozenset[str]


@dataclass
class State:
    """A rollout as its events have made it."""

    plan: Plan
    state: str = "running"
    reason: str = ""
    stage: int = 0
    stage_began_ns: dict[int, int] = field(default_factory=dict)
    passed: set[int] = field(default_factory=set)
    robots: dict[str, Track] = field(default_factory=dict)
    judged: dict[int, ev.Judged] = field(default_factory=dict)
    reverting: bool = False
    paused_ns: int = 0
    started_by: str = ""
    started_ns: int = 0
    last_ns: int = 0

    def apply(self, event: ev.Entry, who: str, wall_ns: int) -> None:
        """Fold one event."""
        self.last_ns = max(self.last_ns, wall_ns)
        match event:
            case ev.Started():
                self.started_by, self.started_ns = who, wall_ns
            case ev.StageBegan(stage):
                self.stage, self.stage_began_ns[stage] = stage, wall_ns
            case ev.Ordered(robot, stage):
                self.robots[robot] = Track(stage, "ordered", wall_ns)
            case ev.Reported():
                self._reported(event, wall_ns)
            case ev.FellSilent(robot):
                track = self.robots[robot]
                track.state, track.since_ns, track.code = "silent", wall_ns, "silent"
            case ev.Left(robot):
                self.robots[robot].state, self.robots[robot].since_ns = "left", wall_ns
            case ev.Judged(stage):
                self.judged[stage] = event
            case ev.StagePassed(stage):
                self.passed.add(stage)
            case ev.Paused():
                self.state, self.paused_ns = "paused", wall_ns
            case ev.Resumed():
                self._resumed(wall_ns)
            case ev.Stopped(reason, revert) | ev.Aborted(reason, revert):
                self._ended(
                    "stopped" if isinstance(event, ev.Stopped) else "aborted", reason, revert, wall_ns
                )
            case ev.Superseded(by):
                self._ended("superseded", f"by rollout {by}", False, wall_ns)
            case ev.Finished():
                self.state = "finished"

    def _reported(self, event: ev.Reported, wall_ns: int) -> None:
        track = self.robots[event.robot]
        if event.state == "active" and track.state != "active":
            track.active_ns = wall_ns
        track.state, track.since_ns = event.state, wall_ns
        track.code, track.reason = event.code, event.reason

    def _resumed(self, wall_ns: int) -> None:
        gone_ns = wall_ns - self.paused_ns
        self.state = "running"
        if self.stage in self.stage_began_ns:
            self.stage_began_ns[self.stage] += gone_ns
        for track in self.robots.values():
            track.since_ns += gone_ns

    def _ended(self, state: str, reason: str, revert: bool, wall_ns: int) -> None:
        self.state, self.reason, self.reverting = state, reason, revert
        if revert:
            for track in self.robots.values():
                if track.state not in NOT_TAKEN_BACK:
                    track.state, track.since_ns = "reverting", wall_ns

    @property
    def settled(self) -> bool:
        """Whether nothing can come of it any more."""
        return self.state not in {*OPEN, "finished"} and all(
            track.state != "reverting" for track in self.robots.values()
        )


def accepts(state: State, robot: str, report: ev.Reported) -> bool:
    """Whether a robot's report says something new about what it was told."""
    track = state.robots.get(robot)
    if track is None or track.stage != report.stage:
        return False
    if (track.state, track.code, track.reason) == (report.state, report.code, report.reason):
        return False
    if track.state == "reverting":
        return report.state in ("reverted", "refused")
    if track.state in ("reverted", "refused", "failed"):
        return False
    if report.state == "reverted":
        return False
    return not (track.state in DONE and report.state not in ("failed",))


def order_for(state: State, robot: str) -> tuple[Action, int] | None:
    """What this robot should be told now, and for which stage."""
    track = state.robots.get(robot)
    if track is None:
        return None
    if track.state == "reverting":
        return "revert", track.stage
    if state.state not in (*OPEN, "finished") or track.state not in (*UNDER_WAY, "active", "silent"):
        return None
    return ("shadow" if state.plan.stages[track.stage].kind == "shadow" else "run"), track.stage


def decide(state: State, now_ns: int, fleet: Fleet) -> list[ev.RolloutEvent]:
    """What happens next; apply it and ask again until there is nothing.

    Silence, refusals and the deadline end a stage; a stage passes when every robot of it has soaked, there were
    trips enough and every gate says so.
    """
    now_ns = max(now_ns, state.last_ns)
    if state.state not in ("running", "finished"):
        return []
    if state.state == "finished":
        return _orders(state, now_ns, fleet)
    stage = state.plan.stages[state.stage]
    if state.stage in state.passed:
        if state.stage + 1 == len(state.plan.stages):
            return [ev.Finished()]
        following = state.plan.stages[state.stage + 1]
        return [ev.StageBegan(state.stage + 1)] if _open(following, now_ns) else []
    if state.stage not in state.stage_began_ns:
        return [ev.StageBegan(state.stage)] if _open(stage, now_ns) else []
    if why := _breach(state, stage, now_ns, fleet):
        return [ev.Stopped(why, state.plan.on_stop == "revert")]
    silent = _silent(state, stage, now_ns, fleet)
    if silent:
        return silent
    if _passed(state, stage, now_ns, fleet):
        return [ev.StagePassed(state.stage)]
    return _orders(state, now_ns, fleet)


def _open(stage: Stage, now_ns: int) -> bool:
    return stage.window is None or stage.window.open(datetime.fromtimestamp(now_ns / NS, UTC))


def _orders(state: State, now_ns: int, fleet: Fleet) -> list[ev.RolloutEvent]:
    """Those that are there and not yet told, as many at once as may be; late ones of earlier stages too."""
    found: list[ev.RolloutEvent] = []
    driving = {i for i, stage in enumerate(state.plan.stages) if stage.kind != "shadow"}
    for index in range(state.stage + 1):
        stage = state.plan.stages[index]
        if not _open(stage, now_ns) or (index not in driving and index != state.stage):
            continue
        under_way = sum(track.stage == index and track.state in UNDER_WAY for track in state.robots.values())
        for robot in sorted(fleet.members[index] & fleet.online):
            if under_way >= stage.at_once:
                break
            track = state.robots.get(robot)
            if (
                track is None
                or track.state == "left"  # and has come back with keys of its own
                or (track.stage not in driving and index in driving)
            ):
                found.append(ev.Ordered(robot, index))
                under_way += 1
    return found


def _of_stage(state: State) -> dict[str, Track]:
    return {robot: track for robot, track in state.robots.items() if track.stage == state.stage}


def _silent(state: State, stage: Stage, now_ns: int, fleet: Fleet) -> list[ev.RolloutEvent]:
    return [
        ev.FellSilent(robot)
        for robot, track in sorted(_of_stage(state).items())
        if track.state in (*UNDER_WAY, "active")
        and now_ns - max(track.since_ns, fleet.heard_ns.get(robot, 0)) > stage.silence_s * NS
    ]


def _breach(state: State, stage: Stage, now_ns: int, fleet: Fleet) -> str:
    """Why the stage has failed; "" when it has not."""
    if why := _too_many_failed(state):
        return why
    judged = state.judged.get(state.stage)
    if judged and judged.verdict == "stop":
        bad = ", ".join(gate.metric for gate in judged.gates if gate.verdict == "stop")
        return f"stage {stage.name}: worse than the control robots in {bad}"
    if not _late(state, stage, now_ns):
        return ""
    tracks = _of_stage(state)
    if not fleet.members[state.stage]:
        return f"stage {stage.name} names no robot"
    undone = [
        robot
        for robot in fleet.members[state.stage]
        if robot not in tracks or tracks[robot].state not in DONE
    ]
    if len(undone) > stage.failures_max:
        return f"stage {stage.name}: {len(undone)} robot(s) not done by its deadline, first {min(undone)}"
    return "" if _judged_well(state, stage) else f"stage {stage.name}: undecided by its deadline"


def _too_many_failed(state: State) -> str:
    """Of this stage or of one before: what a canary does after its soak still counts."""
    for index, stage in enumerate(state.plan.stages[: state.stage + 1]):
        failed = {
            robot: track
            for robot, track in state.robots.items()
            if track.stage == index and track.state in FAILED
        }
        if len(failed) > stage.failures_max:
            first = min(failed)
            what = failed[first].reason or failed[first].code or failed[first].state
            return f"stage {stage.name}: {len(failed)} robot(s) failed, first {first}: {what}"[:500]
    return ""


def _late(state: State, stage: Stage, now_ns: int) -> bool:
    return now_ns - state.stage_began_ns[state.stage] > stage.deadline_s * NS


def _passed(state: State, stage: Stage, now_ns: int, fleet: Fleet) -> bool:
    members = fleet.members[state.stage]
    tracks = _of_stage(state)
    ended = {robot for robot, track in tracks.items() if track.state in (*DONE, *FAILED)}
    if not members <= ended and not _late(state, stage, now_ns):
        return False
    return bool(members) and _judged_well(state, stage)


def _judged_well(state: State, stage: Stage) -> bool:
    judged = state.judged.get(state.stage)
    trips = judged.trips if judged else 0
    return trips >= stage.minimum_trips and (
        not stage.gates or (judged is not None and judged.verdict == "promote")
    )
