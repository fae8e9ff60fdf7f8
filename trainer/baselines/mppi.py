"""Model predictive path integral control (Williams et al. 2017, algorithm 2), compiled, over a batch of robots.

``pytorch-mppi`` plans one robot at a time at some milliseconds a decision; this plans each in a fraction of one.
A test holds both together: same noise, same plan.
"""

import math
from typing import Any, NamedTuple

import msgspec
import numba
import numpy as np
import numpy.typing as npt

from contracts.robot import RobotModel
from navigation.controllers import dwa, recovery
from navigation.controllers.dwa import beam_directions
from navigation.controllers.sight import over_blind_sectors
from sim.twin.motion import ramp

NOISE_BANKS = 16
HIT_COST = 100.0
"""Cost of a step in which the footprint touches something."""
recover = numba.njit(cache=True)(recovery.recover)
closing_speeds = numba.njit(cache=True)(dwa.closing_speeds)


class MppiConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the controller; costs are per step of the plan."""

    samples: int = 128
    steps: int = 14
    step_s: float = 0.14
    temperature: float = 0.2
    sigma_speed_mps: float = 0.4
    sigma_turn_radps: float = 0.8
    smooth: float = 0.7
    """Correlation of the noise of one step with the next."""
    target_m: float = 2.2
    """How far ahead on the route the point lies that it drives to."""
    weight_progress: float = 1.0
    """Per metre to the point ahead."""
    weight_route: float = 0.4
    """Per metre beside the route."""
    weight_end: float = 4.0
    """Per metre to the point ahead at the plan's end."""
    weight_clearance: float = 6.0
    """Per square metre short of ``clearance_enough_m``."""
    weight_turn: float = 0.05
    """Per square rad/s."""
    weight_change: float = 0.2
    """Per square m/s and square rad/s between two steps' commands."""
    clearance_enough_m: float = 0.35
    closing_for_s: float = 1.0
    slow_within_m: float = 1.0
    stuck_after_s: float = 1.2
    recovery_s: float = 1.5
    recovery_speed_mps: float = -0.25
    recovery_turn_radps: float = -0.7


class MppiNumbers(NamedTuple):
    """What the compiled plan computes with: the config's numbers and the robot's."""

    step_s: float
    temperature: float
    sigma_speed_mps: float
    sigma_turn_radps: float
    target_m: float
    weight_progress: float
    weight_route: float
    weight_end: float
    weight_clearance: float
    weight_turn: float
    weight_change: float
    clearance_enough_m: float
    closing_for_s: float
    slow_within_m: float
    steps: int
    tick_s: float
    radius_m: float
    speed_max_mps: float
    turn_max_radps: float
    acceleration_mps2: float
    braking_mps2: float
    turn_acceleration_radps2: float
    cosines: Any
    sines: Any


def mppi_numbers(config: MppiConfig, model: RobotModel, tick_s: float) -> MppiNumbers:
    """The numbers of one config, robot and tick."""
    cosines, sines = beam_directions(model)
    named = {name: getattr(config, name) for name in MppiNumbers._fields if hasattr(config, name)}
    return MppiNumbers(
        **named,
        tick_s=tick_s,
        radius_m=model.footprint_radius_m,
        speed_max_mps=model.speed_max_mps,
        turn_max_radps=model.turn_rate_max_radps,
        acceleration_mps2=model.acceleration_max_mps2,
        braking_mps2=model.braking_mps2,
        turn_acceleration_radps2=model.turn_acceleration_max_radps2,
        cosines=cosines,
        sines=sines,
    )


@numba.njit(cache=True)
def advance(state, speed, turn_rate, s):  # type: ignore[no-untyped-def]
    """One step of the plan's model in place: ``state`` float64[7] is x, y, heading, v, w and the command before."""
    state[5], state[6] = speed, turn_rate
    state[3] = ramp(state[3], speed, s.acceleration_mps2 * s.step_s, s.braking_mps2 * s.step_s)
    most = s.turn_acceleration_radps2 * s.step_s
    state[4] = ramp(state[4], turn_rate, most, most)
    middle = state[2] + 0.5 * state[4] * s.step_s
    state[0] += state[3] * math.cos(middle) * s.step_s
    state[1] += state[3] * math.sin(middle) * s.step_s
    state[2] += state[4] * s.step_s


