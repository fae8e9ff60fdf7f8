"""The frames of the protocol. Made by tools/protocol_gen.py from firmware_interface/protocol/schema.py: do not edit."""

import enum
from typing import NamedTuple

SCHEMA_REVISION = 1
SCHEMA_HASH = 0xA3BF4ED5


class State(enum.IntEnum):
    """Values are part of the protocol."""

    DISARMED = 0
    """Stands, motors off, takes parameters and updates."""
    ARMED = 1
    """Executes commands."""
    STOPPING = 2
    """Wheels are asked for zero until they stand, then disarmed."""
    FAULTED = 3
    """Stands until the cause is gone and the fault is cleared."""


class StopReason(enum.IntEnum):
    """Values are part of the protocol."""

    NONE = 0
    """Has not been armed yet."""
    STOP_FRAME = 1
    """A stop frame came."""
    DISARM = 2
    """A disarm frame came."""
    WATCHDOG = 3
    """No command was accepted in time, or the last one expired."""
    SESSION_NEW = 4
    """Another session was opened."""
    FAULT = 5
    """See the fault bitmap."""


class Result(enum.IntEnum):
    """Values are part of the protocol."""

    OK = 0
    """Done."""
    NOT_ALLOWED = 1
    """Not in this state: parameters and updates need a disarmed board."""
    FAULTED = 2
    """A fault is not cleared, or its cause persists."""
    STALE = 3
    """It took too long to arrive."""
    UNKNOWN = 4
    """No such parameter."""
    OUT_OF_RANGE = 5
    """A value out of its range, or of another type."""
    STORAGE = 6
    """The flash memory did not take it."""
    OUT_OF_PLACE = 7
    """Another offset is expected, or no update has begun."""
    TOO_OLD = 8
    """The image's version is not above the running one's, or below one installed before."""
    BAD_DIGEST = 9
    """What was written is not what was announced."""
    BAD_SIGNATURE = 10
    """Not signed for this board with the key it trusts, or it has none."""


class Kind(enum.IntEnum):
    """Values are part of the protocol."""

    U32 = 0
    """Unsigned integer."""
    F32 = 1
    """Ieee 754 single."""


class Level(enum.IntEnum):
    """Values are part of the protocol."""

    INFO = 0
    WARNING = 1
    ERROR = 2


class Verdict(enum.IntEnum):
    """Values are part of the protocol."""

    GOOD = 0
    """A frame."""
    BAD_COBS = 1
    """No cobs encoding."""
    TOO_SHORT = 2
    """Shorter than a code and a crc."""
    TOO_LONG = 3
    """Longer than any frame."""
    BAD_CRC = 4
    """The checksum does not fit."""
    UNKNOWN_CODE = 5
    """No frame has this code."""
    WRONG_LENGTH = 6
    """Not the length of this frame."""
    OUT_OF_RANGE = 7
    """A field is out of its range, or not finite."""


class Capability(enum.IntFlag):
    """Bits are part of the protocol."""

    WHEELS = 1
    """Drives and encoders."""
    IMU = 2
    """Acceleration and turn rate."""
    BATTERY = 4
    """Voltage and current."""
    BUMPER = 8
    """Contact strips."""
    EMERGENCY_STOP = 16
    """A stop input of its own."""
    UPDATE = 32
    """Two firmware slots."""
    SIGNATURE = 64
    """Checks image signatures itself; without it, it takes no update."""


class Fault(enum.IntFlag):
    """Bits are part of the protocol."""

    EMERGENCY_STOP = 1
    """The emergency stop was pressed."""
    BUMPER = 2
    """A contact strip was pressed."""
    BROWNOUT = 4
    """Voltage below battery_min_v for 20 ms."""
    OVERCURRENT = 8
    """A motor above current_max_a for 50 ms."""
    SENSOR = 16
    """A sensor gave no finite value, or stopped answering."""
    STORAGE = 32
    """The stored parameters were damaged; the built-in ones are used."""


class Hello(NamedTuple):
    """Opens a session. The board answers with its own, in which `session` is not 0 when the schemas
    are the same. A new nonce while armed stops the robot.
    """

    revision: int
    """the schema's running number: the lower one is the older side."""
    schema: int
    """first 32 bit of the schema's SHA-256."""
    nonce: int
    """the host's choice, echoed."""
    session: int
    """what the board's hello gave; 0 is none."""
    capabilities: int
    """bits, see Capability."""


class Stop(NamedTuple):
    """Stop now and disarm. Needs no session and is never refused."""

    reason: int
    """free, for the log."""


