"""The serial link: how soon a command is on the wire, how soon the wheels stop, what it withstands.

The firmware is the real one, the ports are pseudo-terminals, the stops are killed, frozen, unplugged and flooded
processes. The reference of a command is a bare write and read of as many bytes on a pseudo-terminal of the same kind.
"""

import contextlib
import os
import pty
import select
import tempfile
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks._report import quick_asked, report
from edge_agent.realtime import FIFO_PRIORITY
from firmware_interface.emulator.build import Kind, build
from firmware_interface.emulator.process import Emulator
from firmware_interface.emulator.soak import CAUSES
from firmware_interface.emulator.stops import StopTrials
from firmware_interface.emulator.trials import LineTrial, fuzz
from firmware_interface.emulator.virtual import Sent, VirtualBoard
from firmware_interface.link.client import FirmwareLink
from firmware_interface.protocol import codec, frames
from firmware_interface.transport.ports import open_port

RATE_HZ = 200
COMMAND_BYTES = len(codec.encode(frames.VelocityCommand(1, 1, 1, 0, 80_000, 0.5, 0.1)))


@contextlib.contextmanager
def hurried() -> Iterator[None]:
    """As control with ``--realtime`` (``edge_agent.realtime``), where permitted; threads and boards inherit it."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(FIFO_PRIORITY))
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


class Wire:
    """A pseudo-terminal whose far end is in this thread: it reads what the link writes, and has the firmware answer."""

    def __init__(self, program: Path) -> None:
        self.master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.port = os.ttyname(self._slave)
        self._board = VirtualBoard(program)
        self._start_ns = time.monotonic_ns()

    def pump(self, data: bytes = b"") -> None:
        """Give the firmware what has come, and the link its answers."""
        ready, _, _ = select.select([self.master], [], [], 0)
        data += os.read(self.master, 4096) if ready else b""
        now_us = (time.monotonic_ns() - self._start_ns) // 1000
        for seen in self._board.exchange(now_us, data):
            if isinstance(seen, Sent):
                os.write(self.master, seen.data)

    def close(self) -> None:
        """End the firmware, close the terminal."""
        self._board.close()
        os.close(self.master)
        os.close(self._slave)


def command_us(program: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """From the tick's call until all bytes have been read at the far end, and of the call alone; us, float64[count]."""
    wire = Wire(program)
    on_wire, call = np.empty(count), np.empty(count)
    with FirmwareLink(lambda: open_port(wire.port)) as link:
        while not link.open:
            wire.pump()
            time.sleep(0.001)
        deadline_s = time.monotonic()
        for i in range(count):
            deadline_s += 1.0 / RATE_HZ
            wire.pump()
            time.sleep(max(deadline_s - time.monotonic(), 0.0))
            began_ns = time.perf_counter_ns()
            sent = link.send_command(0.5, 0.1)
            called_ns = time.perf_counter_ns()
            assert sent
            data = os.read(wire.master, 4096)
            ended_ns = time.perf_counter_ns()
            assert data.endswith(b"\0")
            on_wire[i], call[i] = (ended_ns - began_ns) / 1e3, (called_ns - began_ns) / 1e3
            wire.pump(data)
    wire.close()
    return on_wire, call


