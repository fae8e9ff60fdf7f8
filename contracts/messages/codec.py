"""Messages as bytes: protocol prefix, then msgpack, deflated where that helps."""

import zlib

import msgspec

from contracts.canonical import digest_hex, hash_of
from contracts.decision import DECISION_SCHEMA_HASH
from contracts.errors import MessageError
from contracts.messages.fields import MESSAGE_MAX_BYTES
from contracts.messages.from_operator import FromOperator
from contracts.messages.from_robot import Enrol, FromRobot
from contracts.messages.to_operator import (
    AuditPage,
    ErasuresView,
    FleetView,
    MembersView,
    PlanView,
    ReleaseInfo,
    ReleaseList,
    RolloutView,
    UploadFrom,
)
from contracts.messages.to_robot import (
    Ack,
    Chunk,
    Enrolled,
    EraseOrder,
    FileChunk,
    Order,
    Refused,
    SignedTime,
    Stored,
    Wait,
    Welcome,
)

FromClient = FromRobot | FromOperator | Enrol
FromHub = (
    Welcome
    | Ack
    | Stored
    | Order
    | Chunk
    | Wait
    | FileChunk
    | UploadFrom
    | ReleaseInfo
    | ReleaseList
    | PlanView
    | RolloutView
    | AuditPage
    | FleetView
    | SignedTime
    | Enrolled
    | MembersView
    | EraseOrder
    | ErasuresView
    | Refused
)

PACKED_MIN_BYTES = 256
_PACKED_MARK = b"\xc1"
"""Never begins a msgpack value: what follows is one, deflated."""
_PACKED = (Order, EraseOrder, FileChunk)
"""JSON with signatures, of which half goes. Bundles and records are left alone: they do not get smaller."""
_PACKED_WORDS = (
    b'"people":[{"name":"","public_hex":"","roles":["approver"]},"releaser","safety_officer"],"version":1,"why":"'
    b'"payloadType":"application/vnd.outrider.robot-card+json","witness+json","access+json","approval+json",'
    b'"custom":{"action":"run","plan_digest":"","robot":"robot_","rollout":1,"stage":0},"layout_hash":"",'
    b'"minimum_runtime":1,"policy_name":"","release_counter":1,"robot_models":[{"hash":"","name":"amr_small"}],'
    b'"keytype":"ed25519","keyval":{"public":""},"scheme":"ed25519","threshold":2,"consistent_snapshot":true,'
    b'.outrider","director/robot_/image/.root.json.targets.json.snapshot.json/timestamp.json"FileChunk'
    b'{"signatures":[{"keyid":"","sig":""}],"signed":{"_type":"targets","expires":"2026-01-01T00:00:00Z",'
    b'"spec_version":"1.0.31","targets":{"order":{"hashes":{"sha256":""},"length":1,"_type":"snapshot",'
    b'"meta":{"targets.json":{"_type":"timestamp","meta":{"snapshot.json":{"hashes":{"sha256":""},'
    b'"length":431,"version":1}},"spec_version":"1.0.31","version":1}}'
)
"""What both sides know beforehand (RFC 1950, preset dictionary): small files have no time to repeat themselves."""

PROTOCOL_HASH = hash_of(
    {
        "packed": digest_hex(_PACKED_WORDS),
        "from_client": msgspec.json.schema(FromClient),
        "from_hub": msgspec.json.schema(FromHub),
        "decision": DECISION_SCHEMA_HASH,
    }
)
_PREFIX = bytes.fromhex(PROTOCOL_HASH[:16])
_encoder = msgspec.msgpack.Encoder()
_client_decoder: msgspec.msgpack.Decoder[FromClient] = msgspec.msgpack.Decoder(FromClient)
_hub_decoder: msgspec.msgpack.Decoder[FromHub] = msgspec.msgpack.Decoder(FromHub)


def encode(message: FromClient | FromHub) -> bytes:
    """A message as bytes, protocol prefix first."""
    body = _encoder.encode(message)
    if isinstance(message, _PACKED) and len(body) >= PACKED_MIN_BYTES:
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS, zdict=_PACKED_WORDS)
        body = min(body, _PACKED_MARK + deflater.compress(body) + deflater.flush(), key=len)
    return _PREFIX + body


def encode_into(message: FromRobot, buffer: bytearray) -> None:
    """The same bytes in the place of what ``buffer`` held.

    Its memory is used again: a batch of records in fresh memory costs the kernel's clearing of every page of it, and
    one copy more for the prefix, ten times of what is left then.
    """
    buffer[: len(_PREFIX)] = _PREFIX
    _encoder.encode_into(message, buffer, len(_PREFIX))


def _unpacked(data: memoryview) -> bytes | memoryview:
    """What was deflated, never more than a message may have; raises MessageError."""
    if data[:1] != _PACKED_MARK:
        return data
    inflater = zlib.decompressobj(-zlib.MAX_WBITS, _PACKED_WORDS)
    try:
        body = inflater.decompress(data[1:], MESSAGE_MAX_BYTES)
    except zlib.error as error:
        raise MessageError(f"a packed message is damaged: {error}") from None
    if not inflater.eof or inflater.unused_data:
        raise MessageError(f"a packed message ends early, or holds more than {MESSAGE_MAX_BYTES} bytes")
    return body


def _body(data: bytes | memoryview) -> bytes | memoryview:
    if len(data) > MESSAGE_MAX_BYTES:
        raise MessageError(f"a message may have {MESSAGE_MAX_BYTES} bytes, came {len(data)}")
    if data[: len(_PREFIX)] != _PREFIX:
        raise MessageError(
            f"this side speaks protocol {PROTOCOL_HASH[:16]}, the other {bytes(data[:8]).hex() or 'nothing'}; "
            "install the same outrider version on both"
        )
    return _unpacked(memoryview(data)[len(_PREFIX) :])


def decode_from_client(data: bytes | memoryview) -> FromClient:
    """Read a message of a robot or an operator; raises MessageError."""
    try:
        return _client_decoder.decode(_body(data))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MessageError(f"not a message of a robot or an operator: {error}") from None


def decode_from_hub(data: bytes) -> FromHub:
    """Read a message of the hub; raises MessageError."""
    try:
        return _hub_decoder.decode(_body(data))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MessageError(f"not a message of a hub: {error}") from None
