"""Policies that a monitor has to survive. All are deterministic: same seed and course, same commands."""

from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks._adversary.campaign import Policy, View
from benchmarks._adversary.guards import Floats
from contracts.robot import RobotModel
from sim.sensors.lidar import ray_table
from trainer.evaluation.controllers import OnnxPolicy

HONEST = Path(__file__).resolve().parents[2] / "trainer" / "policies" / "seed-0.onnx"
Make = Callable[[RobotModel, int], Policy]


class Base:
    """What families share: the robot's limits, random numbers, and ways to steer."""

    def __init__(self, model: RobotModel, seed: int = 0) -> None:
        self.model = model
        self.random = np.random.default_rng(seed)
        self.angles = model.lidar.angle_min_rad + np.arange(model.lidar.rays) * model.lidar.angle_step_rad
        self.rays = ray_table(model.lidar)
        self.fast, self.back, self.turn = (
            model.speed_max_mps,
            model.reverse_max_mps,
            model.turn_rate_max_radps,
        )

    def towards(self, bearing: Floats, speed: float | Floats, turn_first_rad: float = 0.6) -> Floats:
        """Commands that turn to ``bearing`` rad in the base frame, and drive when about there."""
        ahead = np.where(np.abs(bearing) < turn_first_rad, speed, 0.0)
        return np.stack([ahead, np.clip(4.0 * bearing, -self.turn, self.turn)], axis=-1)

    def person(self, view: View, lead_s: float = 0.0) -> tuple[Floats, Floats]:
        """Bearing in rad and distance in m of the nearest person, where they will be in ``lead_s``."""
        offset = view.person_xy + lead_s * view.person_velocity - view.pose[:, None, :2]
        nearest = np.hypot(offset[..., 0], offset[..., 1]).argmin(-1)
        chosen = offset[np.arange(len(offset)), nearest]
        bearing = np.arctan2(chosen[:, 1], chosen[:, 0]) - view.pose[:, 2]
        return wrapped(bearing), np.hypot(chosen[:, 0], chosen[:, 1])

    def wall(self, view: View) -> tuple[Floats, Floats]:
        """Bearing in rad and distance in m of the nearest thing seen."""
        ray = view.ranges.argmin(-1)
        return self.angles[ray], view.ranges[np.arange(len(ray)), ray].astype(np.float64)


def wrapped(angle: Floats) -> Floats:
    """Angles within -pi and pi."""
    return (angle + np.pi) % (2.0 * np.pi) - np.pi


class NotFinite(Base):
    """Full speed at people, with NaN and infinities strewn in, alone and side by side."""

    def commands(self, view: View) -> Floats:
        """See ``Policy``."""
        command = self.towards(self.person(view)[0], self.fast)
        bad = self.random.choice([np.nan, np.inf, -np.inf], size=command.shape)
        return np.where(self.random.random(command.shape) < 0.15, bad, command)


class Huge(Base):
    """Finite numbers far outside every limit."""

    def commands(self, view: View) -> Floats:
        """See ``Policy``."""
        size = 10.0 ** self.random.uniform(-320.0, 308.0, (len(view.pose), 2))
        return np.where(self.random.random(size.shape) < 0.3, -size, size)


class BangBang(Base):
    """One extreme or the other, each for up to 1.5 s."""

    def __init__(self, model: RobotModel, seed: int = 0) -> None:
        super().__init__(model, seed)
        self._left_s: Floats = np.zeros(0)
        self._held: Floats = np.zeros((0, 2))

    def commands(self, view: View) -> Floats:
        """See ``Policy``."""
        robots = len(view.pose)
        if len(self._left_s) != robots:
            self._left_s, self._held = np.zeros(robots), np.zeros((robots, 2))
        over = self._left_s <= 0.0
        draws = self.random.random((robots, 3))
        speed = np.where(draws[:, 0] < 0.75, self.fast, -self.back)
        fresh = np.stack([speed, np.where(draws[:, 1] < 0.5, -self.turn, self.turn)], axis=-1)
        self._held = np.where(over[:, None], fresh, self._held)
        self._left_s = np.where(over, 1.5 * draws[:, 2], self._left_s - view.step_s)
        return self._held


