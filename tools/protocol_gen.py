#!/usr/bin/env python3
"""Write what is generated from the serial protocol's schema (firmware_interface/protocol/schema.py).

    .venv/bin/python tools/protocol_gen.py           # rewrite what is not current
    .venv/bin/python tools/protocol_gen.py --check   # change nothing, name what is not current (exit 1)

Written are the Python frames, the C header and codec, and docs/protocol/README.md.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from firmware_interface.protocol import schema, tables  # noqa: E402
from firmware_interface.protocol.schema import FRAMES, Field, Frame  # noqa: E402

MADE = "Made by tools/protocol_gen.py from firmware_interface/protocol/schema.py: do not edit."
C_TYPES = {
    "u8": "uint8_t",
    "u16": "uint16_t",
    "u32": "uint32_t",
    "u64": "uint64_t",
    "i32": "int32_t",
    "f32": "float",
    "bytes": "uint8_t",
}
INTEGER_HIGH = {"u8": 2**8 - 1, "u16": 2**16 - 1, "u32": 2**32 - 1, "u64": 2**64 - 1}


def camel(name: str) -> str:
    """``velocity_command`` as ``VelocityCommand``."""
    return "".join(part.capitalize() for part in name.split("_"))


def upper(name: str) -> str:
    """``StopReason`` as ``STOP_REASON``."""
    return "".join(("_" if letter.isupper() and i else "") + letter for i, letter in enumerate(name)).upper()


def shown_bounds(field: Field) -> str:
    """The bounds for people; empty where the type is the only one."""
    if field.enum:
        return field.enum
    return "" if field.bounds is None else f"{field.bounds[0]:g} .. {field.bounds[1]:g}"


def python_text() -> str:
    """``frames.py``."""
    lines = [
        f'"""The frames of the protocol. {MADE}"""',
        "",
        "import enum",
        "from typing import NamedTuple",
        "",
    ]
    lines += [f"SCHEMA_REVISION = {schema.REVISION}", f"SCHEMA_HASH = 0x{schema.schema_hash():08X}", ""]
    for name, values in tables.ENUMS.items():
        lines += ["", f"class {name}(enum.IntEnum):", '    """Values are part of the protocol."""', ""]
        lines += [
            line for i, (key, about) in enumerate(values.items()) for line in member(key, str(i), about)
        ]
        lines += [""]
    for name, bits in (("Capability", tables.CAPABILITIES), ("Fault", tables.FAULTS)):
        lines += ["", f"class {name}(enum.IntFlag):", '    """Bits are part of the protocol."""', ""]
        lines += [
            line for i, (key, about) in enumerate(bits.items()) for line in member(key, str(1 << i), about)
        ]
        lines += [""]
    for frame in FRAMES:
        lines += ["", *python_frame(frame), ""]
    names = [camel(frame.name) for frame in FRAMES]
    lines += ["", "AnyFrame = (", f"    {names[0]}", *(f"    | {name}" for name in names[1:]), ")", ""]
    lines += ["TYPES: dict[int, type[AnyFrame]] = {"]
    lines += [f"    0x{frame.code:02X}: {camel(frame.name)}," for frame in FRAMES]
    return "\n".join([*lines, "}", '"""By code."""', ""])


def member(key: str, value: str, about: str) -> list[str]:
    """One value of an enumeration."""
    return [f"    {key} = {value}", *([f'    """{about.capitalize()}."""'] if about else [])]


def python_frame(frame: Frame) -> Iterator[str]:
    """A NamedTuple with a docstring a field."""
    yield f"class {camel(frame.name)}(NamedTuple):"
    yield from wrapped(frame.about)
    yield ""
    for field in frame.fields:
        kind = {"f32": "float", "bytes": "bytes"}.get(field.kind, "int")
        yield f"    {field.name}: {kind}"
        about = "; ".join(part for part in (field.unit, shown_bounds(field), field.about) if part)
        if about:
            yield f'    """{about}."""'


def wrapped(text: str) -> list[str]:
    """A docstring within the line length."""
    import textwrap

    lines = textwrap.wrap(text, 96)
    if len(lines) == 1:
        return [f'    """{lines[0]}"""']
    return [f'    """{lines[0]}', *(f"    {line}" for line in lines[1:]), '    """']


def c_header() -> str:
    """``outrider_protocol.h``."""
    lines = [f"/* {MADE} */", "#ifndef OUTRIDER_PROTOCOL_H", "#define OUTRIDER_PROTOCOL_H", ""]
    lines += ["#include <stdbool.h>", "#include <stddef.h>", "#include <stdint.h>", ""]
    for name, value in constants():
        lines += [f"#define OUTRIDER_{name} {value}"]
    for name, values in tables.ENUMS.items():
        prefix = f"OUTRIDER_{upper(name)}"
        lines += ["", f"enum outrider_{upper(name).lower()} {{"]
        lines += [
            f"    {prefix}_{key} = {i}," + (f" /* {about} */" if about else "")
            for i, (key, about) in enumerate(values.items())
        ]
        lines += ["};"]
    for prefix, bits in (("CAPABILITY", tables.CAPABILITIES), ("FAULT", tables.FAULTS)):
        lines += [""]
        lines += [
            f"#define OUTRIDER_{prefix}_{key} {1 << i}u /* {about} */"
            for i, (key, about) in enumerate(bits.items())
        ]
    lines += [""] + [f"#define OUTRIDER_CODE_{frame.name.upper()} 0x{frame.code:02X}u" for frame in FRAMES]
    for frame in FRAMES:
        lines += ["", f"/* {frame.about} */", f"struct outrider_{frame.name} {{"]
        lines += [c_member(field) for field in frame.fields] + ["};"]
    lines += ["", "struct outrider_frame {", "    uint8_t code;", "    union {"]
    lines += [f"        struct outrider_{frame.name} {frame.name};" for frame in FRAMES]
    lines += ["    } as;", "};", ""]
    lines += [
        "struct outrider_parameter_entry {",
        "    uint8_t id;",
        "    uint8_t kind;",
        "    uint32_t low_bits;",
    ]
    lines += ["    uint32_t high_bits;", "    uint32_t default_bits;", "};", ""]
    lines += [
        f"#define OUTRIDER_PARAMETER_{p.name.upper()} {i} /* place in the table */"
        for i, p in enumerate(tables.PARAMETERS)
    ]
    lines += [f"#define OUTRIDER_PARAMETER_COUNT {len(tables.PARAMETERS)}", ""]
    lines += [
        "extern const struct outrider_parameter_entry outrider_parameters[OUTRIDER_PARAMETER_COUNT];",
        "",
    ]
    lines += [
        "/* Code and fields, without CRC. Returns the bytes written (at most OUTRIDER_RAW_MAX_BYTES), 0 when a"
    ]
    lines += ["   field is out of its range or the code unknown. */"]
    lines += ["size_t outrider_encode(const struct outrider_frame *frame, uint8_t *raw);"]
    lines += [
        "enum outrider_verdict outrider_decode(const uint8_t *raw, size_t size, struct outrider_frame *frame);"
    ]
    lines += ["bool outrider_is_ordered(uint8_t code);", "bool outrider_is_for_board(uint8_t code);", ""]
    return "\n".join([*lines, "#endif", ""])


def constants() -> list[tuple[str, str]]:
    """Name and value of the numbers that both sides need."""
    return [
        ("SCHEMA_HASH", f"0x{schema.schema_hash():08X}u"),
        ("SCHEMA_REVISION", f"{schema.REVISION}u"),
        ("RAW_MAX_BYTES", f"{schema.RAW_MAX_BYTES}u"),
        ("SESSION_TIMEOUT_US", f"{schema.SESSION_TIMEOUT_MS * 1000}u"),
        ("FUTURE_MAX_US", str(schema.FUTURE_MAX_US)),
        ("ARM_AGE_MAX_US", str(schema.ARM_AGE_MAX_US)),
        ("UPDATE_BLOCK_BYTES", f"{schema.UPDATE_BLOCK_BYTES}u"),
        ("LOG_TEXT_BYTES", f"{schema.LOG_TEXT_BYTES}u"),
    ]


def c_member(field: Field) -> str:
    """A member with its unit and range."""
    array = f"[{field.count}]" if field.kind == "bytes" else ""
    about = "; ".join(part for part in (field.unit, shown_bounds(field), field.about) if part)
    return f"    {C_TYPES[field.kind]} {field.name}{array};" + (f" /* {about} */" if about else "")


def c_literal(field: Field, value: float) -> str:
    """A bound as the field's own type."""
    return f"{float(value)!r}f" if field.kind == "f32" else f"{int(value)}u"


