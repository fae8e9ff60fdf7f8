"""What an operator says to the hub."""

from contracts.manifest import Digest
from contracts.messages.fields import ChunkBytes, Count, Label, Message, PlanBytes, TargetsBytes, TrustName
from contracts.papers import Paper


class BeginRelease(Message, frozen=True):
    """A bundle is coming; the hub says from which offset."""

    digest: Digest
    size_bytes: Count


class ReleaseChunk(Message, frozen=True):
    """Part of that bundle."""

    digest: Digest
    offset: Count
    data: ChunkBytes


class CommitRelease(Message, frozen=True):
    """That was all of it: verify it and put it into the catalogue, and into the image repository with ``targets``."""

    digest: Digest
    targets: TargetsBytes = b""
    """Signed image targets that list it; nothing when those that are there do."""


class AskFile(Message, frozen=True):
    """An operator wants a repository's file, for a stick or to sign the next targets."""

    name: TrustName
    offset: Count = 0


class ListReleases(Message, frozen=True):
    """What is in the catalogue?"""


class CheckPlan(Message, frozen=True):
    """Would this plan do, who would get what, and who has approved it?"""

    plan: PlanBytes


class ApprovePlan(Message, frozen=True):
    """A person's signature under a plan (``contracts.papers.Approval``)."""

    plan: PlanBytes
    approval: Paper


class ActOnRollout(Message, frozen=True):
    """A person starts (then with the plan), pauses, resumes or aborts a rollout (``contracts.papers.Act``)."""

    act: Paper
    plan: PlanBytes = b""


class AskAudit(Message, frozen=True):
    """The audit log's entries from here on."""

    first_seq: Count


class AskRollout(Message, frozen=True):
    """How far is this rollout? 0 asks for the newest."""

    rollout: Count


class AskFleet(Message, frozen=True):
    """How is every robot?"""


class ActOnFleet(Message, frozen=True):
    """A person changes who may connect (``contracts.papers.FleetAct``); for a token, with its voucher."""

    act: Paper
    voucher: Paper = b""


class AskMembers(Message, frozen=True):
    """Who may connect, and which tokens are out? Of one name, or of everybody."""

    name: Label = ""


class OrderErasure(Message, frozen=True):
    """A person wants records of a robot erased, there and here (``contracts.erasure.EraseAct``)."""

    act: Paper


class AskErasures(Message, frozen=True):
    """What became of orders for erasure? Of one robot, or of all."""

    robot: Label = ""


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
    | OrderErasure
    | AskErasures
)
