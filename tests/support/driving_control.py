"""Control without ROS and without a robot: ``python -m tests.support.driving_control STATE KEYS``, until it is killed.

Loader, ladder, trial, slots and mailbox are the real ones. Says ``drives VERSION`` on standard output when it starts
and whenever another policy drives.
"""

import sys
import time
from pathlib import Path

from contracts.robot import AMR_SMALL
from edge_agent.infer.loader import PolicyLoader
from edge_agent.infer.trial import TrialConfig
from safety.config import MonitorConfig
from tests.support.agent import Bench

TICK_S = 0.01


def main() -> None:
    """Drive for ever."""
    state, keys = Path(sys.argv[1]), Path(sys.argv[2])
    forgiving = TrialConfig(shadow_ticks=3, probation_ticks=6, slow_max=100_000, interventions_extra=100_000)
    bench = Bench(forgiving)
    loader = PolicyLoader(
        state, keys, AMR_SMALL, MonitorConfig().hash(), bench.ladder,
        lambda text: print(f"told {text}", file=sys.stderr, flush=True),
    )  # fmt: skip
    loader.load_committed()
    loader.start()
    said = None
    while True:
        policy = bench.ladder.policy
        if said is None or (policy and policy.version != said):
            said = policy.version if policy else "rules"
            print(f"drives {said}", flush=True)
        bench.drive(1)
        time.sleep(TICK_S)


if __name__ == "__main__":
    main()
