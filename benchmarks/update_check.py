"""Where a robot's check of a bundle of 1 MB goes: CPU milliseconds by stage.

``python -m benchmarks.update_check [--quick]``. Prints JSON lines.

The stages are those of ``edge_agent.update.check.check``, one after the other in this process, on a robot that has had
no update yet; repositories are read from a folder, so nothing of the transport is in it. CPU time of the process, which
other work on the machine changes far less than it changes time. Medians; the reference is SHA-256 over the bundle,
which every way of checking it needs.
"""

import contextlib
import hashlib
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from benchmarks._report import quick_asked, report
from benchmarks.update_fleet import make_policy
from contracts.bundle import verify_bundle
from contracts.canonical import digest_hex
from contracts.keyring import TRUSTED_FILE
from contracts.observation import ROUTING_LAYOUT
from contracts.provenance import TrustedKeys
from contracts.robot import AMR_SMALL
from contracts.trust import Wanted, facts_of
from edge_agent.update.golden import replay_golden
from tests.support.fleet import make_keys, make_manifest
from tests.support.trust import ORDER, ROBOT, World
from trainer.release.keys import load_signer
from trainer.release.pack import pack

CHECKS, CHECKS_QUICK = 200, 40
STAGES = {
    "bundle": "signatures, form, network and golden vectors of the bundle read and verified",
    "repositories": "both TUF repositories refreshed by python-tuf's client, targets and order compared, file hashed",
    "golden": "onnxruntime's session made, golden vectors replayed",
    "accept": "floor and TUF cache synced and swapped",
}


def check_once(world: World, bundle: Path, took_ms: dict[str, list[float]]) -> None:
    """One check of a robot that knows nothing yet, as ``check`` does it."""
    shutil.rmtree(world.state, ignore_errors=True)
    world.state.mkdir()
    keys, wanted = world.keys / "robots" / ROBOT, Wanted(digest_hex(world.bundles[0]), ORDER)
    marks = [time.process_time_ns()]
    trust = world.robot()
    verified = verify_bundle(bundle, TrustedKeys.load(keys / TRUSTED_FILE), ROUTING_LAYOUT.hash(), AMR_SMALL)
    marks.append(time.process_time_ns())
    trust.check(wanted, bundle, facts_of(verified.manifest))
    marks.append(time.process_time_ns())
    replay_golden(verified)
    marks.append(time.process_time_ns())
    trust.accept()
    marks.append(time.process_time_ns())
    for stage, began_ns, ended_ns in zip(STAGES, marks, marks[1:], strict=False):
        took_ms[stage].append((ended_ns - began_ns) / 1e6)
    began_ns = time.process_time_ns()
    hashlib.sha256(world.bundles[0]).digest()
    took_ms["sha256"].append((time.process_time_ns() - began_ns) / 1e6)


def main() -> None:
    """Measure and print."""
    checks = CHECKS_QUICK if quick_asked(__doc__.splitlines()[0]) else CHECKS
    with tempfile.TemporaryDirectory(prefix="outrider-check-") as name:
        folder = Path(name)
        with contextlib.redirect_stdout(sys.stderr):
            keys = make_keys(folder / "keys")
        policy, golden = make_policy()
        bundle = pack(make_manifest(version="v1", release_counter=1), policy, *golden, [load_signer(keys)])
        (folder / "world").mkdir()
        world = World.make(folder / "world", keys, (bundle,))
        took_ms: dict[str, list[float]] = defaultdict(list)
        for _ in range(checks):
            check_once(world, world.path(0), took_ms)
    middle = {stage: statistics.median(values) for stage, values in took_ms.items()}
    plain_ms = middle.pop("sha256")
    for stage, about in STAGES.items():
        report(f"update.check_{stage}_ms", middle[stage], "ms", "lower", plain_ms, f"CPU; {about}")
    about = f"CPU of a check, median of {checks}; the reference is one SHA-256 over its {len(bundle)} bytes"
    report("update.check_ms", sum(middle.values()), "ms", "lower", plain_ms, about)


if __name__ == "__main__":
    main()
