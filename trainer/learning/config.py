"""What a training run is made of: a frozen config, from defaults or a YAML file."""

import math
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml

from contracts.canonical import hash_of
from contracts.errors import reason_of
from contracts.robot import AMR_SMALL, ROBOT_MODELS, RobotModel
from safety.config import MonitorConfig
from safety.errors import MonitorConfigError
from sim.errors import SimConfigError
from sim.tasks.delivery import RewardConfig
from sim.tasks.randomise import Randomisation
from sim.world.layout_config import Family
from trainer.errors import TrainConfigError

Count = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
Few = Annotated[int, msgspec.Meta(ge=0, le=100)]
Steps = Annotated[int, msgspec.Meta(ge=1)]
Positive = Annotated[float, msgspec.Meta(gt=0.0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0.0)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Discount = Annotated[float, msgspec.Meta(gt=0.0, lt=1.0)]
Unit = Annotated[float, msgspec.Meta(ge=-1.0, le=1.0)]
Scalar = bool | int | float | str
CONFIG_MAX_BYTES = 100_000
BUILT_IN_ENVIRONMENT = "warehouse"


class NetworkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The policy's network (and that of its critics): fully connected, ELU."""

    hidden: tuple[Count, ...] = (128, 128)
    history: bool = True
    """Whether it sees the beams of one interval ago; without them it cannot tell who moves (ablation)."""


class PpoConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Proximal policy optimisation (Schulman et al. 2017), as stable-baselines3 names its settings."""

    steps_per_world: Count = 48
    batch_size: Count = 3072
    epochs: Count = 3
    learning_rate: Positive = 1e-3
    learning_rate_min: Positive = 2e-4
    learning_rate_half_steps: Steps = 1_200_000
    """Robot-steps in which the learning rate halves, down to its minimum; counted over all parts of a run."""
    discount: Discount = 0.99
    gae_lambda: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.95
    clip_range: Positive = 0.2
    entropy: NotNegative = 0.0
    log_std_start: float = -0.5
    std_half_steps: Steps | None = None
    """Robot-steps in which the highest spread of actions halves, down to ``std_min``; None leaves it to learning."""
    std_min: Positive = 0.08
    average_share: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.2
    """The exported weights are a running mean over about this share of all batches so far; 0 exports the last ones."""
    fades_from_steps: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Robot-steps of the run from which learning rate and spread fade; a stage's own ``ppo`` has its start."""

    def std_max_at(self, steps: int) -> float:
        """The highest spread of actions, in units of the robot's range, after ``steps`` robot-steps."""
        if self.std_half_steps is None:
            return math.inf
        halvings = max(0, steps - self.fades_from_steps) / self.std_half_steps
        faded: float = math.exp(self.log_std_start) * 0.5**halvings
        return max(self.std_min, faded)

    def learning_rate_at(self, steps: int) -> float:
        """The learning rate after ``steps`` robot-steps."""
        halvings = max(0, steps - self.fades_from_steps) / self.learning_rate_half_steps
        faded: float = self.learning_rate * 0.5**halvings
        return max(min(self.learning_rate_min, self.learning_rate), faded)


class OffPolicyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What SAC and DQN share: a replay buffer, filled by all robots, and steps of gradient after each control step."""

    buffer_size: Annotated[int, msgspec.Meta(ge=1000, le=5_000_000)] = 200_000
    """Transitions; each takes 700 bytes of memory, and of every checkpoint."""
    learning_starts: Steps = 10_000
    """Robot-steps with random actions before the first gradient; they also start the normaliser."""
    batch_size: Count = 512
    gradient_steps: Count = 4
    """After each control step of all robots."""
    steps_per_world: Count = 32
    """Control steps between two points of the curve, where a checkpoint can be."""
    learning_rate: Positive = 1e-3
    discount: Discount = 0.99


class SacConfig(OffPolicyConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Soft actor-critic with a learned temperature (Haarnoja et al. 2018)."""

    target_rate: Share = 0.01
    temperature_start: Positive = 0.1


class DqnConfig(OffPolicyConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Deep Q-learning (Mnih et al. 2015) over a grid of actions: each speed with each turn."""

    speeds: tuple[Unit, ...] = (-0.5, 0.0, 0.3, 0.6, 1.0)
    turns: tuple[Unit, ...] = (-1.0, -0.5, -0.2, 0.0, 0.2, 0.5, 1.0)
    target_every_steps: Steps = 20_000
    explore_start: Share = 1.0
    explore_end: Share = 0.05
    explore_steps: Steps = 300_000

    def explore_at(self, steps: int) -> float:
        """The share of random actions after ``steps`` robot-steps."""
        passed = min(1.0, steps / self.explore_steps)
        return self.explore_start + passed * (self.explore_end - self.explore_start)


class ConstraintsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits that learning keeps by multipliers on their cost: see ``trainer.learning.constraints``."""

    contacts_per_trip_max: Share | None = None
    reduced_mean_max: Share | None = None
    """Mean share of the commanded speed that the monitor takes away."""
    multiplier_rate: Positive = 1.0
    multiplier_max: Positive = 50.0


class ImitationConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ppo learns from a teacher before it learns by trial: see ``trainer.learning.imitation``."""

    teacher: str = "orca"
    """A baseline with tuned settings, or a folder of runs or ``.onnx`` files, given with a slash: their median."""
    rounds: Count = 7
    steps_per_round: Count = 400
    """Control steps of all robots in each round,"""
    keep_every: Count = 2
    """of which every so many-th is learned from."""
    epochs: Count = 10
    epochs_last: Count = 30
    batch_size: Count = 1024
    learning_rate: Positive = 1e-3
    critic_steps: Annotated[int, msgspec.Meta(ge=0)] = 250_000
    """First robot-steps by trial in which only the critic learns: it knows nothing of the imitated policy yet."""
    critic_learning_rate: Positive = 1e-3


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A stage of a curriculum: its floors and its crowd, and when it has been learned."""

    families: tuple[Family, ...] = ()
    """Layout families the floors are drawn from; none: the generator's plain floors."""
    difficulty: tuple[Share, Share] = (0.0, 1.0)
    people: Few = 5
    robots_rule_based: Few = 0
    robots_broken: Few = 0
    randomise_scale: Share = 1.0
    """How much of the config's randomisation: 0 is none."""
    ppo: PpoConfig | None = None
    """Settings of ppo in this stage, whose schedules begin at its first step; None: the run's, on their way."""
    success: Share = 0.8
    """Moves on when the window's success was at least this for ``batches`` batches,"""
    batches: Count = 5
    trips_min: Count = 500
    """counted only while the window holds as many trips,"""
    steps_max: Steps | None = None
    """or after as many robot-steps in the stage, at the latest. The last stage has no end."""


class StopConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When to stop before the steps are used up; the last stage of a curriculum only."""

    success: Share | None = None
    """Stop when the window's success was at least this for ``batches`` batches."""
    batches: Count = 5
    patience_batches: Count | None = None
    """Stop when success has not risen by ``improvement_min`` for as many batches."""
    improvement_min: Share = 0.002
    trips_min: Count = 500


class TrainConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A run: the floors, the crowd, the task and the learner. Same config and seed, same weights."""

    seed: Annotated[int, msgspec.Meta(ge=0, lt=2**31)] = 0
    algorithm: str = "ppo"
    """``ppo``, ``sac``, ``dqn`` or the name of an entry point ``outrider.algorithms``."""
    robot_model: str = AMR_SMALL.name
    """One of ``contracts.robot.ROBOT_MODELS``."""
    environment: str = BUILT_IN_ENVIRONMENT
    """``warehouse`` or the name of an entry point ``outrider.environments``."""
    floors: Count = 24
    floor_seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    """The first training floor's seed; evaluation takes floors from 1,000,000 on."""
    families: tuple[Family, ...] = ()
    difficulty: tuple[Share, Share] = (0.0, 1.0)
    worlds: Count = 64
    robots: Count = 4
    """Robots in each world that learn; those of ``robots_rule_based`` and ``robots_broken`` come on top."""
    people: Few = 5
    robots_rule_based: Few = 0
    robots_broken: Few = 0
    randomise: Randomisation | None = None
    sim_threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 2
    network: NetworkConfig = NetworkConfig()
    imitation: ImitationConfig | None = None
    ppo: PpoConfig = PpoConfig()
    sac: SacConfig = SacConfig()
    dqn: DqnConfig = DqnConfig()
    plugin: dict[str, Scalar] = {}
    """Settings of a plugged-in algorithm; it gives them their types."""
    reward: RewardConfig = RewardConfig()
    monitor: MonitorConfig = MonitorConfig()
    constraints: ConstraintsConfig = ConstraintsConfig()
    curriculum: tuple[Stage, ...] = ()
    stop: StopConfig = StopConfig()

    def hash(self) -> str:
        """The config's version: SHA-256 over its canonical JSON."""
        return hash_of(self)

    @property
    def robot(self) -> RobotModel:
        """The robot it learns to drive."""
        return ROBOT_MODELS[self.robot_model]

    def stages(self) -> tuple[Stage, ...]:
        """The curriculum; without one, a single stage of the config's own floors and crowd."""
        return self.curriculum or (
            Stage(
                families=self.families,
                difficulty=self.difficulty,
                people=self.people,
                robots_rule_based=self.robots_rule_based,
                robots_broken=self.robots_broken,
            ),
        )

    def in_stage(self, number: int, began: int) -> "TrainConfig":
        """The config as stage ``number`` has it, which began after ``began`` robot-steps of the run."""
        ppo = self.stages()[number].ppo
        if ppo is None:
            return self
        return msgspec.structs.replace(self, ppo=msgspec.structs.replace(ppo, fades_from_steps=began))

    def check(self) -> None:
        """Refuse what no type can.

        Raises:
            TrainConfigError: a range the wrong way round, settings that its algorithm does not take, or
                a teacher that is not there.
            RunError: a network of the teacher's cannot be read.
        """
        if self.robot_model not in ROBOT_MODELS:
            raise TrainConfigError(
                f"robot_model is {self.robot_model!r}; there are: {', '.join(ROBOT_MODELS)}"
            )
        for stage in self.stages():
            if stage.difficulty[0] > stage.difficulty[1]:
                raise TrainConfigError(f"difficulty is {list(stage.difficulty)}; expected [low, high]")
        if self.algorithm != "ppo" and any(stage.ppo for stage in self.stages()):
            raise TrainConfigError(f"a stage has settings of ppo; the algorithm is {self.algorithm}")
        if self.imitation is not None:
            self._check_teacher(self.imitation.teacher)
        limited = self.constraints.contacts_per_trip_max, self.constraints.reduced_mean_max
        if limited != (None, None) and self.algorithm in ("sac", "dqn"):
            raise TrainConfigError(
                f"constraints do not work with {self.algorithm}: its replay buffer holds rewards of earlier"
                " multipliers; use ppo, or put the cost into the reward"
            )
        if not (self.dqn.speeds and self.dqn.turns):
            raise TrainConfigError("dqn.speeds and dqn.turns need a value each")

    def _check_teacher(self, teacher: str) -> None:
        from trainer.learning.teachers import teacher_hash  # brings the compiler, which few configs need

        if self.algorithm != "ppo" or self.environment != BUILT_IN_ENVIRONMENT:
            raise TrainConfigError(
                f"imitation works with ppo in the environment {BUILT_IN_ENVIRONMENT}; here are"
                f" {self.algorithm} and {self.environment}"
            )
        teacher_hash(teacher)


def train_config(document: Any) -> TrainConfig:
    """A config from plain values; keys that are left out keep their defaults.

    Raises:
        TrainConfigError: an unknown key or a value out of range.
    """
    try:
        config = msgspec.convert(document or {}, TrainConfig)
        config.monitor.check()
        if config.randomise is not None:
            config.randomise.check()
    except (msgspec.ValidationError, MonitorConfigError, SimConfigError) as error:
        raise TrainConfigError(str(error)) from None
    config.check()
    return config


def load_yaml(path: Path) -> Any:
    """The plain values of a YAML file.

    Raises:
        TrainConfigError: not readable, too large or not YAML.
    """
    try:
        if path.stat().st_size > CONFIG_MAX_BYTES:
            raise TrainConfigError(f"{path}: larger than {CONFIG_MAX_BYTES} bytes; this is no config")
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise TrainConfigError(f"{path}: cannot be read: {reason_of(error)}") from None
    except yaml.YAMLError as error:
        raise TrainConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None


def load_train_config(path: Path) -> TrainConfig:
    """Read a config from YAML; keys that are left out keep their defaults.

    Raises:
        TrainConfigError: not readable, not YAML, an unknown key or a value out of range.
    """
    document = load_yaml(path)
    try:
        return train_config(document)
    except TrainConfigError as error:
        raise TrainConfigError(f"{path}: {error}") from None
