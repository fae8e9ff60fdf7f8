"""A ROS process's main thread: ROS in, status out, until a signal says stop."""

import gc
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from edge_agent.config import ControlConfig
from edge_agent.errors import ConfigError
from edge_agent.ros.imports import require_ros

SPIN_S = 0.1
ROS_ARGS_VARIABLE = "OUTRIDER_ROS_ARGS"


def run(config: ControlConfig) -> int:
    """Run the agent's node until SIGTERM or SIGINT; returns the exit code.

    Raises:
        RosUnavailableError: no ROS 2 here.
        ConfigError: the node could not be configured; the log says why.
    """
    require_ros()
    from edge_agent.ros.node import AgentNode

    return spin(lambda context: AgentNode(config, context), config.autostart)


def spin(make_node: Callable[[Any], Any], autostart: bool) -> int:
    """Run a lifecycle node until SIGTERM or SIGINT; returns the exit code.

    Args:
        make_node: takes the rclpy context; the node has ``work(now_ns)`` and ``close()``.
        autostart: configure and activate it here, instead of waiting for somebody to.

    Raises:
        AgentError: what ``make_node`` raises.
        ConfigError: the node could not be configured; the log says why.
    """
    import rclpy
    from rclpy.experimental.events_executor import EventsExecutor
    from rclpy.signals import SignalHandlerOptions

    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    context = rclpy.Context()
    arguments = os.environ.get(ROS_ARGS_VARIABLE, "").splitlines() or None
    rclpy.init(args=arguments, context=context, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = make_node(context)
    except Exception:
        rclpy.shutdown(context=context)
        raise
    executor = EventsExecutor(context=context)
    executor.add_node(node)
    try:
        if autostart:
            _activate(node)
        while not stopping:
            # FACTS: spin(), and spin_once() without a time, run no callback with this executor.
            executor.spin_once(SPIN_S)
            node.work(time.monotonic_ns())
    finally:
        node.close()
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)
        del node, executor
        gc.collect()
    return 0


def _activate(node: Any) -> None:
    from rclpy.lifecycle import TransitionCallbackReturn

    for transition in (node.trigger_configure, node.trigger_activate):
        if transition() != TransitionCallbackReturn.SUCCESS:
            raise ConfigError(f"{transition.__name__.removeprefix('trigger_')} failed; see the line above")
