"""Starts the checking child, passes on what it wants fetched, and takes its result. Never waits."""

import contextlib
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from contracts.messages import FetchFile, FileChunk
from contracts.trust import Wanted
from edge_agent.update.clock import VerifiedTime
from edge_agent.update.slots import BundleFacts

CHECK_MAX_S = 60
OUTPUT_MAX_BYTES = 256 * 1024
"""Of everything that the child says."""
GRACE_S = 5
CHECK_KILLED = "check_killed"
"""Somebody ended the child, or memory ran out, or a busy machine gave it too little time: it may be tried again."""
CHECK_COSTLY = "check_costly"
"""The child has used up the CPU time that a check may take, however busy the machine: that is the bundle's doing."""
OUTSIDE = (signal.SIGKILL, signal.SIGALRM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What ends a check that is not at fault; the last three go to all of an agent's processes when it is stopped."""
LENGTH = struct.Struct("<I")
"""Before each answer on the child's standard input."""


class CheckRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the child is told. ``source`` is a folder with repositories; without one it asks the hub."""

    bundle: str
    keys: str
    model: str
    state: str
    wanted: Wanted
    source: str = ""
    time: VerifiedTime | None = None
    """What the hub told, where it has."""


class CheckResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What came out: facts when all is well, else a code and a reason."""

    facts: BundleFacts | None
    code: str = ""
    reason: str = ""


class Checker(Protocol):
    """Checks a bundle file beside us."""

    def start(self, path: Path, now_ns: int, wanted: Wanted) -> None:
        """Begin."""

    def question(self) -> FetchFile | None:
        """Metadata that it wants from the hub; each question once."""

    def answer(self, chunk: FileChunk) -> None:
        """What the hub has of it."""

    def result(self, now_ns: int) -> CheckResult | None:
        """None while it lasts."""

    def cancel(self) -> None:
        """End it."""


class BundleChecker:
    """One check at a time."""

    def __init__(
        self,
        keys: Path,
        model_name: str,
        state: Path,
        source: Path | str = "",
        hub_time: Callable[[], VerifiedTime | None] = lambda: None,
    ) -> None:
        """``keys`` is the robot's own key folder, ``source`` a stick or URL to take metadata from in the hub's place.

        ``hub_time`` is what the hub told last.
        """
        self._hub_time = hub_time
        self._own = str(keys), model_name, str(state)
        self._source = str(source)
        self._child: subprocess.Popen[bytes] | None = None
        self._started_ns = 0
        self._output = b""
        self._said = 0

    def start(self, path: Path, now_ns: int, wanted: Wanted) -> None:
        """Begin to check ``path``; a check that still runs is ended."""
        self.cancel()
        self._started_ns, self._output, self._said = now_ns, b"", 0
        request = CheckRequest(str(path), *self._own, wanted, self._source, self._hub_time())
        self._child = subprocess.Popen(
            [sys.executable, "-m", "edge_agent.update.check", msgspec.json.encode(request).decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._child.stdout is not None
        os.set_blocking(self._child.stdout.fileno(), False)

    def question(self) -> FetchFile | None:
        """What the child wants from the hub; each question comes once."""
        self._listen()
        line, found, rest = self._output.partition(b"\n")
        if not found or not line.startswith(b"["):
            return None
        try:
            question = msgspec.json.decode(line, type=FetchFile)
        except msgspec.MsgspecError:
            return None
        self._output = rest
        return question

    def answer(self, chunk: FileChunk) -> None:
        """The hub's answer, smaller than what the pipe holds: the child reads it all before it asks again."""
        child = self._child
        if child is None or child.stdin is None:
            return
        data = msgspec.msgpack.encode(chunk)
        try:
            child.stdin.write(LENGTH.pack(len(data)) + data)
            child.stdin.flush()
        except OSError:
            return  # it has ended; its result says why

    def result(self, now_ns: int) -> CheckResult | None:
        """The result; None while the child still works."""
        child = self._child
        if child is None:
            return CheckResult(None, "check_failed", "no check has been started")
        self._listen()
        if child.poll() is None:
            if now_ns - self._started_ns < (CHECK_MAX_S + GRACE_S) * 1_000_000_000:
                return None
            self.cancel()
            return CheckResult(None, CHECK_KILLED, f"the check did not end within {CHECK_MAX_S} s")
        self._listen()
        output, code = self._output, child.returncode
        self.cancel()
        try:
            return msgspec.json.decode(output, type=CheckResult)
        except msgspec.MsgspecError:
            return CheckResult(None, _why_ended(code), f"the checking process ended with code {code}")

    def cancel(self) -> None:
        """End a check that still runs."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for stream in (self._child.stdin, self._child.stdout):
                if stream:
                    with contextlib.suppress(OSError):  # an answer that it did not read
                        stream.close()
            self._child = None

    def _listen(self) -> None:
        """Take what the child has said; one that says too much is ended."""
        if self._child is None or self._child.stdout is None:
            return
        while block := self._child.stdout.read(OUTPUT_MAX_BYTES):
            self._output += block
            self._said += len(block)
            if self._said > OUTPUT_MAX_BYTES:
                self._child.kill()
                return


def _why_ended(code: int) -> str:
    if -code in OUTSIDE:
        return CHECK_KILLED
    return CHECK_COSTLY if code == -signal.SIGXCPU else "check_failed"
