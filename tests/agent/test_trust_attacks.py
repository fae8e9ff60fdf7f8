"""Attacks on both repositories: real metadata, real keys. Each is refused by its code; every byte stays as it was."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root

from contracts.robot import AMR_SMALL
from contracts.trust import DIRECTOR, IMAGE, Code, TrustError, check_name
from edge_agent.update.floor import FLOOR_FILES, FLOOR_FOLDER, Floor, FloorStore
from fleet_hub.trust.repository import read, sign
from tests.support.fleet import make_bundle, make_keys
from tests.support.trust import ORDER, ROBOT, World, alias_of, tree, with_facts

OTHER_HASH = "e" * 64
Attack = Callable[[World], None]


@pytest.fixture(scope="module")
def template(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A robot that has taken the first of three releases; the second has been sent since."""
    bundles = tuple(make_bundle(keys, version=f"v{n}", release_counter=n) for n in (1, 2, 3))
    made = World.make(tmp_path_factory.mktemp("world"), keys, bundles)
    made.take(0)
    made.send(1)
    return made


@pytest.fixture
def world(template: World, tmp_path: Path) -> World:
    """A copy of it for each test."""
    return template.copy(tmp_path)


def rollback(world: World) -> None:
    old = world.keep()
    world.send(2)
    world.take(2)
    world.put_back(old)


def freeze(world: World) -> None:
    version = world.image.current()[0].signed.version  # type: ignore[index]
    data = (world.image.folder / f"{version}.targets.json").read_bytes()
    world.image.stamp(version, data, world.online(IMAGE), world.past)


def frozen_director(world: World) -> None:
    version = world.director.current()[0].signed.version  # type: ignore[index]
    data = (world.director.folder / f"{version}.targets.json").read_bytes()
    world.director.stamp(version, data, world.online(DIRECTOR), world.past)


def mix_and_match(world: World) -> None:
    """Another good set of targets of the same version under this timestamp."""
    version = world.image.current()[0].signed.version  # type: ignore[index]
    path = world.image.folder / f"{version}.targets.json"
    other = read(path.read_bytes(), object)
    other.signed.targets.popitem()
    path.write_bytes(sign(other, world.ceremony.signers("targets")))


def endless(world: World) -> None:
    with (world.image.folder / "timestamp.json").open("ab") as file:
        file.truncate(2**40)


def wrong_length(world: World) -> None:
    longer = len(world.bundles[2]) + 1
    world.send(1)
    world.path(2).write_bytes(world.bundles[2])
    world.forge_targets(world.target(2, world.facts(2), length=longer), *world.ceremony.signers("targets"))
    world.direct(world.target(2, ORDER, length=longer))


