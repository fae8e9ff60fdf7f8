"""The source tree that this was started from, where there is one."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GIT_MAX_S = 10.0


def git(*arguments: str) -> str:
    """Git's answer, run in the source tree; empty where there is none, and where it takes too long."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=GIT_MAX_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
