"""What the hub shows an operator."""

from typing import Annotated

import msgspec

from contracts.keyring import PartyName, Z85Key
from contracts.manifest import Digest, PolicyName, VersionText
from contracts.messages.fields import (
    ERASURES_MAX,
    LIST_MAX,
    MEMBERS_MAX,
    TOKENS_MAX,
    Count,
    Label,
    Message,
    OptionalDigest,
    Reason,
)
from contracts.papers import APPROVALS_MAX
from contracts.plan import STAGES_MAX


class UploadFrom(Message, frozen=True):
    """Go on with the upload from here."""

    offset: Count


class ReleaseInfo(Message, frozen=True):
    """One release of the catalogue."""

    digest: Digest
    policy_name: PolicyName
    version: VersionText
    release_counter: Count
    size_bytes: Count
    released_wall_ns: int


class ReleaseList(Message, frozen=True):
    """The newest releases, newest first."""

    releases: Annotated[tuple[ReleaseInfo, ...], msgspec.Meta(max_length=LIST_MAX)]


class RobotProgress(Message, frozen=True):
    """One robot's state in a rollout."""

    robot: PartyName
    stage: Label
    state: Label
    code: Label
    reason: Reason
    updated_wall_ns: int


class GateView(Message, frozen=True):
    """How canaries compare with control robots in one figure; the interval holds at every look at once."""

    metric: Label
    margin: float
    verdict: Label
    rounds: Count
    before_rounds: Count
    difference: float
    low: float
    high: float


class StageView(Message, frozen=True):
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


class RolloutView(Message, frozen=True):
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


class StageMembers(Message, frozen=True):
    """Who would get the release in one stage."""

    name: Label
    kind: Label
    count: Count
    robots: Annotated[tuple[PartyName, ...], msgspec.Meta(max_length=LIST_MAX)]


class PlanView(Message, frozen=True):
    """What would become of a plan."""

    plan_digest: Digest
    release: ReleaseInfo
    stages: Annotated[tuple[StageMembers, ...], msgspec.Meta(max_length=STAGES_MAX)]
    left_out: Annotated[tuple[PartyName, ...], msgspec.Meta(max_length=LIST_MAX)]
    approved_by: Annotated[tuple[Label, ...], msgspec.Meta(max_length=APPROVALS_MAX)]
    missing: Reason
    """What the approvals lack; nothing when it may start."""


class AuditEntry(Message, frozen=True):
    """One link of the audit log's chain."""

    seq: Count
    wall_ns: int
    rollout: Count
    who: Label
    body: str
    previous: Digest
    hash: Digest


class AuditPage(Message, frozen=True):
    """Entries in order, as many as fit."""

    entries: Annotated[tuple[AuditEntry, ...], msgspec.Meta(max_length=LIST_MAX)]


class RobotStatus(Message, frozen=True):
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


class FleetView(Message, frozen=True):
    """Every robot of the allow-list."""

    robots: Annotated[tuple[RobotStatus, ...], msgspec.Meta(max_length=LIST_MAX)]


class MemberView(Message, frozen=True):
    """Somebody who may connect, or no longer may."""

    role: Label
    name: PartyName
    key: Z85Key
    state: Label
    since_wall_ns: int
    """0 where the hub's key folder names it."""


class TokenView(Message, frozen=True):
    """A token that was issued; the hub does not know the token itself."""

    robot: PartyName
    token: Digest
    state: Label
    issued_by: Label
    expires_wall_ns: int


class MembersView(Message, frozen=True):
    """Who may connect, and which tokens are out."""

    members: Annotated[tuple[MemberView, ...], msgspec.Meta(max_length=MEMBERS_MAX)]
    tokens: Annotated[tuple[TokenView, ...], msgspec.Meta(max_length=TOKENS_MAX)]
    members_left_out: Count = 0
    """Not shown here, for there are too many; ask by name."""


class ErasureView(Message, frozen=True):
    """An order for erasure, and how far robot and hub are with it."""

    order: Digest
    robot: PartyName
    since_ns: int
    until_ns: int
    events: bool
    person: Label
    why: Reason
    ordered_wall_ns: int
    robot_state: Label
    """waiting, failed (it goes on by itself), refused, erased."""
    robot_code: Label
    robot_reason: Reason
    robot_records: Count
    robot_receipt: Reason
    """Where the robot's receipt lies in the hub's data folder."""
    hub_state: Label
    """waiting, erased."""
    hub_records: Count
    hub_receipts: Annotated[tuple[Label, ...], msgspec.Meta(max_length=8)]


class ErasuresView(Message, frozen=True):
    """Newest first."""

    erasures: Annotated[tuple[ErasureView, ...], msgspec.Meta(max_length=ERASURES_MAX)]
