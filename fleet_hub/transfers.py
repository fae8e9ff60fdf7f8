"""Who may fetch bundles now, and who must wait how long: a cap, a queue with a bound, rates. No sockets, no clock.

Every question costs a robot its turn: with a place it gets bytes, without one a time after which to ask again. Places
go first come, first served; who does not come back loses his, so that dead robots never hold up the living.
"""

from collections import OrderedDict
from dataclasses import dataclass

import msgspec

from fleet_hub.limits import ROBOT_MESSAGES_BURST, ROBOT_MESSAGES_PER_S

NS = 1_000_000_000
WAIT_MIN_MS, WAIT_MAX_MS = 50, 30_000
IDLE_MAX_S = 10.0
"""A transfer that asks for nothing for so long gives its place up."""
PLACE_MAX_S = 60.0
"""So long may a transfer keep its place while others wait: a slow link goes on behind them."""
LATE_MAX_S = 10.0
"""So much later than told may a waiting robot come back and still have its turn."""
WAITING_MAX = 8_192
TRANSFER_GUESS_S = 0.5
"""How long one transfer takes, before any has been seen."""
SEEN_WEIGHT = 0.1
BURST_S = 0.5
"""A rate's unused share of the last half second may be used at once; never less than a chunk."""


class TransferLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one hub gives away at most; bytes are those of bundles."""

    at_once: int = 256
    """Robots that fetch at the same time."""
    robot_bytes_per_s: float = 32e6
    fleet_bytes_per_s: float = 1e9

    def __post_init__(self) -> None:
        """No zero takes a limit off, or lets nothing through."""
        if self.at_once < 1 or not (self.robot_bytes_per_s > 0.0 and self.fleet_bytes_per_s > 0.0):
            raise ValueError("limits of transfers must be above zero")


class Bucket:
    """A token bucket: ``rate`` units a second, at most ``burst`` saved up."""

    def __init__(self, rate: float, burst: float, now_ns: int) -> None:
        """Full at the start."""
        self._rate, self._burst, self._level, self._filled_ns = rate, burst, burst, now_ns

    def wait_s(self, now_ns: int) -> float:
        """Seconds until something may be taken; 0.0 for now."""
        self._level = min(self._burst, self._level + self._rate * max(0, now_ns - self._filled_ns) / NS)
        self._filled_ns = max(now_ns, self._filled_ns)
        return max(0.0, -self._level / self._rate)

    def take(self, units: float) -> None:
        """Use some, more than there is where need be: whoever comes next waits for it."""
        self._level -= units


class SpeechLimit:
    """How much each robot may say; a flood of one costs the others nothing but its reading."""

    def __init__(self) -> None:
        """Nobody has said anything."""
        self._buckets: dict[str, Bucket] = {}

    def allows(self, robot: str, now_ns: int) -> bool:
        """Whether the robot keeps to its rate with one message more, which is then counted."""
        bucket = self._buckets.get(robot)
        if bucket is None:
            bucket = self._buckets[robot] = Bucket(ROBOT_MESSAGES_PER_S, ROBOT_MESSAGES_BURST, now_ns)
        if bucket.wait_s(now_ns) > 0.0:
            return False
        bucket.take(1.0)
        return True


@dataclass
class _Transfer:
    digest: str
    began_ns: int
    heard_ns: int


class Transfers:
    """All transfers of one hub."""

    def __init__(self, limits: TransferLimits, now_ns: int) -> None:
        """Nobody fetches, nobody waits."""
        self._limits = limits
        self._active: dict[str, _Transfer] = {}
        self._due_ns: OrderedDict[str, int] = OrderedDict()
        self._fleet = self._bucket(limits.fleet_bytes_per_s, now_ns)
        self._robots: dict[str, Bucket] = {}
        self._took_s = TRANSFER_GUESS_S
        self._tidied_ns = now_ns
        self.told_to_wait = 0

    @staticmethod
    def _bucket(rate: float, now_ns: int) -> Bucket:
        return Bucket(rate, rate * BURST_S, now_ns)

    @property
    def active(self) -> int:
        """Robots with a place."""
        return len(self._active)

    @property
    def waiting(self) -> int:
        """Robots that were told to wait for one."""
        return len(self._due_ns)

    def ask(self, robot: str, digest: str, now_ns: int) -> int:
        """Milliseconds that the robot must wait before it asks again; 0 when it may have its bytes now."""
        self._tidy(now_ns)
        if not self._admit(robot, digest, now_ns):
            return self._told(self._queue(robot, now_ns))
        own = self._robots.get(robot)
        if own is None:
            own = self._robots[robot] = self._bucket(self._limits.robot_bytes_per_s, now_ns)
        wait_s = max(own.wait_s(now_ns), self._fleet.wait_s(now_ns))
        return self._told(wait_s) if wait_s > 0.0 else 0

    def sent(self, robot: str, count: int, last: bool, now_ns: int) -> None:
        """Bytes have gone out; with the ``last`` ones the place is free."""
        for bucket in (self._robots.get(robot), self._fleet):
            if bucket:
                bucket.take(count)
        if last and (done := self._active.pop(robot, None)):
            took_s = (now_ns - done.began_ns) / NS
            self._took_s += SEEN_WEIGHT * (took_s - self._took_s)

    def gone(self, robot: str) -> None:
        """The robot's connection is no more."""
        self._active.pop(robot, None)
        self._robots.pop(robot, None)

    def _told(self, wait_s: float) -> int:
        self.told_to_wait += 1
        return int(min(max(wait_s * 1000.0, WAIT_MIN_MS), WAIT_MAX_MS))

    def _admit(self, robot: str, digest: str, now_ns: int) -> bool:
        known = self._active.get(robot)
        if known is not None:
            if known.digest != digest:
                known.digest, known.began_ns = digest, now_ns
            known.heard_ns = now_ns
            return True
        free = self._limits.at_once - len(self._active)
        if free <= 0 or (len(self._due_ns) >= free and not self._is_next(robot, free)):
            return False
        self._due_ns.pop(robot, None)
        self._active[robot] = _Transfer(digest, now_ns, now_ns)
        return True

    def _is_next(self, robot: str, free: int) -> bool:
        return any(name == robot for name, _ in zip(self._due_ns, range(free), strict=False))

    def _queue(self, robot: str, now_ns: int) -> float:
        """Seconds until this robot's turn, by what transfers took of late; a full queue keeps no place."""
        if robot not in self._due_ns and len(self._due_ns) >= WAITING_MAX:
            return WAIT_MAX_MS / 1000.0
        self._due_ns.setdefault(robot, now_ns)
        place = next(number for number, name in enumerate(self._due_ns, 1) if name == robot)
        wait_s = self._took_s * (place / self._limits.at_once)
        self._due_ns[robot] = now_ns + int(min(wait_s, WAIT_MAX_MS / 1000.0) * NS)
        return wait_s

    def _tidy(self, now_ns: int) -> None:
        """Once a second: who has not come back loses place or turn."""
        if now_ns - self._tidied_ns < NS:
            return
        self._tidied_ns = now_ns
        idle_ns, old_ns = now_ns - int(IDLE_MAX_S * NS), now_ns - int(PLACE_MAX_S * NS)
        for robot, found in list(self._active.items()):
            if found.heard_ns < idle_ns or (self._due_ns and found.began_ns < old_ns):
                del self._active[robot]
        late_ns = now_ns - int(LATE_MAX_S * NS)
        for robot in [name for name, due_ns in self._due_ns.items() if due_ns < late_ns]:
            del self._due_ns[robot]
