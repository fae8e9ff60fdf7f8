"""A small fleet for tests: keys, bundles, a hub and comms as real processes, and a stand-in for control."""

import contextlib
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from securesystemslib.signer import Signer

from contracts.bundle import Floats
from contracts.decision import DECISION_DTYPE
from contracts.keyring import ACCESS_FILE
from contracts.manifest import CommandLimits, Manifest, RobotModelRef
from contracts.messages import Order, RolloutView
from contracts.observation import OBSERVATION_SIZE, ROUTING_LAYOUT
from contracts.papers import Act
from contracts.plan import Plan, Release, Stage, Who, encode_plan
from contracts.ring import RingReader, RingWriter
from contracts.robot import AMR_SMALL
from edge_agent.update.mailbox import Candidate, ControlMailbox
from edge_agent.update.slots import BundleFacts
from fleet_hub.catalogue.catalogue import resolve
from fleet_hub.client import HubClient
from outrider.verbs._plans import quick_plan
from outrider.verbs.keys import init, person
from tests.support.waiting import WAIT_MAX_S, wait_for
from trainer.release.keys import load_signer
from trainer.release.pack import pack
from trainer.release.papers import person_signer, sign_act, sign_approval

POLICY_ONNX = (Path(__file__).parent / "policy.onnx").read_bytes()
ANSWER_MAX_S = 30.0
PORT_MIN, PORT_SPREAD = 20_000, 16
"""Below those that the kernel gives to outgoing connections, which might take one between here and its use."""


def large_policy(size: int = 2_000_000) -> bytes:
    """The small policy with a doc string that long: still runs."""
    plain = (Path(__file__).parent / "policy.onnx").read_bytes()
    filler, length = b"x" * size, b""
    while size:
        length += bytes([(size & 0x7F) | (0x80 if size > 0x7F else 0)])
        size >>= 7
    return plain + b"\x32" + length + filler  # ModelProto.doc_string


PEOPLE = {"anna": "approver", "boris": "releaser", "vera": "viewer"}


def make_keys(folder: Path, robots: str = "robot_1,robot_2") -> Path:
    """Keys of a whole fleet in ``folder``, and of PEOPLE."""
    init(folder, robots)
    for name, roles in PEOPLE.items():
        person(name, roles, folder)
    return folder


def approve(keys: Path, plan_digest: str, *people: str) -> tuple[bytes, ...]:
    """Signatures of these people under a plan."""
    return tuple(sign_approval(plan_digest, name, "a test", person_signer(keys, name)) for name in people)


def act(keys: Path, action: str, plan_digest: str, person: str = "boris", **fields: Any) -> bytes:
    """Something that a person wants done to a rollout, signed."""
    values = {"action": action, "person": person, "why": "a test", "signed_wall_ns": time.time_ns()}
    wanted = msgspec.convert(values | {"plan_digest": plan_digest} | fields, Act)
    return sign_act(wanted, person_signer(keys, person))


def golden(rows: int = 8) -> tuple[Floats, Floats]:
    """Observations float32[rows, 83] and what ``policy.onnx`` answers to them."""
    import onnxruntime

    observations = np.random.default_rng(1).normal(0.0, 1.0, (rows, OBSERVATION_SIZE)).astype(np.float32)
    session = onnxruntime.InferenceSession(POLICY_ONNX, providers=["CPUExecutionProvider"])
    return observations, session.run(["command"], {"observation": observations})[0]


def make_manifest(**changes: Any) -> Manifest:
    """A good manifest with some fields changed."""
    manifest = Manifest(
        policy_name="routing",
        version="v1",
        release_counter=1,
        observation_layout_hash=ROUTING_LAYOUT.hash(),
        control_rate_hz=20.0,
        history_interval_s=ROUTING_LAYOUT.history_interval_s,
        robot_models=(RobotModelRef(AMR_SMALL.name, AMR_SMALL.hash()),),
        limits=CommandLimits(1.2, 1.8, 0.3),
        monitor_hash="ab" * 32,
        training_run_digest="cd" * 32,
        created="training run of a test",
        parity_max_abs=1e-7,
    )
    return msgspec.structs.replace(manifest, **changes)


