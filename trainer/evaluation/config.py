"""What an evaluation drives, and on which floors."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from contracts.robot import ROBOT_MODELS, RobotModel
from navigation.controllers.recovery import Recovery
from navigation.route import check_reachable
from navigation.warehouse import Warehouse, load_warehouse
from safety.config import MonitorConfig
from sim.simulation import SimulationConfig
from sim.tasks.delivery import TRIP_MAX_S
from sim.tasks.randomise import Randomisation
from sim.world.generate import Family, generate_mixed
from trainer.errors import TrainConfigError

UNSEEN_FLOOR_SEED = 1_000_000
"""Training takes its floors from lower seeds."""
FLOORS_MAX = 1000
Physics = Literal["twin", "planar", "wheeled"]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Count = Annotated[int, msgspec.Meta(ge=0, le=1000)]


class EvaluationConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much is driven. Trips alternate between pick and drop stations; two make a delivery.

    An *episode* is one world, a floor with its own people and random streams, in which each robot under test makes
    ``trips`` trips. ``robots`` counts all of a world; the last ``robots_rule_based + robots_broken`` are its
    background and are not judged.
    """

    floors: Annotated[int, msgspec.Meta(ge=1, le=FLOORS_MAX)] = 8
    episodes: Positive = 1
    """On each floor."""
    families: tuple[Family, ...] = tuple(Family)
    difficulty: tuple[Share, Share] = (0.0, 0.6)
    robots: Positive = 3
    robots_rule_based: Count = 0
    robots_broken: Count = 0
    people: Count = 5
    trips: Positive = 4
    physics: Physics = "planar"
    model: str = "amr_small"
    randomise: bool | Randomisation = False
    control_hz: Positive = 10
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    monitor: MonitorConfig = MonitorConfig()

    @property
    def learners(self) -> int:
        """Robots under test in each world."""
        return self.robots - self.robots_rule_based - self.robots_broken

    def robot(self) -> RobotModel:
        """The robot driven."""
        return ROBOT_MODELS[self.model]

    def simulation(self, recovery: Recovery | None = None) -> SimulationConfig:
        """The worlds of one floor; ``recovery`` for controllers that bring none of their own."""
        ranges = Randomisation() if self.randomise is True else self.randomise
        return SimulationConfig(
            worlds=self.episodes,
            robots=self.robots,
            robots_rule_based=self.robots_rule_based,
            robots_broken=self.robots_broken,
            people=self.people,
            control_hz=self.control_hz,
            recovery=recovery,
            monitor=self.monitor,
            trip_max_s=TRIP_MAX_S,
            randomise=ranges or None,
        )

    def check(self) -> "EvaluationConfig":
        """Return self when it can be driven.

        Raises:
            TrainConfigError: naming the setting.
            SimConfigError: a range of ``randomise`` is out of order.
        """
        if self.model not in ROBOT_MODELS:
            raise TrainConfigError(
                f"there is no robot model '{self.model}'; choose one of {', '.join(ROBOT_MODELS)}"
            )
        if self.learners < 1:
            raise TrainConfigError(
                f"{self.robots} robots, of which {self.robots_rule_based} rule-based and {self.robots_broken} broken:"
                " at least one must be left to judge"
            )
        if not self.families:
            raise TrainConfigError(f"families is empty; give at least one of {', '.join(Family)}")
        if self.difficulty[0] > self.difficulty[1]:
            raise TrainConfigError(f"difficulty is {list(self.difficulty)}; expected [low, high]")
        if self.control_hz % 10:
            raise TrainConfigError(f"control_hz is {self.control_hz}; it must be a multiple of 10")
        if isinstance(self.randomise, Randomisation):
            self.randomise.check()
        return self


def unseen_floors(
    count: int, families: tuple[Family, ...] = (Family.ROWS,), difficulty: tuple[float, float] = (0.5, 0.5)
) -> list[Warehouse]:
    """Generated floors whose seeds no training run uses.

    Raises:
        GenerateError: no family, or a difficulty out of range.
    """
    return generate_mixed(count, UNSEEN_FLOOR_SEED, families, difficulty)


def load_floors(folder: Path) -> list[Warehouse]:
    """All ``*.yaml`` floors of a folder, in order of their names.

    Raises:
        TrainConfigError: it holds none, or two floors of one name.
        WarehouseError: a file is no floor: an unknown or missing key, shelves that overlap, a station cut off.
    """
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise TrainConfigError(f"{folder} holds no .yaml file; give a folder of warehouse files")
    if len(files) > FLOORS_MAX:
        raise TrainConfigError(f"{folder} holds {len(files)} floors; at most {FLOORS_MAX} are driven")
    floors: dict[str, Warehouse] = {}
    for path in files:
        warehouse = load_warehouse(path)
        check_reachable(warehouse, str(path))
        if warehouse.name in floors:
            raise TrainConfigError(f"{path}: another floor is called '{warehouse.name}' too; rename one")
        floors[warehouse.name] = warehouse
    return list(floors.values())


def parse_families(text: str) -> tuple[Family, ...]:
    """Families from ``all`` or names with commas between.

    Raises:
        TrainConfigError: no such family.
    """
    if text == "all":
        return tuple(Family)
    try:
        return tuple(Family(name.strip()) for name in text.split(","))
    except ValueError:
        raise TrainConfigError(
            f"'{text}' is not a list of families; there are: {', '.join(Family)}"
        ) from None