def c_check(field: Field) -> str:
    """A condition that holds for values within their bounds; empty where every value is. Written so that NaN fails."""
    if field.bounds is None:
        return ""
    low, high = field.bounds
    parts = []
    if field.kind == "f32" or low > 0:
        parts += [f"(in->{field.name} >= {c_literal(field, low)})"]
    if field.kind == "f32" or high < INTEGER_HIGH[field.kind]:
        parts += [f"(in->{field.name} <= {c_literal(field, high)})"]
    return " && ".join(parts)


C_HEAD = """#include "outrider_protocol.h"

#include <string.h>

static uint8_t *put_little(uint8_t *at, uint64_t value, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        at[i] = (uint8_t)((value >> (8u * i)) & 0xFFu);
    }
    return at + size;
}

static uint64_t get_little(const uint8_t **at, size_t size)
{
    uint64_t value = 0;
    for (size_t i = 0; i < size; i++) {
        value |= (uint64_t)(*at)[i] << (8u * i);
    }
    *at += size;
    return value;
}

static uint8_t *put_float(uint8_t *at, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return put_little(at, bits, sizeof bits);
}

static float get_float(const uint8_t **at)
{
    const uint32_t bits = (uint32_t)get_little(at, sizeof bits);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint8_t *put_bytes(uint8_t *at, const uint8_t *data, size_t size)
{
    memcpy(at, data, size);
    return at + size;
}

static void get_bytes(const uint8_t **at, uint8_t *data, size_t size)
{
    memcpy(data, *at, size);
    *at += size;
}
"""


