"""Which trips count for a stage's gates: those of its robots since all of them run the release, and of robots that
do not, at the same time; and of the same robots from before."""

from collections.abc import Sequence

from contracts.plan import Stage, share_of
from fleet_hub.rollout import events as ev
from fleet_hub.rollout.gates import BEFORE_ROUNDS_MAX, judge
from fleet_hub.rollout.machine import NS, UNDER_WAY, Fleet, State
from fleet_hub.rollout.trip_store import TripStore
from fleet_hub.rollout.trips import TRIP_MAX_S, Trip

JUDGE_INTERVAL_S = 2.0
CONTROLS_MAX = 32
IDLE_MAX_S = 4.0 * TRIP_MAX_S
"""A control robot without a trip for so long has no work: rounds do not wait for it."""


class EvidenceRoom:
    """Judges stages under way, and remembers the newest judgement of each for whoever looks."""

    def __init__(self, trips: TripStore) -> None:
        """Use the hub's trips."""
        self._trips = trips
        self._judged_ns: dict[int, int] = {}
        self._latest: dict[tuple[int, int], ev.Judged] = {}

    def latest(self, rollout: int, stage: int) -> ev.Judged | None:
        """The newest judgement since this hub was started."""
        return self._latest.get((rollout, stage))

    def judge(self, rollout: int, state: State, fleet: Fleet, now_ns: int) -> ev.Judged | None:
        """The judgement of the stage under way, when it is news: another verdict, or trips enough."""
        stage = state.plan.stages[state.stage]
        if state.state != "running" or not stage.minimum_trips or state.stage in state.passed:
            return None
        if now_ns - self._judged_ns.get(rollout, 0) < JUDGE_INTERVAL_S * NS:
            return None
        self._judged_ns[rollout] = now_ns
        judged = self._judge(state, stage, fleet, now_ns)
        if judged is None:
            return None
        self._latest[rollout, state.stage] = judged
        known = state.judged.get(state.stage)
        before = (known.verdict, known.trips >= stage.minimum_trips) if known else None
        return judged if (judged.verdict, judged.trips >= stage.minimum_trips) != before else None

    def _judge(self, state: State, stage: Stage, fleet: Fleet, now_ns: int) -> ev.Judged | None:
        tracks = {robot: track for robot, track in state.robots.items() if track.stage == state.stage}
        canaries = sorted(robot for robot, track in tracks.items() if track.active_ns)
        if not canaries or any(track.state in UNDER_WAY for track in tracks.values()):
            return None
        start_ns = max(tracks[robot].active_ns for robot in canaries)
        began_ns = state.stage_began_ns[state.stage]
        after = [self._trips.since(robot, start_ns) for robot in canaries]
        trips = sum(len(found) for found in after)
        if not stage.gates:
            return ev.Judged(state.stage, "promote", trips, ())
        controls, beside = self._controls(state, fleet, start_ns, now_ns)
        before = [self._before(robot, began_ns) for robot in canaries]
        verdict, gates = judge(
            stage.gates, state.plan.level, (after, beside),
            (before, [self._before(robot, began_ns) for robot in controls]),
        )  # fmt: skip
        return ev.Judged(state.stage, verdict, trips, gates)

    def _controls(
        self, state: State, fleet: Fleet, start_ns: int, now_ns: int
    ) -> tuple[list[str], list[Sequence[Trip]]]:
        """Robots that have not been told, and work; which of many is drawn by the plan, not by how they do."""
        told = {
            robot
            for robot, track in state.robots.items()
            if state.plan.stages[track.stage].kind != "shadow" or track.state in UNDER_WAY
        }
        names = sorted(fleet.online - told, key=lambda robot: share_of(state.plan.name, robot))
        controls: list[str] = []
        beside: list[Sequence[Trip]] = []
        for robot in names:
            found = self._trips.since(robot, start_ns)
            heard_ns = found[-1].began_wall_ns if found else start_ns
            if now_ns - heard_ns <= IDLE_MAX_S * NS:
                controls.append(robot)
                beside.append(found)
            if len(controls) >= CONTROLS_MAX:
                break
        return controls, beside

    def _before(self, robot: str, began_ns: int) -> Sequence[Trip]:
        return self._trips.before(robot, began_ns, BEFORE_ROUNDS_MAX)
