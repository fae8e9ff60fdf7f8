"""``outrider keys``: makes the keys of a fleet, names its people, says where its robots work."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from outrider.cli import fail
from outrider.verbs._operator import DEFAULT_KEYS, AsJson, Keys, check_name, clear_errors
from outrider.verbs.sign_safety import EXAMPLE, sign_safety
from outrider.verbs.trust_keys import (
    REVOKE_EXAMPLE,
    ROTATE_EXAMPLE,
    STATUS_EXAMPLE,
    TRUST_EXAMPLE,
    make_trust,
    revoke,
    rotate,
    status,
    trust,
)

if TYPE_CHECKING:
    from securesystemslib.signer import Signer

    from contracts.papers import AccessFile
    from contracts.plan import RobotCard

T = TypeVar("T")
app = typer.Typer(no_args_is_help=True, help="Make the keys of a fleet, name its people.")
app.command("sign-safety", epilog=EXAMPLE)(sign_safety)
app.command(epilog=TRUST_EXAMPLE)(trust)
app.command(epilog=STATUS_EXAMPLE)(status)
app.command(epilog=ROTATE_EXAMPLE)(rotate)
app.command(epilog=REVOKE_EXAMPLE)(revoke)
PEOPLE_EXAMPLE = """Example:  outrider keys person anna --roles approver

And:  outrider keys person boris --roles releaser,safety_officer"""


@app.callback()
def _group() -> None:
    """Make the keys of a fleet."""


@app.command(epilog="Example:  outrider keys init keys --robots robot_1,robot_2")
def init(
    folder: Annotated[Path, typer.Argument(help="Where to put them; must not hold keys yet.")],
    robots: Annotated[str, typer.Option(help="Names of the robots, comma-separated.")],
) -> None:
    """Make a release key, CURVE keys for the hub, an operator and each robot, and a key and card a robot.

    Never overwrites. Who may approve and start rollouts: `outrider keys person`.
    """
    from contracts.keyring import ROBOT_ID_PATTERN, ROBOT_KEY_FILE, TRUSTED_FILE
    from contracts.plan import RobotCard
    from contracts.provenance import TrustedKeys
    from trainer.release.keys import RELEASE_KEY_FILE, create_release_key, load_signer

    names = [name.strip() for name in robots.split(",") if name.strip()]
    wrong = [name for name in names if not re.fullmatch(ROBOT_ID_PATTERN, name)]
    if not names or wrong or len(set(names)) != len(names):
        raise fail(f"--robots: expected different names like robot_1,robot_2; came {robots!r}", 2)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        why = "not empty" if folder.is_dir() else "no folder"
        raise fail(f"{folder} is {why}; keys are never overwritten, give a new folder")
    with clear_errors():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        trusted = TrustedKeys(1, (create_release_key(folder / RELEASE_KEY_FILE),))
        _write(folder / TRUSTED_FILE, trusted)
        _make_parties(folder, names, trusted)
        signer = load_signer(folder)
        for name in names:
            made = create_release_key(folder / "robots" / name / ROBOT_KEY_FILE, name)
            _write_card(folder, RobotCard(name, made.public_hex), signer)
        make_trust(folder)
    typer.echo(f"keys for {len(names)} robot(s), one hub, one operator and one release key in {folder}")
    typer.echo(
        f"keep {folder / RELEASE_KEY_FILE} away from robots and hub; give each robot only its own folder"
    )


@app.command(epilog=PEOPLE_EXAMPLE)
def person(
    name: Annotated[str, typer.Argument(help="Who, like anna.")],
    roles: Annotated[str, typer.Option(help="viewer, engineer, releaser, approver, safety_officer.")],
    keys: Keys = DEFAULT_KEYS,
    public: Annotated[
        str, typer.Option(help="Their public key in hexadecimal, made elsewhere; else one is made here.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Give a person a key and roles, and sign the access file anew. The key belongs on that person's machine."""
    from contracts.keyring import ACCESS_SOURCE, PEOPLE_FOLDER
    from contracts.papers import AccessFile, Person
    from trainer.release.keys import create_release_key

    path = keys / PEOPLE_FOLDER / f"{name}.pem"
    with clear_errors():
        known = _read_access(keys)
        check_name(name)
        if any(one.name == name for one in known.people):
            raise fail(f"there is a {name} already; roles are changed in {keys / ACCESS_SOURCE}", 2)
        _convert({"name": name, "public_hex": "0" * 64, "roles": _listed(roles)}, Person, "--roles")
        made = public or create_release_key(path, name).public_hex
        new = _convert({"name": name, "public_hex": made, "roles": _listed(roles)}, Person, "--public")
        _sign_access(keys, AccessFile(known.version + 1, (*known.people, new)))
    if as_json:
        import msgspec

        typer.echo(msgspec.json.encode(new).decode())
        return
    typer.echo(f"{name} is {', '.join(new.roles)}; access file {known.version + 1} signed for the hub")
    if not public:
        typer.echo(f"private key: {path}; move it to {name}'s machine")