@numba.njit(cache=True)
def step_cost(state, before, step, scene, s):  # type: ignore[no-untyped-def]
    """Cost of being in ``state`` float64[7] after step number ``step``, coming from ``before``.

    ``scene`` float64[4 + beams, 5]: four points of the route, then what the near beams see, each as position
    now, velocity (of approach) and squared reach; the first row's third value counts the rows.
    """
    x, y = state[0], state[1]
    beside = 1e9
    for leg in range(3):
        ax, ay = scene[leg, 0], scene[leg, 1]
        bx, by = scene[leg + 1, 0] - ax, scene[leg + 1, 1] - ay
        share = ((x - ax) * bx + (y - ay) * by) / max(bx * bx + by * by, 1e-9)
        share = min(max(share, 0.0), 1.0)
        dx, dy = x - ax - share * bx, y - ay - share * by
        beside = min(beside, dx * dx + dy * dy)
    dx, dy = x - scene[0, 3], y - scene[0, 4]
    left = math.sqrt(dx * dx + dy * dy)
    cost = s.weight_progress * left + s.weight_route * math.sqrt(beside) + s.weight_turn * state[4] ** 2
    cost += s.weight_change * ((state[5] - before[5]) ** 2 + (state[6] - before[6]) ** 2)
    moved_s = min((step + 1) * s.step_s, s.closing_for_s)
    squared = (s.radius_m + s.clearance_enough_m) ** 2
    for row in range(4, int(scene[0, 2])):
        dx = x - scene[row, 0] - moved_s * scene[row, 2]
        dy = y - scene[row, 1] - moved_s * scene[row, 3]
        squared = min(squared, dx * dx + dy * dy)
    clearance = math.sqrt(squared) - s.radius_m
    cost += s.weight_clearance * (s.clearance_enough_m - clearance) ** 2
    if clearance <= 0.0:
        cost += HIT_COST
    if step == s.steps - 1:
        cost += s.weight_end * left
    return cost


@numba.njit(cache=True)
def look(observation, closing, s):  # type: ignore[no-untyped-def]
    """The ``scene`` of ``step_cost`` for one observation float32[83]."""
    scene = np.zeros((4 + 36, 5))
    for carrot in range(3):
        scene[carrot + 1, 0] = observation[72 + 2 * carrot]
        scene[carrot + 1, 1] = observation[73 + 2 * carrot]
    far = 2 if s.target_m <= 1.5 else 3
    share = (s.target_m - 0.6) / 0.9 if far == 2 else (s.target_m - 1.5) / 1.5
    for axis in range(2):
        scene[0, 3 + axis] = scene[far - 1, axis] + share * (scene[far, axis] - scene[far - 1, axis])
    row = 4
    reach = s.speed_max_mps * s.step_s * s.steps + s.radius_m + s.clearance_enough_m
    for beam in range(36):
        if observation[beam] < reach + closing[beam] * s.closing_for_s:
            # What approaches is taken to stop at the robot, not to pass through it.
            speed = min(closing[beam], observation[beam] / s.closing_for_s)
            scene[row, 0] = observation[beam] * s.cosines[beam]
            scene[row, 1] = observation[beam] * s.sines[beam]
            scene[row, 2] = -speed * s.cosines[beam]
            scene[row, 3] = -speed * s.sines[beam]
            row += 1
    scene[0, 2] = row
    return scene


@numba.njit(cache=True)
def plan(observation, scene, noise, top_mps, s, controls):  # type: ignore[no-untyped-def]
    """Improve ``controls`` float64[steps, 2] (m/s, rad/s) in place by one weighting of the noisy plans.

    Args:
        observation: float32[83].
        scene: from ``look``.
        noise: float64[samples, steps, 2] standard normal.
        top_mps: greatest speed.
        s: ``MppiNumbers``.
        controls: the plan so far, already shifted to now.
    """
    samples, steps = noise.shape[0], noise.shape[1]
    costs = np.zeros(samples)
    bounded = np.empty_like(noise)
    state, before = np.zeros(7), np.zeros(7)
    for sample in range(samples):
        state[:] = 0.0
        state[3], state[4] = observation[81], observation[82]
        state[5], state[6] = state[3], state[4]
        total = 0.0
        for step in range(steps):
            before[:] = state
            speed = min(max(controls[step, 0] + s.sigma_speed_mps * noise[sample, step, 0], 0.0), top_mps)
            turn = controls[step, 1] + s.sigma_turn_radps * noise[sample, step, 1]
            turn = min(max(turn, -s.turn_max_radps), s.turn_max_radps)
            bounded[sample, step, 0] = speed - controls[step, 0]
            bounded[sample, step, 1] = turn - controls[step, 1]
            advance(state, speed, turn, s)
            total += step_cost(state, before, step, scene, s)
            total += s.temperature * (
                controls[step, 0] * bounded[sample, step, 0] / s.sigma_speed_mps**2
                + controls[step, 1] * bounded[sample, step, 1] / s.sigma_turn_radps**2
            )
        costs[sample] = total
    weights = np.exp(-(costs - costs.min()) / s.temperature)
    weights /= weights.sum()
    for sample in range(samples):
        for step in range(steps):
            controls[step, 0] += weights[sample] * bounded[sample, step, 0]
            controls[step, 1] += weights[sample] * bounded[sample, step, 1]


