"""Starts the checking child and asks for its result without waiting."""

import subprocess
import sys
from pathlib import Path

import msgspec

from edge_agent.update.slots import BundleFacts

CHECK_MAX_S = 60
RESULT_MAX_BYTES = 64 * 1024
GRACE_S = 5


class CheckResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What came out: facts when all is well, else a code and a reason."""

    facts: BundleFacts | None
    code: str = ""
    reason: str = ""


class BundleChecker:
    """One check at a time."""

    def __init__(self, keys: Path, model_name: str) -> None:
        """``keys`` is the robot's own key folder."""
        self._arguments = [str(keys), model_name]
        self._child: subprocess.Popen[bytes] | None = None
        self._started_ns = 0

    def start(self, path: Path, now_ns: int) -> None:
        """Begin to check ``path``; a check that still runs is ended."""
        self.cancel()
        self._started_ns = now_ns
        self._child = subprocess.Popen(
            [sys.executable, "-m", "edge_agent.update.check", str(path), *self._arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def result(self, now_ns: int) -> CheckResult | None:
        """The result; None while the child still works."""
        child = self._child
        if child is None:
            return CheckResult(None, "check_failed", "no check has been started")
        if child.poll() is None:
            if now_ns - self._started_ns < (CHECK_MAX_S + GRACE_S) * 1_000_000_000:
                return None
            self.cancel()
            return CheckResult(None, "check_failed", f"the check did not end within {CHECK_MAX_S} s")
        assert child.stdout is not None
        output = child.stdout.read(RESULT_MAX_BYTES)
        child.stdout.close()
        self._child = None
        try:
            return msgspec.json.decode(output, type=CheckResult)
        except msgspec.MsgspecError:
            return CheckResult(
                None, "check_failed", f"the checking process ended with code {child.returncode}"
            )

    def cancel(self) -> None:
        """End a check that still runs."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            if self._child.stdout:
                self._child.stdout.close()
            self._child = None