def make_bundle(keys: Path | Signer, **changes: Any) -> bytes:
    """A signed bundle; ``changes`` go to the manifest."""
    signer = load_signer(keys) if isinstance(keys, Path) else keys
    return pack(make_manifest(**changes), POLICY_ONNX, *golden(), [signer])


def make_plan(release: Release, *stages: Stage, **fields: Any) -> Plan:
    """A plan issued now; without stages, one that takes everybody."""
    now = datetime.now(UTC)
    everybody = Stage(name="all", kind="full", who=Who(rest=True), soak_s=0.1, deadline_s=300.0)
    values: dict[str, Any] = {"name": "a-plan", "issued": now, "expires": now + timedelta(hours=1)}
    return Plan(release=release, stages=stages or (everybody,), **(values | fields))


def make_order(keys: Path, plan: Plan, stage: int = 0, action: str = "run", **changes: Any) -> Order:
    """An order with good papers; ``changes`` go to its fields."""
    data, digest = encode_plan(plan)
    access = (keys / "hub" / ACCESS_FILE).read_bytes()
    approvals = approve(keys, digest, "anna", "boris")
    order = Order(1, stage, action, plan.release.digest, data, approvals, access)
    return msgspec.structs.replace(order, **changes)


def facts_of(digest: str, counter: int = 1) -> BundleFacts:
    """Facts of a checked bundle."""
    return BundleFacts(digest, "routing", f"v{counter}", counter)


def free_port() -> int:
    """A TCP port that nobody uses at the moment, and that no other worker of the suite is given."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", f"gw{os.getpid()}").removeprefix("gw")
    share = range(PORT_MIN + int(worker) % PORT_SPREAD, _ephemeral_min(), PORT_SPREAD)
    while True:
        port = random.SystemRandom().choice(share)
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port


def _ephemeral_min() -> int:
    """The first of the kernel's own."""
    return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])


