"""``outrider doctor STATE``: is this robot well, and what to do."""

from pathlib import Path
from typing import Annotated

import typer

from outrider.verbs._logs import clear_errors
from outrider.verbs._operator import AsJson

app = typer.Typer(help="Is this robot well? One verdict, and what to do.")
_STYLES = {"WELL": "green", "LOOK": "yellow", "BAD": "red", "UNKNOWN": "dim"}
_VERDICTS = {
    "WELL": "well: nothing to do",
    "LOOK": "look at it: see the yellow lines",
    "BAD": "do not drive: see the red lines first",
}


@app.command()
def doctor(
    state: Annotated[Path, typer.Argument(help="The robot's state folder, or a copy of it.")],
    as_json: AsJson = False,
) -> None:
    """Disk, clock, keys, log, update slots, link, sensors, last faults. Exit code 0 well, 1 look, 2 do not drive.

    outrider doctor /var/lib/outrider/robot_1

    outrider doctor copied/robot_1 --json
    """
    import msgspec
    from rich.console import Console
    from rich.table import Table

    from edge_agent.recorder.doctor import diagnose

    with clear_errors():
        found = diagnose(state)
    if as_json:
        value = {
            "robot": found.robot,
            "verdict": found.verdict.name.lower(),
            "findings": [
                {"about": f.about, "level": f.level.name.lower(), "what": f.what, "do": f.do}
                for f in found.findings
            ],
        }
        typer.echo(msgspec.json.encode(value).decode())
    else:
        table = Table("about", "", "what", "do", box=None)
        for finding in found.findings:
            style = _STYLES[finding.level.name]
            table.add_row(
                finding.about, f"[{style}]{finding.level.name.lower()}[/]", finding.what, finding.do
            )
        console = Console()
        console.print(table)
        name = found.verdict.name
        console.print(f"[bold {_STYLES[name]}]{found.robot}: {_VERDICTS[name]}[/]")
    raise typer.Exit(int(found.verdict))
