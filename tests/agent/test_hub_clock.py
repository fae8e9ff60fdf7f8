"""The hub's time, signed together with a nonce: what is taken, what is refused, and what expiry goes by then."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner, Signer

from contracts.messages import AskTime, FromRobot, SignedTime
from contracts.robot import AMR_SMALL
from contracts.trust import DIRECTOR, Code, TrustError, Wanted
from edge_agent.update.clock import ASK_AGAIN_S, ASK_EVERY_S, ROUND_TRIP_MAX_S, HubClock, clock_keys
from edge_agent.update.fetchers import FolderFetcher
from edge_agent.update.floor import Floor, FloorStore
from edge_agent.update.trust import RobotTrust
from fleet_hub.trust.clock import SignedClock
from tests.support.fleet import make_bundle
from tests.support.trust import ORDER, ROBOT, World, digest_hex, tree

NS = 10**9
DAY_NS = 86400 * NS


class Pair:
    """A robot's clock and the hub's, with the time between them in the test's hand."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.hub_now_ns, self.boot_now_ns, self.own_now_ns = time.time_ns(), 50 * NS, time.time_ns()
        self.notes: list[tuple[str, dict[str, Any]]] = []
        self.asked: list[FromRobot] = []
        self.hub = SignedClock(lambda: self.hub_now_ns)
        self.start()

    def start(self) -> None:
        """The robot's comms starts anew."""
        self.clock = HubClock(
            self.world.state, self.keys, ROBOT, self.send, lambda name, **facts: self.notes.append((name, facts)),
            lambda: self.own_now_ns, lambda: self.boot_now_ns,
        )  # fmt: skip

    @property
    def keys(self) -> Path:
        """The robot's folder."""
        return self.world.keys / "robots" / ROBOT

    def send(self, message: FromRobot) -> bool:
        """To the hub."""
        self.asked.append(message)
        return True

    def pass_s(self, seconds: float) -> None:
        """Time passes everywhere."""
        step = int(seconds * NS)
        self.hub_now_ns, self.boot_now_ns, self.own_now_ns = (
            self.hub_now_ns + step, self.boot_now_ns + step, self.own_now_ns + step,
        )  # fmt: skip

    def ask(self) -> bytes:
        """The robot asks; its nonce."""
        self.clock.on_online()
        self.clock.step(True)
        asked = self.asked[-1]
        assert isinstance(asked, AskTime)
        return asked.nonce

    def told(self, nonce: bytes, robot: str = ROBOT, signer: Signer | None = None) -> SignedTime:
        """What the hub answers."""
        self.pass_s(0.3)
        return SignedTime(self.hub.tell(robot, nonce, signer or self.world.online(DIRECTOR)["timestamp"]))

    def sync(self) -> None:
        """Ask and be answered."""
        self.clock.on_time(self.told(self.ask()))

    @property
    def codes(self) -> list[str]:
        """What was refused."""
        return [facts["code"] for name, facts in self.notes if name == "hub_time_refused"]


