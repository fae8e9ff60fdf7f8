"""A thousand robots take a new policy: how long, in one stage and in four, and what it costs the hub.

``python -m benchmarks.update_fleet [--quick]``. Prints JSON lines.

A real ``outrider hub run`` and the agents' own update code, many agents to a process: ``HubLink`` (CURVE), ``Updater``
(papers, staging, slots, mailbox, reports, witnesses) and ``check`` (the bundle's signatures and form, both TUF
repositories through python-tuf's client, golden vectors in onnxruntime). Two things differ from a robot: the check
runs in a thread, since a thousand interpreters on one machine would be measured instead, and control is a stand-in that
takes every candidate. Every fsync is made, all of them to one disk.

Timed by the hub's audit log: from the start of the rollout to its end, when every robot has reported that it soaked
(0.1 s). The reference: a bare ROUTER sends the same bytes in the same chunks to as many DEALERs over
CURVE, connected before, in the same run, before and after.
"""

import contextlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks._report import peak_mb, quick_asked, report
from benchmarks._update_agents import ANSWER_MAX_S, SPAWN, WAIT_MAX_S, WORKERS, bare_s, open_files, work
from contracts.bundle import Floats
from contracts.keyring import CARDS_FOLDER
from contracts.messages import (
    FetchFile,
    FileChunk,
    Hello,
    encode,
)
from contracts.observation import OBSERVATION_SIZE, ROUTING_LAYOUT
from contracts.plan import Plan, Release, Stage, Who, encode_plan
from contracts.robot import AMR_SMALL
from contracts.trust import Code, TrustError
from edge_agent.update.fetchers import AskingFetcher
from edge_agent.update.trust import RobotTrust
from edge_agent.uplink.link import HubLink
from fleet_hub.client import HubClient
from fleet_hub.rollout import events as ev
from fleet_hub.store.audit import read_entries
from tests.support.fleet import PEOPLE, act, approve, free_port, make_manifest, make_plan
from trainer.release.keys import load_signer
from trainer.release.pack import pack

AGENTS, AGENTS_QUICK = 1000, 60
HIDDEN = 468
"""Hidden units of a policy whose bundle has 1 MB."""
GOLDEN_ROWS = 32
POLLS = 40
SPARE = "spare"
SOAK_S = 0.1
IDLE_S = 3.0
STAGE: dict[str, Any] = {"soak_s": SOAK_S, "deadline_s": WAIT_MAX_S, "silence_s": 120.0, "at_once": 200}


