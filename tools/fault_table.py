"""``python -m tools.fault_table``: write ``docs/safety/faults.md`` from the monitor's table of faults."""

from pathlib import Path

from contracts.decision import Reason, in_words
from safety.faults import FAULTS, Fault

PAGE = Path(__file__).resolve().parents[1] / "docs" / "safety" / "faults.md"
HEAD = """# Faults

Written by `python -m tools.fault_table` from `safety/faults.py`, which the monitor itself takes its reactions from; do
not edit. Bounds are ticks of 20 Hz with data in every tick; the stop goes out in the tick that finds the fault.
Reactions in order, the most restrictive wins: LIMIT, STOP (stands, goes on when it is over), DISARM (until a person
arms), EMERGENCY_STOP (latched, until a person resets it and arms). "Lasting" faults disarm after
`MonitorConfig.disarm_after_s`. ADVICE drops the policy, not the robot.

| id | name | found by | within ticks | reaction | over when | lasting disarms | test |
|---:|---|---|---:|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(f"| {' | '.join(_cells(fault))} |\n" for fault in FAULTS)


def _cells(fault: Fault) -> list[str]:
    name = in_words(fault.id)
    number = str(fault.id.value) if isinstance(fault.id, Reason) else f"a{fault.id.value}"
    reaction = "ADVICE" if fault.reaction is None else fault.reaction.name
    lasting = "yes" if fault.disarms else "no"
    path, test = fault.test.split("::")
    return [
        number, name, fault.detector, str(fault.bound_ticks), reaction, fault.clears, lasting,
        f"[{test}](../../{path})",
    ]  # fmt: skip


def main() -> None:
    """Write the page."""
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
