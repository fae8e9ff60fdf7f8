"""The monitor between the control thread, which asks it every tick, and the services, which arm and stop."""

import threading

from contracts.decision import Reason, Verdict
from safety.monitor import NS, Inputs, Ruling, SafetyMonitor

STOPPED = Ruling((0.0, 0.0), Verdict.STOP, Reason.COMMAND_MISSING, 0.0)
STANDING_MAX_MPS, STANDING_MAX_RADPS = 0.02, 0.05


class Gate:
    """A safety monitor that a second thread may speak to. The lock is held for microseconds."""

    def __init__(self, monitor: SafetyMonitor) -> None:
        self.monitor = monitor
        self._lock = threading.Lock()
        self._last = STOPPED
        self._velocity: tuple[float, float] | None = None
        self._velocity_age_ns = 0
        self._rival = ""

    def rule(self, inputs: Inputs) -> Ruling:
        """The monitor's word over one tick; without a goal it is NO_GOAL's, not a pass."""
        with self._lock:
            self._last = ruling = self.monitor.step(inputs)
            if self._rival and ruling.reason is Reason.NOT_ARMED:
                ruling.reason = Reason.OTHER_COMMANDER
            self._velocity, self._velocity_age_ns = inputs.velocity, inputs.now_ns - inputs.odometry_ns
            return self._last

    def arm(self) -> str:
        """Allow motion; "" or why not. Only with sensor data at hand that the monitor accepts, and standing."""
        with self._lock:
            if self._rival:
                return f"{self._rival}: end it, or remap it to cmd_vel_in of `outrider agent filter`"
            reason = self._last.reason
            if Reason.SCAN_MISSING <= reason < Reason.NOT_ARMED or self._last is STOPPED:
                return f"a sensor fault is present: {reason.name}; check scan and odometry"
            if moves := self._moves():
                return f"the robot {moves}; it is armed where it stands, so stop it first"
            return self.monitor.arm()

    def rival(self, who: str) -> None:
        """Somebody else commands the base, "" when nobody does any more: two at once is never safe."""
        with self._lock:
            self._rival = who
            if who:
                self.monitor.disarm()

    def moves(self) -> str:
        """What the robot does, as measured for the last tick; "" where it surely stands."""
        with self._lock:
            return self._moves()

    def _moves(self) -> str:
        velocity, stale_max_s = self._velocity, self.monitor.config.odometry_stale_max_s
        if velocity is None or self._velocity_age_ns > stale_max_s * NS:
            return "has no odometry that says it stands"
        speed, turn_rate = velocity
        if abs(speed) <= STANDING_MAX_MPS and abs(turn_rate) <= STANDING_MAX_RADPS:
            return ""
        return f"moves ({speed:.2f} m/s, {turn_rate:.2f} rad/s)"

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
        """Release the emergency latch of a robot that stands; it stays disarmed. "" or why not."""
        with self._lock:
            if self.monitor.emergency and (moves := self._moves()):
                return f"the robot {moves}; an emergency stop is reset where it stands"
            return self.monitor.reset_emergency()

    @property
    def armed(self) -> bool:
        """Whether motion is allowed."""
        return self.monitor.armed

    @property
    def latched(self) -> bool:
        """Whether an emergency stop awaits its reset."""
        return self.monitor.emergency
