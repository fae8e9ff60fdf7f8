"""``outrider rollout``: plans are checked, approved by two people, started, watched, paused, ended."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outrider.cli import fail
from outrider.verbs._operator import (
    DEFAULT_HUB,
    DEFAULT_KEYS,
    AsJson,
    HubAddress,
    Keys,
    Person,
    Why,
    clock_text,
    hub_client,
    print_json,
    refused_option,
)

if TYPE_CHECKING:
    from rich.console import Group

    from contracts.messages import PlanView, RolloutView, StageView
    from contracts.papers import Act
    from fleet_hub.client import HubClient

app = typer.Typer(no_args_is_help=True, help="Send a release to robots, in stages that two people approved.")
plans = typer.Typer(no_args_is_help=True, help="Check a rollout plan, or get one to begin with.")
app.add_typer(plans, name="plan")
WATCH_INTERVAL_S = 0.5
FINAL = ("active", "soaked", "shadowed", "refused", "failed", "silent", "reverted", "left alone")
BAD = ("refused", "failed", "silent")
EXAMPLES = """Examples:

outrider rollout plan example --release router@2.0.0 > plan.yaml

outrider rollout approve plan.yaml --as anna --why "evaluated on 84 floors"

outrider rollout start plan.yaml --as boris --why "weekly release"

outrider rollout start --release 2.0.0 --to all --as anna --as boris      (one stage, no gates)

outrider rollout abort 3 --revert --as boris --why "robots hesitate at dock 4" """

PlanFile = Annotated[Path, typer.Argument(help="The plan, YAML.", show_default=False)]
Number = Annotated[int, typer.Argument(help="Number of the rollout; the newest when left out.")]


@plans.command(epilog="Example:  outrider rollout plan example --release router@2.0.0 > plan.yaml")
def example(release: Annotated[str, typer.Option(help="NAME@VERSION.")] = "router@2.0.0") -> None:
    """Print a plan with every kind of stage."""
    from outrider.verbs._plans import example as text

    typer.echo(text(release), nl=False)


@plans.command(epilog="Example:  outrider rollout plan check plan.yaml")
def check(
    plan: PlanFile, keys: Keys = DEFAULT_KEYS, hub: HubAddress = DEFAULT_HUB, as_json: AsJson = False
) -> None:
    """Check a plan against catalogue and fleet: who would get what, and who must still approve it."""
    from outrider.verbs._plans import load_plan

    with hub_client(hub, keys) as client:
        _, data, _ = load_plan(plan, client)
        _show_plan(client.check_plan(data), as_json)


@app.command(epilog=EXAMPLES)
def approve(
    plan: PlanFile,
    person: Person,
    why: Why,
    keys: Keys = DEFAULT_KEYS,
    hub: HubAddress = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Sign a plan's digest. It takes an approver, and another person who is releaser or safety officer."""
    from outrider.verbs._plans import load_plan

    with hub_client(hub, keys) as client:
        _, data, digest = load_plan(plan, client)
        view = client.check_plan(data)
        if not as_json:
            typer.echo(f"{person} approves plan {digest}, release {view.release.digest}")
        _show_plan(_approve(client, keys, person, why, data, digest), as_json)


