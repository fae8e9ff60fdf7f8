"""The report's pictures, as PNG bytes."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from contracts.decision import Source
from edge_agent.recorder.reading import Log
from navigation.warehouse import Warehouse
from outrider.demo.measure import Swap
from outrider.demo.watch import WAY, Step
from sim.render.chart import draw_warehouse
from trainer.learning.run import CurvePoint

BLUE, ORANGE, GREEN, RED, GREY = "#2f7ed8", "#e07b39", "#4aa564", "#c8443c", "#8a8f98"
ROBOT_COLOURS = (BLUE, ORANGE, "#7a4fc4", GREEN, RED)
TRIPS_ENOUGH = 400
"""Points of the curve that rest on fewer trips are not drawn: the first trips to end are the short ones."""
STATE_COLOURS = {
    "waiting": "#eceef2",
    "ordered": "#d9dde3",
    "downloading": "#9cc3ee",
    "staged": "#f0c36d",
    "active": GREEN,
    "refused": RED,
}


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()


def training_curve(curve: list[CurvePoint], steps_v1: int) -> bytes:
    """Success and trip time over training time, with the moment v1 was exported."""
    figure = _figure(10, 3.4)
    left = figure.subplots()
    exported = next((point.seconds for point in curve if point.steps >= steps_v1), None)
    curve = [point for point in curve if point.trips >= TRIPS_ENOUGH] or curve
    seconds = [point.seconds for point in curve]
    left.plot(seconds, [point.success for point in curve], color=GREEN, lw=2, label="trips that arrive")
    left.plot(
        seconds, [point.contact for point in curve], color=RED, lw=1.5, label="trips that end in a contact"
    )
    left.set(xlabel="training time, s", ylabel="share of trips", ylim=(0, 1.02), xlim=(0, max(seconds)))
    left.axhline(0.9, color=GREY, lw=0.8, ls=":")
    left.grid(alpha=0.25)
    right = left.twinx()
    right.plot(seconds, [point.trip_s for point in curve], color=BLUE, lw=1.5, label="trip time (right)")
    right.set(ylabel="s a trip, failed ones at 60 s", ylim=(0, 62))
    if exported is not None:
        left.axvline(exported, color="#2c3038", lw=1, ls="--")
        left.text(exported, 0.04, " v1 exported", fontsize=9)
    handles = [*left.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]]
    labels = [*left.get_legend_handles_labels()[1], *right.get_legend_handles_labels()[1]]
    left.legend(handles, labels, frameon=False, loc="center right")
    return _png(figure)


def floor_map(warehouse: Warehouse, pose: npt.NDArray[np.float32], swaps: list[Swap], wall_s: Any) -> bytes:
    """The floor with each robot's way float32[T, R, 3], and where it was when a policy was swapped in."""
    figure = _figure(10, 10 * warehouse.height_m / warehouse.width_m + 0.4)
    axes = figure.subplots()
    draw_warehouse(axes, warehouse)
    robots = sorted({swap.robot for swap in swaps}) or [f"robot_{k + 1}" for k in range(pose.shape[1])]
    for robot in range(pose.shape[1]):
        colour = ROBOT_COLOURS[robot % len(ROBOT_COLOURS)]
        axes.plot(
            pose[:, robot, 0], pose[:, robot, 1], color=colour, lw=1.0, alpha=0.7, label=f"robot_{robot + 1}"
        )
    for swap in swaps:
        robot = robots.index(swap.robot)
        row = min(int(np.searchsorted(wall_s, swap.wall_ns / 1e9)), len(pose) - 1)
        x, y = pose[row, robot, :2]
        colour = ROBOT_COLOURS[robot % len(ROBOT_COLOURS)]
        axes.plot(x, y, marker="o", ms=9, mfc="white", mec=colour, mew=2)
        axes.annotate(
            swap.version, (x, y), textcoords="offset points", xytext=(7, 6), fontsize=8, color=colour
        )
    axes.legend(frameon=True, loc="upper right", fontsize=8, ncols=pose.shape[1])
    return _png(figure)