def make_policy() -> tuple[bytes, tuple[Floats, Floats]]:
    """A network of 1 MB with random weights, and golden vectors of it."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(7)
    weights = {
        "w1": rng.normal(0.0, 0.1, (OBSERVATION_SIZE, HIDDEN)),
        "w2": rng.normal(0.0, 0.05, (HIDDEN, HIDDEN)),
        "w3": rng.normal(0.0, 0.1, (HIDDEN, 2)),
        "scale": np.array([0.7, 1.8]),
        "shift": np.array([0.45, 0.0]),
    }
    nodes = [
        helper.make_node("MatMul", ["observation", "w1"], ["h1"]),
        helper.make_node("Tanh", ["h1"], ["a1"]),
        helper.make_node("MatMul", ["a1", "w2"], ["h2"]),
        helper.make_node("Tanh", ["h2"], ["a2"]),
        helper.make_node("MatMul", ["a2", "w3"], ["h3"]),
        helper.make_node("Tanh", ["h3"], ["a3"]),
        helper.make_node("Mul", ["a3", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], ["command"]),
    ]
    graph = helper.make_graph(
        nodes,
        "policy",
        [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["rows", OBSERVATION_SIZE])],
        [helper.make_tensor_value_info("command", TensorProto.FLOAT, ["rows", 2])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data: bytes = model.SerializeToString()
    assert onnx.load_from_string(data).graph.name == "policy"
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    observations = rng.normal(0.0, 1.0, (GOLDEN_ROWS, OBSERVATION_SIZE)).astype(np.float32)
    rows = [session.run(["command"], {"observation": row[None, :]})[0] for row in observations]
    return data, (observations, np.concatenate(rows))


def make_keys(folder: Path, names: list[str]) -> None:
    """Keys of the fleet, of its people, and of a robot that is in no plan."""
    from outrider.verbs.keys import init, person

    with contextlib.redirect_stdout(sys.stderr):
        init(folder, ",".join([*names, SPARE]))
        for name, roles in PEOPLE.items():
            person(name, roles, folder)
    (folder / "hub" / CARDS_FOLDER / f"{SPARE}.dsse.json").unlink()


def start_hub(data: Path, keys: Path, endpoint: str) -> "subprocess.Popen[str]":
    """A real hub; returns when it listens."""
    command = [sys.executable, "-m", "outrider.cli", "hub", "run", "--data", str(data), "--keys", str(keys)]
    command += ["--listen", endpoint, "--no-ingest"]
    hub = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert hub.stdout is not None
    line = hub.stdout.readline()
    assert "hub listens" in line, line
    return hub


def roll_out(client: HubClient, keys: Path, data: Path, plan: Plan) -> float:
    """Seconds from Started to Finished in the audit log, after two people approved and one started it."""
    encoded, digest = encode_plan(plan)
    for paper in approve(keys, digest, "anna", "boris"):
        client.approve(encoded, paper)
    number = client.act(act(keys, "start", digest, supersede=True), encoded).rollout
    end_s = time.monotonic() + WAIT_MAX_S
    while time.monotonic() < end_s:
        time.sleep(0.5)
        found = {
            type(event): entry.wall_ns
            for entry in read_entries(data)
            if entry.rollout == number
            for event in [ev.decode_entry(entry.body)]
            if isinstance(event, ev.Started | ev.Finished | ev.Stopped)
        }
        assert ev.Stopped not in found, client.rollout(number).reason
        if ev.Finished in found:
            return (found[ev.Finished] - found[ev.Started]) / 1e9
    raise AssertionError(f"not done within {WAIT_MAX_S} s: {client.rollout(number).stages}")


def four_stages(names: list[str]) -> tuple[Stage, ...]:
    """Shadow on 1 %, canary on 5 %, a quarter, all the rest."""
    first, second, third = len(names) // 100 + 1, len(names) // 20 + 1, len(names) // 4
    return (
        Stage(name="shadow", kind="shadow", who=Who(robots=tuple(names[:first])), **STAGE),
        Stage(name="canary", kind="canary", who=Who(robots=tuple(names[:second])), **STAGE),
        Stage(name="cohort", kind="cohort", who=Who(robots=tuple(names[second:third])), **STAGE),
        Stage(name="full", kind="full", who=Who(rest=True), **STAGE),
    )


class LinkFetcher(AskingFetcher):
    """Asks the hub over a link of its own, and counts what is said."""

    def __init__(self, link: HubLink) -> None:
        super().__init__()
        self._link, self.talked_bytes = link, 0

    def ask(self, question: FetchFile) -> FileChunk:
        """One question, one answer."""
        assert self._link.send(question)
        self.talked_bytes += len(encode(question))
        end_s = time.monotonic() + ANSWER_MAX_S
        while time.monotonic() < end_s:
            self._link.wait(100)
            for message in self._link.receive(time.monotonic_ns()):
                if isinstance(message, FileChunk):
                    self.talked_bytes += len(encode(message))
                    return message
        raise TrustError(Code.UNREACHABLE, "no answer")


def measure_polls(endpoint: str, keys: Path, state: Path) -> None:
    """Both repositories refreshed by a robot for which nothing is new."""
    own = keys / "robots" / SPARE
    hello = Hello(SPARE, "ab" * 16, "cd" * 16, 0, AMR_SMALL.name, ROUTING_LAYOUT.hash(), "", "")
    link = HubLink(endpoint, own, lambda: hello, 1)
    while not link.online:
        link.wait(20)
        link.receive(time.monotonic_ns())
        link.step(time.monotonic_ns(), 0)
    fetcher = LinkFetcher(link)
    trust = RobotTrust(state, own, SPARE, AMR_SMALL, fetcher)
    assert trust.refresh()
    took_ms, sizes = [], []
    for _ in range(POLLS):
        fetcher.talked_bytes = 0
        began_ns = time.perf_counter_ns()
        assert not trust.refresh()
        took_ms.append((time.perf_counter_ns() - began_ns) / 1e6)
        sizes.append(fetcher.talked_bytes)
    link.close()
    about = f"both repositories refreshed over CURVE, nothing new; median of {POLLS}, {min(took_ms):.1f} to "
    report("update.poll_ms", statistics.median(took_ms), "ms", "lower", None, f"{about}{max(took_ms):.1f}")
    about = "messages of a no-change refresh of both repositories, both ways"
    report("update.poll_bytes", statistics.median(sizes), "bytes", "lower", None, about)


class Workers:
    """The processes with the agents."""

    def __init__(self, names: list[str], endpoint: str, keys: Path, state: Path) -> None:
        self.out: Queue[Any] = SPAWN.Queue()
        self._orders: list[Queue[str]] = [SPAWN.Queue() for _ in range(WORKERS)]
        self._processes = [
            SPAWN.Process(target=work, args=(names[n::WORKERS], endpoint, keys, state, self.out, orders))
            for n, orders in enumerate(self._orders)
        ]
        for process in self._processes:
            process.start()
        for _ in self._processes:
            assert self.out.get(timeout=WAIT_MAX_S) == "online"

    def all_run(self, digest: str) -> list[tuple[int, int]]:
        """Every agent's active slot is this bundle; TUF and other bytes of each since last asked."""
        for orders in self._orders:
            orders.put(digest)
        talked = []
        for _ in self._processes:
            wrong, other = self.out.get(timeout=WAIT_MAX_S)
            assert not wrong, f"{len(wrong)} agents do not run {digest[:12]}, first {wrong[0]}"
            talked += other
        return talked

    def cpu_s(self) -> float:
        """Seconds of CPU that they have had."""
        times = [psutil.Process(process.pid).cpu_times() for process in self._processes]
        return float(sum(one.user + one.system for one in times))

    def end(self) -> None:
        """End the processes."""
        for orders in self._orders:
            orders.put("")
        for process in self._processes:
            process.join(timeout=20.0)
            if process.is_alive():
                process.kill()


