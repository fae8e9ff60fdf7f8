"""The warehouse as a Gymnasium environment: the caller drives one robot, one trip an episode, in PyBullet.

Importing this module registers ``Outrider/Warehouse-v0``.
"""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from contracts.robot import AMR_SMALL
from navigation.action import decode_action, encode_command
from navigation.controllers.dwa import DwaController
from navigation.controllers.recovery import Recovery
from navigation.warehouse import Warehouse, load_warehouse
from sim.errors import CommandError, SimConfigError
from sim.physics.pybullet_physics import Kind, PyBulletPhysics
from sim.render.painter import FloorPainter
from sim.render.snapshot import take_snapshot
from sim.simulation import Simulation, SimulationConfig
from sim.tasks.delivery import Outcome
from sim.tasks.spaces import action_space, observation_space
from sim.world.floors import Floors, route_ahead
from sim.world.generate import generate_warehouse
from sim.world.library import find_layout
from sim.world.state import Contact, WorldState

ENVIRONMENT_ID = "Outrider/Warehouse-v0"
ME = 0
"""The caller's robot; the others are driven by the rule-based controller."""
ROUTE_SPACING_M = 0.4
EPISODE_SEED_END = 2**31

Observation = npt.NDArray[np.float32]
Info = dict[str, Any]


