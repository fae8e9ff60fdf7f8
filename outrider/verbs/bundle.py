"""``outrider bundle``: make bundles from runs or from networks of one's own, read them, check them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outrider.cli import fail
from outrider.verbs._operator import DEFAULT_KEYS, AsJson, Keys, clear_errors

if TYPE_CHECKING:
    from contracts.bundle import VerifiedBundle

app = typer.Typer(no_args_is_help=True, help="Export, pack, inspect and verify policy bundles.")
BundleFile = Annotated[Path, typer.Argument(help="The bundle file.")]


@app.command(epilog="Example:  outrider bundle inspect v1.outrider")
def inspect(bundle: BundleFile, keys: Keys = DEFAULT_KEYS, as_json: AsJson = False) -> None:
    """Show what a bundle says, after its signatures have been verified."""
    import msgspec

    checked = _verify_signed(bundle, keys)
    if as_json:
        manifest = msgspec.to_builtins(checked.manifest)
        value = {"digest": checked.digest, "signed_by": checked.signed_by, "manifest": manifest}
        typer.echo(msgspec.json.encode(value).decode())
        return
    typer.echo(f"digest        {checked.digest}")
    typer.echo(f"signed by     {', '.join(checked.signed_by)}")
    for name, value in msgspec.to_builtins(checked.manifest).items():
        features = len(value["mean"]) if name == "drift_reference" and value is not None else 0
        typer.echo(f"{name:24} {f'{features} features (--json has them)' if features else value}")
    typer.echo(f"policy.onnx   {len(checked.policy_onnx)} bytes")
    typer.echo(f"golden rows   {len(checked.golden_observations)}")


@app.command(epilog="Example:  outrider bundle verify v1.outrider --keys keys")
def verify(
    bundle: BundleFile,
    keys: Keys = DEFAULT_KEYS,
    model: Annotated[str, typer.Option(help="Robot model that should drive with it.")] = "amr_small",
    replay: Annotated[bool, typer.Option(help="Replay the golden vectors too.")] = True,
) -> None:
    """Check everything that a robot checks before it takes a bundle."""
    from contracts.bundle import verify_bundle
    from contracts.keyring import TRUSTED_FILE
    from contracts.observation import ROUTING_LAYOUT
    from contracts.provenance import TrustedKeys
    from contracts.robot import ROBOT_MODELS

    if model not in ROBOT_MODELS:
        raise fail(f"no robot model {model!r}; there are: {', '.join(ROBOT_MODELS)}", 2)
    with clear_errors():
        trusted = TrustedKeys.load(keys / TRUSTED_FILE)
        checked = verify_bundle(bundle, trusted, ROUTING_LAYOUT.hash(), ROBOT_MODELS[model])
        worst = ""
        if replay:
            from edge_agent.update.golden import replay_golden

            rows = len(checked.golden_observations)
            worst = f", {rows} golden vectors replayed within {replay_golden(checked):.2g}"
    manifest = checked.manifest
    signers = ", ".join(checked.signed_by)
    typer.echo(
        f"good: {manifest.policy_name}@{manifest.version} counter {manifest.release_counter} for {model}, "
        f"signed by {signers}{worst}\n{checked.digest}"
    )


@app.command(
    epilog="Example:  outrider bundle export runs/first --out v1.outrider --version 1.0.0 --counter 1"
)
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.")],
    out: Annotated[Path, typer.Option(help="Where to write the bundle.")],
    version: Annotated[str, typer.Option(help="The release's version, as 1.0.0.")],
    counter: Annotated[
        int, typer.Option(min=1, help="Release counter: higher than that of every release before.")
    ],
    name: Annotated[str, typer.Option(help="The policy's name.")] = "router",
    created: Annotated[
        str, typer.Option(help="Date for the manifest; left empty, same inputs give same bytes.")
    ] = "",
    keys: Keys = DEFAULT_KEYS,
) -> None:
    """Export a run's policy to ONNX, check it against torch, pack it and sign it with the release key.

    Example: outrider bundle export runs/first --version 1.0.0 --counter 1 --out v1.outrider
    """
    from trainer.errors import TrainerError
    from trainer.export.bundle import ExportSettings, export_bundle
    from trainer.learning.run import RunFolder
    from trainer.release.keys import load_signer
    from trainer.release.pack import write_bundle

    with clear_errors():
        try:
            folder = RunFolder.open(run)
            bundle = export_bundle(
                folder, ExportSettings(name, version, counter, created), [load_signer(keys)]
            )
        except TrainerError as error:
            raise fail(str(error)) from None
        digest = write_bundle(out, bundle)
    typer.echo(f"{out}: {name}@{version} counter {counter}, {len(bundle)} bytes, signed\n{digest}")


@app.command(
    name="pack",
    epilog="Example:  outrider bundle pack --onnx net.onnx --spec net.yaml --out v1.outrider --version 1.0.0 "
    "--counter 1",
)
def pack_own(
    onnx: Annotated[Path, typer.Option(help="The network, from any framework.")],
    spec: Annotated[Path, typer.Option(help="Its description, YAML; see docs/bring-your-own-policy.md.")],
    out: Annotated[Path, typer.Option(help="Where to write the bundle.")],
    version: Annotated[str, typer.Option(help="The release's version, as 1.0.0.")],
    counter: Annotated[
        int, typer.Option(min=1, help="Release counter: higher than that of every release before.")
    ],
    name: Annotated[str, typer.Option(help="The policy's name.")] = "router",
    created: Annotated[str, typer.Option(help="Date for the manifest.")] = "",
    keys: Keys = DEFAULT_KEYS,
) -> None:
    """Make a bundle from an ONNX network of your own: check it, wrap it, sign it.

    It is declared for the default safety monitor and the robot amr_small.

    Example: outrider bundle pack --onnx mine.onnx --spec mine.yaml --version 1.0.0 --counter 4 --out mine.outrider
    """
    from contracts.robot import AMR_SMALL
    from safety.config import MonitorConfig
    from trainer.errors import TrainerError
    from trainer.export.bundle import ExportSettings
    from trainer.release.custom import pack_custom, read_network
    from trainer.release.custom_spec import load_spec
    from trainer.release.keys import load_signer
    from trainer.release.pack import write_bundle

    with clear_errors():
        try:
            described = load_spec(spec, AMR_SMALL)
            settings = ExportSettings(name, version, counter, created)
            bundle = pack_custom(
                read_network(onnx), described, settings, [load_signer(keys)], MonitorConfig()
            )
        except TrainerError as error:
            raise fail(str(error)) from None
        digest = write_bundle(out, bundle)
    typer.echo(f"{out}: {name}@{version} counter {counter}, {len(bundle)} bytes, signed\n{digest}")


def _verify_signed(bundle: Path, keys: Path) -> "VerifiedBundle":
    from contracts.bundle import verify_signed
    from contracts.keyring import TRUSTED_FILE
    from contracts.provenance import TrustedKeys

    with clear_errors():
        return verify_signed(bundle, TrustedKeys.load(keys / TRUSTED_FILE))
