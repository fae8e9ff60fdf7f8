"""Rollout plans from the command line: YAML read, the release's name resolved, the one-stage plan of a quick start."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outrider.cli import fail

if TYPE_CHECKING:
    from contracts.messages import ReleaseInfo
    from contracts.plan import Plan
    from fleet_hub.client import HubClient

QUICK_LIFE = timedelta(days=7)
EXAMPLE = """\
# outrider rollout plan check PLAN.yaml; two people approve it; then: outrider rollout start PLAN.yaml
name: {name}
release: {release}               # NAME@VERSION of the catalogue
issued: {issued}     # robots never go back to a plan issued earlier
expires: {expires}
on_stop: revert                  # or keep
stages:
  - name: shadow                 # runs beside the policy that drives
    kind: shadow
    who: {{percent: 2}}            # a share that no robot falls into is refused: in a small fleet name robots
    soak_s: 300
    deadline_s: 7200
  - name: canary
    kind: canary
    who: {{percent: 2}}            # or robots: [robot_1], or sites: [north], models: [amr_small]
    soak_s: 1800                 # each robot must have driven so long without a fault
    deadline_s: 28800
    silence_s: 60                # unheard for longer has failed
    minimum_trips: 200
    gates:                       # against robots that run what they ran before, at the same time
      - {{metric: delivery_time_s, margin: 3.0}}
      - {{metric: aborted, margin: 0.05}}
      - {{metric: contacts, margin: 0.05}}
      - {{metric: interventions, margin: 0.05}}
      - {{metric: slow_ticks, margin: 0.05}}
  - name: half
    kind: cohort
    who: {{percent: 48}}
    at_once: 50
    failures_max: 5
    soak_s: 1800
    deadline_s: 86400
    window: {{from: "20:00", to: "05:00"}}   # UTC
  - name: everybody
    kind: full
    who: {{rest: true}}            # robots that come later, too
    failures_max: 20
    soak_s: 600
    deadline_s: 604800
"""


def example(release: str) -> str:
    """A plan to begin with."""
    now = datetime.now(UTC).replace(microsecond=0)
    return EXAMPLE.format(
        name=release.replace("@", "-"),
        release=release,
        issued=_text(now),
        expires=_text(now + timedelta(days=14)),
    )


def _text(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def load_plan(path: Path, client: "HubClient") -> tuple["Plan", bytes, str]:
    """A plan file: the plan, its canonical bytes and their digest; ends with one clear line where it is wrong."""
    import msgspec
    import yaml

    from contracts.plan import PLAN_MAX_BYTES, Plan, encode_plan
    from fleet_hub.catalogue.catalogue import resolve

    try:
        with path.open("rb") as file:
            text = file.read(2 * PLAN_MAX_BYTES + 1)
        document: Any = yaml.safe_load(text) if len(text) <= 2 * PLAN_MAX_BYTES else None
        if not isinstance(document, dict) or not isinstance(document.get("release"), str):
            raise fail(f"{path}: no rollout plan; see `outrider rollout plan example`", 2)
        document["release"] = _release_of(resolve(client.releases(), document["release"]))
        plan = msgspec.convert(document, Plan)
    except (msgspec.MsgspecError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise fail(f"{path}: {' '.join(str(error).split())}", 2) from None
    return plan, *encode_plan(plan)


def _release_of(info: "ReleaseInfo") -> dict[str, str | int]:
    return {
        "digest": info.digest,
        "policy_name": info.policy_name,
        "version": info.version,
        "release_counter": info.release_counter,
        "size_bytes": info.size_bytes,
    }


def quick_plan(release: "ReleaseInfo", robots: tuple[str, ...]) -> "Plan":
    """One stage, to these robots or (none) to all, now or when they come back; nothing is gated."""
    from contracts.plan import ROBOTS_MAX, Plan, Release, Stage, Who

    now = datetime.now(UTC)
    stage = Stage(
        name="all" if not robots else "named",
        kind="full",
        who=Who(robots=tuple(sorted(set(robots))), rest=not robots),
        soak_s=1.0,
        deadline_s=QUICK_LIFE.total_seconds(),
        silence_s=QUICK_LIFE.total_seconds(),
        at_once=ROBOTS_MAX,
        failures_max=ROBOTS_MAX,
    )
    return Plan(
        name=f"quick-{release.version}"[:64],
        release=Release(**_release_of(release)),  # type: ignore[arg-type]
        issued=now,
        expires=now + QUICK_LIFE,
        stages=(stage,),
        on_stop="keep",
    )
