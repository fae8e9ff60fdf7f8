"""What the kernel may do for a control loop: a real-time scheduler, locked memory, cores of its own.

Each is tried by itself; what is not permitted is said in one line and left out.
"""

import ctypes
import os
from collections.abc import Callable

PRIORITY = -10
"""Niceness of the control process: ahead of comms and of whatever else runs on the robot."""
FIFO_PRIORITY = 40
"""Below the kernel's own interrupt threads (50)."""
MCL_CURRENT, MCL_FUTURE = 1, 2


def raise_priority() -> None:
    """Go before other processes; raises OSError where that is not permitted (root, CAP_SYS_NICE, systemd's Nice=)."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    except OSError:
        if os.getpriority(os.PRIO_PROCESS, 0) > PRIORITY:
            raise


def use_fifo() -> None:
    """SCHED_FIFO for the calling thread and those it starts; raises OSError."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(FIFO_PRIORITY))


def lock_memory() -> None:
    """Keep all pages in memory, present and future (mlockall(2)); raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(MCL_CURRENT | MCL_FUTURE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def prepare(realtime: bool, cpus: tuple[int, ...], say: Callable[[str], None]) -> list[str]:
    """Do what is asked for and permitted; returns what was done, ``say`` gets a line for each that was not.

    Args:
        realtime: SCHED_FIFO and locked memory, not priority alone.
        cpus: the cores to run on; empty leaves them.
        say: takes one line.
    """
    wanted: list[tuple[str, Callable[[], None]]] = [(f"priority {PRIORITY}", raise_priority)]
    if cpus:
        wanted.append((f"cores {', '.join(map(str, cpus))}", lambda: os.sched_setaffinity(0, cpus)))
    if realtime:
        wanted += [(f"SCHED_FIFO {FIFO_PRIORITY}", use_fifo), ("locked memory", lock_memory)]
    done = []
    for what, attempt in wanted:
        try:
            attempt()
            done.append(what)
        except OSError as error:
            say(f"no {what} ({error.strerror}); ticks may be late on a busy machine")
    return done
