"""The control process: ``python -m edge_agent.control --config FILE.json``."""

import argparse
import os
import sys
from pathlib import Path

from edge_agent.config import load_control_config
from edge_agent.errors import ConfigError
from edge_agent.ros.process import run
from edge_agent.stages import REFUSED
from navigation.errors import NavigationError
from navigation.warehouse import load_warehouse

PRIORITY = -10
"""Niceness of the control process: ahead of comms and of whatever else runs on the robot."""


def raise_priority() -> None:
    """Go before other processes where that is permitted (root, CAP_SYS_NICE, systemd's Nice=); say so if not."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    except OSError:
        if os.getpriority(os.PRIO_PROCESS, 0) > PRIORITY:
            line = f"no permission for priority {PRIORITY}; ticks may be late on a busy machine"
            print(f"outrider control: {line}", file=sys.stderr)


def main() -> int:
    """Run until SIGTERM or SIGINT; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m edge_agent.control", description="The robot's control process."
    )
    parser.add_argument(
        "--config", type=Path, required=True, help="JSON file with the fields of ControlConfig"
    )
    try:
        config = load_control_config(parser.parse_args().config)
        load_warehouse(Path(config.layout_path))
        raise_priority()
        return run(config)
    except REFUSED as error:
        print(f"outrider control: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError | NavigationError) else 1


if __name__ == "__main__":
    sys.exit(main())
