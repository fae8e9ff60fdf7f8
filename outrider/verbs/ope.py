"""``outrider ope``: what a policy would have earned, judged from another one's logged episodes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from outrider.cli import USAGE_ERROR, fail
from outrider.verbs._operator import DEFAULT_KEYS, AsJson, Keys, clear_errors

if TYPE_CHECKING:
    from trainer.offpolicy.estimate import OpeReport
    from trainer.offpolicy.policies import GaussianPolicy

ALL_REFUSED = 3
EXAMPLES = """
Examples:

  outrider ope collect --run runs/first --out log.npz --episodes 400 --steps-max 100

  outrider ope log.npz --run runs/second --horizon 50

  outrider ope log.npz --bundle v2.outrider --noise 0.3 --horizon 30 --estimators wis,wdr,fqe --json
"""


class _EstimateByDefault(TyperGroup):
    """``outrider ope FILE`` is ``outrider ope estimate FILE``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["estimate", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_EstimateByDefault,
    no_args_is_help=True,
    add_completion=False,
    help="Judge a policy from logged episodes.",
    epilog=EXAMPLES,
)
Run = Annotated[Path | None, typer.Option(help="Training run whose policy it is.")]
Bundle = Annotated[Path | None, typer.Option(help="Bundle whose policy it is.")]
Noise = Annotated[
    float | None,
    typer.Option(
        min=0.0, max=10.0, help="Spread of its exploration, of the action's [-1, 1]; a run has its own."
    ),
]


@app.command(epilog=EXAMPLES)
def estimate(
    episodes: Annotated[Path, typer.Argument(help="Logged episodes, .npz.")],
    run: Run = None,
    bundle: Bundle = None,
    keys: Keys = DEFAULT_KEYS,
    noise: Noise = None,
    estimators: Annotated[str, typer.Option(help="Names with commas between, or all.")] = "all",
    horizon: Annotated[
        int | None, typer.Option(min=1, help="Steps of an episode that count; all without it.")
    ] = None,
    discount: Annotated[float, typer.Option(min=0.01, max=1.0)] = 0.99,
    as_json: AsJson = False,
) -> None:
    """Judge a policy from another one's log. Exit code 3 when the log cannot say anything."""
    import msgspec

    from trainer.errors import TrainerError
    from trainer.offpolicy.episodes import LoggedEpisodes
    from trainer.offpolicy.estimate import ESTIMATORS, OpeConfig, evaluate_offline

    with clear_errors():
        try:
            target = _policy(run, bundle, keys, noise)
            log = LoggedEpisodes.load(episodes)
            names = tuple(ESTIMATORS) if estimators == "all" else tuple(estimators.split(","))
            report = evaluate_offline(log, target, OpeConfig(horizon, discount), names)
        except TrainerError as error:
            raise fail(str(error)) from None
    typer.echo(msgspec.json.encode(report).decode() if as_json else table(report))
    if not report.estimates:
        raise typer.Exit(ALL_REFUSED)


@app.command(
    epilog="Example:  outrider ope collect --run runs/first --out log.npz --episodes 400 --steps-max 100"
)
def collect(
    out: Annotated[Path, typer.Option(help="Where to write the episodes, .npz.")],
    run: Run = None,
    bundle: Bundle = None,
    keys: Keys = DEFAULT_KEYS,
    noise: Noise = None,
    episodes: Annotated[int, typer.Option(min=1, max=100_000)] = 400,
    steps_max: Annotated[int | None, typer.Option(min=1, help="Cut each trip after this many steps.")] = None,
    floors: Annotated[int, typer.Option(min=1, max=64, help="Unseen floors to generate.")] = 8,
    worlds: Annotated[int, typer.Option(min=1, max=1024, help="Robots driving at a time, each alone.")] = 64,
    people: Annotated[int, typer.Option(min=0, max=100)] = 5,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Log whole trips of a policy with exploration in the twin, one robot on each floor."""
    from sim.errors import SimError
    from sim.simulation import Simulation, SimulationConfig
    from trainer.errors import TrainerError
    from trainer.evaluation.config import unseen_floors
    from trainer.offpolicy.collect import collect_episodes

    with clear_errors():
        try:
            policy = _policy(run, bundle, keys, noise)
            settings = SimulationConfig(
                worlds=min(worlds, episodes), robots=1, people=people, **_task_of(run)
            )
            simulation = Simulation(unseen_floors(floors), settings, seed=seed)
            log = collect_episodes(policy, simulation, episodes, seed, steps_max)
            log.save(out)
        except (TrainerError, SimError) as error:
            raise fail(str(error)) from None
    logged = "with" if not policy.deterministic else "WITHOUT"
    typer.echo(f"{out}: {len(log)} episodes, {len(log.rewards):,} steps, {logged} probabilities")


def _policy(run: Path | None, bundle: Path | None, keys: Path, noise: float | None) -> "GaussianPolicy":
    if (run is None) == (bundle is None):
        raise fail("give the policy as either --run or --bundle", USAGE_ERROR)
    import torch

    from contracts.bundle import verify_signed
    from contracts.keyring import TRUSTED_FILE
    from contracts.provenance import TrustedKeys
    from contracts.robot import AMR_SMALL
    from trainer.learning.run import RunFolder
    from trainer.learning.train import load_policy
    from trainer.offpolicy.policies import bundle_policy, learned_policy

    torch.set_num_threads(1)
    if run is not None:
        return learned_policy(load_policy(RunFolder.open(run)), noise)
    assert bundle is not None
    checked = verify_signed(bundle, TrustedKeys.load(keys / TRUSTED_FILE))
    return bundle_policy(checked.policy_onnx, noise or 0.0, AMR_SMALL)


def _task_of(run: Path | None) -> dict[str, Any]:
    """Reward and monitor that a run was trained with; the defaults for a bundle."""
    if run is None:
        return {}
    from trainer.learning.run import RunFolder

    config = RunFolder.open(run).config
    return {"reward": config.reward, "monitor": config.monitor}


def table(report: "OpeReport") -> str:
    """The report as text."""
    lines = [
        f"{report.episodes} episodes, {report.steps:,} steps; discounted reward of the first {report.horizon} steps"
        f" (discount {report.discount:g})",
        f"{'estimator':<11}{'value':>9}{'95 %':>20}{'ESS':>9}{'largest':>9}",
    ]
    for row in [report.logged, *report.estimates]:
        interval = f"{row.interval[0]:.3f} to {row.interval[1]:.3f}"
        lines.append(
            f"{row.estimator:<11}{row.value:>9.3f}{interval:>20}{row.ess:>9.1f}{row.weight_share_max:>9.1%}"
        )
    lines += [f"{refusal.estimator:<11}refused: {refusal.reason}" for refusal in report.refusals]
    return "\n".join(lines)
