"""The safety monitor's whole step against its admission alone as a textbook writes it, interleaved in one process.

``python -m benchmarks.safety_monitor [--quick]``. Prints JSON lines. The value is all a tick pays for: cleaning a
scan nobody has cleaned, every watch, limits and admission. The reference admits only: fresh arrays, every point of the
scan through the exact formulas (law of cosines on the turning circle), for the commanded and the present arc.
"""

import math
import time

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks._hall import Hall
from benchmarks._report import quick_asked, report
from contracts.decision import Verdict
from contracts.robot import AMR_SMALL, TUGGER, RobotModel
from safety.config import MonitorConfig
from safety.inputs import NS, Inputs
from safety.monitor import SafetyMonitor
from safety.movers import reckon

RAYS = (360, 1080)
TICKS, TICKS_QUICK = 20_000, 4_000
SETTLE_TICKS = 200
CIRCLE = (0.5, 0.4)
"""m/s and rad/s: round the middle of the hall, pillars and people beside it."""
TICK_NS = 50_000_000
Pair = tuple[float, float]
Floats = npt.NDArray[np.float64]


def textbook(
    config: MonitorConfig, model: RobotModel, ranges: npt.NDArray[np.float32], command: Pair, velocity: Pair
) -> Pair:
    """The admission of a round robot, straight from the formulas."""
    angles = -math.pi + np.arange(len(ranges)) * 2.0 * math.pi / len(ranges)
    clean = np.clip(ranges.astype(np.float64), model.lidar.range_min_m, model.lidar.range_max_m)
    x, y = clean * np.cos(angles), clean * np.sin(angles)
    radius = model.footprint_radius_m + config.margin_m
    caps = []
    for speed, turn_rate in (command, velocity):
        if abs(turn_rate) <= 1e-3 * abs(speed):
            along = np.where(
                np.abs(y) < radius, np.sign(speed) * x - np.sqrt(np.maximum(radius**2 - y**2, 0)), np.inf
            )
            along = np.where(along >= 0.0, along, np.inf)
        else:
            size, centre = abs(speed / turn_rate), speed / turn_rate
            distance = np.hypot(x, y - centre)
            hit = np.abs(distance - size) < radius
            half = np.arccos(
                np.clip((size**2 + distance**2 - radius**2) / (2.0 * size * distance), -1.0, 1.0)
            )
            angle = np.sign(turn_rate) * (np.arctan2(y - centre, x) - np.arctan2(-centre, 0.0))
            along = np.where(hit, size * np.mod(angle - half, 2.0 * np.pi), np.inf)
        free_m = min(float(along.min()), config.reach_m) - config.standoff_m
        lag = model.braking_mps2 * config.reaction_s + config.obstacle_mps
        room = 2.0 * model.braking_mps2 * (free_m - config.obstacle_mps * config.reaction_s)
        caps.append(max(-lag + math.sqrt(max(lag * lag + room, 0.0)), 0.0))
    share = min(1.0, min(caps) / abs(command[0]))
    return command[0] * share, command[1] * share


def measure(model: RobotModel, rays: int, ticks: int) -> tuple[Floats, Floats, Floats]:
    """Times in us of the monitor's step and of the textbook's, float64[ticks] each, in pairs."""
    model = msgspec.structs.replace(model, lidar=msgspec.structs.replace(model.lidar, rays=rays))
    monitor, hall, config = SafetyMonitor(model), Hall(rays, model.lidar.range_max_m), MonitorConfig()
    monitor.arm()
    pose, velocity, now_ns, drove = (0.0, -1.0, 0.0), (0.0, 0.0), 1_000 * NS, 0
    spent = np.zeros((ticks, 3))
    for tick in range(-SETTLE_TICKS, ticks):
        ranges = hall.scan(pose, now_ns / NS)
        inputs = Inputs(
            now_ns, ranges, now_ns, velocity, now_ns, CIRCLE, scan_stamp_ns=now_ns, odometry_stamp_ns=now_ns
        )
        began_ns = time.perf_counter_ns()
        ruling = monitor.step(inputs)
        between_ns = time.perf_counter_ns()
        textbook(config, model, ranges, CIRCLE, velocity)
        ended_ns = time.perf_counter_ns()
        monitor.settle()
        settled_ns = time.perf_counter_ns()
        if tick >= 0:
            spent[tick] = between_ns - began_ns, ended_ns - between_ns, settled_ns - ended_ns
            drove += ruling.verdict <= Verdict.LIMIT
        velocity, now_ns = ruling.command, now_ns + TICK_NS
        pose = reckon(*pose, TICK_NS / NS, *velocity)
    if drove != ticks:
        raise RuntimeError(f"only {drove} of {ticks} ticks drove: the whole step was not measured")
    return spent[:, 0] / 1e3, spent[:, 1] / 1e3, spent[:, 2] / 1e3


def main() -> None:
    """Measure and print."""
    ticks = TICKS_QUICK if quick_asked("the safety monitor's step") else TICKS
    for rays in RAYS:
        step, reference, settle = measure(AMR_SMALL, rays, ticks)
        about = f"whole step, {rays} rays; reference: admission alone as a textbook writes it"
        for name, share in (("p50", 50.0), ("p99", 99.0)):
            value, base = np.percentile(step, share), np.percentile(reference, share)
            report(f"monitor.{rays}.{name}_us", float(value), "us", "lower", float(base), about)
        after = "what moves is worked out after the command has gone"
        report(f"monitor.{rays}.settle_p50_us", float(np.median(settle)), "us", "lower", about=after)
    step, _, _ = measure(TUGGER, RAYS[0], ticks)
    report("monitor.long_360.p50_us", float(np.median(step)), "us", "lower", about="three discs, 360 rays")


if __name__ == "__main__":
    main()
