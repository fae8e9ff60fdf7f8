"""Recorded observations through a bundle's network again: the same bits are expected where it drove.

Of the monitor, what a record holds is checked: that a stop stood still, that what passed was not touched, that nothing
was enlarged. The monitor itself runs again in ``rerun``, where the log has raw scans.
"""

import zipfile
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.bundle import POLICY_MAX_BYTES, POLICY_MEMBER, read_bundle
from contracts.canonical import digest_hex
from contracts.decision import FLAG_BLENDED, Mode, Reason, Source, Verdict
from contracts.errors import BundleDamagedError
from contracts.onnx_scan import scan_network
from edge_agent.infer.policy import Policy
from edge_agent.recorder.reading import Log

SHOWN_MAX = 10
TOUCHED_MIN = 1e-6
"""m/s or rad/s: a policy's limit in float32 may be clipped by as much (``safety.monitor.ROUNDING``)."""
Rows = npt.NDArray[np.void]


class Changed(msgspec.Struct, frozen=True):
    """A decision whose replay is not what was recorded."""

    seq: int
    tick: int
    recorded: tuple[float, float]
    replayed: tuple[float, float]


class Replay(msgspec.Struct, frozen=True):
    """What came of a replay. ``drove``: this very bundle made decisions of the log, so that equal bits are due."""

    digest: str
    drove: bool
    asked: int
    equal: int
    worst: float
    """Largest difference, m/s or rad/s."""
    skipped: int
    """Decisions of other policies, of the rules, or without an observation."""
    changed: tuple[Changed, ...]
    """The first SHOWN_MAX of them."""
    rulings: int
    odd_rulings: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether nothing differs that must not."""
        return self.equal == self.asked and not self.odd_rulings


def load_network(bundle: Path) -> tuple[str, bytes]:
    """Digest and network of a bundle file; raises BundleError.

    Signatures are not checked here: a bundle whose digest is in the log is the one that the robot had checked.
    """
    data = read_bundle(bundle)
    try:
        with zipfile.ZipFile(bundle) as members, members.open(POLICY_MEMBER) as member:
            network = member.read(POLICY_MAX_BYTES + 1)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise BundleDamagedError(f"{bundle}: {error}; is it a bundle (.outrider)?") from None
    scan_network(network)
    return digest_hex(data), network


def replay(log: Log, bundle: Path) -> Replay:
    """Ask the bundle's network again.

    Where the bundle made no decision of the log, every decision of a policy is asked; differences are to be expected.

    Raises:
        BundleError: the file is no bundle, or its network is not allowed.
        PolicyRejectedError: onnxruntime does not take it.
    """
    digest, network = load_network(bundle)
    policy = Policy(network, digest, "replay", 0)
    rows = log.decisions
    mine = (rows["policy_digest"].reshape(-1, 32) == policy.digest_bytes).all(axis=1)
    drove = bool(mine.any())
    seen = rows["observation"].any(axis=1) & (mine if drove else True)
    driving = seen & (rows["source"] == Source.POLICY)
    beside = seen & np.isin(rows["mode"], (Mode.SHADOW, Mode.ASSIST)) & (rows["source"] == Source.RULE_BASED)
    beside &= np.isfinite(rows["other_command"]).all(axis=1)
    equal, worst = 0, 0.0
    changed: list[Changed] = []
    asked = np.flatnonzero(driving | beside)
    for index in asked.tolist():
        field = "raw_command" if driving[index] else "other_command"
        recorded = rows[field][index]
        again = np.array(policy.run(rows["observation"][index]), dtype=np.float32)
        if again.tobytes() == recorded.tobytes():
            equal += 1
            continue
        step = float(np.abs(again - recorded).max())
        worst = max(worst, step) if np.isfinite(step) else float("inf")
        if len(changed) < SHOWN_MAX:
            changed.append(_changed(int(log.decision_seqs[index]), rows[index], recorded, again))
    skipped = len(rows) - len(asked)
    odd = odd_rulings(rows)
    return Replay(digest, drove, len(asked), equal, worst, skipped, tuple(changed), len(rows), odd)


def _changed(
    seq: int, record: np.void, recorded: npt.NDArray[np.float32], again: npt.NDArray[np.float32]
) -> Changed:
    before, after = recorded.tolist(), again.tolist()
    return Changed(seq, int(record["tick"]), (before[0], before[1]), (after[0], after[1]))


def odd_rulings(rows: Rows) -> tuple[str, ...]:
    """Rulings that contradict themselves, one line a rule."""
    raw, final = rows["raw_command"], rows["final_command"]
    wanted = np.isfinite(raw).all(axis=1) & ((rows["flags"] & FLAG_BLENDED) == 0)
    stopped, passed = rows["verdict"] >= Verdict.STOP, rows["verdict"] == Verdict.PASS
    limited = (rows["verdict"] == Verdict.LIMIT) & (rows["reason"] != Reason.ACCELERATION_LIMITED)
    with np.errstate(invalid="ignore"):
        rules = {
            "stopped, but a command to move went out": stopped & (final != 0).any(axis=1),
            "passed, but the command was touched": passed
            & wanted
            & (np.abs(final - raw) > TOUCHED_MIN).any(axis=1),
            "limited, but the speed grew": limited
            & wanted
            & (np.abs(final[:, 0]) > np.abs(raw[:, 0]) + TOUCHED_MIN),
        }
    return tuple(
        f"{int(odd.sum())} decisions {what}; the first is tick {int(rows['tick'][odd][0])}"
        for what, odd in rules.items()
        if odd.any()
    )