def push_timeline(
    steps: dict[str, list[tuple[str, float]]], swaps: list[Swap], logs: dict[str, Log]
) -> bytes:
    """A robot a row: how far the push was at each moment, its speed, and the tick of the swap.

    Args:
        steps: robot -> (state, wall time in s), in order, for the push that is shown.
        swaps: those of that push.
        logs: each robot's.
    """
    figure = _figure(10, 1.3 * len(steps) + 1.0)
    rows = figure.subplots(len(steps), 1, sharex=True, squeeze=False)[:, 0]
    start = min(points[0][1] for points in steps.values() if points)
    last = max([swap.wall_ns / 1e9 for swap in swaps], default=start) + 1.5
    for axes, (robot, points) in zip(rows, sorted(steps.items()), strict=True):
        edges = [*(when for _, when in points), last]
        for (state, when), until in zip(points, edges[1:], strict=True):
            axes.axvspan(when - start, until - start, color=STATE_COLOURS.get(state, GREY), alpha=0.55, lw=0)
        decisions = logs[robot].decisions
        seconds = decisions["wall_ns"] / 1e9 - start
        shown = (seconds > -1.0) & (seconds < last - start)
        policy = np.isin(decisions["source"], (Source.POLICY, Source.RECOVERY))
        axes.plot(seconds[shown], decisions["velocity"][shown, 0], color="#2c3038", lw=1.0)
        axes.plot(
            seconds[shown & policy],
            decisions["final_command"][shown & policy, 0],
            color=BLUE,
            lw=0.8,
            alpha=0.8,
        )
        for swap in swaps:
            if swap.robot == robot:
                axes.axvline(swap.wall_ns / 1e9 - start, color=RED, lw=1.5)
        axes.set(ylabel=f"{robot}\nm/s", ylim=(-0.4, 1.35), xlim=(-0.5, last - start))
    rows[-1].set_xlabel("s after `outrider rollout start`; red: first tick of the new policy")
    handles = [
        figure.axes[0].fill_between([], [], color=colour, alpha=0.55, label=state)
        for state, colour in STATE_COLOURS.items()
        if any(state == name for points in steps.values() for name, _ in points)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=5, frameon=False)
    return _png(figure)


def trace_timeline(found: dict[str, list[Step]]) -> bytes:
    """The spans of one update of each robot, a robot a panel, from release to commit.

    Args:
        found: as ``watch.ways`` gives it.
    """
    figure = _figure(10, 1.9 * len(found) + 0.6)
    rows = figure.subplots(len(found), 1, sharex=True, squeeze=False)[:, 0]
    start_s = min(step.start_s for steps in found.values() for step in steps)
    end_s = max(step.end_s for steps in found.values() for step in steps)
    room_s = 0.12 * (end_s - start_s)
    for axes, (robot, steps) in zip(rows, found.items(), strict=True):
        for step in steps:
            colour = RED if step.error else GREY if step.name in ("release", "order") else BLUE
            place = len(WAY) - WAY.index(step.name)
            took_s = step.end_s - step.start_s
            axes.barh(
                place, max(took_s, 0.003 * room_s), left=step.start_s - start_s, height=0.7, color=colour
            )
            axes.text(
                step.end_s - start_s,
                place,
                f"  {1e3 * took_s:,.0f} ms",
                va="center",
                fontsize=7,
                color="#2c3038",
            )
        axes.set_yticks(range(1, len(WAY) + 1), reversed(WAY), fontsize=7)
        axes.set(ylabel=robot, xlim=(-0.02 * (end_s - start_s), end_s - start_s + room_s))
        axes.grid(axis="x", alpha=0.25)
    rows[-1].set_xlabel("s after the release; grey: the hub's spans, blue: the robot's")
    return _png(figure)


def tick_histogram(logs: dict[str, Log]) -> bytes:
    """How long ticks took, per stage."""
    figure = _figure(10, 2.8)
    axes = figure.subplots()
    rows = np.concatenate([log.decisions[log.decisions["source"] == Source.POLICY] for log in logs.values()])
    stages = (
        ("encode_us", "observation", GREY),
        ("infer_us", "inference", BLUE),
        ("guard_us", "monitor", ORANGE),
    )
    bins = np.geomspace(10, 20_000, 90)
    for name, label, colour in (*stages, ("total_us", "whole tick", "#2c3038")):
        axes.hist(rows[name], bins=bins.tolist(), histtype="step", lw=1.8, color=colour, label=label)
    axes.set(xscale="log", yscale="log", xlabel="us", ylabel="ticks")
    axes.axvline(1000, color=RED, lw=0.8, ls=":")
    axes.legend(frameon=False)
    return _png(figure)
