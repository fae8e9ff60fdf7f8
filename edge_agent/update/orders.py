"""Whether this robot may follow an order: its papers are checked here, whatever the hub says.

What has been accepted is kept in STATE/slots/orders.json, written twice: newest access file, newest plan and
how far this robot is in it. A refused order changes nothing on disk. Robots never go back to a plan issued earlier,
to an earlier stage, or to a plan that was taken back here.
"""

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from contracts.canonical import digest_hex
from contracts.errors import (
    AccessFileError,
    ContractError,
    NotNamedError,
    OrderReplayedError,
    PlanError,
    RobotCardError,
    StageOrderError,
    WrongReleaseError,
)
from contracts.keyring import CARD_FILE, TRUSTED_FILE
from contracts.messages import Order
from contracts.papers import (
    PAPER_MAX_BYTES,
    check_approved,
    check_time,
    check_witnesses,
    open_access,
    open_card,
)
from contracts.plan import Plan, RobotCard, Stage, decode_plan, stages_of
from contracts.provenance import TrustedKeys
from edge_agent.update.twice import read_twice, write_twice

ORDERS_FILE = "orders.json"
FILE_MAX_BYTES = 64 * 1024
_NEVER = datetime.fromtimestamp(0, UTC)


class Standing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What this robot has accepted, and how far it is."""

    access_version: int = 0
    issued: datetime = _NEVER
    plan_digest: str = ""
    rollout: int = 0
    stage: int = -1
    action: str = ""
    release: str = ""
    soak_s: float = 0.0
    active_wall_ns: int = 0
    """Since when it has driven with the release; 0 when it does not."""
    soaked: bool = False
    checked_wall_ns: int = 0
    """Time never goes back behind this."""


class Accepted(msgspec.Struct, frozen=True):
    """An order whose papers are in order."""

    order: Order
    plan: Plan
    plan_digest: str
    stage: Stage
    access_version: int


class OrderBook:
    """One robot's. ``robot`` must be the one on the card in its key folder."""

    def __init__(self, state_dir: Path, keys: Path, robot: str) -> None:
        """Read what has been accepted; keys and card are read with each order."""
        self._path, self._keys, self._robot = state_dir / "slots" / ORDERS_FILE, keys, robot

    def standing(self) -> Standing:
        """What has been accepted; raises OrderReplayedError when that cannot be read."""
        try:
            return read_twice(self._path, Standing, FILE_MAX_BYTES) or Standing()
        except ValueError as error:
            raise OrderReplayedError(
                f"{self._path} and its copy are unreadable ({error}): no order can be told from an old one; remove both"
            ) from None

    def check(self, order: Order, now_wall_ns: int) -> Accepted:
        """Every check of an order; raises OrderError with the reason's code. Nothing is written."""
        known = self.standing()
        try:
            trusted = TrustedKeys.load(self._keys / TRUSTED_FILE)
        except ContractError as error:
            raise AccessFileError(str(error)) from None
        access = open_access(order.access, trusted)
        if access.version < known.access_version:
            raise AccessFileError(
                f"access file {access.version} is older than {known.access_version}, which this robot knows"
            )
        plan, digest = decode_plan(order.plan), digest_hex(order.plan)
        if order.digest != plan.release.digest:
            raise WrongReleaseError(
                f"the plan is for {plan.release.digest[:12]}, the order for {order.digest[:12]}"
            )
        if order.action != "revert":  # the way back is of a plan that was approved when it was followed
            check_approved(digest, order.approvals, access)
        if order.stage >= len(plan.stages):
            raise PlanError(f"the plan has {len(plan.stages)} stages, the order is for stage {order.stage}")
        accepted = Accepted(order, plan, digest, plan.stages[order.stage], access.version)
        if order.action != "revert":
            check_time(plan, max(now_wall_ns, known.checked_wall_ns))
        self._check_place(accepted, trusted)
        self._check_sequence(accepted, known)
        if order.action != "revert":
            check_witnesses(plan, digest, order.stage, order.witnesses, trusted)
        return accepted

    def _check_place(self, accepted: Accepted, trusted: TrustedKeys) -> None:
        order, stage = accepted.order, accepted.stage
        card = self._card(trusted)
        named = stages_of(accepted.plan, accepted.plan_digest, card)
        if order.stage not in named:
            raise NotNamedError(f"stage {stage.name} of {accepted.plan.name} does not name {self._robot}")
        if order.action != "revert" and (order.action == "shadow") != (stage.kind == "shadow"):
            raise StageOrderError(f"stage {stage.name} is {stage.kind}; the order says {order.action}")

    def _check_sequence(self, accepted: Accepted, known: Standing) -> None:
        order, plan = accepted.order, accepted.plan
        if accepted.plan_digest != known.plan_digest:
            if order.action == "revert":
                raise OrderReplayedError(f"this robot runs nothing of {plan.name} that could be taken back")
            if plan.issued <= known.issued:
                raise OrderReplayedError(
                    f"{plan.name} was issued {plan.issued:%Y-%m-%d %H:%M:%S}; this robot has followed a plan "
                    f"issued {known.issued:%Y-%m-%d %H:%M:%S}"
                )
            return
        if known.action == "revert" and order.action != "revert":
            raise OrderReplayedError(f"{plan.name} was taken back here; issue a new plan")
        if order.stage < known.stage:
            raise StageOrderError(
                f"this robot is in stage {known.stage} of {plan.name}, the order is for {order.stage}"
            )

    def _card(self, trusted: TrustedKeys) -> RobotCard:
        path = self._keys / CARD_FILE
        try:
            with path.open("rb") as file:
                card = open_card(file.read(PAPER_MAX_BYTES), trusted)
        except OSError as error:
            raise RobotCardError(
                f"no card at {path} ({error.strerror}); make one: `outrider keys robot`"
            ) from None
        if card.robot != self._robot:
            raise RobotCardError(f"{path} is the card of {card.robot}, this robot is {self._robot}")
        return card

    def accept(self, accepted: Accepted, now_wall_ns: int) -> None:
        """Remember an order that is followed; raises OSError, and nothing has changed then."""
        order, known = accepted.order, self.standing()
        same = (known.plan_digest, known.stage) == (accepted.plan_digest, order.stage)
        self._write(
            Standing(
                accepted.access_version, accepted.plan.issued, accepted.plan_digest, order.rollout, order.stage,
                order.action, order.digest, accepted.stage.soak_s, known.active_wall_ns if same else 0,
                known.soaked if same else False, max(now_wall_ns, known.checked_wall_ns),
            )
        )  # fmt: skip

    def drives_since(self, wall_ns: int) -> None:
        """The release drives, from now on or (0) no more."""
        known = self.standing()
        if not wall_ns or not known.active_wall_ns:
            self._write(msgspec.structs.replace(known, active_wall_ns=wall_ns))

    def soaked(self) -> None:
        """The release has driven for as long as the stage asks."""
        self._write(msgspec.structs.replace(self.standing(), soaked=True))

    def _write(self, standing: Standing) -> None:
        write_twice(self._path, standing)
