"""What a training run is made of: a frozen config, from defaults or a YAML file."""

from pathlib import Path
from typing import Annotated

import msgspec
import yaml

from contracts.canonical import hash_of
from safety.config import MonitorConfig
from safety.errors import MonitorConfigError
from sim.tasks.delivery import RewardConfig
from trainer.errors import TrainConfigError

Count = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
Positive = Annotated[float, msgspec.Meta(gt=0.0)]
CONFIG_MAX_BYTES = 100_000


class PpoConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Proximal policy optimisation (Schulman et al. 2017), as stable-baselines3 names its settings."""

    steps_per_world: Count = 48
    batch_size: Count = 3072
    epochs: Count = 3
    learning_rate: Positive = 1e-3
    learning_rate_min: Positive = 2e-4
    learning_rate_half_steps: Annotated[int, msgspec.Meta(ge=1)] = 1_200_000
    """Robot-steps in which the learning rate halves, down to its minimum; counted over all parts of a run."""
    discount: Annotated[float, msgspec.Meta(gt=0.0, lt=1.0)] = 0.99
    gae_lambda: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.95
    clip_range: Positive = 0.2
    entropy: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0
    log_std_start: float = -0.5
    hidden: tuple[Count, ...] = (128, 128)

    def learning_rate_at(self, steps: int) -> float:
        """The learning rate after ``steps`` robot-steps."""
        faded: float = self.learning_rate * 0.5 ** (steps / self.learning_rate_half_steps)
        return max(min(self.learning_rate_min, self.learning_rate), faded)


class TrainConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A run: the floors, the crowd, the task and the learner. Same config and seed, same start."""

    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    floors: Count = 24
    floor_seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    """The first training floor's seed; evaluation takes floors from 1,000,000 on."""
    worlds: Count = 64
    robots: Count = 4
    people: Annotated[int, msgspec.Meta(ge=0, le=100)] = 5
    sim_threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 2
    ppo: PpoConfig = PpoConfig()
    reward: RewardConfig = RewardConfig()
    monitor: MonitorConfig = MonitorConfig()

    def hash(self) -> str:
        """The config's version: SHA-256 over its canonical JSON."""
        return hash_of(self)


def load_train_config(path: Path) -> TrainConfig:
    """Read a config from YAML; keys that are left out keep their defaults.

    Raises:
        TrainConfigError: not readable, not YAML, an unknown key or a value out of range.
    """
    try:
        if path.stat().st_size > CONFIG_MAX_BYTES:
            raise TrainConfigError(
                f"{path}: larger than {CONFIG_MAX_BYTES} bytes; this is no training config"
            )
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        config = msgspec.convert(document or {}, TrainConfig)
        config.monitor.check()
    except (OSError, UnicodeDecodeError) as error:
        raise TrainConfigError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise TrainConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except (msgspec.ValidationError, MonitorConfigError) as error:
        raise TrainConfigError(f"{path}: {error}") from None
    return config
