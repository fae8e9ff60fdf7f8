"""A rollout's plan: which release, who gets it in which order, and what must hold before the next ones do.

Operators write YAML, people sign the digest of its canonical JSON, and the hub and every agent read that same
JSON: both work out with ``stages_of`` whether a stage names a robot.
"""

import hashlib
from collections import Counter
from datetime import datetime, timedelta
from typing import Annotated, Literal

import msgspec

from contracts.canonical import canonical_json, digest_hex
from contracts.errors import PlanError
from contracts.keyring import PartyName
from contracts.manifest import BUNDLE_MAX_BYTES, Digest, PolicyName, VersionText

PLAN_MAX_BYTES = 128 * 1024
STAGES_MAX = 16
ROBOTS_MAX = 4096
SHADOW_MAX_S = 600.0
LIFE_MAX = timedelta(days=90)
EVERYBODY_PERCENT = 100.0

StageKind = Literal["shadow", "canary", "cohort", "full"]
_ORDER = ("shadow", "canary", "cohort", "full")
Metric = Literal[
    "delivery_time_s", "aborted", "contacts", "near_misses", "interventions", "slow_ticks", "fallbacks"
]
Name = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$")]
SiteName = Annotated[str, msgspec.Meta(max_length=64)]
Seconds = Annotated[float, msgspec.Meta(gt=0.0, le=90 * 86400.0)]
Instant = Annotated[datetime, msgspec.Meta(tz=True)]
ClockTime = Annotated[str, msgspec.Meta(pattern="^([01][0-9]|2[0-3]):[0-5][0-9]$")]


class _Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Release(_Model, frozen=True):
    """The one bundle that a plan is about."""

    digest: Digest
    policy_name: PolicyName
    version: VersionText
    release_counter: Annotated[int, msgspec.Meta(ge=1)]
    size_bytes: Annotated[int, msgspec.Meta(ge=1, le=BUNDLE_MAX_BYTES)]


class Who(_Model, frozen=True):
    """Whom a stage names, in exactly one way: by name, by site and model, by a percentage, or all the rest.

    Percentage and rest are of the robots that no stage names by name, site or model.
    """

    robots: Annotated[tuple[PartyName, ...], msgspec.Meta(max_length=ROBOTS_MAX)] = ()
    sites: Annotated[tuple[SiteName, ...], msgspec.Meta(max_length=64)] = ()
    models: Annotated[tuple[SiteName, ...], msgspec.Meta(max_length=64)] = ()
    percent: Annotated[float, msgspec.Meta(ge=0.0, le=EVERYBODY_PERCENT)] = 0.0
    rest: bool = False

    @property
    def named(self) -> bool:
        """Whether it names robots rather than a share of them."""
        return bool(self.robots or self.sites or self.models)

    def names(self, robot: "RobotCard") -> bool:
        """Whether this robot is named by its name, or by its site and model."""
        if self.robots:
            return robot.robot in self.robots
        fits_site = not self.sites or robot.site in self.sites
        return self.named and fits_site and (not self.models or robot.model in self.models)


class Gate(_Model, frozen=True):
    """One figure of canaries against control robots; ``margin`` is how much worse is still taken, in its unit."""

    metric: Metric
    margin: Annotated[float, msgspec.Meta(gt=0.0, le=1000.0)]


class Window(_Model, frozen=True, rename={"from_": "from"}):
    """Time of day, UTC, in which robots may be told to change; may go over midnight."""

    from_: ClockTime
    to: ClockTime

    def open(self, at: datetime) -> bool:
        """Whether ``at`` (UTC) lies inside."""
        now = at.strftime("%H:%M")
        if self.from_ <= self.to:
            return self.from_ <= now < self.to
        return now >= self.from_ or now < self.to


class Stage(_Model, frozen=True, kw_only=True):
    """One step of a rollout."""

    name: Name
    kind: StageKind
    who: Who
    soak_s: Seconds
    """How long each robot must have run it without a fault."""
    deadline_s: Seconds
    """The stage fails when it has not passed by then."""
    silence_s: Seconds = 60.0
    """A robot unheard for so long has failed."""
    at_once: Annotated[int, msgspec.Meta(ge=1, le=ROBOTS_MAX)] = 50
    failures_max: Annotated[int, msgspec.Meta(ge=0, le=ROBOTS_MAX)] = 0
    """So many robots may refuse, fail, fall silent or be away at the deadline."""
    minimum_trips: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    gates: Annotated[tuple[Gate, ...], msgspec.Meta(max_length=8)] = ()
    window: Window | None = None


class Plan(_Model, frozen=True, kw_only=True):
    """Everything that people approve, and nothing that may change afterwards."""

    name: Name
    release: Release
    issued: Instant
    """When it was written; robots never go back to a plan issued earlier."""
    expires: Instant
    stages: Annotated[tuple[Stage, ...], msgspec.Meta(min_length=1, max_length=STAGES_MAX)]
    on_stop: Literal["revert", "keep"] = "revert"
    witnesses: Annotated[int, msgspec.Meta(ge=1, le=8)] = 1
    """So many robots of the stage before must have signed that they ran it through their soak."""
    level: Annotated[float, msgspec.Meta(gt=0.0, le=0.2)] = 0.05
    """Chance of a false stop in a stage, over all of its gates."""


class RobotCard(_Model, frozen=True):
    """What the fleet's owner says about one robot, signed: its key, where it works, what it is."""

    robot: PartyName
    public_hex: Digest
    """Ed25519; the robot signs with it what it has seen."""
    site: SiteName = ""
    model: SiteName = "amr_small"


