"""A rollout's papers: who may do what, who approved which plan, what robots have witnessed. Reading, never signing.

All are DSSE envelopes (Ed25519). The release keys vouch for the access file and for each robot's card; the people
and robots named there vouch for the rest. The hub and every agent check the same papers with this module, so a
stolen hub can neither approve a plan nor skip a stage.
"""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, TypeVar

import msgspec

from contracts.canonical import canonical_json
from contracts.errors import (
    AccessDeniedError,
    AccessFileError,
    BundleError,
    NotApprovedError,
    OrderError,
    PlanExpiredError,
    RobotCardError,
    StageOrderError,
)
from contracts.keyring import PartyName, Z85Key
from contracts.manifest import Digest
from contracts.plan import Plan, RobotCard, SiteName, stages_of
from contracts.provenance import ReleaseKey, TrustedKeys, open_envelope

ACCESS_TYPE = "application/vnd.outrider.access+json"
APPROVAL_TYPE = "application/vnd.outrider.approval+json"
ACT_TYPE = "application/vnd.outrider.act+json"
CARD_TYPE = "application/vnd.outrider.robot-card+json"
WITNESS_TYPE = "application/vnd.outrider.witness+json"
FLEET_ACT_TYPE = "application/vnd.outrider.fleet-act+json"
VOUCHER_TYPE = "application/vnd.outrider.voucher+json"
BINDING_TYPE = "application/vnd.outrider.binding+json"
PAPER_MAX_BYTES = 16 * 1024
ACCESS_MAX_BYTES = 64 * 1024
PEOPLE_MAX = 128
APPROVALS_MAX = 8
WITNESSES_MAX = 8
SKEW_MAX = timedelta(minutes=5)

Role = Literal["viewer", "engineer", "releaser", "approver", "safety_officer"]
SECOND_ROLES = frozenset({"releaser", "safety_officer"})
"""One of these must sign beside an approver."""
ACTING_ROLES = frozenset({"releaser", "approver", "safety_officer"})
"""Who may start, pause, resume and abort; who may take robots and operators in, and cut them off."""
Why = Annotated[str, msgspec.Meta(min_length=3, max_length=300)]
Paper = Annotated[bytes, msgspec.Meta(max_length=PAPER_MAX_BYTES)]
T = TypeVar("T")


class _Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Person(_Model, frozen=True):
    """Somebody, their public Ed25519 key, and what they may do."""

    name: PartyName
    public_hex: Digest
    roles: Annotated[tuple[Role, ...], msgspec.Meta(min_length=1, max_length=5)]


class AccessFile(_Model, frozen=True):
    """Everybody who may do anything. ``version`` only rises; robots refuse an older one."""

    version: Annotated[int, msgspec.Meta(ge=1)]
    people: Annotated[tuple[Person, ...], msgspec.Meta(max_length=PEOPLE_MAX)] = ()

    def __post_init__(self) -> None:
        """Refuse one key or one name listed twice: one person could sign as two."""
        for what in ("name", "public_hex"):
            if len({getattr(person, what) for person in self.people}) < len(self.people):
                raise ValueError(f"the access file lists one {what} twice")


class Approval(_Model, frozen=True):
    """A person has read this plan and wants it."""

    plan_digest: Digest
    person: PartyName
    why: Why
    signed_wall_ns: int


class Act(_Model, frozen=True):
    """A person does something to a rollout."""

    action: Literal["start", "pause", "resume", "abort"]
    person: PartyName
    why: Why
    signed_wall_ns: int
    plan_digest: Digest
    rollout: Annotated[int, msgspec.Meta(ge=0)] = 0
    """0 where it is only to be started."""
    revert: bool = False
    """Abort: whether robots go back to what they had."""
    supersede: bool = False
    """Start: whether a rollout under way ends for it, robots keeping what they have."""


