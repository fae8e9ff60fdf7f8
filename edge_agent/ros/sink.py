"""Where commands leave for the robot's base: ``cmd_vel``."""

from typing import Any

from geometry_msgs.msg import TwistStamped

from edge_agent.observe.slots import Stamp

BASE_FRAME = "base_link"


class RosSink:
    """Publishes ``cmd_vel``; one message, reused."""

    def __init__(self) -> None:
        self.publisher: Any = None
        self._message = TwistStamped()
        self._message.header.frame_id = BASE_FRAME

    def send(self, speed_mps: float, turn_rate_radps: float, stamp: Stamp) -> None:
        """Publish a command; nothing before the node is configured."""
        message = self._message
        message.header.stamp.sec, message.header.stamp.nanosec = stamp
        message.twist.linear.x, message.twist.angular.z = speed_mps, turn_rate_radps
        if self.publisher is not None:
            self.publisher.publish(message)
