"""Honest updates, many of them: none is refused.

A real hub and a real mirror as processes, robots as in ``tests/support/honest``: of two models and three sites, half of
them behind the mirror, with clocks that are wrong by up to 50 s, ended and started again in the middle. Bundles of
different sizes; plans with one to four stages, by site, model, percentage and name, drawn anew each time; some are
superseded half way, some taken back; some robots are offline and take theirs from a stick.

``OUTRIDER_HONEST_UPDATES=10000 pytest -s tests/system/test_honest_updates.py`` is the campaign (``make campaign``);
``OUTRIDER_TALLY=FOLDER`` lets it be run in several goes (``tests/support/tally``), each with draws of its own.
"""

import multiprocessing
import os
import random
import subprocess
import sys
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.manifest import CommandLimits, RobotModelRef
from contracts.plan import Plan, Release, Stage, Who, encode_plan
from contracts.robot import AMR_SMALL, ROBOT_MODELS, TUGGER
from contracts.trust import Code
from edge_agent.update.slots import SlotStore
from edge_agent.update.stick import update_from
from fleet_hub.catalogue.catalogue import resolve
from fleet_hub.trust.stick import write_stick
from outrider.verbs.hub import mirror_keys
from outrider.verbs.keys import robot as sign_card
from tests.support.fleet import (
    Fleet,
    act,
    free_port,
    golden,
    large_policy,
    make_keys,
    make_manifest,
    make_plan,
)
from tests.support.honest import Site, work
from tests.support.tally import Tally
from tests.support.waiting import wait_for
from trainer.release.keys import load_signer
from trainer.release.pack import pack

UPDATES = int(os.environ.get("OUTRIDER_HONEST_UPDATES", "20"))
TALLY = Tally("honest_updates", UPDATES)
SEED = int(os.environ.get("OUTRIDER_SEED", "1")) + TALLY.goes_before
LARGE = UPDATES >= 1000
ROBOTS, PROCESSES = (240, 2) if LARGE else (10, 1)
LIMITS = ("speed_max_mps", "turn_rate_max_radps", "reverse_max_mps")
SITES = ("north", "south", "")
SIZES_BYTES = (1, 40_000, 300_000, 1_000_000)
ROLLOUT_MAX_S = 600.0
SPAWN = multiprocessing.get_context("spawn")
TIMING: dict[str, Any] = {"soak_s": 0.1, "deadline_s": 1200.0, "silence_s": 600.0}


class Workers:
    """The processes with the robots."""

    def __init__(self, models: dict[str, str], site: Site) -> None:
        self._pipes: list[Connection] = []
        self._processes = []
        for number in range(PROCESSES):
            near, far = SPAWN.Pipe()
            share = list(models.items())[number::PROCESSES]
            process = SPAWN.Process(target=work, args=(share, site, SEED + number, 0.5, far))
            process.start()
            self._pipes.append(near)
            self._processes.append(process)

    def tell(self, what: str, *names: str) -> list[Any]:
        """Ask all of them."""
        for pipe in self._pipes:
            pipe.send((what, *names))
        return [pipe.recv() for pipe in self._pipes]

    def close(self) -> None:
        """End them."""
        for pipe in self._pipes:
            pipe.send(("stop",))
        for process in self._processes:
            process.join(60.0)
            process.kill()


