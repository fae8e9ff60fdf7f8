"""The agent's node as other ROS tools see it: parameters, diagnostics, and the files of outrider_bringup."""

import importlib
import json
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import typer
import yaml

pytest.importorskip("rclpy", reason="no ROS 2: run 'make setup', or source a distribution")
pytest.importorskip("outrider_msgs", reason="ros_ws is not built: run 'make setup'")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.experimental.events_executor import EventsExecutor
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from contracts.robot import ROBOT_MODELS
from edge_agent import supervisor
from edge_agent.config import ControlConfig
from edge_agent.errors import ConfigError
from edge_agent.filter import FilterConfig
from edge_agent.heartbeat import remove_ring
from edge_agent.ros.diagnostics import Diagnostics, policy_state
from edge_agent.ros.filter import FilterNode
from edge_agent.ros.node import AgentNode
from outrider.verbs.agent import app
from safety.config import MonitorConfig
from tests.support.agent import LAYOUT, ROOT, Bench
from tests.support.domain import domain_id
from tests.support.waiting import WAIT_MAX_S

BRINGUP = ROOT / "ros_ws" / "src" / "outrider_bringup"
UNIT = BRINGUP / "systemd" / "outrider-agent@.service"
NEWER_THAN_252 = {"RestartSteps", "RestartMaxDelaySec"}
"""systemd 254 has them; an older one must complain of nothing else."""
Make = Callable[..., Any]