@app.command(epilog=EXAMPLES)
def start(
    plan: Annotated[Path | None, typer.Argument(help="The plan, YAML.", show_default=False)] = None,
    person: Annotated[
        list[str] | None,
        typer.Option("--as", envvar="OUTRIDER_PERSON", help="Who you are; without a plan, all who approve."),
    ] = None,
    why: Annotated[str, typer.Option(help="Why; kept in the audit log.")] = "",
    release: Annotated[str, typer.Option(help="Without a plan: name, name@version, version or digest.")] = "",
    to: Annotated[list[str] | None, typer.Option(help="Without a plan: a robot, or all.")] = None,
    more: Annotated[list[str] | None, typer.Argument(help="More robots.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say who would get what.")] = False,
    supersede: Annotated[
        bool, typer.Option("--supersede", help="End a rollout under way; robots keep what they have.")
    ] = False,
    keys: Keys = DEFAULT_KEYS,
    hub: HubAddress = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Start an approved plan; or, with --release and --to, one stage that the people given approve here."""
    from contracts.plan import encode_plan
    from fleet_hub.catalogue.catalogue import resolve
    from outrider.verbs._plans import load_plan, quick_plan

    people = person or []
    if bool(release) == (plan is not None and not release):
        raise fail("give a plan file, or --release and --to", 2)
    with hub_client(hub, keys) as client:
        if release:
            given = [*(to or []), *([str(plan)] if plan else []), *(more or [])]
            robots = tuple(name for text in given for name in text.split(",") if name)
            if not robots:
                raise fail("--to: name robots, or all", 2)
            why, supersede = why or f"rollout of {release}", True
            quick = quick_plan(resolve(client.releases(), release), () if "all" in robots else robots)
            data, digest = encode_plan(quick)
        else:
            assert plan is not None
            _, data, digest = load_plan(plan, client)
        if dry_run:
            _show_plan(client.check_plan(data), as_json)
            return
        if not people:
            raise fail("say who you are: --as NAME (keys: `outrider keys person`)", 2)
        if release:
            client.check_plan(data)
            for name in people:
                _approve(client, keys, name, why, data, digest)
        act = _act("start", people[0], why, digest, supersede=supersede)
        view = client.act(_signed(keys, act), data)
    _show(view, as_json)


@app.command(epilog="Example:  outrider rollout status 3 --watch")
def status(
    rollout: Number = 0,
    watch: Annotated[bool, typer.Option("--watch", help="Stay until every robot has ended.")] = False,
    keys: Keys = DEFAULT_KEYS,
    hub: HubAddress = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """How far each stage and robot is. With --watch, ends with code 1 when a robot failed or it was stopped."""
    from rich.console import Console
    from rich.live import Live

    with hub_client(hub, keys) as client:
        view = client.rollout(rollout)
        if watch and not as_json and Console().is_terminal:
            with Live(_pictured(view), refresh_per_second=4) as live:
                while not _over(view):
                    time.sleep(WATCH_INTERVAL_S)
                    view = client.rollout(view.rollout)
                    live.update(_pictured(view))
        else:
            _show(view, as_json)
            while watch and not _over(view):
                time.sleep(WATCH_INTERVAL_S)
                before, view = view, client.rollout(view.rollout)
                if view != before:
                    _show(view, as_json)
    if watch and (view.state in ("stopped", "aborted") or any(robot.state in BAD for robot in view.robots)):
        raise typer.Exit(1)


@app.command(epilog='Example:  outrider rollout pause 3 --as boris --why "look at dock 4 first"')
def pause(
    person: Person,
    why: Why,
    rollout: Number = 0,
    keys: Keys = DEFAULT_KEYS,
    hub: HubAddress = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Tell no more robots, let no clock run; those under way go on."""
    _act_on(rollout, "pause", person, why, keys, hub, as_json)


@app.command(epilog='Example:  outrider rollout resume 3 --as boris --why "dock 4 is clear"')
def resume(
    person: Person,
    why: Why,
    rollout: Number = 0,
    keys: Keys = DEFAULT_KEYS,
    hub: HubAddress = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Go on after a pause."""
    _act_on(rollout, "resume", person, why, keys, hub, as_json)


@app.command(epilog=EXAMPLES)
def abort(
    person: Person,
    why: Why,
    revert: Annotated[
        bool,
        typer.Option("--revert/--keep", help="Whether robots go back to what they had.", show_default=False),
    ],
    rollout: Number = 0,
    keys: Keys = DEFAULT_KEYS,
    hub: HubAddress = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """End a rollout for good."""
    _act_on(rollout, "abort", person, why, keys, hub, as_json, revert)


def _act_on(
    number: int, action: str, person: str, why: str, keys: Path, hub: str, as_json: bool, revert: bool = False
) -> None:
    with hub_client(hub, keys) as client:
        view = client.rollout(number)
        act = _act(action, person, why, view.plan_digest, view.rollout, revert)
        _show(client.act(_signed(keys, act)), as_json)


def _act(
    action: str,
    person: str,
    why: str,
    digest: str,
    number: int = 0,
    revert: bool = False,
    supersede: bool = False,
) -> "Act":
    import msgspec

    from contracts.papers import Act

    fields = {"action": action, "person": person, "why": why, "signed_wall_ns": time.time_ns()}
    fields |= {"plan_digest": digest, "rollout": number, "revert": revert, "supersede": supersede}
    try:
        return msgspec.convert(fields, Act)
    except msgspec.ValidationError as error:
        raise refused_option(error, person="--as") from None


def _signed(keys: Path, act: "Act") -> bytes:
    from trainer.release.papers import person_signer, sign_act

    return sign_act(act, person_signer(keys, act.person))


def _approve(client: "HubClient", keys: Path, person: str, why: str, data: bytes, digest: str) -> "PlanView":
    import msgspec

    from trainer.release.papers import person_signer, sign_approval

    try:
        paper = sign_approval(digest, person, why, person_signer(keys, person))
    except msgspec.ValidationError as error:
        raise refused_option(error, person="--as") from None
    return client.approve(data, paper)


def _over(view: "RolloutView") -> bool:
    ended = all(robot.state in FINAL for robot in view.robots)
    return ended and (len(view.stages) == 1 or view.state not in ("running", "paused"))


def _show_plan(view: "PlanView", as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    release = view.release
    typer.echo(
        f"plan {view.plan_digest[:12]}: {release.policy_name}@{release.version} ({release.digest[:12]})"
    )
    for stage in view.stages:
        some = ", ".join(stage.robots[:8]) + (", ..." if stage.count > 8 else "")
        typer.echo(f"  {stage.name:16} {stage.kind:8} {stage.count:>6} robot(s)  {some}")
    if view.left_out:
        typer.echo(
            f"  in no stage: {', '.join(view.left_out[:8])}{', ...' if len(view.left_out) > 8 else ''}"
        )
    typer.echo(f"  approved by {', '.join(view.approved_by) or 'nobody'}")
    if view.missing:
        typer.echo(f"  not yet to be started: {view.missing}")


def _show(view: "RolloutView", as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    typer.echo(_headline(view))
    for stage in view.stages:
        typer.echo(f"  stage {stage.name:16} {_stage_text(stage)}")
        for gate in stage.gates:
            typer.echo(
                f"    {gate.metric:16} {gate.verdict:10} {gate.difference:+.3f} in [{gate.low:+.3f}, "
                f"{gate.high:+.3f}], may be {gate.margin:+.3f}, {gate.rounds} rounds"
            )
    for robot in view.robots:
        reason = f"  {robot.code} {robot.reason}".rstrip()
        typer.echo(f"  {robot.robot:20} {robot.state:12} {clock_text(robot.updated_wall_ns)}{reason}")


def _headline(view: "RolloutView") -> str:
    release = view.release
    why = f": {view.reason}" if view.reason else ""
    return (
        f"rollout {view.rollout}: {release.policy_name}@{release.version} ({release.digest[:12]}), {view.state}{why}; "
        f"started {clock_text(view.started_wall_ns)} by {view.started_by}"
    )


def _stage_text(stage: "StageView") -> str:
    trips = f", {stage.trips} of {stage.minimum_trips} trips" if stage.minimum_trips else ""
    return f"{stage.state:10} {stage.done} of {stage.members} done, {stage.failed} failed{trips}"


def _pictured(view: "RolloutView") -> "Group":
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    stages = Table("stage", "state", "", "robots", "gates", title=_headline(view), title_justify="left")
    for stage in view.stages:
        gates = ", ".join(f"{gate.metric} {gate.verdict}" for gate in stage.gates)
        bar = ProgressBar(total=max(stage.members, 1), completed=stage.done, width=24)
        stages.add_row(stage.name, stage.state, bar, _stage_text(stage)[11:], gates)
    robots = Table("robot", "stage", "state", "since", "why")
    for robot in [row for row in view.robots if row.state != "waiting"][:40]:
        why = f"{robot.code} {robot.reason}".strip()
        robots.add_row(robot.robot, robot.stage, robot.state, clock_text(robot.updated_wall_ns), why)
    return Group(stages, robots)