class FleetAct(_Model, frozen=True):
    """A person changes who may connect to the hub."""

    action: Literal["enrol", "allow", "revoke"]
    """Issue a token for a robot, let an operator's key in, or let nothing of that name in any more."""
    role: Literal["robot", "operator"]
    name: PartyName
    person: PartyName
    why: Why
    signed_wall_ns: int
    key: Annotated[str, msgspec.Meta(pattern="^(.{40})?$")] = ""
    """Allow: the operator's CURVE public key."""
    voucher: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")] = ""
    """Enrol: SHA-256 of the voucher."""


class Voucher(_Model, frozen=True):
    """The fleet's owner says who holds a token (``contracts.enrolment``) is this robot."""

    robot: PartyName
    token: Digest
    """The token's id."""
    public_hex: Digest
    """Public half of the token's signing key."""
    expires_wall_ns: Annotated[int, msgspec.Meta(ge=1)]
    site: SiteName = ""
    model: SiteName = "amr_small"


class Binding(_Model, frozen=True):
    """A robot says with its token's key which keys are its own."""

    robot: PartyName
    public_hex: Digest
    """Ed25519: what it signs with."""
    curve_public: Z85Key
    """What it connects with."""


class EnrolledCard(_Model, frozen=True):
    """The card of a robot that came with a token: voucher and binding, both envelopes."""

    voucher: Paper
    binding: Paper


class Witness(_Model, frozen=True):
    """A robot of a stage has run the release through its soak, without a fault."""

    plan_digest: Digest
    stage: Annotated[int, msgspec.Meta(ge=0)]
    robot: PartyName
    release: Digest


_ENROLLED = b'{"voucher":'
"""How an enrolled robot's card begins; an envelope begins with its payload."""


class _SignedBy(msgspec.Struct, frozen=True):
    keyid: str


class _Peek(msgspec.Struct, frozen=True):
    signatures: Annotated[tuple[_SignedBy, ...], msgspec.Meta(min_length=1, max_length=4)]


def open_paper(data: bytes, paper_type: str, trusted: TrustedKeys, kind: type[T]) -> T:
    """What is inside an envelope, in canonical form; raises BundleError, ValueError (msgspec's too)."""
    payload, _ = open_envelope(data, paper_type, trusted)
    value = msgspec.json.decode(payload, type=kind)
    if canonical_json(value) != payload:
        raise ValueError("not in canonical form")
    return value


def open_access(data: bytes, trusted: TrustedKeys) -> AccessFile:
    """The access file inside an envelope of the release keys; raises AccessFileError."""
    try:
        return open_paper(data, ACCESS_TYPE, trusted, AccessFile)
    except (BundleError, ValueError) as error:
        raise AccessFileError(
            f"the access file is refused: {error}; sign it with `outrider keys access`"
        ) from None


def open_voucher(data: bytes, trusted: TrustedKeys) -> Voucher:
    """A voucher inside an envelope of the release keys; raises RobotCardError."""
    try:
        return open_paper(data, VOUCHER_TYPE, trusted, Voucher)
    except (BundleError, ValueError) as error:
        raise RobotCardError(f"a voucher is refused: {error}; issue it with `outrider fleet enrol`") from None


def open_binding(data: bytes, voucher: Voucher) -> Binding:
    """A robot's keys, signed by the token that the voucher is for, whatever it calls itself; raises RobotCardError."""
    try:
        key = ReleaseKey(voucher.robot, voucher.public_hex)
        return open_paper(data, BINDING_TYPE, TrustedKeys(1, (key,)), Binding)
    except (BundleError, ValueError) as error:
        raise RobotCardError(f"keys of {voucher.robot} are refused: {error}") from None


