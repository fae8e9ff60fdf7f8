"""Trips out of decision records: how long each took, and what happened on the way. Pure; one watch a robot.

A trip begins with the first armed tick towards a goal and ends within ARRIVED_M of it, or TRIP_MAX_S later as
aborted: a policy that never arrives still gives its figures in time. A trip that an operator stopped, and what is
left of one after its end, count for nobody.
"""

from collections import Counter

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
POLICIES_MAX = 16
"""Told apart in one trip; a robot changes its policy once or twice on its way, if at all."""
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


class _UnderWay:
    """What a trip has been so far. Of its records nothing stays in memory."""

    def __init__(self, began_ns: int) -> None:
        self.began_ns = began_ns
        self._first_seq = self._last_seq = self._began_wall_ns = self._ended_ns = 0
        self._ticks = self._took = self._fell_back = self._slow = 0
        self._clearance_m = np.inf
        self._policies: Counter[str] = Counter()

    def add(self, records: Records, seqs: npt.NDArray[np.int64]) -> None:
        """The next of its records: DECISION_DTYPE[n], at least one, and their numbers int64[n]."""
        if not self._ticks:
            self._first_seq, self._began_wall_ns = int(seqs[0]), int(records["wall_ns"][0])
        self._last_seq, self._ended_ns = int(seqs[-1]), int(records["mono_ns"][-1])
        self._ticks += len(records)
        self._took += int(intervened(records).sum())
        self._fell_back += int(
            ((records["mode"] == Mode.CONTROLLER) & (records["source"] == Source.RULE_BASED)).sum()
        )
        self._slow += int((records["total_us"] > SLOW_TICK_US).sum())
        # What is no number is not near anything.
        self._clearance_m = min(self._clearance_m, float(np.fmin.reduce(records["clearance_m"])))
        for digest, ticks in count_policies(records["policy_digest"]).items():
            if digest in self._policies or len(self._policies) < POLICIES_MAX:
                self._policies[digest] += ticks

    def summary(self, arrived: bool) -> Trip:
        """The trip, which ended with what was added last."""
        took_s = (self._ended_ns - self.began_ns) / 1e9
        return Trip(
            first_seq=self._first_seq,
            last_seq=self._last_seq,
            began_wall_ns=self._began_wall_ns,
            policy=self._policies.most_common(1)[0][0],
            delivery_time_s=min(took_s, TRIP_MAX_S) if arrived else TRIP_MAX_S,
            aborted=float(not arrived),
            contacts=float(self._clearance_m <= 0.0),
            near_misses=float(self._clearance_m < NEAR_M),
            interventions=self._took / self._ticks,
            slow_ticks=self._slow / self._ticks,
            fallbacks=self._fell_back / self._ticks,
        )


class TripWatch:
    """One robot's records in order, in batches of any size; trips come out when they end."""

    def __init__(self) -> None:
        self._trip: _UnderWay | None = None
        self._number = 0
        self._done = True
        self._last_mono_ns = 0

    def add(self, records: Records, seqs: npt.NDArray[np.int64]) -> list[Trip]:
        """Take DECISION_DTYPE[n] and their sequence numbers int64[n]; the trips that ended in them."""
        ended: list[Trip] = []
        if not len(records):
            return ended
        number, mono_ns = records["trip"], records["mono_ns"]
        other = (number[1:] != number[:-1]) | (mono_ns[1:] < mono_ns[:-1])
        cuts = (np.flatnonzero(other) + 1).tolist()
        for start, stop in zip([0, *cuts], [*cuts, len(records)], strict=True):
            ended += self._stretch(records[start:stop], seqs[start:stop])
        return ended

    def _stretch(self, records: Records, seqs: npt.NDArray[np.int64]) -> list[Trip]:
        """Records of one trip number, a whole trip or part of one."""
        number, mono_ns = int(records["trip"][0]), int(records["mono_ns"][0])
        if number != self._number or mono_ns < self._last_mono_ns:
            self._number, self._trip, self._done = number, None, number == 0
        self._last_mono_ns = int(records["mono_ns"][-1])
        if self._done:
            return []
        if self._trip is None:
            armed = np.flatnonzero(records["flags"] & FLAG_ARMED)
            if not len(armed):
                return []
            records, seqs = records[armed[0] :], seqs[armed[0] :]
        if (records["reason"] == Reason.STOP_REQUESTED).any():
            self._done, self._trip = True, None
            return []
        trip = self._trip or _UnderWay(int(records["mono_ns"][0]))
        away_m = np.hypot(*(records["pose"][:, :2] - records["goal"][:, :2]).T)
        late = records["mono_ns"] - trip.began_ns >= TRIP_MAX_S * 1e9
        over = np.flatnonzero((away_m < ARRIVED_M) | late)
        if not len(over):
            self._trip = trip
            trip.add(records, seqs)
            return []
        end = int(over[0])
        trip.add(records[: end + 1], seqs[: end + 1])
        self._done, self._trip = True, None
        return [trip.summary(arrived=bool(away_m[end] < ARRIVED_M))]


def intervened(records: Records) -> npt.NDArray[np.bool_]:
    """In which of DECISION_DTYPE[n] the monitor took most of the command away: bool[n]."""
    took: npt.NDArray[np.bool_] = _TAKES_AWAY[records["reason"]]
    asked = took.nonzero()[0]
    weight = np.array([1.0, TURN_WEIGHT_M])
    left = np.abs(records["final_command"][asked]) @ weight
    wanted = np.abs(records["raw_command"][asked]) @ weight
    took[asked] = ~(left >= INTERVENTION_SHARE * wanted)
    return took
