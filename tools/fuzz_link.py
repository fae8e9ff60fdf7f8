"""Coverage-guided fuzzing of the host's side of the serial protocol: the reader, the codec, the state machine.

atheris is no dependency of the project; ``python -m tools.fuzz_python`` gives it a venv of its own and runs this.

The input says what comes. Half of them: noise, frames with any content behind a good checksum, a board's answers, time
that passes. The other half: a board's talk of up to some thousand frames, damaged in places, cut anywhere. Nothing may
raise, the reader keeps one frame at most and is in step again at the next zero byte, a damaged byte costs two frames at
most (it may be the zero byte between them), an open link has a session and a clock. A line of counts every 10^7 bytes;
ends after so many bytes, or with a traceback and the input that broke it.
"""

import json
import os
import random
import sys
from collections import Counter

import atheris

with atheris.instrument_imports(include=["firmware_interface", "cobs"]):
    from firmware_interface.link.machine import LinkMachine, LinkState
    from firmware_interface.protocol import codec, frames

BYTES_MAX = int(float(os.environ.get("OUTRIDER_FUZZ_BYTES", "1e8")))
TELL_EVERY_BYTES = 10_000_000
PIECES_MAX = 24
TALK_MAX_FRAMES = 2048
DAMAGES_MAX = 12
CUTS_MAX = 6
NONCE, SESSIONS = 5, 3
START_NS, STEP_NS, PASSING_MAX_NS = 10**9, 10_000_000, 700_000_000
CODES = sorted(codec.LAYOUTS)
STOP = codec.encode(frames.Stop(7))
VARIANTS = 4
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


def _variants() -> list[bytes]:
    """Frames of every kind with content in range, of the first session where they have one."""
    rng, found = random.Random(1), []
    for layout in codec.LAYOUTS.values():
        if layout.kind is frames.Hello:
            continue  # another nonce or schema would end the talk
        for _ in range(VARIANTS):
            raw = bytes([layout.code]) + rng.randbytes(layout.packer.size - 1)
            _, *values = layout.packer.unpack(raw)
            for place, low, high in layout.checks:
                whole = isinstance(values[place], int)
                values[place] = rng.randint(int(low), int(high)) if whole else rng.uniform(low, high)
            frame = layout.kind(*values)
            found.append(codec.encode(frame._replace(session=1) if "session" in frame._fields else frame))
    return found


TALK = _variants()


def talk(given: atheris.FuzzedDataProvider, machine: LinkMachine, now_ns: int) -> None:
    """A long talk, a frame for each byte of the input, with damage."""
    places = [given.ConsumeIntInRange(0, 2**20) for _ in range(given.ConsumeIntInRange(0, DAMAGES_MAX))]
    values = [given.ConsumeIntInRange(1, 255) for _ in places]
    cuts = [given.ConsumeIntInRange(0, 2**20) for _ in range(given.ConsumeIntInRange(0, CUTS_MAX))]
    chosen = given.ConsumeBytes(TALK_MAX_FRAMES)
    came = bytearray(b"".join(TALK[byte % len(TALK)] for byte in chosen))
    for place, value in zip(places, values, strict=True):
        if came:
            came[place % len(came)] ^= value
    before, start = machine.reader.good, 0
    for cut in [*sorted(cut % (len(came) + 1) for cut in cuts), len(came)]:
        counts["events"] += len(machine.receive(bytes(came[start:cut]), now_ns))
        start = cut
        check(machine, now_ns)
    machine.reader.feed(codec.DELIMITER)
    assert machine.reader.good - before >= len(chosen) - 2 * len(places)
    counts["bytes"] += len(came)
    counts["talks"] += 1


def pieces(given: atheris.FuzzedDataProvider, machine: LinkMachine, now_ns: int) -> None:
    """Anything at all, and time that passes."""
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


def one(data: bytes) -> None:
    """One input."""
    given = atheris.FuzzedDataProvider(data)
    machine, now_ns = LinkMachine(lambda: NONCE, lambda sent: len(sent) > 0), START_NS
    machine.start(now_ns)
    if given.ConsumeBool():
        now_ns = open_link(machine, now_ns)
    (talk if given.ConsumeBool() else pieces)(given, machine, now_ns)
    machine.reader.feed(codec.DELIMITER)
    assert machine.reader.feed(STOP) == [frames.Stop(7)]
    counts["inputs"] += 1
    if counts["bytes"] >= min(BYTES_MAX, TELL_EVERY_BYTES * (counts["told"] + 1)):
        counts["told"] += 1
        print(json.dumps(counts), flush=True)
        if counts["bytes"] >= BYTES_MAX:
            os._exit(0)  # libFuzzer would go on


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