@numba.njit(cache=True)
def shift(controls, share):  # type: ignore[no-untyped-def]
    """Move the plan on by ``share`` of a step, in place; its last command goes on."""
    for step in range(controls.shape[0] - 1):
        controls[step] += share * (controls[step + 1] - controls[step])


# Not cached: numba's cache does not see when what it calls changes in another file.
@numba.njit(nogil=True)
def _command_all(observations, noise, tick, s, recoveries, memory, plans, out):  # type: ignore[no-untyped-def]
    stuck_after_s, recovery_s, recovery_speed, recovery_turn = recoveries
    for robot in range(observations.shape[0]):
        observation = observations[robot]
        if recover(
            observation,
            stuck_after_s,
            recovery_s,
            recovery_speed,
            recovery_turn,
            s.tick_s,
            memory[robot],
            out[robot],
        ):
            plans[robot] = 0.0
            continue
        ahead = math.atan2(observation[73], observation[72])
        if abs(ahead) > 1.6 and abs(observation[81]) < 0.1:
            # The way on lies behind: plans that only drive ahead lose themselves; turn first.
            plans[robot] = 0.0
            out[robot, 0] = 0.0
            out[robot, 1] = math.copysign(s.turn_max_radps, ahead)
            continue
        goal_m = math.sqrt(observation[78] ** 2 + observation[79] ** 2)
        top = s.speed_max_mps * min(1.0, max(goal_m, 0.15) / s.slow_within_m)
        scene = look(observation, closing_speeds(observation, s.cosines), s)
        shift(plans[robot], min(s.tick_s / s.step_s, 1.0))
        bank = (tick + 7 * robot) % noise.shape[0]
        plan(observation, scene, noise[bank], top, s, plans[robot])
        out[robot] = plans[robot, 0]


class MppiBatch:
    """MPPI for many robots at once (a ``trainer.evaluation.controllers.Controller``).

    Args:
        model: the robot.
        tick_s: time between two calls, s.
        config: settings.
        seed: of the noise; same seed and observations, same commands.
        name: as it appears in results.
    """

    def __init__(
        self, model: RobotModel, tick_s: float, config: MppiConfig, seed: int = 0, name: str = "mppi"
    ) -> None:
        self.name = name
        self._config = config
        self._model = model
        self._numbers = mppi_numbers(config, model, tick_s)
        self._noise = noise_banks(config, seed)
        self._recovery = recovery.recovery_numbers(config)
        self.begin(0)

    def begin(self, robots: int) -> None:
        """Forget everything; ``robots`` robots from now on."""
        self._memory = np.zeros((robots, recovery.MEMORY))
        self._plans = np.zeros((robots, self._config.steps, 2))
        self._tick = 0

    def commands(self, observations: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Commands float64[n, 2] for observations float32[n, 83]."""
        observations = over_blind_sectors(observations, self._model)
        out = np.zeros((len(observations), 2))
        _command_all(
            observations,
            self._noise,
            self._tick,
            self._numbers,
            self._recovery,
            self._memory,
            self._plans,
            out,
        )
        self._tick += 1
        return out


def noise_banks(config: MppiConfig, seed: int) -> npt.NDArray[np.float64]:
    """Standard normal noise float64[16, samples, steps, 2], correlated along the steps; drawn once, used in turn.

    The first sample of each bank is zero: the plan so far is always among those weighed.
    """
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((NOISE_BANKS, config.samples, config.steps, 2))
    for step in range(1, config.steps):
        fresh = math.sqrt(1.0 - config.smooth**2) * noise[:, :, step]
        noise[:, :, step] = config.smooth * noise[:, :, step - 1] + fresh
    noise[:, 0] = 0.0
    return noise
