"""Policies that want to touch something against the safety monitor, and what the monitor costs an honest one.

``python -m benchmarks.adversary [--quick] [--ticks N]``. 17 families and one that CMA-ES searches for against the
monitor drive the twin with slip, lag, latency, noise and dropout, among polite and rude people of up to 1.6 m/s; the
monitor is all that stands between. The full run drives 10^6 ticks of single robots, ``--quick`` 2 * 10^4. The same
seeds with Nav2's published rules are the reference. See docs/safety/adversary.md.
"""

import argparse
import os
import sys
from collections.abc import Callable

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import msgspec

from benchmarks._adversary.benign import COURSE as BENIGN
from benchmarks._adversary.benign import deliveries
from benchmarks._adversary.campaign import CROWDS, Course, Drive, Tally, campaign_floors
from benchmarks._adversary.families import FAMILIES, Searched
from benchmarks._adversary.guards import Guard, Monitors, Unguarded
from benchmarks._adversary.nav2_rules import Nav2Rules
from benchmarks._adversary.search import POPULATION, Found, search
from benchmarks._report import report
from contracts.robot import AMR_SMALL
from sim.world.floors import Floors

TICKS_FULL, TICKS_QUICK = 1_000_000, 20_000
WORLDS = 32
FLOORS, FLOORS_QUICK = 16, 4
SEARCH_SHARE = 0.1
"""Of all ticks, spent on the search."""
GENERATIONS_MIN = 4
SEED = 11
SEARCHED = "searched"


def courses(ticks: int, robots: int = 1) -> list[Course]:
    """One course for each crowd, which make at least ``ticks`` ticks of single robots together."""
    worlds = max(1, min(WORLDS, ticks // (200 * len(CROWDS) * robots)))
    each = -(-ticks // (worlds * len(CROWDS) * robots))
    people = 8
    return [
        Course(crowd, worlds=worlds, ticks=each, robots=robots, people=people, seed=SEED)
        for crowd in CROWDS.values()
    ]


def run_campaign(
    make_guard: Callable[[], Guard], floors: Floors, ticks: int, found: Found
) -> dict[str, Tally]:
    """All families behind a guard of their own each; about ``ticks`` ticks together."""
    policies = {name: make(AMR_SMALL, SEED) for name, make in FAMILIES.items()}
    policies[SEARCHED] = Searched(AMR_SMALL, found.weights)
    rows = {}
    for name, policy in policies.items():
        rows[name] = Tally(events=[])
        for course in courses(-(-ticks // len(policies))):
            rows[name].add(Drive(course, floors, make_guard()).run(policy))
    return rows


def total(rows: dict[str, Tally]) -> Tally:
    """All families together."""
    out = Tally(events=[])
    for row in rows.values():
        out.add(row)
    return out


def show(name: str, rows: dict[str, Tally]) -> None:
    """A line for each family, and each contact with what is needed to see it again; on standard error."""
    for family, row in rows.items():
        print(
            f"{name:<8} {family:<12} ticks {row.ticks:>8} static {row.static_contacts:>3} moving"
            f" {row.moving_contacts:>3} in view {row.moving_contacts_in_view:>3}"
            f" avoidable {row.moving_contacts_avoidable:>3} escapes {row.escapes:>3}"
            f" robots {row.robot_contacts:>3} driven {row.driven_m:>7.0f} m",
            file=sys.stderr,
        )
        for event in row.events:
            print(f"    {event}", file=sys.stderr)


def throughput(floors: Floors, quick: bool) -> tuple[float, float]:
    """Deliveries behind the monitor and behind Nav2's rules, as shares of those with no guard at all."""
    course = msgspec.structs.replace(BENIGN, worlds=8 if quick else 64)
    free, _ = deliveries(Unguarded(), floors, course=course)
    behind, _ = deliveries(Monitors(AMR_SMALL), floors, course=course)
    nav2, _ = deliveries(Nav2Rules(AMR_SMALL), floors, course=course)
    return behind / free, nav2 / free


def measure(ticks: int, quick: bool) -> None:
    """Drive everything, and print."""
    floors = campaign_floors(FLOORS_QUICK if quick else FLOORS)
    spent = round(SEARCH_SHARE * ticks)
    worlds = 4 if quick else 8
    each = min(300, max(40, spent // (worlds * POPULATION * GENERATIONS_MIN)))
    small = Course(CROWDS["rude"], worlds=worlds, ticks=each, seed=SEED + 1000)
    found = search(Monitors(AMR_SMALL), floors, small, spent)
    left = max(ticks - found.tally.ticks, len(FAMILIES))
    monitor = run_campaign(lambda: Monitors(AMR_SMALL), floors, left, found)
    monitor["search"] = found.tally
    nav2 = run_campaign(lambda: Nav2Rules(AMR_SMALL), floors, left, found)
    show("monitor", monitor)
    show("nav2", nav2)
    ours, theirs = total(monitor), total(nav2)
    about = f"{len(FAMILIES) + 1} families, {found.tally.ticks} ticks of search; reference: Nav2's rules, no search"
    for name in (
        "static_contacts",
        "moving_contacts",
        "moving_contacts_in_view",
        "moving_contacts_avoidable",
    ):
        report(f"adversary.{name}", getattr(ours, name), "contacts", "lower", getattr(theirs, name), about)
    report("adversary.ticks", ours.ticks, "ticks", "higher", theirs.ticks)
    kept, kept_nav2 = throughput(floors, quick)
    about = "deliveries of trainer/policies/seed-0.onnx, as a share of those with no guard"
    report("adversary.benign_throughput", kept, "share", "higher", kept_nav2, about)
    crossings = {name: Tally(events=[]) for name in ("to_person", "full_ahead")}
    for name, row in crossings.items():
        for course in courses(ticks // 20, robots=3):
            row.add(Drive(course, floors, Monitors(AMR_SMALL)).run(FAMILIES[name](AMR_SMALL, SEED)))
    show("three", crossings)
    three = total(crossings)
    about = f"three robots in a world, {three.ticks} ticks; not part of the campaign"
    report("adversary.robot_contacts", three.robot_contacts, "contacts", "lower", about=about)


def main() -> int:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="end within 45 s, with fewer ticks")
    parser.add_argument("--ticks", type=int, help=f"ticks of single robots; {TICKS_FULL} without it")
    arguments = parser.parse_args()
    ticks = arguments.ticks or (TICKS_QUICK if arguments.quick else TICKS_FULL)
    if ticks < 1000:
        parser.error(f"--ticks is {ticks}; it must be 1000 at least")
    measure(ticks, arguments.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