def encode_plan(plan: Plan) -> tuple[bytes, str]:
    """The plan's one byte string and its digest, which is what people sign; raises PlanError."""
    check_plan(plan)
    data = canonical_json(plan)
    if len(data) > PLAN_MAX_BYTES:
        raise PlanError(f"a plan may have {PLAN_MAX_BYTES} bytes, came {len(data)}; name sites, not robots")
    return data, digest_hex(data)


def decode_plan(data: bytes) -> Plan:
    """Read and check a plan's canonical JSON; raises PlanError."""
    if len(data) > PLAN_MAX_BYTES:
        raise PlanError(f"a plan may have {PLAN_MAX_BYTES} bytes, came {len(data)}")
    try:
        plan = msgspec.json.decode(data, type=Plan)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise PlanError(f"no rollout plan: {error}") from None
    check_plan(plan)
    if canonical_json(plan) != data:
        raise PlanError("the plan is not in its canonical form; `outrider rollout plan check` writes it")
    return plan


def check_plan(plan: Plan) -> None:
    """Everything that can be wrong with a plan on its own; raises PlanError."""
    if not timedelta(0) < plan.expires - plan.issued <= LIFE_MAX:
        raise PlanError(f"a plan expires after it was issued and within {LIFE_MAX.days} days")
    names = [stage.name for stage in plan.stages]
    if len(set(names)) < len(names):
        raise PlanError(f"two stages have one name: {', '.join(names)}")
    kinds = [_ORDER.index(stage.kind) for stage in plan.stages]
    if kinds != sorted(kinds):
        raise PlanError(f"stages go {' -> '.join(_ORDER)}; came {' -> '.join(s.kind for s in plan.stages)}")
    for stage in plan.stages:
        _check_stage(stage)
    _check_shares(plan)


def _check_stage(stage: Stage) -> None:
    who = stage.who
    ways = (bool(who.robots), bool(who.sites or who.models), who.percent > 0.0, who.rest)
    if sum(ways) != 1:
        raise PlanError(
            f"stage {stage.name} names {'nobody' if not any(ways) else 'robots in more than one way'}; "
            "give one of robots, sites/models, percent, rest"
        )
    if len(set(who.robots)) < len(who.robots):
        raise PlanError(f"stage {stage.name} lists a robot twice")
    if stage.soak_s >= stage.deadline_s:
        raise PlanError(f"stage {stage.name}: soak_s must be less than deadline_s")
    metrics = [gate.metric for gate in stage.gates]
    if len(set(metrics)) < len(metrics):
        raise PlanError(f"stage {stage.name} has two gates on one figure")
    if stage.kind == "shadow" and (stage.gates or stage.minimum_trips):
        raise PlanError(
            f"stage {stage.name}: in shadow the release drives no trips, so there is no gate on them"
        )
    if stage.kind == "shadow" and stage.soak_s > SHADOW_MAX_S:
        raise PlanError(f"stage {stage.name}: a shadow lasts at most {SHADOW_MAX_S:g} s")
    if stage.gates and not stage.minimum_trips:
        raise PlanError(f"stage {stage.name} has gates; say minimum_trips")
    if stage.gates and (who.rest or who.percent == EVERYBODY_PERCENT):
        raise PlanError(
            f"stage {stage.name} leaves no robot to compare with; gates belong to an earlier stage"
        )


def _check_shares(plan: Plan) -> None:
    driving = [stage for stage in plan.stages if stage.kind != "shadow"]
    for kind, stages in (("driving", driving), ("shadow", [s for s in plan.stages if s not in driving])):
        shares = sum(stage.who.percent for stage in stages)
        if shares > EVERYBODY_PERCENT:
            raise PlanError(f"the percentages of the {kind} stages add up to {shares:g}, at most 100")
        if any(stage.who.rest for stage in stages[:-1]):
            raise PlanError(f"only the last {kind} stage may take the rest")
        if shares == EVERYBODY_PERCENT and stages[-1].who.rest:
            raise PlanError("the percentages add up to 100: nothing is left for the rest")
        listed = [robot for stage in stages for robot in stage.who.robots]
        if twice := sorted(robot for robot, times in Counter(listed).items() if times > 1)[:5]:
            raise PlanError(f"robot {', '.join(twice)} is in two {kind} stages")


def share_of(plan_digest: str, robot: str) -> float:
    """Where in [0, 100) the percentages of a plan find a robot: uniform, and the same for everybody who asks."""
    drawn = hashlib.sha256(f"{plan_digest}:{robot}".encode()).digest()[:8]
    return int.from_bytes(drawn, "big") / 2**64 * EVERYBODY_PERCENT


def stages_of(plan: Plan, plan_digest: str, robot: RobotCard) -> tuple[int, ...]:
    """Indices of the stages that name this robot: at most one shadow and one driving stage in a good plan."""
    shadow = [i for i, stage in enumerate(plan.stages) if stage.kind == "shadow"]
    driving = [i for i, stage in enumerate(plan.stages) if stage.kind != "shadow"]
    return tuple(
        index for indices in (shadow, driving) for index in _among(plan, indices, plan_digest, robot)
    )


def _among(plan: Plan, indices: list[int], plan_digest: str, robot: RobotCard) -> list[int]:
    named = [index for index in indices if plan.stages[index].who.names(robot)]
    if named:
        return named
    low, share = 0.0, share_of(plan_digest, robot.robot)
    for index in indices:
        who = plan.stages[index].who
        if who.rest or low <= share < low + who.percent:
            return [index]
        low += who.percent
    return []
