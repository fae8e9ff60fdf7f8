"""The project's own ROS interfaces cross real DDS, between two processes, with nothing sourced.

Run by hand, this file is the far side: `python test_ros_interfaces.py far-side ROBOT_ID DOMAIN_ID`.
"""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="no ROS 2: run 'make setup', or source a distribution")
pytest.importorskip("outrider_msgs", reason="ros_ws is not built: run 'make setup'")

import rclpy
from outrider_msgs.msg import DecisionStatus, PolicyStatus, SafetyStatus
from outrider_msgs.srv import Arm, LoadPolicy, ResetStop, Stop
from rclpy.experimental.events_executor import EventsExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

# rosidl_generator_py imports lark-parser, which imports a module that Python 3.11 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning")

ANSWER_MAX_S = 30.0
SPIN_S = 0.1
PUBLISH_PERIOD_S = 0.05
FAR_SIDE_LIFE_MAX_S = 60.0
LATEST = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)


def status_of_tick(robot_id: str, tick: int) -> Any:
    """A status with every field away from its default."""
    status = SafetyStatus()
    status.header.frame_id = "base_link"
    status.header.stamp.sec = tick % 2**31
    status.robot_id = robot_id
    status.tick = tick
    status.verdict = SafetyStatus.VERDICT_LIMIT
    status.reason_code = 513
    status.reason_text = "person ahead, 1.2 m"
    status.speed_in_mps, status.turn_rate_in_radps = 1.5, -0.25
    status.speed_out_mps, status.turn_rate_out_radps = 0.5, -0.125
    status.armed = True
    status.estop_latched = False
    return status


