"""Drives a controller, keeps every trip's reward term by term, and asks whether the reward follows the goal."""

from collections.abc import Callable
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.robot import AMR_SMALL, RobotModel
from navigation.action import encode_command
from navigation.controllers.recovery import Recovery
from navigation.warehouse import Warehouse
from safety.config import MonitorConfig
from sim.simulation import Simulation, SimulationConfig
from sim.tasks.delivery import Outcome, RewardConfig
from trainer.audit.terms import TERMS, Doubles, TermMeter
from trainer.evaluation.controllers import Controller

GOALS = ("arrived", "trip_s", "contact")
RETURN_HIGH_QUANTILE = 0.75
SLOW_QUANTILE = 0.75
Progress = Callable[[float, str], None]
Count = Annotated[int, msgspec.Meta(ge=1, le=10_000)]


class AuditConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much is driven, behind which monitor, for which reward."""

    robots: Count = 3
    people: Annotated[int, msgspec.Meta(ge=0, le=100)] = 5
    trips: Count = 4
    """Of each robot."""
    top: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 6
    """Trips with the highest returns that are kept for people to look at."""
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    reward: RewardConfig = RewardConfig()
    monitor: MonitorConfig = MonitorConfig()


class Trip(msgspec.Struct, frozen=True):
    """One trip: what it earned, term by term, and what it did. ``path`` is x, y in m, map frame, at each step."""

    number: int
    floor: str
    world: int
    robot: int
    outcome: str
    trip_s: float
    capped_s: float
    """The cap where it did not arrive."""
    total: float
    """Undiscounted reward."""
    terms: dict[str, float]
    goal: tuple[float, float]
    path: list[tuple[float, float]]


class Correlation(msgspec.Struct, frozen=True):
    """Of a term's sum over a trip (or of the whole return) with a goal; None where either never varies."""

    term: str
    goal: str
    pearson: float | None
    spearman: float | None


class Suspicion(msgspec.Struct, frozen=True):
    """A trip that was paid well for little."""

    trip: int
    reason: str


class RewardAudit(msgspec.Struct, frozen=True):
    """Everything found. ``mismatch_max``: largest gap between the sum of the terms and the reward that was paid."""

    controller: str
    reward_hash: str
    config: AuditConfig
    trips: list[Trip]
    term_means: dict[str, float]
    correlations: list[Correlation]
    warnings: list[str]
    suspicious: list[Suspicion]
    top: list[int]
    mismatch_max: float
    unseen_steps: int


def audit_reward(
    controller: Controller,
    config: AuditConfig,
    warehouses: list[Warehouse],
    progress: Progress | None = None,
    model: RobotModel = AMR_SMALL,
) -> RewardAudit:
    """Drive ``config.trips`` trips of every robot in the twin and audit what they were paid.

    Raises:
        AuditError: the terms do not add up to the reward.
        SimConfigError: no floor, or sizes that cannot be.
    """
    settings = SimulationConfig(
        worlds=len(warehouses),
        robots=config.robots,
        people=config.people,
        recovery=Recovery(),
        reward=config.reward,
        monitor=config.monitor,
    )
    simulation = Simulation(warehouses, settings, seed=config.seed, model=model)
    try:
        meter = TermMeter(simulation)
        trips = _drive(controller, config, simulation, meter, progress)
    finally:
        simulation.close()
    correlations = correlate(trips)
    return RewardAudit(
        controller=controller.name,
        reward_hash=config.reward.hash(),
        config=config,
        trips=trips,
        term_means={name: float(np.mean([trip.terms[name] for trip in trips])) for name in TERMS},
        correlations=correlations,
        warnings=warnings_of(correlations),
        suspicious=suspicious_trips(trips),
        top=[trip.number for trip in sorted(trips, key=lambda trip: -trip.total)[: config.top]],
        mismatch_max=meter.mismatch_max,
        unseen_steps=meter.unseen_steps,
    )


class _Running:
    """What one robot's trip has come to so far."""

    def __init__(self, goal: tuple[float, float], start: tuple[float, float]) -> None:
        self.goal, self.path = goal, [start]
        self.terms = np.zeros(len(TERMS))
        self.steps = 0