@pytest.fixture(scope="module")
def template(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A robot that has taken the first of two releases; the second has been sent since."""
    bundles = tuple(make_bundle(keys, version=f"v{n}", release_counter=n) for n in (1, 2))
    made = World.make(tmp_path_factory.mktemp("clock"), keys, bundles)
    made.take(0)
    made.send(1)
    return made


@pytest.fixture
def pair(template: World, tmp_path: Path) -> Pair:
    """A copy of it for each test."""
    return Pair(template.copy(tmp_path))


def check(pair: Pair, number: int = 1) -> RobotTrust:
    """What the robot's check does with what its clock knows."""
    world, told = pair.world, pair.clock.verified
    hub_ns = (lambda: told.at(pair.boot_now_ns)) if told else None
    trust = RobotTrust(
        world.state, pair.keys, ROBOT, AMR_SMALL, FolderFetcher(world.stick), lambda: pair.own_now_ns, hub_ns
    )
    trust.check(Wanted(digest_hex(world.bundles[number]), ORDER), world.path(number), world.facts(number))
    return trust


def test_the_hubs_time_goes_on_by_the_clock_that_nobody_sets(pair: Pair) -> None:
    assert pair.clock.now_wall_ns() == pair.own_now_ns
    pair.own_now_ns -= 400 * DAY_NS  # a battery that is flat: the robot believes in another year
    pair.sync()
    assert pair.clock.now_wall_ns() == pair.hub_now_ns
    pair.pass_s(3600.0)
    pair.own_now_ns = 0
    assert pair.clock.now_wall_ns() == pair.hub_now_ns
    (note,) = pair.notes
    assert note[0] == "hub_time"
    assert note[1]["ahead_s"] == pytest.approx(-400 * 86400.0, abs=1.0)


def test_it_is_asked_now_and_then_and_again_where_no_answer_comes(pair: Pair) -> None:
    pair.clock.step(False)
    assert pair.asked == []
    pair.ask()
    pair.pass_s(ASK_AGAIN_S - 0.1)
    pair.clock.step(True)
    assert len(pair.asked) == 1
    pair.pass_s(0.2)
    pair.clock.step(True)
    assert len(pair.asked) == 2
    pair.clock.on_time(pair.told(pair.asked[-1].nonce))  # type: ignore[union-attr]
    pair.pass_s(ASK_EVERY_S - 1.0)
    pair.clock.step(True)
    assert len(pair.asked) == 2
    pair.pass_s(2.0)
    pair.clock.step(True)
    assert len(pair.asked) == 3
    assert len({asked.nonce for asked in pair.asked}) == 3  # type: ignore[union-attr]


def replayed(pair: Pair) -> None:
    """An answer from before, good then."""
    old = pair.told(pair.ask())
    pair.clock.on_time(old)
    pair.ask()
    pair.clock.on_time(old)


def unasked(pair: Pair) -> None:
    pair.clock.on_time(pair.told(bytes(16)))


def another_robots(pair: Pair) -> None:
    pair.clock.on_time(pair.told(pair.ask(), "robot_2"))


def wrong_key(pair: Pair) -> None:
    pair.clock.on_time(pair.told(pair.ask(), signer=CryptoSigner.generate_ed25519()))


def another_roles_key(pair: Pair) -> None:
    """The director's other keys tell no time."""
    pair.clock.on_time(pair.told(pair.ask(), signer=pair.world.online(DIRECTOR)["targets"]))


def changed(pair: Pair) -> None:
    paper = json.loads(pair.told(pair.ask()).paper)
    paper["payload"] = paper["payload"][:-8] + "AAAAfQ=="
    pair.clock.on_time(SignedTime(json.dumps(paper).encode()))


def garbage(pair: Pair) -> None:
    for paper in (b"", b"[]", b"{}", b'{"payload": 1, "payloadType": 2, "signatures": [3]}'):
        pair.ask()
        pair.clock.on_time(SignedTime(paper))


def slow(pair: Pair) -> None:
    answer = pair.told(pair.ask())
    pair.pass_s(ROUND_TRIP_MAX_S)
    pair.clock.on_time(answer)


def behind(pair: Pair) -> None:
    """The hub's clock was turned back, or its old answers are signed anew."""
    FloorStore(pair.world.state).lift(
        Floor(versions={clock_keys(pair.world.state, pair.keys).name: pair.hub_now_ns})
    )
    pair.hub_now_ns -= 60 * NS
    pair.sync()


def beyond(pair: Pair) -> None:
    """A stolen clock key sets the time beyond what the root keys vouched for."""
    pair.hub_now_ns += 3 * 365 * DAY_NS
    pair.sync()


ATTACKS: list[tuple[Callable[[Pair], None], Code]] = [
    (replayed, Code.TIME_REPLAYED),
    (unasked, Code.TIME_REPLAYED),
    (another_robots, Code.TIME_REPLAYED),
    (wrong_key, Code.TIME_FORGED),
    (another_roles_key, Code.TIME_FORGED),
    (changed, Code.TIME_FORGED),
    (garbage, Code.TIME_FORGED),
    (slow, Code.TIME_SLOW),
    (behind, Code.TIME_BACK),
    (beyond, Code.TIME_BEYOND),
]


@pytest.mark.parametrize(("attack", "code"), ATTACKS, ids=lambda v: getattr(v, "__name__", None))
def test_what_is_not_the_hubs_answer_changes_nothing(
    pair: Pair, attack: Callable[[Pair], None], code: Code
) -> None:
    attack(pair)
    assert pair.codes == [code]  # said once, however often it came
    known, before = pair.clock.verified, tree(pair.world.state)
    pair.clock.on_time(SignedTime(b"x"))
    assert (pair.clock.verified, tree(pair.world.state)) == (known, before)
    if attack is not replayed:
        assert known is None
        assert pair.clock.now_wall_ns() == pair.own_now_ns


def test_a_clock_turned_back_does_not_matter_with_a_hub_and_stops_updates_without(pair: Pair) -> None:
    pair.own_now_ns -= 3600 * NS
    with pytest.raises(TrustError) as caught:
        check(pair)
    assert caught.value.code == Code.CLOCK_BACK
    pair.sync()
    check(pair).accept()
    pair.start()  # the robot starts anew, offline: what the hub told is not forgotten
    with pytest.raises(TrustError) as caught:
        check(pair)
    assert caught.value.code == Code.CLOCK_BACK


def test_expiry_goes_by_the_hubs_time(pair: Pair) -> None:
    """Metadata ends after seven days, whatever the robot's own clock says; and does not end for one that is ahead."""
    pair.own_now_ns += 30 * DAY_NS
    with pytest.raises(TrustError) as caught:
        check(pair)
    assert caught.value.code == Code.EXPIRED
    pair.sync()
    check(pair).discard()
    pair.own_now_ns -= 30 * DAY_NS
    pair.hub_now_ns += 8 * DAY_NS
    pair.sync()
    with pytest.raises(TrustError) as caught:
        check(pair)
    assert caught.value.code == Code.EXPIRED


def test_a_stolen_key_sets_the_time_forward_and_loses_that_with_the_key(pair: Pair) -> None:
    world = pair.world
    pair.hub_now_ns += 300 * DAY_NS
    pair.sync()
    with pytest.raises(TrustError) as caught:
        check(pair)
    assert caught.value.code == Code.EXPIRED
    world.ceremony.replace("director_timestamp", world.now)
    world.carry_roots()
    shutil.copy(max((world.keys / "trust" / DIRECTOR).glob("*.root.json")), pair.keys / "director.root.json")
    shutil.rmtree(world.state / "trust")  # a field tech brings the new root
    pair.start()
    pair.hub_now_ns = time.time_ns()
    pair.sync()
    assert pair.codes == []
    world.send(1)
    check(pair).accept()


def test_two_at_once_raise_the_floor_and_none_takes_back_what_the_other_raised(pair: Pair) -> None:
    """Comms notes the time while its check notes versions: as often as it may happen, in processes of their own."""
    import subprocess
    import sys

    state = pair.world.state
    code = (
        "import sys; from pathlib import Path; from edge_agent.update.floor import Floor, FloorStore\n"
        "for n in range(1, 41): FloorStore(Path(sys.argv[1])).lift(Floor(versions={sys.argv[2] + str(n): n}))"
    )
    children = [subprocess.Popen([sys.executable, "-c", code, str(state), name]) for name in ("one", "two")]
    assert [child.wait(30) for child in children] == [0, 0]
    found = FloorStore(state).read().versions
    assert all(found[f"{name}{n}"] == n for name in ("one", "two") for n in range(1, 41))
