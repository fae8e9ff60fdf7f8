"""The comparison as a picture: how trip times are spread, and how trips end."""

from pathlib import Path

import numpy as np

from sim.tasks.delivery import Outcome
from trainer.evaluation.evaluate import Evaluation

COLOURS = ("#8a8f98", "#2f7ed8", "#e07b39", "#4aa564", "#9c5bd0")


def plot_evaluation(result: Evaluation, path: Path) -> None:
    """Write a PNG with the distribution of capped trip times and the share of each outcome."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for row, colour in zip(result.results, COLOURS * 4, strict=False):
        times = np.sort(np.array(row.trip_times_s))
        left.step(
            times, np.arange(1, len(times) + 1) / len(times), where="post", label=row.name, color=colour, lw=2
        )
    left.set(
        xlabel="trip time, s (failed trips at the cap)", ylabel="share of trips", xlim=(0, 61), ylim=(0, 1.02)
    )
    left.grid(alpha=0.25)
    left.legend(frameon=False, loc="lower right")
    names = [row.name for row in result.results]
    start = np.zeros(len(names))
    for outcome, colour in (
        (Outcome.ARRIVED, "#4aa564"),
        (Outcome.TIMEOUT, "#d8b12f"),
        (Outcome.CONTACT, "#c8443c"),
    ):
        share = np.array([row.outcomes.count(outcome) / max(1, row.trips) for row in result.results])
        right.barh(names, share, left=start, color=colour, label=outcome.name.lower())
        start += share
    right.invert_yaxis()
    right.set(xlabel="share of trips", xlim=(0, 1))
    right.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    figure.savefig(path, dpi=110)
