"""TUF's keys on a PKCS#11 device (SoftHSM stands in): ceremonies, and a robot that takes what such keys signed."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from contracts.errors import KeyFileError
from edge_agent.update.floor import FloorStore
from fleet_hub.trust.ceremony import Ceremony
from outrider.verbs.keys import app as keys_app
from tests.support.fleet import make_bundle
from tests.support.trust import World, tree

LIBRARY = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "1234"
DEVICE = "hsm:{}?label=outrider"


@pytest.fixture
def world(keys: Path, tmp_path: Path) -> World:
    """A robot that has taken the first of three releases, with keys in files."""
    bundles = tuple(make_bundle(keys, version=f"v{n}", release_counter=n) for n in (1, 2, 3))
    made = World.make(tmp_path, keys, bundles)
    made.take(0)
    return made


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A device with four P-256 keys, ids 1 to 4."""
    pkcs11 = pytest.importorskip("pkcs11", reason="no python-pkcs11: pip install 'outrider[hsm]'")
    if not LIBRARY.exists() or shutil.which("softhsm2-util") is None:
        pytest.skip("no SoftHSM: apt install softhsm2")
    from pkcs11.util.ec import encode_named_curve_parameters

    folder = tmp_path_factory.mktemp("device")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(folder / "softhsm2.conf")
    command = [
        "softhsm2-util",
        "--init-token",
        "--free",
        "--label",
        "outrider",
        "--pin",
        PIN,
        "--so-pin",
        "5678",
    ]
    subprocess.run(command, check=True, capture_output=True)
    token = pkcs11.lib(str(LIBRARY)).get_token(token_label="outrider")
    curve = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
    with token.open(user_pin=PIN, rw=True) as session:
        for number in range(1, 5):
            made = session.create_domain_parameters(pkcs11.KeyType.EC, curve, local=True)
            made.generate_keypair(store=True, id=bytes([number]), label=f"key {number}")
    yield
    del os.environ["SOFTHSM2_CONF"]


@pytest.fixture
def plugged_in(device: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001 - it must be there first
    """The device and its PIN."""
    monkeypatch.setenv("PYKCS11LIB", str(LIBRARY))
    monkeypatch.setenv("OUTRIDER_PIN", PIN)


def keys_verb(*words: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(keys_app, [*map(str, words)])
    return done.exit_code, done.output


def test_keys_on_a_device_sign_roots_and_releases(
    plugged_in: None,  # noqa: ARG001 - used by HSMSigner
    world: World,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ("image_root_1", "image_root_2", "trainer", "director_root_1")
    for number, name in enumerate(names, 1):
        code, said = keys_verb("rotate", name, "--keys", world.keys, "--hsm", DEVICE.format(number))
        assert code == 0, said
    status = {key.name: key for key in Ceremony(world.keys).status()}
    assert [name for name, key in status.items() if key.hardware] == sorted(names)
    assert not any(status[name].here for name in names)
    assert not list((world.keys / "trust").glob("image_root_1-*.pem"))
    world.ceremony.replace("image_root_3", world.now)  # a root that two keys on the device sign
    world.carry_roots()
    world.publish_targets(world.ceremony.targets().to_bytes())
    world.send(1)
    world.take(1)
    assert FloorStore(world.state).read().counters == {"routing": 2}

    before = tree(world.keys)
    for variable, value, why in (
        ("OUTRIDER_PIN", "9999", "does not sign"),
        ("OUTRIDER_PIN", "", "no PIN"),
        ("PYKCS11LIB", "", "PYKCS11LIB"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(variable, value)
            with pytest.raises(KeyFileError, match=why):
                world.send(2)
            code, said = keys_verb("rotate", "image_timestamp", "--keys", world.keys)
            assert (code, said.count("\n")) == (1, 1), said
    left = {name: data for name, data in tree(world.keys).items() if "image_timestamp" not in name}
    assert left == {name: data for name, data in before.items() if "image_timestamp" not in name}
    world.send(2)
    world.take(2)


def test_what_is_no_key_on_a_device_is_refused_and_changes_nothing(
    plugged_in: None,  # noqa: ARG001 - used by HSMSigner
    world: World,
) -> None:
    keys_verb("rotate", "image_root_1", "--keys", world.keys, "--hsm", DEVICE.format(1))
    before = tree(world.keys)
    for uri, why in (
        (DEVICE.format(9), "could not find"),
        ("hsm:1?label=other", "No PKCS#11 token"),
        ("file:x", "names no key in hardware"),
        ("hsm:nine", "names no key in hardware"),
        (DEVICE.format(1), "trusted already, as image_root_1"),
    ):
        code, said = keys_verb("rotate", "image_root_2", "--keys", world.keys, "--hsm", uri)
        assert code == 1
        assert why in said, said
        assert tree(world.keys) == before


def test_without_a_device_it_is_one_line(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYKCS11LIB", raising=False)
    before = tree(world.keys)
    code, said = keys_verb("rotate", "image_root_1", "--keys", world.keys, "--hsm", "hsm:2")
    assert (code, said.count("\n")) == (1, 1)
    assert "outrider[hsm]" in said
    assert tree(world.keys) == before
