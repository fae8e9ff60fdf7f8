"""From the slots to the monitor's inputs, for whoever drives."""

from edge_agent.observe.slots import Odometry, Scan
from safety.inputs import NS, Inputs


def take_sensed(
    inputs: Inputs,
    now_ns: int,
    scan: Scan | None,
    odometry: Odometry | None,
    stamped: bool,
    factor: float = 1.0,
) -> None:
    """Fill in all that the sensors brought, and the time.

    Args:
        inputs: written.
        now_ns: monotonic.
        scan, odometry: the latest; None before the first.
        stamped: whether the sensors' stamps come from a clock that goes as ours does.
        factor: robot seconds in a second; the monitor reckons in robot time.
    """
    inputs.now_ns = int(now_ns * factor)
    inputs.ranges_m = scan.ranges_m if scan else None
    inputs.scan_ns = int(scan.arrived_ns * factor) if scan else 0
    inputs.velocity = odometry.velocity if odometry else None
    inputs.odometry_ns = int(odometry.arrived_ns * factor) if odometry else 0
    inputs.pose = odometry.pose if odometry and odometry.finite else None
    if stamped:
        inputs.scan_stamp_ns = scan.stamp[0] * NS + scan.stamp[1] if scan else 0
        inputs.odometry_stamp_ns = odometry.stamp[0] * NS + odometry.stamp[1] if odometry else 0
