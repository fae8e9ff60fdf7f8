"""``outrider agent filter``: the safety monitor alone, in front of somebody else's commands."""

from pathlib import Path
from typing import Annotated

import typer

from outrider.cli import fail
from outrider.verbs._operator import DEFAULT_KEYS, Keys, NoAutostart, SimTime, check_name

FILTER_EXAMPLE = "Example:  outrider agent filter --robot robot_1 --state /var/lib/outrider/robot_1"


def filter_commands(
    robot: Annotated[
        str, typer.Option(help="The robot's name, which is its ROS namespace.", show_default=False)
    ],
    state: Annotated[Path, typer.Option(help="The robot's own folder, for its lock.", show_default=False)],
    model: Annotated[str, typer.Option(help="The robot's model: shape, limits, lidar.")] = "amr_small",
    rate: Annotated[int, typer.Option(help="Ticks a second, 10 to 200.")] = 20,
    command_stale: Annotated[
        float, typer.Option(help="Seconds after which a command is none, 0.05 to 1.")
    ] = 0.3,
    safety: Annotated[
        Path | None, typer.Option(help="Signed settings of the monitor (keys sign-safety), without zones.")
    ] = None,
    keys: Keys = DEFAULT_KEYS,
    sim_time: SimTime = False,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="SCHED_FIFO and locked memory, where permitted.")
    ] = False,
    no_autostart: NoAutostart = False,
) -> None:
    """Let through of cmd_vel_in what is safe, as cmd_vel, until Ctrl-C. Nothing before `outrider agent arm`."""
    import msgspec

    from edge_agent.config import decode_settings
    from edge_agent.errors import AgentError, ConfigError
    from edge_agent.filter import FilterConfig, run_filter

    check_name(robot)
    settings = {
        "robot_id": robot,
        "state_dir": str(state.resolve()),
        "robot_model": model,
        "rate_hz": rate,
        "command_stale_max_s": command_stale,
        "safety_path": str(safety.resolve()) if safety else "",
        "keys_dir": str(keys.resolve()) if safety else "",
        "sim_time": sim_time,
        "realtime": realtime,
        "autostart": not no_autostart,
    }
    try:
        config = decode_settings(msgspec.json.encode(settings), FilterConfig, "options").check()
        config.monitor_settings()  # refused here in one line, not at each of the node's starts
        raise typer.Exit(run_filter(config))
    except AgentError as error:
        raise fail(str(error), 2 if isinstance(error, ConfigError) else 1) from None
    except OSError as error:
        raise fail(f"{error.filename or state}: {error.strerror}") from None
