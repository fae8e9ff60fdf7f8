"""Hub, comms, checks and control killed at random while releases roll out, links cut in between.

Never a robot without a policy that runs, every rollout comes to its end, the audit chain stays whole, and no more is
sent again than one chunk a cut. Half of the kills come at a random time, half just before a random write
(``tests/support/dying``).

``OUTRIDER_UPDATE_KILLS=1000 pytest -s tests/system/test_update_kills.py`` is the campaign (``make
campaign``); it prints what it did, and the seed that repeats its draws. ``OUTRIDER_TALLY=FOLDER`` lets it be run in
several goes (``tests/support/tally``), each with draws of its own.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from contracts.bundle import verify_bundle
from contracts.keyring import TRUSTED_FILE
from contracts.messages import RolloutView
from contracts.observation import ROUTING_LAYOUT
from contracts.plan import Release, Stage, Who
from contracts.provenance import TrustedKeys
from contracts.robot import AMR_SMALL
from edge_agent.infer.starts import TRIES_MAX
from edge_agent.update.floor import FloorStore
from edge_agent.update.slots import SlotStore
from fleet_hub.catalogue.catalogue import resolve
from fleet_hub.errors import HubError
from fleet_hub.limits import DOWNLOAD_CHUNK_BYTES
from fleet_hub.store.audit import read_entries, verify_chain
from safety.config import MonitorConfig
from tests.support.fleet import Fleet, large_policy, make_bundle, make_keys, make_plan
from tests.support.line import Line
from tests.support.tally import Tally
from tests.support.waiting import wait_for

KILLS = int(os.environ.get("OUTRIDER_UPDATE_KILLS", "6"))
TALLY = Tally("update_kills", KILLS)
SEED = int(os.environ.get("OUTRIDER_SEED", "5")) + TALLY.goes_before
ROBOTS = ("robot_1", "robot_2")
KILLS_A_ROLLOUT = 6
WRITES_MAX = 24
PLACES = {
    "hub": ("", "trust", "bundles", "staging"),
    "comms": ("slots", "staging", "floor", "log"),
    "check": ("trust", "floor"),
    "control": ("slots",),
}
"""Where the write may be before which one dies."""
DEATH_MAX_S = 4.0
"""Who has not come to its Nth write by then is killed where it is."""
END_MAX_S = 300.0
"""Checks are niced: on a machine that others keep busy one takes a minute, and is begun again when it is killed."""
CHECK_BYTES_MAX = 64 * 1024
"""Metadata of one check, papers, acknowledgements of one connection: not bundle."""
DYING = Path(__file__).parents[1] / "support" / "dying"
MODULES = {"hub": "outrider.cli", "comms": "edge_agent.comms", "check": "edge_agent.update.check"}
CONTROL = "tests.support.driving_control"


class Campaign:
    """A fleet, its lines and controls, and what has been done to it."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.draw = fleet, random.Random(SEED)
        self.lines = {robot: Line(fleet.port) for robot in ROBOTS}
        self.controls: dict[str, subprocess.Popen[str]] = {}
        self.killed: Counter[str] = Counter()
        self.writes: Counter[str] = Counter()
        self.cuts = self.release = 0
        self.again_bytes: list[int] = []
        self._interrupted: Counter[str] = Counter()
        self._control_kills: Counter[tuple[str, int]] = Counter()
        self._trusted = TrustedKeys.load(fleet.keys / TRUSTED_FILE)

    def start(self) -> None:
        """Everything."""
        self.fleet.start_hub()
        for robot in ROBOTS:
            self.lines[robot].start()
            self.fleet.ring(robot)
            self.start_comms(robot)
            self.start_control(robot)

    def start_comms(self, robot: str, environment: dict[str, str] | None = None) -> None:
        """Over the line that can be cut."""
        self.fleet.start_comms(robot, address=self.lines[robot].address, environment=environment)

    def start_control(self, robot: str, environment: dict[str, str] | None = None) -> None:
        """What it says goes to a file."""
        with (
            (self.fleet.folder / f"{robot}.drives").open("a") as said,
            (self.fleet.folder / f"{robot}.told").open("a") as told,
        ):
            command = [sys.executable, "-m", CONTROL, str(self.fleet.state(robot))]
            command.append(str(self.fleet.keys / "robots" / robot))
            self.controls[robot] = subprocess.Popen(
                command, stdout=said, stderr=told, text=True, env=environment
            )

    def kill(self) -> None:
        """One kill of a random process, at a random time or before a random write; and what must hold after it."""
        robot = self.draw.choice(ROBOTS)
        kinds = ["hub", "comms", "check", "control"]
        # Each must be killed in the short form too.
        who = kinds[self.killed.total()] if self.killed.total() < len(kinds) else self.draw.choice(kinds)
        if who == "control" and self._control_kills[robot, self.release] >= TRIES_MAX:
            who = "comms"  # a release under which control dies more often is dropped, rightly
        at_write = self.draw.random() < 0.5
        time.sleep(self.draw.uniform(0.0, 0.5))
        getattr(self, f"_kill_{who}")(robot, at_write)
        self.killed[who] += 1
        self.runs()

    def cut(self) -> None:
        """A line is cut for a moment."""
        robot = self.draw.choice(ROBOTS)
        self.lines[robot].cut()
        time.sleep(self.draw.uniform(0.0, 0.5))
        self.lines[robot].mend()
        self.cuts += 1
        self._interrupted[robot] += 1

    def _kill_hub(self, _: str, at_write: bool) -> None:
        self._interrupted.update(ROBOTS)
        self.fleet.kill_hub()
        if at_write:
            self.fleet.start_hub(
                "--no-ingest",
                environment=self._armed(
                    MODULES["hub"], self.fleet.folder / "data" / self.draw.choice(PLACES["hub"])
                ),
            )
            assert self.fleet.hub_process is not None
            self._wait_for_death(self.fleet.hub_process)
            self.fleet.kill_hub()
            self._interrupted.update(ROBOTS)
        verify_chain(read_entries(self.fleet.folder / "data"))
        self.fleet.start_hub()

    def _kill_comms(self, robot: str, at_write: bool) -> None:
        self._interrupted[robot] += 1
        self.fleet.end_comms(robot, signal.SIGKILL)
        if at_write:
            self.start_comms(
                robot,
                self._armed(MODULES["comms"], self.fleet.state(robot) / self.draw.choice(PLACES["comms"])),
            )
            self._wait_for_death(self.fleet.comms[robot])
            self._interrupted[robot] += 1
            self.fleet.end_comms(robot, signal.SIGKILL)
            self.runs(robot)
        self.start_comms(robot)

    def _kill_check(self, robot: str, at_write: bool) -> None:
        """The check of a bundle is a child of comms; where none is found, comms is killed."""
        self._interrupted[robot] += 1
        if at_write:
            self.fleet.end_comms(robot, signal.SIGKILL)
            self.start_comms(
                robot,
                self._armed(MODULES["check"], self.fleet.state(robot) / self.draw.choice(PLACES["check"])),
            )
            return
        end_s = time.monotonic() + DEATH_MAX_S
        while time.monotonic() < end_s:
            for child in psutil.Process(self.fleet.comms[robot].pid).children():
                child.kill()
                return
            time.sleep(0.005)
        self._kill_comms(robot, False)

    def _kill_control(self, robot: str, at_write: bool) -> None:
        self._control_kills[robot, self.release] += 1
        end(self.controls[robot])
        if at_write and self._control_kills[robot, self.release] < TRIES_MAX:
            self._control_kills[robot, self.release] += 1
            self.start_control(
                robot, self._armed(CONTROL, self.fleet.state(robot) / self.draw.choice(PLACES["control"]))
            )
            self._wait_for_death(self.controls[robot])
            end(self.controls[robot])
        self.start_control(robot)

    def _armed(self, word: str, folder: Path) -> dict[str, str]:
        """An environment in which the next process with that word on its command line dies before a write."""
        mark = self.fleet.folder / f"die-{self.killed.total()}"
        mark.touch()
        number = int(WRITES_MAX ** self.draw.random())  # the first writes of a start as often as later ones
        path = os.pathsep.join([str(DYING), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        return {**os.environ, "PYTHONPATH": path, "OUTRIDER_DIE": f"{mark}|{word}|{folder}|{number}"}

    def _wait_for_death(self, process: "subprocess.Popen[str]") -> None:
        try:
            process.wait(self.draw.uniform(1.5, DEATH_MAX_S))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def runs(self, *robots: str) -> None:
        """Every robot has a policy that would drive if its control started now; since there was one."""
        for robot in robots or ROBOTS:
            if self.release > 1:
                entry = SlotStore(self.fleet.state(robot)).active()
                assert entry is not None, f"{robot} has no policy"
                bundle = verify_bundle(
                    Path(entry.path), self._trusted, ROUTING_LAYOUT.hash(), AMR_SMALL, MonitorConfig().hash()
                )
                assert bundle.digest == entry.digest
                assert bundle.manifest.release_counter >= self.release - 1

    def roll_out(self, kills: int) -> None:
        """One release to everybody, kills on its way, and everything as it should be at its end."""
        self.release += 1
        number = self.release
        bundle = make_bundle(
            self.fleet.keys, version=f"v{number}", release_counter=number, monitor_hash=MonitorConfig().hash()
        )
        digest = self.fleet.release(bundle)
        with self.fleet.client() as client:
            info = resolve(client.releases(), digest)
        self._interrupted.clear()
        before = {robot: self.lines[robot].to_robot_bytes for robot in ROBOTS}
        timing = {"soak_s": 0.2, "deadline_s": 1200.0, "silence_s": 120.0}
        first = Stage(name="canary", kind="canary", who=Who(robots=ROBOTS[:1]), **timing)
        rest = Stage(name="rest", kind="full", who=Who(rest=True), **timing)
        release = Release(digest, info.policy_name, info.version, info.release_counter, info.size_bytes)
        self.fleet.start_plan(make_plan(release, first, rest), supersede=True)
        for _ in range(kills):
            self.kill()
            if self.draw.random() < 0.3:
                self.cut()
        wait_for(self._finished, f"the end of rollout {number} (seed {SEED})", END_MAX_S)
        self._check(digest, len(bundle), before)

    def _finished(self) -> bool:
        try:
            view: RolloutView = self.view()
        except HubError:
            return False
        assert view.state in ("running", "finished"), (view.reason, view.robots)
        return view.state == "finished" and {robot.state for robot in view.robots} == {"soaked"}

    def view(self) -> RolloutView:
        """The newest rollout."""
        with self.fleet.client() as client:
            return client.rollout()

    def _check(self, digest: str, size: int, before: dict[str, int]) -> None:
        number = self.release
        for robot in ROBOTS:
            state = self.fleet.state(robot)
            active = SlotStore(state).active()
            assert active is not None
            assert active.digest == digest
            assert FloorStore(state).read().counters == {"routing": number}
            wait_for(
                lambda robot=robot: self.drives(robot)[-1:] == [f"v{number}"], f"{robot} drives v{number}"
            )
            assert number == 1 or "rules" not in self.drives(robot)[self.started[robot] :]
            more = self.lines[robot].to_robot_bytes - before[robot] - size
            cuts = self._interrupted[robot]
            assert more <= CHECK_BYTES_MAX + cuts * (DOWNLOAD_CHUNK_BYTES + CHECK_BYTES_MAX), (
                robot,
                more,
                cuts,
            )
            self.again_bytes.append(more)
        self.started = {robot: len(self.drives(robot)) for robot in ROBOTS}
        entries = read_entries(self.fleet.folder / "data")
        verify_chain(entries)
        told = Counter(
            (body["type"], body.get("robot", body.get("stage")))
            for body in (json.loads(entry.body) for entry in entries if entry.rollout == number)
        )
        assert all(told["Ordered", robot] == 1 for robot in ROBOTS)
        assert [told["StagePassed", stage] for stage in (0, 1)] == [1, 1]

    started: dict[str, int] = dict.fromkeys(ROBOTS, 0)

    def drives(self, robot: str) -> list[str]:
        """Which policies its control has said to drive, oldest first."""
        return [line.split()[1] for line in (self.fleet.folder / f"{robot}.drives").read_text().splitlines()]

    def report(self, took_s: float) -> str:
        """What was done."""
        for path in self.fleet.folder.glob("die-*.did"):
            self.writes[path.read_text()] += 1
        again = sorted(self.again_bytes)
        return (
            f"\n{self.killed.total()} kills {dict(self.killed)}, {self.writes.total()} of them before a write "
            f"({len(self.writes)} different), {self.cuts} cuts, {self.release} rollouts, all finished, no robot ever "
            f"without a policy that runs, audit chain whole; beyond the bundle went to a robot: median "
            f"{again[len(again) // 2] / 1024:.0f} KiB, at most {again[-1] / 1024:.0f} KiB; {took_s:.0f} s, seed {SEED}"
        )

    def close(self) -> None:
        """End everything."""
        for control in self.controls.values():
            end(control)
        self.fleet.close()
        for line in self.lines.values():
            line.close()


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait()


@pytest.mark.slow
@pytest.mark.timeout(2 * END_MAX_S + 60.0 * KILLS)
def test_random_kills_leave_every_robot_with_a_policy_and_every_rollout_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.fleet.POLICY_ONNX", large_policy())
    campaign = Campaign(Fleet(tmp_path, make_keys(tmp_path / "keys")))
    began_s = time.monotonic()
    try:
        campaign.start()
        campaign.roll_out(0)
        while (left := TALLY.left) > 0:
            killed, cuts = campaign.killed.copy(), campaign.cuts
            campaign.roll_out(min(left, KILLS_A_ROLLOUT))
            new = campaign.killed - killed
            TALLY.add(new.total(), **new, cuts=campaign.cuts - cuts, seed=SEED)
            print(TALLY.text(), flush=True)
        print(campaign.report(time.monotonic() - began_s))
    except BaseException as error:
        TALLY.fail(error)
        raise
    finally:
        campaign.close()
