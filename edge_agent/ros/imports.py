"""ROS 2 may come from a distribution, from wheels, or be missing: then one clear line says so."""

from edge_agent.errors import RosUnavailableError


def require_ros() -> None:
    """Raise RosUnavailableError when rclpy or this project's interfaces cannot be imported."""
    try:
        import outrider_msgs.msg  # noqa: F401
        import rclpy  # noqa: F401
    except ImportError as error:
        raise RosUnavailableError(
            f"no ROS 2 here ({error}); run `make setup`, or source a distribution and build ros_ws/"
        ) from None
