"""The hub's trust files and a power cut at every write: no version is signed twice, and the hub comes up again.

Director files are not synced, only a ceiling of their versions is (``fleet_hub/trust/versions``). What a cut leaves is
drawn by ``tests/support/power``: names and bytes that were not synced are there, half there, or not.

``OUTRIDER_POWER_CUTS=2000 pytest -s tests/hub/test_power_cuts.py`` is the campaign (``make campaign``).
"""

import os
import random
import shutil
from collections import Counter
from pathlib import Path

from tuf.api.metadata import Metadata, Snapshot, Targets, Timestamp

from contracts.canonical import digest_hex
from contracts.messages import Order
from contracts.trust import DIRECTOR
from fleet_hub.trust.room import TrustRoom
from tests.support.fleet import make_bundle, make_order, make_plan
from tests.support.hub_room import HubRoom
from tests.support.power import Disk, PowerCutError, cut_at, watched

CUTS = int(os.environ.get("OUTRIDER_POWER_CUTS", "32"))
SEED = int(os.environ.get("OUTRIDER_SEED", "3"))
ROBOTS = ("robot_1", "robot_2")
STEPS = 4
CUTS_A_HUB = 4
WRITES_MAX = 90


class Orders:
    """What each robot should be told at the moment."""

    def __init__(self, orders: list[Order]) -> None:
        self._orders, self.number = orders, 0

    def offer_for(self, robot: str) -> Order | None:
        """A different one each time it has been moved on; sometimes none."""
        number = (self.number + ROBOTS.index(robot)) % (len(self._orders) + 1)
        return self._orders[number] if number < len(self._orders) else None


class Site:
    """A hub's trust folder between cuts, and everything that was ever signed there."""

    def __init__(self, folder: Path, keys: Path) -> None:
        self.folder, self.keys = folder, keys
        self.room = HubRoom(folder / "room", keys, ROBOTS)
        release = self.room.release(make_bundle(keys))
        plan = make_plan(release)
        self.orders = Orders([make_order(keys, plan, action=action) for action in ("run", "revert")])
        self.cuts = self.hubs = self.signatures = 0
        self.begin()

    def begin(self) -> None:
        """A new hub, with an empty disk."""
        self.hubs += 1
        self.disk = self.folder / f"hub-{self.hubs}"
        (self.disk / "data").mkdir(parents=True)
        self.signed: dict[str, str] = {}
        self.highest: Counter[str] = Counter()

    def cut(self, number: int, draw: random.Random) -> bool:
        """Serve until the power goes before write ``number``; False where everything was done before."""
        disk, done = Disk(self.disk, cut_at(number)), False
        try:
            with watched(disk):
                self.serve()
                done = True
        except PowerCutError:
            self.cuts += 1
        self.note()
        left = self.folder / f"hub-{self.hubs}-{self.cuts}"
        if not done:
            disk.after_cut(left, draw)
            shutil.rmtree(self.disk)
            self.disk = left
        disk.close()
        return not done

    def serve(self) -> None:
        """Come up and tell every robot something new, some times."""
        room = TrustRoom(
            self.disk / "data" / "trust", self.keys / "hub" / "trust", self.room.catalogue, self.orders,
            frozenset(ROBOTS), lambda: self.room.now_ns,
        )  # fmt: skip
        for _ in range(STEPS):
            self.orders.number += 1
            self.room.now_ns += 1_000_000_000
            for robot in ROBOTS:
                self.tell(room, robot)

    def tell(self, room: TrustRoom, robot: str) -> None:
        """What a robot asks for, and that each file is the one that the one before it names."""
        base = f"{DIRECTOR}/{robot}"

        def fetch(name: str) -> bytes:
            found = room.read(f"{base}/{name}", 0, robot)
            assert found.found, name
            return found.data

        stamp = Metadata[Timestamp].from_bytes(data := fetch("timestamp.json")).signed
        self.hear(f"{base}/{stamp.version}.timestamp.json", data)
        data = fetch(f"{stamp.snapshot_meta.version}.snapshot.json")
        stamp.snapshot_meta.verify_length_and_hashes(data)
        snapshot = Metadata[Snapshot].from_bytes(data).signed
        data = fetch(f"{snapshot.meta['targets.json'].version}.targets.json")
        snapshot.meta["targets.json"].verify_length_and_hashes(data)
        order = Metadata[Targets].from_bytes(data).signed.targets.get("order")
        if order is not None:
            order.verify_length_and_hashes(fetch("order"))
        assert stamp.version >= self.highest[robot], f"{robot} has seen {self.highest[robot]} before"
        self.highest[robot] = stamp.version

    def hear(self, name: str, data: bytes) -> None:
        """Signed: a name with a version in it stands for one content for ever."""
        self.signatures += name not in self.signed
        assert self.signed.setdefault(name, digest_hex(data)) == digest_hex(data), f"{name} was signed twice"

    def note(self) -> None:
        """Everything that lies on the disk in the moment of a cut, whether or not anybody has read it."""
        for path in sorted(self.disk.glob(f"data/trust/{DIRECTOR}/*/*.json")):
            data = path.read_bytes()
            try:
                version = Metadata.from_bytes(data).signed.version
            except Exception:
                continue
            kind = path.name.removesuffix(".json").split(".")[-1]
            self.hear(f"{DIRECTOR}/{path.parent.name}/{version}.{kind}.json", data)


def test_no_version_is_signed_twice_whatever_a_power_cut_takes(tmp_path: Path, keys: Path) -> None:
    """Cuts before any write, the first ones of a start as often as later ones; then a start that ends well."""
    site, draw = Site(tmp_path, keys), random.Random(SEED)
    while site.cuts < CUTS:
        site.begin()
        for _ in range(CUTS_A_HUB):
            site.cut(int(WRITES_MAX ** draw.random()), draw)
        with watched(Disk(site.disk)):
            site.serve()
    print(
        f"\n{site.cuts} power cuts of {site.hubs} hubs, {site.signatures} signatures, no version twice, seed {SEED}"
    )
    site.room.close()
