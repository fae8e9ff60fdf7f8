"""``outrider_monitor``: the lifecycle node around ``edge_agent.guard.filter``. Callbacks only store.

``scan``, ``odom`` and ``cmd_vel_in`` in, ``cmd_vel`` out, at its own rate, whether or not anything comes in.
"""

import time
from pathlib import Path
from typing import Any

from geometry_msgs.msg import TwistStamped
from nav_msgs.msg import Odometry
from outrider_msgs.msg import SafetyStatus
from outrider_msgs.srv import Arm, ResetStop, Stop
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import LaserScan

from contracts.robot import ROBOT_MODELS
from edge_agent.filter import FilterConfig
from edge_agent.guard.filter import Asked, FilterCore
from edge_agent.guard.gate import Gate
from edge_agent.loop import ControlLoop
from edge_agent.observe.intake import Intake
from edge_agent.observe.slots import Slots
from edge_agent.ros.diagnostics import Diagnostics
from edge_agent.ros.parameters import declare_settings
from edge_agent.ros.quality import NEWEST, RELIABLE
from edge_agent.ros.rivals import TOPIC, Rivals
from edge_agent.ros.sink import RosSink
from edge_agent.ros.status import safety_status
from edge_agent.supervisor import notify
from safety.monitor import SafetyMonitor

NODE_NAME = "outrider_monitor"
STATUS_INTERVAL_NS = 200_000_000
STOP_REPEATS = 3
MESSAGE_MAX, REASON_MAX = 256, 128


