"""The monitor behind Nav2's own chain of nodes, brought up and down as Nav2's lifecycle manager does it.

Nav2 is in no wheel: its three last stages are stood in for by lifecycle nodes of the same names that speak the same
topics, types and quality of service (Kilted: ``cmd_vel_nav`` -> velocity_smoother -> ``cmd_vel_smoothed`` ->
collision_monitor), and fall silent as they do: the controller after one zero at the goal, the smoother after
``velocity_timeout``, the collision monitor ``stop_pub_timeout`` after it stopped. The monitor and the base are real.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="no ROS 2: run 'make setup', or source a distribution")
pytest.importorskip("outrider_msgs", reason="ros_ws is not built: run 'make setup'")

from tests.agent.test_filter_live import Rig
from tests.support.domain import domain_id
from tests.support.waiting import WAIT_MAX_S, wait_for

NAV2 = ("controller_server", "velocity_smoother", "collision_monitor")
MANAGED = (*NAV2, "outrider_monitor")
"""``node_names``, in the order of the bring-up."""
SPEED_MPS = 0.5
GOAL_S = 0.8
VELOCITY_TIMEOUT_S = STOP_PUB_TIMEOUT_S = 1.0
"""Nav2's defaults."""
ACCELERATION_MPS2, SMOOTHING_HZ, QUEUE = 2.5, 20.0, 10
OUT_TOPIC = "cmd_vel_in"
"""``cmd_vel_out_topic`` of the collision monitor: the one thing that is set."""


def nav2(name: str) -> None:
    """Nav2's last three stages in one process, as ``use_composition`` has them."""
    import rclpy
    from geometry_msgs.msg import PoseStamped, TwistStamped
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn

    class Stage(LifecycleNode):  # type: ignore[misc]
        """What takes commands from ``taken`` and gives them on to ``given`` while it is active."""

        def __init__(self, node: str, taken: tuple[Any, str], given: str) -> None:
            super().__init__(node, namespace=name)
            self.taken, self.given, self.active = taken, given, False
            self.asked_mps, self.sent_mps, self.asked_s = 0.0, 0.0, -1e9
            self.until_s = 0.0

        def on_configure(self, state: Any) -> TransitionCallbackReturn:
            del state
            self.publisher = self.create_publisher(TwistStamped, self.given, QUEUE)
            self.create_subscription(*self.taken, self.take, QUEUE)
            self.create_timer(1.0 / SMOOTHING_HZ, self.tick)
            return TransitionCallbackReturn.SUCCESS

        def on_activate(self, state: Any) -> TransitionCallbackReturn:
            del state
            self.active = True
            return TransitionCallbackReturn.SUCCESS

        def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
            del state
            self.active = False
            return TransitionCallbackReturn.SUCCESS

        def take(self, message: Any) -> None:
            """Keep what came."""
            self.asked_mps, self.asked_s = message.twist.linear.x, time.monotonic()

        def tick(self) -> None:
            """By default nothing is sent between messages."""

        def send(self, speed_mps: float) -> None:
            """Give on, stamped."""
            message = TwistStamped()
            message.header.stamp, message.header.frame_id = self.get_clock().now().to_msg(), "base_link"
            message.twist.linear.x = self.sent_mps = speed_mps
            self.publisher.publish(message)

    class Controller(Stage):
        """Drives while there is a goal, and says zero once at its end."""

        def take(self, message: Any) -> None:
            del message
            self.until_s = time.monotonic() + GOAL_S

        def tick(self) -> None:
            if self.active and self.until_s:
                ended = time.monotonic() >= self.until_s
                self.until_s = 0.0 if ended else self.until_s
                self.send(0.0 if ended else SPEED_MPS)

    class Smoother(Stage):
        """Ramps at its own rate; zero, and then nothing, where nothing comes any more."""

        def tick(self) -> None:
            silent = time.monotonic() - self.asked_s > VELOCITY_TIMEOUT_S
            if not self.active or (silent and self.sent_mps == 0.0):
                return
            wanted, step = (0.0 if silent else self.asked_mps), ACCELERATION_MPS2 / SMOOTHING_HZ
            self.send(self.sent_mps + max(-step, min(step, wanted - self.sent_mps)))

    class Collision(Stage):
        """Passes on what comes when it comes; nothing more a while after it has stopped."""

        def take(self, message: Any) -> None:
            speed_mps, now_s = message.twist.linear.x, time.monotonic()
            if speed_mps != 0.0 or self.sent_mps != 0.0:
                self.asked_s = now_s
            if self.active and now_s - self.asked_s <= STOP_PUB_TIMEOUT_S:
                self.send(speed_mps)

    rclpy.init()
    executor = SingleThreadedExecutor()
    for stage in (
        Controller("controller_server", (PoseStamped, "goal_pose"), "cmd_vel_nav"),
        Smoother("velocity_smoother", (TwistStamped, "cmd_vel_nav"), "cmd_vel_smoothed"),
        Collision("collision_monitor", (TwistStamped, "cmd_vel_smoothed"), OUT_TOPIC),
    ):
        executor.add_node(stage)
    executor.spin()


