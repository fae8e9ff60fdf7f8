"""The stages of the demonstration, in order. Each runs the command a user would type."""

import json
import os
import random
import shutil
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import psutil
import yaml
from rich.console import Console

from firmware_interface.emulator.build import build, signature_flags
from firmware_interface.errors import BuildError, FirmwareError
from fleet_hub.client import HubClient
from outrider.demo.children import Children, DemoError
from outrider.demo.line import read_board_events
from outrider.demo.service import BoardUpdate, Images, pack_images, update_board
from outrider.demo.settings import (
    MARKER_FILE,
    MIRROR,
    MIRRORED,
    NEWCOMER,
    PEOPLE,
    POLICY_NAME,
    ROBOTS,
    SERVICED,
    DemoSettings,
)
from outrider.demo.watch import POLICY_METRIC

TRAINING = Path(__file__).with_name("training.yaml")
VERSIONS = ("1.0.0", "2.0.0")
WAIT_MAX_S = 90.0
POLL_S = 0.05
TEND_S = 1.0
TIMER_FILE = "timer.jsonl"
METRICS_MAX_BYTES = 1_000_000


class Facts(msgspec.Struct):
    """What the stages leave for the summary."""

    stage_s: dict[str, float] = {}
    digests: dict[str, str] = {}
    push: dict[str, dict[str, list[tuple[str, float]]]] = {}
    """Version -> robot -> (state, wall time in s) of its push."""
    memory_mb: dict[str, dict[str, float]] = {}
    """Robot -> process -> proportional set size in MB."""
    stored: dict[str, tuple[int, int, int]] = {}
    """Robot -> records stored at the hub, durable sequence, last sequence sent."""
    landed_s: float = 0.0
    """Wall time at which the robots were asked to end."""
    armed_again: dict[str, int] = {}
    """Robot -> how often it was armed again after its motor controller had stopped by itself."""
    enrolment_refused: str = ""
    """What the hub said when the newcomer's token was used once more."""
    released_s: dict[str, float] = {}
    """Version -> wall time at which its release was asked for."""
    hub_metrics: str = ""
    """One scrape, in Prometheus's text format."""
    board_update: BoardUpdate | None = None
    """None without boards, or where they cannot check signatures."""


