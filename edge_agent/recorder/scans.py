"""Raw scans of the last half minute, in memory: an incident writes them and what comes in the half minute after it."""

from collections import deque
from collections.abc import Sequence

from contracts.scan import arrival_ns, trimmed
from edge_agent.recorder.incidents import WINDOW_NS

MEMORY_MAX_BYTES = 16 * 1024**2
"""30 s of 2,048 rays at 50 Hz are 12 MB; beyond it the oldest go."""


class ScanMemory:
    """Which scans are to be written; each is handed out once, in the order in which they came."""

    def __init__(self) -> None:
        self._kept: deque[bytes] = deque()
        self._bytes = 0
        self._until_ns = self._due_ns = -(2**63)

    def take(self, slots: Sequence[bytes]) -> list[bytes]:
        """Remember scans (bytes of SCAN_DTYPE); payloads of those that follow an incident closely enough."""
        for slot in slots:
            payload = trimmed(slot)
            self._kept.append(payload)
            self._bytes += len(payload)
        while self._kept and (self._bytes > MEMORY_MAX_BYTES or self._old(self._kept[0])):
            self._bytes -= len(self._kept.popleft())
        return self._due()

    def incident(self, mono_ns: int) -> list[bytes]:
        """An incident began: payloads of what was seen before it."""
        self._until_ns = max(self._until_ns, mono_ns + WINDOW_NS)
        self._due_ns = max(self._due_ns, mono_ns - WINDOW_NS)
        return self._due()

    def forget(self) -> None:
        """Forget what was seen up to now; what follows an incident is written still."""
        self._kept.clear()
        self._bytes = 0

    def _old(self, payload: bytes) -> bool:
        return arrival_ns(self._kept[-1]) - arrival_ns(payload) > WINDOW_NS

    def _due(self) -> list[bytes]:
        due = [payload for payload in self._kept if self._due_ns <= arrival_ns(payload) <= self._until_ns]
        if due:
            self._due_ns = arrival_ns(due[-1]) + 1
        return due
