"""What travels between robots, operators and the hub: a tagged union over msgpack, one direction each.

Every message begins with the first eight bytes of the protocol hash, so that two sides of different versions
notice before they misread each other. The hash is taken over the messages' own schema and the decision
record's.
"""

import zlib
from typing import Annotated

import msgspec

from contracts.canonical import digest_hex, hash_of
from contracts.decision import DECISION_SCHEMA_HASH
from contracts.errors import MessageError
from contracts.framelog import HexId
from contracts.keyring import PartyName, Z85Key
from contracts.manifest import Digest, PolicyName, VersionText
from contracts.papers import ACCESS_MAX_BYTES, APPROVALS_MAX, WITNESSES_MAX, Paper
from contracts.plan import PLAN_MAX_BYTES, STAGES_MAX
from contracts.trust import NONCE_BYTES, ROOT_MAX_BYTES, TARGETS_MAX_BYTES

CHUNK_MAX_BYTES = 256 * 1024
RECORDS_MAX_BYTES = 256 * 1024
RECORDS_MAX_COUNT = 512
MESSAGE_MAX_BYTES = 512 * 1024
LIST_MAX = 4096
MEMBERS_MAX, TOKENS_MAX = 2000, 1000
"""As many as fit into a message."""
REASON_MAX_CHARS = 500
HELLO_FIRST = "hello_first"
WAIT_MAX_MS = 60_000

Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Reason = Annotated[str, msgspec.Meta(max_length=REASON_MAX_CHARS)]
Label = Annotated[str, msgspec.Meta(max_length=128)]
OptionalDigest = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")]
ChunkBytes = Annotated[bytes, msgspec.Meta(max_length=CHUNK_MAX_BYTES)]
RecordBytes = Annotated[bytes, msgspec.Meta(max_length=RECORDS_MAX_BYTES)]
ReportedState = Annotated[
    str, msgspec.Meta(pattern="^(downloading|staged|active|soaked|shadowed|refused|failed|reverted)$")
]
OrderAction = Annotated[str, msgspec.Meta(pattern="^(run|shadow|revert)$")]
AccessPaper = Annotated[bytes, msgspec.Meta(max_length=ACCESS_MAX_BYTES)]
PlanBytes = Annotated[bytes, msgspec.Meta(max_length=PLAN_MAX_BYTES)]
TrustName = Annotated[str, msgspec.Meta(max_length=128)]
"""Name of a file in a TUF repository (``contracts.trust.check_name``)."""
TargetsBytes = Annotated[bytes, msgspec.Meta(max_length=TARGETS_MAX_BYTES)]
RootBytes = Annotated[bytes, msgspec.Meta(max_length=ROOT_MAX_BYTES)]
Nonce = Annotated[bytes, msgspec.Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]


class _Message(msgspec.Struct, frozen=True, tag=True, array_like=True, forbid_unknown_fields=True):
    pass


# Robot to hub


class Hello(_Message, frozen=True):
    """First message of a robot after connecting: who it is, what it runs, where its log stands."""

    robot: PartyName
    boot_id: HexId
    log_id: HexId
    last_seq: Count
    robot_model: Label
    layout_hash: Digest
    active_digest: OptionalDigest
    active_version: Label


class Heartbeat(_Message, frozen=True):
    """Still here; ``last_seq`` is the newest record in the robot's log."""

    last_seq: Count


class FetchChunk(_Message, frozen=True):
    """Please send the bundle's bytes from ``offset``."""

    digest: Digest
    offset: Count


class FetchFile(_Message, frozen=True):
    """Please send a repository's file from ``offset``."""

    name: TrustName
    offset: Count = 0


class RolloutReport(_Message, frozen=True):
    """How far this robot has come with an order; code and reason when it refused or failed."""

    rollout: Count
    stage: Count
    digest: Digest
    state: ReportedState
    code: Label = ""
    reason: Reason = ""
    witness: Paper = b""
    """Soaked or shadowed: signed by the robot (``contracts.papers.Witness``)."""


class Running(_Message, frozen=True):
    """What this robot runs now, after it changed."""

    active_digest: OptionalDigest
    active_version: Label


class Records(_Message, frozen=True):
    """``count`` log frames, whole, gapless, beginning with ``first_seq``."""

    log_id: HexId
    first_seq: Count
    count: Annotated[int, msgspec.Meta(ge=1, le=RECORDS_MAX_COUNT)]
    frames: RecordBytes


class AskTime(_Message, frozen=True):
    """What time is it at the hub? The answer bears this nonce."""

    nonce: Nonce


class AskStored(_Message, frozen=True):
    """Prove that these ``count`` records, which were acknowledged, are on the hub's disk."""

    log_id: HexId
    first_seq: Count
    count: Annotated[int, msgspec.Meta(ge=1, le=RECORDS_MAX_COUNT)]
    nonce: Nonce


# Robot that is not in the fleet yet, connected with its token's key, to hub


class Enrol(_Message, frozen=True):
    """A new robot's public keys, signed with its token's key (``contracts.papers.Binding``)."""

    binding: Paper


# Operator to hub


