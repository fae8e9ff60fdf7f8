"""What the motor controller measures, as the topics that ROS has for it: joint states, battery, IMU."""

import math
from typing import Any

from sensor_msgs.msg import BatteryState, Imu, JointState

from edge_agent.actuate.serial_sink import SerialSink
from edge_agent.ros.diagnostics import ERROR, OK, WARN, Found
from edge_agent.ros.quality import NEWEST
from firmware_interface.protocol.frames import Battery, Fault, State, Status, StopReason, Wheels
from firmware_interface.protocol.frames import Imu as ImuFrame

INTERVAL_NS = 45_000_000
"""The executor's loop decides when it comes round; this keeps topics from going beyond 20 Hz."""
WHEEL_JOINTS = ("wheel_left_joint", "wheel_right_joint")
"""As in the URDF."""
TICKS_PER_RAD = 4096.0 / (2.0 * math.pi)
UNKNOWN_COVARIANCE = [-1.0] + [0.0] * 8
"""No orientation in this message (sensor_msgs/Imu)."""


class Feedback:
    """Publishes ``joint_states``, ``battery_state`` and ``imu`` in the robot's namespace; the newest only.

    Args:
        node: the agent's node.
        serial: the link to its motor controller.
    """

    def __init__(self, node: Any, serial: SerialSink) -> None:
        self._node, self._serial = node, serial
        self._joints = node.create_publisher(JointState, "joint_states", NEWEST)
        self._battery = node.create_publisher(BatteryState, "battery_state", NEWEST)
        self._imu = node.create_publisher(Imu, "imu", NEWEST)
        self._told: dict[type[Any], object] = {}
        self._due_ns = 0
        self._missed = 0.0

    def close(self) -> None:
        """Let go of the publishers."""
        for publisher in (self._joints, self._battery, self._imu):
            self._node.destroy_publisher(publisher)

    def work(self, now_ns: int) -> None:
        """Publish what is new."""
        if now_ns < self._due_ns:
            return
        self._due_ns = now_ns + INTERVAL_NS
        if (wheels := self._new(Wheels)) is not None:
            self._joints.publish(self._joint_state(wheels))
        if (imu := self._new(ImuFrame)) is not None:
            self._imu.publish(self._imu_message(imu))
        if (battery := self._new(Battery)) is not None:
            self._battery.publish(self._battery_state(battery))

    def _new(self, kind: type[Any]) -> Any:
        frame = self._serial.latest(kind)
        if frame is None or frame is self._told.get(kind):
            return None
        self._told[kind] = frame
        return frame

    def _stamped(self, message: Any) -> Any:
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.header.frame_id = "base_link"
        return message

    def _joint_state(self, wheels: Wheels) -> Any:
        message = self._stamped(JointState())
        message.name = list(WHEEL_JOINTS)
        message.position = [wheels.left_ticks / TICKS_PER_RAD, wheels.right_ticks / TICKS_PER_RAD]
        message.velocity = [wheels.left_radps, wheels.right_radps]
        return message

    def _imu_message(self, imu: ImuFrame) -> Any:
        message = self._stamped(Imu())
        message.orientation_covariance = UNKNOWN_COVARIANCE
        for place, (acceleration, turn_rate) in {
            "x": (imu.acceleration_x_mps2, imu.turn_rate_x_radps),
            "y": (imu.acceleration_y_mps2, imu.turn_rate_y_radps),
            "z": (imu.acceleration_z_mps2, imu.turn_rate_z_radps),
        }.items():
            setattr(message.linear_acceleration, place, acceleration)
            setattr(message.angular_velocity, place, turn_rate)
        return message

    def _battery_state(self, battery: Battery) -> Any:
        message = self._stamped(BatteryState())
        message.voltage, message.percentage = battery.voltage_v, battery.charge
        message.current = -battery.current_a  # sensor_msgs counts discharging as negative
        message.temperature = message.charge = message.capacity = message.design_capacity = math.nan
        message.power_supply_status = BatteryState.POWER_SUPPLY_STATUS_DISCHARGING
        message.power_supply_technology = BatteryState.POWER_SUPPLY_TECHNOLOGY_LION
        message.present = True
        return message

    def state(self) -> Found:
        """For ``/diagnostics``: an error without a link or with a fault, a warning when frames were lost."""
        figures = self._serial.figures()
        values: dict[str, object] = {key: round(value, 1) for key, value in figures.items()}
        status = self._serial.latest(Status)
        missed = figures["frames_bad"] + figures["frames_unsent"]
        more, self._missed = missed - self._missed, missed
        if status is None:
            return ERROR, self._serial.trouble() or "no word from the motor controller yet", values
        faults = [str(fault.name).lower().replace("_", " ") for fault in Fault(status.faults)]
        values |= {
            "state": State(status.state).name.lower(),
            "last_stop": StopReason(status.stop_reason).name.lower(),
            "faults": ", ".join(faults),
            "commands_executed": status.commands_executed,
            "commands_stale": status.commands_stale,
            "board_frames_bad": status.frames_bad,
        }
        if faults:
            return ERROR, f"fault: {', '.join(faults)}", values
        if more:
            return WARN, f"{more:g} frames lost since the last report", values
        return OK, State(status.state).name.lower(), values
