"""A parameter's value and its 32 bits on the wire."""

import struct

from firmware_interface.errors import ParameterError
from firmware_interface.protocol.tables import PARAMETERS, Parameter

BY_NAME: dict[str, Parameter] = {parameter.name: parameter for parameter in PARAMETERS}
BY_ID: dict[int, Parameter] = {parameter.id: parameter for parameter in PARAMETERS}


def as_f32(value: float) -> float:
    """The nearest IEEE 754 single."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def to_bits(kind: str, value: float) -> int:
    """The value as it travels, not checked against a range."""
    packed = struct.pack("<f", value) if kind == "f32" else struct.pack("<I", int(value))
    return int.from_bytes(packed, "little")


def from_bits(kind: str, bits: int) -> float:
    """The value of 32 bits; a whole number for u32."""
    return float(struct.unpack("<f", struct.pack("<I", bits))[0]) if kind == "f32" else bits


def parameter_named(name: str) -> Parameter:
    """The parameter of that name; raises ParameterError, which lists what there is."""
    if name not in BY_NAME:
        raise ParameterError(f"no parameter {name!r}; there are: {', '.join(BY_NAME)}")
    return BY_NAME[name]


def checked_bits(parameter: Parameter, value: float) -> int:
    """``value`` for this parameter as it travels; raises ParameterError when it is not in its range."""
    if parameter.kind == "u32" and not float(value).is_integer():
        raise ParameterError(f"{parameter.name} is a whole number of {parameter.unit}, not {value:g}")
    if not parameter.low <= value <= parameter.high:
        raise ParameterError(
            f"{parameter.name} is {parameter.low:g} to {parameter.high:g} {parameter.unit}, not {value:g}"
        )
    return to_bits(parameter.kind, value)