@pytest.fixture
def agent(tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes an agent's node from ROS arguments, in a DDS domain of its own."""
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    domain, contexts, nodes = domain_id(), [], []
    config = ControlConfig(
        robot_id="robot_1", state_dir=str(tmp_path), keys_dir=str(keys / "robots" / "robot_1"),
        layout_path=str(LAYOUT), ring_name=f"citizen-{random.SystemRandom().randrange(10**9)}",
    )  # fmt: skip
    settings = FilterConfig(robot_id="robot_1", state_dir=str(tmp_path))

    def make(*arguments: str, monitor: bool = False) -> Any:
        context = rclpy.Context()
        rclpy.init(
            args=["--ros-args", *arguments] if arguments else None, context=context, domain_id=domain,
            signal_handler_options=SignalHandlerOptions.NO,
        )  # fmt: skip
        contexts.append(context)
        nodes.append(FilterNode(settings, context) if monitor else AgentNode(config, context))
        return nodes[-1]

    yield make
    for node in nodes:
        node.close()
        node.destroy_node()
    for context in contexts:
        rclpy.shutdown(context=context)
    remove_ring(config.ring_name)


def settings_of(node: Any) -> ControlConfig:
    """What the node goes by."""
    found: ControlConfig = node._config
    return found


def test_every_setting_is_a_described_read_only_parameter(agent: Make) -> None:
    node = agent()
    names = {name for name in node.list_parameters([], 0).names if name != "use_sim_time"}
    assert {"rate_hz", "robot_model", "trial.shadow_ticks", "trial.stage_max_s", "cpus"} <= names
    own = [name for name in names if not name.startswith(("qos_overrides", "start_type_description"))]
    for described in node.describe_parameters(own):
        assert described.read_only, described.name
        assert described.description, described.name
    rate = node.describe_parameter("rate_hz").integer_range[0]
    assert (rate.from_value, rate.to_value) == (10, 200)
    factor = node.describe_parameter("real_time_factor").floating_point_range[0]
    assert (factor.from_value, factor.to_value) == (0.05, 50.0)
    (refused,) = node.set_parameters([Parameter("rate_hz", value=50)])
    assert not refused.successful
    assert node.get_parameter("rate_hz").value == settings_of(node).rate_hz == 20


def test_parameters_given_at_the_start_win_and_sim_time_is_honoured(agent: Make) -> None:
    given = ("-p", "rate_hz:=50", "-p", "trial.shadow_ticks:=7", "-p", "use_sim_time:=true")
    config = settings_of(agent(*given))
    assert (config.rate_hz, config.trial.shadow_ticks, config.sim_time) == (50, 7, True)
    assert not settings_of(agent("-p", "use_sim_time:=false")).sim_time


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("rate_hz:=9", "rate_hz"),
        ("rate_hz:=201", "rate_hz"),
        ("rate_hz:=25", "rate_hz"),
        ("rate_hz:=20.0", "rate_hz"),
        ("real_time_factor:=.nan", "real_time_factor"),
        ("trial.stage_max_s:=0.0", "stage_max_s"),
        ("state_dir:=/tmp", "state_dir"),
        ("cpus:='0'", "cpus"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused_by_name(agent: Make, given: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        agent("-p", given)


@pytest.mark.parametrize("monitor", [False, True])
def test_the_parameter_file_names_parameters_that_there_are(agent: Make, monitor: bool) -> None:
    path = BRINGUP / "config" / "outrider_agent.yaml"
    node = agent("--params-file", str(path), monitor=monitor)
    given = yaml.safe_load(path.read_text())["/**"][node.get_name()]["ros__parameters"]
    for name, value in given.items():
        for parameter, wanted in value.items() if isinstance(value, dict) else [("", value)]:
            full = f"{name}.{parameter}" if parameter else name
            assert node.get_parameter(full).value == wanted, full


def test_diagnostics_tell_late_ticks_silent_sensors_and_the_ruling(agent: Make) -> None:
    node, bench = agent(), Bench()
    arrays: list[Any] = []
    watch = Watch(node, arrays.append)
    diagnostics = Diagnostics(node, "robot_1", MonitorConfig())
    policy = policy_state(bench.ladder, bench.core.modes.mode, "")

    def report(*happens: Callable[[], Any]) -> dict[str, Any]:
        bench.clock.now_ns += 1_000_000_000
        for event in happens:
            event()
        before = len(arrays)
        diagnostics.work(bench.clock.now_ns, bench.core.latest, bench.slots, policy)
        diagnostics.work(bench.clock.now_ns + 900_000_000, bench.core.latest, bench.slots, policy)  # not due
        watch.until(lambda: len(arrays) > before, "diagnostics")
        assert len(arrays) == before + 1
        assert {status.hardware_id for status in arrays[-1].status} == {"robot_1"}
        return {status.name.removeprefix("robot_1/outrider_agent: "): status for status in arrays[-1].status}

    watch.until(lambda: node.count_subscribers("/diagnostics") > 0, "discovery")
    stale = report()
    assert (stale["sensors"].level, stale["sensors"].message) == (
        DiagnosticStatus.ERROR,
        "scan stale; odometry stale",
    )
    assert stale["policy"].level == DiagnosticStatus.WARN
    assert report()["tick"].message == "no tick since the last report"
    found = report(bench.scan, bench.odometry, lambda: bench.core.tick(bench.clock.now_ns, 3))
    assert (found["tick"].level, found["tick"].message) == (DiagnosticStatus.WARN, "0 late, 3 missed")
    assert found["sensors"].level == DiagnosticStatus.OK
    bench.gate.stop(emergency=True)
    assert report(bench.tick)["monitor"].level == DiagnosticStatus.ERROR
    diagnostics.close()
    watch.close()


class Watch:
    """Hears /diagnostics beside a node, and lets both work."""

    def __init__(self, node: Any, hear: Callable[[Any], None]) -> None:
        self._node = node
        node.create_subscription(DiagnosticArray, "/diagnostics", hear, 10)
        self._executor = EventsExecutor(context=node.context)
        self._executor.add_node(node)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        end_s = time.monotonic() + WAIT_MAX_S
        while not condition():
            assert time.monotonic() < end_s, f"{what} did not happen within {WAIT_MAX_S:g} s"
            self._executor.spin_once(0.05)
            self._node.work(time.monotonic_ns())

    def close(self) -> None:
        self._executor.shutdown()


def topics_of(node: Any) -> dict[str, str]:
    """Topic: type, of everything the configured node publishes or hears."""
    name, space = node.get_name(), node.get_namespace()
    both = node.get_publisher_names_and_types_by_node(name, space)
    both += node.get_subscriber_names_and_types_by_node(name, space)
    return {topic: kinds[0] for topic, kinds in both}


def test_an_active_node_reports_and_has_every_topic_that_the_layouts_show(agent: Make) -> None:
    node = agent()
    arrays: list[Any] = []
    watch = Watch(node, arrays.append)
    node.trigger_configure()
    node.trigger_activate()
    watch.until(
        lambda: any(array.status[0].message != "no tick yet" for array in arrays), "a report of ticks"
    )
    names = {status.name for status in arrays[-1].status}
    assert names == {f"robot_1/outrider_agent: {part}" for part in ("tick", "sensors", "monitor", "policy")}
    topics = topics_of(node)
    watch.close()

    rviz = yaml.safe_load((BRINGUP / "rviz" / "robot.rviz").read_text())["Visualization Manager"]
    shown = {entry["Topic"]["Value"] for entry in rviz["Displays"] + rviz["Tools"] if "Topic" in entry}
    assert shown == {f"/robot_1/{name}" for name in ("scan", "odom", "goal", "cmd_vel")}
    assert shown <= set(topics)

    foxglove = json.loads((BRINGUP / "foxglove" / "robot.json").read_text())["configById"]
    assert set(foxglove["3D!floor"]["topics"]) <= set(topics)
    assert foxglove["DiagnosticSummary!all"]["topicToRender"] in topics
    paths = [path["value"] for panel in foxglove.values() for path in panel.get("paths", [])]
    assert len(paths) > 8
    for path in paths:
        topic, *fields = path.split(".")
        package, _, kind = topics[topic].split("/")
        value = getattr(importlib.import_module(f"{package}.msg"), kind)()
        for field in fields:
            value = getattr(value, field)


@pytest.mark.parametrize("model", ROBOT_MODELS.values(), ids=ROBOT_MODELS)
def test_the_urdf_has_the_models_footprint_and_mass(model: Any) -> None:
    robot: Any = ElementTree.parse(BRINGUP / "urdf" / f"{model.name}.urdf").getroot()
    assert robot.get("name") == model.name
    base = robot.find("link[@name='base_link']")
    for shape in ("visual", "collision"):
        centres = [float(origin.get("xyz").split()[0]) for origin in base.findall(f"{shape}/origin")]
        radii = {float(disc.get("radius")) for disc in base.findall(f"{shape}/geometry/cylinder")}
        assert (tuple(centres), radii) == (model.footprint_offsets_m, {model.footprint_radius_m})
    assert float(base.find("inertial/mass").get("value")) == model.mass_kg
    joint = robot.find("joint[@type='fixed']")
    assert (joint.find("parent").get("link"), joint.find("child").get("link")) == ("base_link", "base_scan")


def unit_settings() -> dict[str, str]:
    """The unit's settings, continuation lines joined."""
    text = UNIT.read_text().replace("\\\n", " ")
    return dict(line.split("=", 1) for line in text.splitlines() if re.match(r"[A-Z]\w*=", line))


def test_the_systemd_unit_runs_a_command_that_exists_and_outlasts_the_supervisor() -> None:
    settings = unit_settings()
    program, room, verb, *words = settings["ExecStart"].split()
    assert program.endswith("/bin/outrider")
    assert (room, verb) == ("agent", "run")
    command = typer.main.get_command(app)
    run = command.get_command(typer.Context(command), verb)  # type: ignore[attr-defined]
    parsed = run.make_context(verb, list(words)).params
    assert (parsed["robot"], parsed["foreground"]) == ("%i", True)
    with pytest.raises(Exception, match="no-such-option"):
        run.make_context(verb, [*words, "--no-such-option"])

    assert settings["Type"] == "notify"  # supervisor.notify
    assert float(settings["WatchdogSec"]) > supervisor.START_MAX_S + supervisor.BACKOFF_MAX_S
    assert float(settings["TimeoutStartSec"]) > supervisor.START_MAX_S
    assert float(settings["TimeoutStopSec"]) > supervisor.CONTROL_STOP_MAX_S + supervisor.COMMS_STOP_MAX_S


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze here; the test above parses the unit")
    program = unit_settings()["ExecStart"].split()[0]
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace(program, sys.executable))
    ended = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True, timeout=100)
    told = [line for line in ended.stderr.splitlines() if str(unit) in line or "outrider-agent@" in line]
    left = [line for line in told if not any(f"'{name}'" in line for name in NEWER_THAN_252)]
    assert (ended.returncode, left) == (0, []), ended.stderr
