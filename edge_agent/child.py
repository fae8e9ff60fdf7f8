"""Runs a module as a child that ends with its parent: ``python -m edge_agent.child PARENT_PID MODULE ...``.

The child itself asks the kernel for it (no ``preexec_fn``, which is not safe beside threads).
"""

import ctypes
import os
import runpy
import signal
import sys

PR_SET_PDEATHSIG = 1


def end_with_parent(parent_pid: int) -> None:
    """Have the kernel send SIGTERM when the parent ends; exit at once when it has ended already."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        print(
            "outrider: prctl(PR_SET_PDEATHSIG) failed; the child may outlive its supervisor", file=sys.stderr
        )
    if os.getppid() != parent_pid:
        sys.exit(1)


def main() -> None:
    """Entry point of the child."""
    end_with_parent(int(sys.argv[1]))
    module = sys.argv[2]
    sys.argv = [module, *sys.argv[3:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