def _drive(
    controller: Controller,
    config: AuditConfig,
    simulation: Simulation,
    meter: TermMeter,
    progress: Progress | None,
) -> list[Trip]:
    worlds, robots = simulation.reward.shape
    controller.begin(worlds * robots)
    places = [(world, robot) for world in range(worlds) for robot in range(robots)]
    running = {place: _begin(simulation, *place) for place in places}
    done: dict[tuple[int, int], int] = dict.fromkeys(places, 0)
    trips: list[Trip] = []
    while min(done.values()) < config.trips:
        seen = simulation.observation.reshape(worlds * robots, -1)
        command = controller.commands(seen).reshape(worlds, robots, 2)
        action = encode_command(command, simulation.model)
        simulation.step(action, command)
        terms = meter.terms(action)
        for place in places:
            if done[place] == config.trips:
                continue
            trip = running[place]
            trip.terms += terms[place]
            trip.steps += 1
            outcome = Outcome(int(simulation.outcome[place]))
            if outcome in (Outcome.RUNNING, Outcome.ARRIVED):
                trip.path.append(_xy(simulation.state.pose[place]))
            if outcome != Outcome.RUNNING:
                trips.append(_finished(simulation, place, trip, outcome, len(trips)))
                running[place] = _begin(simulation, *place)
                done[place] += 1
        if progress is not None:
            progress(sum(done.values()) / (config.trips * len(places)), controller.name)
    return trips


def _begin(simulation: Simulation, world: int, robot: int) -> _Running:
    station = simulation.state.warehouses[world].stations[int(simulation.goal[world, robot])]
    return _Running((station.x_m, station.y_m), _xy(simulation.state.pose[world, robot]))


def _xy(pose: Doubles) -> tuple[float, float]:
    return round(float(pose[0]), 3), round(float(pose[1]), 3)


def _finished(
    simulation: Simulation, place: tuple[int, int], trip: _Running, outcome: Outcome, number: int
) -> Trip:
    trip_s = trip.steps * simulation.step_s
    return Trip(
        number=number,
        floor=simulation.state.warehouses[place[0]].name,
        world=place[0],
        robot=place[1],
        outcome=outcome.name.lower(),
        trip_s=trip_s,
        capped_s=trip_s if outcome == Outcome.ARRIVED else simulation.config.trip_max_s,
        total=float(trip.terms.sum()),
        terms=dict(zip(TERMS, trip.terms.tolist(), strict=True)),
        goal=trip.goal,
        path=trip.path,
    )


def correlate(trips: list[Trip]) -> list[Correlation]:
    """Pearson and Spearman correlations of every term, and of the return, with every goal."""
    arrived = Outcome.ARRIVED.name.lower()
    goals = {
        "arrived": [float(trip.outcome == arrived) for trip in trips],
        "trip_s": [trip.capped_s for trip in trips],
        "contact": [float(trip.outcome == Outcome.CONTACT.name.lower()) for trip in trips],
    }
    values = {"return": [trip.total for trip in trips]}
    values.update({name: [trip.terms[name] for trip in trips] for name in TERMS})
    return [
        Correlation(
            term, goal, _pearson(np.array(x), np.array(y)), _pearson(_ranks(np.array(x)), _ranks(np.array(y)))
        )
        for term, x in values.items()
        for goal, y in goals.items()
    ]


def warnings_of(correlations: list[Correlation]) -> list[str]:
    """Where the return goes against the goal."""
    wanted = {"arrived": 1.0, "trip_s": -1.0, "contact": -1.0}
    return [
        f"the return {'falls' if found.spearman < 0 else 'rises'} with {found.goal} (Spearman {found.spearman:+.2f}):"
        " the reward pays for something else than the task"
        for found in correlations
        if found.term == "return" and found.spearman is not None and found.spearman * wanted[found.goal] < 0.0
    ]


def suspicious_trips(trips: list[Trip]) -> list[Suspicion]:
    """Trips in the top quarter of returns that did not arrive, or arrived among the slowest quarter of all trips."""
    high = float(np.quantile([trip.total for trip in trips], RETURN_HIGH_QUANTILE))
    slow_s = float(np.quantile([trip.capped_s for trip in trips], SLOW_QUANTILE))
    quickest_s = min(trip.capped_s for trip in trips)
    found = []
    for trip in trips:
        if trip.total < high:
            continue
        most = max(trip.terms, key=lambda name: trip.terms[name])
        source = f"most of it from {most}" if trip.terms[most] > 0.0 else "no term pays"
        paid = f"return {trip.total:.2f} (top quarter: from {high:.2f}), {source}"
        if trip.outcome != Outcome.ARRIVED.name.lower():
            found.append(Suspicion(trip.number, f"{paid}, but the trip ended by {trip.outcome}"))
        elif trip.capped_s >= slow_s > quickest_s:
            found.append(
                Suspicion(trip.number, f"{paid}, but it took {trip.capped_s:.1f} s (slowest quarter)")
            )
    return found


def _pearson(x: Doubles, y: Doubles) -> float | None:
    # Exact comparison: a term that never acts is a row of equal numbers, and has no correlation.
    if len(x) < 2 or np.ptp(x) == 0.0 or np.ptp(y) == 0.0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def _ranks(values: Doubles) -> Doubles:
    """Ranks float64[n]; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean: npt.NDArray[np.float64] = np.cumsum(counts) - (counts - 1) / 2.0
    return mean[inverse]
