"""``outrider keys sign-safety``: a robot's own settings of the safety monitor, signed."""

from pathlib import Path
from typing import Annotated

import typer

from outrider.cli import fail
from outrider.verbs._operator import DEFAULT_KEYS, AsJson, Keys, clear_errors

FILE_MAX_BYTES = 256 * 1024
EXAMPLE = """Example of settings.yaml (only what is stricter than built in; zones need --layout):

robot_model: amr_small

monitor: {margin_m: 0.08}

watch: {tilt_max_rad: 0.1}

zones: [{kind: keep_out, corners_m: [[6, 4], [8, 4], [8, 7], [6, 7]]}]

Then:  outrider keys sign-safety settings.yaml --out safety.dsse.json

The robot takes it with `outrider agent run --safety safety.dsse.json` and its other options."""


def sign_safety(
    settings: Annotated[Path, typer.Argument(help="The settings, YAML.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Where to write the signed file.", show_default=False)],
    keys: Keys = DEFAULT_KEYS,
    layout: Annotated[
        Path | None, typer.Option(help="The floor that the zones are on.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check settings of the safety monitor, which may only be stricter than built in, and sign them."""
    import msgspec

    from contracts.atomic import write_atomically
    from contracts.canonical import digest_hex
    from navigation.errors import NavigationError
    from navigation.warehouse import load_warehouse
    from safety.errors import SafetyError
    from safety.settings import SafetySettings
    from trainer.release.keys import load_signer
    from trainer.release.safety import sign_safety as sign

    with clear_errors():
        try:
            with settings.open("rb") as file:
                read = msgspec.yaml.decode(file.read(FILE_MAX_BYTES), type=SafetySettings)
            if layout is not None and read.zones:
                read = msgspec.structs.replace(read, floor_hash=load_warehouse(layout).hash())
            signed = sign(read, [load_signer(keys)])
        except (msgspec.MsgspecError, SafetyError, NavigationError, UnicodeDecodeError) as error:
            raise fail(f"{settings}: {error}") from None
        write_atomically(out, signed)
    facts = {
        "file": str(out),
        "digest": digest_hex(signed),
        "robot_model": read.robot_model,
        "monitor_hash": read.monitor.hash(),
        "changes": read.changes(),
    }
    if as_json:
        typer.echo(msgspec.json.encode(facts).decode())
        return
    typer.echo(f"signed {out}: {', '.join(read.changes()) or 'nothing differs from what is built in'}")
    if read.monitor != type(read.monitor)():
        typer.echo(
            "policies must be trained behind these monitor settings: bundles for the built-in ones are refused"
        )
