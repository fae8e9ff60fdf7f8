"""All watches of one robot, stepped together every tick."""

import math

from contracts.decision import Reason
from contracts.robot import RobotModel
from safety.config import WatchConfig
from safety.inputs import NS, Inputs
from safety.watch.arrivals import FrozenScanWatch, StampFault, StampWatch
from safety.watch.motion import (
    OverspeedWatch,
    PoseJumpWatch,
    RunawayWatch,
    SlipWatch,
    StuckWatch,
    TiltWatch,
)
from safety.watch.policy import Advice, PolicyWatch

GAP_MAX_S = 0.5
"""After a longer gap between ticks, odometry cannot be added up over it."""
SCAN_STAMP = {
    StampFault.STUCK: Reason.SCAN_STAMP_STUCK,
    StampFault.BACKWARDS: Reason.SCAN_STAMP_BACKWARDS,
    StampFault.AHEAD: Reason.SCAN_STAMP_AHEAD,
    StampFault.LATE: Reason.SCAN_STAMP_LATE,
}
ODOMETRY_STAMP = {
    StampFault.STUCK: Reason.ODOMETRY_STAMP_STUCK,
    StampFault.BACKWARDS: Reason.ODOMETRY_STAMP_BACKWARDS,
    StampFault.AHEAD: Reason.ODOMETRY_STAMP_AHEAD,
    StampFault.LATE: Reason.ODOMETRY_STAMP_LATE,
}


class WatchBoard:
    """Feeds each watch what it needs and names what it finds.

    Args:
        config: checked settings.
        model: the robot.
        pose_needed: whether a missing pose is a fault: there are zones.
    """

    def __init__(self, config: WatchConfig, model: RobotModel, pose_needed: bool) -> None:
        self._pose_needed = pose_needed
        self._scan_stamp, self._odometry_stamp = StampWatch(config), StampWatch(config)
        self._frozen = FrozenScanWatch(config, model.lidar)
        self._overspeed, self._runaway = OverspeedWatch(config, model), RunawayWatch(config, model)
        self._stuck, self._slip = StuckWatch(config), SlipWatch(config)
        self._pose_jump, self._tilt = PoseJumpWatch(config, model), TiltWatch(config)
        self._policy = PolicyWatch(config, model)
        self._odometry_ns: int | None = None
        self._scan_ns: int | None = None
        self._pose_fault: Reason | None = None

    def scan(self, inputs: Inputs, armed: bool, moving: tuple[float, float]) -> Reason | None:
        """What is wrong with a scan that is there, in time and of the right shape; ``moving`` as measured."""
        assert inputs.ranges_m is not None
        fault = self._scan_stamp.step(inputs.scan_stamp_ns, inputs.scan_ns, armed)
        frozen = self._frozen.step(inputs.ranges_m, inputs.scan_ns, moving)
        if fault:
            return SCAN_STAMP[fault]
        return Reason.SCAN_FROZEN if frozen else None

    def odometry(self, inputs: Inputs, armed: bool) -> Reason | None:
        """What is wrong with odometry that is there, in time and finite, and with the pose."""
        fault = self._odometry_stamp.step(inputs.odometry_stamp_ns, inputs.odometry_ns, armed)
        if inputs.odometry_ns != self._odometry_ns:
            self._pose_fault = self._pose(inputs)
            self._odometry_ns = inputs.odometry_ns
        return ODOMETRY_STAMP[fault] if fault else self._pose_fault

    def _pose(self, inputs: Inputs) -> Reason | None:
        pose = inputs.pose
        if pose is None:
            return Reason.POSE_MISSING if self._pose_needed else None
        if not (math.isfinite(pose[0]) and math.isfinite(pose[1]) and math.isfinite(pose[2])):
            return Reason.POSE_MISSING
        assert inputs.velocity is not None
        last_ns = inputs.odometry_ns if self._odometry_ns is None else self._odometry_ns
        elapsed_s = max(inputs.odometry_ns - last_ns, 0) / NS
        jumped = self._pose_jump.step(pose, elapsed_s)
        slips = self._slip.step(inputs.velocity, pose, elapsed_s, jumped or elapsed_s > GAP_MAX_S)
        if jumped:
            return Reason.POSE_JUMP
        return Reason.SLIPPING if slips else None

    def motion(
        self,
        velocity: tuple[float, float],
        sent: tuple[float, float],
        elapsed_s: float,
        hold: bool,
    ) -> list[Reason]:
        """How the robot moves amiss.

        Args:
            velocity: measured, finite and in time.
            sent: the last command that went out.
            elapsed_s: since then, s.
            hold: whether the robot must stand: disarmed or stopped on request.
        """
        found = []
        if self._runaway.step(sent, velocity, elapsed_s):
            found.append(Reason.STANDSTILL_LOST if hold else Reason.RUNAWAY)
        if self._overspeed.step(velocity):
            found.append(Reason.OVERSPEED)
        if self._stuck.step(sent, velocity, elapsed_s):
            found.append(Reason.STUCK)
        return found

    def tilted(self, tilt_rad: float | None) -> bool:
        """Whether an IMU that is there says that the robot leans too far."""
        return tilt_rad is not None and self._tilt.step(tilt_rad)

    def advice(self, inputs: Inputs, elapsed_s: float, driven: bool) -> Advice:
        """What speaks against the policy going on; its output is judged where the robot may follow it (``driven``)."""
        command = inputs.command
        if command is not None and not (math.isfinite(command[0]) and math.isfinite(command[1])):
            command = None
        changed = inputs.scan_ns != self._scan_ns and self._frozen.changed
        self._scan_ns = inputs.scan_ns
        judged = inputs.command_from_policy and driven
        return self._policy.step(command, judged, changed, inputs.novelty, elapsed_s)
