"""Which policies are being tried, on disk: whoever ends the control process is not tried for ever.

A mark is durable before a policy's network first runs here, and goes when its trial is over, however that ended. One
that is still there at the next start was left by a process that died: a crash, a hang that the supervisor ended, or
a power cut.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec

from contracts.atomic import write_atomically
from contracts.manifest import Digest

STARTS_FILE = "starts.json"
TRIES_MAX = 2
KEPT_MAX = 32
FILE_MAX_BYTES = 64 * 1024
Marks = dict[Digest, Annotated[int, msgspec.Meta(ge=1)]]


class StartStore:
    """STATE/slots/starts.json: how often each policy was begun and not ended; only the loader's thread writes.

    Args:
        state_dir: the robot's state folder.
        tell: told in words what could not be read or written.
    """

    def __init__(self, state_dir: Path, tell: Callable[[str], None]) -> None:
        self._path, self._tell = state_dir / "slots" / STARTS_FILE, tell
        self._marks = self._read()

    def begin(self, digest: str) -> str:
        """Mark it, durably; "" or why it must not run again.

        Raises:
            OSError: the mark cannot be written.
        """
        before = self._marks.pop(digest, 0)
        self._marks[digest] = min(before + 1, TRIES_MAX)
        if before >= TRIES_MAX:
            return f"the control process ended without a word in {before} of {before} trials of it"
        while len(self._marks) > KEPT_MAX:
            del self._marks[next(iter(self._marks))]
        self._write()
        return ""

    def end(self, digest: str) -> None:
        """Its trial is over, and this process lives; or someone wants it tried anew."""
        if self._marks.pop(digest, None) is None:
            return
        try:
            self._write()
        except OSError as error:
            self._tell(f"{self._path} cannot be written ({error.strerror}); free some space")

    def _write(self) -> None:
        write_atomically(self._path, msgspec.json.encode(self._marks))

    def _read(self) -> Marks:
        try:
            with self._path.open("rb") as file:
                return msgspec.json.decode(file.read(FILE_MAX_BYTES), type=Marks)
        except FileNotFoundError:
            return {}
        except (msgspec.MsgspecError, UnicodeDecodeError, OSError) as error:
            self._tell(f"{self._path} is unreadable ({error}): crashes of policies are counted anew")
            return {}
