"""Who may drive: the robot's mode, and a person's approval. Kept over a restart; unreadable means the rules."""

from pathlib import Path
from typing import Annotated

import msgspec

from contracts.atomic import write_atomically
from contracts.decision import Mode

MODE_FILE = "mode.json"
FILE_MAX_BYTES = 4096
APPROVAL_MAX_S = 60.0
NS = 1_000_000_000


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    mode: Mode
    reason: Annotated[str, msgspec.Meta(max_length=200)] = ""


class Modes:
    """The tick reads, the services write: each value is one reference.

    Args:
        state_dir: where the mode is kept; None keeps it in memory alone.
    """

    def __init__(self, state_dir: Path | None = None) -> None:
        self._path = None if state_dir is None else state_dir / MODE_FILE
        self.fault = ""
        """Why the kept mode could not be read."""
        self.mode = self._read()
        self._approval: tuple[int, str] = (0, "")

    def policy_drives(self, digest: str, now_ns: int) -> bool:
        """Whether the policy of that digest may drive at monotonic ``now_ns``."""
        mode = self.mode
        return mode is Mode.CONTROLLER or (mode is Mode.ASSIST and self.approved_s(digest, now_ns) > 0.0)

    def approved_s(self, digest: str, now_ns: int) -> float:
        """How long the approval of the policy of that digest is still valid, s."""
        end_ns, approved = self._approval
        return (end_ns - now_ns) / NS if approved == digest and end_ns > now_ns else 0.0

    def switch(self, mode: int, reason: str, moves: str) -> str:
        """Change the mode; "" or why not.

        Args:
            mode: a ``Mode``.
            reason: who and why.
            moves: "" where the robot stands still, else what it does; into fallback always.
        """
        if mode not in set(Mode):
            known = ", ".join(f"{known.value} {known.name.lower()}" for known in Mode)
            return f"no mode {mode}; known: {known}"
        wanted = Mode(mode)
        if wanted is Mode.FALLBACK:
            # First the effect, then the disk: into fallback must always be possible.
            self._take(wanted)
        elif moves:
            return f"the robot {moves}; stop or disarm it first (into fallback it can go at any time)"
        try:
            self._write(_Kept(wanted, reason[:200]))
        except OSError as error:
            kept = "in fallback, but only until a restart" if wanted is Mode.FALLBACK else "mode unchanged"
            return f"{kept}: {self._path} cannot be written ({error.strerror}); free some space"
        self._take(wanted)
        return ""

    def approve(self, seconds: float, digest: str, now_ns: int) -> str:
        """Let the policy of that digest drive for so long; 0 ends the approval. "" or why not."""
        if not 0.0 <= seconds <= APPROVAL_MAX_S:
            return f"an approval lasts 0 to {APPROVAL_MAX_S:g} s, came {seconds:g}"
        if self.mode is not Mode.ASSIST:
            return f"the mode is {self.mode.name.lower()}; only assist asks for approval"
        if not digest:
            return "there is no policy to approve; load one first"
        self._approval = (now_ns + int(seconds * NS), digest)
        return ""

    def revoke(self) -> None:
        """End the approval: the robot was stopped or disarmed."""
        self._approval = (0, "")

    def _take(self, mode: Mode) -> None:
        self.revoke()
        self.mode = mode

    def _write(self, kept: _Kept) -> None:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, msgspec.json.encode(kept))

    def _read(self) -> Mode:
        if self._path is None:
            return Mode.CONTROLLER
        try:
            with self._path.open("rb") as file:
                return msgspec.json.decode(file.read(FILE_MAX_BYTES), type=_Kept).mode
        except FileNotFoundError:
            return Mode.CONTROLLER
        except (msgspec.MsgspecError, OSError) as error:
            self.fault = f"{self._path} is unreadable ({error}): fallback; set the mode again"
            return Mode.FALLBACK
