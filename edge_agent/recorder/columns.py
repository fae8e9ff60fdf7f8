"""Decisions as compressed columns, bit for bit: what sealed segments are made of.

A column is one field, or a named part of the observation. Its words are taken as unsigned integers, so that nothing
is ever rounded: minus an earlier column where one says nearly the same (the beams a tenth of a second ago are the
beams of some ticks before), differenced over time up to twice, folded so that small negative steps are small too,
split into byte planes, and given to zstd. Which of these pay is tried on a sample of each block.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import zstandard

from contracts.errors import LogFormatError
from contracts.observation import OBSERVATION_SIZE, ROUTING_LAYOUT

LEVEL = 6
SAMPLE_ROWS = 512
SAMPLE_LEVEL = 1
LAG_MAX = 20
"""Rows: a tenth of a second at 200 Hz."""
BLOCK_ROWS_MAX = 16_384
Words = npt.NDArray[Any]
"""Unsigned integers [rows, width]."""
Part = tuple[str, int, int]
"""Field, first element, number of elements."""


class Column(msgspec.Struct, frozen=True, array_like=True):
    """How one column is stored; ``reference`` is the index of an earlier column, -1 for none."""

    field: str
    start: int
    width: int
    reference: int
    lag: int
    order: int
    size: int


def _observation_parts() -> tuple[tuple[int, int], ...]:
    """Where the observation is cut: the beams, the beams before, what lies between, and the velocity."""
    at = ROUTING_LAYOUT.offset
    cuts = (0, at("beams_before"), at("carrots"), at("speed"), OBSERVATION_SIZE)
    return tuple((low, high - low) for low, high in pairwise(cuts))


_PARTS = {("observation", OBSERVATION_SIZE): _observation_parts()}
_BEFORE = ("observation", ROUTING_LAYOUT.offset("beams_before"))
_LIKE: dict[tuple[str, int], tuple[str, int]] = {
    _BEFORE: ("observation", 0),
    ("observation", ROUTING_LAYOUT.offset("speed")): ("velocity", 0),
    ("final_command", 0): ("raw_command", 0),
    ("wall_ns", 0): ("mono_ns", 0),
}
"""Columns that nearly repeat another one."""


def parts_of(dtype: "np.dtype[Any]") -> list[Part]:
    """The columns that a record type is cut into, in the order of its fields."""
    parts = []
    for name in dtype.names or ():
        width = int(np.prod(dtype[name].shape, dtype=np.int64))
        cuts = _PARTS.get((name, width), ((0, width),))
        parts += [(name, start, count) for start, count in cuts]
    return parts


def encode_columns(records: npt.NDArray[np.void]) -> tuple[tuple[Column, ...], bytes]:
    """Records as columns and their bytes, one after the other; ``decode_columns`` gives the same bits back."""
    compressor = zstandard.ZstdCompressor(level=LEVEL)
    columns: list[Column] = []
    stored: list[bytes] = []
    words: dict[tuple[str, int], tuple[int, Words]] = {}
    for name, start, width in parts_of(records.dtype):
        own = _words(records, name, start, width)
        like, index, lag = words.get(_LIKE.get((name, start), ("", 0))), -1, 0
        residual = own
        if like is not None and like[1].shape == own.shape:
            index, reference = like
            lag = _best_lag(own, reference) if (name, start) == _BEFORE else 0
            residual = own - _shifted(reference, lag)
        order = _best_order(residual, index >= 0)
        data = compressor.compress(_pack(residual, order, order > 0 or index >= 0))
        words[name, start] = (len(columns), own)
        columns.append(Column(name, start, width, index, lag, order, len(data)))
        stored.append(data)
    return tuple(columns), b"".join(stored)


def decode_columns(
    columns: Sequence[Column],
    data: bytes,
    rows: int,
    dtype: "np.dtype[Any]",
    fields: Iterable[str] | None = None,
) -> npt.NDArray[np.void]:
    """Records back from their columns.

    Args:
        columns: as ``encode_columns`` gave them.
        data: the bytes it gave.
        rows: how many records.
        dtype: of the records that were encoded.
        fields: only these, for speed; default all.

    Returns:
        ``dtype``[rows], or those of its fields.

    Raises:
        LogFormatError: the columns do not fit the record type or each other.
    """
    wanted = [name for name in dtype.names or () if fields is None or name in set(fields)]
    kinds = [(name, dtype[name].base.str, dtype[name].shape) for name in wanted]
    result = np.empty(rows, np.dtype(kinds))
    if [(c.field, c.start, c.width) for c in columns] != parts_of(dtype) or rows > BLOCK_ROWS_MAX:
        raise LogFormatError("a block's columns do not fit its record type; the segment is damaged")
    offsets = np.cumsum([0, *(column.size for column in columns)])
    decoded: dict[int, Words] = {}

    def words_of(index: int) -> Words:
        if index not in decoded:
            column = columns[index]
            kind = np.dtype(f"<u{dtype[column.field].base.itemsize}")
            stored = data[int(offsets[index]) : int(offsets[index + 1])]
            own = _unpack(stored, rows, column, kind)
            if column.reference >= 0:
                if not column.reference < index or not 0 <= column.lag <= LAG_MAX:
                    raise LogFormatError("a column refers to a later one; the segment is damaged")
                own = own + _shifted(words_of(column.reference), column.lag)
            decoded[index] = own
        return decoded[index]

    for index, column in enumerate(columns):
        if column.field in wanted:
            values = words_of(index).view(dtype[column.field].base)
            target = result[column.field].reshape(rows, -1)
            target[:, column.start : column.start + column.width] = values
    return result


def _words(records: npt.NDArray[np.void], name: str, start: int, width: int) -> Words:
    values = np.ascontiguousarray(records[name]).reshape(len(records), -1)[:, start : start + width]
    return np.ascontiguousarray(values).view(f"<u{values.dtype.itemsize}")


def _shifted(words: Words, lag: int) -> Words:
    """The rows ``lag`` earlier; zeros before the first."""
    if not lag:
        return words
    shifted = np.zeros_like(words)
    shifted[lag:] = words[:-lag]
    return shifted


def _best_lag(own: Words, reference: Words) -> int:
    own, reference = own[:SAMPLE_ROWS], reference[:SAMPLE_ROWS]
    same = [
        float((own[lag:] == reference[: len(own) - lag]).mean()) if lag < len(own) else 0.0
        for lag in range(LAG_MAX + 1)
    ]
    return int(np.argmax(same))


def _best_order(words: Words, signed: bool) -> int:
    """How often to difference, by what a quick compression of a sample gives."""
    if words.dtype.itemsize == 1:
        return 0
    compressor, sample = zstandard.ZstdCompressor(level=SAMPLE_LEVEL), words[:SAMPLE_ROWS]
    sizes = [len(compressor.compress(_pack(sample, order, signed or order > 0))) for order in range(3)]
    return int(np.argmin(sizes))


def _pack(words: Words, order: int, signed: bool) -> bytes:
    for _ in range(order):
        words = np.diff(words, axis=0, prepend=words.dtype.type(0))
    size = words.dtype.itemsize
    if signed:
        steps = words.view(f"<i{size}")
        words = ((steps << 1) ^ (steps >> (8 * size - 1))).view(words.dtype)
    planes = np.ascontiguousarray(words).view(np.uint8).reshape(*words.shape, size)
    return planes.transpose(1, 2, 0).tobytes()


def _unpack(stored: bytes, rows: int, column: Column, kind: "np.dtype[Any]") -> Words:
    size = rows * column.width * kind.itemsize
    try:
        plain = zstandard.ZstdDecompressor().decompress(stored, max_output_size=size)
    except zstandard.ZstdError as error:
        raise LogFormatError(f"column {column.field} does not decompress ({error}); it is damaged") from None
    if len(plain) != size or column.order not in (0, 1, 2):
        raise LogFormatError(f"column {column.field}: {len(plain)} bytes, expected {size}; it is damaged")
    planes = np.frombuffer(plain, np.uint8).reshape(column.width, kind.itemsize, rows)
    words: Words = np.ascontiguousarray(planes.transpose(2, 0, 1)).reshape(rows, -1).view(kind)
    if column.order or column.reference >= 0:
        words = (words >> 1) ^ (~(words & 1) + 1)
    for _ in range(column.order):
        words = np.cumsum(words, axis=0, dtype=kind)
    return words