class FilterNode(LifecycleNode):  # type: ignore[misc]
    """The monitor in the robot's namespace; it is armed by somebody before anything passes."""

    def __init__(self, config: FilterConfig, context: Any) -> None:
        super().__init__(NODE_NAME, namespace=config.robot_id, context=context)
        self._config = declare_settings(self, config)
        self._model = ROBOT_MODELS[self._config.robot_model]
        self._sink = RosSink()
        self._core: FilterCore | None = None
        self._entities: list[Any] = []
        self._status_ns = 0
        self._ticks_told = 0

    # -- lifecycle --------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Monitor, topics, services."""
        config = self._config
        settings = config.monitor_settings()
        monitor = SafetyMonitor(self._model, settings.monitor, settings.watch, fields=settings.fields)
        self._slots, self._gate = Slots(), Gate(monitor)
        self._intake = Intake(self._slots, self._model, lambda _: None)
        self._core = FilterCore(
            self._slots,
            self._gate,
            self._sink,
            config.period_ns,
            config.command_stale_max_s,
            not config.sim_time,
        )
        self._loop = ControlLoop(self._core, config.period_ns)
        self._open_topics()
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Commands begin, with zero: nobody has armed the robot yet."""
        result = super().on_activate(state)
        assert self._core is not None
        self._gate.disarm()
        self._core.stop_command()
        self._loop.start()
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Commands end, with zero."""
        self._halt()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of everything that was configured."""
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop, whatever state this comes from."""
        self.close()
        return super().on_shutdown(state)

    def close(self) -> None:
        """End of the process: zero commands, no thread."""
        self._halt()
        self._release()

    def _halt(self) -> None:
        if self._core is not None and self._loop.running:
            self._loop.stop()
            self._gate.disarm()
            for _ in range(STOP_REPEATS):
                self._core.stop_command()

    def _release(self) -> None:
        self._core = None
        for destroy, entity in self._entities:
            destroy(entity)
        self._entities.clear()
        self._sink.publisher = None

    def _open_topics(self) -> None:
        add = self._entities.append
        for kind, topic, callback in (
            (LaserScan, "scan", self._on_scan),
            (Odometry, "odom", self._on_odometry),
            (TwistStamped, "cmd_vel_in", self._on_command),
        ):
            add((self.destroy_subscription, self.create_subscription(kind, topic, callback, NEWEST)))
        for kind, name, answer in (
            (Arm, "outrider/arm", self._on_arm),
            (Stop, "outrider/stop", self._on_stop),
            (ResetStop, "outrider/reset_stop", self._on_reset),
        ):
            add((self.destroy_service, self.create_service(kind, name, answer)))
        self._safety = self.create_publisher(SafetyStatus, "outrider/safety", RELIABLE)
        add((self.destroy_publisher, self._safety))
        self._rivals = Rivals(self, Path(self._config.state_dir))
        self._sink.publisher = self.create_lifecycle_publisher(TwistStamped, TOPIC, RELIABLE)
        self._rivals.own()
        add((self.destroy_lifecycle_publisher, self._sink.publisher))
        self._diagnostics = Diagnostics(self, self._config.robot_id, self._gate.monitor.config)
        add((Diagnostics.close, self._diagnostics))

    # -- callbacks: they only store ---------------------------------------------------------------

    def _on_scan(self, message: Any) -> None:
        stamp = message.header.stamp
        self._intake.scan(
            message.ranges, message.angle_min, message.angle_increment, message.range_max,
            (stamp.sec, stamp.nanosec), time.monotonic_ns(),
        )  # fmt: skip

    def _on_odometry(self, message: Any) -> None:
        position, rotation = message.pose.pose.position, message.pose.pose.orientation
        twist, stamp = message.twist.twist, message.header.stamp
        # Whatever its frame: without a map the monitor only compares poses with one another.
        self._intake.odometry(
            "map", (position.x, position.y), (rotation.x, rotation.y, rotation.z, rotation.w),
            (twist.linear.x, twist.angular.z), time.monotonic_ns(), (stamp.sec, stamp.nanosec),
        )  # fmt: skip

    def _on_command(self, message: Any) -> None:
        if self._core is not None:
            twist = message.twist
            self._core.asked = Asked((twist.linear.x, twist.angular.z), time.monotonic_ns())

    # -- services ---------------------------------------------------------------------------------

    def _on_arm(self, request: Any, response: Any) -> Any:
        if self._core is None or not self._loop.running:
            return self._answer(
                request, response, "the monitor is not active; activate its lifecycle node first", ""
            )
        if not request.arm:
            self._gate.disarm()
            return self._answer(request, response, "", "disarmed")
        self._look_for_rivals(time.monotonic_ns(), at_once=True)
        return self._answer(request, response, self._gate.arm(), "armed")

    def _on_stop(self, request: Any, response: Any) -> Any:
        self._gate.stop(request.emergency)
        done = "emergency stop, latched" if request.emergency else "stopped and disarmed"
        return self._answer(request, response, "", done)

    def _on_reset(self, request: Any, response: Any) -> Any:
        return self._answer(request, response, self._gate.reset(), "reset; arm the robot to drive")

    def _answer(self, request: Any, response: Any, refusal: str, done: str) -> Any:
        self.get_logger().warning(f"{refusal or done} ({request.reason[:REASON_MAX]})")
        response.success, response.message = not refusal, (refusal or done)[:MESSAGE_MAX]
        return response

    # -- beside the tick, on the executor's thread ------------------------------------------------

    def work(self, now_ns: int) -> None:
        """What is due besides callbacks: status, diagnostics, the log, a sign of life for systemd."""
        core = self._core
        if core is not None:
            self._look_for_rivals(now_ns)
        latest = core.latest if core is not None else None
        if core is None or latest is None:
            return
        while core.events:
            self.get_logger().warning(core.events.popleft())
        if latest.tick != self._ticks_told:
            notify("WATCHDOG=1" if self._ticks_told else "READY=1")
            self._ticks_told = latest.tick
        if now_ns - self._status_ns >= STATUS_INTERVAL_NS:
            self._status_ns = now_ns
            stamp = self.get_clock().now().to_msg()
            self._safety.publish(safety_status(self._config.robot_id, stamp, latest))
        self._diagnostics.work(now_ns, latest, self._slots)

    def _look_for_rivals(self, now_ns: int, at_once: bool = False) -> None:
        """The monitor cannot hold what does not pass through it: with somebody else on cmd_vel nobody drives."""
        before = self._rivals.found
        found = self._rivals.look(now_ns, at_once)
        self._gate.rival(found)
        if found and found != before:
            self.get_logger().error(f"{found}: remap it to cmd_vel_in, or it is not filtered; disarmed")
