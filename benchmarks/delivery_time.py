"""How much sooner the shipped policies arrive than the best rule-based controller, and whether they touch more.

``python -m benchmarks.delivery_time [--quick]``. PyBullet on wheels, floors nobody trained on, behind the same
monitor; a failed trip counts as 60 s. The full run drives the shipped training seeds and all tuned baselines over at
least 1,000 paired trips each. ``--quick`` drives few trips against one baseline: its intervals are wide, and where no
policy is shipped it trains one for some seconds only, which is no more than a check that everything runs.
"""

import os
import sys
import tempfile
from pathlib import Path

import msgspec

from benchmarks._report import quick_asked, report
from contracts.robot import AMR_SMALL
from trainer.evaluation.config import EvaluationConfig, unseen_floors
from trainer.evaluation.controllers import BASELINES
from trainer.evaluation.drive import Contender, baseline, drive_all, onnx
from trainer.evaluation.evaluate import Comparison, Evaluation, summarise
from trainer.evaluation.policies import load_policies
from trainer.export.onnx import DeployedPolicy, export_onnx
from trainer.learning.config import TrainConfig
from trainer.learning.run import RunFolder
from trainer.learning.train import load_policy, train

DEFAULT_POLICIES = Path(__file__).resolve().parents[1] / "trainer" / "policies"
"""Holds ``seed-*.onnx``."""
FULL = EvaluationConfig(floors=84, robots=3, people=5, trips=4, physics="wheeled")
QUICK = msgspec.structs.replace(FULL, floors=4, trips=1)
BASELINE_QUICK = "orca"
"""Needs no compiling."""
TRAIN_QUICK_S = 4.0


def policies(folder: Path) -> list[Contender]:
    """The shipped training seeds; none where there are none."""
    return load_policies([folder], Path(), AMR_SMALL).contenders if any(folder.glob("seed-*.onnx")) else []


def hasty_policy() -> Contender:
    """A policy of some seconds of training."""
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.create(Path(folder) / "run", TrainConfig())
        train(run, 10**9, seconds_max=TRAIN_QUICK_S)
        return onnx(export_onnx(DeployedPolicy(load_policy(run), AMR_SMALL)), "hasty")


def compared(contenders: list[Contender], config: EvaluationConfig) -> tuple[Evaluation, Comparison]:
    """The policies' comparison with the best baseline, all seeds together."""
    warehouses = unseen_floors(config.floors, config.families, config.difficulty)
    result = summarise(drive_all(contenders, config, warehouses, jobs=os.cpu_count() or 1), config)
    asked = {contender.group for contender in contenders if contender.policy}
    return result, next(row for row in result.comparisons if row.name in asked)


def main() -> int:
    """Measure and print; 1 where there is nothing to measure."""
    quick = quick_asked(__doc__ or "")
    found, hasty = policies(DEFAULT_POLICIES), False
    if not found and not quick:
        print(
            f"no seed-*.onnx in {DEFAULT_POLICIES}; train with 'outrider train --seeds 5 --out runs/five', export each"
            " network there, or measure any runs with 'outrider evaluate runs/five --floors 84 --physics wheeled'",
            file=sys.stderr,
        )
        return 1
    if not found:
        found, hasty = [hasty_policy()], True
    names = [BASELINE_QUICK] if quick else list(BASELINES)
    config = QUICK if quick else FULL
    result, row = compared([*map(baseline, names), *found], config)
    about = (
        f"{row.seeds} training seeds, {result.results[0].trips} paired trips each on {config.floors} unseen floors,"
        f" wheeled; against {result.reference}, the best of: {', '.join(names)}"
    )
    if hasty:
        about += f"; NO policy is shipped, this one trained for {TRAIN_QUICK_S:.0f} s and says nothing"
    elif quick:
        about += "; few trips against one baseline: says little"
    report("delivery.capped_time_gain", row.gain.value, "share", "higher", about=about)
    report("delivery.capped_time_gain_low95", row.gain.low, "share", "higher", about=about)
    report("delivery.success", row.success.value, "share", "higher", about=about)
    report("delivery.contact_excess_high95", row.contact_excess.high95, "share", "lower", about=about)
    return 0


if __name__ == "__main__":
    sys.exit(main())
