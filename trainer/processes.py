"""Worker processes that never outlive who started them."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


def interrupt_with_parent() -> None:
    """In a worker: be interrupted as by Ctrl-C when the parent is gone, even by ``kill -9``; work is put away first."""
    _watch(lambda: os.kill(os.getpid(), signal.SIGINT))


def run_for_parent(job: Callable[..., Result], *arguments: Any) -> Result:
    """In a worker of a pool: do one job; where the parent is gone, end after it, whatever else is queued."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "for workers only"
    try:
        return job(*arguments)
    finally:
        if not parent.is_alive():
            os._exit(1)


def end_with_parent() -> None:
    """In a worker: end at once when the parent is gone; Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _watch(lambda: os._exit(1))


def _watch(then: Callable[[], None]) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "for workers only"

    def wait() -> None:
        parent.join()
        then()

    threading.Thread(target=wait, daemon=True).start()
