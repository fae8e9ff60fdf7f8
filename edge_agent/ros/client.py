"""What stands outside the agent and talks to it over ROS: calls its services, reads its status topics."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from edge_agent.errors import RobotSilentError
from edge_agent.ros.imports import require_ros

SPIN_S = 0.1
TEXT_MAX = 128


@contextmanager
def robot_client(robot: str, timeout_s: float) -> Iterator["RobotClient"]:
    """A client of ``/robot``; raises RosUnavailableError, RobotSilentError."""
    require_ros()
    with RobotClient(robot, timeout_s) as client:
        yield client


class RobotClient:
    """A short-lived node in the robot's namespace."""

    def __init__(self, robot: str, timeout_s: float) -> None:
        import rclpy
        from rclpy.experimental.events_executor import EventsExecutor
        from rclpy.signals import SignalHandlerOptions

        self._robot, self._timeout_s = robot, timeout_s
        self._rclpy, self._context = rclpy, rclpy.Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node("outrider_client", namespace=robot, context=self._context)
        self._executor = EventsExecutor(context=self._context)
        self._executor.add_node(self._node)

    def __enter__(self) -> "RobotClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        self._rclpy.shutdown(context=self._context)

    def arm(self, reason: str, arm: bool = True) -> Any:
        """Arm or disarm; the response has ``success`` and ``message``."""
        from outrider_msgs.srv import Arm

        return self._call(Arm, "arm", arm=arm, reason=reason[:TEXT_MAX])

    def stop(self, reason: str, emergency: bool) -> Any:
        """Stop; the response has ``success`` and ``message``."""
        from outrider_msgs.srv import Stop

        return self._call(Stop, "stop", emergency=emergency, reason=reason[:TEXT_MAX])

    def reset(self, reason: str) -> Any:
        """Release the emergency stop; the response has ``success`` and ``message``."""
        from outrider_msgs.srv import ResetStop

        return self._call(ResetStop, "reset_stop", reason=reason[:TEXT_MAX])

    def set_mode(self, mode: int, reason: str) -> Any:
        """Change who drives (``contracts.decision.Mode``); the response has ``success`` and ``message``."""
        from outrider_msgs.srv import SetMode

        return self._call(SetMode, "set_mode", mode=mode, reason=reason[:TEXT_MAX])

    def approve(self, seconds: float, reason: str) -> Any:
        """Let the policy drive for so long, in assist; the response has ``success`` and ``message``."""
        from outrider_msgs.srv import Approve

        return self._call(Approve, "approve", seconds=seconds, reason=reason[:TEXT_MAX])

    def load(self, path: str) -> Any:
        """Load a bundle on the robot; the response has ``accepted``, ``digest`` and ``message``."""
        from outrider_msgs.srv import LoadPolicy

        return self._call(LoadPolicy, "load_policy", path=path)

    def status(self) -> dict[str, Any]:
        """The newest safety, decision and policy status, by name."""
        from outrider_msgs.msg import DecisionStatus, PolicyStatus, SafetyStatus

        from edge_agent.ros.quality import LATCHED, RELIABLE

        found: dict[str, Any] = {}
        opened = []
        for kind, name, quality in (
            (SafetyStatus, "safety", RELIABLE),
            (DecisionStatus, "decision", RELIABLE),
            (PolicyStatus, "policy", LATCHED),
        ):

            def keep(message: Any, name: str = name) -> None:
                found[name] = message

            opened.append(self._node.create_subscription(kind, f"outrider/{name}", keep, quality))
        try:
            self._spin_until(lambda: len(found) == 3, "status")
        finally:  # who asks again and again would end up with too many to be served in time
            for each in opened:
                self._node.destroy_subscription(each)
        return found

    def _call(self, kind: Any, name: str, **fields: Any) -> Any:
        client = self._node.create_client(kind, f"outrider/{name}")
        try:
            self._spin_until(client.service_is_ready, name)
            future = client.call_async(kind.Request(**fields))
            self._spin_until(future.done, name)
        finally:
            self._node.destroy_client(client)
        return future.result()

    def _spin_until(self, condition: Any, what: str) -> None:
        end_s = time.monotonic() + self._timeout_s
        while not condition():
            if time.monotonic() > end_s:
                raise RobotSilentError(
                    f"{self._robot} did not answer ({what}) within {self._timeout_s:g} s; does its agent "
                    "run, with the same ROS_DOMAIN_ID?"
                )
            self._executor.spin_once(SPIN_S)
