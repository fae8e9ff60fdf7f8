"""Controllers compared on floors nobody trained on: same floors, trips, people and disturbances, same monitor."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from navigation.warehouse import Warehouse
from sim.tasks.delivery import Outcome
from sim.world.state import Contact
from trainer.errors import TrainConfigError
from trainer.evaluation.config import EvaluationConfig
from trainer.evaluation.drive import Contender, Drives, Progress, Trips, drive_all
from trainer.evaluation.metrics import FREE_M, TRIP
from trainer.evaluation.statistics import (
    CLUSTERS_FEW,
    Counts,
    Excess,
    Interval,
    exact_interval,
    excess,
    gain,
    mean_interval,
)

BEST = "best"
CONTACT_MARGIN = 0.005


class ControllerResult(msgspec.Struct, frozen=True):
    """How one controller did; over all trips where nothing else is said. A failed trip takes the cap of 60 s."""

    name: str
    group: str
    policy: bool
    trips: int
    success: float
    success_interval: Interval
    """Clopper-Pearson."""
    contacts: int
    contacts_static: int
    contacts_person: int
    contacts_robot: int
    contacts_moving: int
    touched_standing: int
    """Times somebody ran into the standing robot; ends no trip."""
    timeouts: int
    trip_s: float
    trip_s_interval: Interval
    common_s: float | None
    """Mean over the trips on which every controller arrived; None where there is none."""
    success_trip_s: float | None
    delivery_s: float | None
    """Capped time of a pick trip and the drop trip after it; None with an odd single trip."""
    deliveries_per_robot_hour: float | None
    """Pairs of which both arrived, per capped time of all pairs."""
    near_person_per_trip: float
    near_robot_per_trip: float
    gap_min_m: float | None
    """Smallest gap to a person or robot; None where there was nobody."""
    path_efficiency: float | None
    """Planned route over driven way, of the trips that arrived; above 1 where corners of the grid are cut."""
    change_per_s: float
    reduced: float
    reduced_share: float
    energy_j_per_m: float


class Comparison(msgspec.Struct, frozen=True):
    """One policy, all its training seeds together, against the reference."""

    name: str
    seeds: int
    trips: int
    gain: Interval
    gain_of_seed: dict[str, Interval]
    success: Interval
    success_lowest: float
    """That of the worst seed."""
    trip_s: float
    contact_excess: Excess
    verdict: str


class Evaluation(msgspec.Struct, frozen=True):
    """All controllers, and all but the reference compared with it."""

    config: EvaluationConfig
    floors: list[str]
    unit: str
    """What is resampled: floors where they were drawn at random, episodes where they were given."""
    clusters: int
    reference: str
    results: list[ControllerResult]
    comparisons: list[Comparison]
    notes: list[str]

    def gain_of(self, name: str) -> Interval:
        """Of one controller against the reference; 0 for the reference itself."""
        for comparison in self.comparisons:
            if name in comparison.gain_of_seed:
                return comparison.gain_of_seed[name]
        return Interval(0.0, 0.0, 0.0)


def evaluate(
    contenders: list[Contender],
    config: EvaluationConfig,
    warehouses: list[Warehouse],
    progress: Progress | None = None,
    jobs: int = 1,
    reference: str = BEST,
) -> Evaluation:
    """``drive_all`` and ``summarise`` in one; arguments and errors as theirs."""
    return summarise(drive_all(contenders, config, warehouses, progress, jobs), config, reference)


def check_reference(contenders: Sequence[Contender], reference: str) -> None:
    """Raise TrainConfigError where ``reference`` is neither ``best`` nor one of the contenders."""
    names = [contender.name for contender in contenders]
    if reference != BEST and reference not in names:
        raise TrainConfigError(
            f"no controller is called '{reference}'; choose {BEST} or one of {', '.join(names)}"
        )


def summarise(
    drives: Drives,
    config: EvaluationConfig,
    reference: str = BEST,
    margin: float = CONTACT_MARGIN,
    floors_given: bool = False,
    notes: Sequence[str] = (),
) -> Evaluation:
    """The figures.

    Args:
        drives: what was driven.
        config: with which it was.
        reference: a controller's name, or ``best``: the baseline with the lowest capped time (of the policies where
            there is no baseline).
        margin: of the non-inferiority test on contacts, share of trips.
        floors_given: floors were chosen, not drawn: then the result is about these, and episodes are resampled.
        notes: to keep with the result.

    Raises:
        TrainConfigError: there is no such reference.
    """
    check_reference(drives.contenders, reference)
    tables = drives.tables()
    unit = "episode" if floors_given else "floor"
    clusters = len(drives.warehouses) * (config.episodes if floors_given else 1)
    means = [table["time_s"].reshape(clusters, -1).mean(axis=1) for table in tables]
    contacts = [(table["outcome"] == Outcome.CONTACT).reshape(clusters, -1).mean(axis=1) for table in tables]
    arrivals = [int((table["outcome"] == Outcome.ARRIVED).sum()) for table in tables]
    common = np.all([table["outcome"] == Outcome.ARRIVED for table in tables], axis=0)
    results = [
        _result(contender, table, mean, common, config.trips)
        for contender, table, mean in zip(drives.contenders, tables, means, strict=True)
    ]
    base = _reference(results, reference)
    figures = _Figures(results, arrivals, means, contacts)
    groups = {
        group: [k for k, result in enumerate(results) if result.group == group and k != base]
        for group in dict.fromkeys(result.group for result in results)
    }
    comparisons = [_compare(group, rows, base, figures, margin) for group, rows in groups.items() if rows]
    if clusters < CLUSTERS_FEW:
        notes = [
            *notes,
            f"only {clusters} {unit}s to resample: they say little of others; drive {CLUSTERS_FEW} or more",
        ]
    names = [warehouse.name for warehouse in drives.warehouses]
    return Evaluation(config, names, unit, clusters, results[base].name, results, comparisons, list(notes))


def _reference(results: list[ControllerResult], wanted: str) -> int:
    if wanted != BEST:
        return [result.name for result in results].index(wanted)
    baselines = [k for k, result in enumerate(results) if not result.policy] or list(range(len(results)))
    return min(baselines, key=lambda k: results[k].trip_s)


class _Figures(NamedTuple):
    """Of each contender: its result, how many trips arrived, and per cluster float64[n] the mean time and contacts."""

    results: list[ControllerResult]
    arrivals: list[int]
    means: list[npt.NDArray[np.float64]]
    contacts: list[npt.NDArray[np.float64]]


def _compare(group: str, rows: list[int], base: int, figures: _Figures, margin: float) -> Comparison:
    """The contenders ``rows``, seeds of one policy, against ``base``."""
    results, arrivals, means, contacts = figures
    trips = sum(results[k].trips for k in rows)
    over = excess(contacts[base], np.array([contacts[k] for k in rows]), results[base].trips, margin)
    return Comparison(
        name=group,
        seeds=len(rows),
        trips=trips,
        gain=gain(means[base], np.array([means[k] for k in rows])),
        gain_of_seed={results[k].name: gain(means[base], means[k][None]) for k in rows},
        success=exact_interval(Counts(sum(arrivals[k] for k in rows), trips)),
        success_lowest=min(results[k].success for k in rows),
        trip_s=float(np.mean([results[k].trip_s for k in rows])),
        contact_excess=over,
        verdict=over.verdict,
    )


def _result(
    contender: Contender,
    table: Trips,
    means: npt.NDArray[np.float64],
    common: npt.NDArray[np.bool_],
    trips: int,
) -> ControllerResult:
    arrived, contact = table["outcome"] == Outcome.ARRIVED, table["outcome"] == Outcome.CONTACT
    pairs = table.reshape(-1, trips)[:, : trips // 2 * 2].reshape(-1, 2)
    pair_s = float(pairs["time_s"].sum())
    delivered = int((pairs["outcome"] == Outcome.ARRIVED).all(axis=1).sum())
    kinds = {kind: int((contact & (table["contact"] == kind)).sum()) for kind in Contact}
    driven_m, gap_m = float(table["driven_m"][arrived].sum()), float(table["gap_min_m"].min())
    return ControllerResult(
        name=contender.name,
        group=contender.group,
        policy=contender.policy,
        trips=len(table),
        success=float(arrived.mean()),
        success_interval=exact_interval(Counts(int(arrived.sum()), len(table))),
        contacts=int(contact.sum()),
        contacts_static=kinds[Contact.STATIC],
        contacts_person=kinds[Contact.PERSON],
        contacts_robot=kinds[Contact.ROBOT],
        contacts_moving=int((contact & table["moving"]).sum()),
        touched_standing=int(table["touched"].sum()),
        timeouts=int((table["outcome"] == Outcome.TIMEOUT).sum()),
        trip_s=float(table["time_s"].mean()),
        trip_s_interval=mean_interval(means),
        common_s=float(table["time_s"][common].mean()) if common.any() else None,
        success_trip_s=float(table["time_s"][arrived].mean()) if arrived.any() else None,
        delivery_s=pair_s / len(pairs) if len(pairs) else None,
        deliveries_per_robot_hour=3600.0 * delivered / pair_s if len(pairs) else None,
        near_person_per_trip=float(table["near_person"].mean()),
        near_robot_per_trip=float(table["near_robot"].mean()),
        gap_min_m=gap_m if gap_m < FREE_M else None,
        path_efficiency=float(table["route_m"][arrived].sum()) / driven_m if driven_m > 0.0 else None,
        change_per_s=_per_time(table, "change_per_s"),
        reduced=_per_time(table, "reduced"),
        reduced_share=_per_time(table, "reduced_share"),
        energy_j_per_m=float(table["energy_j"].sum()) / max(float(table["driven_m"].sum()), 1e-9),
    )


def _per_time(table: Trips, name: str) -> float:
    """Mean over time, not over trips."""
    return float((table[name] * table["lasted_s"]).sum() / table["lasted_s"].sum())


def trip_columns(drives: Drives) -> dict[str, npt.NDArray[np.generic]]:
    """All trips as flat arrays for ``numpy.savez``; ``controller`` and ``floor`` index ``controllers``, ``floors``."""
    columns: dict[str, npt.NDArray[np.generic]] = {name: drives.trips[name] for name in TRIP.names or ()}
    columns["controllers"] = np.array([contender.name for contender in drives.contenders])
    columns["floors"] = np.array([warehouse.name for warehouse in drives.warehouses])
    return columns
