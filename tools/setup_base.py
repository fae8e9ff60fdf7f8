"""What the steps of `tools/setup.py` share: running tools, remembering what is done, saying what is missing.

Standard library only, for it runs before anything is installed. Never decides what a step does.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GUARD = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"
STAMP_VERSION = 1
COMMAND_TIMEOUT_S = 3600
TAIL_LINES = 12
NOISE = ("it is neither a file nor a directory", "Requirement already satisfied", "[notice]")


class SetupError(Exception):
    """A step failed; the message says what and what to do."""


def clean_environment(environment: dict[str, str]) -> dict[str, str]:
    """`environment` without what a ROS wheel of another venv left in it.

    Those wheels re-execute Python once with LD_LIBRARY_PATH set and mark that in a variable that children
    inherit: another venv's Python would believe itself set up, and load the first venv's libraries.
    """
    cleaned = dict(environment)
    if cleaned.pop(GUARD, None):
        entries = [e for e in cleaned.pop("LD_LIBRARY_PATH", "").split(os.pathsep) if e]
        bundled = re.compile(r"/site-packages/ros_\w+\.libs/?$")
        kept = [e for e in entries if not (Path(e).parent / "pyvenv.cfg").exists() and not bundled.search(e)]
        if kept:
            cleaned["LD_LIBRARY_PATH"] = os.pathsep.join(kept)
    for name in ("PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"):
        cleaned.pop(name, None)
    cleaned["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    return cleaned


def succeeds(command: list[str], environment: dict[str, str]) -> bool:
    """Whether a command exists and exits with 0."""
    try:
        return subprocess.run(command, capture_output=True, timeout=60, env=environment).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def version_of(python: str, environment: dict[str, str]) -> str:
    """The major.minor version of a Python; empty when it does not run."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        answer = subprocess.run(
            [python, "-c", code], capture_output=True, text=True, timeout=30, env=environment
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def digest(paths: list[Path], *more: str) -> str:
    """SHA-256 over the names and contents of files, and more."""
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{path.relative_to(ROOT)}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    for text in more:
        total.update(f"{text}\0".encode())
    return total.hexdigest()


class Log:
    """One line a step on the terminal; everything the tools print in a file."""

    def __init__(self) -> None:
        self.file: Path | None = None
        self.started_s = time.monotonic()
        self.live = sys.stdout.isatty()

    def step(self, name: str, text: str) -> None:
        """A finished or skipped step."""
        elapsed_s = time.monotonic() - self.started_s
        print(f"{self.wipe()}setup: {name:<9} {text} [{elapsed_s:.1f} s]", flush=True)
        self.started_s = time.monotonic()

    def begin(self, name: str, text: str) -> None:
        """A step that takes a while."""
        print(f"setup: {name:<9} {text} ...", flush=True)

    def progress(self, line: str) -> None:
        """The newest line of a running tool, on a terminal only."""
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            print(f"{self.wipe()}       {line.strip()}"[: width + 4], end="", flush=True)

    def wipe(self) -> str:
        """What clears the progress line."""
        return "\r\x1b[K" if self.live else ""


class Steps:
    """Runs the tools of all steps for one venv and keeps the stamps of what is done."""

    def __init__(self, venv: Path, check: bool) -> None:
        self.venv, self.check = venv, check
        self.stamp_file = venv / ".outrider-setup.json"
        self.environment = clean_environment(dict(os.environ))
        self.log = Log()
        self.stamps: dict[str, str] = {}
        self.missing: list[str] = []

    def run(self, command: list[str], what: str, hint: str, **extra: str) -> None:
        """Run `command`, its output to the log; on failure say `what`, its last lines and `hint`."""
        tail: list[str] = []
        self.log.file = self.venv / "setup.log" if self.venv.exists() else None
        try:
            with (self.log.file or Path(os.devnull)).open("a", encoding="utf-8") as log_file:
                print("$", " ".join(command), file=log_file, flush=True)
                process = subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                    errors="replace", cwd=ROOT, env={**self.environment, **extra},
                )  # fmt: skip
                assert process.stdout is not None
                try:
                    for line in process.stdout:
                        log_file.write(line)
                        if line.strip() and not any(noise in line for noise in NOISE):
                            tail = [*tail[-TAIL_LINES:], line.rstrip()]
                            self.log.progress(line)
                    code = process.wait(timeout=COMMAND_TIMEOUT_S)
                finally:
                    if process.poll() is None:
                        process.kill()
        except OSError as error:
            raise SetupError(f"{what}: {error}; {hint}") from error
        if code != 0:
            last = "".join(f"\n    | {line}" for line in tail)
            where = f" (all of it: {self.log.file})" if self.log.file else ""
            raise SetupError(f"{what} failed with exit code {code}: {hint}{where}{last}")

    def read_stamps(self) -> None:
        """What is done already; nothing, when an older set-up wrote it or the venv was moved."""
        self.stamps = json.loads(self.stamp_file.read_text()) if self.stamp_file.exists() else {}
        if self.stamps.get("version") != str(STAMP_VERSION) or self.stamps.get("venv") != str(self.venv):
            self.stamps = {"version": str(STAMP_VERSION), "venv": str(self.venv)}

    def is_done(self, step: str, stamp: str, *evidence: Path) -> bool:
        """Whether `step` was done for exactly this input and its results are still there."""
        return self.stamps.get(step) == stamp and all(path.exists() for path in evidence)

    def done(self, step: str, stamp: str) -> None:
        """Remember that `step` is done; atomically, so that an interruption leaves the old truth."""
        self.stamps[step] = stamp
        scratch = self.stamp_file.with_suffix(".new")
        scratch.write_text(json.dumps(self.stamps, indent=1))
        scratch.replace(self.stamp_file)

    def would(self, step: str, what: str) -> bool:
        """In --check: note that `step` is outstanding and return True, so that it is not done."""
        if self.check:
            self.missing.append(step)
            self.log.step(step, f"MISSING: {what}")
        return self.check

    def apt(self, packages: list[str], why: str) -> None:
        """Install Debian packages, or say exactly what to type."""
        command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
        by_hand = f"{why}: run 'sudo apt-get update && sudo {' '.join(command)}', then this again"
        if not shutil.which("apt-get"):
            raise SetupError(f"{why}: install {', '.join(packages)} with your system's package manager")
        if os.geteuid() == 0:
            prefix: list[str] = []
        elif shutil.which("sudo") and succeeds(["sudo", "-n", "true"], self.environment):
            prefix = ["sudo", "-n"]
        else:
            raise SetupError(by_hand)
        self.log.begin("debian", f"installing {' '.join(packages)}")
        no_prompt = {"DEBIAN_FRONTEND": "noninteractive"}
        self.run([*prefix, "apt-get", "update"], "apt-get update", by_hand, **no_prompt)
        self.run([*prefix, *command], "apt-get install", by_hand, **no_prompt)
        self.log.step("debian", f"installed {' '.join(packages)}")
