"""Random drives through the whole monitor, and what it said to each tick: for holding new code to the old.

``python -m tests.support.monitor_drives FILE.npz [--drives N]`` records them. The robot of a replay drives as the
recorded one did, whatever the code under test says: ticks are compared one by one, and errors cannot add up. Scans lie
on a grid of 1/1024 m: another machine's cosine gives the same scans.
"""

import math
import sys
from typing import NamedTuple

import msgspec
import numpy as np

from contracts.decision import Verdict
from contracts.robot import AMR_SMALL, TUGGER, RobotModel
from safety.fields import ProtectiveField
from safety.inputs import NS, Inputs
from safety.monitor import SafetyMonitor
from safety.movers import reckon
from safety.zones import Zone, rectangle

DRIVES, TICKS = 14, 160
TICK_NS = 50_000_000
GRID = 1024.0
HALF_X_M, HALF_Y_M = 5.0, 3.5
PILLARS = ((3.0, 2.0, 0.3), (-3.5, 1.5, 0.4), (-2.0, -2.4, 0.25), (0.4, 0.3, 0.2))
ZONES = (
    Zone("keep_out", rectangle(1.0, -3.0, 2.0, -0.5)),
    Zone("stay_in", rectangle(-3.5, -2.5, 3.5, 2.5)),
    Zone("speed_limit", rectangle(-2.0, -3.0, 0.0, 3.0), 0.4),
)
FIELDS = (ProtectiveField(0.0, 0.15), ProtectiveField(0.6, 0.8, 0.1))
PROBES = ((1.2, 0.0), (0.6, -0.9), (-0.3, 0.2))
FAULTS = 24
NUMBERS, CODES = 4, 6
"""Speed, turn rate, clearance, sum over what is followed; verdict, reason, advice and three shares beside movers."""


class Kind(NamedTuple):
    """One drive."""

    model: RobotModel
    zones: tuple[Zone, ...]
    fields: tuple[ProtectiveField, ...]
    clean_first: bool
    """Whether somebody cleans the scan before the monitor does, as the tick's encoder."""


def kind_of(number):
    """Round and long robots, coarse and fine lidars, with and without zones and fields."""
    base = (AMR_SMALL, AMR_SMALL, TUGGER)[number % 3]
    rays = (180, 360, 180, 1080)[number % 4]
    model = msgspec.structs.replace(base, lidar=msgspec.structs.replace(base.lidar, rays=rays))
    return Kind(model, ZONES if number % 4 == 2 else (), FIELDS if number % 3 == 1 else (), number % 2 == 0)


