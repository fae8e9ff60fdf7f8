"""The supervisor: starts control and comms, starts them again, ends them in order. Small: no numpy, no rclpy.

``python -m edge_agent.supervisor --robot ROBOT --layout FLOOR.yaml --state DIR --keys DIR ...``
"""

import argparse
import fcntl
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from contracts.key_files import missing_files, party_folder
from edge_agent.errors import AgentError, AgentRunningError, ConfigError
from edge_agent.heartbeat import read_heartbeat, remove_ring

POLL_S = 0.1
SILENT_MAX_S = 1.0
START_MAX_S = 30.0
BACKOFF_MIN_S, BACKOFF_MAX_S = 0.5, 10.0
STEADY_S = 10.0
"""Alive this long, a child's next restart is quick again."""
CONTROL_STOP_MAX_S = 5.0
COMMS_STOP_MAX_S = 8.0
LOG_MAX_BYTES = 1_000_000
ROBOT_PATTERN = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
CPUS_PATTERN = re.compile(r"(\d{1,3}(,\d{1,3}){0,15})?")
NS = 1_000_000_000


class Child:
    """One child process: start, notice the end, start again later."""

    def __init__(self, name: str, config: Path, log: Path | None) -> None:
        self.name = name
        self._config, self._log = config, log
        self._process: subprocess.Popen[bytes] | None = None
        self._backoff_s = BACKOFF_MIN_S
        self._started_s = 0.0
        self._restart_s = 0.0
        self.starts = 0

    @property
    def pid(self) -> int:
        """Its process id; 0 while there is none."""
        return self._process.pid if self._process else 0

    @property
    def age_s(self) -> float:
        """Seconds since it was started last."""
        return time.monotonic() - self._started_s

    def step(self) -> None:
        """Start it when that is due; notice when it has ended."""
        now_s = time.monotonic()
        if self._process is None:
            if now_s >= self._restart_s:
                self._start()
            return
        code = self._process.poll()
        if code is None:
            if self.age_s > STEADY_S:
                self._backoff_s = BACKOFF_MIN_S
            return
        where = f"; {self._log} says why" if self._log else ""
        say(f"{self.name} ended with code {code}; starts again in {self._backoff_s:g} s{where}")
        self._process, self._restart_s = None, now_s + self._backoff_s
        self._backoff_s = min(2.0 * self._backoff_s, BACKOFF_MAX_S)

    def kill(self) -> None:
        """End it at once; ``step`` will notice."""
        if self._process is not None:
            self._process.kill()

    def stop(self, max_s: float) -> int | None:
        """Ask it to end, kill it when it does not; its exit code, None when it did not run."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.terminate()
        try:
            return process.wait(max_s)
        except subprocess.TimeoutExpired:
            say(f"{self.name} did not end within {max_s:g} s; killed")
            process.kill()
            return process.wait()

    def _start(self) -> None:
        command = [sys.executable, "-m", "edge_agent.child", str(os.getpid()), f"edge_agent.{self.name}"]
        command += ["--config", str(self._config)]
        self._started_s = time.monotonic()
        self.starts += 1
        if self._log is None:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
            return
        if self._log.exists() and self._log.stat().st_size > LOG_MAX_BYTES:
            self._log.replace(self._log.with_suffix(".log.1"))
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


class Supervisor:
    """Both children of one robot; ``run`` until SIGTERM or SIGINT."""

    def __init__(self, ring_name: str, control: Child, comms: Child) -> None:
        self._ring_name, self._control, self._comms = ring_name, control, comms
        self._stopping = False
        self._ready = False

    def stop(self) -> None:
        """Have ``run`` end everything and return; safe in a signal handler."""
        self._stopping = True

    def run(self) -> int:
        """Look after the children; returns the exit code."""
        while not self._stopping:
            self._control.step()
            self._comms.step()
            self._watch()
            time.sleep(POLL_S)
        notify("STOPPING=1")
        self._control.stop(CONTROL_STOP_MAX_S)
        if self._comms.stop(COMMS_STOP_MAX_S) == 0:
            remove_ring(self._ring_name)
        return 0

    def _watch(self) -> None:
        """Kill control when it is silent; tell systemd when it is not."""
        beat_ns, producer = read_heartbeat(self._ring_name)
        if not self._control.pid:
            return
        if producer != self._control.pid or not beat_ns:
            if self._control.age_s > START_MAX_S:
                say(f"control gave no sign of life in {START_MAX_S:g} s; killed")
                self._control.kill()
            return
        silent_s = (time.monotonic_ns() - beat_ns) / NS
        if silent_s > SILENT_MAX_S and self._control.age_s > SILENT_MAX_S:
            say(f"control has been silent for {silent_s:.1f} s; killed")
            self._control.kill()
            return
        if not self._ready:
            self._ready = True
            say("control runs")
            notify("READY=1")
        notify("WATCHDOG=1")


def say(message: str) -> None:
    """One line on standard error."""
    print(f"outrider agent: {message}", file=sys.stderr, flush=True)


def notify(message: str) -> None:
    """Tell systemd, when it asked to be told (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
            sender.sendto(message.encode(), "\0" + address[1:] if address.startswith("@") else address)
    except OSError as error:
        say(f"cannot notify systemd: {error.strerror}")


def take_lock(state: Path, robot: str) -> int:
    """Hold STATE/agent.lock as long as this process lives; raises AgentRunningError."""
    descriptor = os.open(state / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise AgentRunningError(
            f"an agent already runs in {state} ({holder}); end it first, or choose another --state"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"pid {os.getpid()}, {robot}\n".encode(), 0)
    return descriptor


def write_configs(arguments: argparse.Namespace, state: Path) -> tuple[Path, Path, str]:
    """STATE/control.json and STATE/comms.json; returns both and the name of the ring between them."""
    ring_name = f"{arguments.robot}-{hashlib.sha256(str(state).encode()).hexdigest()[:8]}"
    common = {
        "robot_id": arguments.robot,
        "state_dir": str(state),
        "keys_dir": str(Path(arguments.keys).resolve()),
        "ring_name": ring_name,
    }
    control = {
        **common,
        "layout_path": str(Path(arguments.layout).resolve()),
        "safety_path": str(Path(arguments.safety).resolve()) if arguments.safety else "",
        "rate_hz": arguments.rate,
        "real_time_factor": arguments.real_time_factor,
        "serial_port": arguments.serial,
        "trial": {}
        if arguments.forgiven is None
        else {"interventions_extra": arguments.forgiven, "advice_max": arguments.forgiven},
        "autostart": not arguments.no_autostart,
        "sim_time": arguments.sim_time,
        "realtime": arguments.realtime,
        "cpus": [int(cpu) for cpu in arguments.cpus.split(",") if cpu],
    }
    # Without a hub comms still records; it calls at a door that nobody opens.
    hub = f"ipc://{state / 'no-hub'}" if arguments.no_hub else arguments.hub
    paths = []
    for name, values in (
        ("control", control),
        (
            "comms",
            {**common, "hub_endpoint": hub, "mirror_endpoint": arguments.mirror, "traces": arguments.traces},
        ),
    ):
        path = state / f"{name}.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(values, indent=1) + "\n")
        temporary.replace(path)
        paths.append(path)
    return paths[0], paths[1], ring_name


def check_arguments(arguments: argparse.Namespace) -> None:
    """Refuse what the children would end on anyway; raises ConfigError."""
    if not ROBOT_PATTERN.fullmatch(arguments.robot):
        raise ConfigError(f"no robot can be called {arguments.robot!r}; use a-z, 0-9, _ and -")
    needed = [("layout", arguments.layout), ("keys folder", arguments.keys)]
    if arguments.safety:
        needed.append(("safety settings", arguments.safety))
    for what, path in needed:
        if not Path(path).exists():
            raise ConfigError(f"no {what} at {path}; check the path")
    if not 10 <= arguments.rate <= 200 or arguments.rate % 10:
        raise ConfigError(f"--rate is {arguments.rate}; it must be a multiple of 10, from 10 to 200")
    if not 0.05 <= arguments.real_time_factor <= 50.0:
        raise ConfigError(f"--real-time-factor is {arguments.real_time_factor}; it must be 0.05 to 50")
    if not CPUS_PATTERN.fullmatch(arguments.cpus):
        raise ConfigError(f"--cpus is {arguments.cpus!r}; it must be core numbers such as 2,3")
    if arguments.mirror and "://" not in arguments.mirror:
        raise ConfigError(f"--mirror is {arguments.mirror!r}; it must be an address such as tcp://host:5756")
    if not arguments.no_hub and "://" not in arguments.hub:
        raise ConfigError(f"--hub is {arguments.hub!r}; it must be an address such as tcp://host:5755")
    folder = party_folder(Path(arguments.keys), "robots", arguments.robot)
    if missing := missing_files(folder, not arguments.no_hub, bool(arguments.mirror)):
        raise ConfigError(
            f"no {', '.join(missing)} of {arguments.robot} in {folder};"
            " `outrider agent enrol` or `outrider keys init` makes them"
        )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m edge_agent.supervisor", description="Runs a robot's agent."
    )
    parser.add_argument("--robot", required=True)
    parser.add_argument("--layout", required=True)
    parser.add_argument("--state", required=True)
    parser.add_argument("--keys", required=True)
    parser.add_argument("--safety", default="", help="signed settings of the monitor")
    parser.add_argument("--hub", default="")
    parser.add_argument("--mirror", default="")
    parser.add_argument("--rate", type=int, default=20)
    parser.add_argument("--real-time-factor", type=float, default=1.0)
    parser.add_argument("--sim-time", action="store_true", help="the sensors' stamps are a simulator's")
    parser.add_argument("--realtime", action="store_true", help="SCHED_FIFO and locked memory for control")
    parser.add_argument("--cpus", default="", help="cores for control, such as 2,3")
    parser.add_argument("--serial", default="", help="port of the motor controller")
    parser.add_argument("--forgiven", type=int, help="interventions and advice forgiven on probation")
    parser.add_argument("--no-hub", action="store_true")
    parser.add_argument("--traces", default="", help="a file, or a URL for OTLP")
    parser.add_argument("--no-autostart", action="store_true")
    parser.add_argument(
        "--foreground", action="store_true", help="the children's output here, not in STATE/*.log"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run one robot's agent; returns the exit code."""
    parsed = parse(arguments)
    try:
        check_arguments(parsed)
        state = Path(parsed.state).resolve()
        state.mkdir(parents=True, exist_ok=True)
        take_lock(state, parsed.robot)
        control_config, comms_config, ring_name = write_configs(parsed, state)
    except AgentError as error:
        print(f"outrider: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except OSError as error:
        print(f"outrider: {error.filename or parsed.state}: {error.strerror}", file=sys.stderr)
        return 1
    logs = [None if parsed.foreground else state / f"{name}.log" for name in ("control", "comms")]
    supervisor = Supervisor(
        ring_name, Child("control", control_config, logs[0]), Child("comms", comms_config, logs[1])
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop())
    say(f"{parsed.robot}: state in {state}")
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(main())
