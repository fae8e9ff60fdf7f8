"""A control process whose policy v2 ends it: ``python -m tests.support.crashing_control STATE KEYS HOW CALLS [END_S]``.

Loader, ladder, slots and mailbox are the real ones; only the network's native code is made to crash, at a call of its
own. Ends by itself when the loader has said what became of the candidate, or after ``END_S`` without one.
"""

import os
import signal
import sys
import time
from pathlib import Path

from contracts.robot import AMR_SMALL
from edge_agent.infer.loader import PolicyLoader
from edge_agent.infer.policy import Policy
from edge_agent.infer.proposer import Floats
from edge_agent.infer.trial import TrialConfig
from safety.config import MonitorConfig
from tests.support.agent import Bench

END_S = 20.0
HOWS = {"segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV), "exit": lambda: os._exit(0)}


def main() -> None:
    """Drive until the candidate's fate is known."""
    state, keys, how, at_call = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    run, calls = Policy.run, 0

    def crash(self: Policy, observation: Floats) -> tuple[float, float]:
        nonlocal calls
        if self.version == "v2":
            calls += 1
            if calls == at_call:
                HOWS[how]()
        return run(self, observation)

    Policy.run = crash  # type: ignore[method-assign]
    bench = Bench(TrialConfig(shadow_ticks=4, probation_ticks=10))
    told: list[str] = []
    loader = PolicyLoader(state, keys, AMR_SMALL, MonitorConfig().hash(), bench.ladder, told.append)
    loader.load_committed()
    loader.start()
    end_s = time.monotonic() + (float(sys.argv[5]) if len(sys.argv) > 5 else END_S)
    while time.monotonic() < end_s and not any("candidate" in line or "accepted" in line for line in told):
        bench.drive(1)
        time.sleep(0.001)
    loader.close()
    policy = bench.ladder.policy
    print("\n".join([*told, f"drives {policy.version if policy else 'rules'}"]))


if __name__ == "__main__":
    main()
