"""The monitor between the control thread, which asks it every tick, and the services, which arm and stop."""

import threading

from contracts.decision import Reason, Verdict
from safety.monitor import Inputs, Ruling, SafetyMonitor

STOPPED = Ruling((0.0, 0.0), Verdict.STOP, Reason.COMMAND_MISSING, 0.0)


class Gate:
    """A safety monitor that a second thread may speak to. The lock is held for microseconds."""

    def __init__(self, monitor: SafetyMonitor) -> None:
        self.monitor = monitor
        self._lock = threading.Lock()
        self._last = STOPPED

    def rule(self, inputs: Inputs) -> Ruling:
        """The monitor's word over one tick; without a goal it is NO_GOAL's, not a pass."""
        with self._lock:
            self._last = self.monitor.step(inputs)
            return self._last

    def arm(self) -> str:
        """Allow motion; "" or why not. Only with sensor data at hand that the monitor accepts."""
        with self._lock:
            reason = self._last.reason
            if Reason.SCAN_MISSING <= reason < Reason.NOT_ARMED or self._last is STOPPED:
                return f"a sensor fault is present: {reason.name}; check scan and odometry"
            return self.monitor.arm()

    def disarm(self) -> None:
        """Forbid motion until someone arms the robot again."""
        with self._lock:
            self.monitor.disarm()

    def stop(self, emergency: bool) -> None:
        """Stop and disarm; with ``emergency`` latched until it is reset."""
        with self._lock:
            self.monitor.request_stop(emergency)
            self.monitor.disarm()

    def reset(self) -> str:
        """Release the emergency latch; the robot stays disarmed. "" or why not."""
        with self._lock:
            return self.monitor.reset_emergency()

    @property
    def armed(self) -> bool:
        """Whether motion is allowed."""
        return self.monitor.armed

    @property
    def latched(self) -> bool:
        """Whether an emergency stop awaits its reset."""
        return self.monitor.emergency