@app.command(epilog="Example:  outrider keys access --keys keys")
def access(keys: Keys = DEFAULT_KEYS) -> None:
    """Sign the access file again after access.yaml was edited: roles changed, somebody gone. Raises its version."""
    from contracts.papers import AccessFile

    with clear_errors():
        known = _read_access(keys)
        _sign_access(keys, AccessFile(known.version + 1, known.people))
    typer.echo(f"access file {known.version + 1} with {len(known.people)} people signed for the hub")


@app.command(epilog="Example:  outrider keys robot robot_7 --site north")
def robot(
    name: Annotated[str, typer.Argument(help="The robot.")],
    site: Annotated[str, typer.Option(help="Where it works.")] = "",
    model: Annotated[str, typer.Option(help="What it is.")] = "amr_small",
    keys: Keys = DEFAULT_KEYS,
) -> None:
    """Sign a robot's card anew: plans name robots by site and model. The hub reads cards when it starts."""
    from contracts.keyring import CARD_FILE, ROBOT_KEY_FILE, TRUSTED_FILE
    from contracts.papers import open_card
    from contracts.plan import RobotCard
    from contracts.provenance import TrustedKeys
    from trainer.release.keys import create_release_key, load_signer

    own = keys / "robots" / name
    if not own.is_dir():
        raise fail(f"no robot {name} in {keys}")
    with clear_errors():
        if (own / CARD_FILE).exists():
            card = open_card((own / CARD_FILE).read_bytes(), TrustedKeys.load(keys / TRUSTED_FILE))
            public_hex = card.public_hex
        else:
            public_hex = create_release_key(own / ROBOT_KEY_FILE, name).public_hex
        card = _convert(
            {"robot": name, "public_hex": public_hex, "site": site, "model": model}, RobotCard, "the card"
        )
        _write_card(keys, card, load_signer(keys))
    typer.echo(f"{name}: site {site or '-'}, model {model}; card in {own} and for the hub")


@app.command(
    epilog="Example:  outrider keys operator my_keys --hub-key keys/operator/hub_public.json > lena.pub"
)
def operator(
    folder: Annotated[Path, typer.Argument(help="Where to put them; must not hold keys yet.")],
    hub_key: Annotated[Path, typer.Option(help="The hub's public key: hub_public.json of another operator.")],
) -> None:
    """Make CURVE keys for one more operator, on their machine; prints the public one for `outrider fleet allow`."""
    from contracts.keyring import CURVE_FILE, HUB_PUBLIC_FILE, CurvePublic, read_key_file

    with clear_errors():
        hub = read_key_file(hub_key, CurvePublic)
        if (folder / "operator").exists():
            raise fail(f"{folder / 'operator'} is there already; keys are never overwritten")
        public = _make_pair(folder / "operator" / CURVE_FILE)
        _write(folder / "operator" / HUB_PUBLIC_FILE, hub)
    typer.echo(public)


def _listed(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _convert(value: object, kind: type[T], what: str) -> T:
    import msgspec

    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise fail(f"{what}: {error}", 2) from None


def _read_access(keys: Path) -> "AccessFile":
    import msgspec

    from contracts.keyring import ACCESS_SOURCE
    from contracts.papers import AccessFile

    path = keys / ACCESS_SOURCE
    if not path.exists():
        return AccessFile(1)
    try:
        return msgspec.yaml.decode(path.read_bytes(), type=AccessFile)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
        raise fail(f"{path}: {error}") from None


def _sign_access(keys: Path, access: "AccessFile") -> None:
    """The signed file first: a hub that reads in between has the new one or the old one, never none."""
    import msgspec

    from contracts.atomic import write_atomically
    from contracts.keyring import ACCESS_FILE, ACCESS_SOURCE
    from trainer.release.keys import load_signer
    from trainer.release.papers import sign_access

    write_atomically(keys / "hub" / ACCESS_FILE, sign_access(access, load_signer(keys)), private=True)
    write_atomically(keys / ACCESS_SOURCE, msgspec.yaml.encode(access), private=True)


def _write_card(keys: Path, card: "RobotCard", signer: "Signer") -> None:
    from contracts.atomic import write_atomically
    from contracts.keyring import CARD_FILE, CARDS_FOLDER
    from trainer.release.papers import sign_card

    data = sign_card(card, signer)
    (keys / "hub" / CARDS_FOLDER).mkdir(mode=0o700, exist_ok=True)
    for path in (
        keys / "robots" / card.robot / CARD_FILE,
        keys / "hub" / CARDS_FOLDER / f"{card.robot}.dsse.json",
    ):
        write_atomically(path, data, private=True)


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