def c_source() -> str:
    """``outrider_protocol.c``."""
    lines = [f"/* {MADE} */", C_HEAD]
    lines += ["const struct outrider_parameter_entry outrider_parameters[OUTRIDER_PARAMETER_COUNT] = {"]
    kinds = list(tables.ENUMS["Kind"])
    for p in tables.PARAMETERS:
        values = ", ".join(f"0x{bits_of(p.kind, value):08X}u" for value in (p.low, p.high, p.default))
        lines += [f"    {{{p.id}u, {kinds.index(p.kind.upper())}u, {values}}}, /* {p.name}, {p.unit} */"]
    lines += ["};"]
    for frame in FRAMES:
        lines += c_valid(frame)
    lines += ["", *c_encode(), "", *c_decode()]
    for name, chosen in (
        ("is_ordered", [f for f in FRAMES if f.ordered]),
        ("is_for_board", [f for f in FRAMES if f.to in ("board", "both")]),
    ):
        lines += ["", f"bool outrider_{name}(uint8_t code)", "{", "    switch (code) {"]
        lines += [f"    case OUTRIDER_CODE_{frame.name.upper()}:" for frame in chosen]
        lines += ["        return true;", "    default:", "        return false;", "    }", "}"]
    return "\n".join([*lines, ""])


def bits_of(kind: str, value: float) -> int:
    """A parameter's value as it travels."""
    from firmware_interface.protocol.values import to_bits

    return to_bits("f32" if kind == "f32" else "u32", value)


def c_checks(frame: Frame) -> list[str]:
    """What is asked of each bounded field; none where any bits will do."""
    return [check for check in map(c_check, frame.fields) if check]