class Costs:
    """What the hub's process has used between two looks."""

    def __init__(self, hub: "subprocess.Popen[str]") -> None:
        self._process = psutil.Process(hub.pid)
        self._cpu_s, self._rss = 0.0, 0
        self.look()

    def look(self) -> tuple[float, float]:
        """CPU milliseconds and resident kilobytes since the last look."""
        times, rss = self._process.cpu_times(), self._process.memory_info().rss
        used = (times.user + times.system - self._cpu_s) * 1000, (rss - self._rss) / 1024
        self._cpu_s, self._rss = times.user + times.system, rss
        return used


def connect(names: list[str], endpoint: str, keys: Path, folder: Path, hub: Costs) -> Workers:
    """All agents online; what a session costs the hub."""
    workers = Workers(names, endpoint, keys, folder)
    about = f"{len(names)} robots connected, {hub.look()[1] / len(names):.0f} KB resident a robot"
    time.sleep(IDLE_S)
    idle_ms = hub.look()[0] / IDLE_S / len(names)
    about = f"{about}; a heartbeat every two seconds and nothing to do, over {IDLE_S:g} s"
    report("update.hub_idle_cpu_ms", idle_ms, "ms/s", "lower", None, about)
    return workers


def measure_one_stage(site: "Site", bundle: bytes, release: Release, hub: Costs) -> None:
    """Bare, all robots at once, bare."""
    before_s, before_cpu_s = bare_s(len(site.names), bundle)
    stage = Stage(name="all", kind="full", who=Who(rest=True), **STAGE)
    agents_s = site.workers.cpu_s()
    hub.look()
    one_s = site.roll_out(make_plan(release, stage))
    update_ms = hub.look()[0] / len(site.names)
    agent_ms = (site.workers.cpu_s() - agents_s) * 1000 / len(site.names)
    talked = site.workers.all_run(release.digest)
    after_s, after_cpu_s = bare_s(len(site.names), bundle)
    plain_s = statistics.mean((before_s, after_s))
    fleet = f"{len(site.names)} agents in {WORKERS} processes, a bundle of {len(bundle) / 1e6:.2f} MB"
    about = f"{fleet}; reference: bare CURVE, {before_s:.1f} s before and {after_s:.1f} s after"
    report("update.one_stage_s", one_s, "s", "lower", plain_s, about)
    report("update.vs_bare_curve", one_s / plain_s, "times", "lower", None, about)
    about = f"{fleet}; all threads of the hub, from the order to soaked"
    report("update.hub_cpu_ms", update_ms, "ms/robot", "lower", None, about)
    about = f"{fleet}; link, updater, check, control's stand-in"
    report("update.agent_cpu_ms", agent_ms, "ms/robot", "lower", None, about)
    bare_ms = statistics.mean((before_cpu_s, after_cpu_s)) * 1000 / len(site.names)
    about = (
        f"{fleet}; CPU of hub and agents over that of the bare transfer, which a busy machine changes little"
    )
    report("update.cpu_ms", update_ms + agent_ms, "ms/robot", "lower", bare_ms, about)
    trust, other = (statistics.mean(sizes) for sizes in zip(*talked, strict=True))
    about = (
        f"TUF metadata of both repositories and the requests for it, over the bundle: {trust:.0f} bytes; with order, "
        f"papers, chunk headers, reports and heartbeats {trust + other:.0f} bytes, "
        f"{(trust + other) / len(bundle):.4f}"
    )
    report("update.overhead_fraction", trust / len(bundle), "share", "lower", None, about)


