"""Coverage-guided fuzzing of the host's side of the serial protocol: the reader, the codec, the state machine.

atheris is no dependency of the project; give it a venv of its own::

    python3.11 -m venv /tmp/fuzz && /tmp/fuzz/bin/pip install atheris cobs msgspec cryptography
    PYTHONPATH=. OUTRIDER_FUZZ_BYTES=1e8 /tmp/fuzz/bin/python tools/fuzz_link.py -max_len=4096 -len_control=0 CORPUS

The input says what comes: noise, frames with any content behind a good checksum, a board's answers, time that passes.
Nothing may raise, the reader keeps one frame at most and is in step again at the next zero byte, an open link has a
session and a clock. Ends with a line of counts after so many bytes, or with a traceback and the input that broke it.
"""

import json
import os
import sys
from collections import Counter

import atheris

with atheris.instrument_imports(include=["firmware_interface", "cobs"]):
    from firmware_interface.link.machine import LinkMachine, LinkState
    from firmware_interface.protocol import codec, frames

BYTES_MAX = int(float(os.environ.get("OUTRIDER_FUZZ_BYTES", "1e8")))
PIECES_MAX = 24
NONCE, SESSIONS = 5, 3
START_NS, STEP_NS, PASSING_MAX_NS = 10**9, 10_000_000, 700_000_000
CODES = sorted(codec.LAYOUTS)
STOP = codec.encode(frames.Stop(7))
counts: Counter[str] = Counter()


def hello(session: int) -> bytes:
    """A board's answer that fits."""
    return codec.encode(frames.Hello(frames.SCHEMA_REVISION, frames.SCHEMA_HASH, NONCE, session, 63))


def open_link(machine: LinkMachine, now_ns: int) -> int:
    """Shake hands as a board would; the time afterwards."""
    machine.receive(hello(1), now_ns)
    while machine.state is LinkState.SYNCING:
        now_ns += STEP_NS
        machine.poll(now_ns)
        machine.receive(codec.encode(frames.TimeReply(now_ns // 1000, 1, 1)), now_ns)
    counts["opened"] += 1
    return now_ns


def piece(given: atheris.FuzzedDataProvider) -> bytes:
    """What comes over the line next."""
    match given.ConsumeIntInRange(0, 5):
        case 0:
            return codec.wrap(given.ConsumeBytes(given.ConsumeIntInRange(1, 240)) or b"\0")
        case 1:
            layout = codec.LAYOUTS[given.PickValueInList(CODES)]
            size = layout.packer.size - 1
            return codec.wrap(bytes([layout.code]) + given.ConsumeBytes(size).ljust(size, b"\1"))
        case 2:
            return hello(given.ConsumeIntInRange(0, SESSIONS))
        case 3:
            return codec.encode(frames.Heartbeat(given.ConsumeIntInRange(0, SESSIONS), 1))
        case _:
            return bytes(given.ConsumeBytes(given.ConsumeIntInRange(0, 400)))


def check(machine: LinkMachine, now_ns: int) -> None:
    """What must hold whatever came."""
    assert len(machine.reader._partial) <= codec.WIRE_MAX_BYTES
    assert 0 <= machine.stamp_us(now_ns) < 2**32
    if machine.state is LinkState.OPEN:
        assert machine.session != 0
        assert len(machine.clock) > 0


def one(data: bytes) -> None:
    """One input."""
    given = atheris.FuzzedDataProvider(data)
    machine, now_ns = LinkMachine(lambda: NONCE, lambda sent: len(sent) > 0), START_NS
    machine.start(now_ns)
    if given.ConsumeBool():
        now_ns = open_link(machine, now_ns)
    for _ in range(PIECES_MAX):
        if not given.remaining_bytes():
            break
        if given.ConsumeIntInRange(0, 7) == 0:
            now_ns += given.ConsumeIntInRange(0, PASSING_MAX_NS)
            machine.poll(now_ns)
        else:
            came = piece(given)
            cut = given.ConsumeIntInRange(0, len(came))
            for part in (came[:cut], came[cut:]):
                counts["bytes"] += len(part)
                counts["events"] += len(machine.receive(part, now_ns))
        check(machine, now_ns)
        if machine.state is LinkState.CLOSED:
            machine.start(now_ns)
    machine.reader.feed(codec.DELIMITER)
    assert machine.reader.feed(STOP) == [frames.Stop(7)]
    counts["inputs"] += 1
    if counts["bytes"] >= BYTES_MAX:
        print(json.dumps(counts), flush=True)
        os._exit(0)  # libFuzzer would go on


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
