"""Settings and start-up: what is wrong is refused in one line, and nothing on disk changes."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import psutil
import pytest

from contracts.key_files import COMMS_FILES, ROOT_FILES, UPDATE_FILES
from contracts.ring import RING_FOLDER, RingWriter
from contracts.trust import DIRECTOR, IMAGE
from edge_agent import heartbeat
from edge_agent.comms import CommsConfig
from edge_agent.config import ControlConfig, decode_settings
from edge_agent.errors import AgentRunningError, ConfigError
from edge_agent.recorder.reading import load_log
from edge_agent.supervisor import check_arguments, parse, take_lock, write_configs
from tests.support.agent import LAYOUT, ROOT
from tests.support.waiting import wait_for

GOOD = {"robot_id": "robot_1", "state_dir": "s", "keys_dir": "k", "layout_path": "f.yaml", "ring_name": "r"}


def arguments(tmp_path: Path, *more: str) -> list[str]:
    """A good command line for the supervisor, and more."""
    return [
        "--robot", "robot_1", "--layout", str(LAYOUT), "--state", str(tmp_path / "s"), "--keys", str(tmp_path),
        "--no-hub", *more,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "hint"),
    [({"rate_hz": 25}, "multiple of 10"), ({"rate_hz": 0}, "rate_hz"), ({"speed": 1}, "speed"),
     ({"real_time_factor": 0.0}, "real_time_factor"), ({"robot_id": "../x"}, "robot_id"),
     ({"ring_name": "a/b"}, "ring_name"), ({"cpus": [-1]}, "cpus"), ({"trial": {"shadow_ticks": 0}}, "shadow_ticks"),
     ({"trial": {"stage_max_s": 0.0}}, "stage_max_s"), ({"trial": {"x": 1}}, "x")],
)  # fmt: skip
def test_wrong_settings_are_refused_by_name(change: dict[str, object], hint: str) -> None:
    assert decode_settings(json.dumps(GOOD).encode(), ControlConfig, "here").check().rate_hz == 20
    with pytest.raises(ConfigError, match=hint):
        decode_settings(json.dumps({**GOOD, **change}).encode(), ControlConfig, "here").check()


def test_the_supervisor_writes_what_both_children_read(tmp_path: Path) -> None:
    parsed = parse(arguments(tmp_path, "--rate", "50", "--real-time-factor", "4", "--mirror", "tcp://m:1"))
    state = tmp_path / "s"
    state.mkdir()
    control_path, comms_path, ring_name = write_configs(parsed, state)
    control = msgspec.json.decode(control_path.read_bytes(), type=ControlConfig)
    comms = msgspec.json.decode(comms_path.read_bytes(), type=CommsConfig)
    assert (control.ring_name, control.rate_hz, control.real_time_factor) == (ring_name, 50, 4.0)
    assert (control.realtime, control.cpus, control.sim_time) == (False, (), False)
    assert control.period_ns == 5_000_000
    assert comms.ring_name == ring_name
    assert comms.hub_endpoint.startswith("ipc://")
    assert comms.mirror_endpoint == "tcp://m:1"


@pytest.mark.parametrize(
    ("more", "hint"),
    [(("--rate", "15"), "multiple of 10"), (("--real-time-factor", "0"), "0.05 to 50"),
     (("--cpus", "two"), "core numbers"), (("--mirror", "north"), "must be an address"),
     (("--robot", "Robot 1"), "no robot can be called"), (("--layout", "none.yaml"), "no layout at none.yaml")],
)  # fmt: skip
def test_wrong_options_are_refused_and_leave_no_folder(
    tmp_path: Path, more: tuple[str, ...], hint: str
) -> None:
    with pytest.raises(ConfigError, match=hint):
        check_arguments(parse(arguments(tmp_path, *more)))
    command = [sys.executable, "-m", "edge_agent.supervisor", *arguments(tmp_path, *more)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert hint in ended.stderr
    assert not (tmp_path / "s").exists()


def agent_run(tmp_path: Path, keys: Path, *more: str) -> list[str]:
    """``outrider agent run`` with these keys."""
    words = [
        "--robot",
        "robot_1",
        "--layout",
        str(LAYOUT),
        "--state",
        str(tmp_path / "s"),
        "--keys",
        str(keys),
    ]
    return [sys.executable, "-m", "outrider.cli", "agent", "run", *words, *more]


def own_keys(tmp_path: Path, keys: Path) -> Path:
    """A copy of what robot_1 has."""
    return Path(shutil.copytree(keys / "robots" / "robot_1", tmp_path / "own"))


def refused(command: list[str]) -> str:
    """The one line of a start that is refused."""
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
    return ended.stderr


def test_a_start_without_keys_is_refused_by_name(tmp_path: Path, keys: Path) -> None:
    assert (f"{IMAGE}.root.json", f"{DIRECTOR}.root.json") == ROOT_FILES
    own = own_keys(tmp_path, keys)
    (tmp_path / "empty").mkdir()
    hub = ("--hub", "tcp://127.0.0.1:1")
    every = ", ".join((*COMMS_FILES, *UPDATE_FILES))
    assert f"no {every} of robot_1 in {tmp_path / 'empty'}; " in refused(
        agent_run(tmp_path, tmp_path / "empty", *hub)
    )
    check_arguments(parse([*arguments(tmp_path), "--keys", str(own)]))
    for name in (*COMMS_FILES, *UPDATE_FILES):
        (own / name).rename(tmp_path / "aside")
        with pytest.raises(ConfigError, match=f"no {name} of robot_1"):
            check_arguments(parse([*arguments(tmp_path)[:-1], "--keys", str(own), *hub]))
        (tmp_path / "aside").rename(own / name)
    (own / "curve.json").chmod(0o644)
    assert "run `chmod 600" in refused(agent_run(tmp_path, own, *hub))
    (own / "curve.json").chmod(0o600)
    mirror = (*hub, "--mirror", "tcp://127.0.0.1:2")
    assert "no mirror_public.json of robot_1" in refused(agent_run(tmp_path, own, *mirror))
    (own / "mirror_public.json").write_text("{}")
    assert "mirror_public.json holds no CurvePublic" in refused(agent_run(tmp_path, own, *mirror))
    assert not (tmp_path / "s").exists()


def test_keys_that_go_while_it_runs_are_named_where_one_looks(tmp_path: Path, keys: Path) -> None:
    """The supervisor's line leads to comms.log, which names the file; so does the robot's own record."""
    own, state = own_keys(tmp_path, keys), tmp_path / "s"
    with (tmp_path / "said").open("w") as said:
        running = subprocess.Popen(agent_run(tmp_path, own, "--no-hub"), stderr=said, cwd=ROOT)
    try:
        wait_for(lambda: list((state / "log").glob("*.olog")), "comms")
        (own / "curve.json").unlink()
        with contextlib.suppress(psutil.NoSuchProcess):  # it may just have found out by itself
            comms_of(running.pid).kill()
        wait_for(lambda: "no key at" in (state / "comms.log").read_text(), "the reason in comms.log")
        wait_for(lambda: "comms.log says why" in (tmp_path / "said").read_text(), "where to look")
        told = [e for _, e in load_log(state / "log").events if e.name == "keys_unusable"]
        assert str(own / "curve.json") in str(told[0].detail["why"])
    finally:
        running.terminate()
        assert running.wait(60) == 0


def comms_of(supervisor: int) -> psutil.Process:
    """Its comms process."""

    def found() -> psutil.Process | None:
        for child in psutil.Process(supervisor).children():
            with contextlib.suppress(psutil.Error):  # one that has just ended is not the one
                if "edge_agent.comms" in child.cmdline():
                    return child
        return None

    process: psutil.Process = wait_for(found, "comms runs")
    return process


def test_two_agents_on_one_state_folder_are_refused(tmp_path: Path) -> None:
    held = take_lock(tmp_path, "robot_1")
    with pytest.raises(AgentRunningError, match=r"already runs.*robot_1"):
        take_lock(tmp_path, "robot_1")
    assert held > 0


def test_the_supervisor_reads_the_heartbeat_that_control_writes() -> None:
    name = "test-heartbeat"
    ring = RingWriter(name)
    try:
        ring.beat(123_456_789_012)
        beat_ns, pid = heartbeat.read_heartbeat(name)
        assert beat_ns == 123_456_789_012
        assert pid == int(ring._words[40])
        assert heartbeat.RING_FOLDER == RING_FOLDER
    finally:
        ring.close()
        heartbeat.remove_ring(name)
    assert heartbeat.read_heartbeat(name) == (0, 0)


def test_the_supervisor_imports_neither_numpy_nor_rclpy() -> None:
    code = "import sys, edge_agent.supervisor; print({'numpy', 'rclpy', 'zmq', 'typer'} & set(sys.modules))"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=100
    )
    assert answer.stdout == "set()\n", answer.stderr


def test_what_the_kernel_does_not_permit_is_said_and_left_out() -> None:
    code = """
import os, resource
from edge_agent.realtime import prepare
os.setresuid(65534, 65534, 65534)
resource.setrlimit(resource.RLIMIT_MEMLOCK, (4096, 4096))
said = []
print(prepare(True, (0,), said.append), len(said), said)
print(prepare(False, (4000,), said.append), said[-1])
"""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody who may do nothing")
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd="/", timeout=100
    )
    first, second = answer.stdout.splitlines()
    assert first.startswith("['cores 0'] 3"), answer
    assert all(what in first for what in ("priority -10", "SCHED_FIFO 40", "locked memory"))
    assert "cores 4000" in second
