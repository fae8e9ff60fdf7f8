"""The ring: bounded, never blocking, either end may die."""

import os
import secrets
import subprocess
import sys

import numpy as np
import pytest

from contracts.decision import DECISION_DTYPE
from contracts.errors import RingError
from contracts.ring import RING_SLOTS, RingReader, RingWriter, ring_path


def ticks(records: list[bytes]) -> list[int]:
    return [int(np.frombuffer(record, DECISION_DTYPE)["tick"][0]) for record in records]


def push(writer: RingWriter, first: int, count: int) -> int:
    record = np.zeros(1, DECISION_DTYPE)
    taken = 0
    for tick in range(first, first + count):
        record["tick"] = tick
        taken += writer.push(record)
    return taken


def test_full_drops_the_new_and_counts() -> None:
    writer = RingWriter(f"t-{secrets.token_hex(4)}")
    try:
        reader = RingReader(writer.path.name.removeprefix("outrider-"))
        assert push(writer, 0, RING_SLOTS + 3) == RING_SLOTS
        assert (reader.dropped, writer.dropped, reader.waiting) == (3, 3, RING_SLOTS)
        assert ticks(reader.peek(2)) == [0, 1]
        reader.release(2)
        assert push(writer, 5000, 3) == 2
        assert ticks(reader.peek(RING_SLOTS))[-2:] == [5000, 5001]
        writer.beat(42)
        assert (reader.heartbeat_ns, reader.producer_pid) == (42, os.getpid())
        reader.close()
    finally:
        writer.unlink()
        writer.close()


def test_getting_ready_passes_nothing_on_and_spoils_nothing() -> None:
    writer = RingWriter(f"t-{secrets.token_hex(4)}")
    strange = np.zeros(1, DECISION_DTYPE)
    strange["tick"] = 99_999
    try:
        reader = RingReader(writer.path.name.removeprefix("outrider-"))
        writer.touch(strange)
        assert (reader.waiting, reader.produced, reader.dropped) == (0, 0, 0)
        for first in range(0, RING_SLOTS, 8):
            assert push(writer, first, 8) == 8
            writer.touch(strange)
        assert ticks(reader.peek(RING_SLOTS)) == list(range(RING_SLOTS))
        reader.close()
    finally:
        writer.unlink()
        writer.close()


def test_a_writer_that_dies_leaves_its_decisions() -> None:
    name = f"t-{secrets.token_hex(4)}"
    script = (
        "import numpy as np, os, signal\n"
        "from contracts.ring import RingWriter\nfrom contracts.decision import DECISION_DTYPE\n"
        f"w = RingWriter({name!r}); r = np.zeros(1, DECISION_DTYPE)\n"
        "for t in range(5):\n r['tick'] = t; w.push(r)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    try:
        assert subprocess.run([sys.executable, "-c", script], timeout=100, check=False).returncode == -9
        reader = RingReader(name)
        assert ticks(reader.peek(10)) == [0, 1, 2, 3, 4]
        writer = RingWriter(name)
        push(writer, 5, 1)
        assert ticks(reader.peek(10)) == [0, 1, 2, 3, 4, 5]
        assert not reader.replaced()
        writer.unlink()
        assert reader.replaced()
        reader.close()
        writer.close()
    finally:
        ring_path(name).unlink(missing_ok=True)


def test_missing_and_foreign_rings() -> None:
    name = f"t-{secrets.token_hex(4)}"
    with pytest.raises(RingError, match="start control first"):
        RingReader(name)
    ring_path(name).write_bytes(b"foreign")
    with pytest.raises(RingError, match="restart control"):
        RingReader(name)
    writer = RingWriter(name)  # control makes it anew
    assert RingReader(name).waiting == 0
    writer.unlink()
    writer.close()
