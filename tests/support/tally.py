"""A campaign that is run in several goes: what each did is a line of JSON in a file, and the next goes on from the sum.

``OUTRIDER_TALLY=FOLDER`` keeps FOLDER/NAME.jsonl; without it nothing is kept and a campaign is one go. Failures are
lines too: a sum never hides that a go ended badly. ``OUTRIDER_CAMPAIGN_S`` ends a go early, between two rounds.
"""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

LINES_MAX = 100_000


class Tally:
    """What has been counted towards ``goal``, in this go and those before."""

    def __init__(
        self, name: str, goal: int, folder: str | None = None, time_max_s: float | None = None
    ) -> None:
        """Read what was done before. ``folder`` and ``time_max_s`` are the environment's where they are not given."""
        folder = os.environ.get("OUTRIDER_TALLY", "") if folder is None else folder
        given_s = os.environ.get("OUTRIDER_CAMPAIGN_S", "") if time_max_s is None else str(time_max_s)
        self.name, self.goal = name, goal
        self.path = Path(folder) / f"{name}.jsonl" if folder else None
        self._began_s, self._time_max_s = time.monotonic(), float(given_s or "inf")
        self._lines: list[dict[str, Any]] = []
        if self.path is not None and self.path.exists():
            self._lines = [json.loads(line) for line in self.path.read_text().splitlines()[-LINES_MAX:]]
        self.goes_before = len({line["go"] for line in self._lines})

    @property
    def done(self) -> int:
        """Counted so far, of all goes."""
        return sum(line["count"] for line in self._lines)

    @property
    def left(self) -> int:
        """What this go still has to do: nothing when its time is over."""
        over = time.monotonic() - self._began_s > self._time_max_s
        return 0 if over else max(0, self.goal - self.done)

    def add(self, count: int, **what: Any) -> None:
        """A round ended well."""
        self._append({"count": count, **what})

    def fail(self, error: BaseException) -> None:
        """A round ended badly; what it did does not count."""
        self._append({"count": 0, "failed": f"{type(error).__name__}: {error}"[:2000]})

    def text(self) -> str:
        """Progress in a line."""
        commits = {line["commit"] for line in self._lines}
        failed = sum("failed" in line for line in self._lines)
        where = f" ({self.path}; remove it to begin anew)" if self.path else ""
        return (
            f"{self.name}: {self.done} of {self.goal} in {len({line['go'] for line in self._lines})} go(es) of "
            f"{len(commits)} commit(s), {failed} round(s) failed{where}"
        )

    def _append(self, line: dict[str, Any]) -> None:
        """Written at once: a go that is killed has counted all its rounds but the last."""
        line = {"go": self.goes_before + 1, "commit": _commit(), "wall_s": round(time.time()), **line}
        self._lines.append(line)
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")


def _commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip()