class World:
    """A hall with pillars, people who walk up and down and, now and then, something close by."""

    def __init__(self, rng, lidar):
        self._rng, self._lidar = rng, lidar
        self._angles = lidar.angle_min_rad + np.arange(lidar.rays) * lidar.angle_step_rad
        self._people = rng.uniform((-4, -3, -1.6, -1.6), (4, 3, 1.6, 1.6), (rng.integers(6), 4))

    def scan(self, pose, time_s):
        x, y, heading = pose
        cosines, sines = np.cos(self._angles + heading), np.sin(self._angles + heading)
        with np.errstate(divide="ignore"):
            along = np.where(cosines > 0.0, HALF_X_M - x, -HALF_X_M - x) / cosines
            across = np.where(sines > 0.0, HALF_Y_M - y, -HALF_Y_M - y) / sines
        ranges = np.maximum(np.minimum(along, across), 0.06)
        discs = list(PILLARS)
        for at_x, at_y, speed_x, speed_y in self._people:
            swing = abs((time_s / 4.0) % 2.0 - 1.0) * 4.0 - 2.0
            discs.append((at_x + speed_x * swing, at_y + speed_y * swing, 0.25))
        if self._rng.random() < 0.1:
            angle, far = self._rng.uniform(-math.pi, math.pi), self._rng.uniform(0.35, 0.9)
            discs.append((x + far * math.cos(angle), y + far * math.sin(angle), 0.08))
        for centre_x, centre_y, radius in discs:
            ahead = (centre_x - x) * cosines + (centre_y - y) * sines
            beside = (centre_y - y) * cosines - (centre_x - x) * sines
            hit = ahead - np.sqrt(np.maximum(radius**2 - beside**2, 0.0))
            seen = (np.abs(beside) < radius) & (hit > 0.0)
            ranges = np.where(seen, np.minimum(ranges, hit), ranges)
        ranges = np.rint((ranges + self._rng.normal(0.0, 0.01, ranges.size)) * GRID) / GRID
        ranges[ranges > self._lidar.range_max_m] = math.inf
        ranges[self._rng.random(ranges.size) < 0.0015] = self._rng.choice([math.nan, -1.0, 0.0, -math.inf])
        if self._rng.random() < 0.1:
            width = int(self._rng.integers(1, max(3, ranges.size // 24)))
            ranges[(int(self._rng.integers(ranges.size)) + np.arange(width)) % ranges.size] = math.nan
        return ranges.astype(np.float32)


def faulty(number, inputs):
    """One thing amiss in a tick's inputs; 0 is none."""
    now_ns = inputs.now_ns
    changes = (
        {}, {"ranges_m": None}, {"scan_ns": now_ns - 400_000_000}, {"scan_ns": now_ns + 80_000_000},
        {"ranges_m": np.zeros(7, np.float32)}, {"ranges_m": np.full_like(inputs.ranges_m, math.nan)},
        {"velocity": None}, {"velocity": (math.nan, 0.0)}, {"velocity": (2.0, 0.0)}, {"odometry_ns": now_ns - NS},
        {"odometry_ns": now_ns + 80_000_000}, {"command": None}, {"command": (math.nan, 0.1)},
        {"command": (0.3, math.inf)}, {"pose": None}, {"pose": (math.nan, 0.0, 0.0)}, {"pose": (9.0, 9.0, 1.0)},
        {"tilt_rad": 0.4}, {"tilt_rad": math.nan}, {"scan_stamp_ns": 5}, {"odometry_stamp_ns": now_ns + NS},
        {"scan_stamp_ns": now_ns - NS}, {"velocity": (0.0, 1.0)}, {"velocity": (0.0, 0.0)}, {"command": (1.2, 0.4)},
    )  # fmt: skip
    return msgspec.structs.replace(inputs, **changes[number])


def wanted(rng, model):
    """A command to keep for a while."""
    speed = rng.choice([0.0, 0.3, 0.8, model.speed_max_mps, 2.0, -0.3, -0.1, 1e-7])
    turn = rng.choice(
        [0.0, rng.uniform(-1.0, 1.0), model.turn_rate_max_radps, -model.turn_rate_max_radps, 3.0, 5e-4]
    )
    return float(speed), float(turn)


def ticks_of(number, sent):
    """Inputs of a drive's ticks, and what else happens before each; ``sent(tick)`` is the command that went out."""
    rng, kind = np.random.default_rng([20, number]), kind_of(number)
    world = World(rng, kind.model.lidar)
    pose = (float(rng.uniform(-3, 3)), float(rng.uniform(-2, 2)), float(rng.uniform(-3, 3)))
    now_ns, ranges, scan_ns, command = 1_000 * NS, None, 0, (0.5, 0.0)
    noisy, fault, strange = bool(rng.random() < 0.7), 0, float(rng.choice([0.0, 2.9]))
    for tick in range(TICKS):
        if tick:
            step_ns = TICK_NS if rng.random() < 0.97 else int(rng.integers(1, 700_000_000))
            now_ns, speed = now_ns + step_ns, sent(tick - 1)
            pose = reckon(*pose, step_ns / NS, *speed)
        else:
            speed = (0.0, 0.0)
        if ranges is None or rng.random() < 0.8:
            ranges, scan_ns = world.scan(pose, now_ns / NS), now_ns - int(rng.integers(60_000_000))
        if rng.random() < 0.05:
            command = wanted(rng, kind.model)
        velocity = tuple((np.array(speed) + noisy * rng.normal(0.0, 0.02, 2)).tolist())
        jitter = (command[0], command[1] + float(rng.normal(0.0, 0.01))) if rng.random() < 0.5 else command
        happens = (
            "arm"
            if tick % 12 == 0
            else rng.choice(["", "stop", "emergency", "sent"], p=[0.98, 0.01, 0.005, 0.005])
        )
        inputs = Inputs(
            now_ns, ranges, scan_ns, velocity, now_ns, jitter, pose, scan_ns + NS, now_ns + NS,
            0.01, bool(rng.random() < 0.7), float(rng.uniform(strange, 4.0)) if noisy else None,
        )  # fmt: skip
        if fault and rng.random() < 0.5:
            fault = 0
        elif rng.random() < 0.05:
            fault = int(rng.integers(FAULTS + 1))
        yield faulty(fault, inputs), str(happens)


def run(number, recorded=None):
    """Drive ``number`` through the present monitor: float64[TICKS, NUMBERS] and uint8[TICKS, CODES].

    Without ``recorded``, the numbers of an earlier run, it drives as it is allowed to.
    """
    kind = kind_of(number)
    monitor = SafetyMonitor(kind.model, zones=kind.zones, fields=kind.fields)
    numbers, codes = np.zeros((TICKS, NUMBERS)), np.zeros((TICKS, CODES), np.uint8)
    source = numbers if recorded is None else recorded
    for tick, (inputs, happens) in enumerate(ticks_of(number, lambda k: tuple(source[k, :2].tolist()))):
        happen(monitor, happens)
        ranges = inputs.ranges_m
        if kind.clean_first and ranges is not None and ranges.shape == (kind.model.lidar.rays,):
            monitor.clean_ranges(ranges, inputs.scan_ns)
        ruling = monitor.step(inputs)
        shares = [monitor.share_beside_movers(probe, 0.03) for probe in PROBES]
        if tick % 3:
            monitor.settle()
        tracks = np.clip(monitor._movers.tracks, -1e6, 1e6)
        numbers[tick] = *ruling.command, ruling.clearance_m, float(np.abs(tracks).sum())
        codes[tick, :3] = ruling.verdict, ruling.reason, monitor.advise(inputs).value
        codes[tick, 3:] = [round(10 * share) for share in shares]
    return numbers, codes


def happen(monitor, what):
    """What people do to the monitor between two ticks."""
    if what == "arm":
        monitor.reset_emergency()
        monitor.arm()
        monitor.armed |= not monitor.emergency
    elif what == "sent":
        monitor.sent((0.1, 0.1))
    elif what:
        monitor.request_stop(what == "emergency")


def main():
    """Record."""
    drives = int(sys.argv[sys.argv.index("--drives") + 1]) if "--drives" in sys.argv else DRIVES
    numbers, codes = zip(*(run(number) for number in range(drives)), strict=True)
    np.savez_compressed(sys.argv[1], numbers=np.array(numbers), codes=np.array(codes))
    verdicts = np.bincount(np.array(codes)[..., 0].ravel(), minlength=len(Verdict))
    print(dict(zip([verdict.name for verdict in Verdict], verdicts.tolist(), strict=True)))


if __name__ == "__main__":
    main()