class Manager:
    """``lifecycle_manager_navigation``: configures all in order, activates all in order, down in reverse.

    With ``bond_timeout: 0.0``: the monitor forms no bond.
    """

    def __init__(self, name: str, stack: ExitStack) -> None:
        import rclpy
        from geometry_msgs.msg import PoseStamped
        from lifecycle_msgs.srv import ChangeState, GetState
        from rclpy.executors import SingleThreadedExecutor

        context = rclpy.Context()
        rclpy.init(context=context)
        stack.callback(rclpy.shutdown, context=context)
        self.node = rclpy.create_node("lifecycle_manager_navigation", namespace=name, context=context)
        stack.callback(self.node.destroy_node)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)
        self._name, self._kinds, self._pose = name, (ChangeState, GetState), PoseStamped
        self._goal = self.node.create_publisher(PoseStamped, "goal_pose", QUEUE)

    def _call(self, kind: Any, node: str, service: str, request: Any) -> Any:
        client = self.node.create_client(kind, f"/{self._name}/{node}/{service}")
        assert client.wait_for_service(WAIT_MAX_S), f"{node}/{service} is not there"
        future = client.call_async(request)
        self._executor.spin_until_future_complete(future, WAIT_MAX_S)
        self.node.destroy_client(client)
        return future.result()

    def state(self, node: str) -> str:
        """Its label."""
        return str(
            self._call(self._kinds[1], node, "get_state", self._kinds[1].Request()).current_state.label
        )

    def change(self, transition: int, expected: str, nodes: tuple[str, ...]) -> None:
        """``changeStateForAllNodes``: each is asked, and then asked where it is."""
        for node in nodes:
            request = self._kinds[0].Request()
            request.transition.id = transition
            assert self._call(self._kinds[0], node, "change_state", request).success, (node, expected)
            assert self.state(node) == expected, node

    def drive(self) -> None:
        """A goal, as RViz sends it."""
        self._goal.publish(self._pose())

    def publishers(self, topic: str) -> list[Any]:
        """Who publishes a topic of the robot."""
        return list(self.node.get_publishers_info_by_topic(f"/{self._name}/{topic}"))


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """A base in front of a wall, in a DDS domain of its own."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain_id()))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    with ExitStack() as stack:
        yield Rig(tmp_path, stack)


def test_it_comes_up_drives_pauses_and_goes_down_with_nav2(rig: Rig, tmp_path: Path) -> None:
    from lifecycle_msgs.msg import Transition

    config = tmp_path / "filter.json"
    config.write_text(json.dumps({"robot_id": rig.name, "state_dir": str(rig.state), "autostart": False}))
    running = rig.start([sys.executable, "-m", "edge_agent.filter", "--config", str(config)])
    rig.start([sys.executable, "-m", "tests.agent.test_beside_nav2", rig.name])
    with ExitStack() as stack:
        manager = Manager(rig.name, stack)
        assert {manager.state(node) for node in MANAGED} == {"unconfigured"}
        manager.change(Transition.TRANSITION_CONFIGURE, "inactive", MANAGED)
        assert not rig.base.commands, "configured is not yet commanding"
        manager.change(Transition.TRANSITION_ACTIVATE, "active", MANAGED)
        commands = rig.base.commands
        wait_for(lambda: commands, "commands at the base")

        # One publisher on the base's topic, and Nav2's offer is one that the monitor's subscription takes.
        (owner,) = manager.publishers("cmd_vel")
        assert owner.node_name == "outrider_monitor"
        (last,) = manager.publishers(OUT_TOPIC)
        assert last.node_name == "collision_monitor"
        assert last.topic_type == owner.topic_type == "geometry_msgs/msg/TwistStamped"
        (taker,) = manager.node.get_subscriptions_info_by_topic(f"/{rig.name}/{OUT_TOPIC}")
        assert taker.node_name == "outrider_monitor"

        wait_for(lambda: rig.client.arm("test").success, "arming")
        assert not list(rig.client._node.clients), "a call leaves nothing behind"
        for goal in ("first", "second"):  # the second without arming anew: a pause is a stop, no more
            begun = len(commands)
            manager.drive()
            wait_for(
                lambda since=begun: any(speed > 0.3 for _, speed, _ in commands[since:]), f"the {goal} goal"
            )  # type: ignore[misc]
            wait_for(lambda: commands[-1][1] == 0.0, f"the end of the {goal} goal")
            time.sleep(VELOCITY_TIMEOUT_S + STOP_PUB_TIMEOUT_S)
            quiet = len(commands)
            wait_for(lambda since=quiet: len(commands) > since + 10, "zeros while all of Nav2 is silent")  # type: ignore[misc]
            assert {command[1:] for command in commands[quiet:]} == {(0.0, 0.0)}
        assert all(0.0 <= speed <= SPEED_MPS and turn == 0.0 for _, speed, turn in commands)

        begun = len(commands)
        manager.drive()
        wait_for(lambda: any(speed > 0.3 for _, speed, _ in commands[begun:]), "driving")
        manager.change(Transition.TRANSITION_DEACTIVATE, "inactive", MANAGED[::-1])
        wait_for(lambda: commands[-1][1:] == (0.0, 0.0), "the monitor's stop: it went down first")
        ended = len(commands)
        manager.change(Transition.TRANSITION_CLEANUP, "unconfigured", MANAGED[::-1])
        assert len(commands) == ended
    running.send_signal(signal.SIGTERM)
    assert running.wait(WAIT_MAX_S) == 0


if __name__ == "__main__":
    os.environ.setdefault("RCUTILS_LOGGING_BUFFERED_STREAM", "1")
    nav2(sys.argv[1])
