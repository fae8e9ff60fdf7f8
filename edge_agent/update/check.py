"""Checks a bundle file in a process of its own: ``python -m edge_agent.update.check BUNDLE KEYS MODEL``.

A child because it must not hold comms up, because a hostile file should meet a process that holds nothing,
and because onnxruntime's memory goes when it ends. Prints one line of JSON. Ends by itself within
CHECK_MAX_S.
"""

import os
import resource
import signal
import sys
from pathlib import Path

import msgspec

from contracts.bundle import verify_bundle
from contracts.errors import BundleError, ContractError
from contracts.keyring import TRUSTED_FILE
from contracts.observation import ROUTING_LAYOUT
from contracts.provenance import TrustedKeys
from contracts.robot import ROBOT_MODELS
from edge_agent.update.checker import CHECK_MAX_S, CheckResult
from edge_agent.update.slots import BundleFacts

CHECK_CPU_MAX_S = 30
NICENESS = 10


def check(path: Path, keys: Path, model_name: str) -> CheckResult:
    """Verify signatures, form, layout, robot and limits; then replay the golden vectors."""
    model = ROBOT_MODELS.get(model_name)
    if model is None:
        return CheckResult(
            None, "wrong_robot", f"no robot model {model_name!r}; known: {', '.join(ROBOT_MODELS)}"
        )
    try:
        trusted = TrustedKeys.load(keys / TRUSTED_FILE)
        bundle = verify_bundle(path, trusted, ROUTING_LAYOUT.hash(), model)
        from edge_agent.update.golden import (
            replay_golden,  # onnxruntime only after everything else has passed
        )

        replay_golden(bundle)
    except BundleError as error:
        return CheckResult(None, error.code, str(error))
    except ContractError as error:
        return CheckResult(None, "refused", str(error))
    manifest = bundle.manifest
    facts = BundleFacts(bundle.digest, manifest.policy_name, manifest.version, manifest.release_counter)
    return CheckResult(facts)


def main() -> None:
    """Entry point of the child."""
    os.nice(NICENESS)
    signal.alarm(CHECK_MAX_S)
    resource.setrlimit(resource.RLIMIT_CPU, (CHECK_CPU_MAX_S, CHECK_CPU_MAX_S))
    path, keys, model_name = sys.argv[1:]
    sys.stdout.buffer.write(msgspec.json.encode(check(Path(path), Path(keys), model_name)) + b"\n")


if __name__ == "__main__":
    main()