def bare_us(count: int) -> np.ndarray:
    """A write and a read of as many bytes, nothing else; us, float64[count]."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    data, took = bytes(range(1, COMMAND_BYTES + 1)), np.empty(count)
    for i in range(count):
        time.sleep(1.0 / RATE_HZ)
        began_ns = time.perf_counter_ns()
        os.write(slave, data)
        os.read(master, 4096)
        took[i] = (time.perf_counter_ns() - began_ns) / 1e3
    os.close(master)
    os.close(slave)
    return took


class Sustained(NamedTuple):
    """A long drive. ``lost``: commands that never reached the board; ``refused``: after it had stopped by itself."""

    rate_hz: float
    sent: int
    lost: int
    refused: int
    stops: int


def sustained(program: Path, seconds: float) -> Sustained:
    """Commands at 200 Hz; when this machine is late and the board stops, it is armed again, and counted."""
    sent = stops = 0
    with Emulator(program) as emulator, FirmwareLink(lambda: open_port(emulator.port)) as link:
        emulator.hurry()
        link.wait_open()
        link.arm()
        before = link.latest(frames.Status)
        began_s = time.monotonic()
        for tick in range(1, round(seconds * RATE_HZ) + 1):
            sent += link.send_command(0.5, 0.0)
            status = link.latest(frames.Status)
            if status is not None and status is not before and status.state == frames.State.DISARMED:
                stops += 1
                link.arm()
                before = link.latest(frames.Status)
            time.sleep(max(began_s + tick / RATE_HZ - time.monotonic(), 0.0))
        took_s = time.monotonic() - began_s
        time.sleep(0.05)
        counts = emulator.counts()
        refused = counts["refused"] + counts["stale"]
        return Sustained(
            counts["executed"] / took_s, sent, sent - counts["executed"] - refused, refused, stops
        )


def stop_ms(program: Path, trials: int) -> tuple[float, float, int]:
    """The longest stop, the longest of the emulator's own stalls meanwhile, and restarts without arming."""
    stops = []
    for cause in CAUSES:
        with tempfile.TemporaryDirectory() as folder, StopTrials(program, Path(folder)) as rig:
            stops += [rig.run(cause) for _ in range(trials)]
    longest = max(stops, key=lambda stop: stop.stop_ms)
    return longest.stop_ms, longest.stall_ms, sum(stop.restarted for stop in stops)


def main() -> None:
    """Measure and report."""
    quick = quick_asked(__doc__ or "")
    program, safe = build(Kind.FAST), build(Kind.SANITIZED)
    count = 1000 if quick else 5_000
    with hurried():
        bare = float(np.percentile(bare_us(count), 99))
        on_wire, call = command_us(program, count)
    about = (
        f"call to all bytes read at the far end; median {np.median(on_wire):.0f} us, the call alone p99 "
        f"{np.percentile(call, 99):.0f} us; reference: bare write and read of {COMMAND_BYTES} bytes"
    )
    report("serial.command_p99_us", float(np.percentile(on_wire, 99)), "us", "lower", bare, about)
    about = "until the kernel has the bytes: what is ours of it; a pseudo-terminal hands them on in a kernel worker"
    report("serial.call_p99_us", float(np.percentile(call, 99)), "us", "lower", about=about)
    seconds = 5.0 if quick else 600.0
    with hurried():
        drive = sustained(program, seconds)
    about = (
        f"{seconds:.0f} s at 200 Hz: {drive.sent} sent, {drive.lost} lost on the line; the board stopped {drive.stops} "
        f"times because this machine was late, and refused {drive.refused} until it was armed again"
    )
    report("serial.sustained_hz", drive.rate_hz, "1/s", "higher", about=about)
    trials = 4 if quick else 100
    longest_ms, stall_ms, restarts = stop_ms(program, trials)
    about = f"{trials} each of {', '.join(CAUSES)}; stalls of the machine in it {stall_ms:.0f} ms; {restarts} restarts"
    report("serial.stop_ms_max", longest_ms, "ms", "lower", about=about)
    fuzzed = fuzz(safe, 100_000_000 if quick else 1_000_000_000)
    about = f"into the C core under sanitizers, {fuzzed['frames_good']} of them good frames; nothing found"
    report("serial.fuzz_bytes", float(fuzzed["bytes"]), "byte", "higher", about=about)
    line = LineTrial(program, seed=1, commands_per_ms=4).run(200_000 if quick else 2_000_000)
    about = (
        f"{line.sent} commands over a bad line, {line.damaged} faults, {line.executed} executed, "
        f"armed again {line.rearmed} times"
    )
    report("serial.wrong_commands", float(line.wrong), "commands", "lower", about=about)


if __name__ == "__main__":
    main()
