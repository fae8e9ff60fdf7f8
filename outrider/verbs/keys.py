"""``outrider keys init``: makes the keys of a fleet, once."""

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from outrider.cli import fail
from outrider.verbs._operator import clear_errors

app = typer.Typer(no_args_is_help=True, help="Make the keys of a fleet.")


@app.callback()
def _group() -> None:
    """Make the keys of a fleet."""


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where to put them; must not hold keys yet.")],
    robots: Annotated[str, typer.Option(help="Names of the robots, comma-separated.")],
) -> None:
    """Make a release key, and CURVE keys for the hub, an operator and each robot. Never overwrites."""
    from contracts.keyring import ROBOT_ID_PATTERN, TRUSTED_FILE
    from contracts.provenance import TrustedKeys
    from trainer.release.keys import RELEASE_KEY_FILE, create_release_key

    names = [name.strip() for name in robots.split(",") if name.strip()]
    wrong = [name for name in names if not re.match(ROBOT_ID_PATTERN, name)]
    if not names or wrong or len(set(names)) != len(names):
        raise fail(f"--robots: expected different names like robot_1,robot_2; came {robots!r}", 2)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise fail(f"{folder} is not empty; keys are never overwritten, give a new folder")
    with clear_errors():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        trusted = TrustedKeys(1, (create_release_key(folder / RELEASE_KEY_FILE),))
        _write(folder / TRUSTED_FILE, trusted)
        _make_parties(folder, names, trusted)
    typer.echo(f"keys for {len(names)} robot(s), one hub, one operator and one release key in {folder}")
    typer.echo(
        f"keep {folder / RELEASE_KEY_FILE} away from robots and hub; give each robot only its own folder"
    )


def _make_parties(folder: Path, robots: list[str], trusted: object) -> None:
    from contracts.keyring import (
        AUTHORIZED_FOLDER,
        CURVE_FILE,
        HUB_PUBLIC_FILE,
        OPERATORS_FILE,
        ROBOTS_FILE,
        TRUSTED_FILE,
        AllowList,
        CurvePublic,
    )

    hub = folder / "hub"
    hub_public = CurvePublic(_make_pair(hub / CURVE_FILE))
    _write(hub / TRUSTED_FILE, trusted)
    operator = _make_pair(folder / "operator" / CURVE_FILE)
    _write(folder / "operator" / HUB_PUBLIC_FILE, hub_public)
    allowed = {}
    for robot in robots:
        own = folder / "robots" / robot
        allowed[_make_pair(own / CURVE_FILE)] = robot
        _write(own / HUB_PUBLIC_FILE, hub_public)
        _write(own / TRUSTED_FILE, trusted)
    _write(hub / AUTHORIZED_FOLDER / ROBOTS_FILE, AllowList(allowed))
    _write(hub / AUTHORIZED_FOLDER / OPERATORS_FILE, AllowList({operator: "operator"}))


def _make_pair(path: Path) -> str:
    import zmq

    from contracts.keyring import CurvePair

    public, secret = (key.decode() for key in zmq.curve_keypair())
    _write(path, CurvePair(public, secret))
    return public


def _write(path: Path, value: object) -> None:
    from contracts.canonical import canonical_json

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(canonical_json(value) + b"\n")
