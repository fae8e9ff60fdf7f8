"""The two copies of a stored record: which one counts, whatever is on the memory, and wherever the power fails."""

import struct
import zlib
from pathlib import Path

import pytest

from firmware_interface.emulator.process import Emulator
from firmware_interface.errors import FirmwareError
from firmware_interface.link.client import FirmwareLink
from firmware_interface.protocol import frames
from firmware_interface.protocol.frames import Fault
from firmware_interface.protocol.tables import PARAMETERS
from firmware_interface.protocol.values import to_bits
from firmware_interface.transport.ports import open_port

MAGIC = b"OUTR"
PAGE_BYTES, BOOTS_BYTES = 2048, 4
COPY_A, COPY_B = 2, 3
"""Areas of the parameters (hal.h); a page each."""
BLANK = b""
BUILT_IN = next(p.default for p in PARAMETERS if p.name == "speed_max_mps")


def record(speed_mps: float, counter: int, magic: bytes = MAGIC) -> bytes:
    """A whole record with the built-in parameters and another speed, as store.c lays it out."""
    values = [speed_mps if p.name == "speed_max_mps" else p.default for p in PARAMETERS]
    body = b"".join(struct.pack("<I", to_bits(p.kind, v)) for p, v in zip(PARAMETERS, values, strict=True))
    covered = magic + struct.pack("<I", counter) + body
    return covered + struct.pack("<I", zlib.crc32(covered))


def memory(copy_a: bytes, copy_b: bytes) -> bytes:
    """The file of a board's memory: how often it started, then the flash, blank where nothing was written."""
    flash = bytearray(b"\xff" * (PAGE_BYTES * (COPY_B + 1)))
    for area, copy in ((COPY_A, copy_a), (COPY_B, copy_b)):
        flash[area * PAGE_BYTES : area * PAGE_BYTES + len(copy)] = copy
    return struct.pack("<I", 1) + bytes(flash)


def found_speed(program: Path, flash: Path) -> tuple[float, bool]:
    """The speed limit after a start, and whether the board says that its memory was damaged."""
    with (
        Emulator(program, flash=flash) as board,
        FirmwareLink(lambda: open_port(board.port), stop_on_close=False) as link,
    ):
        link.wait_open()
        faults = Fault(link.wait_frame(frames.Status).faults)
        return round(link.get_parameter("speed_max_mps"), 4), Fault.STORAGE in faults


WHOLE = record(0.5, 1)
OTHER = record(0.7, 2)
BROKEN = WHOLE[:20] + bytes([WHOLE[20] ^ 1]) + WHOLE[21:]
"""Its first bytes are those of a record; its checksum is wrong."""


@pytest.mark.parametrize(
    ("copy_a", "copy_b", "speed_mps", "damaged"),
    [
        (BLANK, BLANK, BUILT_IN, False),
        (WHOLE, BLANK, 0.5, False),
        (BLANK, WHOLE, 0.5, False),
        (WHOLE, OTHER, 0.7, False),
        (OTHER, WHOLE, 0.7, False),
        (WHOLE, BROKEN, 0.5, False),
        (BROKEN, WHOLE, 0.5, False),
        (BROKEN, BLANK, BUILT_IN, True),
        (BLANK, BROKEN, BUILT_IN, True),
        (record(0.5, 1, b"RTUO"), BLANK, BUILT_IN, True),
        (b"\x00", BLANK, BUILT_IN, True),
        (b"\xff" * (len(WHOLE) - 1) + b"\x00", BLANK, BUILT_IN, True),
        (b"\xff" * len(WHOLE) + b"\x00", BLANK, BUILT_IN, False),
    ],
    ids=[
        "new", "only a", "only b", "b newer", "a newer", "b broken", "a broken", "a broken alone", "b broken alone",
        "another magic", "only the first byte", "only the last byte", "behind the record",
    ],
)  # fmt: skip
def test_the_newest_whole_copy_counts_and_damage_is_told(
    copy_a: bytes, copy_b: bytes, speed_mps: float, damaged: bool, program: Path, tmp_path: Path
) -> None:
    flash = tmp_path / "flash"
    flash.write_bytes(memory(copy_a, copy_b))
    assert found_speed(program, flash) == (speed_mps, damaged)


@pytest.mark.parametrize("saved", [1, 2, 3])
def test_a_power_cut_while_a_record_is_saved_leaves_the_newest(
    saved: int, program: Path, tmp_path: Path
) -> None:
    flash = tmp_path / "flash"
    with Emulator(program, flash=flash) as board:
        with FirmwareLink(lambda: open_port(board.port), stop_on_close=False) as link:
            link.wait_open()
            for count in range(saved):
                link.set_parameter("speed_max_mps", 0.5 + count / 10)
            board.ask("cut 2060")  # the page is erased, twelve bytes of the record are written
            with pytest.raises(FirmwareError):
                link.set_parameter("speed_max_mps", 1.1)
        assert board.process.wait(10) == 9
    assert found_speed(program, flash) == (round(0.5 + (saved - 1) / 10, 4), False)