class VelocityCommand(NamedTuple):
    """How to drive. Executed only while armed, fresh and new: age_us + transit < expiry_us, sequence
    above all before. Nothing is executed twice.
    """

    session: int
    """what the board's hello gave; 0 is none."""
    sequence: int
    """one counter of the host for all ordered frames of a session."""
    sent_us: int
    """us; the board's clock when it was sent, as the host estimates it, low 32 bits."""
    age_us: int
    """us; 0 .. 1e+06; since the decision was made, when sent."""
    expiry_us: int
    """us; 1 .. 200000; how long after the decision it may be executed."""
    linear_mps: float
    """m/s; -2 .. 2; forward (REP 103)."""
    angular_radps: float
    """rad/s; -4 .. 4; counter-clockwise (REP 103)."""


class Arm(NamedTuple):
    """Allow motion. Only while disarmed, without faults, and at most 200 ms old."""

    session: int
    """what the board's hello gave; 0 is none."""
    sequence: int
    """one counter of the host for all ordered frames of a session."""
    sent_us: int
    """us; the board's clock when it was sent, as the host estimates it, low 32 bits."""


class Disarm(NamedTuple):
    """Stop and forbid motion."""

    session: int
    """what the board's hello gave; 0 is none."""
    sequence: int
    """one counter of the host for all ordered frames of a session."""


class ClearFaults(NamedTuple):
    """Forget faults whose cause is gone. The board stays disarmed."""

    session: int
    """what the board's hello gave; 0 is none."""
    sequence: int
    """one counter of the host for all ordered frames of a session."""
    mask: int


class Heartbeat(NamedTuple):
    """The side is alive. It never keeps the robot moving: only commands do."""

    session: int
    """what the board's hello gave; 0 is none."""
    beat: int
    """counts up."""


class ParameterGet(NamedTuple):
    """Ask for a parameter."""

    session: int
    """what the board's hello gave; 0 is none."""
    sequence: int
    """one counter of the host for all ordered frames of a session."""
    id: int
    """see Parameters."""


class ParameterSet(NamedTuple):
    """Change a parameter. Only while disarmed; stored before it is acknowledged."""

    session: int
    """what the board's hello gave; 0 is none."""
    sequence: int
    """one counter of the host for all ordered frames of a session."""
    id: int
    """see Parameters."""
    kind: int
    """Kind."""
    bits: int
    """the value: u32, or an f32's bits."""


class TimeRequest(NamedTuple):
    """What time is it? (NTP's exchange, RFC 5905 section 8.)"""

    host_us: int
    """us; the host's clock, echoed."""


class InfoRequest(NamedTuple):
    """Which firmware is this?"""

    session: int
    """what the board's hello gave; 0 is none."""


class UpdateBegin(NamedTuple):
    """Announce an image. An interrupted one with the same digest goes on where it stopped."""

    session: int
    """what the board's hello gave; 0 is none."""
    sequence: int
    """one counter of the host for all ordered frames of a session."""
    version: int
    """1 .. 4.29497e+09; must be above the running one's, and not below any installed before."""
    size: int
    """byte."""
    digest: bytes
    """SHA-256 of the image."""
    signature: bytes
    """Ed25519, see firmware_interface/update/image.py; checked before anything is written."""


class UpdateBlock(NamedTuple):
    """A piece of the image, in order."""

    session: int
    """what the board's hello gave; 0 is none."""
    sequence: int
    """one counter of the host for all ordered frames of a session."""
    offset: int
    """byte."""
    length: int
    """byte; 1 .. 128."""
    data: bytes
    """zeros after `length`."""


class UpdateVerify(NamedTuple):
    """Compare the digest of what was written with the announced and signed one."""

    session: int
    """what the board's hello gave; 0 is none."""
    sequence: int
    """one counter of the host for all ordered frames of a session."""


class UpdateSwitch(NamedTuple):
    """Start the verified image from now on."""

    session: int
    """what the board's hello gave; 0 is none."""
    sequence: int
    """one counter of the host for all ordered frames of a session."""


class Acknowledge(NamedTuple):
    """The answer to an ordered frame other than velocity_command."""

    session: int
    """what the board's hello gave; 0 is none."""
    sequence: int
    """one counter of the host for all ordered frames of a session."""
    code: int
    """the frame that is answered."""
    result: int
    """Result."""
    value: int
    """parameter: its bits; update: the next offset."""


class TimeReply(NamedTuple):
    """The board's clock."""

    host_us: int
    """us; from the request."""
    received_us: int
    """us; the board's clock when the request came."""
    sent_us: int
    """us; the board's clock when this left."""


