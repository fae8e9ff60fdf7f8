"""The one description of the protocol. Python frames, C codec and document are generated from it.

``tools/protocol_gen.py`` writes ``frames.py``, ``firmware/generated/`` and ``docs/protocol/README.md``; a test holds
them current. The version is the hash of what two sides must agree on; texts for people are left out of it. After a
change that alters the hash: raise ``REVISION``, which tells both sides which of them is older, and note the new
hash in ``HISTORY``.
"""

import msgspec

from contracts.canonical import hash_of
from firmware_interface.protocol.tables import CAPABILITIES, ENUMS, FAULTS, PARAMETERS

REVISION = 1
HISTORY: tuple[int, ...] = (0xA3BF4ED5,)
"""The hash of each revision, the first one first."""
BYTES_OF = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "i32": 4, "f32": 4, "bytes": 1}
CRC_BYTES = 4
RAW_MAX_BYTES = 253
"""Code, fields and CRC. Below 254 COBS adds exactly one byte and never needs its long block."""
SESSION_TIMEOUT_MS = 1000
"""A board closes a session in which nothing valid has come for so long."""
FUTURE_MAX_US = 5000
"""A command that says it was sent later than this from now was stamped by a wrong clock."""
ARM_AGE_MAX_US = 200_000
UPDATE_BLOCK_BYTES = 128
LOG_TEXT_BYTES = 96


