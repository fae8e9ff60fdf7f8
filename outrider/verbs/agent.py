"""``outrider agent run|enrol|arm|disarm|stop|reset|mode|approve|load|status``: a robot's agent, there or beside it."""

import json
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outrider.cli import fail
from outrider.verbs._enrol import ENROL_EXAMPLE, enrol
from outrider.verbs._operator import DEFAULT_HUB, DEFAULT_KEYS, AsJson, Keys, NoAutostart, SimTime, check_name
from outrider.verbs.filter import FILTER_EXAMPLE, filter_commands

if TYPE_CHECKING:
    from edge_agent.ros.client import RobotClient

app = typer.Typer(no_args_is_help=True, help="Run a robot's agent; enrol it, arm it, stop it, load a policy.")
app.command("filter", epilog=FILTER_EXAMPLE)(filter_commands)
app.command(epilog=ENROL_EXAMPLE)(enrol)
Robot = Annotated[
    str, typer.Argument(help="The robot's name, which is its ROS namespace.", show_default=False)
]
Why = Annotated[str, typer.Option("--reason", help="Who and why; goes into the robot's log.")]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds to wait for the robot.", min=0.1, max=600)]
LOAD_TIMEOUT_S = 60.0
ARM_RETRY_S = 0.5


@app.command(
    epilog="Example:  outrider agent run --robot robot_1 --layout floor.yaml --state run/robot_1 --keys keys"
)
def run(
    robot: Annotated[str, typer.Option(help="The robot's name.", show_default=False)],
    layout: Annotated[Path, typer.Option(help="The floor's YAML file.", show_default=False)],
    state: Annotated[Path, typer.Option(help="The robot's own folder: log, policies.", show_default=False)],
    keys: Keys = DEFAULT_KEYS,
    safety: Annotated[
        Path | None, typer.Option(help="Signed settings of the monitor.", show_default=False)
    ] = None,
    hub: Annotated[str, typer.Option(envvar="OUTRIDER_HUB", help="Address of the hub.")] = DEFAULT_HUB,
    mirror: Annotated[
        str, typer.Option(help="Address of the site's mirror, for bundles and image metadata.")
    ] = "",
    rate: Annotated[int, typer.Option(help="Ticks a second, a multiple of 10.")] = 20,
    real_time_factor: Annotated[
        float, typer.Option(help="Robot seconds in a second, against a faster simulator.")
    ] = 1.0,
    sim_time: SimTime = False,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="SCHED_FIFO and locked memory for control, where permitted.")
    ] = False,
    cpus: Annotated[str, typer.Option(help="Cores for control, such as 2,3.")] = "",
    serial: Annotated[str, typer.Option(help="Port of the motor controller; cmd_vel goes out too.")] = "",
    forgiven: Annotated[
        int | None,
        typer.Option(
            help="Large interventions of the monitor forgiven on probation, beyond the usual; default 30. Its advice"
            " against the policy, too; default none.",
            min=1,
            max=100_000,
        ),
    ] = None,
    no_hub: Annotated[bool, typer.Option("--no-hub", help="Record, but talk to no hub.")] = False,
    traces: Annotated[
        str, typer.Option(help="Spans of updates: a file, or a URL for OTLP (outrider\\[otel]).")
    ] = "",
    no_autostart: NoAutostart = False,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="The processes' output here, not in STATE/*.log.")
    ] = False,
) -> None:
    """Run a robot's agent until Ctrl-C or SIGTERM. It drives only after `outrider agent arm`."""
    arguments = ["--robot", robot, "--layout", str(layout), "--state", str(state), "--keys", str(keys)]
    arguments += ["--hub", hub, "--rate", str(rate), "--real-time-factor", str(real_time_factor)]
    arguments += ["--cpus", cpus, "--serial", serial, "--mirror", mirror]
    arguments += ["--traces", traces]
    if forgiven is not None:
        arguments += ["--forgiven", str(forgiven)]
    _check_files(layout, safety, keys, robot)
    _check_keys(keys, robot, mirror)
    if safety is not None:
        arguments += ["--safety", str(safety)]
    flags = {
        "--sim-time": sim_time,
        "--realtime": realtime,
        "--no-hub": no_hub,
        "--no-autostart": no_autostart,
        "--foreground": foreground,
    }
    arguments += [flag for flag, chosen in flags.items() if chosen]
    # The supervisor takes this process's place: it stays small, and keeps the process id.
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "edge_agent.supervisor", *arguments])