class BeginRelease(_Message, frozen=True):
    """A bundle is coming; the hub says from which offset."""

    digest: Digest
    size_bytes: Count


class ReleaseChunk(_Message, frozen=True):
    """Part of that bundle."""

    digest: Digest
    offset: Count
    data: ChunkBytes


class CommitRelease(_Message, frozen=True):
    """That was all of it: verify it and put it into the catalogue, and into the image repository with ``targets``."""

    digest: Digest
    targets: TargetsBytes = b""
    """Signed image targets that list it; nothing when those that are there do."""


class AskFile(_Message, frozen=True):
    """An operator wants a repository's file, for a stick or to sign the next targets."""

    name: TrustName
    offset: Count = 0


class ListReleases(_Message, frozen=True):
    """What is in the catalogue?"""


class CheckPlan(_Message, frozen=True):
    """Would this plan do, who would get what, and who has approved it?"""

    plan: PlanBytes


class ApprovePlan(_Message, frozen=True):
    """A person's signature under a plan (``contracts.papers.Approval``)."""

    plan: PlanBytes
    approval: Paper


class ActOnRollout(_Message, frozen=True):
    """A person starts (then with the plan), pauses, resumes or aborts a rollout (``contracts.papers.Act``)."""

    act: Paper
    plan: PlanBytes = b""


class AskAudit(_Message, frozen=True):
    """The audit log's entries from here on."""

    first_seq: Count


class AskRollout(_Message, frozen=True):
    """How far is this rollout? 0 asks for the newest."""

    rollout: Count


class AskFleet(_Message, frozen=True):
    """How is every robot?"""


class ActOnFleet(_Message, frozen=True):
    """A person changes who may connect (``contracts.papers.FleetAct``); for a token, with its voucher."""

    act: Paper
    voucher: Paper = b""


class AskMembers(_Message, frozen=True):
    """Who may connect, and which tokens are out? Of one name, or of everybody."""

    name: Label = ""


# Hub to robot


class Welcome(_Message, frozen=True):
    """Answer to Hello: the newest record of that log that is safe on the hub's disk."""

    durable_seq: Count


class Ack(_Message, frozen=True):
    """Every record up to ``durable_seq`` is on the hub's disk. Also the answer to a heartbeat."""

    log_id: HexId
    durable_seq: Count


class Stored(_Message, frozen=True):
    """How many of those records there are, and the SHA-256 of the nonce and their frames as they lie on disk."""

    nonce: Nonce
    count: Count
    proof: Digest
    erased: Count
    """Of them, on somebody's request."""


class Order(_Message, frozen=True):
    """Run this release, run it beside, or go back to what was before; with the papers that say so."""

    rollout: Count
    stage: Count
    action: OrderAction
    digest: Digest
    plan: PlanBytes
    approvals: Annotated[tuple[Paper, ...], msgspec.Meta(max_length=APPROVALS_MAX)]
    access: AccessPaper
    witnesses: Annotated[tuple[tuple[Paper, Paper], ...], msgspec.Meta(max_length=WITNESSES_MAX)] = ()
    """(card, witness) of robots of the stage before."""


class Chunk(_Message, frozen=True):
    """The bundle's bytes from ``offset``; no bytes when the hub does not have it."""

    digest: Digest
    offset: Count
    data: ChunkBytes


class Wait(_Message, frozen=True):
    """Not now: ask for the bundle again after so long. The hub keeps this robot's place until a little later."""

    digest: Digest
    wait_ms: Annotated[int, msgspec.Meta(ge=0, le=WAIT_MAX_MS)]


class FileChunk(_Message, frozen=True):
    """The file's bytes from ``offset`` and its whole size; not found: there is none."""

    name: TrustName
    offset: Count
    size_bytes: Count
    found: bool
    data: ChunkBytes


class SignedTime(_Message, frozen=True):
    """The hub's time, signed together with the robot's nonce (``contracts.trust.HubTime``)."""

    paper: Paper


class Enrolled(_Message, frozen=True):
    """The robot is in the fleet: its card, and what it starts to trust from (hashed in its token)."""

    card: Paper
    trusted: Paper
    image_root: RootBytes
    director_root: RootBytes


# Hub to operator


class UploadFrom(_Message, frozen=True):
    """Go on with the upload from here."""

    offset: Count


class ReleaseInfo(_Message, frozen=True):
    """One release of the catalogue."""

    digest: Digest
    policy_name: PolicyName
    version: VersionText
    release_counter: Count
    size_bytes: Count
    released_wall_ns: int


class ReleaseList(_Message, frozen=True):
    """The newest releases, newest first."""

    releases: Annotated[tuple[ReleaseInfo, ...], msgspec.Meta(max_length=LIST_MAX)]


class RobotProgress(_Message, frozen=True):
    """One robot's state in a rollout."""

    robot: PartyName
    stage: Label
    state: Label
    code: Label
    reason: Reason
    updated_wall_ns: int


class GateView(_Message, frozen=True):
    """How canaries compare with control robots in one figure; the interval holds at every look at once."""

    metric: Label
    margin: float
    verdict: Label
    rounds: Count
    before_rounds: Count
    difference: float
    low: float
    high: float


