"""What a whole agent costs: its three processes, real ROS 2, driving a simulated robot at 20 Hz.

``python -m benchmarks.agent_footprint [--quick]``. Prints JSON lines. The robot (scans and odometry at 10 Hz over
real DDS) is a process of its own and not counted. Memory is PSS: pages shared with other processes count in part.
"""

import tempfile
import time
from pathlib import Path

import psutil
import pytest

from benchmarks._report import quick_asked, report
from tests.support.agent import LiveAgent
from tests.support.fleet import make_bundle, make_keys

SECONDS, SECONDS_QUICK = 120.0, 15.0
SETTLE_S = 3.0


def cpu_s(processes: list[psutil.Process]) -> float:
    """Processor time of all, user and system, s."""
    times = [process.cpu_times() for process in processes]
    return float(sum(one.user + one.system for one in times))


def measure(live: LiveAgent, keys: Path, folder: Path, seconds: float) -> None:
    """Have a policy drive, then measure and print."""
    from safety.config import MonitorConfig

    live.start()
    path = folder / "v1.outrider"
    path.write_bytes(make_bundle(keys, monitor_hash=MonitorConfig().hash()))
    loaded = live.client().load(str(path))
    assert loaded.accepted, loaded.message
    answer = live.client().arm("benchmark")
    assert answer.success, answer.message
    assert live.process is not None
    supervisor = psutil.Process(live.process.pid)
    agent = [supervisor, live.child("control"), live.child("comms")]
    names = ("supervisor", "control", "comms")
    time.sleep(SETTLE_S)
    ticks, before = live.status()["decision"].tick, [cpu_s([process]) for process in agent]
    began_s = time.monotonic()
    time.sleep(seconds)
    elapsed_s = time.monotonic() - began_s
    spent = [cpu_s([process]) - was for process, was in zip(agent, before, strict=True)]
    memory = [process.memory_full_info().pss / 1e6 for process in agent]
    decision = live.status()["decision"]
    rate_hz = (decision.tick - ticks) / elapsed_s
    shares = ", ".join(f"{name} {part / elapsed_s:.3f}" for name, part in zip(names, spent, strict=True))
    about = f"of one core at {rate_hz:.1f} ticks/s, policy {decision.policy_digest[:8]}: {shares}"
    report("agent.cpu_core_fraction", sum(spent) / elapsed_s, "cores", "lower", about=about)
    shares = ", ".join(f"{name} {part:.0f}" for name, part in zip(names, memory, strict=True))
    report("agent.rss_mb", sum(memory), "MB", "lower", about=f"PSS: {shares}")
    report("agent.missed", decision.ticks_missed, "ticks", "lower")


def main() -> None:
    """Set up, measure, clean up."""
    quick = quick_asked(__doc__ or "")
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as environment:
        folder = Path(name)
        keys = make_keys(folder / "keys")
        live = LiveAgent(folder, keys, environment)
        try:
            measure(live, keys, folder, SECONDS_QUICK if quick else SECONDS)
        finally:
            live.close()


if __name__ == "__main__":
    main()
