"""Optimal reciprocal collision avoidance (van den Berg et al. 2011; ``pyrvo``) on what the lidar sees.

Narrow clusters of beams are taken as agents, with velocities from the beams before; wide ones as walls. The
robot is no holonomic agent: it tracks the chosen velocity by turning first, and its radius is enlarged by
how far that may lead it astray (Alonso-Mora et al. 2013, NH-ORCA; Snape et al. 2010).
"""

import math
from typing import Any, NamedTuple

import msgspec
import numba
import numpy as np
import numpy.typing as npt
import pyrvo

from contracts.robot import RobotModel
from navigation.controllers.dwa import INTERVAL_S, beam_directions
from navigation.controllers.recovery import MEMORY, recover
from navigation.controllers.sight import over_blind_sectors

AGENTS_MAX = 12
AGENT_RADIUS_M = 0.3
"""Assumed of people and robots."""


class OrcaConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the controller."""

    enlarge_m: float = 0.05
    """Added to the footprint's radius for what the tracking strays."""
    horizon_s: float = 2.0
    """How long the velocity has to stay clear of agents, and of walls below."""
    horizon_walls_s: float = 0.6
    sight_m: float = 4.0
    """Beams that end farther away do not count."""
    agent_width_m: float = 0.8
    """Clusters up to this wide are agents."""
    link_m: float = 0.5
    """Neighbouring beams whose ends are nearer to each other belong together."""
    across_share: float = 0.3
    """Share of an agent's apparent speed across the line of sight that is believed; sectors are 10 degrees wide."""
    target_m: float = 1.2
    """How far ahead on the route the point lies that it prefers to drive to."""
    turn_per_s: float = 2.5
    spot_rad: float = 0.8
    """It turns on the spot while the chosen velocity lies farther off its nose."""
    slow_within_m: float = 1.0
    stuck_after_s: float = 2.0
    recovery_s: float = 1.5
    recovery_speed_mps: float = -0.25
    recovery_turn_radps: float = -0.7


class Clusters(NamedTuple):
    """What ``find_clusters`` finds."""

    middle: Any
    """float64[clusters, 2] x, y of each in m."""
    narrow: Any
    """bool[clusters]: no wider than an agent."""
    of_beam: Any
    """int64[36]: which cluster each beam belongs to, -1 for none."""


@numba.njit(cache=True)
def find_clusters(x, y, ranges, sight_m, link_m, width_m):  # type: ignore[no-untyped-def]
    """Group neighbouring beams whose ends (``x``, ``y`` float64[36], m) lie near each other: a ``Clusters``."""
    of_beam = np.full(36, -1)
    # Start behind a gap, so that no cluster is cut by the first beam.
    start = 0
    for beam in range(36):
        before = (beam + 35) % 36
        apart = math.sqrt((x[beam] - x[before]) ** 2 + (y[beam] - y[before]) ** 2)
        if ranges[beam] >= sight_m or apart > link_m:
            start = beam
            break
    count = 0
    for offset in range(36):
        beam = (start + offset) % 36
        if ranges[beam] >= sight_m:
            continue
        before = (beam + 35) % 36
        apart = math.sqrt((x[beam] - x[before]) ** 2 + (y[beam] - y[before]) ** 2)
        if offset > 0 and of_beam[before] >= 0 and apart <= link_m:
            of_beam[beam] = of_beam[before]
        else:
            of_beam[beam] = count
            count += 1
    middle = np.zeros((count, 2))
    narrow = np.zeros(count, dtype=np.bool_)
    for cluster in range(count):
        members = 0
        low_x, low_y, high_x, high_y = np.inf, np.inf, -np.inf, -np.inf
        for beam in range(36):
            if of_beam[beam] == cluster:
                members += 1
                middle[cluster, 0] += x[beam]
                middle[cluster, 1] += y[beam]
                low_x, high_x = min(low_x, x[beam]), max(high_x, x[beam])
                low_y, high_y = min(low_y, y[beam]), max(high_y, y[beam])
        middle[cluster] /= members
        narrow[cluster] = math.sqrt((high_x - low_x) ** 2 + (high_y - low_y) ** 2) <= width_m
    return Clusters(middle, narrow, of_beam)