class Campaign:
    """A fleet, and what happens to it."""

    def __init__(self, folder: Path) -> None:
        self.draw = random.Random(SEED)
        self.names = [f"robot_{number}" for number in range(ROBOTS)]
        self.models = {name: (TUGGER if n % 3 == 0 else AMR_SMALL).name for n, name in enumerate(self.names)}
        keys = make_keys(folder / "keys", ",".join(self.names))
        for number, (name, model) in enumerate(self.models.items()):
            sign_card(name, SITES[number % len(SITES)], model, keys)
        mirror_keys("site", keys, robots=",".join(self.names[::2]))
        self.fleet, self._port = Fleet(folder, keys), free_port()
        self.fleet.start_hub()
        self._mirror = self._start_mirror()
        site = Site(self.fleet.address, f"tcp://127.0.0.1:{self._port}", keys, folder / "states")
        self.states = site.states
        self.workers = Workers(self.models, site)
        self.number = 0
        self.did: Counter[str] = Counter()
        self._withdrawn: set[str] = set()
        """Releases that were superseded half way: whose check comes too late is told so, rightly."""

    def _start_mirror(self) -> "subprocess.Popen[str]":
        command = [
            sys.executable,
            "-m",
            "outrider.cli",
            "hub",
            "mirror",
            "site",
            "--keys",
            str(self.fleet.keys),
        ]
        command += ["--upstream", self.fleet.address, "--data", str(self.fleet.folder / "mirror")]
        command += ["--listen", f"tcp://127.0.0.1:{self._port}"]
        mirror = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert mirror.stdout is not None
        assert "listens" in mirror.stdout.readline()
        return mirror

    def round(self) -> None:
        """One release to everybody: perhaps by a stick, perhaps superseded half way, perhaps taken back after."""
        away = self.draw.sample(self.names, 1) if self.draw.random() < 0.5 or self.number == 0 else []
        self.workers.tell("end", *away)
        plan = self._start()
        if self.draw.random() < 0.25:
            time.sleep(self.draw.uniform(0.5, 3.0))
            self.did["superseded"] += 1
            self._withdrawn.add(plan.release.digest)
            plan = self._start()
        for name in away:
            self._by_stick(name)
        self.workers.tell("start", *away)
        self._settle(plan, "soaked")
        if self.draw.random() < 0.15 and self.number > 1:
            self._take_back(plan)

    def _start(self) -> Plan:
        self.number += 1
        self.did["releases"] += 1
        refs = tuple(RobotModelRef(model.name, model.hash()) for model in ROBOT_MODELS.values())
        limits = CommandLimits(  # what both models may do
            *(min(getattr(model, name) for model in ROBOT_MODELS.values()) for name in LIMITS)
        )
        manifest = make_manifest(
            version=f"v{self.number}", release_counter=self.number, robot_models=refs, limits=limits
        )
        observations, commands = golden(64)
        tame = np.abs(commands[:, 1]) <= limits.turn_rate_max_radps
        policy = large_policy(self.draw.choice(SIZES_BYTES))
        signers = [load_signer(self.fleet.keys)]
        bundle = pack(manifest, policy, observations[tame][:8], commands[tame][:8], signers)
        digest = self.fleet.release(bundle)
        with self.fleet.client() as client:
            info = resolve(client.releases(), digest)
        release = Release(digest, info.policy_name, info.version, info.release_counter, info.size_bytes)
        plan = make_plan(release, *self._stages(), name=f"plan-{self.number}")
        self.fleet.start_plan(plan, supersede=True)
        return plan

    def _stages(self) -> tuple[Stage, ...]:
        """One to four: at least the rest drives in the end."""
        at_once = self.draw.choice((50, 200))
        timing = {**TIMING, "at_once": at_once}
        apart = [name for number, name in enumerate(self.names) if SITES[number % len(SITES)] != "south"]
        few = tuple(self.draw.sample(apart, max(1, ROBOTS // 20)))  # no robot may be in two stages that drive
        drawn = self.draw.choice(("all", "percent", "model", "site", "four"))
        self.did[f"plan by {drawn}"] += 1
        rest = Stage(name="rest", kind="full", who=Who(rest=True), **timing)
        return {
            "all": (rest,),
            "percent": (Stage(name="some", kind="cohort", who=Who(percent=30.0), **timing), rest),
            "model": (Stage(name="tuggers", kind="cohort", who=Who(models=(TUGGER.name,)), **timing), rest),
            "site": (Stage(name="north", kind="cohort", who=Who(sites=("north",)), **timing), rest),
            "four": (
                Stage(name="beside", kind="shadow", who=Who(robots=few), **timing),
                Stage(name="canary", kind="canary", who=Who(robots=few), **timing),
                Stage(name="south", kind="cohort", who=Who(sites=("south",)), **timing),
                rest,
            ),
        }[drawn]

    def _by_stick(self, name: str) -> None:
        """Write one as soon as the hub has an order for that robot, and update from it."""
        stick = self.fleet.folder / f"stick-{self.number}-{name}"

        def written() -> bool:
            self._none_refused()
            for path in (stick, stick.with_name(f".{stick.name}.new")):
                subprocess.run(["rm", "-rf", str(path)], check=True)
            with self.fleet.client() as client:
                return bool(write_stick(stick, client.file, [name])[name])

        wait_for(written, f"an order for {name}", ROLLOUT_MAX_S)
        own = self.fleet.keys / "robots" / name
        model = ROBOT_MODELS[self.models[name]]
        outcome = update_from(stick, self.states / name, own, name, model, lambda *_a, **_k: None)
        assert outcome.state == "staged", outcome
        self.did["by stick"] += 1

    def _settle(self, plan: Plan, state: str) -> None:
        """The rollout has come to its end, and nothing was refused."""
        digest = plan.release.digest

        def settled() -> bool:
            self._none_refused()
            with self.fleet.client() as client:
                view = client.rollout()
            assert view.state in ("running", "finished", "stopped", "aborted"), (view.state, view.reason)
            time.sleep(0.2)
            return {robot.state for robot in view.robots} == {state}

        wait_for(settled, f"the end of release {self.number}, seed {SEED}", ROLLOUT_MAX_S)
        for name in self.names:
            active = SlotStore(self.states / name).active()
            assert (active is not None and active.digest == digest) == (state == "soaked"), name

    def _none_refused(self) -> None:
        late = {
            f"{Code.NOT_IN_DIRECTOR}: the director does not send {digest[:12]} here"
            for digest in self._withdrawn
        }
        told = [one for _, _, refusals in self.workers.tell("tell") for one in refusals]
        wrong = [one for one in told if not any(one.endswith(words) for words in late)]
        assert not wrong, wrong
        self.did["withdrawn while checked"] = len(told)

    def _take_back(self, plan: Plan) -> None:
        """Everybody goes back to what was before."""
        _, digest = encode_plan(plan)
        with self.fleet.client() as client:
            number = client.rollout().rollout
            client.act(act(self.fleet.keys, "abort", digest, rollout=number, revert=True))
        self._settle(plan, "reverted")
        self.did["taken back"] += 1

    def updates(self) -> int:
        """How many there were: robots that came to drive with a release, each release once."""
        return sum(len(updates) for updates, _, _ in self.workers.tell("tell"))

    def report(self, took_s: float) -> str:
        """What was done."""
        told = self.workers.tell("tell")
        counts = sum((Counter(counts) for _, counts, _ in told), Counter())
        refusals = [one for _, _, refusals in told for one in refusals]
        return (
            f"\n{self.updates()} updates of {ROBOTS} robots, {len(refusals)} refused or withdrawn; {dict(self.did)}; "
            f"robots: {dict(counts)}; {took_s:.0f} s, seed {SEED}"
        )

    def close(self) -> None:
        """End everything."""
        self.workers.close()
        self._mirror.kill()
        self._mirror.wait()
        assert self._mirror.stdout is not None
        self._mirror.stdout.close()
        self.fleet.close()


@pytest.mark.slow
@pytest.mark.timeout(300.0 + UPDATES)
def test_no_honest_update_is_refused(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path)
    began_s = time.monotonic()
    try:
        counted = 0
        while TALLY.left > 0:
            campaign.round()
            updates = campaign.updates()
            TALLY.add(updates - counted, releases=campaign.number, seed=SEED)
            counted = updates
            if LARGE:
                print(campaign.report(time.monotonic() - began_s), TALLY.text(), sep="\n", flush=True)
        print(campaign.report(time.monotonic() - began_s))
        assert campaign.did["by stick"] or not campaign.number
    except BaseException as error:
        TALLY.fail(error)
        raise
    finally:
        campaign.close()
