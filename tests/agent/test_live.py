"""The real agent, its three processes and a robot over real DDS."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

pytest.importorskip("rclpy", reason="no ROS 2: run 'make setup', or source a distribution")
pytest.importorskip("outrider_msgs", reason="ros_ws is not built: run 'make setup'")

from outrider_msgs.msg import DecisionStatus, PolicyStatus
from outrider_msgs.srv import SetMode

from contracts.decision import FLAG_SWAPPED, Mode, Reason
from edge_agent.recorder.reading import find_folders, load_log, open_log
from edge_agent.update.mailbox import CommsMailbox, new_candidate
from edge_agent.update.slots import BundleFacts, SlotStore
from safety.config import MonitorConfig
from tests.support.agent import ROOT, LiveAgent
from tests.support.fleet import make_bundle
from tests.support.waiting import wait_for

SLACK_S = 0.25
"""For a busy machine: transport, and the fake robot's own 10 Hz."""


def stopped_s(live: LiveAgent, since_ns: int) -> float:
    """Seconds from ``since_ns`` to the first zero command."""

    def first() -> int:
        return next((at for at, v, w in list(live.commands) if at > since_ns and v == w == 0.0), 0)

    return float(wait_for(first, "a stop") - since_ns) / 1e9


def missed(live: LiveAgent) -> int:
    """Ticks the agent has missed so far."""
    return int(live.status()["decision"].ticks_missed)


