"""Progress bars on long work: on a terminal they move, elsewhere they print a line now and then."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

QUIET_EVERY_S = 15.0


@contextlib.contextmanager
def progress_bar(title: str, total: float) -> Iterator[Callable[[float, str], None]]:
    """A bar to standard error; call what is yielded with (done, note).

    Where standard error is no terminal, a line is printed every 15 s instead.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        last = [time.monotonic()]

        def tell(done: float, note: str = "") -> None:
            if time.monotonic() - last[0] >= QUIET_EVERY_S:
                last[0] = time.monotonic()
                console.print(f"{title}: {done / total:.0%} {note}", highlight=False)

        yield tell
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}% {task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=total, note="")

        def move(done: float, note: str = "") -> None:
            progress.update(task, completed=done, note=note)

        yield move


@contextlib.contextmanager
def training_progress(steps: int) -> Iterator[Callable[[Any], None]]:
    """A bar that takes what ``trainer.learning`` reports: ``CurvePoint``s, before them perhaps ``Lesson``s."""
    first: list[tuple[int, float]] = []
    with progress_bar("training", steps) as tell:

        def report(point: Any) -> None:
            if hasattr(point, "teacher"):
                tell(
                    0,
                    f"learning from {point.teacher}: round {point.number} of {point.of}, error {point.error:.3f}",
                )
                return
            if not first:
                first.append((point.steps, point.seconds))
            done = point.steps - first[0][0]
            rate = done / max(1e-9, point.seconds - first[0][1])
            tell(done, f"success {point.success:.0%} trip {point.trip_s:.0f} s {rate:,.0f} steps/s")

        yield report