class StageView(_Message, frozen=True):
    """One stage and how far it is."""

    name: Label
    kind: Label
    state: Label
    members: Count
    done: Count
    failed: Count
    trips: Count
    minimum_trips: Count
    began_wall_ns: int
    gates: Annotated[tuple[GateView, ...], msgspec.Meta(max_length=8)]


class RolloutView(_Message, frozen=True):
    """A rollout, how far each stage and each robot is."""

    rollout: Count
    plan_name: Label
    plan_digest: Digest
    release: ReleaseInfo
    started_by: Label
    started_wall_ns: int
    state: Label
    reason: Reason
    stages: Annotated[tuple[StageView, ...], msgspec.Meta(max_length=STAGES_MAX)]
    robots: Annotated[tuple[RobotProgress, ...], msgspec.Meta(max_length=LIST_MAX)]


class StageMembers(_Message, frozen=True):
    """Who would get the release in one stage."""

    name: Label
    kind: Label
    count: Count
    robots: Annotated[tuple[PartyName, ...], msgspec.Meta(max_length=LIST_MAX)]


class PlanView(_Message, frozen=True):
    """What would become of a plan."""

    plan_digest: Digest
    release: ReleaseInfo
    stages: Annotated[tuple[StageMembers, ...], msgspec.Meta(max_length=STAGES_MAX)]
    left_out: Annotated[tuple[PartyName, ...], msgspec.Meta(max_length=LIST_MAX)]
    approved_by: Annotated[tuple[Label, ...], msgspec.Meta(max_length=APPROVALS_MAX)]
    missing: Reason
    """What the approvals lack; nothing when it may start."""


class AuditEntry(_Message, frozen=True):
    """One link of the audit log's chain."""

    seq: Count
    wall_ns: int
    rollout: Count
    who: Label
    body: str
    previous: Digest
    hash: Digest


class AuditPage(_Message, frozen=True):
    """Entries in order, as many as fit."""

    entries: Annotated[tuple[AuditEntry, ...], msgspec.Meta(max_length=LIST_MAX)]


class RobotStatus(_Message, frozen=True):
    """One robot as the hub sees it."""

    robot: PartyName
    online: bool
    active_digest: OptionalDigest
    active_version: Label
    log_id: str
    durable_seq: Count
    last_seq: Count
    records_stored: Count
    last_seen_wall_ns: int


class FleetView(_Message, frozen=True):
    """Every robot of the allow-list."""

    robots: Annotated[tuple[RobotStatus, ...], msgspec.Meta(max_length=LIST_MAX)]


class MemberView(_Message, frozen=True):
    """Somebody who may connect, or no longer may."""

    role: Label
    name: PartyName
    key: Z85Key
    state: Label
    since_wall_ns: int
    """0 where the hub's key folder names it."""


class TokenView(_Message, frozen=True):
    """A token that was issued; the hub does not know the token itself."""

    robot: PartyName
    token: Digest
    state: Label
    issued_by: Label
    expires_wall_ns: int


class MembersView(_Message, frozen=True):
    """Who may connect, and which tokens are out."""

    members: Annotated[tuple[MemberView, ...], msgspec.Meta(max_length=MEMBERS_MAX)]
    tokens: Annotated[tuple[TokenView, ...], msgspec.Meta(max_length=TOKENS_MAX)]
    members_left_out: Count = 0
    """Not shown here, for there are too many; ask by name."""


class Refused(_Message, frozen=True):
    """No, and why. ``code`` is for programs, ``reason`` for people."""

    code: Label
    reason: Reason


FromRobot = (
    Hello | Heartbeat | FetchChunk | FetchFile | RolloutReport | Running | Records | AskTime | AskStored
)
FromOperator = (
    BeginRelease
    | ReleaseChunk
    | CommitRelease
    | AskFile
    | ListReleases
    | CheckPlan
    | ApprovePlan
    | ActOnRollout
    | AskRollout
    | AskAudit
    | AskFleet
    | ActOnFleet
    | AskMembers
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
    | Refused
)

PACKED_MIN_BYTES = 256
_PACKED_MARK = b"\xc1"
"""Never begins a msgpack value: what follows is one, deflated."""
_PACKED = (Order, FileChunk)
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


def _body(data: bytes) -> bytes | memoryview:
    if len(data) > MESSAGE_MAX_BYTES:
        raise MessageError(f"a message may have {MESSAGE_MAX_BYTES} bytes, came {len(data)}")
    if data[: len(_PREFIX)] != _PREFIX:
        raise MessageError(
            f"this side speaks protocol {PROTOCOL_HASH[:16]}, the other {data[:8].hex() or 'nothing'}; "
            "install the same outrider version on both"
        )
    return _unpacked(memoryview(data)[len(_PREFIX) :])


def decode_from_client(data: bytes) -> FromClient:
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


def short(reason: object) -> str:
    """A reason cut to what a message may carry."""
    text = str(reason)
    return text if len(text) <= REASON_MAX_CHARS else text[: REASON_MAX_CHARS - 3] + "..."