def _check_files(layout: Path, safety: Path | None, keys: Path, robot: str) -> None:
    """Refuse here, in one line, what control would refuse at each of its starts."""
    from contracts.keyring import party_folder
    from edge_agent.errors import AgentError
    from edge_agent.guard.settings import load_safety
    from navigation.errors import NavigationError
    from navigation.warehouse import load_warehouse

    try:
        floor = load_warehouse(layout)
        if safety is not None:
            load_safety(safety, party_folder(keys, "robots", robot), None, floor.hash())
    except (AgentError, NavigationError) as error:
        raise fail(str(error), 2) from None


def _check_keys(keys: Path, robot: str, mirror: str) -> None:
    """Refuse here what comms would refuse at each of its starts; what is missing altogether, the supervisor names."""
    from contracts.errors import KeyFileError
    from contracts.keyring import (
        CURVE_FILE,
        HUB_PUBLIC_FILE,
        MIRROR_PUBLIC_FILE,
        CurvePair,
        CurvePublic,
        party_folder,
        read_key_file,
    )

    own = party_folder(keys, "robots", robot)
    try:
        if (own / CURVE_FILE).exists():
            read_key_file(own / CURVE_FILE, CurvePair, private=True)
        for name in (HUB_PUBLIC_FILE, MIRROR_PUBLIC_FILE)[: 1 + bool(mirror)]:
            if (own / name).exists():
                read_key_file(own / name, CurvePublic)
    except KeyFileError as error:
        raise fail(str(error), 2) from None


@app.command(epilog="Example:  outrider agent arm robot_1 --reason 'shift begins' --wait 20")
def arm(
    robot: Robot,
    reason: Why = "operator",
    timeout: Timeout = 5.0,
    wait: Annotated[
        float, typer.Option("--wait", help="Seconds to try again while it refuses.", min=0, max=600)
    ] = 0.0,
) -> None:
    """Allow the robot to move."""
    end_s = time.monotonic() + wait
    with _client(robot, max(timeout, wait)) as client:
        while not (answer := client.arm(reason)).success and time.monotonic() < end_s:
            time.sleep(ARM_RETRY_S)
        _report(robot, answer)


@app.command(epilog="Example:  outrider agent disarm robot_1")
def disarm(robot: Robot, reason: Why = "operator", timeout: Timeout = 5.0) -> None:
    """Forbid motion until the robot is armed again."""
    with _client(robot, timeout) as client:
        _report(robot, client.arm(reason, arm=False))


@app.command(epilog="Example:  outrider agent stop robot_1 --emergency --reason 'somebody on the floor'")
def stop(
    robot: Robot,
    emergency: Annotated[bool, typer.Option("--emergency", help="Latched until it is reset.")] = False,
    reason: Why = "operator",
    timeout: Timeout = 5.0,
) -> None:
    """Stop the robot and disarm it."""
    with _client(robot, timeout) as client:
        _report(robot, client.stop(reason, emergency))


@app.command(epilog="Example:  outrider agent reset robot_1 --reason 'floor is clear'")
def reset(robot: Robot, reason: Why = "operator", timeout: Timeout = 5.0) -> None:
    """Release an emergency stop. The robot stays disarmed."""
    with _client(robot, timeout) as client:
        _report(robot, client.reset(reason))


