"""``outrider_agent``: the lifecycle node around ``edge_agent.stages``. Callbacks only store."""

import json
import time
from pathlib import Path
from typing import Any

from geometry_msgs.msg import PoseStamped, TwistStamped
from nav_msgs.msg import Odometry
from outrider_msgs.msg import DecisionStatus, PolicyStatus, SafetyStatus
from outrider_msgs.srv import Approve, Arm, LoadPolicy, ResetStop, SetMode, Stop
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.task import Future
from sensor_msgs.msg import LaserScan

from contracts.atomic import write_atomically
from contracts.ring import RingWriter
from edge_agent.actuate.serial_sink import FIGURES_FILE, SerialSink
from edge_agent.config import ControlConfig
from edge_agent.infer.loader import LoadRequest
from edge_agent.observe.scan_sender import ScanSender
from edge_agent.ros.diagnostics import Diagnostics, policy_state
from edge_agent.ros.feedback import Feedback
from edge_agent.ros.parameters import declare_settings
from edge_agent.ros.quality import LATCHED, NEWEST, RELIABLE
from edge_agent.ros.rivals import TOPIC, Rivals
from edge_agent.ros.sink import RosSink
from edge_agent.ros.status import decision_status, policy_status, safety_status
from edge_agent.stages import REFUSED, Control

NODE_NAME = "outrider_agent"
STATUS_INTERVAL_NS = 200_000_000
STOP_REPEATS = 3
MESSAGE_MAX = 256