@dataclass(frozen=True)
class Site:
    """A running fleet."""

    names: list[str]
    keys: Path
    data: Path
    client: HubClient
    workers: Workers

    def roll_out(self, plan: Plan) -> float:
        """Seconds from Started to Finished in the audit log."""
        return roll_out(self.client, self.keys, self.data, plan)

    def release(self, path: Path, bundle: bytes) -> Release:
        """Sign and register a bundle."""
        path.write_bytes(bundle)
        info = self.client.release(path)
        return Release(info.digest, info.policy_name, info.version, info.release_counter, info.size_bytes)


def measure(folder: Path, agents: int) -> None:
    """One stage, four stages, polls, and what the hub used."""
    keys, data, endpoint = folder / "keys", folder / "data", f"tcp://127.0.0.1:{free_port()}"
    names = [f"robot_{number:04}" for number in range(agents)]
    make_keys(keys, names)
    policy, golden = make_policy()
    first, second = (
        pack(make_manifest(version=f"v{n}", release_counter=n), policy, *golden, [load_signer(keys)])
        for n in (1, 2)
    )
    hub = start_hub(data, keys, endpoint)
    costs = Costs(hub)
    workers = connect(names, endpoint, keys, folder, costs)
    try:
        with HubClient(endpoint, keys, answer_max_s=60.0) as client:
            site = Site(names, keys, data, client, workers)
            measure_one_stage(site, first, site.release(folder / "first", first), costs)
            release = site.release(folder / "second", second)
            four_s = site.roll_out(make_plan(release, *four_stages(names), name="four"))
            workers.all_run(release.digest)
            about = f"{agents} agents; shadow 1 %, canary 5 %, 25 %, all the rest; {SOAK_S:g} s of soak each"
            report("update.four_stages_s", four_s, "s", "lower", None, about)
        workers.end()
        measure_polls(endpoint, keys, folder / "spare")
        about = f"{agents} robots, resident, through both rollouts"
        report("update.hub_peak_mb", peak_mb(hub.pid), "MB", "lower", None, about)
    finally:
        workers.end()
        hub.terminate()
        hub.wait(timeout=30.0)


def main() -> None:
    """Measure and print."""
    quick = quick_asked(__doc__.splitlines()[0])
    open_files()
    work_folder = Path(tempfile.mkdtemp(prefix="outrider-update-"))
    try:
        measure(work_folder, AGENTS_QUICK if quick else AGENTS)
    finally:
        shutil.rmtree(work_folder)


if __name__ == "__main__":
    main()
