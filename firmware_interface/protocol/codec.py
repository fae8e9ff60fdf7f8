"""Frames to bytes and back: struct layouts made once, CRC-32, COBS, and the reader that finds frames in a stream."""

import struct
import zlib
from typing import NamedTuple

from cobs import cobs

from firmware_interface.errors import FieldRangeError
from firmware_interface.protocol.frames import TYPES, AnyFrame, Verdict
from firmware_interface.protocol.schema import CRC_BYTES, FRAMES, RAW_MAX_BYTES, Frame
from firmware_interface.protocol.values import as_f32

_LETTERS = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i32": "i", "f32": "f"}
WIRE_MAX_BYTES = RAW_MAX_BYTES + 1
"""The longest encoding, its zero byte left out."""
DELIMITER = b"\0"


class Layout(NamedTuple):
    """How one kind of frame is packed. ``checks`` are (place, low, high)."""

    name: str
    code: int
    kind: type[AnyFrame]
    packer: struct.Struct
    checks: tuple[tuple[int, float, float], ...]
    lengths: tuple[tuple[int, int], ...]
    """(place, bytes) of the fields that are bytes: struct would cut or pad them in silence."""

    def in_range(self, values: tuple[int | float | bytes, ...]) -> bool:
        """Whether every field is within its bounds; NaN is within none."""
        return all(low <= values[place] <= high for place, low, high in self.checks)  # type: ignore[operator]


def _layout(frame: Frame) -> Layout:
    letters, checks, lengths = "<B", [], []
    for place, field in enumerate(frame.fields):
        letters += f"{field.count}s" if field.kind == "bytes" else _LETTERS[field.kind]
        if field.kind == "bytes":
            lengths.append((place, field.count))
        elif field.bounds is not None:
            low, high = field.bounds
            checks.append((place, as_f32(low), as_f32(high)) if field.kind == "f32" else (place, low, high))
    kind = TYPES[frame.code]
    return Layout(frame.name, frame.code, kind, struct.Struct(letters), tuple(checks), tuple(lengths))


LAYOUTS: dict[int, Layout] = {frame.code: _layout(frame) for frame in FRAMES}
_BY_KIND: dict[type[AnyFrame], Layout] = {layout.kind: layout for layout in LAYOUTS.values()}


def encode_raw(frame: AnyFrame) -> bytes:
    """Code and fields, without CRC; raises FieldRangeError."""
    layout = _BY_KIND[type(frame)]
    try:
        if layout.in_range(frame) and all(len(frame[i]) == count for i, count in layout.lengths):  # type: ignore[arg-type]
            return layout.packer.pack(layout.code, *frame)
    except (struct.error, TypeError, OverflowError):
        pass
    raise FieldRangeError(f"{layout.name}: a field is out of its range (docs/protocol): {frame}")


def encode(frame: AnyFrame) -> bytes:
    """A frame as it goes over the wire, its zero byte included; raises FieldRangeError."""
    return wrap(encode_raw(frame))


def wrap(raw: bytes) -> bytes:
    """Code and fields as they go over the wire."""
    encoded: bytes = cobs.encode(raw + zlib.crc32(raw).to_bytes(CRC_BYTES, "little"))
    return encoded + DELIMITER


def decode_raw(raw: bytes) -> tuple[Verdict, AnyFrame | None]:
    """A frame from its code and fields, the CRC having been taken off."""
    if not raw:
        return Verdict.TOO_SHORT, None
    layout = LAYOUTS.get(raw[0])
    if layout is None:
        return Verdict.UNKNOWN_CODE, None
    if len(raw) != layout.packer.size:
        return Verdict.WRONG_LENGTH, None
    _, *values = layout.packer.unpack(raw)
    if not layout.in_range(tuple(values)):
        return Verdict.OUT_OF_RANGE, None
    return Verdict.GOOD, layout.kind(*values)


def decode(encoded: bytes) -> tuple[Verdict, AnyFrame | None]:
    """A frame from what lay between two zero bytes; never raises."""
    if len(encoded) > WIRE_MAX_BYTES:
        return Verdict.TOO_LONG, None
    try:
        data = cobs.decode(encoded)
    except cobs.DecodeError:
        return Verdict.BAD_COBS, None
    if len(data) <= CRC_BYTES:
        return Verdict.TOO_SHORT, None
    raw = data[:-CRC_BYTES]
    if zlib.crc32(raw) != int.from_bytes(data[-CRC_BYTES:], "little"):
        return Verdict.BAD_CRC, None
    return decode_raw(raw)


class Reader:
    """Finds frames in a stream that may start, break off and be damaged anywhere. Holds at most one frame's bytes."""

    def __init__(self) -> None:
        self._partial = bytearray()
        self._too_long = False
        self.good = 0
        self.bad: dict[Verdict, int] = {}
        self.resyncs = 0
        """How often a good frame followed bad ones."""
        self._out_of_step = False

    def feed(self, data: bytes) -> list[AnyFrame]:
        """The good frames that end in ``data``."""
        found: list[AnyFrame] = []
        *ended, rest = data.split(DELIMITER)
        for piece in ended:
            self._keep(piece)
            if self._too_long or self._partial:
                self._end(found)
        self._keep(rest)
        return found

    def _keep(self, piece: bytes) -> None:
        if len(self._partial) + len(piece) > WIRE_MAX_BYTES:
            self._too_long = True
            self._partial.clear()
        elif not self._too_long:
            self._partial += piece

    def _end(self, found: list[AnyFrame]) -> None:
        verdict, frame = (Verdict.TOO_LONG, None) if self._too_long else decode(bytes(self._partial))
        self._partial.clear()
        self._too_long = False
        if frame is None:
            self.bad[verdict] = self.bad.get(verdict, 0) + 1
            self._out_of_step = True
            return
        self.good += 1
        self.resyncs += self._out_of_step
        self._out_of_step = False
        found.append(frame)

    @property
    def bad_total(self) -> int:
        """Frames dropped for whatever reason."""
        return sum(self.bad.values())
