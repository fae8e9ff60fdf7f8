"""The hub's rollouts without sockets, on a real database and real papers, with a clock that a test moves."""

import itertools
from pathlib import Path
from typing import Any

import msgspec

from contracts.canonical import canonical_json, digest_hex
from contracts.keyring import TRUSTED_FILE
from contracts.messages import PlanView, ReleaseInfo, RolloutReport, RolloutView
from contracts.papers import Act, Witness
from contracts.plan import Plan, Release, RobotCard, encode_plan
from contracts.provenance import ReleaseKey, TrustedKeys
from edge_agent.update.witness import sign_witness
from fleet_hub.catalogue.catalogue import Catalogue
from fleet_hub.people import People
from fleet_hub.rollout.evidence import EvidenceRoom
from fleet_hub.rollout.rollouts import Rollouts
from fleet_hub.rollout.trip_store import TripStore
from fleet_hub.rollout.trips import Trip
from fleet_hub.store.audit import AuditLog
from fleet_hub.store.database import Database
from fleet_hub.store.folder import DataFolder
from tests.support.fleet import approve
from trainer.release.keys import RELEASE_KEY_FILE, create_release_key, load_signer
from trainer.release.papers import person_signer, sign_act, sign_card

NS = 1_000_000_000
FIELDS = ("delivery_time_s", "aborted", "contacts", "near_misses", "interventions", "slow_ticks", "fallbacks")


class HubRoom:
    """Rollouts of a fleet of ``robots`` on ``folder``; ``reopen`` is what a hub does after a kill."""

    def __init__(
        self, folder: Path, keys: Path, robots: tuple[str, ...], sites: dict[str, str] | None = None
    ) -> None:
        self.folder, self.keys, self.robots = folder, keys, robots
        self.now_ns = 1_800_000_000 * NS
        self._seqs = itertools.count(1)
        self._robot_keys = folder / "robot_keys"
        self._robot_keys.mkdir(parents=True)
        self.trusted = TrustedKeys.load(keys / TRUSTED_FILE)
        signer = load_signer(keys / RELEASE_KEY_FILE)
        robot_key: ReleaseKey = create_release_key(self._robot_keys / "robot.pem")
        self._cards = {}
        for name in robots:
            card = RobotCard(name, robot_key.public_hex, (sites or {}).get(name, ""))
            self._cards[name] = (sign_card(card, signer), card)
        self.online = set(robots)
        self._open()

    def _open(self) -> None:
        self._data = DataFolder(self.folder / "data")
        self.database = Database(self._data.database)
        clock = lambda: self.now_ns  # noqa: E731
        self.audit = AuditLog(self.database, clock)
        self.catalogue = Catalogue(self.database, self._data, self.trusted, clock)
        self.trips = TripStore(self.database, self._data.telemetry)
        people = People(self.keys / "hub", self.trusted)
        evidence = EvidenceRoom(self.trips)
        self.rollouts = Rollouts(
            self.database, self.audit, self.catalogue, people, self._cards, evidence, clock
        )

    def reopen(self) -> None:
        """Forget everything that is not on disk."""
        self.close()
        self._open()

    def close(self) -> None:
        """Close the database."""
        self.database.close()
        self._data.close()

    def release(self, bundle: bytes) -> Release:
        """Put a bundle into the catalogue."""
        digest = digest_hex(bundle)
        self.catalogue.write_chunk(digest, 0, bundle)
        info: ReleaseInfo = self.catalogue.commit_upload(digest)
        return Release(digest, info.policy_name, info.version, info.release_counter, info.size_bytes)

    def approve(self, plan: Plan, *people: str) -> PlanView:
        """Signatures of these people."""
        data, digest = encode_plan(plan)
        for paper in approve(self.keys, digest, *people):
            view = self.rollouts.approve(data, paper)
        return view

    def act(self, action: str, plan: Plan, person: str = "boris", **fields: Any) -> RolloutView:
        """Something a person does at the room's time."""
        data, digest = encode_plan(plan)
        values = {"action": action, "person": person, "why": "a test", "signed_wall_ns": self.now_ns}
        signed = msgspec.convert(values | {"plan_digest": digest} | fields, Act)
        return self.rollouts.act(sign_act(signed, person_signer(self.keys, person)), data)

    def start(self, plan: Plan, **fields: Any) -> int:
        """Approve and start; the rollout's number."""
        self.approve(plan, "anna", "boris")
        return self.act("start", plan, **fields).rollout

    def pass_s(self, seconds: float) -> None:
        """Let time pass, a step at its end."""
        self.now_ns += int(seconds * NS)
        self.step()

    def step(self) -> bool:
        """One step; robots online have just been heard."""
        heard = {name: self.now_ns if name in self.online else 0 for name in self.robots}
        return self.rollouts.step(heard, frozenset(self.online))

    def told(self, robot: str) -> str:
        """What the robot is told: run, shadow, revert or nothing."""
        told = self.rollouts.told_for(robot)
        return told[2] if told else ""

    def report(self, robot: str, state: str, code: str = "", reason: str = "") -> None:
        """The robot answers what it was told last."""
        told = self.rollouts.told_for(robot)
        assert told is not None, f"{robot} was told nothing"
        order = self.rollouts.order(told)
        assert order is not None
        paper = b""
        if state in ("soaked", "shadowed"):
            seen = Witness(digest_hex(order.plan), order.stage, robot, order.digest)
            paper = sign_witness(seen, self._robot_keys)
        self.rollouts.report(
            robot, RolloutReport(order.rollout, order.stage, order.digest, state, code, reason, paper)
        )

    def states(self, rollout: int = 0) -> dict[str, str]:
        """State of each robot."""
        return {row.robot: row.state for row in self.rollouts.view(rollout).robots}

    def add_trips(self, robot: str, began_ns: int, *trips: dict[str, float]) -> None:
        """Trips of 15 s one after the other; figures that are not given are good ones."""
        made = []
        for number, figures in enumerate(trips):
            values = dict.fromkeys(FIELDS, 0.0) | {"delivery_time_s": 15.0} | figures
            seq = next(self._seqs)
            made.append(Trip(seq, seq, began_ns + number * 15 * NS, "", **values))
        self.trips.keep(robot, "log", made)


def fingerprint(view: RolloutView) -> bytes:
    """Everything a view says, to be compared."""
    return canonical_json(msgspec.to_builtins(view))