def far_side(robot_id: str, domain_id: int) -> None:
    """Publish a status 20 times a second and serve Arm, until standard input closes or time is up."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain_id)
    node = rclpy.create_node("far_side", namespace=f"/{robot_id}", context=context)
    publisher = node.create_publisher(SafetyStatus, "safety_status", LATEST)
    tick = 2**40  # more than 32 bits have to survive

    def publish() -> None:
        nonlocal tick
        tick += 1
        publisher.publish(status_of_tick(robot_id, tick))

    def arm(request: Any, response: Any) -> Any:
        response.success = request.arm and request.reason == "shift begins"
        response.message = f"{'armed' if response.success else 'refused'}: {request.reason}"
        return response

    node.create_timer(PUBLISH_PERIOD_S, publish)
    node.create_service(Arm, "arm", arm)
    executor = EventsExecutor(context=context)
    executor.add_node(node)
    os.set_blocking(sys.stdin.fileno(), False)
    print("ready", flush=True)
    end_s = time.monotonic() + FAR_SIDE_LIFE_MAX_S
    while time.monotonic() < end_s and sys.stdin.buffer.read(1) is None:
        executor.spin_once(timeout_sec=SPIN_S)
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown(context=context)


class NearSide:
    """A node in a context of its own, driven by spin_once(timeout) in a loop."""

    def __init__(self, robot_id: str, domain_id: int) -> None:
        self.robot_id, self.domain_id = robot_id, domain_id
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain_id)
        self.node = rclpy.create_node("near_side", namespace=f"/{robot_id}", context=self.context)
        self.executor = EventsExecutor(context=self.context)
        self.executor.add_node(self.node)

    def spin_until(self, condition: Callable[[], bool], what: str) -> None:
        """Spin until `condition` holds; fail with `what` was expected after ANSWER_MAX_S."""
        end_s = time.monotonic() + ANSWER_MAX_S
        while not condition():
            if time.monotonic() > end_s:
                pytest.fail(f"{what} did not happen in {ANSWER_MAX_S:.0f} s (domain {self.domain_id})")
            self.executor.spin_once(timeout_sec=SPIN_S)

    def close(self) -> None:
        """Take the node and its context down."""
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def near(monkeypatch: pytest.MonkeyPatch) -> Iterator[NearSide]:
    """A node alone in its DDS domain, on this machine only."""
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    from tests.support.domain import domain_id  # not where this file runs by hand

    draw = random.SystemRandom()
    side = NearSide(f"amr_{os.getpid()}_{draw.randrange(10**6)}", domain_id())
    yield side
    side.close()


@contextmanager
def other_process(near: NearSide) -> Iterator[None]:
    """The far side, running in a process of its own."""
    command = [sys.executable, str(Path(__file__)), "far-side", near.robot_id, str(near.domain_id)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield
            process.stdin.close()
            assert process.wait(timeout=ANSWER_MAX_S) == 0
        finally:
            process.kill()


def test_safety_status_crosses_dds_between_two_processes(near: NearSide) -> None:
    received: list[Any] = []
    near.node.create_subscription(SafetyStatus, "safety_status", received.append, LATEST)
    with other_process(near):
        near.spin_until(lambda: len(received) >= 3, "the third SafetyStatus")
    ticks = [status.tick for status in received]
    assert ticks == sorted(set(ticks))
    assert received[0] == status_of_tick(near.robot_id, ticks[0])


def test_arm_is_called_across_processes(near: NearSide) -> None:
    client = near.node.create_client(Arm, "arm")
    with other_process(near):
        near.spin_until(client.service_is_ready, "discovery of the service")
        for reason, success in (("shift begins", True), ("", False)):
            future = client.call_async(Arm.Request(arm=True, reason=reason))
            near.spin_until(future.done, "the answer of Arm")
            assert future.result().success is success
            assert future.result().message.endswith(reason)


def test_events_executor_delivers_when_spun_once_with_a_timeout(near: NearSide) -> None:
    """spin() and spin_once() without a timeout ran no callback in rclpy 9.1.2; this form must."""
    received: list[int] = []
    publisher = near.node.create_publisher(SafetyStatus, "loop", LATEST)
    near.node.create_subscription(SafetyStatus, "loop", lambda status: received.append(status.tick), LATEST)
    ticks = iter(range(1, 10**6))
    near.node.create_timer(0.01, lambda: publisher.publish(status_of_tick(near.robot_id, next(ticks))))
    near.spin_until(lambda: len(received) >= 10, "the tenth timer and subscription callback")


def test_interfaces_load_with_nothing_sourced() -> None:
    """Neither LD_LIBRARY_PATH nor PYTHONPATH nor AMENT_PREFIX_PATH is needed with the pip wheels."""
    if os.environ.get("ROS_DISTRO"):
        pytest.skip("a ROS distribution is sourced; it needs its own variables")
    code = (
        "from outrider_msgs.msg import SafetyStatus; import rclpy; rclpy.init(domain_id=0);"
        "n = rclpy.create_node('bare'); n.create_publisher(SafetyStatus, 'x', 1).publish(SafetyStatus());"
        "n.destroy_node(); rclpy.shutdown(); print('published')"
    )
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(Path.home()), "ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"}
    answer = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=ANSWER_MAX_S
    )
    assert answer.stdout == "published\n", answer.stderr


def test_a_status_nobody_filled_in_does_not_read_as_pass() -> None:
    assert SafetyStatus().verdict == SafetyStatus.VERDICT_UNKNOWN
    assert not SafetyStatus().armed
    assert DecisionStatus().source == DecisionStatus.SOURCE_STOP
    assert PolicyStatus().state == PolicyStatus.STATE_IDLE


def test_verdicts_rise_with_restriction() -> None:
    status = SafetyStatus
    order = [status.VERDICT_PASS, status.VERDICT_LIMIT, status.VERDICT_STOP, status.VERDICT_DISARM]
    assert [*order, status.VERDICT_ESTOP] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("request_type", "field", "length_max"),
    [(Arm, "reason", 128), (Stop, "reason", 128), (ResetStop, "reason", 128), (LoadPolicy, "path", 1024)],
)
def test_texts_are_bounded(request_type: Any, field: str, length_max: int) -> None:
    request = request_type.Request(check_fields=True)  # off by default: rclpy checks nothing on assignment
    setattr(request, field, "x" * length_max)
    with pytest.raises(AssertionError, match=str(length_max)):
        setattr(request, field, "x" * (length_max + 1))


if __name__ == "__main__" and sys.argv[1:2] == ["far-side"]:
    far_side(sys.argv[2], int(sys.argv[3]))
