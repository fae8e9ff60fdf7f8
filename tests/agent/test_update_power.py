"""An update, with the power cut or the disk full at every single write of it: a policy that runs, and v2 in the end.

Real updater, check, both repositories, slots and floor, in this process on files that ``tests/support/power`` loses as
a disk does. ``OUTRIDER_POWER_EVERY=1 pytest -s tests/agent/test_update_power.py`` takes every write (``make
campaign``), the suite every seventh.
"""

import errno
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.bundle import verify_bundle
from contracts.canonical import digest_hex
from contracts.keyring import TRUSTED_FILE
from contracts.messages import Chunk, FetchChunk, FileChunk, FromRobot, Order, RolloutReport
from contracts.observation import ROUTING_LAYOUT
from contracts.plan import Release, encode_plan
from contracts.provenance import TrustedKeys
from contracts.robot import AMR_SMALL
from contracts.trust import DirectorFacts, Wanted
from edge_agent.update.check import check
from edge_agent.update.checker import CheckRequest, CheckResult
from edge_agent.update.floor import FloorStore
from edge_agent.update.mailbox import ControlMailbox
from edge_agent.update.slots import SlotStore
from edge_agent.update.updater import State, Updater
from tests.support.fleet import facts_of, make_bundle, make_order, make_plan
from tests.support.power import Disk, PowerCutError, cut_at, watched
from tests.support.trust import ROBOT, World

NS = 1_000_000_000
TURNS_MAX = 200
SEEDS = 2
ACCEPTED_WRITES = 8
"""Until an order is written down, twice: then comes what follows from it."""
EVERY = int(os.environ.get("OUTRIDER_POWER_EVERY", "7"))


class CheckHere:
    """``BundleChecker`` without its child: the check is over when it has begun."""

    def __init__(self, world: World, state: Path) -> None:
        self._world, self._state = world, state
        self._result: CheckResult | None = None

    def start(self, path: Path, now_ns: int, wanted: Wanted) -> None:
        """Check."""
        del now_ns
        own, stick = self._world.keys / "robots" / ROBOT, str(self._world.stick)
        self._result = check(
            CheckRequest(str(path), str(own), AMR_SMALL.name, str(self._state), wanted, stick)
        )

    def question(self) -> None:
        """Everything is on the stick."""

    def answer(self, chunk: FileChunk) -> None:
        """Nothing."""

    def result(self, now_ns: int) -> CheckResult | None:
        """What came out."""
        del now_ns
        return self._result

    def cancel(self) -> None:
        """Nothing runs."""


