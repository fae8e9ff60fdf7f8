"""An audit as files for people: ``audit.json``, and a JSON and a picture for each trip worth a look."""

from io import BytesIO
from pathlib import Path

import msgspec

from contracts.atomic import write_atomically
from navigation.warehouse import Warehouse
from trainer.audit.audit import RewardAudit, Trip
from trainer.audit.terms import AuditError


def write_audit(audit: RewardAudit, warehouses: list[Warehouse], folder: Path) -> list[int]:
    """Write everything; returns the numbers of the trips that were exported, best paid first.

    Raises:
        AuditError: there is an audit in ``folder`` already; nothing has been written.
    """
    if (folder / "audit.json").exists():
        raise AuditError(f"{folder} holds an audit already; choose another --out")
    chosen = list(dict.fromkeys([*audit.top, *(found.trip for found in audit.suspicious)]))
    reasons = {found.trip: found.reason for found in audit.suspicious}
    files: dict[str, bytes] = {}
    for number in chosen:
        trip = audit.trips[number]
        record = {"suspicious": reasons.get(number), "trip": trip}
        files[f"trip_{number:04}.json"] = msgspec.json.format(msgspec.json.encode(record))
        files[f"trip_{number:04}.png"] = trip_png(trip, warehouses[trip.world], reasons.get(number))
    (folder / "trips").mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        write_atomically(folder / "trips" / name, data, durable=False)
    short = msgspec.structs.replace(
        audit, trips=[msgspec.structs.replace(trip, path=[]) for trip in audit.trips]
    )
    write_atomically(folder / "audit.json", msgspec.json.format(msgspec.json.encode(short)))
    return chosen


def trip_png(trip: Trip, warehouse: Warehouse, reason: str | None) -> bytes:
    """The trip's path on its floor, with start, goal and what it was paid for."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from sim.render.chart import draw_floor

    figure = Figure(figsize=(9, 9 * warehouse.height_m / warehouse.width_m + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    path = np.array(trip.path)
    draw_floor(ax, warehouse, trails=[path], labels=False)
    ax.plot(*path[0], "o", color="#4aa564", markersize=9, label="start", zorder=6)
    ax.plot(*path[-1], "s", color="#c8443c", markersize=8, label="end", zorder=6)
    ax.plot(*trip.goal, "*", color="#e07b39", markersize=15, label="goal", zorder=6)
    ax.legend(loc="upper right", fontsize=7)
    paid = ", ".join(f"{name} {value:+.2f}" for name, value in trip.terms.items())
    title = f"trip {trip.number}: {trip.outcome} after {trip.trip_s:.1f} s, return {trip.total:.2f}\n{paid}"
    ax.set_title(title if reason is None else f"{title}\nSUSPICIOUS: {reason}", fontsize=8, loc="left")
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()