def test_it_stands_until_armed_drives_then_stops_when_the_scans_end(live: LiveAgent) -> None:
    live.start()
    assert {(v, w) for _, v, w in live.commands} == {(0.0, 0.0)}
    live.arm()
    assert not live.status()["policy"].digest_active  # the rules drive

    before, log = missed(live), find_folders(live.state)[0]
    comms = live.child("comms")
    comms.kill()
    wait_for(lambda: live.child("comms").pid != comms.pid, "comms runs again")
    assert missed(live) == before
    assert live.status()["safety"].armed
    assert live.commands[-1][1:] != (0.0, 0.0)

    muted_ns = live.order("mute")
    assert stopped_s(live, muted_ns) < 0.1 + 0.3 + 0.05 + SLACK_S
    assert live.status()["safety"].reason_text == "scan stale"
    wait_for(lambda: not live.status()["safety"].armed, "disarming", 5.0)
    assert (time.monotonic_ns() - muted_ns) / 1e9 > 2.0
    live.order("talk")
    wait_for(lambda: live.status()["safety"].reason_text == "not armed", "scans again")
    assert live.commands[-1][1:] == (0.0, 0.0)  # nobody has armed it again
    live.order("bend")
    wait_for(lambda: live.status()["safety"].reason_text == "scan wrong shape", "a named fault")

    assert live.end() == 0
    decisions = load_log(log).decisions
    assert (np.diff(decisions["tick"].astype(np.int64)) == 1).all()  # not one record lost to the kill
    seen = [scan for _, scan in open_log(log).scans()]  # the lidar's silence was an incident
    assert any(scan.arrived_ns < muted_ns for scan in seen)
    assert any(scan.arrived_ns > muted_ns + 2_000_000_000 for scan in seen)
    # Not one of a busy machine before: the scans in memory went with comms when it was killed.
    stale = (decisions["reason"] == Reason.SCAN_STALE) & (decisions["mono_ns"].astype(np.int64) > muted_ns)
    stopped = decisions[stale][0]
    assert (found := open_log(log).scan_of(stopped)) is not None
    assert abs((int(stopped["mono_ns"]) - found.arrived_ns) // 1000 - int(stopped["scan_age_us"])) <= 1


def test_control_killed_comes_back_disarmed_and_a_second_agent_is_refused(live: LiveAgent) -> None:
    live.start()
    live.arm()
    assert live.process is not None
    second = subprocess.run(
        live.command("--rate", "50"), capture_output=True, text=True, timeout=30, cwd=ROOT
    )
    assert (second.returncode, second.stderr.count("\n")) == (1, 1)
    assert "already runs" in second.stderr
    assert live.control_config()["rate_hz"] == 20  # the refused one changed nothing

    control = live.child("control")
    control.kill()
    killed_ns = time.monotonic_ns()
    wait_for(lambda: live.child("control").pid != control.pid, "control runs again")
    assert stopped_s(live, killed_ns) < 20.0
    wait_for(lambda: live.status()["safety"].reason_text == "not armed", "a scan at the new control")
    later = [command for command in live.commands if command[0] > killed_ns + 500_000_000]
    assert later
    assert {(v, w) for _, v, w in later} == {(0.0, 0.0)}

    hung = live.child("control")
    os.kill(hung.pid, signal.SIGSTOP)
    wait_for(lambda: live.child("control").pid != hung.pid, "a silent control is replaced", 15.0)
    children = psutil.Process(live.process.pid).children(recursive=True)
    assert live.end() == 0
    assert not [child for child in children if child.is_running()]
    assert not Path(f"/dev/shm/outrider-{live.control_config()['ring_name']}").exists()


def test_children_do_not_outlive_a_killed_supervisor(live: LiveAgent) -> None:
    live.start()
    assert live.process is not None
    children = psutil.Process(live.process.pid).children(recursive=True)
    assert len(children) >= 2
    live.process.kill()
    live.process.wait()
    gone, alive = psutil.wait_procs(children, timeout=10)
    assert (len(gone), alive) == (len(children), [])


def test_a_candidate_is_loaded_swapped_in_and_committed_and_a_bad_one_changes_nothing(
    live: LiveAgent, keys: Path, tmp_path: Path
) -> None:
    good = MonitorConfig().hash()
    for name, counter, monitor_hash in (("v1", 1, good), ("v2", 2, good), ("other", 3, "ab" * 32)):
        bundle = make_bundle(keys, version=name, release_counter=counter, monitor_hash=monitor_hash)
        (tmp_path / f"{name}.outrider").write_bytes(bundle)
    store = SlotStore(live.state)
    path = tmp_path / "v1.outrider"
    facts = BundleFacts(hashlib.sha256(path.read_bytes()).hexdigest(), "routing", "v1", 1)
    CommsMailbox(live.state).offer(new_candidate(store.stage(path, facts), 1))

    live.start()
    wait_for(lambda: live.status()["policy"].state == PolicyStatus.STATE_PROBATION, "v1 drives on probation")
    assert store.active() is None  # committed is what has passed
    committed = wait_for(store.active, "the commit by comms")
    assert committed.digest == facts.digest
    live.arm()
    wait_for(lambda: live.status()["policy"].digest_active == facts.digest, "v1 drives")

    refused = live.client().load(str(tmp_path / "other.outrider"))
    assert not refused.accepted
    assert "monitor" in refused.message
    assert not live.client().load("relative.outrider").accepted
    assert live.status()["policy"].digest_active == facts.digest

    accepted = live.client().load(str(tmp_path / "v2.outrider"))
    assert accepted.accepted, accepted.message
    status = wait_for(lambda: (p := live.status()["policy"]).release_version == "v2" and p, "v2 drives")
    assert (status.digest_active, status.digest_previous) == (accepted.digest, facts.digest)
    assert live.status()["safety"].armed

    assert live.end() == 0
    decisions = load_log(find_folders(live.state)[0]).decisions
    assert (np.diff(decisions["tick"].astype(np.int64)) == 1).all()
    swaps = np.flatnonzero(decisions["flags"] & FLAG_SWAPPED)
    assert len(swaps) == 2
    assert decisions["release_counter"][swaps[1] - 1] == 1
    assert decisions["release_counter"][swaps[1]] == 2


def outrider_agent(*words: str) -> subprocess.CompletedProcess[str]:
    """``outrider agent`` with these words."""
    command = [sys.executable, "-m", "outrider.cli", "agent", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)


def test_modes_are_switched_where_it_is_safe_approved_by_a_person_and_survive_a_kill(
    live: LiveAgent, keys: Path, tmp_path: Path
) -> None:
    assert all(getattr(SetMode.Request, f"MODE_{mode.name}") == mode for mode in Mode)
    live.start()
    path = tmp_path / "v1.outrider"
    path.write_bytes(make_bundle(keys, monitor_hash=MonitorConfig().hash()))
    loaded = live.client().load(str(path))
    assert loaded.accepted, loaded.message
    live.arm()
    refused = live.settled(lambda: live.client().set_mode(Mode.ASSIST, "test"))
    assert not refused.success
    assert "stop or disarm it first" in refused.message
    refused = live.settled(lambda: live.client().arm("test"))
    assert not refused.success
    assert "moves" in refused.message
    assert "mode is controller" in live.client().approve(5.0, "test").message
    assert live.client().set_mode(Mode.FALLBACK, "test").success  # always, also while driving
    wait_for(lambda: live.status()["decision"].source == DecisionStatus.SOURCE_RULE_BASED, "the rules drive")

    live.client().arm("test", arm=False)
    wait_for(lambda: not live.status()["safety"].armed, "disarming")
    switched = live.settled(lambda: outrider_agent("mode", live.robot, "assist"))
    assert switched.returncode == 0, switched.stderr
    assert "not armed" in live.client().approve(5.0, "test").message
    live.child("control").kill()
    wait_for(lambda: live.status()["decision"].mode == Mode.ASSIST, "the mode after the restart")
    wait_for(lambda: live.status()["safety"].reason_text == "not armed", "a scan at the new control")
    loaded = live.client().load(str(path))
    assert loaded.accepted, loaded.message
    live.arm()
    assert live.status()["decision"].source == DecisionStatus.SOURCE_RULE_BASED
    too_long = live.client().approve(61.0, "test")
    assert "an approval lasts" in too_long.message
    approved = outrider_agent("approve", live.robot, "--seconds", "3")
    assert approved.returncode == 0, approved.stderr
    policy = (DecisionStatus.SOURCE_POLICY, DecisionStatus.SOURCE_RECOVERY)
    wait_for(lambda: live.status()["decision"].source in policy, "the policy drives", 3.0)
    wait_for(
        lambda: live.status()["decision"].source == DecisionStatus.SOURCE_RULE_BASED, "the approval's end"
    )
    wrong = outrider_agent("mode", live.robot, "turbo")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)


def test_a_broken_floor_ends_with_one_clear_line(tmp_path: Path) -> None:
    broken, path = tmp_path / "broken.yaml", tmp_path / "control.json"
    broken.write_text("name: x\nwidth_m: much\n")
    config = {"robot_id": "r", "keys_dir": "k", "ring_name": "r-x", "state_dir": str(tmp_path / "state")}
    path.write_text(json.dumps({**config, "layout_path": str(broken)}))
    command = [sys.executable, "-m", "edge_agent.control", "--config", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=30)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "broken.yaml" in ended.stderr
    assert not (tmp_path / "state").exists()