class Field(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One field, little-endian. ``count`` is the length of ``bytes``; ``enum`` names the values of an integer."""

    name: str
    kind: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    count: int = 1
    enum: str = ""
    about: str = ""

    @property
    def size(self) -> int:
        """Bytes on the wire."""
        return BYTES_OF[self.kind] * self.count

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Lowest and highest value, both allowed; None where the type is the only bound."""
        if self.enum:
            return 0, len(ENUMS[self.enum]) - 1
        return None if self.low is None or self.high is None else (self.low, self.high)


class Frame(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of frame. ``to`` is board, host or both.

    ``ordered``: its first fields are session and sequence; a board takes it only in its session and with a
    sequence above all before. ``frozen``: may never change, so that sides of any two versions understand it.
    """

    name: str
    code: int
    to: str
    about: str
    fields: tuple[Field, ...]
    rate: str = ""
    ordered: bool = False
    frozen: bool = False

    @property
    def raw_bytes(self) -> int:
        """Code, fields and CRC."""
        return 1 + sum(field.size for field in self.fields) + CRC_BYTES


def _u32(name: str, unit: str = "", about: str = "", high: float | None = None) -> Field:
    return Field(name, "u32", unit, None if high is None else 0, high, about=about)


def _f32(name: str, unit: str, low: float, high: float, about: str = "") -> Field:
    return Field(name, "f32", unit, low, high, about=about)


def _enum(name: str, enum: str, about: str = "") -> Field:
    return Field(name, "u8", enum=enum, about=about)


SESSION = _u32("session", about="what the board's hello gave; 0 is none")
SEQUENCE = _u32("sequence", about="one counter of the host for all ordered frames of a session")
TIME = _u32("time_us", "us", "the board's clock, low 32 bits")
SENT = _u32("sent_us", "us", "the board's clock when it was sent, as the host estimates it, low 32 bits")


def _ordered(name: str, code: int, about: str, *fields: Field) -> Frame:
    return Frame(name, code, "board", about, (SESSION, SEQUENCE, *fields), ordered=True)


FRAMES: tuple[Frame, ...] = (
    Frame(
        "hello",
        0x01,
        "both",
        "Opens a session. The board answers with its own, in which `session` is not 0 when the schemas are the "
        "same. A new nonce while armed stops the robot.",
        (
            Field("revision", "u16", about="the schema's running number: the lower one is the older side"),
            _u32("schema", about="first 32 bit of the schema's SHA-256"),
            _u32("nonce", about="the host's choice, echoed"),
            SESSION,
            _u32("capabilities", about="bits, see Capability"),
        ),
        "host: on connecting, every 200 ms",
        frozen=True,
    ),
    Frame(
        "stop",
        0x02,
        "board",
        "Stop now and disarm. Needs no session and is never refused.",
        (Field("reason", "u8", about="free, for the log"),),
        frozen=True,
    ),
    _ordered(
        "velocity_command",
        0x10,
        "How to drive. Executed only while armed, fresh and new: age_us + transit < expiry_us, sequence above all "
        "before. Nothing is executed twice.",
        SENT,
        _u32("age_us", "us", "since the decision was made, when sent", 1_000_000),
        Field("expiry_us", "u32", "us", 1, 200_000, about="how long after the decision it may be executed"),
        _f32("linear_mps", "m/s", -2.0, 2.0, "forward (REP 103)"),
        _f32("angular_radps", "rad/s", -4.0, 4.0, "counter-clockwise (REP 103)"),
    ),
    _ordered("arm", 0x11, "Allow motion. Only while disarmed, without faults, and at most 200 ms old.", SENT),
    _ordered("disarm", 0x12, "Stop and forbid motion."),
    _ordered(
        "clear_faults", 0x13, "Forget faults whose cause is gone. The board stays disarmed.", _u32("mask")
    ),
    Frame(
        "heartbeat",
        0x14,
        "both",
        "The side is alive. It never keeps the robot moving: only commands do.",
        (SESSION, _u32("beat", about="counts up")),
        "both: 10 Hz",
    ),
    _ordered("parameter_get", 0x20, "Ask for a parameter.", Field("id", "u8", about="see Parameters")),
    _ordered(
        "parameter_set",
        0x21,
        "Change a parameter. Only while disarmed; stored before it is acknowledged.",
        Field("id", "u8", about="see Parameters"),
        _enum("kind", "Kind"),
        _u32("bits", about="the value: u32, or an f32's bits"),
    ),
    Frame(
        "time_request",
        0x28,
        "board",
        "What time is it? (NTP's exchange, RFC 5905 section 8.)",
        (Field("host_us", "u64", "us", about="the host's clock, echoed"),),
        "host: 5 Hz",
    ),
    Frame("info_request", 0x29, "board", "Which firmware is this?", (SESSION,)),
    _ordered(
        "update_begin",
        0x30,
        "Announce an image. An interrupted one with the same digest goes on where it stopped.",
        Field(
            "version",
            "u32",
            low=1,
            high=2**32 - 1,
            about="must be above the running one's, and not below any installed before",
        ),
        _u32("size", "byte"),
        Field("digest", "bytes", count=32, about="SHA-256 of the image"),
        Field(
            "signature",
            "bytes",
            count=64,
            about="Ed25519, see firmware_interface/update/image.py; checked before anything is written",
        ),
    ),
    _ordered(
        "update_block",
        0x31,
        "A piece of the image, in order.",
        _u32("offset", "byte"),
        Field("length", "u8", "byte", 1, UPDATE_BLOCK_BYTES),
        Field("data", "bytes", count=UPDATE_BLOCK_BYTES, about="zeros after `length`"),
    ),
    _ordered(
        "update_verify", 0x32, "Compare the digest of what was written with the announced and signed one."
    ),
    _ordered("update_switch", 0x33, "Start the verified image from now on."),
    Frame(
        "acknowledge",
        0x40,
        "host",
        "The answer to an ordered frame other than velocity_command.",
        (
            SESSION,
            SEQUENCE,
            Field("code", "u8", about="the frame that is answered"),
            _enum("result", "Result"),
            _u32("value", about="parameter: its bits; update: the next offset"),
        ),
    ),
    Frame(
        "time_reply",
        0x41,
        "host",
        "The board's clock.",
        (
            Field("host_us", "u64", "us", about="from the request"),
            Field("received_us", "u64", "us", about="the board's clock when the request came"),
            Field("sent_us", "u64", "us", about="the board's clock when this left"),
        ),
    ),
    Frame(
        "firmware_info",
        0x42,
        "host",
        "What the board runs.",
        (
            _u32("version"),
            Field("slot", "u8", low=0, high=1),
            _u32("boots", about="how often it has started"),
            Field("digest", "bytes", count=32, about="of the running image; zeros as shipped"),
            Field("board", "bytes", count=16, about="name, ASCII, zero padded"),
        ),
    ),
    Frame(
        "status",
        0x50,
        "host",
        "What the board does, and what it has counted since its start.",
        (
            SESSION,
            TIME,
            _enum("state", "State"),
            _enum("stop_reason", "StopReason", "why it last left armed"),
            _u32("faults", about="bits, see Fault"),
            _u32("sequence_executed", about="of the last velocity command"),
            _u32("commands_executed"),
            _u32("commands_stale"),
            _u32("commands_repeated", about="sequence not above all before"),
            _u32("commands_refused", about="not armed, or another session's"),
            _u32("frames_good"),
            _u32("frames_bad", about="CRC, COBS, length, range"),
            _u32("frames_unsent", about="no room to send"),
        ),
        "20 Hz, and when the state changes",
    ),
    Frame(
        "wheels",
        0x51,
        "host",
        "Wheel encoders and drives.",
        (
            TIME,
            Field("left_ticks", "i32", "tick", about="wraps"),
            Field("right_ticks", "i32", "tick", about="wraps"),
            _f32("left_radps", "rad/s", -500.0, 500.0),
            _f32("right_radps", "rad/s", -500.0, 500.0),
            _f32("left_wanted_radps", "rad/s", -500.0, 500.0, "what the speed loop is asked for"),
            _f32("right_wanted_radps", "rad/s", -500.0, 500.0, "what the speed loop is asked for"),
            _f32("left_current_a", "A", -200.0, 200.0),
            _f32("right_current_a", "A", -200.0, 200.0),
        ),
        "parameter wheels_hz",
    ),
    Frame(
        "imu",
        0x52,
        "host",
        "Acceleration and turn rate in the base frame (REP 103).",
        (
            TIME,
            *(_f32(f"acceleration_{axis}_mps2", "m/s^2", -200.0, 200.0) for axis in "xyz"),
            *(_f32(f"turn_rate_{axis}_radps", "rad/s", -50.0, 50.0) for axis in "xyz"),
        ),
        "parameter imu_hz",
    ),
    Frame(
        "battery",
        0x53,
        "host",
        "The battery.",
        (
            TIME,
            _f32("voltage_v", "V", 0.0, 100.0),
            _f32("current_a", "A", -200.0, 200.0, "positive: discharging"),
            _f32("charge", "share", 0.0, 1.0),
        ),
        "1 Hz",
    ),
    Frame(
        "bumper",
        0x54,
        "host",
        "Contact strips and the emergency stop.",
        (
            TIME,
            Field("bumpers", "u8", about="bits: 1 front, 2 left, 4 right, 8 rear"),
            Field("emergency_stop", "u8", low=0, high=1, about="1: pressed, or its wire is broken"),
        ),
        "20 Hz, and when it changes",
    ),
    Frame(
        "log_line",
        0x55,
        "host",
        "A line of text.",
        (
            TIME,
            _enum("level", "Level"),
            Field("length", "u8", "byte", 0, LOG_TEXT_BYTES),
            Field("text", "bytes", count=LOG_TEXT_BYTES, about="ASCII, zeros after `length`"),
        ),
    ),
)


def agreed() -> dict[str, object]:
    """What two sides must agree on: everything but the texts for people."""
    return {
        "frames": [
            [
                *(frame.name, frame.code, frame.to, frame.ordered),
                [[f.name, f.kind, f.unit, f.bounds, f.count, f.enum] for f in frame.fields],
            ]
            for frame in FRAMES
        ],
        "enums": {name: list(values) for name, values in ENUMS.items()},
        "bits": [list(CAPABILITIES), list(FAULTS)],
        "parameters": [[p.id, p.name, p.kind, p.unit, p.low, p.high, p.default] for p in PARAMETERS],
        "limits": [RAW_MAX_BYTES, SESSION_TIMEOUT_MS, FUTURE_MAX_US, ARM_AGE_MAX_US],
    }


def schema_hash() -> int:
    """The version: the first 32 bit of SHA-256 over the canonical JSON of :func:`agreed`."""
    return int(hash_of(agreed())[:8], 16)