class Demo:
    """One demonstration in a folder of its own.

    Args:
        folder: made anew; one of an earlier demonstration is replaced.
        settings: how much.
        console: for the steps.

    Raises:
        DemoError: the folder holds something else.
    """

    def __init__(self, folder: Path, settings: DemoSettings, console: Console) -> None:
        self.folder, self.settings, self.console = folder, settings, console
        self.facts = Facts()
        if folder.exists() and any(folder.iterdir()) and not (folder / MARKER_FILE).exists():
            raise DemoError(f"{folder} is not empty and no earlier demo; give another --out")
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "logs").mkdir(parents=True)
        (folder / MARKER_FILE).touch()
        self.keys = folder / "keys"
        self.run_folder = folder / "training"
        self.floor = folder / "floor"
        self.bundles = {version: folder / f"v{version[0]}.outrider" for version in VERSIONS}
        self.ports = folder / "ports"
        self.traces = folder / "traces"
        self.firmware = folder / "firmware"
        self.serial = settings.serial and self._firmware_compiles()
        self._tended_s = 0.0
        self.hub, self.mirror = (f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
        self.metrics_port = free_port()
        self._environment = {
            **os.environ,
            "OUTRIDER_KEYS": str(self.keys),
            "OUTRIDER_HUB": self.hub,
            "ROS_DOMAIN_ID": str(random.SystemRandom().randint(1, 100)),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "PYTHONUNBUFFERED": "1",
        }

    def _firmware_compiles(self) -> bool:
        """Compile the boards' firmware; where that is not possible, say so: cmd_vel over ROS drives then."""
        try:
            build()
        except BuildError as error:
            why = str(error).splitlines()[0]
            self.console.print(f"no motor controllers, ROS cmd_vel drives instead: {why}", highlight=False)
            return False
        return True

    def drive(self) -> None:
        """Everything but the report. KeyboardInterrupt passes through after all processes are gone."""
        with Children(self.folder / "logs", self._environment) as children:
            self._prepare(children)
            self._start_fleet(children)
            with self._stage("three robots deliver by the rule-based controller"):
                self._cruise(children)
            for version in VERSIONS:
                with self._stage(f"push {version} while they drive"):
                    self._push(children, version)
                with self._stage(f"three robots deliver by {version}"):
                    self._cruise(children)
            with self._stage("stop the robots, bring the last records home"):
                self._land(children)
            if self.serial and signature_flags():
                with self._stage(
                    f"new firmware for {SERVICED}'s board: a stranger's refused, a line cut, resumed"
                ):
                    self._service(children)

    def _prepare(self, children: Children) -> None:
        settings = self.settings
        robots = ",".join(robot for robot in ROBOTS if robot != NEWCOMER)
        with self._stage("keys for a hub, a mirror, an operator, two robots and two people who approve"):
            children.run("keys", "init", str(self.keys), "--robots", robots)
            for person, role in PEOPLE.items():
                children.run("keys", "person", person, "--roles", role)
            children.run("hub", "mirror-keys", MIRROR, "--robots", MIRRORED)
            if self.serial and signature_flags():
                pack_images(children, self.firmware, self.keys)
        for version, steps in zip(VERSIONS, (settings.steps_v1, settings.steps_v2), strict=True):
            with self._stage(f"train {version} on the twin ({steps:,} robot-steps)"):
                new = version == VERSIONS[0]
                where = ("--config", str(self._training_config()), "--out") if new else ("--resume",)
                arguments = ("train", *where, str(self.run_folder), "--steps", str(steps))
                self.console.print(
                    "      " + children.run(*arguments, quiet=False).strip(), highlight=False, soft_wrap=True
                )
            with self._stage(f"export {version} to ONNX, check, pack, sign"):
                bundle = str(self.bundles[version])
                counter = str(VERSIONS.index(version) + 1)
                out = children.run(
                    *("bundle", "export", str(self.run_folder), "--out", bundle),
                    *("--version", version, "--counter", counter, "--name", POLICY_NAME),
                )
                self.facts.digests[version] = out.split()[-1]
        with self._stage(
            "evaluate in PyBullet on floors nobody trained on, against two rule-based controllers"
        ):
            out = children.run(
                *("evaluate", *map(str, self.bundles.values()), "--out", str(self.folder / "evaluation")),
                *("--floors", str(settings.evaluation_floors), "--trips", str(settings.evaluation_trips)),
                *("--physics", settings.physics, "--baselines", "rule-based,orca", "--heat", "1"),
                *("--families", "rows", "--difficulty", "0.5", "0.5"),
                quiet=False,
            )
            for line in out.strip().splitlines():
                self.console.print("      " + line, highlight=False, soft_wrap=True)

    def _training_config(self) -> Path:
        """The config of this demonstration's training, as a file in its folder."""
        config = yaml.safe_load(TRAINING.read_text(encoding="utf-8"))
        config["imitation"]["rounds"] = self.settings.lessons
        path = self.folder / "training.yaml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        return path

    def _start_fleet(self, children: Children) -> None:
        settings = self.settings
        factor = str(settings.real_time_factor)
        wheels = ("--serial", str(self.ports), "--keys", str(self.keys)) if self.serial else ()
        self.traces.mkdir()
        with self._stage("start the hub, a mirror and the floor"):
            children.start(
                "hub",
                *("hub", "run", "--data", str(self.folder / "hub"), "--listen", self.hub),
                *("--metrics", str(self.metrics_port), "--traces", str(self.traces / "hub.jsonl")),
            )
            children.start(
                "mirror",
                *("hub", "mirror", MIRROR, "--upstream", self.hub, "--listen", self.mirror),
                *("--data", str(self.folder / "mirror")),
            )
            children.start(
                "floor",
                *("sim", "run", "--layout", settings.layout, "--seed", str(settings.seed)),
                *("--robots", str(len(ROBOTS)), "--ros", "--rate", factor, "--physics", settings.physics),
                *("--out", str(self.floor), *wheels),
            )
            layout = self.floor / "floor.yaml"
            self._wait("the floor to be laid out", children, layout.exists)
        with self._stage(f"{NEWCOMER} is new: it enrols with a one-time token, and makes its own keys"):
            self._enrol(children)
        with self._stage(f"start three robots, {MIRRORED} behind the mirror; arm them"):
            for robot in ROBOTS:
                keys = self.folder / robot / "keys" if robot == NEWCOMER else self.keys
                children.start(
                    robot,
                    *("agent", "run", "--robot", robot, "--layout", str(layout)),
                    *("--state", str(self.folder / robot), "--hub", self.hub, "--keys", str(keys)),
                    *("--traces", str(self.traces / f"{robot}.jsonl")),
                    *(("--mirror", self.mirror) if robot == MIRRORED else ()),
                    *("--rate", str(settings.rate_hz), "--real-time-factor", factor),
                    *(("--serial", str(self.ports / robot)) if self.serial else ()),
                    *(() if settings.forgiven is None else ("--forgiven", str(settings.forgiven))),
                )
            period_ms = 1000.0 / (settings.rate_hz * settings.real_time_factor)
            arguments = ("--period-ms", f"{period_ms:.3f}", "--out", str(self.folder / TIMER_FILE))
            children.start("timer", *arguments, module="outrider.demo.timer")
            self._wait(
                "the robots to reach the hub", children, lambda: self._fleet_matches(lambda row: row.online)
            )
            for robot in ROBOTS:
                self._arm(children, robot)

    def _enrol(self, children: Children) -> None:
        """A token from the hub, the newcomer's keys for it; whoever comes with the token again is sent away."""
        made = ("fleet", "enrol", NEWCOMER, "--as", next(iter(PEOPLE)), "--why", "new on the floor", "--json")
        token = json.loads(children.run(*made))["token"]
        words = ("agent", "enrol", token, "--hub", self.hub, "--state")
        children.run(*words, str(self.folder / NEWCOMER))
        self.facts.enrolment_refused = children.refused(*words, str(self.folder / "thief"))

    def _arm(self, children: Children, robot: str) -> None:
        """Arm one robot; it refuses until its first scans have come."""
        deadline = time.monotonic() + WAIT_MAX_S
        while True:
            try:
                self._ask_to_arm(children, robot)
                return
            except DemoError:
                children.check()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def _ask_to_arm(self, children: Children, robot: str) -> None:
        """As a person would: release what a fault has latched, then arm. Raises DemoError when the robot refuses."""
        if self._board_states().get(robot) == "faulted":
            children.run("agent", "reset", robot, "--timeout", "10")
        children.run("agent", "arm", robot, "--timeout", "10")

    def _tend(self, children: Children) -> None:
        """A motor controller that has stopped stays stopped until somebody arms it: here that is the demonstration."""
        if not self.serial or time.monotonic() - self._tended_s < TEND_S:
            return
        state = self._board_states()
        for robot in ROBOTS:
            if state.get(robot) in ("disarmed", "faulted"):
                with suppress(DemoError):  # it moves, or the cause is still there: the next time
                    self._ask_to_arm(children, robot)
                    self.facts.armed_again[robot] = self.facts.armed_again.get(robot, 0) + 1
        self._tended_s = time.monotonic()

    def _board_states(self) -> dict[str, str]:
        """The last that happened to each board; empty without boards."""
        return {event.robot: event.what for event in read_board_events(self.ports)}

    def _push(self, children: Children, version: str) -> None:
        self.facts.released_s[version] = time.time()
        children.run("release", str(self.bundles[version]))
        people = [word for person in PEOPLE for word in ("--as", person)]
        why = f"{version} was evaluated"
        out = children.run(
            *("rollout", "start", "--release", version, "--to", "all", *people, "--why", why, "--json")
        )
        rollout = int(json.loads(out)["rollout"])
        steps = self.facts.push.setdefault(version, {robot: [] for robot in ROBOTS})

        def arrived() -> bool:
            with self._operator() as hub:
                rows = hub.rollout(rollout).robots
            for row in rows:
                known = steps[row.robot]
                state = "active" if row.state == "soaked" else row.state
                if not known or known[-1][0] != state:
                    known.append((state, time.time()))
                if row.state == "refused":
                    raise DemoError(f"{row.robot} refused {version}: {row.reason}")
            self._tend(children)
            return all(row.state in ("active", "soaked") for row in rows)

        self._wait(f"{version} to drive on all robots", children, arrived)

    def _cruise(self, children: Children) -> None:
        until = time.monotonic() + self.settings.phase_s
        while time.monotonic() < until:
            children.check()
            self._tend(children)
            time.sleep(min(0.5, max(0.0, until - time.monotonic())))

    def _land(self, children: Children) -> None:
        self.facts.memory_mb = {robot: memory_mb(children.pid(robot)) for robot in ROBOTS}
        self.facts.landed_s = time.time()
        for robot in ROBOTS:
            children.stop(robot)
        children.stop("timer")
        children.stop("floor")
        with self._operator() as hub:
            rows = hub.fleet().robots
        self.facts.stored = {row.robot: (row.records_stored, row.durable_seq, row.last_seq) for row in rows}
        children.stop("mirror")
        self._scrape(children)
        children.stop("hub")

    def _scrape(self, children: Children) -> None:
        """Sum up what has come, as the hub's own ingest does each minute, and read /metrics as Prometheus would."""
        children.run("episodes", "ingest", "--data", str(self.folder / "hub"), "--all")

        def told() -> bool:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as page:
                self.facts.hub_metrics = page.read(METRICS_MAX_BYTES).decode()
            return all(f'{POLICY_METRIC}ticks{{policy="{v}"' in self.facts.hub_metrics for v in VERSIONS)

        self._wait("the hub to tell of both policies", children, told)

    def _service(self, children: Children) -> None:
        try:
            self.facts.board_update = update_board(
                children, SERVICED, self.ports / SERVICED, Images.of(self.firmware), self.keys
            )
        except FirmwareError as error:
            raise DemoError(f"{SERVICED}'s board: {error}") from None

    def _operator(self) -> HubClient:
        return HubClient(self.hub, self.keys)

    def _fleet_matches(self, condition: Callable[[Any], bool]) -> bool:
        with self._operator() as hub:
            return all(condition(row) for row in hub.fleet().robots)

    def _wait(self, what: str, children: Children, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_MAX_S
        while not done():
            children.check()
            if time.monotonic() > deadline:
                raise DemoError(f"waited {WAIT_MAX_S:.0f} s for {what}; see {self.folder / 'logs'}")
            time.sleep(POLL_S)

    @contextmanager
    def _stage(self, title: str) -> Iterator[None]:
        started = time.monotonic()
        number = len(self.facts.stage_s) + 1
        self.console.print(f"[bold]{number:>2}  {title}[/bold] ...", highlight=False, soft_wrap=True)
        yield
        took = time.monotonic() - started
        self.facts.stage_s[title] = took
        self.console.print(f"      [green]done[/green] in {took:.1f} s", highlight=False, soft_wrap=True)


def memory_mb(pid: int) -> dict[str, float]:
    """Proportional set size in MB of a supervisor and each of its children, by role."""
    try:
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
        return {_role(process, parent): process.memory_full_info().pss / 1e6 for process in family}
    except psutil.Error:
        return {}


def _role(process: psutil.Process, parent: psutil.Process) -> str:
    if process.pid == parent.pid:
        return "supervisor"
    line = " ".join(process.cmdline())
    return next((name for name in ("control", "comms") if f"edge_agent.{name}" in line), process.name())


def free_port() -> int:
    """A TCP port on the loopback that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
