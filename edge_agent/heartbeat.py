"""Control's sign of life, read out of the ring's header without numpy: for the supervisor, which stays small.

The layout is ``contracts.ring``'s; a test holds both together.
"""

import struct
from pathlib import Path

RING_FOLDER = Path("/dev/shm")
SCANS_SUFFIX = "-scans"
HEARTBEAT_OFFSET = 256
PRODUCER_OFFSET = 320
_WORD = struct.Struct("<Q")
_HEADER_BYTES = PRODUCER_OFFSET + _WORD.size


def read_heartbeat(ring_name: str) -> tuple[int, int]:
    """Monotonic time in ns of the last sign of life, and the process that gives it; (0, 0) without a ring."""
    try:
        with (RING_FOLDER / f"outrider-{ring_name}").open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except OSError:
        return 0, 0
    if len(header) < _HEADER_BYTES:
        return 0, 0
    return _WORD.unpack_from(header, HEARTBEAT_OFFSET)[0], _WORD.unpack_from(header, PRODUCER_OFFSET)[0]


def remove_ring(ring_name: str) -> None:
    """Remove the ring, and that of the scans: nobody writes or reads them any more."""
    for suffix in ("", SCANS_SUFFIX):
        (RING_FOLDER / f"outrider-{ring_name}{suffix}").unlink(missing_ok=True)
