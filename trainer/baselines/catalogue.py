"""The baselines by name: their configs, what a search may change in each, and what the last search found."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from contracts.errors import reason_of
from contracts.robot import RobotModel
from navigation.controllers.dwa import DwaConfig
from navigation.controllers.pure_pursuit import PurePursuitConfig
from trainer.baselines.dwa import DwaBatch
from trainer.baselines.mppi import MppiBatch, MppiConfig
from trainer.baselines.orca import OrcaBatch, OrcaConfig
from trainer.baselines.pure_pursuit import PurePursuitBatch
from trainer.errors import TrainConfigError

Config = PurePursuitConfig | DwaConfig | MppiConfig | OrcaConfig
Batch = PurePursuitBatch | DwaBatch | MppiBatch | OrcaBatch
TUNED_FOLDER = Path(__file__).resolve().parent / "tuned"


class Range(NamedTuple):
    """Where a search looks for one setting; whole numbers where both ends are."""

    low: float
    high: float


CONFIGS: dict[str, type[Config]] = {
    "pure_pursuit": PurePursuitConfig,
    "dwa": DwaConfig,
    "mppi": MppiConfig,
    "orca": OrcaConfig,
}
BASELINES = tuple(CONFIGS)

RECOVERY = {
    "slow_within_m": Range(0.4, 1.5),
    "stuck_after_s": Range(0.5, 5.0),
    "recovery_s": Range(0.5, 3.0),
    "recovery_speed_mps": Range(-0.3, -0.05),
    "recovery_turn_radps": Range(-1.5, 1.5),
}
SEARCH: dict[str, dict[str, Range]] = {
    "pure_pursuit": {
        "ahead_min_m": Range(0.6, 1.5),
        "ahead_s": Range(0.0, 2.0),
        "spot_rad": Range(0.3, 1.5),
        "turn_per_s": Range(1.0, 5.0),
        "corridor_m": Range(0.02, 0.25),
        "standoff_m": Range(0.02, 0.5),
        "speed_per_m": Range(0.6, 4.0),
        **RECOVERY,
    },
    "dwa": {
        "window_s": Range(0.15, 0.8),
        "horizon_s": Range(0.8, 3.0),
        "target_m": Range(0.6, 3.0),
        "weight_turn": Range(0.0, 1.0),
        "weight_clearance": Range(0.0, 2.0),
        "weight_speed": Range(0.0, 2.0),
        "clearance_enough_m": Range(0.15, 1.0),
        "clearance_min_m": Range(0.02, 0.2),
        "closing_for_s": Range(0.0, 1.6),
        "keep_right_m": Range(0.0, 0.8),
        "keep_right_s": Range(0.0, 4.0),
        **RECOVERY,
    },
    "mppi": {
        "steps": Range(8, 20),
        "step_s": Range(0.1, 0.2),
        "temperature": Range(0.05, 2.0),
        "sigma_speed_mps": Range(0.1, 0.8),
        "sigma_turn_radps": Range(0.2, 1.6),
        "smooth": Range(0.0, 0.95),
        "target_m": Range(0.8, 3.0),
        "weight_route": Range(0.0, 2.0),
        "weight_end": Range(0.0, 20.0),
        "weight_clearance": Range(0.5, 40.0),
        "weight_turn": Range(0.0, 0.3),
        "weight_change": Range(0.0, 1.0),
        "clearance_enough_m": Range(0.1, 0.6),
        "closing_for_s": Range(0.0, 1.6),
        **RECOVERY,
    },
    "orca": {
        "enlarge_m": Range(0.0, 0.2),
        "horizon_s": Range(0.5, 5.0),
        "horizon_walls_s": Range(0.1, 2.0),
        "sight_m": Range(2.0, 7.0),
        "agent_width_m": Range(0.3, 1.2),
        "link_m": Range(0.3, 1.0),
        "across_share": Range(0.0, 1.0),
        "target_m": Range(0.6, 3.0),
        "turn_per_s": Range(1.0, 6.0),
        "spot_rad": Range(0.3, 1.5),
        **RECOVERY,
    },
}
"""What a search may change, and where. Fields not named here keep their defaults."""


def build(name: str, config: Config, model: RobotModel, tick_s: float, seed: int = 0) -> Batch:
    """The controller ``name`` with ``config``, which must be of its type; ``seed`` is that of its noise, if any."""
    match config:
        case PurePursuitConfig():
            return PurePursuitBatch(model, tick_s, config, name)
        case DwaConfig():
            return DwaBatch(model, tick_s, config, name)
        case MppiConfig():
            return MppiBatch(model, tick_s, config, seed, name)
        case OrcaConfig():
            return OrcaBatch(model, tick_s, config, name)


def config_type(name: str) -> type[Config]:
    """The config of the baseline ``name``.

    Raises:
        TrainConfigError: there is no such baseline.
    """
    if name not in CONFIGS:
        raise TrainConfigError(f"there is no baseline '{name}'; choose one of {', '.join(BASELINES)}")
    return CONFIGS[name]


def check_config(name: str, document: Any) -> Config:
    """Plain values, as read from YAML or a log, as a config of the baseline ``name``.

    Raises:
        TrainConfigError: no such baseline, an unknown key, or a value outside the range that is searched.
    """
    try:
        config = msgspec.convert(document, config_type(name))
    except msgspec.ValidationError as error:
        raise TrainConfigError(f"{name}: {error}") from None
    for key, (low, high) in SEARCH[name].items():
        value = getattr(config, key)
        if not (math.isfinite(value) and low <= value <= high):
            raise TrainConfigError(f"{name}: {key} is {value}; it must be {low:g} to {high:g}")
    return config


def tuned_config(name: str, folder: Path = TUNED_FOLDER) -> Config:
    """The settings of ``name`` that the last recorded search found (``tuned/NAME.yaml``).

    Raises:
        TrainConfigError: no such baseline, no such file, or a file that is not a config of it.
    """
    config_type(name)
    path = folder / f"{name}.yaml"
    try:
        return check_config(name, msgspec.yaml.decode(path.read_bytes()))
    except OSError as error:
        raise TrainConfigError(
            f"{path} cannot be read: {reason_of(error)}; make it with 'outrider tune {name}'"
        ) from None
    except msgspec.DecodeError as error:
        raise TrainConfigError(
            f"{path} is no YAML: {error}; make it anew with 'outrider tune {name}'"
        ) from None