class WarehouseEnv(gymnasium.Env[Observation, npt.NDArray[np.float32]]):
    """One robot's trips from station to station, among other robots and people.

    Observations are float32[83] (``contracts.observation.ROUTING_LAYOUT``), actions float32[2] in [-1, 1]
    (``navigation.action``). An episode is one trip: terminated where the robot arrives or touches something,
    truncated after 60 s. ``info`` has ``trip_s``, ``reduced`` (share of the commanded speed the monitor took
    away), ``contact`` (``sim.world.state.Contact``), ``outcome`` (``sim.tasks.delivery.Outcome``) and
    ``is_success``.

    Args:
        warehouse: the floor, the path of its YAML file or a name from the library; None makes one from ``floor_seed``.
        floor_seed: of the generated floor.
        physics: ``planar`` or ``wheeled``.
        robots: on the floor, the caller's included.
        people: on the floor; None takes the warehouse's own number.
        guarded: whether the safety monitor stands between action and robot; a robot behind it backs off when stuck.
        control_hz: steps per second, a multiple of 10.
        render_mode: ``rgb_array`` for pictures from above, ``human`` for PyBullet's window.

    Raises:
        SimConfigError: a setting out of range, or no display for ``human``.
        WarehouseError: the floor cannot be read.
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self,
        warehouse: Warehouse | Path | str | None = None,
        floor_seed: int = 0,
        physics: Kind = "planar",
        robots: int = 3,
        people: int | None = None,
        guarded: bool = True,
        control_hz: int = 10,
        render_mode: str | None = None,
    ) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise SimConfigError(f"render_mode is '{render_mode}'; use rgb_array, human or None")
        self.metadata = {"render_modes": ["human", "rgb_array"], "render_fps": control_hz}
        self.render_mode = render_mode
        self.observation_space = observation_space()
        self.action_space = action_space()
        self._physics: Kind = physics
        self._robots, self._people = robots, people
        self._guarded, self._control_hz = guarded, control_hz
        self._stepping = False
        self._steps = 0
        self._outcome = Outcome.RUNNING
        self._simulation: Simulation | None = None
        self._painter: FloorPainter | None = None
        self._open(generate_warehouse(floor_seed) if warehouse is None else _floor_of(warehouse))

    @property
    def simulation(self) -> Simulation:
        """The world behind the environment; its robot 0 is the caller's."""
        if self._simulation is None:
            raise gymnasium.error.ClosedEnvironmentError("the environment is closed; make another one")
        return self._simulation

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """Begin a trip from a new place. Same seed and floor, same trip.

        Args:
            seed: of places, goals and people; without it the environment's own stream goes on.
            options: ``{"warehouse": Warehouse or path}`` moves to another floor, for this and later trips.

        Raises:
            SimConfigError: an unknown option.
            WarehouseError: the floor cannot be read; the old one stays.
        """
        super().reset(seed=seed)
        options = options or {}
        unknown = sorted(set(options) - {"warehouse"})
        if unknown:
            raise SimConfigError(f"reset has no option {', '.join(unknown)}; the only one is 'warehouse'")
        if "warehouse" in options:
            warehouse = _floor_of(options["warehouse"])
            if warehouse != self.simulation.state.warehouses[0]:
                self._open(warehouse)
        simulation = self.simulation
        simulation.reset(int(self.np_random.integers(EPISODE_SEED_END)))
        tick_s = simulation.step_s
        self._others = [DwaController(simulation.model, tick_s) for _ in range(self._robots - 1)]
        self._steps = 0
        self._stepping = True
        self._outcome = Outcome.RUNNING
        self._watch.contact[:] = Contact.NONE
        return simulation.observation[0, ME].copy(), self._info(0.0)

    def step(self, action: npt.NDArray[np.float32]) -> tuple[Observation, float, bool, bool, Info]:
        """Drive for one control step.

        Raises:
            CommandError: the action is not finite or not two numbers; nothing has moved.
            ResetNeeded: the trip is over.
        """
        simulation = self.simulation
        if not self._stepping:
            raise gymnasium.error.ResetNeeded("the trip is over, or none has begun; call reset()")
        actions, commands = self._actions(action)
        simulation.step(actions, commands)
        self._steps += 1
        self._outcome = Outcome(int(simulation.outcome[0, ME]))
        truncated = self._outcome is Outcome.TIMEOUT
        terminated = self._outcome in (Outcome.ARRIVED, Outcome.CONTACT)
        self._stepping = not (truncated or terminated)
        seen = simulation.observation if self._stepping else simulation.terminal_observation
        info = self._info(float(simulation.reduced[0, ME]))
        return seen[0, ME].copy(), float(simulation.reward[0, ME]), terminated, truncated, info

    def render(self) -> npt.NDArray[np.uint8] | None:
        """The floor from above, uint8[height, width, 3], in ``rgb_array`` mode; None otherwise."""
        if self.render_mode != "rgb_array":
            return None
        simulation = self.simulation
        warehouse = simulation.state.warehouses[0]
        if self._painter is None:
            self._painter = FloorPainter(warehouse)
        stations = [warehouse.stations[goal] for goal in simulation.goal[0].tolist()]
        snapshot = take_snapshot(
            simulation.state,
            time_s=self._steps * simulation.step_s,
            ranges_m=simulation.ranges[0],
            routes=[self._route(robot) for robot in range(self._robots)],
            goals_xy=[(station.x_m, station.y_m) for station in stations],
        )
        return self._painter.frame(snapshot)

    def close(self) -> None:
        """Let go of PyBullet; may be called twice."""
        if self._simulation is not None:
            self._simulation.close()
            self._simulation = None

    def _open(self, warehouse: Warehouse) -> None:
        people = warehouse.people if self._people is None else self._people
        settings = SimulationConfig(
            worlds=1,
            robots=self._robots,
            people=people,
            control_hz=self._control_hz,
            guarded=self._guarded,
            recovery=Recovery() if self._guarded else None,
        )
        simulation = Simulation([warehouse], settings, model=AMR_SMALL, floors=Floors([warehouse], 0))
        if self._simulation is not None and self.render_mode == "human":
            self.close()  # PyBullet has one window
        physics = PyBulletPhysics(
            simulation.state, simulation.model, self._physics, self.render_mode == "human"
        )
        self.close()
        self._watch = _ContactWatch(physics)
        simulation.use_physics(self._watch)
        self._simulation = simulation
        self._painter = None
        self._stepping = False

    def _actions(
        self, action: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
        """Actions float32[1, R, 2] and commands float64[1, R, 2] of all robots."""
        mine = np.asarray(action, dtype=np.float32)
        if mine.shape != (2,) or not np.isfinite(mine).all():
            raise CommandError(f"action is {mine.tolist()}; it must be two finite numbers in [-1, 1]")
        model = self.simulation.model
        command = np.empty((1, self._robots, 2))
        command[0, ME] = decode_action(mine, model)
        for number, controller in enumerate(self._others, start=1):
            command[0, number] = controller.command(self.simulation.observation[0, number])
        actions = encode_command(command, model)
        actions[0, ME] = np.clip(mine, -1.0, 1.0)
        return actions, command

    def _info(self, reduced: float) -> Info:
        return {
            "outcome": int(self._outcome),
            "is_success": self._outcome is Outcome.ARRIVED,
            "trip_s": self._steps * self.simulation.step_s,
            "reduced": reduced,
            "contact": int(self._watch.contact[0, ME]),
        }

    def _route(self, robot: int) -> npt.NDArray[np.float64]:
        """The way to a robot's goal, float64[n, 2] in the map frame, for drawing."""
        simulation = self.simulation
        floors, goal = simulation.floors, int(simulation.goal[0, robot])
        cells = int(floors.rows[0] * floors.columns[0])
        way = slice(int(floors.route_at[0, goal]), int(floors.route_at[0, goal]) + cells)
        x_m, y_m = simulation.state.pose[0, robot, :2].tolist()
        goal_m = floors.station_xy[0, goal].tolist()
        count = int(min(simulation.left_m[0, robot], 200.0) / ROUTE_SPACING_M) + 2
        points = np.zeros(2 * count)
        distances_m = np.arange(count) * ROUTE_SPACING_M
        route_ahead(
            floors.pointers[way], floors.field[way], floors.rows[0], floors.columns[0],
            x_m, y_m, *goal_m, distances_m, points,
        )  # fmt: skip
        return points.reshape(count, 2)


class _ContactWatch:
    """Passes everything on to PyBullet and keeps each step's contacts, which the next trip's start wipes out."""

    def __init__(self, physics: PyBulletPhysics) -> None:
        self._physics = physics
        self.contact = np.zeros((1, 0), dtype=np.int8)

    def place(self, state: WorldState, world: int, robot: int) -> None:
        self._physics.place(state, world, robot)
        if self.contact.shape != state.contact.shape:
            self.contact = np.zeros_like(state.contact)

    def advance(self, state: WorldState, command: npt.NDArray[np.float64], step_s: float) -> None:
        self._physics.advance(state, command, step_s)
        self.contact[:] = state.contact

    def close(self) -> None:
        self._physics.close()


def _floor_of(warehouse: Warehouse | Path | str) -> Warehouse:
    return warehouse if isinstance(warehouse, Warehouse) else load_warehouse(find_layout(Path(warehouse)))


if ENVIRONMENT_ID not in gymnasium.registry:
    gymnasium.register(id=ENVIRONMENT_ID, entry_point="sim.gym_env:WarehouseEnv")
