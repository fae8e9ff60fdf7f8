"""What the hub says to a robot; ``Refused`` to anybody."""

from typing import Annotated

import msgspec

from contracts.framelog import HexId
from contracts.manifest import Digest
from contracts.messages.fields import (
    WAIT_MAX_MS,
    AccessPaper,
    ChunkBytes,
    Count,
    Label,
    Message,
    Nonce,
    OrderAction,
    PlanBytes,
    Reason,
    RootBytes,
    TrustName,
)
from contracts.papers import APPROVALS_MAX, WITNESSES_MAX, Paper


class Welcome(Message, frozen=True):
    """Answer to Hello: the newest record of that log that is safe on the hub's disk."""

    durable_seq: Count


class Ack(Message, frozen=True):
    """Every record up to ``durable_seq`` is on the hub's disk. Also the answer to a heartbeat."""

    log_id: HexId
    durable_seq: Count


class Stored(Message, frozen=True):
    """How many of those records there are, and the SHA-256 of the nonce and their frames as they lie on disk."""

    nonce: Nonce
    count: Count
    proof: Digest
    erased: Count
    """Of them, on somebody's request."""


class Order(Message, frozen=True):
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


class EraseOrder(Message, frozen=True):
    """What a person wants erased from the robot's log (``contracts.erasure.EraseAct``), and who may want that."""

    act: Paper
    access: AccessPaper


class Chunk(Message, frozen=True):
    """The bundle's bytes from ``offset``; no bytes when the hub does not have it."""

    digest: Digest
    offset: Count
    data: ChunkBytes


class Wait(Message, frozen=True):
    """Not now: ask for the bundle again after so long. The hub keeps this robot's place until a little later."""

    digest: Digest
    wait_ms: Annotated[int, msgspec.Meta(ge=0, le=WAIT_MAX_MS)]


class FileChunk(Message, frozen=True):
    """The file's bytes from ``offset`` and its whole size; not found: there is none."""

    name: TrustName
    offset: Count
    size_bytes: Count
    found: bool
    data: ChunkBytes


class SignedTime(Message, frozen=True):
    """The hub's time, signed together with the robot's nonce (``contracts.trust.HubTime``)."""

    paper: Paper


class Enrolled(Message, frozen=True):
    """The robot is in the fleet: its card, and what it starts to trust from (hashed in its token)."""

    card: Paper
    trusted: Paper
    image_root: RootBytes
    director_root: RootBytes


class Refused(Message, frozen=True):
    """No, and why. ``code`` is for programs, ``reason`` for people."""

    code: Label
    reason: Reason
