"""What a robot says to its hub or to a mirror, and a machine that is not in the fleet yet."""

from typing import Annotated

import msgspec

from contracts.framelog import HexId
from contracts.keyring import PartyName
from contracts.manifest import Digest
from contracts.messages.fields import (
    RECORDS_MAX_COUNT,
    Count,
    Label,
    Message,
    Nonce,
    OptionalDigest,
    Reason,
    ReceiptBytes,
    RecordBytes,
    ReportedState,
    TrustName,
)
from contracts.papers import Paper


class Hello(Message, frozen=True):
    """First message of a robot after connecting: who it is, what it runs, where its log stands."""

    robot: PartyName
    boot_id: HexId
    log_id: HexId
    last_seq: Count
    robot_model: Label
    layout_hash: Digest
    active_digest: OptionalDigest
    active_version: Label


class Heartbeat(Message, frozen=True):
    """Still here; ``last_seq`` is the newest record in the robot's log."""

    last_seq: Count


class FetchChunk(Message, frozen=True):
    """Please send the bundle's bytes from ``offset``."""

    digest: Digest
    offset: Count


class FetchFile(Message, frozen=True):
    """Please send a repository's file from ``offset``."""

    name: TrustName
    offset: Count = 0


class RolloutReport(Message, frozen=True):
    """How far this robot has come with an order; code and reason when it refused or failed."""

    rollout: Count
    stage: Count
    digest: Digest
    state: ReportedState
    code: Label = ""
    reason: Reason = ""
    witness: Paper = b""
    """Soaked or shadowed: signed by the robot (``contracts.papers.Witness``)."""


class EraseReport(Message, frozen=True):
    """What became of an order for erasure; ``code`` and reason where it was refused or failed, "" where it is done."""

    order: Digest
    code: Label = ""
    reason: Reason = ""
    done: Paper = b""
    """Signed by the robot (``contracts.erasure.RobotErased``)."""
    receipt: ReceiptBytes = b""
    """``contracts.erasure.SignedReceipt`` as JSON, deflated; left out where it is too long: it lies at the robot."""


class Running(Message, frozen=True):
    """What this robot runs now, after it changed."""

    active_digest: OptionalDigest
    active_version: Label


class Records(Message, frozen=True):
    """``count`` log frames, whole, gapless, beginning with ``first_seq``."""

    log_id: HexId
    first_seq: Count
    count: Annotated[int, msgspec.Meta(ge=1, le=RECORDS_MAX_COUNT)]
    frames: RecordBytes


class AskTime(Message, frozen=True):
    """What time is it at the hub? The answer bears this nonce."""

    nonce: Nonce


class AskStored(Message, frozen=True):
    """Prove that these ``count`` records, which were acknowledged, are on the hub's disk."""

    log_id: HexId
    first_seq: Count
    count: Annotated[int, msgspec.Meta(ge=1, le=RECORDS_MAX_COUNT)]
    nonce: Nonce


# Connected with its token's key


class Enrol(Message, frozen=True):
    """A new robot's public keys, signed with its token's key (``contracts.papers.Binding``)."""

    binding: Paper


FromRobot = (
    Hello
    | Heartbeat
    | FetchChunk
    | FetchFile
    | RolloutReport
    | EraseReport
    | Running
    | Records
    | AskTime
    | AskStored
)
