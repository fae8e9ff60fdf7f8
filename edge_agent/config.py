"""Settings of a process: one frozen model, read from a JSON file, unknown keys refused; the control process's own."""

from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from contracts.keyring import ROBOT_ID_PATTERN
from edge_agent.errors import ConfigError
from edge_agent.infer.trial import TrialConfig

CONFIG_MAX_BYTES = 64 * 1024
RATE_STEP_HZ = 10
SERIAL_RATE_MIN_HZ = 20
SERIAL_FACTOR_MAX = 2.0
"""Faster, and this machine would have less than 40 ms between two commands to a board."""
NS = 1_000_000_000
Name = Annotated[str, msgspec.Meta(pattern=ROBOT_ID_PATTERN)]


Settings = TypeVar("Settings", bound=msgspec.Struct)


class ControlConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What control needs to know. ``keys_dir`` is the robot's own key folder, or the whole fleet's."""

    robot_id: Name
    state_dir: str
    keys_dir: str
    layout_path: str
    """A warehouse's YAML file (``navigation.warehouse``)."""
    safety_path: str = ""
    """Signed settings of the monitor (``edge_agent.guard.settings``); "" is what is built in."""
    ring_name: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_.-]{1,128}$")]
    robot_model: Name = "amr_small"
    rate_hz: Annotated[int, msgspec.Meta(ge=10, le=200)] = 20
    real_time_factor: Annotated[float, msgspec.Meta(ge=0.05, le=50.0)] = 1.0
    """Robot seconds in a second: above 1 against a simulator that runs faster than real time."""
    serial_port: Annotated[str, msgspec.Meta(max_length=256)] = ""
    """Where the motor controller is (``firmware_interface``); "" leaves commands to ROS alone."""
    autostart: bool = True
    """Configure and activate at start. Arming is always somebody's explicit request."""
    sim_time: bool = False
    """The sensors' stamps are a simulator's, which need not keep pace: they are not compared with arrivals."""
    trial: TrialConfig = TrialConfig()
    """What a new policy goes through before it is accepted."""
    realtime: bool = False
    """Ask for SCHED_FIFO and locked memory; what is not permitted is said and left out."""
    cpus: Annotated[tuple[Annotated[int, msgspec.Meta(ge=0, le=4095)], ...], msgspec.Meta(max_length=64)] = ()
    """The cores that control may run on; none given: all."""

    def check(self) -> "ControlConfig":
        """Return self when the rate fits the observation layout; raises ConfigError."""
        if self.rate_hz % RATE_STEP_HZ:
            raise ConfigError(
                f"rate_hz is {self.rate_hz}; it must be a multiple of {RATE_STEP_HZ} (the layout's history)"
            )
        if self.serial_port and (
            self.rate_hz < SERIAL_RATE_MIN_HZ or self.real_time_factor > SERIAL_FACTOR_MAX
        ):
            raise ConfigError(
                f"a motor controller stops without a command every 80 ms of its time: rate_hz is {self.rate_hz}, "
                f"real_time_factor {self.real_time_factor:g}; they must be {SERIAL_RATE_MIN_HZ} or more, and "
                f"{SERIAL_FACTOR_MAX:g} or less"
            )
        return self

    @property
    def period_ns(self) -> int:
        """Time between two deadlines on this machine's clock."""
        return round(NS / (self.rate_hz * self.real_time_factor))


def decode_settings(data: bytes, kind: type[Settings], where: str) -> Settings:
    """Read the settings of a process from JSON, each by its type; raises ConfigError."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: {error}; see {kind.__name__} for the fields") from None


def load_settings(path: Path, kind: type[Settings]) -> Settings:
    """Read a settings file; raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(CONFIG_MAX_BYTES)
    except OSError as error:
        raise ConfigError(f"no configuration at {path} ({error.strerror})") from None
    return decode_settings(data, kind, str(path))