@dataclass
class Fleet:
    """Processes of one test; everything ends with ``close``."""

    folder: Path
    keys: Path
    port: int = field(default_factory=free_port)
    hub_process: subprocess.Popen[str] | None = None
    comms: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    rings: dict[str, RingWriter] = field(default_factory=dict)
    prefix: str = field(default_factory=lambda: secrets.token_hex(4))
    pushed: int = 0
    answer_max_s: float = ANSWER_MAX_S
    """How long an operator waits for the hub."""

    @property
    def address(self) -> str:
        """The hub's address."""
        return f"tcp://127.0.0.1:{self.port}"

    def start_hub(self, *options: str, environment: dict[str, str] | None = None) -> None:
        """Start the hub and wait until it listens; without options, without its ingest."""
        command = [sys.executable, "-m", "outrider.cli", "hub", "run", "--data", str(self.folder / "data")]
        command += ["--keys", str(self.keys), "--listen", self.address, *(options or ("--no-ingest",))]
        self.hub_process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.hub_process.stdout is not None
        line = self.hub_process.stdout.readline()
        assert environment or "hub listens" in line, line  # with another environment it may end before

    def start_standby(self, *options: str) -> None:
        """Start a hub beside one that serves, and wait until it says that it stands by."""
        command = [sys.executable, "-m", "outrider.cli", "hub", "run", "--data", str(self.folder / "data")]
        command += ["--keys", str(self.keys), "--listen", self.address, *options]
        self.hub_process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.read_hub_until("hub stands by")

    def read_hub_until(self, text: str) -> None:
        """Read what the hub says until that is in it."""
        assert self.hub_process is not None
        assert self.hub_process.stdout is not None
        said = []
        for line in self.hub_process.stdout:
            said.append(line)
            if text in line:
                return
        raise AssertionError(f"the hub ended without {text!r}, after {said}")

    def wait_until_serving(self) -> None:
        """Wait for a hub that stood by."""
        self.read_hub_until("hub listens")

    def kill_hub(self) -> None:
        """kill -9."""
        assert self.hub_process is not None
        _end(self.hub_process, signal.SIGKILL)

    def state(self, robot: str = "robot_1") -> Path:
        """The robot's state folder."""
        return self.folder / robot

    def ring(self, robot: str = "robot_1") -> RingWriter:
        """Control's end of the robot's ring."""
        if robot not in self.rings:
            self.rings[robot] = RingWriter(f"{self.prefix}-{robot}")
        return self.rings[robot]

    def ring_waiting(self, robot: str = "robot_1") -> int:
        """Decisions that comms has not taken out of the ring."""
        reader = RingReader(f"{self.prefix}-{robot}")
        waiting = reader.waiting
        reader.close()
        return waiting

    def start_comms(
        self,
        robot: str = "robot_1",
        keys: Path | None = None,
        address: str = "",
        environment: dict[str, str] | None = None,
        ring: str = "",
        **fields: str | float,
    ) -> None:
        """Start a robot's comms process; ``ring``: another fleet's prefix; ``fields``: further settings."""
        config = self.folder / f"{robot}.json"
        values = {
            "robot_id": robot,
            "state_dir": str(self.state(robot)),
            "hub_endpoint": address or self.address,
        }
        own_keys = keys or self.keys / "robots" / robot
        values |= {"keys_dir": str(own_keys), "ring_name": f"{ring or self.prefix}-{robot}"}
        config.write_text(json.dumps(values | fields))
        command = [sys.executable, "-m", "edge_agent.comms", "--config", str(config)]
        self.comms[robot] = subprocess.Popen(command, text=True, env=environment)

    def end_comms(self, robot: str = "robot_1", number: int = signal.SIGTERM) -> int:
        """End comms; returns its exit code."""
        return _end(self.comms.pop(robot), number)

    def push(self, count: int, robot: str = "robot_1", pause_s: float = 0.0) -> None:
        """Drive ``count`` ticks: decisions numbered on, with the clock's times."""
        record = np.zeros(1, DECISION_DTYPE)
        for _ in range(count):
            self.pushed += 1
            record["tick"], record["mono_ns"], record["wall_ns"] = (
                self.pushed,
                time.monotonic_ns(),
                time.time_ns(),
            )
            assert self.ring(robot).push(record)
            if pause_s:
                time.sleep(pause_s)

    def client(self) -> HubClient:
        """An operator."""
        return HubClient(self.address, self.keys, self.answer_max_s)

    def release(self, bundle: bytes) -> str:
        """Register a bundle; returns its digest."""
        path = self.folder / "upload.outrider"
        path.write_bytes(bundle)
        with self.client() as client:
            return client.release(path).digest

    def start_plan(self, plan: Plan, supersede: bool = False) -> RolloutView:
        """Have two people approve a plan, and one of them start it."""
        data, digest = encode_plan(plan)
        with self.client() as client:
            for paper in approve(self.keys, digest, "anna", "boris"):
                client.approve(data, paper)
            return client.act(act(self.keys, "start", digest, supersede=supersede), data)

    def start_rollout(self, release: str, *robots: str) -> RolloutView:
        """A quick rollout to these robots, or to all."""
        with self.client() as client:
            plan = quick_plan(resolve(client.releases(), release), robots)
        return self.start_plan(plan, supersede=True)

    def rollout_state(self, robot: str = "robot_1") -> tuple[str, str]:
        """State and reason of a robot in the newest rollout."""
        with self.client() as client:
            found = {entry.robot: entry for entry in client.rollout().robots}[robot]
        return found.state, found.reason

    def mailbox(self, robot: str = "robot_1") -> ControlMailbox:
        """Control's end of the robot's mailbox."""
        return ControlMailbox(self.state(robot))

    def answer_candidate(self, accepted: bool, reason: str = "", robot: str = "robot_1") -> Candidate:
        """Be control: wait for a candidate and answer it."""
        mailbox = self.mailbox(robot)
        candidate: Candidate = wait_for(mailbox.poll, "a candidate for control")
        mailbox.answer(candidate, accepted, reason)
        return candidate

    def close(self) -> None:
        """End every process this fleet started."""
        for process in [*self.comms.values(), self.hub_process]:
            if process is not None and process.poll() is None:
                _end(process, signal.SIGKILL)
        if self.hub_process is not None and self.hub_process.stdout:
            self.hub_process.stdout.close()
        for ring in self.rings.values():
            ring.unlink()
            ring.close()


def _end(process: subprocess.Popen[str], number: int) -> int:
    process.send_signal(number)  # which one that has ended does not mind
    code = process.wait(timeout=WAIT_MAX_S)
    if process.stdout:
        process.stdout.close()
    return code
