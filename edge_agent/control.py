"""The control process: ``python -m edge_agent.control --config FILE.json``."""

import argparse
import sys
from pathlib import Path

from edge_agent.config import ControlConfig, load_settings
from edge_agent.errors import ConfigError
from edge_agent.realtime import prepare
from edge_agent.ros.process import run
from edge_agent.stages import REFUSED
from navigation.errors import NavigationError
from navigation.warehouse import load_warehouse


def main() -> int:
    """Run until SIGTERM or SIGINT; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m edge_agent.control", description="The robot's control process."
    )
    parser.add_argument(
        "--config", type=Path, required=True, help="JSON file with the fields of ControlConfig"
    )
    try:
        config = load_settings(parser.parse_args().config, ControlConfig).check()
        load_warehouse(Path(config.layout_path))
        prepare(
            config.realtime, config.cpus, lambda line: print(f"outrider control: {line}", file=sys.stderr)
        )
        return run(config)
    except REFUSED as error:
        print(f"outrider control: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError | NavigationError) else 1


if __name__ == "__main__":
    sys.exit(main())
