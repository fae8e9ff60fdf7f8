"""The firmware's ramps and speed loop, in virtual time."""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from firmware_interface.protocol import frames
from firmware_interface.protocol.frames import Result, State
from firmware_interface.protocol.values import BY_NAME, to_bits
from tests.support.firmware import Pair, drive


def test_speed_acceleration_and_jerk_stay_within_limits(pair: Pair) -> None:
    assert pair.ask(frames.ParameterSet, BY_NAME["wheels_hz"].id, frames.Kind.U32, 200).result == Result.OK
    pair.run(20)
    pair.events.clear()
    pair.arm()
    radius_m, dt_s = 0.08, 0.005
    for step in range(600):
        pair.command(2.0 if step < 200 else (-2.0 if step < 450 else 0.0))
        pair.run(5)
    wanted = [e.left_wanted_radps * radius_m for e in pair.events if isinstance(e, frames.Wheels)]
    rates = [(b - a) / dt_s for a, b in itertools.pairwise(wanted)]
    jerks = [(b - a) / dt_s for a, b in itertools.pairwise(rates)]
    assert max(wanted) == pytest.approx(1.2, abs=1e-4)
    assert min(wanted) == pytest.approx(-0.3, abs=1e-4)
    assert wanted[-1] == 0.0
    assert max(rates) <= 1.6 + 1e-3
    assert min(rates) >= -1.6 - 1e-3
    assert max(rate for rate, speed in zip(rates, wanted, strict=False) if speed > 0.05) <= 1.2 + 1e-2
    assert max(map(abs, jerks)) <= 40.0 * 1.1 + 1.0


def test_a_start_after_a_stop_in_the_midst_of_a_ramp_begins_from_rest(pair: Pair) -> None:
    assert pair.ask(frames.ParameterSet, BY_NAME["wheels_hz"].id, frames.Kind.U32, 200).result == Result.OK

    def wanted_soon() -> list[float]:
        mark = len(pair.events)
        drive(pair, ms=30, linear=1.0)
        return [e.right_wanted_radps for e in pair.events[mark:] if isinstance(e, frames.Wheels)]

    first = wanted_soon()
    drive(pair, ms=100, linear=1.0)
    pair.send(frames.Stop(0))
    pair.run(1000)
    assert pair.latest(frames.Status).state == State.DISARMED
    again = wanted_soon()
    assert max(first) > 0.1
    assert again[:4] == pytest.approx(first[:4], abs=0.06)


def test_a_turn_after_a_stop_in_the_midst_of_one_begins_from_rest(pair: Pair) -> None:
    assert pair.ask(frames.ParameterSet, BY_NAME["wheels_hz"].id, frames.Kind.U32, 200).result == Result.OK

    def wanted_at_first() -> float:
        pair.arm()
        pair.command(0.0, 1.0)
        mark = len(pair.events)
        pair.run(10)
        return next(e.right_wanted_radps for e in pair.events[mark:] if isinstance(e, frames.Wheels))

    first = wanted_at_first()
    for _ in range(20):
        pair.command(0.0, 1.0)
        pair.run(10)
    pair.send(frames.Stop(0))
    pair.run(1000)
    assert 0.0 <= first < 0.2
    assert wanted_at_first() < 0.2, "it goes on with the turn rate that it had before"


def test_the_damping_of_the_speed_loop_brakes_what_changes(program: Path) -> None:
    damping = BY_NAME["wheel_d"]

    def speed_after_a_while(value: float) -> float:
        with Pair(program) as pair:
            pair.open()
            asked = (frames.ParameterSet, damping.id, frames.Kind.F32, to_bits("f32", value))
            assert pair.ask(*asked).result == Result.OK
            drive(pair, ms=300, linear=1.0)
            return float(pair.latest(frames.Wheels).right_radps)

    assert speed_after_a_while(damping.high) < 0.95 * speed_after_a_while(0.0)


@pytest.mark.parametrize(("linear", "angular"), [(0.3, 0.8), (0.3, -0.8), (0.0, 1.0), (-0.2, 0.5)])
def test_wheels_turn_a_body_as_it_was_asked(pair: Pair, linear: float, angular: float) -> None:
    pair.arm()
    for _ in range(200):
        pair.command(linear, angular)
        pair.run(10)
    wheels = pair.latest(frames.Wheels)
    left, right = ((linear + side * angular * 0.40 / 2.0) / 0.08 for side in (-1, 1))
    assert (wheels.left_wanted_radps, wheels.right_wanted_radps) == pytest.approx((left, right), abs=1e-5)
    assert (wheels.left_radps, wheels.right_radps) == pytest.approx((left, right), abs=0.3)