def wrong_hash(world: World) -> None:
    changed = bytearray(world.bundles[1])
    changed[len(changed) // 2] ^= 1
    world.path(1).write_bytes(changed)


def lies_of_the_director(world: World) -> None:
    world.direct(world.target(1, ORDER, digest=OTHER_HASH))


def unknown_key(world: World) -> None:
    """Stolen online image keys: they name targets that two strangers have signed."""
    strangers = CryptoSigner.generate_ed25519(), CryptoSigner.generate_ed25519()
    world.forge_targets(world.target(2, world.facts(2)), *strangers)


def online_keys_for_targets(world: World) -> None:
    """Stolen online image keys sign targets themselves."""
    world.forge_targets(world.target(2, world.facts(2)), *world.online(IMAGE).values())


def online_keys_take_away(world: World) -> None:
    """Stolen online image keys name the targets from before: rollback under a newer snapshot."""
    data = (world.image.folder / "2.targets.json").read_bytes()
    world.take(1)
    world.image.stamp(2, data, world.online(IMAGE), world.now)


def revoked_key(world: World) -> None:
    stolen = world.online(IMAGE)
    world.ceremony.replace("image_timestamp", world.now)
    world.carry_roots()
    version = world.image.current()[0].signed.version  # type: ignore[index]
    data = (world.image.folder / f"{version}.targets.json").read_bytes()
    world.image.stamp(version, data, stolen, world.now)


def revoked_trainer(world: World) -> None:
    """A stolen trainer's key, revoked, with a release manager who was talked into it."""
    stolen = world.ceremony.signer("trainer")
    world.ceremony.replace("trainer", world.now)
    world.carry_roots()
    world.forge_targets(world.target(2, world.facts(2)), stolen, world.ceremony.signer("release_manager"))


def one_of_two(world: World) -> None:
    world.forge_targets(world.target(2, world.facts(2)), world.ceremony.signer("trainer"))


def bad_signature(world: World) -> None:
    path = world.image.folder / "timestamp.json"
    found = Metadata.from_bytes(path.read_bytes())  # type: ignore[var-annotated]
    found.signed.version += 1
    path.write_bytes(found.to_bytes())


def duplicate_key(world: World) -> None:
    """Two stolen root keys list the trainer's key twice, so that it meets the threshold of two alone."""
    trainer = world.ceremony.signer("trainer")
    alias = alias_of(trainer)

    def listed_twice(root: Root) -> None:
        root.revoke_key(world.ceremony.signer("release_manager").public_key.keyid, "targets")
        root.add_key(alias.public_key, "targets")

    world.forge_root(listed_twice, "image_root_1", "image_root_2")
    world.forge_targets(world.target(2, world.facts(2)), trainer, alias)
    world.path(2).write_bytes(world.bundles[2])
    world.direct(world.target(2, ORDER))


def low_threshold(world: World) -> None:
    def one_is_enough(root: Root) -> None:
        root.roles["targets"].threshold = 1

    world.forge_root(one_is_enough, "image_root_1", "image_root_3")


def root_of_one(world: World) -> None:
    world.forge_root(lambda _: None, "image_root_2")


def another_robots(world: World) -> None:
    """The director's metadata of robot_2, whole and good, where robot_1 looks."""
    other = with_facts(ORDER, robot="robot_2")
    for _ in range(3):  # its versions are higher
        world.direct(world.target(1, other), robot="robot_2")
    theirs = world.stick / DIRECTOR / "robot_2"
    for path in world.director.folder.glob("*.root.json"):
        shutil.copy(path, theirs)
    shutil.rmtree(world.director.folder)
    theirs.rename(world.director.folder)


def _signed_facts(**changes: object) -> Attack:
    def attack(world: World) -> None:
        """Trainer and release manager sign what does not fit this robot."""
        facts = with_facts(world.facts(2), **changes)
        world.path(2).write_bytes(world.bundles[2])
        world.forge_targets(world.target(2, facts), *world.ceremony.signers("targets"))
        world.direct(world.target(2, ORDER))

    return attack


def clock_back(world: World) -> None:
    world.wall_ns = lambda: time.time_ns() - 3600 * 10**9


def lost_cache(world: World) -> None:
    """TUF alone takes this rollback: it knows nothing any more."""
    rollback(world)
    shutil.rmtree(world.state / "trust")


def lost_cache_and_half_a_floor(world: World) -> None:
    lost_cache(world)
    (world.state / FLOOR_FOLDER / FLOOR_FILES[0]).write_bytes(b"{torn")


def damaged_floor(world: World) -> None:
    for name in FLOOR_FILES:
        (world.state / FLOOR_FOLDER / name).write_bytes(b"{torn")


def stolen_director(world: World) -> None:
    """The director's keys order a bundle that trainer and release manager never signed."""
    world.path(2).write_bytes(world.bundles[2])
    world.direct(world.target(2, ORDER))


def another_order(world: World) -> None:
    world.direct(world.target(1, with_facts(ORDER, stage=1)))


def no_order(world: World) -> None:
    world.direct()


def cut_before_targets(world: World) -> None:
    (world.image.folder / "3.targets.json").unlink()


def cut_in_the_timestamp(world: World) -> None:
    path = world.director.folder / "timestamp.json"
    path.write_bytes(path.read_bytes()[:200])


def cut_in_the_bundle(world: World) -> None:
    os.truncate(world.path(1), 1000)


def foreign(world: World) -> None:
    """A stick of another fleet, whole and good."""
    folder = world.folder / "foreign"
    folder.mkdir()
    keys = make_keys(folder / "their_keys")
    other = World.make(folder, keys, (make_bundle(keys), make_bundle(keys, version="v2", release_counter=2)))
    world.put_back(other.stick)


def link_out(world: World) -> None:
    path = world.image.folder / "timestamp.json"
    path.unlink()
    path.symlink_to("/etc/hostname")


def linked_folder(world: World) -> None:
    elsewhere = world.stick.parent / "elsewhere"
    world.image.folder.rename(elsewhere)
    world.image.folder.symlink_to(elsewhere)


def climbing_target(world: World) -> None:
    world.direct(world.target(1, ORDER), world.target(1, ORDER, path="../../../etc/cron.d/x"))


def counter_below(world: World) -> None:
    FloorStore(world.state).lift(Floor({"routing": 9}))


def no_root(world: World) -> None:
    (world.keys / "robots" / ROBOT / "image.root.json").unlink()


def garbage(world: World) -> None:
    (world.image.folder / "timestamp.json").write_bytes(b"\x00\xff garbage")


ATTACKS: list[tuple[Attack, int, Code]] = [
    (rollback, 1, Code.ROLLBACK),
    (online_keys_take_away, 1, Code.ROLLBACK),
    (freeze, 1, Code.EXPIRED),
    (frozen_director, 1, Code.EXPIRED),
    (mix_and_match, 1, Code.MIXED),
    (endless, 1, Code.TOO_LONG),
    (wrong_length, 2, Code.WRONG_LENGTH),
    (cut_in_the_bundle, 1, Code.WRONG_LENGTH),
    (wrong_hash, 1, Code.WRONG_HASH),
    (lies_of_the_director, 1, Code.DISAGREE),
    (unknown_key, 2, Code.UNKNOWN_KEY),
    (online_keys_for_targets, 2, Code.UNKNOWN_KEY),
    (revoked_key, 1, Code.REVOKED_KEY),
    (revoked_trainer, 2, Code.TOO_FEW),
    (one_of_two, 2, Code.TOO_FEW),
    (root_of_one, 1, Code.TOO_FEW),
    (bad_signature, 1, Code.BAD_SIGNATURE),
    (duplicate_key, 2, Code.DUPLICATE_KEY),
    (low_threshold, 1, Code.LOW_THRESHOLD),
    (another_robots, 1, Code.OTHER_ROBOT),
    (_signed_facts(robot_models=()), 2, Code.UNREADABLE),
    (_signed_facts(layout_hash=OTHER_HASH), 2, Code.WRONG_LAYOUT),
    (_signed_facts(minimum_runtime=99), 2, Code.OLD_RUNTIME),
    (_signed_facts(version="v9"), 2, Code.OTHER_BUNDLE),
    (clock_back, 1, Code.CLOCK_BACK),
    (lost_cache, 1, Code.BELOW_FLOOR),
    (lost_cache_and_half_a_floor, 1, Code.BELOW_FLOOR),
    (damaged_floor, 1, Code.FLOOR_DAMAGED),
    (counter_below, 1, Code.COUNTER_TOO_LOW),
    (stolen_director, 2, Code.NOT_IN_IMAGE),
    (another_order, 1, Code.OTHER_ORDER),
    (no_order, 1, Code.NOT_IN_DIRECTOR),
    (cut_before_targets, 1, Code.INCOMPLETE),
    (cut_in_the_timestamp, 1, Code.UNREADABLE),
    (garbage, 1, Code.UNREADABLE),
    (foreign, 1, Code.FOREIGN_FLEET),
    (link_out, 1, Code.BAD_PATH),
    (linked_folder, 1, Code.BAD_PATH),
    (climbing_target, 1, Code.BAD_PATH),
    (no_root, 1, Code.NO_ROOT),
]


@pytest.mark.parametrize(("attack", "number", "code"), ATTACKS, ids=lambda v: getattr(v, "__name__", None))
def test_an_attack_is_refused_and_changes_nothing(
    world: World, attack: Attack, number: int, code: Code
) -> None:
    attack(world)
    world.refuses(number, code)


def test_wrong_model(world: World) -> None:
    ref = world.facts(2).robot_models[0]
    other = (ref.__class__("forklift", ref.hash), ref.__class__(AMR_SMALL.name, OTHER_HASH))
    _signed_facts(robot_models=other)(world)
    world.refuses(2, Code.WRONG_MODEL)


def test_after_every_refusal_the_honest_update_goes_through(world: World) -> None:
    honest = world.keep()
    for attack in (freeze, mix_and_match, endless, wrong_hash, one_of_two, link_out):
        attack(world)
        with pytest.raises(TrustError):
            world.check(1)
        world.put_back(honest)
    world.take(1)
    floor = FloorStore(world.state).read()
    assert floor.counters == {"routing": 2}
    assert floor.versions["image/root/-"] == 1


def test_every_key_may_change_and_updates_go_on(world: World) -> None:
    """Rotation of each role, one after the other; the robot follows the chain of roots from its first one."""
    for name in ("image_root_2", "trainer", "release_manager", "image_snapshot", "image_timestamp"):
        world.ceremony.replace(name, world.now)
    for name in ("director_root_1", "director_targets", "director_snapshot", "director_timestamp"):
        world.ceremony.replace(name, world.now)
    world.carry_roots()
    world.publish_targets(world.ceremony.targets().to_bytes())
    world.send(2)
    world.take(2)
    assert FloorStore(world.state).read().versions["image/root/-"] == 6


def test_a_kill_in_accept_leaves_a_robot_that_updates(world: World) -> None:
    """Whatever ``accept`` had done when it ended."""
    trust = world.check(1)
    before = tree(world.state)
    trust.accept()
    after = tree(world.state)
    assert before != after
    (world.state / "trust" / ".current").symlink_to("cache-nowhere")
    (world.state / "trust" / ".new").mkdir()
    (world.state / "trust" / ".new" / "half").write_bytes(b"x")
    world.send(2)
    world.take(2)


def test_a_cache_without_its_link_is_a_lost_one(world: World) -> None:
    (world.state / "trust" / "current").unlink()
    world.take(1)


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "image/../x",
        "/etc/passwd",
        "image/1.root.json/",
        "director/../timestamp.json",
        "director/A/order",
        "",
    ],
)
def test_no_other_name_is_fetched(name: str) -> None:
    with pytest.raises(TrustError) as caught:
        check_name(name)
    assert caught.value.code == Code.BAD_PATH
