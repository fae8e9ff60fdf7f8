"""``/diagnostics``: one array a second, for whoever watches many robots with the standard ROS tools."""

from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from contracts.decision import Reason, Verdict, in_words
from edge_agent.observe.slots import Slots
from safety.config import MonitorConfig
from safety.inputs import NS

INTERVAL_NS = 1_000_000_000
NEVER = "never"
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
Found = tuple[bytes, str, dict[str, object]]
"""Level, a line for people, values."""


class Diagnostics:
    """Publishes a node's state.

    Args:
        node: the node; its name and namespace begin every entry.
        config: of the monitor: how old it lets scan and odometry become, in robot time.
        factor: robot seconds in a second.
    """

    def __init__(self, node: Any, robot_id: str, config: MonitorConfig, factor: float = 1.0) -> None:
        self._node, self._robot_id, self._factor = node, robot_id, factor
        self._stale_ns = {
            "scan": config.scan_stale_max_s * NS,
            "odometry": config.odometry_stale_max_s * NS,
        }
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._name = f"{robot_id}/{node.get_name()}"
        self._due_ns = 0
        self._told: tuple[int, int, int] = (-1, 0, 0)
        self._faults: dict[str, int] = {}

    def close(self) -> None:
        """Let go of the publisher."""
        self._node.destroy_publisher(self._publisher)

    def work(
        self,
        now_ns: int,
        latest: Any,
        slots: Slots,
        policy: Found | None = None,
        motors: Callable[[], Found] | None = None,
    ) -> None:
        """Publish when it is due.

        Args:
            now_ns: monotonic.
            latest: the last tick (``edge_agent.tick.Snapshot`` or ``guard.filter.Filtered``); None before it.
            slots: what the sensors brought.
            policy: of a node that has one, see ``policy_state``.
            motors: of one with a motor controller; asked when it is due.
        """
        if now_ns < self._due_ns:
            return
        self._due_ns = now_ns + INTERVAL_NS
        found = {
            "tick": self._tick(latest),
            "sensors": self._sensors(slots, now_ns),
            "monitor": _monitor(latest),
        }
        if policy is not None:
            found["policy"] = policy
        if motors is not None:
            found["motor controller"] = motors()
        array = DiagnosticArray()
        array.header.stamp = self._node.get_clock().now().to_msg()
        array.status = [self._status(name, *entry) for name, entry in found.items()]
        self._publisher.publish(array)

    def _status(self, name: str, level: bytes, message: str, values: dict[str, object]) -> Any:
        return DiagnosticStatus(
            level=level, name=f"{self._name}: {name}", message=message, hardware_id=self._robot_id,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )  # fmt: skip

    def _tick(self, latest: Any) -> Found:
        """An error where none ran since the last time; a warning where some were late or missed."""
        if latest is None:
            return ERROR, "no tick yet", {}
        now, before = (latest.tick, latest.late, latest.missed), self._told
        self._told = now
        values = {"tick": now[0], "late": now[1], "missed": now[2], "tick_us": latest.total_ns / 1e3}
        if now[0] == before[0]:
            return ERROR, "no tick since the last report", values
        if now[1:] != before[1:]:
            return WARN, f"{now[1] - before[1]} late, {now[2] - before[2]} missed", values
        return OK, "on time", values

    def _sensors(self, slots: Slots, now_ns: int) -> Found:
        """Ages since arrival, and the bad messages that came since the last time."""
        faults = dict(slots.faults)
        new = {name: count for name, count in faults.items() if count != self._faults.get(name)}
        self._faults = faults
        values: dict[str, object] = dict(faults)
        bad = [f"{name} ({count} so far)" for name, count in new.items()]
        for name, slot in (("scan", slots.scan), ("odometry", slots.odometry)):
            age_ns = None if slot is None else (now_ns - slot.arrived_ns) * self._factor
            values[f"{name}_age_ms"] = NEVER if age_ns is None else round(age_ns / 1e6)
            if age_ns is None or age_ns > self._stale_ns[name]:
                bad.append(f"{name} {'missing' if age_ns is None else 'stale'}")
        return (ERROR, "; ".join(bad), values) if bad else (OK, "arriving", values)


def _monitor(latest: Any) -> Found:
    """A stop is a warning while somebody may just have stopped it; an emergency stop or a rival is an error."""
    if latest is None:
        return ERROR, "no ruling yet", {}
    ruling = latest.ruling
    reason = in_words(ruling.reason)
    values = {
        "verdict": ruling.verdict.name.lower(), "reason": reason, "armed": latest.armed, "emergency": latest.latched,
        "clearance_m": round(ruling.clearance_m, 3),
    }  # fmt: skip
    if ruling.verdict is Verdict.EMERGENCY_STOP or ruling.reason is Reason.OTHER_COMMANDER:
        return ERROR, reason, values
    return (WARN if ruling.verdict >= Verdict.STOP else OK), reason, values


def policy_state(ladder: Any, mode: Any, detail: str) -> Found:
    """Which policy runs, in which mode; none is a warning: the rules drive."""
    policy = ladder.policy
    values = {"mode": mode.name.lower(), "swaps": ladder.swaps, "detail": detail}
    if policy is None:
        return WARN, "no policy: the rules drive", values
    values |= {"digest": policy.digest, "version": policy.version}
    return OK, f"{policy.version} ({policy.digest[:12]})", values
