"""A decision as flat, named columns: for queries and tables. Every name says its unit."""

from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.decision import (
    DECISION_DTYPE,
    DIGESTS,
    FLAG_ARMED,
    FLAG_BLENDED,
    FLAG_PROBATION,
    FLAG_RETURNED,
    FLAG_SWAPPED,
    VECTORS,
    digest_runs,
)
from contracts.observation import ROUTING_LAYOUT
from edge_agent.recorder.values import NAMED

_VECTORS = VECTORS | {
    "observation": tuple(
        f"obs_{f.name}" if f.size == 1 else f"obs_{f.name}_{n}"
        for f in ROUTING_LAYOUT.observation
        for n in range(f.size)
    ),
}
FLAGS = {
    "armed": FLAG_ARMED,
    "swapped": FLAG_SWAPPED,
    "blended": FLAG_BLENDED,
    "probation": FLAG_PROBATION,
    "returned": FLAG_RETURNED,
}
"""Columns that are one bit of ``flags``."""


def _columns() -> dict[str, tuple[str, int | None]]:
    columns: dict[str, tuple[str, int | None]] = {}
    for name in DECISION_DTYPE.names or ():
        if name in _VECTORS:
            columns |= {flat: (name, index) for index, flat in enumerate(_VECTORS[name])}
        else:
            columns[name] = (name, None)
    return columns


COLUMNS = _columns()
"""Flat name -> field of DECISION_DTYPE and index in it."""


def field_of(column: str) -> str:
    """The field of DECISION_DTYPE that a column or flag is in; KeyError for neither."""
    return "flags" if column in FLAGS else COLUMNS[column][0]


def column_of(records: npt.NDArray[np.void], column: str) -> npt.NDArray[Any]:
    """One column [n]; a flag as bool, digests as uint8[n, 32 or 8]."""
    if column in FLAGS:
        return np.asarray(records["flags"] & FLAGS[column], dtype=np.bool_)
    field, index = COLUMNS[column]
    values: npt.NDArray[Any] = records[field]
    return values if index is None else values[:, index]


def table_of(records: npt.NDArray[np.void], seqs: npt.NDArray[np.uint64]) -> dict[str, npt.NDArray[Any]]:
    """All columns for a table: numbers as they are, named ones and digests as text."""
    table: dict[str, npt.NDArray[Any]] = {"seq": seqs}
    for column in COLUMNS:
        values = column_of(records, column)
        if column in DIGESTS:
            digests = values
            values = np.empty(len(digests), dtype=object)
            for start, stop, text in digest_runs(digests):
                values[start:stop] = text
        elif column in NAMED:
            kind = NAMED[column]
            names = np.array([f"unknown_{n}" for n in range(int(values.max(initial=0)) + 1)], dtype=object)
            for member in kind:
                if member < len(names):
                    names[int(member)] = member.name.lower()
            values = names[values]
        table[column] = values
    return table
