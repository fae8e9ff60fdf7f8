"""``outrider reward``: what a reward is made of, and whether it pays for the task."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outrider.cli import USAGE_ERROR, fail
from outrider.verbs._operator import DEFAULT_KEYS, AsJson, Keys, clear_errors

if TYPE_CHECKING:
    from trainer.audit.audit import RewardAudit
    from trainer.evaluation.controllers import Controller
    from trainer.learning.config import TrainConfig

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Show a reward's terms; audit what it pays for."
)
Config = Annotated[Path | None, typer.Option(help="Training YAML whose reward and monitor are used.")]
Run = Annotated[Path | None, typer.Option(help="Folder of a training run.")]


@app.command(epilog="Example:  outrider reward audit --run runs/first --out audits/first")
def audit(
    out: Annotated[Path, typer.Option(help="Folder for audit.json and the trips worth a look.")],
    run: Run = None,
    bundle: Annotated[Path | None, typer.Option(help="Drive a bundle's policy instead of a run's.")] = None,
    keys: Keys = DEFAULT_KEYS,
    config: Config = None,
    floors: Annotated[int, typer.Option(min=1, max=64, help="Unseen floors to generate.")] = 8,
    robots: Annotated[int, typer.Option(min=1, max=32, help="On each floor.")] = 3,
    people: Annotated[int, typer.Option(min=0, max=100)] = 5,
    trips: Annotated[int, typer.Option(min=1, max=1000, help="Of each robot.")] = 4,
    top: Annotated[int, typer.Option(min=0, max=100, help="Best paid trips to export.")] = 6,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Drive a policy (without --run and --bundle: the rule-based controller) and take its reward apart."""
    import msgspec

    from outrider.progress import progress_bar
    from sim.errors import SimError
    from trainer.audit.audit import AuditConfig, audit_reward
    from trainer.audit.export import write_audit
    from trainer.errors import TrainerError
    from trainer.evaluation.config import unseen_floors

    if run is not None and bundle is not None:
        raise fail("give either --run or --bundle, not both", USAGE_ERROR)
    with clear_errors():
        try:
            task = _task(config, run)
            settings = AuditConfig(robots, people, trips, top, seed, task.reward, task.monitor)
            warehouses = unseen_floors(floors)
            with progress_bar("auditing", 1.0) as tell:
                result = audit_reward(_controller(run, bundle, keys), settings, warehouses, tell)
            exported = write_audit(result, warehouses, out)
        except (TrainerError, SimError) as error:
            raise fail(str(error)) from None
    if as_json:
        brief = msgspec.structs.replace(result, trips=[])
        typer.echo(msgspec.json.encode(brief).decode())
    else:
        typer.echo(table(result))
        typer.echo(f"{out}: audit.json and {len(exported)} trips with pictures")


@app.command(epilog="Example:  outrider reward show --run runs/first")
def show(config: Config = None, run: Run = None, as_json: AsJson = False) -> None:
    """Print the terms of a reward and its hash: the defaults, a config's or a run's."""
    import msgspec

    from trainer.errors import TrainerError

    try:
        reward = _task(config, run).reward
    except TrainerError as error:
        raise fail(str(error)) from None
    terms = msgspec.to_builtins(reward)
    if as_json:
        typer.echo(msgspec.json.encode({"hash": reward.hash(), "terms": terms}).decode())
        return
    for name, value in terms.items():
        typer.echo(f"{name:<10}{value:>9g}")
    typer.echo(f"hash      {reward.hash()}")


def _task(config: Path | None, run: Path | None) -> "TrainConfig":
    from trainer.learning.config import TrainConfig, load_train_config
    from trainer.learning.run import RunFolder

    if config is not None:
        return load_train_config(config)
    return RunFolder.open(run).config if run is not None else TrainConfig()


def _controller(run: Path | None, bundle: Path | None, keys: Path) -> "Controller":
    from contracts.bundle import verify_signed
    from contracts.keyring import TRUSTED_FILE
    from contracts.provenance import TrustedKeys
    from contracts.robot import AMR_SMALL
    from trainer.evaluation.controllers import OnnxPolicy, RuleBased

    if bundle is not None:
        checked = verify_signed(bundle, TrustedKeys.load(keys / TRUSTED_FILE))
        return OnnxPolicy(checked.policy_onnx, f"{checked.manifest.policy_name}@{checked.manifest.version}")
    if run is None:
        return RuleBased(AMR_SMALL, 0.1)
    from trainer.export.onnx import DeployedPolicy, export_onnx
    from trainer.learning.run import RunFolder
    from trainer.learning.train import load_policy

    return OnnxPolicy(export_onnx(DeployedPolicy(load_policy(RunFolder.open(run)), AMR_SMALL)), run.name)


def table(audit: "RewardAudit") -> str:
    """The audit as text."""
    by_pair = {(found.term, found.goal): found.spearman for found in audit.correlations}
    arrived = sum(trip.outcome == "arrived" for trip in audit.trips)
    lines = [
        f"{audit.controller}: {len(audit.trips)} trips in the twin, {arrived} arrived; reward"
        f" {audit.reward_hash[:12]}; terms add up to the reward within {audit.mismatch_max:.1e}",
        f"{'term':<10}{'mean a trip':>12}   rank correlation with: {'arrived':>8}{'trip time':>11}{'contact':>9}",
    ]
    means = {"return": sum(audit.term_means.values()), **audit.term_means}
    for term, mean in means.items():
        shown = [_signed(by_pair[term, goal]) for goal in ("arrived", "trip_s", "contact")]
        lines.append(f"{term:<10}{mean:>12.3f}{'':>26}{shown[0]:>8}{shown[1]:>11}{shown[2]:>9}")
    lines += [f"WARNING: {text}" for text in audit.warnings]
    lines += [f"suspicious trip {found.trip}: {found.reason}" for found in audit.suspicious]
    return "\n".join(lines)


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"
