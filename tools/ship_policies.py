#!/usr/bin/env python3
"""Take trained seeds into a folder of policies: each network as ONNX, its entropy noted, and what it was trained from.

.venv/bin/python tools/ship_policies.py build/policies trainer/policies
"""

import sys
from pathlib import Path

import msgspec
import torch

from contracts.atomic import write_atomically
from contracts.canonical import digest_hex
from trainer.export.onnx import DeployedPolicy, export_onnx
from trainer.learning.checkpoint import load_policy
from trainer.learning.facts import run_provenance
from trainer.learning.run import RunFolder


def main() -> int:
    """Export every ``seed-K`` of a folder of runs into another folder; returns the exit code."""
    folders = sorted(Path(sys.argv[1]).glob("seed-*")) if len(sys.argv) == 3 else []
    if not folders:
        print(__doc__, file=sys.stderr)
        return 2
    policies = Path(sys.argv[2])
    torch.set_num_threads(1)
    record = {}
    for folder in folders:
        run = RunFolder.open(folder)
        policy = DeployedPolicy(load_policy(run), run.config.robot)
        network = export_onnx(policy)
        write_atomically(policies / f"{folder.name}.onnx", network)
        last = run.curve()[-1]
        record[folder.name] = {
            "network": digest_hex(network),
            "trained": msgspec.to_builtins(run_provenance(run)),
            "last_point": msgspec.to_builtins(last),
            "cpu": run.facts()["cpu"],
            "entropy_nats": policy.entropy_nats,
        }
        print(
            f"{folder.name}: {len(network)} bytes, {last.steps:,} steps, success {last.success:.1%} in training,"
            f" entropy {policy.entropy_nats} nats"
        )
    write_atomically(policies / "runs.json", msgspec.json.format(msgspec.json.encode(record)) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
