"""How a benchmark says what it measured: one JSON object a line on standard output."""

import argparse
import json
from pathlib import Path
from typing import Literal

Better = Literal["higher", "lower"]


def report(
    name: str, value: float, unit: str, better: Better, reference: float | None = None, about: str = ""
) -> None:
    """Print one result.

    Args:
        name: as in the targets of ``benchmarks.run_all``.
        value: what was measured.
        unit: of the value and of the reference.
        better: which direction is good.
        reference: what the plain way gives in the same run; None where there is none.
        about: what the value and the reference are.
    """
    result: dict[str, object] = {"name": name, "value": rounded(value), "unit": unit, "better": better}
    result["reference"] = None if reference is None else rounded(reference)
    result["ratio"] = None if not reference else round(value / reference, 3)
    if about:
        result["about"] = about
    print(json.dumps(result), flush=True)


def rounded(value: float) -> float:
    """To hundredths; small values, shares among them, to ten thousandths."""
    return round(value, 2 if abs(value) >= 10.0 else 4)


def quick_asked(about: str) -> bool:
    """Parse the command line of a benchmark whose only option is ``--quick``."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="end within 45 s, with wider error")
    return bool(parser.parse_args().quick)


def peak_mb(process: int) -> float:
    """The largest resident memory that a process has had, in 10^6 bytes; the kernel says it in KiB."""
    for line in Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise AssertionError("no VmHWM")