class Robot:
    """One robot with v1, told to run v2 or to go back from it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.trusted = TrustedKeys.load(world.keys / TRUSTED_FILE)
        data = world.bundles[1]
        plan = make_plan(Release(digest_hex(data), "routing", "v2", 2, len(data)))
        self.order = make_order(world.keys, plan)
        self.back = make_order(world.keys, plan, action="revert")
        world.send(1, DirectorFacts(ROBOT, 1, 0, "run", encode_plan(plan)[1]))

    def follow(self, state: Path, order: Order, end: str) -> list[RolloutReport]:
        """Take an order to its end, or as far as it gets."""
        said: list[FromRobot] = []
        updater = Updater(
            state, CheckHere(self.world, state), lambda m: bool(said.append(m)) or True, lambda *_a, **_k: None,
            self.world.keys / "robots" / ROBOT, ROBOT,
        )  # fmt: skip
        control, now_ns, answered = ControlMailbox(state), 0, 0
        updater.on_order(order, now_ns)
        for _ in range(TURNS_MAX):
            now_ns += NS
            for message in said[answered:]:
                answered += 1
                if isinstance(message, FetchChunk):
                    data = self.world.bundles[1][message.offset : message.offset + 65536]
                    updater.on_chunk(Chunk(message.digest, message.offset, data), now_ns)
            updater.step(now_ns)
            if updater.state is State.WAITING and (candidate := control.poll()):
                control.answer(candidate, True)
            reports = [message for message in said if isinstance(message, RolloutReport)]
            if any(report.state in (end, "refused") for report in reports):
                break
        return reports

    def policy(self, state: Path) -> str:
        """Version of the policy that would drive now; it is whole, and nothing older than v1."""
        entry = SlotStore(state).active()
        assert entry is not None, "no policy"
        bundle = verify_bundle(Path(entry.path), self.trusted, ROUTING_LAYOUT.hash(), AMR_SMALL)
        assert bundle.digest == entry.digest
        assert FloorStore(state).read().counters["routing"] >= 1
        return bundle.manifest.version


@pytest.fixture(scope="module")
def robot(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Robot:
    bundles = tuple(make_bundle(keys, version=f"v{n}", release_counter=n) for n in (1, 2))
    world = World.make(tmp_path_factory.mktemp("power"), keys, bundles)
    world.take(0)
    store, source = SlotStore(world.state), world.folder / "v1"
    source.write_bytes(bundles[0])
    store.commit(store.stage(source, facts_of(digest_hex(bundles[0]))))
    return Robot(world)


def each_write(
    robot: Robot,
    start: Path,
    folder: Path,
    order: Order,
    end: str,
    fault: Callable[[int], Callable[[int], None]],
) -> list[tuple[int, Path, Disk]]:
    """The order followed once for each of its writes, with ``fault`` at that write."""
    runs = []
    number = 1
    while True:
        state = folder / f"state-{number}"
        shutil.copytree(start, state, symlinks=True)
        disk = Disk(state, fault(number))
        try:
            with watched(disk):
                robot.follow(state, order, end)
        except (PowerCutError, OSError):
            pass
        if disk.writes < number:
            disk.close()
            return runs
        runs.append((number, state, disk))
        number += EVERY


@pytest.mark.parametrize("what", ["run", "revert"])
def test_a_power_cut_at_every_write_of_an_update(robot: Robot, tmp_path: Path, what: str) -> None:
    start, order, end, after = _case(robot, tmp_path, what)
    seen: Counter[str] = Counter()
    runs = each_write(robot, start, tmp_path, order, end, cut_at)
    assert len(runs) * EVERY >= 30
    for number, _, disk in runs:
        for seed in range(SEEDS):
            left = tmp_path / f"left-{number}-{seed}"
            disk.after_cut(left, random.Random(f"{number} {seed}"))
            seen[robot.policy(left)] += 1
            reports = robot.follow(left, order, end)
            assert end in {report.state for report in reports}, (number, seed, reports)
            assert robot.policy(left) == after, (number, seed)
            shutil.rmtree(left)
        disk.close()
    assert set(seen) <= {"v1", "v2"}
    print(f"\n{what}: {len(runs)} writes, {seen.total()} power cuts, found after them: {dict(seen)}")


@pytest.mark.parametrize("what", ["run", "revert"])
def test_a_disk_that_is_full_from_any_write_on(robot: Robot, tmp_path: Path, what: str) -> None:
    """Refused, or the process ends; with room the same order comes to its end, unless the refusal was kept."""
    start, order, end, after = _case(robot, tmp_path, what)

    def full_at(number: int) -> Callable[[int], None]:
        def fault(writes: int) -> None:
            if writes >= number:
                raise OSError(errno.ENOSPC, "No space left on device")

        return fault

    runs = each_write(robot, start, tmp_path, order, end, full_at)
    assert len(runs) * EVERY >= 30
    for number, state, disk in runs:
        disk.close()
        robot.policy(state)
        reports = robot.follow(state, order, end)
        assert end in {report.state for report in reports}, (number, reports)
        assert robot.policy(state) == after, number
    print(f"\n{what}: a disk full from each of {len(runs)} writes on")


def test_a_way_back_that_the_disk_refuses_once_is_tried_again(robot: Robot, tmp_path: Path) -> None:
    """By the process that runs: control had not heard of it, and the robot would have stayed with what it runs."""
    start, order, end, after = _case(robot, tmp_path, "revert")

    def full_once(writes: int) -> None:
        if writes == ACCEPTED_WRITES + 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    disk = Disk(start, full_once)
    with watched(disk):
        reports = robot.follow(start, order, end)
    disk.close()
    assert [report.state for report in reports] == [end]
    assert robot.policy(start) == after


def _case(robot: Robot, folder: Path, what: str) -> tuple[Path, Order, str, str]:
    """State to start from, order, its end, and the policy then."""
    if what == "run":
        return robot.world.state, robot.order, "active", "v2"
    start = folder / "start"
    shutil.copytree(robot.world.state, start, symlinks=True)
    assert "active" in {report.state for report in robot.follow(start, robot.order, "active")}
    return start, robot.back, "reverted", "v1"
