"""ROS domains for tests."""

import os
import random

DOMAIN_MAX = 100
"""Above it, DDS ports lie among the kernel's ephemeral ones."""
WORKERS = 2


def domain_id() -> int:
    """A domain at random, out of those that only this worker of the suite draws from."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
    return 1 + worker + WORKERS * random.SystemRandom().randrange(DOMAIN_MAX // WORKERS)
