"""The processes of the demonstration: started, watched, and all gone when it ends, however it ends."""

import ctypes
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType

PR_SET_PDEATHSIG = 1
STOP_MAX_S = 12.0
OPERATOR_NICENESS = 5
_libc = ctypes.CDLL(None, use_errno=True)


class DemoError(Exception):
    """A step of the demonstration failed; the message says which and where to look."""


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _stand_back() -> None:
    """For an operator's command: in a fleet it runs on another machine than the robots."""
    _die_with_parent()
    os.nice(OPERATOR_NICENESS)


class Children:
    """Long-running processes, stopped in reverse order of their start. A context manager.

    Args:
        logs: folder for their output, a file each.
        environment: theirs.
    """

    def __init__(self, logs: Path, environment: dict[str, str]) -> None:
        self._logs = logs
        self.environment = environment
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *arguments: str, module: str = "outrider.cli") -> None:
        """Start ``outrider ARGUMENTS`` (or another module) in the background, in a session of its own."""
        with (self._logs / f"{name}.log").open("wb") as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def run(self, *arguments: str, quiet: bool = True, timeout_s: float = 900.0) -> str:
        """Run ``outrider ARGUMENTS`` to its end; returns its output.

        Args:
            quiet: keep its standard error too; otherwise it goes to the terminal, with its progress bar.
            timeout_s: longest time it may take.

        Raises:
            DemoError: it failed; with its last line.
        """
        process = subprocess.Popen(
            [sys.executable, "-m", "outrider.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if quiet else None,
            env=self.environment,
            start_new_session=True,
            preexec_fn=_stand_back,
        )
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            _stop(process)
            raise DemoError(f"`outrider {' '.join(arguments)}` took longer than {timeout_s:.0f} s") from None
        except BaseException:
            _stop(process)
            raise
        if process.returncode:
            lines = (err or out or b"").decode(errors="replace").strip().splitlines()
            detail = lines[-1] if lines else f"exit code {process.returncode}"
            raise DemoError(f"`outrider {' '.join(arguments)}` failed: {detail}")
        return out.decode()

    def check(self) -> None:
        """DemoError when a background process has ended by itself."""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise DemoError(f"{name} ended with code {process.returncode}; see {self._logs / name}.log")

    def stop(self, name: str) -> None:
        """Ask one to stop, wait for it, and kill it only when it will not."""
        process = self._running.pop(name, None)
        if process is not None:
            _stop(process)

    def finish(self, name: str, timeout_s: float) -> tuple[int, str]:
        """Wait for one to end by itself; its exit code, and the last line it wrote.

        Raises:
            DemoError: it does not end in time.
        """
        process = self._running[name]
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise DemoError(
                f"{name} did not end within {timeout_s:.0f} s; see {self._logs / name}.log"
            ) from None
        del self._running[name]
        lines = (self._logs / f"{name}.log").read_text(errors="replace").strip().splitlines()
        return code, lines[-1] if lines else ""

    def refused(self, *arguments: str) -> str:
        """Run ``outrider ARGUMENTS``, which must refuse; what it said.

        Raises:
            DemoError: it did not.
        """
        try:
            self.run(*arguments)
        except DemoError as error:
            return str(error).partition("failed: ")[2].removeprefix("outrider: ")
        raise DemoError(f"`outrider {' '.join(arguments[:2])}` was to be refused, and was not")

    def pid(self, name: str) -> int:
        """Process id of a running one."""
        return self._running[name].pid

    def __enter__(self) -> "Children":
        """Nothing is running yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all, newest first. A second Ctrl-C meanwhile does not leave any behind."""
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            for name in reversed(list(self._running)):
                self.stop(name)
        finally:
            signal.signal(signal.SIGINT, before)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_MAX_S)
        except subprocess.TimeoutExpired:
            _kill_session(process.pid)
            process.wait()


def _kill_session(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
