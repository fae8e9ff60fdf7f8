"""The decision record's schemas through time: a log says which it was written in, a reader maps by field name.

A schema is a tuple of (name, numpy type, shape). Its hash is its version. Segments of the first log format bear
the hash alone: the fields of those few versions are listed here.
"""

import hashlib
import re
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.decision import DECISION_DTYPE, DECISION_SCHEMA_HASH
from contracts.errors import LogFormatError

FIELDS_MAX = 256
RECORD_MAX_BYTES = 16 * 1024
_TYPE = re.compile(r"^(<[uif][248]|\|?u1|\|?i1)$")
Shape = tuple[Annotated[int, msgspec.Meta(ge=1, le=RECORD_MAX_BYTES)], ...]
FieldSpec = tuple[Annotated[str, msgspec.Meta(max_length=64)], str, Shape]
Fields = tuple[FieldSpec, ...]
_SINCE_SECOND = ("other_command", "other_reduction", "mode")
"""Fields that came with the second schema."""


def fields_of(dtype: "np.dtype[Any]") -> Fields:
    """A record type as a schema."""
    return tuple((name, dtype[name].base.str, dtype[name].shape) for name in dtype.names or ())


def dtype_of(fields: Fields, where: str) -> "np.dtype[Any]":
    """A schema as a packed record type; raises LogFormatError for what cannot be one."""
    names = [name for name, _, _ in fields]
    if not 1 <= len(fields) <= FIELDS_MAX or len(set(names)) != len(names):
        raise LogFormatError(f"{where}: {len(fields)} fields, expected 1 to {FIELDS_MAX} of different names")
    for name, kind, _ in fields:
        if not _TYPE.match(kind):
            raise LogFormatError(
                f"{where}: field {name} has type {kind!r}; was it written by a newer outrider?"
            )
    dtype = np.dtype([(name, kind, shape) for name, kind, shape in fields])
    if dtype.itemsize > RECORD_MAX_BYTES:
        raise LogFormatError(f"{where}: records of {dtype.itemsize} bytes, at most {RECORD_MAX_BYTES}")
    return dtype


def schema_hash(dtype: "np.dtype[Any]") -> str:
    """A record type's version."""
    return hashlib.sha256(repr(dtype.descr).encode()).hexdigest()


def _without(dtype: "np.dtype[Any]", dropped: tuple[str, ...]) -> "np.dtype[Any]":
    return np.dtype([(name, kind, shape) for name, kind, shape in fields_of(dtype) if name not in dropped])


DECISION_FIELDS = fields_of(DECISION_DTYPE)
_SECOND = np.dtype(
    [
        ("tick", "<u8"), ("mono_ns", "<i8"), ("wall_ns", "<i8"), ("policy_digest", "u1", (32,)),
        ("release_counter", "<u4"), ("source", "u1"), ("verdict", "u1"), ("reason", "<u2"), ("flags", "<u4"),
        ("pose", "<f4", (3,)), ("velocity", "<f4", (2,)), ("goal", "<f4", (2,)), ("clearance_m", "<f4"),
        ("raw_command", "<f4", (2,)), ("final_command", "<f4", (2,)), ("other_command", "<f4", (2,)),
        ("other_reduction", "<f4"), ("scan_age_us", "<u4"), ("odometry_age_us", "<u4"), ("late_us", "<u4"),
        ("encode_us", "<u4"), ("infer_us", "<u4"), ("guard_us", "<u4"), ("publish_us", "<u4"),
        ("total_us", "<u4"), ("missed_ticks", "<u4"), ("trip", "<u4"), ("observation", "<f4", (83,)),
        ("mode", "u1"),
    ]
)  # fmt: skip
_NAMED_BY_HASH = {schema_hash(dtype): dtype for dtype in (_SECOND, _without(_SECOND, _SINCE_SECOND))}
"""What segments without a list of fields may hold."""


def dtype_by_hash(digest: str, where: str) -> "np.dtype[Any]":
    """The record type of a segment that only bears its hash; raises LogFormatError."""
    known = {**_NAMED_BY_HASH, DECISION_SCHEMA_HASH: DECISION_DTYPE}
    if digest not in known:
        raise LogFormatError(
            f"{where}: expected decision schema {DECISION_SCHEMA_HASH[:12]} or an older one, came {digest[:12]}; "
            "read it with the outrider version that wrote it"
        )
    return known[digest]


def to_present(records: npt.NDArray[np.void], fields: tuple[str, ...] | None = None) -> npt.NDArray[np.void]:
    """Records of any schema as today's, by name.

    What the old schema did not know is NaN, or 0 where there is no NaN; what a newer one added is left out.

    Args:
        records: a structured array [n].
        fields: only these; default all of DECISION_DTYPE.

    Returns:
        DECISION_DTYPE[n], or those fields of it.
    """
    dtype = DECISION_DTYPE if fields is None else np.dtype([(n, *_kind(n)) for n in fields])
    if records.dtype == dtype:
        return records
    result = np.zeros(len(records), dtype)
    for name in dtype.names or ():
        if name in (records.dtype.names or ()) and records.dtype[name].shape == dtype[name].shape:
            result[name] = records[name]
        elif dtype[name].base.kind == "f":
            result[name] = np.nan
    return result


def _kind(name: str) -> tuple[str, tuple[int, ...]]:
    kind = DECISION_DTYPE[name]
    return kind.base.str, kind.shape
