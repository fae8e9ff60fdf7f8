"""What can happen to a rollout. Every event is one entry of the audit log; folded in order they are its state."""

from typing import Literal

import msgspec

from contracts.messages import GateView

Verdict = Literal["promote", "stop", "undecided"]


class _Event(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    pass


class Started(_Event, frozen=True):
    """Somebody began an approved plan."""

    plan_digest: str
    plan_name: str
    release: str
    why: str
    approved_by: tuple[str, ...]
    act: str
    """Digest of the signed act: it counts once."""


class StageBegan(_Event, frozen=True):
    """Robots of this stage may be told."""

    stage: int


class Ordered(_Event, frozen=True):
    """A robot is told to take the release."""

    robot: str
    stage: int


class Reported(_Event, frozen=True):
    """A robot says how far it is."""

    robot: str
    stage: int
    state: str
    code: str = ""
    reason: str = ""


class FellSilent(_Event, frozen=True):
    """A robot in the middle of a stage has not been heard for too long."""

    robot: str


class Judged(_Event, frozen=True):
    """What the gates of a stage say, and the evidence."""

    stage: int
    verdict: Verdict
    trips: int
    gates: tuple[GateView, ...]


class StagePassed(_Event, frozen=True):
    """Everything that the plan asks of this stage has been seen."""

    stage: int


class Stopped(_Event, frozen=True):
    """The hub ended it: a gate, a failure, a deadline."""

    reason: str
    revert: bool


class Paused(_Event, frozen=True):
    """Nobody new is told, no clock runs."""

    why: str
    act: str


class Resumed(_Event, frozen=True):
    """On it goes."""

    why: str
    act: str


class Aborted(_Event, frozen=True):
    """Somebody ended it."""

    why: str
    revert: bool
    act: str


class Superseded(_Event, frozen=True):
    """Another rollout took its place; robots keep what they have."""

    by: int


class Finished(_Event, frozen=True):
    """The last stage has passed; late and new robots still get the release."""


class Left(_Event, frozen=True):
    """A robot is no longer of the fleet: it counts neither as done nor as failed."""

    robot: str


RolloutEvent = (
    Started
    | Left
    | StageBegan
    | Ordered
    | Reported
    | FellSilent
    | Judged
    | StagePassed
    | Stopped
    | Paused
    | Resumed
    | Aborted
    | Superseded
    | Finished
)


class Approved(_Event, frozen=True):
    """Somebody signed a plan."""

    plan_digest: str
    plan_name: str
    roles: tuple[str, ...]
    why: str


class Released(_Event, frozen=True):
    """A bundle came into the catalogue."""

    digest: str
    policy: str


class Denied(_Event, frozen=True):
    """Somebody asked for what they may not."""

    asked: str
    code: str
    reason: str


class TokenIssued(_Event, frozen=True):
    """Somebody let a robot come: whoever brings this token by then."""

    robot: str
    token: str
    site: str
    model: str
    expires_wall_ns: int
    why: str
    act: str


class RobotEnrolled(_Event, frozen=True):
    """A robot came with a token and its own keys, and may connect."""

    robot: str
    token: str
    key: str
    public_hex: str


class OperatorAllowed(_Event, frozen=True):
    """Somebody let an operator's key in."""

    name: str
    key: str
    why: str
    act: str


class MemberRevoked(_Event, frozen=True):
    """Somebody cut a robot or an operator off; tokens for that robot are worth nothing any more."""

    role: str
    name: str
    keys: tuple[str, ...]
    why: str
    act: str


class StrangersRefused(_Event, frozen=True):
    """So many connections with keys that nobody knows, since the last entry of this kind."""

    count: int


class LogMended(_Event, frozen=True):
    """A stored log had a segment whose header was damaged (``fleet_hub.intake.mending``)."""

    robot: str
    log_id: str
    file: str
    why: str
    kept: int
    missing_first: int
    missing_last: int


class ErasureBegan(_Event, frozen=True):
    """What a robot recorded in some time is to go: no ingest takes it in again (``fleet_hub.store.erasure``)."""

    robot: str
    since_ns: int
    until_ns: int
    reason: str


class Erased(_Event, frozen=True):
    """It is gone."""

    began: int
    """The entry with which it began."""
    rows: int
    records: int
    trips: int
    receipt_sha256: str


class ErasureOrdered(_Event, frozen=True):
    """Somebody ordered a robot to erase what it recorded in some time (``fleet_hub.store.erasure_orders``)."""

    robot: str
    since_ns: int
    until_ns: int
    events: bool
    why: str
    order: str


class RobotErasedRecords(_Event, frozen=True):
    """A robot has carried that out, and signed a receipt."""

    order: str
    robot: str
    records: int
    receipt_sha256: str
    log_key: str


class ErasureRefused(_Event, frozen=True):
    """A robot has not: it refuses the order, or will try again."""

    order: str
    robot: str
    code: str
    reason: str


Entry = (
    RolloutEvent
    | Approved
    | Released
    | Denied
    | TokenIssued
    | RobotEnrolled
    | OperatorAllowed
    | MemberRevoked
    | StrangersRefused
    | LogMended
    | ErasureBegan
    | Erased
    | ErasureOrdered
    | RobotErasedRecords
    | ErasureRefused
)
_decoder: msgspec.json.Decoder[Entry] = msgspec.json.Decoder(Entry)


def decode_entry(body: str) -> Entry:
    """An audit entry's body as an event; raises msgspec.MsgspecError."""
    return _decoder.decode(body)
