"""The comparison as a picture: how trip times are spread, how trips end, what is gained; and heat maps."""

from pathlib import Path
from typing import Any

import numpy as np

from sim.render.painter import CAPTION_PX, MARGIN_M, FloorPainter
from sim.render.snapshot import FloorSnapshot
from sim.tasks.delivery import Outcome
from trainer.evaluation.drive import Drives
from trainer.evaluation.evaluate import Evaluation
from trainer.evaluation.metrics import HEAT_CELL_M

COLOURS = ("#8a8f98", "#2f7ed8", "#e07b39", "#4aa564", "#9c5bd0")
OUTCOME_COLOURS = {Outcome.ARRIVED: "#4aa564", Outcome.TIMEOUT: "#d8b12f", Outcome.CONTACT: "#c8443c"}

EMPTY = FloorSnapshot(np.zeros((0, 3)), np.zeros((0, 2)), np.zeros(0, dtype=np.int8))


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plot_evaluation(result: Evaluation, drives: Drives, path: Path) -> None:
    """Write a PNG: distribution of capped trip times, share of each outcome, gain with its 95 % interval."""
    tables = drives.tables()
    names = [row.name for row in result.results]
    figure = _figure(13, max(3.6, 1.6 + 0.3 * len(names)))
    spread, ends, gains = figure.subplots(1, 3, width_ratios=(3, 2, 2))
    for row, table, colour in zip(result.results, tables, COLOURS * len(names), strict=False):
        times = np.sort(table["time_s"])
        share = np.arange(1, len(times) + 1) / len(times)
        spread.step(times, share, where="post", label=row.name, color=colour, lw=2 if row.policy else 1.2)
    spread.set(
        xlabel="trip time, s (failed trips at the cap)", ylabel="share of trips", xlim=(0, 61), ylim=(0, 1.02)
    )
    spread.grid(alpha=0.25)
    spread.legend(frameon=False, loc="lower right", fontsize="small")
    start = np.zeros(len(names))
    for outcome, colour in OUTCOME_COLOURS.items():
        share = np.array([(table["outcome"] == outcome).mean() for table in tables])
        ends.barh(names, share, left=start, color=colour, label=outcome.name.lower())
        start += share
    ends.invert_yaxis()
    ends.set(xlabel="share of trips", xlim=(0, 1))
    ends.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize="small")
    _plot_gains(gains, result)
    figure.savefig(path, dpi=110)


def _plot_gains(axes: Any, result: Evaluation) -> None:
    """Bars for the 95 % intervals; small dots for single training seeds."""
    for at, row in enumerate(result.comparisons):
        axes.plot([row.gain.low, row.gain.high], [at, at], color="#2f7ed8", lw=3, solid_capstyle="butt")
        if row.seeds > 1:
            dots = [each.value for each in row.gain_of_seed.values()]
            axes.plot(dots, [at] * len(dots), "o", color="#8a8f98", ms=4)
        axes.plot([row.gain.value], [at], "o", color="#123a6b")
    axes.axvline(0.0, color="#44484f", lw=0.8)
    axes.set_yticks(range(len(result.comparisons)), [row.name for row in result.comparisons])
    axes.invert_yaxis()
    axes.set(xlabel=f"time saved against {result.reference}\n(95 % over {result.unit}s)")
    axes.grid(alpha=0.25, axis="x")


def plot_heat(drives: Drives, folder: Path, floors: int) -> list[Path]:
    """Write ``heat-FLOOR-CONTROLLER.png`` for the first ``floors`` floors; returns the files."""
    files = []
    for floor, warehouse in enumerate(drives.warehouses[:floors]):
        heats = [drives.heat[k, floor] for k in range(len(drives.contenders))]
        rates = [
            (_per_hour(heat.wait_s, heat.driven_s), _per_hour(heat.reduced_s, heat.driven_s))
            for heat in heats
        ]
        # One scale for all controllers of a floor, or their pictures could not be compared.
        tops = [max(float(pair[k].max()) for pair in rates) or 1.0 for k in range(2)]
        picture = FloorPainter(warehouse, 900).frame(EMPTY)[:-CAPTION_PX]
        width, height = warehouse.width_m, warehouse.height_m
        for contender, pair in zip(drives.contenders, rates, strict=True):
            figure = _figure(13, 1.0 + 6.0 * height / width)
            titles = ("waiting away from stations, s per robot-hour", "monitor stepping in, s per robot-hour")
            for axes, rate, top, title in zip(figure.subplots(1, 2), pair, tops, titles, strict=True):
                axes.imshow(picture, extent=(-MARGIN_M, width + MARGIN_M, -MARGIN_M, height + MARGIN_M))
                rows, columns = rate.shape
                image = axes.imshow(
                    np.ma.masked_less_equal(rate, 0.0),
                    extent=(0, columns * HEAT_CELL_M, 0, rows * HEAT_CELL_M),
                    origin="lower",
                    cmap="inferno_r",
                    alpha=0.75,
                    vmin=0.0,
                    vmax=top,
                )
                axes.set(title=title, xlim=(-MARGIN_M, width + MARGIN_M), ylim=(-MARGIN_M, height + MARGIN_M))
                figure.colorbar(image, ax=axes, shrink=0.8)
            figure.suptitle(f"{contender.name} on {warehouse.name}")
            path = folder / f"heat-{_plain(warehouse.name)}-{_plain(contender.name)}.png"
            figure.savefig(path, dpi=80)
            files.append(path)
    return files


def _per_hour(amount: Any, driven_s: float) -> Any:
    return amount * (3600.0 / max(driven_s, 1e-9))


def _plain(name: str) -> str:
    """A name as part of a file's."""
    return "".join(letter if letter.isalnum() or letter in "-._" else "_" for letter in name)