class AgentNode(LifecycleNode):  # type: ignore[misc]
    """The robot's agent in its own namespace."""

    def __init__(self, config: ControlConfig, context: Any) -> None:
        super().__init__(NODE_NAME, namespace=config.robot_id, context=context)
        self._config = config = declare_settings(self, config)
        self._ring = RingWriter(config.ring_name)
        self._scans = ScanSender(config.ring_name)
        self._sink = RosSink()
        self._serial: SerialSink | None = None
        if config.serial_port:
            self._serial = SerialSink(config.serial_port, self._sink, config.real_time_factor)
        self._feedback: Feedback | None = None
        self._control: Control | None = None
        self._entities: list[Any] = []
        self._loads: list[tuple[LoadRequest, Any]] = []
        self._status_ns = 0
        self._detail = ""
        self._policy_told: tuple[object, ...] = ()

    # -- lifecycle --------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Floor, policy, monitor; then topics and services."""
        try:
            self._control = Control(self._config, self._serial or self._sink, self._ring)
        except REFUSED as error:
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        self._open_topics(self._control)
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Commands begin, with zero: nobody has armed the robot yet."""
        result = super().on_activate(state)
        assert self._control is not None
        self._control.gate.disarm()
        self._control.core.stop_command()
        self._control.loop.start()
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
        self._halt()
        self._release()
        return super().on_shutdown(state)

    def close(self) -> None:
        """End of the process: zero commands, no threads, no ring."""
        self._halt()
        self._release()
        if self._serial is not None:
            self._serial.close()
            figures = json.dumps(self._serial.figures()).encode()
            write_atomically(Path(self._config.state_dir) / FIGURES_FILE, figures, durable=False)
        self._ring.close()
        self._scans.close()

    def _halt(self) -> None:
        if self._control is not None and self._control.loop.running:
            self._control.loop.stop()
            self._control.gate.disarm()
            for _ in range(STOP_REPEATS):
                self._control.core.stop_command()

    def _release(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        for destroy, entity in self._entities:
            destroy(entity)
        self._entities.clear()
        self._sink.publisher = None
        self._feedback = None

    def _open_topics(self, control: Control) -> None:
        add = self._entities.append
        for kind, topic, quality, callback in (
            (LaserScan, "scan", NEWEST, self._on_scan),
            (Odometry, "odom", NEWEST, self._on_odometry),
            (PoseStamped, "goal", LATCHED, self._on_goal),
        ):
            add((self.destroy_subscription, self.create_subscription(kind, topic, callback, quality)))
        for kind, name, answer in (
            (Arm, "outrider/arm", self._on_arm),
            (Stop, "outrider/stop", self._on_stop),
            (ResetStop, "outrider/reset_stop", self._on_reset),
            (LoadPolicy, "outrider/load_policy", self._on_load),
            (SetMode, "outrider/set_mode", self._on_set_mode),
            (Approve, "outrider/approve", self._on_approve),
        ):
            add((self.destroy_service, self.create_service(kind, name, answer)))
        self._safety = self.create_publisher(SafetyStatus, "outrider/safety", RELIABLE)
        self._decision = self.create_publisher(DecisionStatus, "outrider/decision", RELIABLE)
        self._policy = self.create_publisher(PolicyStatus, "outrider/policy", LATCHED)
        self._rivals = Rivals(self, Path(self._config.state_dir))
        self._sink.publisher = self.create_lifecycle_publisher(TwistStamped, TOPIC, RELIABLE)
        self._rivals.own()
        for publisher in (self._safety, self._decision, self._policy):
            add((self.destroy_publisher, publisher))
        add((self.destroy_lifecycle_publisher, self._sink.publisher))
        self._diagnostics = Diagnostics(
            self, self._config.robot_id, control.gate.monitor.config, self._config.real_time_factor
        )
        add((Diagnostics.close, self._diagnostics))
        if self._serial is not None:
            self._feedback = Feedback(self, self._serial)
            add((Feedback.close, self._feedback))
        self._policy_told = ()
        self._detail = "" if control.ladder.policy else "no policy: the rules drive"

    # -- callbacks: they only store ---------------------------------------------------------------

    def _on_scan(self, message: Any) -> None:
        if self._control is not None:
            stamp = message.header.stamp
            self._control.intake.scan(
                message.ranges, message.angle_min, message.angle_increment, message.range_max,
                (stamp.sec, stamp.nanosec), time.monotonic_ns(),
            )  # fmt: skip
            scan = self._control.slots.scan
            self._scans.send(scan, message.angle_min, message.angle_increment, message.range_max)

    def _on_odometry(self, message: Any) -> None:
        if self._control is not None:
            position, rotation = message.pose.pose.position, message.pose.pose.orientation
            twist, stamp = message.twist.twist, message.header.stamp
            self._control.intake.odometry(
                message.header.frame_id, (position.x, position.y),
                (rotation.x, rotation.y, rotation.z, rotation.w),
                (twist.linear.x, twist.angular.z), time.monotonic_ns(), (stamp.sec, stamp.nanosec),
            )  # fmt: skip

    def _on_goal(self, message: Any) -> None:
        if self._control is not None:
            position = message.pose.position
            self._control.intake.goal(message.header.frame_id, position.x, position.y)

    # -- services ---------------------------------------------------------------------------------

    def _on_arm(self, request: Any, response: Any) -> Any:
        control = self._control
        if control is None or not control.loop.running:
            return _answer(response, False, "the agent is not active; activate its lifecycle node first")
        refusal = ""
        if request.arm:
            self._look_for_rivals(control, time.monotonic_ns(), at_once=True)
            refusal = control.gate.arm()
            if not refusal and self._serial is not None and (refusal := self._serial.arm()):
                control.gate.disarm()
        else:
            control.gate.disarm()
        done = "armed" if request.arm else "disarmed"
        self.get_logger().info(f"{refusal or done} ({request.reason[:128]})")
        return _answer(response, not refusal, refusal or done)

    def _on_stop(self, request: Any, response: Any) -> Any:
        if self._control is not None:
            self._control.gate.stop(request.emergency)
        if self._serial is not None:
            self._serial.stop()
        kind = "emergency stop, latched" if request.emergency else "stopped and disarmed"
        self.get_logger().warning(f"{kind} ({request.reason[:128]})")
        return _answer(response, True, kind)

    def _on_reset(self, request: Any, response: Any) -> Any:
        control = self._control
        latched = control is not None and control.gate.latched
        refusal = control.gate.reset() if control else "the agent is not configured"
        if control is not None and self._serial is not None and not (latched and refusal):
            refusal = self._serial.clear()  # the board's faults are latched too
        self.get_logger().warning(f"{refusal or 'reset'} ({request.reason[:128]})")
        return _answer(response, not refusal, refusal or "reset; arm the robot to drive")

    def _on_set_mode(self, request: Any, response: Any) -> Any:
        control = self._control
        if control is None or not control.loop.running:
            return _answer(response, False, "the agent is not active; activate its lifecycle node first")
        # Seldom, and it must be on disk before it is true: here the executor's thread does write a file.
        refusal = control.set_mode(request.mode, request.reason)
        done = f"mode {control.modes.mode.name.lower()}"
        self.get_logger().warning(f"{refusal or done} ({request.reason[:128]})")
        return _answer(response, not refusal, refusal or done)

    def _on_approve(self, request: Any, response: Any) -> Any:
        control = self._control
        if control is None or not control.loop.running:
            return _answer(response, False, "the agent is not active; activate its lifecycle node first")
        refusal = control.approve(request.seconds, time.monotonic_ns())
        done = f"the policy may drive for {request.seconds:g} s"
        self.get_logger().info(f"{refusal or done} ({request.reason[:128]})")
        return _answer(response, not refusal, refusal or done)

    async def _on_load(self, request: Any, response: Any) -> Any:
        control, path = self._control, Path(request.path)
        if control is None or not control.loop.running or not path.is_absolute():
            response.accepted = False
            response.message = "give an absolute path" if control else "the agent is not active"
            return response
        load = control.loader.request(path)
        future: Any = Future(executor=self.executor)
        self._loads.append((load, future))
        await future
        response.accepted, response.digest = load.accepted, load.digest[:64]
        response.message = load.message[:MESSAGE_MAX]
        return response

    # -- beside the tick, on the executor's thread ------------------------------------------------

    def work(self, now_ns: int) -> None:
        """What is due besides callbacks: answers to loads, the log, status topics, a sign of life."""
        control = self._control
        if control is None or not control.loop.running:
            self._ring.beat(now_ns)
        for load, future in [entry for entry in self._loads if entry[0].done]:
            self._loads.remove((load, future))
            future.set_result(None)
        if control is None:
            return
        self._look_for_rivals(control, now_ns)
        if self._serial is not None and (stopped := self._serial.stopped()):
            control.gate.disarm()
            control.events.append(stopped)
        for event in control.take_events():
            self.get_logger().warning(event)
            self._detail = event
        self._tell_policy(control)
        told = policy_state(control.ladder, control.modes.mode, self._detail)
        motors = None
        if self._feedback is not None:
            self._feedback.work(now_ns)
            motors = self._feedback.state
        self._diagnostics.work(now_ns, control.core.latest, control.slots, told, motors)
        if now_ns - self._status_ns >= STATUS_INTERVAL_NS and control.core.latest is not None:
            self._status_ns = now_ns
            stamp = self.get_clock().now().to_msg()
            self._safety.publish(safety_status(self._config.robot_id, stamp, control.core.latest))
            policy = control.ladder.policy
            approved_s = control.modes.approved_s(policy.digest, now_ns) if policy else 0.0
            status = decision_status(self._config.robot_id, stamp, control.core.latest, approved_s)
            self._decision.publish(status)

    def _look_for_rivals(self, control: Control, now_ns: int, at_once: bool = False) -> None:
        """With somebody else on cmd_vel nobody drives: what does not pass the monitor is not held by it."""
        before = self._rivals.found
        found = self._rivals.look(now_ns, at_once)
        control.gate.rival(found)
        if found and found != before:
            self.get_logger().error(f"{found}: disarmed")

    def _tell_policy(self, control: Control) -> None:
        ladder = control.ladder
        trial = ladder.trial
        state = (ladder.policy, ladder.previous, ladder.swaps, self._detail, trial and trial.stage)
        if state != self._policy_told:
            self._policy_told = state
            stamp = self.get_clock().now().to_msg()
            self._policy.publish(policy_status(self._config.robot_id, stamp, ladder, self._detail))


def _answer(response: Any, success: bool, message: str) -> Any:
    response.success, response.message = success, message[:MESSAGE_MAX]
    return response
