"""Checks a bundle file in a process of its own: ``python -m edge_agent.update.check REQUEST`` (JSON).

A child because it must not hold comms up, because a hostile file should meet a process that holds nothing but the
robot's trust folder, and because onnxruntime's memory goes when it ends. Prints lines of JSON: what it wants fetched
(answered on standard input, see ``fetchers``), at last the result. Ends by itself within CHECK_MAX_S.
"""

import contextlib
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from contracts.bundle import verify_bundle
from contracts.errors import BundleError, ContractError
from contracts.keyring import TRUSTED_FILE
from contracts.observation import ROUTING_LAYOUT
from contracts.provenance import TrustedKeys
from contracts.robot import ROBOT_MODELS
from contracts.trust import TrustError, facts_of
from edge_agent.update.checker import CHECK_MAX_S, CheckRequest, CheckResult
from edge_agent.update.clock import boot_ns
from edge_agent.update.fetchers import Fetcher, FolderFetcher, PipeFetcher
from edge_agent.update.slots import BundleFacts
from edge_agent.update.trust import RobotTrust

CHECK_CPU_MAX_S = 30
CPU_GRACE_S = 5
"""Between the signal that says why (SIGXCPU) and the one that says nothing (SIGKILL), for who does not end by it."""
OOM_PATH = Path("/proc/self/oom_score_adj")
OOM_FIRST = b"1000"
"""Where memory runs out the check goes, never control; a process may always make itself more likely to go."""
NICENESS = 10


def check(
    request: CheckRequest, fetcher: Fetcher | None = None, wall_ns: Callable[[], int] = time.time_ns
) -> CheckResult:
    """Verify signatures, form, layout, robot and limits, then both repositories; then replay the golden vectors.

    ``fetcher`` brings the repositories' files: without one the folder of the request, else comms. ``wall_ns`` is the
    robot's own clock, for where the hub has told no time.
    """
    keys, path = Path(request.keys), Path(request.bundle)
    model = ROBOT_MODELS.get(request.model)
    if model is None:
        return CheckResult(
            None, "wrong_robot", f"no robot model {request.model!r}; known: {', '.join(ROBOT_MODELS)}"
        )
    if fetcher is None:
        fetcher = FolderFetcher(request.source) if request.source else PipeFetcher()
    told = request.time
    hub_ns = (lambda: told.at(boot_ns())) if told else None
    robot = request.wanted.order.robot
    trust = RobotTrust(Path(request.state), keys, robot, model, fetcher, wall_ns, hub_ns)
    try:
        trusted = TrustedKeys.load(keys / TRUSTED_FILE)
        bundle = verify_bundle(path, trusted, ROUTING_LAYOUT.hash(), model)
        trust.check(request.wanted, path, facts_of(bundle.manifest))
        from edge_agent.update.golden import (
            replay_golden,  # onnxruntime only after everything else has passed
        )

        replay_golden(bundle)
        trust.accept()
    except (BundleError, TrustError) as error:
        return CheckResult(None, error.code, str(error))
    except ContractError as error:
        return CheckResult(None, "refused", str(error))
    except OSError as error:
        return CheckResult(None, "disk", str(error))
    finally:
        trust.discard()
    manifest = bundle.manifest
    facts = BundleFacts(bundle.digest, manifest.policy_name, manifest.version, manifest.release_counter)
    return CheckResult(facts)


def main() -> None:
    """Entry point of the child."""
    os.nice(NICENESS)
    signal.alarm(CHECK_MAX_S)
    resource.setrlimit(resource.RLIMIT_CPU, (CHECK_CPU_MAX_S, CHECK_CPU_MAX_S + CPU_GRACE_S))
    with contextlib.suppress(OSError):  # a container may not have it
        OOM_PATH.write_bytes(OOM_FIRST)
    request = msgspec.json.decode(sys.argv[1], type=CheckRequest)
    sys.stdout.buffer.write(msgspec.json.encode(check(request)) + b"\n")


if __name__ == "__main__":
    main()