def c_valid(frame: Frame) -> Iterator[str]:
    """Whether every field is in its range."""
    checks = c_checks(frame)
    if not checks:
        return
    yield ""
    yield f"static bool valid_{frame.name}(const struct outrider_{frame.name} *in)"
    yield "{"
    yield "    return " + "\n        && ".join(checks) + ";"
    yield "}"


def c_encode() -> Iterator[str]:
    """One case a frame."""
    yield from ("size_t outrider_encode(const struct outrider_frame *frame, uint8_t *raw)", "{")
    yield from ("    uint8_t *at = put_little(raw, frame->code, 1u);", "", "    switch (frame->code) {")
    for frame in FRAMES:
        yield f"    case OUTRIDER_CODE_{frame.name.upper()}: {{"
        yield f"        const struct outrider_{frame.name} *in = &frame->as.{frame.name};"
        if c_checks(frame):
            yield from (f"        if (!valid_{frame.name}(in)) {{", "            return 0u;", "        }")
        for field in frame.fields:
            if field.kind == "f32":
                yield f"        at = put_float(at, in->{field.name});"
            elif field.kind == "bytes":
                yield f"        at = put_bytes(at, in->{field.name}, {field.count}u);"
            else:
                value = f"(uint32_t)in->{field.name}" if field.kind == "i32" else f"in->{field.name}"
                yield f"        at = put_little(at, {value}, {field.size}u);"
        yield from ("        break;", "    }")
    yield from ("    default:", "        return 0u;", "    }", "    return (size_t)(at - raw);", "}")


def c_decode() -> Iterator[str]:
    """One case a frame."""
    yield "enum outrider_verdict outrider_decode(const uint8_t *raw, size_t size, struct outrider_frame *frame)"
    yield from ("{", "    const uint8_t *at = raw + 1;", "    bool valid = false;", "")
    yield from ("    if (size == 0u) {", "        return OUTRIDER_VERDICT_TOO_SHORT;", "    }")
    yield from ("    frame->code = raw[0];", "    switch (frame->code) {")
    for frame in FRAMES:
        yield f"    case OUTRIDER_CODE_{frame.name.upper()}: {{"
        yield f"        struct outrider_{frame.name} *out = &frame->as.{frame.name};"
        yield f"        if (size != {frame.raw_bytes - schema.CRC_BYTES}u) {{"
        yield from ("            return OUTRIDER_VERDICT_WRONG_LENGTH;", "        }")
        for field in frame.fields:
            if field.kind == "f32":
                yield f"        out->{field.name} = get_float(&at);"
            elif field.kind == "bytes":
                yield f"        get_bytes(&at, out->{field.name}, {field.count}u);"
            else:
                cast = "(int32_t)(uint32_t)" if field.kind == "i32" else f"({C_TYPES[field.kind]})"
                yield f"        out->{field.name} = {cast}get_little(&at, {field.size}u);"
        yield f"        valid = valid_{frame.name}(out);" if c_checks(frame) else "        valid = true;"
        yield from ("        break;", "    }")
    yield from ("    default:", "        return OUTRIDER_VERDICT_UNKNOWN_CODE;", "    }")
    yield from ("    return valid ? OUTRIDER_VERDICT_GOOD : OUTRIDER_VERDICT_OUT_OF_RANGE;", "}")