class FirmwareInfo(NamedTuple):
    """What the board runs."""

    version: int
    slot: int
    """0 .. 1."""
    boots: int
    """how often it has started."""
    digest: bytes
    """of the running image; zeros as shipped."""
    board: bytes
    """name, ASCII, zero padded."""


class Status(NamedTuple):
    """What the board does, and what it has counted since its start."""

    session: int
    """what the board's hello gave; 0 is none."""
    time_us: int
    """us; the board's clock, low 32 bits."""
    state: int
    """State."""
    stop_reason: int
    """StopReason; why it last left armed."""
    faults: int
    """bits, see Fault."""
    sequence_executed: int
    """of the last velocity command."""
    commands_executed: int
    commands_stale: int
    commands_repeated: int
    """sequence not above all before."""
    commands_refused: int
    """not armed, or another session's."""
    frames_good: int
    frames_bad: int
    """CRC, COBS, length, range."""
    frames_unsent: int
    """no room to send."""


class Wheels(NamedTuple):
    """Wheel encoders and drives."""

    time_us: int
    """us; the board's clock, low 32 bits."""
    left_ticks: int
    """tick; wraps."""
    right_ticks: int
    """tick; wraps."""
    left_radps: float
    """rad/s; -500 .. 500."""
    right_radps: float
    """rad/s; -500 .. 500."""
    left_wanted_radps: float
    """rad/s; -500 .. 500; what the speed loop is asked for."""
    right_wanted_radps: float
    """rad/s; -500 .. 500; what the speed loop is asked for."""
    left_current_a: float
    """A; -200 .. 200."""
    right_current_a: float
    """A; -200 .. 200."""


class Imu(NamedTuple):
    """Acceleration and turn rate in the base frame (REP 103)."""

    time_us: int
    """us; the board's clock, low 32 bits."""
    acceleration_x_mps2: float
    """m/s^2; -200 .. 200."""
    acceleration_y_mps2: float
    """m/s^2; -200 .. 200."""
    acceleration_z_mps2: float
    """m/s^2; -200 .. 200."""
    turn_rate_x_radps: float
    """rad/s; -50 .. 50."""
    turn_rate_y_radps: float
    """rad/s; -50 .. 50."""
    turn_rate_z_radps: float
    """rad/s; -50 .. 50."""


class Battery(NamedTuple):
    """The battery."""

    time_us: int
    """us; the board's clock, low 32 bits."""
    voltage_v: float
    """V; 0 .. 100."""
    current_a: float
    """A; -200 .. 200; positive: discharging."""
    charge: float
    """share; 0 .. 1."""


class Bumper(NamedTuple):
    """Contact strips and the emergency stop."""

    time_us: int
    """us; the board's clock, low 32 bits."""
    bumpers: int
    """bits: 1 front, 2 left, 4 right, 8 rear."""
    emergency_stop: int
    """0 .. 1; 1: pressed, or its wire is broken."""


class LogLine(NamedTuple):
    """A line of text."""

    time_us: int
    """us; the board's clock, low 32 bits."""
    level: int
    """Level."""
    length: int
    """byte; 0 .. 96."""
    text: bytes
    """ASCII, zeros after `length`."""


AnyFrame = (
    Hello
    | Stop
    | VelocityCommand
    | Arm
    | Disarm
    | ClearFaults
    | Heartbeat
    | ParameterGet
    | ParameterSet
    | TimeRequest
    | InfoRequest
    | UpdateBegin
    | UpdateBlock
    | UpdateVerify
    | UpdateSwitch
    | Acknowledge
    | TimeReply
    | FirmwareInfo
    | Status
    | Wheels
    | Imu
    | Battery
    | Bumper
    | LogLine
)

TYPES: dict[int, type[AnyFrame]] = {
    0x01: Hello,
    0x02: Stop,
    0x10: VelocityCommand,
    0x11: Arm,
    0x12: Disarm,
    0x13: ClearFaults,
    0x14: Heartbeat,
    0x20: ParameterGet,
    0x21: ParameterSet,
    0x28: TimeRequest,
    0x29: InfoRequest,
    0x30: UpdateBegin,
    0x31: UpdateBlock,
    0x32: UpdateVerify,
    0x33: UpdateSwitch,
    0x40: Acknowledge,
    0x41: TimeReply,
    0x42: FirmwareInfo,
    0x50: Status,
    0x51: Wheels,
    0x52: Imu,
    0x53: Battery,
    0x54: Bumper,
    0x55: LogLine,
}
"""By code."""