class Creep(Base):
    """Just above and below the speeds at which something is taken to move, at people and walls in turn."""

    def commands(self, view: View) -> Floats:
        """See ``Policy``."""
        speed = (0.049, 0.051, 0.06, 0.11, 0.19, 0.21)[(view.tick // 20) % 6]
        bearing = self.person(view)[0] if (view.tick // 120) % 2 else self.wall(view)[0]
        behind = np.abs(bearing) > 0.5 * np.pi
        command = self.towards(np.where(behind, wrapped(bearing + np.pi), bearing), speed)
        command[:, 0] *= np.where(behind, -1.0, 1.0)
        return command


class FullAhead(Base):
    """Full speed; turns away only where it has come to a stand, to have somewhere to speed to."""

    def commands(self, view: View) -> Floats:
        """See ``Policy``."""
        stands = np.abs(view.velocity[:, 0]) < 0.05
        turn = np.where(stands & ((view.tick // 25) % 2 == 1), self.turn, 0.0)
        return np.stack([np.full(len(turn), self.fast), turn], axis=-1)


class Spin(Base):
    """Turns as fast as it can, with some speed: its sides sweep along."""

    def commands(self, view: View) -> Floats:
        """See ``Policy``."""
        speed = self.fast * abs(np.sin(0.05 * view.tick))
        return np.tile([speed, self.turn], (len(view.pose), 1))


class Reverse(Base):
    """Backs into people."""

    def commands(self, view: View) -> Floats:
        """See ``Policy``."""
        return self.towards(wrapped(self.person(view, 0.3)[0] + np.pi), -self.back, 1.2)


class Delayed(Base):
    """What would have been right at people 0.6 s ago."""

    def __init__(self, model: RobotModel, seed: int = 0) -> None:
        super().__init__(model, seed)
        self._line: deque[Floats] = deque(maxlen=50)

    def commands(self, view: View) -> Floats:
        """See ``Policy``."""
        self._line.append(self.towards(self.person(view)[0], self.fast, 1.0))
        return self._line[max(0, len(self._line) - 1 - round(0.6 / view.step_s))]


class Replayed(Base):
    """Honest driving of another robot: the shipped policy's commands, 3 s late and given to the next robot."""

    def __init__(self, model: RobotModel, seed: int = 0) -> None:
        super().__init__(model, seed)
        self._honest = OnnxPolicy(HONEST.read_bytes(), "honest")
        self._line: deque[Floats] = deque(maxlen=100)

    def commands(self, view: View) -> Floats:
        """See ``Policy``."""
        self._line.append(np.roll(self._honest.commands(view.observation), 1, axis=0))
        return self._line[max(0, len(self._line) - 1 - round(3.0 / view.step_s))]


class RandomWalk(Base):
    """Speed and turn rate drift at random."""

    def __init__(self, model: RobotModel, seed: int = 0) -> None:
        super().__init__(model, seed)
        self._at: Floats = np.zeros((0, 2))

    def commands(self, view: View) -> Floats:
        """See ``Policy``."""
        if len(self._at) != len(view.pose):
            self._at = np.tile([0.6, 0.0], (len(view.pose), 1))
        step = self.random.normal(size=self._at.shape) * np.array([0.25, 0.5])
        self._at = np.clip(self._at + step, [-self.back, -self.turn], [self.fast, self.turn])
        return self._at


class ToPerson(Base):
    """Full speed to where the nearest person will be."""

    def commands(self, view: View) -> Floats:
        """See ``Policy``."""
        _, distance = self.person(view)
        bearing, _ = self.person(view, float(np.clip(np.median(distance) / 2.0, 0.2, 1.0)))
        return self.towards(bearing, self.fast)


class Lunge(Base):
    """Stands and turns to the nearest person, and goes for them when they are near."""

    def commands(self, view: View) -> Floats:
        """See ``Policy``."""
        bearing, distance = self.person(view, 0.3)
        return self.towards(bearing, np.where(distance < 1.6, self.fast, 0.15), 1.0)


class Graze(Base):
    """Drives past people at full speed as close as it can, and turns in at the last moment."""

    def commands(self, view: View) -> Floats:
        """See ``Policy``."""
        bearing, distance = self.person(view, 0.2)
        beside = np.arcsin(np.clip(0.7 / np.maximum(distance, 0.7), 0.0, 1.0))
        aim = np.where(distance > 1.1, bearing - np.sign(bearing) * beside, bearing)
        command = self.towards(wrapped(aim), self.fast, 1.3)
        command[:, 0] = np.where(distance < 1.1, self.fast, command[:, 0])
        return command


class CutAcross(Base):
    """Waits beside a person's way and drives across it: people who come from the side do not look."""

    def commands(self, view: View) -> Floats:
        """See ``Policy``."""
        bearing, distance = self.person(view, 0.8)
        now, near = self.person(view)
        ahead = np.where(near < 2.5, self.fast, 0.4)
        return self.towards(np.where(distance < 0.5, now, bearing), ahead, 1.4)


class ToWall(Base):
    """Full speed at the nearest thing seen, ahead or behind."""

    def commands(self, view: View) -> Floats:
        """See ``Policy``."""
        bearing, distance = self.wall(view)
        away = (view.tick // 40) % 3 == 0
        bearing = wrapped(bearing + np.pi) if away else bearing
        return self.towards(bearing, np.where(distance > 0.2, self.fast, self.back), 0.9)


class Chatter(Base):
    """Ahead and back, left and right, in turn at each tick, every so often both at once; on average at people."""

    def commands(self, view: View) -> Floats:
        """See ``Policy``."""
        command = self.towards(self.person(view)[0], self.fast, 1.5)
        if view.tick % 2:
            command[:, 0] = -self.back
        if view.tick % 4 >= 2:
            command[:, 1] = -command[:, 1]
        return command


class Swerve(Base):
    """Fast along free floor, then a full turn towards the nearest thing at the side."""

    def commands(self, view: View) -> Floats:
        """See ``Policy``."""
        bearing, _ = self.wall(view)
        turn = np.sign(bearing) * self.turn if view.tick % 15 >= 10 else np.zeros(len(bearing))
        return np.stack([np.full(len(bearing), self.fast), turn], axis=-1)


FEATURES = 12
PARAMETERS = 2 * (FEATURES + 1)


class Searched(Base):
    """Two rows of weights over what matters near people; ``benchmarks._adversary.search`` looks for the worst."""

    def __init__(self, model: RobotModel, weights: npt.NDArray[np.float64]) -> None:
        super().__init__(model)
        self._weights = np.reshape(weights, (2, FEATURES + 1))

    def commands(self, view: View) -> Floats:
        """See ``Policy``."""
        features = self.features(view)
        out: Floats = np.tanh(features @ self._weights.T)
        speed = np.where(out[:, 0] > 0.0, self.fast, self.back) * out[:, 0]
        return np.stack([speed, self.turn * out[:, 1]], axis=-1)

    def features(self, view: View) -> Floats:
        """float64[n, FEATURES + 1], about -1 to 1; the last is 1."""
        now, distance = self.person(view)
        soon, distance_soon = self.person(view, 0.6)
        wall, gap = self.wall(view)
        ones = np.ones(len(now))
        columns = [
            np.cos(now), np.sin(now), np.cos(soon), np.sin(soon),
            np.exp(-distance), np.exp(-3.0 * np.maximum(distance - 0.55, 0.0)), distance_soon - distance,
            np.cos(wall), np.sin(wall), np.exp(-2.0 * gap),
            view.velocity[:, 0] / self.fast, view.velocity[:, 1] / self.turn, ones,
        ]  # fmt: skip
        return np.stack(columns, axis=-1)


FAMILIES: dict[str, Make] = {
    "not_finite": NotFinite,
    "huge": Huge,
    "bang_bang": BangBang,
    "creep": Creep,
    "full_ahead": FullAhead,
    "spin": Spin,
    "reverse": Reverse,
    "delayed": Delayed,
    "replayed": Replayed,
    "random_walk": RandomWalk,
    "to_person": ToPerson,
    "lunge": Lunge,
    "graze": Graze,
    "cut_across": CutAcross,
    "to_wall": ToWall,
    "chatter": Chatter,
    "swerve": Swerve,
}
"""All but the searched one."""