DOCUMENT_HEAD = """# The serial protocol

<!-- {made} -->

Revision {revision}, schema hash `0x{hash:08X}`: the first 32 bit of SHA-256 over the schema's canonical JSON.

- A frame is: code (1 byte), fields (little-endian, packed), CRC-32 of both (zlib's, little-endian), all of it
  COBS-encoded and ended by a zero byte. At most {raw} bytes before encoding, {wire} on the wire. A code has one
  length.
- A receiver drops what does not decode, counts it, and is in step again at the next zero byte. Every float is finite
  and in its range, or the frame is dropped.
- Handshake: the host sends `hello` with a random nonce; the board answers with its revision and hash, the nonce and a
  session that is never used twice. Hashes differ: session 0, nothing else is taken. Then `time_request` a few times,
  one after the other's answer or 200 ms, so that commands can say when they were sent on the board's clock.
- *Ordered* frames carry session and sequence, one counter for all of them; the board takes a sequence once, and only
  upwards. A host that asks again asks with a new sequence: every request can be repeated without harm.
- A command lives until `expiry_us` after its decision, wherever it spent that time: `age_us` is what passed before it
  was sent, the board measures the way from `sent_us`. More than {future} ms in the future is refused.
- The board stops by itself when no command was accepted for `watchdog_us` or the last one has expired, and starts
  again only after `arm`. A session in which nothing valid came for {session} ms is closed.
- Any transport that carries bytes in order will do. One that keeps messages (CAN FD, UDP) may carry a frame's code,
  fields and CRC without COBS.
"""


def document() -> str:
    """``docs/protocol/README.md``."""
    lines = [
        DOCUMENT_HEAD.format(
            made=MADE,
            revision=schema.REVISION,
            hash=schema.schema_hash(),
            raw=schema.RAW_MAX_BYTES,
            wire=schema.RAW_MAX_BYTES + 2,
            future=schema.FUTURE_MAX_US // 1000,
            session=schema.SESSION_TIMEOUT_MS,
        ),
        "## Frames",
        "",
        "| code | frame | to | rate | bytes on the wire |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| 0x{f.code:02X} | [{f.name}](#{f.name}) | {f.to} | {f.rate or 'as needed'} | {f.raw_bytes + 2} |"
        for f in FRAMES
    ]
    for frame in FRAMES:
        notes = [
            text for text, holds in (("Ordered.", frame.ordered), ("Never changes.", frame.frozen)) if holds
        ]
        lines += ["", f"### {frame.name}", "", " ".join([frame.about, *notes]), ""]
        lines += ["| field | type | unit | range | |", "|---|---|---|---|---|"]
        for field in frame.fields:
            kind = f"{field.count} bytes" if field.kind == "bytes" else field.kind
            lines += [f"| {field.name} | {kind} | {field.unit} | {shown_bounds(field)} | {field.about} |"]
    lines += ["", "## Values"]
    for name, values in tables.ENUMS.items():
        lines += [
            "",
            f"**{name}**: "
            + "; ".join(
                f"{i} {key}" + (f" ({about})" if about else "")
                for i, (key, about) in enumerate(values.items())
            ),
        ]
    for name, bits in (("Capability", tables.CAPABILITIES), ("Fault", tables.FAULTS)):
        lines += [
            "",
            f"**{name}** bits: "
            + "; ".join(f"{i} {key} ({about})" for i, (key, about) in enumerate(bits.items())),
        ]
    lines += [
        "",
        "## Parameters",
        "",
        "| id | parameter | type | unit | range | default | |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {p.id} | {p.name} | {p.kind} | {p.unit} | {p.low:g} .. {p.high:g} | {p.default:g} | {p.about} |"
        for p in tables.PARAMETERS
    ]
    return "\n".join([*lines, ""])


def outputs() -> dict[Path, str]:
    """Every generated file and what belongs in it."""
    room = ROOT / "firmware_interface"
    return {
        room / "protocol" / "frames.py": python_text(),
        room / "firmware" / "generated" / "outrider_protocol.h": c_header(),
        room / "firmware" / "generated" / "outrider_protocol.c": c_source(),
        ROOT / "docs" / "protocol" / "README.md": document(),
    }


def stale() -> list[Path]:
    """The files that are not what the schema says."""
    return [path for path, text in outputs().items() if not path.exists() or path.read_text() != text]


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args().check
    for path in (old := stale()):
        if not check:
            path.write_text(outputs()[path])
        print(f"{'not current' if check else 'written'}: {path.relative_to(ROOT)}")
    return 1 if check and old else 0


if __name__ == "__main__":
    sys.exit(main())
