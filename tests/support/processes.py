"""For tests that start whole programs: in a session of their own, and nothing left when the test ends."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path


def run(
    command: list[str], timeout_s: float, cwd: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run to its end, output kept; on a time-out, or when the test ends, its whole session is killed."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=cwd, env=environment, start_new_session=True,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=timeout_s)
    finally:
        kill_session(process)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def kill_session(process: "subprocess.Popen[str]") -> None:
    """Kill what is left of a session that :func:`run` or a test began with ``process``."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with process:  # closes the pipes, waits
        pass


def mentioning(text: str) -> list[str]:
    """``PID COMMAND`` of every other process with ``text`` in its command line or its environment."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # it has ended meanwhile, or is somebody else's
            command = (folder / "cmdline").read_bytes()
            if text.encode() in command + (folder / "environ").read_bytes():
                found.append(f"{folder.name} {command.replace(bytes(1), b' ').decode(errors='replace')}")
    return found