@pytest.mark.parametrize("linear", [0.5, -0.2])
def test_a_ramp_ends_at_what_was_asked_exactly(pair: Pair, linear: float) -> None:
    drive(pair, ms=3000, linear=linear)
    mark = len(pair.events)
    for _ in range(30):
        pair.command(linear)
        pair.run(10)
    wheels = [event for event in pair.events[mark:] if isinstance(event, frames.Wheels)]
    assert len(wheels) > 5
    wanted = {radps for event in wheels for radps in (event.left_wanted_radps, event.right_wanted_radps)}
    assert len(wanted) == 1
    assert wanted.pop() == pytest.approx(linear / 0.08, abs=1e-5)


def test_wheels_follow_what_they_are_asked(pair: Pair) -> None:
    drive(pair, ms=1500)
    wheels = pair.latest(frames.Wheels)
    assert wheels.left_radps == pytest.approx(0.5 / 0.08, rel=0.02)
    assert pair.latest(frames.Imu).acceleration_z_mps2 == pytest.approx(9.81)


class Ramp:
    """The jerk-limited ramp of docs/firmware-porting.md in single precision, worked out once more: v = a^2 / 2j."""

    def __init__(self) -> None:
        self.speed = self.acceleration = np.float32(0.0)
        self.dt_s = np.float32(1e-6) * np.float32(1000.0)
        up, down, jerk = (
            BY_NAME[f"{name}_max_{unit}"].default
            for name, unit in (("acceleration", "mps2"), ("deceleration", "mps2"), ("jerk", "mps3"))
        )
        self.up, self.down, self.jerk = np.float32(up), np.float32(down), np.float32(jerk)
        self.step = self.jerk * self.dt_s

    def go(self, wanted: np.float32) -> float:
        """One millisecond towards a speed within the limits."""
        half = np.float32(0.5)
        error = wanted - self.speed
        faster = (error >= 0.0) == (self.speed >= 0.0) or error == 0.0
        root = np.sqrt(np.float32(2.0) * self.jerk * abs(error) + half * half * self.step * self.step)
        rate = min(max(root - half * self.step, np.float32(0.0)), self.up if faster else self.down)
        change = (-rate if error < 0.0 else rate) - self.acceleration
        self.acceleration += min(max(change, -self.step), self.step)
        speed = self.speed + self.acceleration * self.dt_s
        near = abs(wanted - speed) <= self.step * self.dt_s
        if near and abs(self.acceleration) <= np.float32(2.0) * self.step:
            speed, self.acceleration = wanted, np.float32(0.0)
        self.speed = speed
        return float(speed)


def targets(ramp: Ramp, seed: int) -> Iterator[np.float32]:
    """Speeds to ask for, a millisecond each: held for a while, or just where the ramp is when it still accelerates."""
    rng = random.Random(seed)
    while True:
        if rng.random() < 0.5:
            wanted, held = np.float32(rng.uniform(-0.29, 1.19)), rng.randint(1, 200)
        elif rng.random() < 0.5:
            wanted, held = np.float32(round(rng.uniform(0.0, 0.02), 4)), rng.randint(20, 80)
        else:
            far = np.float32(rng.choice((-0.29, 1.19)))
            for _ in range(80):
                if 3.0 < abs(ramp.acceleration) / ramp.step <= 4.0:
                    break  # a millisecond later it is still too fast to end here, if only just
                yield far
            steps = ramp.acceleration / ramp.step - np.sign(ramp.acceleration)
            wanted = np.float32(ramp.speed + steps * ramp.step * ramp.dt_s)
            wanted, held = (
                np.float32(min(max(wanted, np.float32(-0.29)), np.float32(1.19))),
                rng.randint(1, 3),
            )
        yield from [wanted] * held


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_ramp_goes_as_it_is_described_to_the_bit(program: Path, seed: int) -> None:
    with Pair(program) as pair:
        pair.open()
        assert (
            pair.ask(frames.ParameterSet, BY_NAME["wheels_hz"].id, frames.Kind.U32, 200).result == Result.OK
        )
        pair.run(20)
        pair.arm()
        mark, ramp, expected = len(pair.events), Ramp(), []
        for wanted, _ in zip(targets(ramp, seed), range(4000), strict=False):
            pair.command(float(wanted))
            pair.run(1)
            expected.append(ramp.go(wanted))
        told = [event for event in pair.events[mark:] if isinstance(event, frames.Wheels)]
        assert pair.latest(frames.Status).state == State.ARMED
    came = np.array([event.left_wanted_radps for event in told]) * 0.08
    assert len(came) > 700
    best = min(
        np.abs(came[5:-5] - expected[k : k + 5 * len(came) : 5][5 : len(came) - 5]).max() for k in range(8)
    )
    assert best < 1e-6