@numba.njit(cache=True)
def perceive(observation, cosines, sines, sight_m, link_m, width_m, across_share):  # type: ignore[no-untyped-def]
    """Agents float64[n, 4] (x, y, vx, vy of their middles, m and m/s) and walls float64[m, 4] (two ends, m)."""
    x = observation[:36] * cosines
    y = observation[:36] * sines
    now = find_clusters(x, y, observation[:36], sight_m, link_m, width_m)
    # The scan before, as it would be seen from here: first back along the way driven, then turned.
    turned = -observation[82] * INTERVAL_S
    back_x = observation[36:72] * cosines - observation[81] * INTERVAL_S
    back_y = observation[36:72] * sines
    was_x = math.cos(turned) * back_x - math.sin(turned) * back_y
    was_y = math.sin(turned) * back_x + math.cos(turned) * back_y
    was = find_clusters(was_x, was_y, observation[36:72], sight_m + 0.3, link_m, width_m)
    agents = np.zeros((36, 4))
    agent_count = 0
    for cluster in range(now.middle.shape[0]):
        if not now.narrow[cluster]:
            continue
        cx, cy = now.middle[cluster, 0], now.middle[cluster, 1]
        away = max(math.sqrt(cx * cx + cy * cy), 1e-6)
        ux, uy = cx / away, cy / away
        nearest, along, across = 0.6, 0.0, 0.0
        for other in range(was.middle.shape[0]):
            dx, dy = cx - was.middle[other, 0], cy - was.middle[other, 1]
            if was.narrow[other] and math.sqrt(dx * dx + dy * dy) < nearest:
                nearest = math.sqrt(dx * dx + dy * dy)
                along = (dx * ux + dy * uy) / INTERVAL_S
                across = across_share * (dy * ux - dx * uy) / INTERVAL_S
        along, across = min(max(along, -1.5), 1.5), min(max(across, -1.5), 1.5)
        agents[agent_count, 0] = cx + AGENT_RADIUS_M * ux
        agents[agent_count, 1] = cy + AGENT_RADIUS_M * uy
        agents[agent_count, 2] = along * ux - across * uy
        agents[agent_count, 3] = along * uy + across * ux
        agent_count += 1
    walls = np.zeros((36, 4))
    wall_count = 0
    for beam in range(36):
        cluster = now.of_beam[beam]
        after = (beam + 1) % 36
        if cluster >= 0 and not now.narrow[cluster] and now.of_beam[after] == cluster:
            walls[wall_count, 0], walls[wall_count, 1] = x[beam], y[beam]
            walls[wall_count, 2], walls[wall_count, 3] = x[after], y[after]
            wall_count += 1
    return agents[:agent_count], walls[:wall_count]


class OrcaBatch:
    """ORCA for many robots, each on what it sees itself (a ``trainer.evaluation.controllers.Controller``).

    Args:
        model: the robot.
        tick_s: time between two calls, s.
        config: settings.
        name: as it appears in results.
    """

    def __init__(self, model: RobotModel, tick_s: float, config: OrcaConfig, name: str = "orca") -> None:
        self.name = name
        self._model, self._tick_s, self._config = model, tick_s, config
        self._cosines, self._sines = beam_directions(model)
        self.begin(0)

    def begin(self, robots: int) -> None:
        """Forget everything; ``robots`` robots from now on."""
        self._memory = [[0.0] * MEMORY for _ in range(robots)]

    def commands(self, observations: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Commands float64[n, 2] for observations float32[n, 83]."""
        observations = over_blind_sectors(observations, self._model)
        config, out = self._config, np.zeros((len(observations), 2))
        for observation, memory, command in zip(observations, self._memory, out, strict=True):
            if not recover(
                observation,
                config.stuck_after_s,
                config.recovery_s,
                config.recovery_speed_mps,
                config.recovery_turn_radps,
                self._tick_s,
                memory,
                command,
            ):
                command[:] = self._track(*self.velocity(observation))
        return out

    def velocity(self, observation: npt.NDArray[np.float32]) -> tuple[float, float]:
        """The velocity (x, y in m/s, base frame) nearest to the preferred one that ORCA allows."""
        config = self._config
        agents, walls = perceive(
            observation,
            self._cosines,
            self._sines,
            config.sight_m,
            config.link_m,
            config.agent_width_m,
            config.across_share,
        )
        simulator = pyrvo.RVOSimulator(
            self._tick_s,
            config.sight_m,
            AGENTS_MAX,
            config.horizon_s,
            config.horizon_walls_s,
            AGENT_RADIUS_M,
            self._model.speed_max_mps,
        )
        robot = simulator.add_agent((0.0, 0.0))
        simulator.set_agent_radius(robot, self._model.footprint_radius_m + config.enlarge_m)
        simulator.set_agent_velocity(robot, (float(observation[81]), 0.0))
        simulator.set_agent_pref_velocity(robot, self._preferred(observation))
        for x, y, speed_x, speed_y in agents.tolist():
            # What the others would choose is not asked: they look at no neighbours.
            simulator.add_agent((x, y), 0.0, 0, 1.0, 1e-3, AGENT_RADIUS_M, 0.0, (speed_x, speed_y))
        for ax, ay, bx, by in walls.tolist():
            simulator.add_obstacle([(ax, ay), (bx, by)])
        simulator.process_obstacles()
        simulator.do_step()
        chosen = simulator.get_agent_velocity(robot)
        return float(chosen.x), float(chosen.y)

    def _preferred(self, observation: npt.NDArray[np.float32]) -> tuple[float, float]:
        """Top speed towards the point ahead on the route, slower near the goal."""
        config = self._config
        near = 72 if config.target_m <= 1.5 else 74
        share = (config.target_m - 0.6) / 0.9 if near == 72 else (config.target_m - 1.5) / 1.5
        x, y = observation[near : near + 2] + share * (
            observation[near + 2 : near + 4] - observation[near : near + 2]
        )
        goal_m = math.hypot(float(observation[78]), float(observation[79]))
        speed = self._model.speed_max_mps * min(1.0, max(goal_m, 0.15) / config.slow_within_m)
        distance = max(math.hypot(float(x), float(y)), 1e-6)
        return speed * float(x) / distance, speed * float(y) / distance

    def _track(self, velocity_x: float, velocity_y: float) -> tuple[float, float]:
        """Turn, then go: a differential drive's command for a velocity in the base frame."""
        speed = math.hypot(velocity_x, velocity_y)
        if speed < 0.02:
            return 0.0, 0.0
        bearing = math.atan2(velocity_y, velocity_x)
        most = self._model.turn_rate_max_radps
        turn = min(max(self._config.turn_per_s * bearing, -most), most)
        ahead = speed * math.cos(bearing) if abs(bearing) < self._config.spot_rad else 0.0
        return ahead, turn
