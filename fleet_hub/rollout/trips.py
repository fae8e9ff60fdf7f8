"""Trips out of decision records: how long each took, and what happened on the way. Pure; one watch a robot.

A trip begins with the first armed tick towards a goal and ends within ARRIVED_M of it, or TRIP_MAX_S later as
aborted: a policy that never arrives still gives its figures in time. A trip that an operator stopped, and what is
left of one after its end, count for nobody.
"""

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.decision import (
    DECISION_DTYPE,
    FLAG_ARMED,
    INTERVENTION_SHARE,
    INTERVENTIONS,
    TURN_WEIGHT_M,
    Mode,
    Reason,
    Source,
    count_policies,
)

TRIP_MAX_S = 60.0
ARRIVED_M = 0.6
"""A little more than where the simulator counts a delivery (0.35 m): the last record may be from before."""
NEAR_M = 0.05
SLOW_TICK_US = 20_000
"""Observation, inference and monitor together: beyond this a tick is a slow one."""
KEPT_FIELDS = (
    "mono_ns", "wall_ns", "policy_digest", "reason", "mode", "source", "clearance_m", "raw_command", "final_command",
    "total_us",
)  # fmt: skip
"""All that a trip's summary reads: of a trip under way nothing else stays in memory."""
_KEPT_DTYPE = np.dtype(
    [(name, DECISION_DTYPE[name].base, DECISION_DTYPE[name].shape) for name in KEPT_FIELDS]
)
_TAKES_AWAY = np.zeros(np.iinfo(DECISION_DTYPE["reason"]).max + 1, np.bool_)
_TAKES_AWAY[sorted(INTERVENTIONS)] = True
"""By the reason's number, whatever number a robot names."""
Records = npt.NDArray[np.void]


class Trip(msgspec.Struct, frozen=True):
    """One trip; shares are of its ticks, flags 0 or 1."""

    first_seq: int
    last_seq: int
    began_wall_ns: int
    """The robot's own clock."""
    policy: str
    """Digest of the policy asked in most of its ticks; "" is none."""
    delivery_time_s: float
    aborted: float
    contacts: float
    near_misses: float
    interventions: float
    slow_ticks: float
    fallbacks: float


def end_ns(trip: Trip) -> int:
    """When a trip ended, the robot's wall clock."""
    return trip.began_wall_ns + int(trip.delivery_time_s * 1e9)


class TripWatch:
    """One robot's records in order, in batches of any size; trips come out when they end."""

    def __init__(self) -> None:
        self._ticks: list[tuple[Records, npt.NDArray[np.int64]]] = []
        self._trip = (0, 0)
        self._done = True
        self._last_mono_ns = 0

    def add(self, records: Records, seqs: npt.NDArray[np.int64]) -> list[Trip]:
        """Take DECISION_DTYPE[n] and their sequence numbers int64[n]; the trips that ended in them."""
        ended: list[Trip] = []
        if not len(records):
            return ended
        number = records["trip"].astype(np.int64)
        backwards = np.diff(records["mono_ns"], prepend=records["mono_ns"][0]) < 0
        cuts = np.flatnonzero((np.diff(number, prepend=number[0]) != 0) | backwards)
        for start, stop in zip([0, *cuts.tolist()], [*cuts.tolist(), len(records)], strict=True):
            if start < stop:
                ended += self._stretch(records[start:stop], seqs[start:stop])
        return ended

    def _stretch(self, records: Records, seqs: npt.NDArray[np.int64]) -> list[Trip]:
        """Records of one trip number, a whole trip or part of one."""
        number, mono_ns = int(records["trip"][0]), int(records["mono_ns"][0])
        if number != self._trip[0] or mono_ns < self._last_mono_ns:
            self._trip, self._ticks, self._done = (number, mono_ns), [], number == 0
        self._last_mono_ns = int(records["mono_ns"][-1])
        if self._done:
            return []
        if not self._ticks:
            armed = np.flatnonzero(records["flags"] & FLAG_ARMED)
            if not len(armed):
                return []
            records, seqs = records[armed[0] :], seqs[armed[0] :]
        if (records["reason"] == Reason.STOP_REQUESTED).any():
            self._done, self._ticks = True, []
            return []
        began_ns = int(self._ticks[0][0]["mono_ns"][0]) if self._ticks else int(records["mono_ns"][0])
        away_m = np.hypot(
            records["pose"][:, 0] - records["goal"][:, 0], records["pose"][:, 1] - records["goal"][:, 1]
        )
        late = records["mono_ns"] - began_ns >= TRIP_MAX_S * 1e9
        over = np.flatnonzero((away_m < ARRIVED_M) | late)
        if not len(over):
            self._ticks.append((_kept(records), seqs))
            return []
        end = int(over[0])
        self._ticks.append((_kept(records[: end + 1]), seqs[: end + 1]))
        trip = _summary(self._ticks, arrived=bool(away_m[end] < ARRIVED_M))
        self._done, self._ticks = True, []
        return [trip]


def _kept(records: Records) -> Records:
    kept = np.empty(len(records), _KEPT_DTYPE)
    for name in KEPT_FIELDS:
        kept[name] = records[name]
    return kept


def intervened(records: Records) -> npt.NDArray[np.bool_]:
    """In which of DECISION_DTYPE[n] the monitor took most of the command away: bool[n]."""
    weight = np.array([1.0, TURN_WEIGHT_M])
    left, wanted = np.abs(records["final_command"]) @ weight, np.abs(records["raw_command"]) @ weight
    most = ~(left >= INTERVENTION_SHARE * wanted)
    took: npt.NDArray[np.bool_] = _TAKES_AWAY[records["reason"]] & most
    return took


def _summary(ticks: list[tuple[Records, npt.NDArray[np.int64]]], arrived: bool) -> Trip:
    records = np.concatenate([part for part, _ in ticks])
    took = intervened(records)
    fell_back = (records["mode"] == Mode.CONTROLLER) & (records["source"] == Source.RULE_BASED)
    clearance_m = records["clearance_m"]
    took_s = (int(records["mono_ns"][-1]) - int(records["mono_ns"][0])) / 1e9
    return Trip(
        first_seq=int(ticks[0][1][0]),
        last_seq=int(ticks[-1][1][-1]),
        began_wall_ns=int(records["wall_ns"][0]),
        policy=count_policies(records["policy_digest"]).most_common(1)[0][0],
        delivery_time_s=min(took_s, TRIP_MAX_S) if arrived else TRIP_MAX_S,
        aborted=float(not arrived),
        contacts=float((clearance_m <= 0.0).any()),
        near_misses=float((clearance_m < NEAR_M).any()),
        interventions=float(took.mean()),
        slow_ticks=float((records["total_us"] > SLOW_TICK_US).mean()),
        fallbacks=float(fell_back.mean()),
    )