def open_card(data: bytes, trusted: TrustedKeys) -> RobotCard:
    """A robot's card: signed by the release keys, or by the token of a voucher that they signed.

    Raises:
        RobotCardError: It is neither.
    """
    try:
        if data.startswith(_ENROLLED):
            enrolled = msgspec.json.decode(data, type=EnrolledCard)
            voucher = open_voucher(enrolled.voucher, trusted)
            binding = open_binding(enrolled.binding, voucher)
            if binding.robot != voucher.robot:
                raise ValueError(f"the keys are of {binding.robot}, the voucher is for {voucher.robot}")
            return RobotCard(voucher.robot, binding.public_hex, voucher.site, voucher.model)
        return open_paper(data, CARD_TYPE, trusted, RobotCard)
    except (BundleError, ValueError) as error:
        raise RobotCardError(
            f"a robot's card is refused: {error}; make it with `outrider keys robot`"
        ) from None


def open_personal(data: bytes, paper_type: str, access: AccessFile, kind: type[T]) -> tuple[T, Person]:
    """What a person of the access file signed, and who did; raises AccessDeniedError."""
    try:
        if len(data) > PAPER_MAX_BYTES:
            raise ValueError(f"{len(data)} bytes, at most {PAPER_MAX_BYTES}")
        ids = {signature.keyid for signature in msgspec.json.decode(data, type=_Peek).signatures}
        keys = {person.name: ReleaseKey(person.name, person.public_hex) for person in access.people}
        signer = next((person for person in access.people if keys[person.name].key_id in ids), None)
        if signer is None:
            raise ValueError("signed by nobody of the access file")
        return open_paper(data, paper_type, TrustedKeys(1, (keys[signer.name],)), kind), signer
    except (BundleError, ValueError) as error:
        raise AccessDeniedError(
            f"{error}; the fleet's owner adds people with `outrider keys person`"
        ) from None


def open_act(data: bytes, access: AccessFile, now_wall_ns: int) -> Act:
    """What a person asks for, in a role that may; raises AccessDeniedError."""
    act, person = open_personal(data, ACT_TYPE, access, Act)
    _check_acting(act, person, "a rollout", now_wall_ns)
    return act


def open_fleet_act(data: bytes, access: AccessFile, now_wall_ns: int) -> FleetAct:
    """How a person changes the fleet, in a role that may; raises AccessDeniedError."""
    act, person = open_personal(data, FLEET_ACT_TYPE, access, FleetAct)
    _check_acting(act, person, f"a {act.role}", now_wall_ns)
    return act


def _check_acting(act: Act | FleetAct, person: Person, what: str, now_wall_ns: int) -> None:
    check_role(act.person, person, f"{act.action} {what}", act.signed_wall_ns, now_wall_ns)


def check_role(claimed: str, person: Person, what: str, signed_wall_ns: int, now_wall_ns: int | None) -> None:
    """That ``person``, who signed, is who the paper says, may do ``what`` and signed now (None: whenever it was).

    Raises:
        AccessDeniedError: One of these is not so.
    """
    if claimed != person.name:
        raise AccessDeniedError(f"signed by {person.name}, but says {claimed}; sign it yourself")
    if not ACTING_ROLES & set(person.roles):
        raise AccessDeniedError(
            f"{person.name} is {', '.join(person.roles)}; to {what} takes one of "
            f"{', '.join(sorted(ACTING_ROLES))}"
        )
    if now_wall_ns is not None and abs(now_wall_ns - signed_wall_ns) > SKEW_MAX.total_seconds() * 1e9:
        raise AccessDeniedError(f"{person.name} signed that at another time; look at the clocks, sign it now")


def open_approval(data: bytes, plan_digest: str, access: AccessFile) -> tuple[Approval, Person]:
    """One person's signature under exactly this plan; raises AccessDeniedError, NotApprovedError."""
    approval, person = open_personal(data, APPROVAL_TYPE, access, Approval)
    if approval.person != person.name:
        raise AccessDeniedError(f"signed by {person.name}, but says {approval.person}; sign it yourself")
    if approval.plan_digest != plan_digest:
        raise NotApprovedError(
            f"{person.name} approved plan {approval.plan_digest[:12]}, this is {plan_digest[:12]}; "
            "approve this one: `outrider rollout approve`"
        )
    if not ACTING_ROLES & set(person.roles):
        raise AccessDeniedError(f"{person.name} is {', '.join(person.roles)} and approves nothing")
    return approval, person


