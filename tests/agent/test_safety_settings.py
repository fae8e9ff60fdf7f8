"""A robot's own monitor settings: signed by whom it trusts and only stricter, or the agent does not start."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from securesystemslib.signer import Signer

from contracts.canonical import canonical_json
from contracts.decision import Reason
from contracts.errors import BundleWrongMonitorError
from contracts.keyring import TRUSTED_FILE
from contracts.provenance import PAYLOAD_TYPE, TrustedKeys
from contracts.ring import RingWriter
from contracts.robot import AMR_SMALL
from edge_agent.actuate.sink import NoSink
from edge_agent.config import ControlConfig
from edge_agent.effective import read_config
from edge_agent.errors import SafetyFileError
from edge_agent.guard.settings import FILE_MAX_BYTES, TRUSTED_SAFETY_FILE, load_safety
from edge_agent.heartbeat import remove_ring
from edge_agent.stages import Control
from navigation.warehouse import load_warehouse
from safety.config import MonitorConfig, WatchConfig
from safety.errors import SafetyError
from safety.fields import ProtectiveField
from safety.settings import SAFETY_PAYLOAD_TYPE, SafetySettings
from safety.zones import Zone, rectangle
from tests.support.agent import LAYOUT, PERIOD_NS, ROOT, START, Clock
from tests.support.fleet import make_bundle
from tests.support.waiting import wait_for
from trainer.release.keys import create_release_key, load_signer
from trainer.release.pack import seal
from trainer.release.safety import sign_safety

ROBOT = "amr_small"
FLOOR = load_warehouse(LAYOUT).hash()
MARGIN = MonitorConfig(margin_m=0.08)
AHEAD = Zone("keep_out", rectangle(START[0] + 0.5, 0.0, START[0] + 0.9, 4.0))
GOOD = SafetySettings(
    ROBOT, MARGIN, WatchConfig(tilt_max_rad=0.1), (AHEAD,), (ProtectiveField(0.6, 1.0),), FLOOR
)
Change = tuple[type[MonitorConfig | WatchConfig], str]
EVERY: list[Change] = [
    (kind, name) for kind in (MonitorConfig, WatchConfig) for name in kind.__struct_fields__
]


def settings_with(kind: Any, name: str, value: float) -> SafetySettings:
    """Built-in settings with one value changed."""
    changed = kind(**{name: value})
    return SafetySettings(ROBOT, **{"monitor" if kind is MonitorConfig else "watch": changed})


def sign(settings: SafetySettings, signer: Signer) -> bytes:
    """What an attacker with a trusted key could sign: nothing is checked."""
    return seal(canonical_json(settings), SAFETY_PAYLOAD_TYPE, [signer])


BAD: dict[str, tuple[Callable[[Signer, Signer], bytes], str]] = {
    "not signed": (lambda *_: canonical_json(GOOD), "no DSSE envelope"),
    "no signature": (lambda *_: seal(canonical_json(GOOD), SAFETY_PAYLOAD_TYPE, []), "came signatures of .none"),
    "foreign key": (lambda _, foreign: sign_safety(GOOD, [foreign]), "expected 1 good signature"),
    "signed as a bundle": (
        lambda key, _: seal(canonical_json(GOOD), PAYLOAD_TYPE, [key]), "expected payload type",
    ),
    "edited": (
        lambda key, _: sign_safety(GOOD, [key]).replace(b'"payload":"e', b'"payload":"f'), "good signature|envelope",
    ),
    "looser": (
        lambda key, _: sign(settings_with(MonitorConfig, "margin_m", 0.05), key), "margin_m is 0.05",
    ),
    "millimetres": (lambda key, _: sign(settings_with(MonitorConfig, "margin_m", 80.0), key), "margin_m is 80"),
    "unknown key": (
        lambda key, _: seal(b'{"robot_model":"amr_small","monitr":{}}', SAFETY_PAYLOAD_TYPE, [key]), "monitr",
    ),
    "another format": (lambda key, _: sign(SafetySettings(ROBOT, format_version=2), key), "format 1"),
    "another model": (lambda key, _: sign(SafetySettings("tugger"), key), "for 'tugger'"),
    "another floor": (
        lambda key, _: sign(msgspec.structs.replace(GOOD, floor_hash="ab" * 32), key), "zones of floor abab",
    ),
    "no floor": (lambda key, _: sign(msgspec.structs.replace(GOOD, floor_hash=None), key), "go together"),
    "no zone": (
        lambda key, _: sign(msgspec.structs.replace(GOOD, zones=(Zone("keep_out", ((0.0, 0.0),)),)), key), "three",
    ),
    "no field": (
        lambda key, _: sign(msgspec.structs.replace(GOOD, fields=(ProtectiveField(0.5, 0.0),)), key), "ahead_m of",
    ),
    "too large": (lambda *_: b" " * (FILE_MAX_BYTES + 1), "larger than"),
}  # fmt: skip


@pytest.fixture
def signers(tmp_path: Path, keys: Path) -> tuple[Signer, Signer]:
    """The fleet's release key, and one of nobody's."""
    create_release_key(tmp_path / "foreign.pem")
    return load_signer(keys), load_signer(tmp_path / "foreign.pem")


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_signed_stricter_and_ours_is_refused_by_name(
    name: str, tmp_path: Path, keys: Path, signers: tuple[Signer, Signer]
) -> None:
    make, hint = BAD[name]
    path, own = tmp_path / "safety.dsse.json", keys / "robots" / "robot_1"
    path.write_bytes(sign_safety(GOOD, [signers[0]]))
    assert load_safety(path, own, ROBOT, FLOOR) == (GOOD, ("release",))
    path.write_bytes(make(*signers))
    with pytest.raises(SafetyFileError, match=hint) as refused:
        load_safety(path, own, ROBOT, FLOOR)
    assert str(path) in str(refused.value)
    with pytest.raises(SafetyFileError, match="no safety settings at"):
        load_safety(tmp_path / "none", own, ROBOT, FLOOR)


def test_with_a_safety_officer_the_release_key_no_longer_counts(
    tmp_path: Path, keys: Path, signers: tuple[Signer, Signer]
) -> None:
    own, path = tmp_path / "own", tmp_path / "safety.dsse.json"
    own.mkdir()
    (own / TRUSTED_FILE).write_bytes((keys / "robots" / "robot_1" / TRUSTED_FILE).read_bytes())
    officer = create_release_key(tmp_path / "officer.pem", "safety officer")
    (own / TRUSTED_SAFETY_FILE).write_bytes(canonical_json(TrustedKeys(1, (officer,))))
    path.write_bytes(sign_safety(GOOD, [signers[0]]))
    with pytest.raises(SafetyFileError, match="safety officer"):
        load_safety(path, own, ROBOT, FLOOR)
    path.write_bytes(sign_safety(GOOD, [load_signer(tmp_path / "officer.pem")]))
    assert load_safety(path, own, ROBOT, FLOOR)[1] == ("safety officer",)


def test_looser_settings_are_not_even_signed(signers: tuple[Signer, Signer]) -> None:
    with pytest.raises(SafetyError, match="tilt_max_rad"):
        sign_safety(SafetySettings(ROBOT, watch=WatchConfig(tilt_max_rad=0.2)), [signers[0]])


@pytest.fixture
def ring() -> Iterator[RingWriter]:
    """A real ring."""
    made = RingWriter("safety-settings")
    yield made
    made.close()
    remove_ring("safety-settings")


def control_of(tmp_path: Path, keys: Path, ring: RingWriter, safety: str) -> Control:
    """The whole control path of one robot."""
    return Control(
        ControlConfig(
            robot_id="robot_1", state_dir=str(tmp_path / "state"), keys_dir=str(keys), layout_path=str(LAYOUT),
            ring_name="safety-settings", safety_path=safety,
        ),
        NoSink(), ring,
    )  # fmt: skip


@pytest.mark.parametrize("signed", [True, False])
def test_what_is_signed_rules_the_robot_and_its_policies(
    signed: bool, tmp_path: Path, keys: Path, ring: RingWriter, signers: tuple[Signer, Signer]
) -> None:
    path, bundle = tmp_path / "safety.dsse.json", tmp_path / "v1.outrider"
    path.write_bytes(sign_safety(GOOD, [signers[0]]))
    bundle.write_bytes(make_bundle(keys, monitor_hash=MonitorConfig().hash()))
    control = control_of(tmp_path, keys, ring, str(path) if signed else "")
    clock = Clock()
    control.core._clock_ns = clock
    try:
        monitor, lidar = control.gate.monitor, AMR_SMALL.lidar
        in_force = read_config(tmp_path / "state", control.core.record["config_digest"][0].tobytes())
        assert in_force is not None
        assert (b'"margin_m":0.08' in in_force) == signed
        assert (monitor.config == MARGIN, monitor.watch.tilt_max_rad) == (signed, 0.1 if signed else 0.15)
        assert any("margin_m 0.08" in event for event in control.take_events()) == signed
        if signed:
            with pytest.raises(BundleWrongMonitorError):
                control.loader.verify(bundle)
        else:
            assert control.loader.verify(bundle).manifest.version == "v1"
        reasons = set()
        ranges = np.full(lidar.rays, np.inf, dtype=np.float32)
        control.ladder.propose = lambda *_: ((0.6, 0.0), 1)  # type: ignore[method-assign,assignment,return-value]
        control.intake.goal("map", 8.0, 4.2)
        wait_for(control.slots.route, "a route")
        for tick in range(30):
            clock.now_ns += PERIOD_NS
            control.intake.scan(
                ranges, lidar.angle_min_rad, lidar.angle_step_rad, lidar.range_max_m, (0, 0), clock.now_ns
            )
            control.intake.odometry("map", START[:2], (0.0, 0.0, 0.0, 1.0), (0.0, 0.0), clock.now_ns)
            control.core.tick(clock.now_ns, 0)
            if tick == 0:
                assert control.gate.arm() == ""
            else:
                reasons.add(control.core.latest.ruling.reason)  # type: ignore[union-attr]
        assert (Reason.KEEP_OUT in reasons) == signed, reasons
    finally:
        control.close()


def test_an_unsigned_file_ends_the_start_in_one_line_and_leaves_nothing(tmp_path: Path, keys: Path) -> None:
    path, state = tmp_path / "safety.dsse.json", tmp_path / "state"
    path.write_bytes(canonical_json(GOOD))

    def start(module: str, *words: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", module, *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=100)

    ended = start(
        "outrider.cli", "agent", "run", "--robot", "robot_1", "--layout", str(LAYOUT), "--state", str(state),
        "--keys", str(keys), "--no-hub", "--safety", str(path),
    )  # fmt: skip
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert "no DSSE envelope" in ended.stderr
    assert not state.exists()


def test_the_verb_signs_what_a_robot_takes_and_nothing_looser(tmp_path: Path, keys: Path) -> None:
    source, out = tmp_path / "settings.yaml", tmp_path / "safety.dsse.json"

    def verb(text: str, *words: str) -> "subprocess.CompletedProcess[str]":
        source.write_text(text)
        command = [
            sys.executable,
            "-m",
            "outrider.cli",
            "keys",
            "sign-safety",
            str(source),
            "--out",
            str(out),
        ]
        return subprocess.run(
            [*command, "--keys", str(keys), *words], capture_output=True, text=True, cwd=ROOT, timeout=100
        )

    for text, hint in (
        ("robot_model: amr_small\nmonitor: {margin_m: 0.01}", "margin_m is 0.01"),
        ("robot_model: amr_small\nwatch: {tilt_max_rad: high}", "tilt_max_rad"),
        ("robot_model: amr_small\nzones: [{kind: keep_out, corners_m: [[0,0],[1,0],[1,1]]}]", "go together"),
    ):
        ended = verb(text)
        assert (ended.returncode, ended.stderr.count("\n"), out.exists()) == (1, 1, False), ended.stderr
        assert hint in ended.stderr
    zone = "zones: [{kind: keep_out, corners_m: [[0, 0], [1, 0], [1, 1]]}]"
    ended = verb(
        f"robot_model: amr_small\nmonitor: {{margin_m: 0.08}}\n{zone}", "--layout", str(LAYOUT), "--json"
    )
    assert ended.returncode == 0, ended.stderr
    settings, names = load_safety(out, keys / "robots" / "robot_1", ROBOT, FLOOR)
    assert (settings.monitor, len(settings.zones), names) == (MARGIN, 1, ("release",))
    assert json.loads(ended.stdout)["monitor_hash"] == MARGIN.hash()