@app.command(epilog="Example:  outrider agent mode robot_1 shadow")
def mode(
    robot: Robot,
    to: Annotated[str, typer.Argument(help="controller, shadow, assist or fallback.", show_default=False)],
    reason: Why = "operator",
    timeout: Timeout = 5.0,
) -> None:
    """Change who drives: while the robot stands; into fallback always."""
    from contracts.decision import Mode

    known = {known.name.lower(): known for known in Mode}
    if to not in known:
        raise fail(f"no mode {to!r}; choose {', '.join(known)}", 2)
    with _client(robot, timeout) as client:
        _report(robot, client.set_mode(known[to], reason))


@app.command(epilog="Example:  outrider agent approve robot_1 --seconds 20")
def approve(
    robot: Robot,
    seconds: Annotated[float, typer.Option(help="How long; 0 ends the approval.", min=0, max=60)] = 10.0,
    reason: Why = "operator",
    timeout: Timeout = 5.0,
) -> None:
    """Let the policy drive for some seconds, in assist mode."""
    with _client(robot, timeout) as client:
        _report(robot, client.approve(seconds, reason))


@app.command(epilog="Example:  outrider agent load robot_1 /var/lib/outrider/v2.outrider")
def load(
    robot: Robot,
    bundle: Annotated[Path, typer.Argument(help="A bundle on the robot's own disk.", show_default=False)],
    timeout: Timeout = LOAD_TIMEOUT_S,
) -> None:
    """Check a bundle on the robot and swap it in. The running policy stays when it is refused."""
    with _client(robot, timeout) as client:
        answer = client.load(str(bundle.resolve()))
    if not answer.accepted:
        raise fail(f"{robot}: {answer.message}")
    typer.echo(f"{robot}: {answer.message} ({answer.digest[:12]})")


@app.command(epilog="Example:  outrider agent status robot_1 --json")
def status(robot: Robot, timeout: Timeout = 5.0, as_json: AsJson = False) -> None:
    """Whether it is armed, what holds it, which policy drives, how its ticks go."""
    with _client(robot, timeout) as client:
        found = client.status()
    facts = _facts(robot, found["safety"], found["decision"], found["policy"])
    if as_json:
        typer.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        typer.echo(f"{name:<18}{'-' if value in ('', None) else value}")


@contextmanager
def _client(robot: str, timeout_s: float) -> "Iterator[RobotClient]":
    from edge_agent.errors import AgentError
    from edge_agent.ros.client import robot_client

    check_name(robot)
    try:
        with robot_client(robot, timeout_s) as client:
            yield client
    except AgentError as error:
        raise fail(str(error)) from None


def _report(robot: str, answer: Any) -> None:
    if not answer.success:
        raise fail(f"{robot}: {answer.message}")
    typer.echo(f"{robot}: {answer.message}")


def _facts(robot: str, safety: Any, decision: Any, policy: Any) -> dict[str, Any]:
    names = {0: "pass", 1: "limit", 2: "stop", 3: "disarm", 4: "emergency stop"}
    sources = {0: "none", 1: "rules", 2: "policy", 3: "recovery"}
    modes = {0: "controller", 1: "shadow", 2: "assist", 3: "fallback"}
    return {
        "robot": robot,
        "armed": bool(safety.armed),
        "emergency_stop": bool(safety.estop_latched),
        "verdict": names.get(safety.verdict, "unknown"),
        "reason": safety.reason_text,
        "speed_mps": _number(safety.speed_out_mps),
        "turn_rate_radps": _number(safety.turn_rate_out_radps),
        "source": sources.get(decision.source, "unknown"),
        "mode": modes.get(decision.mode, "unknown"),
        "approved_s": _number(decision.approved_s),
        "policy_digest": policy.digest_active,
        "policy_version": policy.release_version,
        "release_counter": policy.release_counter,
        "swaps": policy.swap_count,
        "detail": policy.detail,
        "tick": decision.tick,
        "tick_us": _number(decision.tick_total_us),
        "inference_us": _number(decision.inference_us),
        "ticks_late": decision.ticks_late,
        "ticks_missed": decision.ticks_missed,
    }


def _number(value: float) -> float | None:
    return round(float(value), 3) if math.isfinite(value) else None