def check_approved(
    plan_digest: str, papers: tuple[bytes, ...], access: AccessFile
) -> tuple[tuple[Approval, Person], ...]:
    """Those who approved, when they are an approver and somebody else who releases or answers for safety.

    Raises:
        NotApprovedError: They are not two different people of those roles.
        AccessDeniedError: They are not, and a paper is signed by nobody of the access file.
    """
    found, faults = [], []
    for paper in papers[:APPROVALS_MAX]:
        try:
            found.append(open_approval(paper, plan_digest, access))
        except OrderError as error:
            faults.append(error)
    people = {person.name: person for _, person in found}.values()
    pairs = [
        (first, second)
        for first in people
        for second in people
        if first is not second and "approver" in first.roles and SECOND_ROLES & set(second.roles)
    ]
    if not pairs and faults:
        raise faults[0]
    if not pairs:
        came = ", ".join(f"{person.name} ({', '.join(person.roles)})" for person in people) or "nobody"
        raise NotApprovedError(
            "a plan needs an approver and another person who is releaser or safety officer, came: "
            f"{came}; `outrider rollout approve PLAN --as NAME --why ...`"
        )
    return tuple(found)


def check_time(plan: Plan, now_wall_ns: int) -> None:
    """Raises PlanExpiredError outside the time for which the plan was made."""
    now = datetime.fromtimestamp(now_wall_ns / 1e9, UTC)
    if not plan.issued - SKEW_MAX <= now < plan.expires:
        raise PlanExpiredError(
            f"plan {plan.name} is valid from {plan.issued:%Y-%m-%d %H:%M} to {plan.expires:%Y-%m-%d %H:%M}, "
            f"now is {now:%Y-%m-%d %H:%M} UTC; write a new one"
        )


def open_witness(data: bytes, card: RobotCard) -> Witness:
    """What the robot of that card signed; raises RobotCardError."""
    try:
        key = ReleaseKey(card.robot, card.public_hex)
        return open_paper(data, WITNESS_TYPE, TrustedKeys(1, (key,)), Witness)
    except (BundleError, ValueError) as error:
        raise RobotCardError(f"{card.robot} has not signed that: {error}") from None


def check_witnesses(
    plan: Plan, plan_digest: str, stage: int, papers: tuple[tuple[bytes, bytes], ...], trusted: TrustedKeys
) -> tuple[str, ...]:
    """Robots of the stage before that signed that they ran the release, as many as the plan asks for.

    ``papers`` are (card, witness).

    Raises:
        StageOrderError: Fewer than the plan asks for.
    """
    if stage == 0:
        return ()
    before = stage - 1
    seen: set[str] = set()
    why = ""
    for card_paper, witness_paper in papers[:WITNESSES_MAX]:
        if len(seen) >= plan.witnesses:
            break  # each costs two signatures
        try:
            card = open_card(card_paper, trusted)
            wanted = Witness(plan_digest, before, card.robot, plan.release.digest)
            if open_witness(witness_paper, card) != wanted:
                why = f"; {card.robot} witnessed something else"
            elif before not in stages_of(plan, plan_digest, card):
                why = f"; {card.robot} is not of that stage"
            else:
                seen.add(card.robot)
        except OrderError as error:
            why = f"; {error}"
    if len(seen) < plan.witnesses:
        raise StageOrderError(
            f"stage {plan.stages[stage].name} needs {plan.witnesses} robot(s) that ran stage "
            f"{plan.stages[before].name} to its end, came {len(seen)}{why}"
        )
    return tuple(sorted(seen))
