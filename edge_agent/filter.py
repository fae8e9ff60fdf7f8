"""The monitor alone, in front of somebody else's commands: ``python -m edge_agent.filter --config FILE.json``.

One process, no policy and no floor, keys only for signed settings; ``edge_agent.ros.filter`` is its node.
"""

import argparse
import sys
from pathlib import Path
from typing import Annotated

import msgspec

from contracts.keyring import party_folder
from contracts.robot import ROBOT_MODELS
from edge_agent.config import NS, Name, load_settings
from edge_agent.errors import AgentError, ConfigError
from edge_agent.guard.settings import load_safety
from edge_agent.realtime import prepare
from edge_agent.ros.imports import require_ros
from edge_agent.supervisor import take_lock
from safety.settings import SafetySettings

NO_FLOOR = "none: the filter has no map"


class FilterConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the filter needs to know."""

    robot_id: Name
    state_dir: str
    """The robot's own folder, the agent's too: its lock keeps a second one, of either kind, from this robot."""
    robot_model: Name = "amr_small"
    rate_hz: Annotated[int, msgspec.Meta(ge=10, le=200)] = 20
    command_stale_max_s: Annotated[float, msgspec.Meta(ge=0.05, le=1.0)] = 0.3
    safety_path: str = ""
    """Signed settings of the monitor (``safety.settings``), without zones: the filter has no map."""
    keys_dir: str = ""
    """The fleet's or the robot's key folder; read with ``safety_path`` only."""
    autostart: bool = True
    sim_time: bool = False
    realtime: bool = False
    cpus: Annotated[tuple[Annotated[int, msgspec.Meta(ge=0, le=4095)], ...], msgspec.Meta(max_length=64)] = ()

    def check(self) -> "FilterConfig":
        """Return self; raises ConfigError for a robot model that nobody knows, or settings without keys."""
        if bool(self.safety_path) != bool(self.keys_dir):
            raise ConfigError(
                "safety_path and keys_dir go together: settings count only when they are signed"
            )
        if self.robot_model not in ROBOT_MODELS:
            raise ConfigError(f"no robot model {self.robot_model!r}; known: {', '.join(ROBOT_MODELS)}")
        return self

    def monitor_settings(self) -> SafetySettings:
        """What the monitor is set to: the signed file's, or what is built in.

        Raises:
            SafetyFileError: see ``edge_agent.guard.settings.load_safety``; or it has zones.
        """
        if not self.safety_path:
            return SafetySettings(self.robot_model)
        keys = party_folder(Path(self.keys_dir), "robots", self.robot_id)
        return load_safety(Path(self.safety_path), keys, self.robot_model, NO_FLOOR)[0]

    @property
    def period_ns(self) -> int:
        """Time between two deadlines."""
        return round(NS / self.rate_hz)


def run_filter(config: FilterConfig) -> int:
    """Filter until SIGTERM or SIGINT; returns the exit code.

    Raises:
        RosUnavailableError: no ROS 2 here.
        AgentRunningError: an agent or a filter already holds this robot.
        ConfigError: a ROS parameter says what cannot be, or the node could not be configured.
        OSError: the state folder cannot be made.
    """
    require_ros()
    from edge_agent.ros.filter import FilterNode
    from edge_agent.ros.process import spin

    state = Path(config.state_dir)
    state.mkdir(parents=True, exist_ok=True)
    take_lock(state, config.robot_id)
    prepare(config.realtime, config.cpus, lambda line: print(f"outrider filter: {line}", file=sys.stderr))
    return spin(lambda context: FilterNode(config, context), config.autostart)


def main() -> int:
    """Run until SIGTERM or SIGINT; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m edge_agent.filter",
        description="The safety monitor in front of somebody else's commands.",
    )
    parser.add_argument(
        "--config", type=Path, required=True, help="JSON file with the fields of FilterConfig"
    )
    try:
        return run_filter(load_settings(parser.parse_args().config, FilterConfig).check())
    except (AgentError, OSError) as error:
        print(f"outrider filter: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1


if __name__ == "__main__":
    sys.exit(main())
