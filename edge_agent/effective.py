"""What control really runs with, whole. Its short digest is in every decision; the text is in STATE/config and the log.

Names and paths of one robot are left out: robots with the same settings on the same floor have the same digest.
Control writes the file, comms reads it when decisions bear a digest that is new to it (``recorder.configs``).
"""

from pathlib import Path

import msgspec

from contracts.atomic import write_atomically
from contracts.canonical import canonical_json, digest_hex
from contracts.decision import CONFIG_DIGEST_BYTES
from contracts.robot import RobotModel
from edge_agent.config import ControlConfig
from edge_agent.infer.trial import TrialConfig
from safety.settings import SafetySettings

CONFIG_FOLDER = "config"
CONFIGS_KEPT = 8
EFFECTIVE_MAX_BYTES = 256 * 1024


class EffectiveConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that decide what a tick does."""

    robot: RobotModel
    rate_hz: int
    real_time_factor: float
    sim_time: bool
    serial: bool
    realtime: bool
    cpus: tuple[int, ...]
    trial: TrialConfig
    floor_hash: str
    """With the floor's own zones."""
    safety: SafetySettings
    """Monitor, watches, zones and fields."""

    @classmethod
    def of(
        cls, config: ControlConfig, robot: RobotModel, floor_hash: str, safety: SafetySettings
    ) -> "EffectiveConfig":
        """Of control's settings file and of what it names."""
        return cls(
            robot=robot, rate_hz=config.rate_hz, real_time_factor=config.real_time_factor,
            sim_time=config.sim_time, serial=bool(config.serial_port), realtime=config.realtime,
            cpus=config.cpus, trial=config.trial, floor_hash=floor_hash, safety=safety,
        )  # fmt: skip

    def text(self) -> bytes:
        """Canonical JSON."""
        return canonical_json(self)


def short_digest(text: bytes) -> bytes:
    """What decisions bear: the first CONFIG_DIGEST_BYTES of its SHA-256."""
    return bytes.fromhex(digest_hex(text))[:CONFIG_DIGEST_BYTES]


def keep_config(state_dir: Path, effective: EffectiveConfig) -> bytes:
    """Write STATE/config/DIGEST.json, the newest CONFIGS_KEPT stay; returns the digest. Raises OSError."""
    text = effective.text()
    digest = short_digest(text)
    folder = state_dir / CONFIG_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{digest.hex()}.json", text)
    older = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in older[CONFIGS_KEPT:]:
        path.unlink(missing_ok=True)
    return digest


def read_config(state_dir: Path, digest: bytes) -> bytes | None:
    """The text behind a digest; None when it is not there, too long or not what it is called."""
    try:
        with (state_dir / CONFIG_FOLDER / f"{digest.hex()}.json").open("rb") as file:
            text = file.read(EFFECTIVE_MAX_BYTES + 1)
    except OSError:
        return None
    return text if len(text) <= EFFECTIVE_MAX_BYTES and short_digest(text) == digest else None
