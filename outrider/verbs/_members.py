"""``outrider fleet enrol|allow|revoke|members``: who may connect to the hub, changed while it runs."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outrider.cli import fail
from outrider.verbs._operator import (
    DEFAULT_HUB,
    DEFAULT_KEYS,
    AsJson,
    HubAddress,
    Keys,
    Person,
    Why,
    clear_errors,
    clock_text,
    hub_client,
    print_json,
)

if TYPE_CHECKING:
    from contracts.messages import MembersView

MINUTE_NS = 60 * 1_000_000_000
ENROL_EXAMPLE = """Example:  outrider fleet enrol robot_7 --site north --as anna --why "new at dock 4"

Prints the token. At the robot:  outrider agent enrol TOKEN --hub tcp://hub:5755 --state state"""
ALLOW_EXAMPLE = (
    'Example:  outrider fleet allow lena --key "$(cat lena.pub)" --as boris --why "joins the night shift"'
)
REVOKE_EXAMPLE = """Example:  outrider fleet revoke robot_3 --as boris --why "stolen from the yard"

And:  outrider fleet revoke lena --operator --as boris --why "has left" """


def enrol(
    name: Annotated[str, typer.Argument(help="The new robot's name.", show_default=False)],
    person: Person,
    why: Why,
    site: Annotated[str, typer.Option(help="Where it works.")] = "",
    model: Annotated[str, typer.Option(help="What it is.")] = "amr_small",
    minutes: Annotated[float, typer.Option(help="How long the token is good.", min=0.1, max=7 * 1440)] = 60.0,
    keys: Keys = DEFAULT_KEYS,
    hub: HubAddress = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Issue a one-time token for a new robot; it is printed once and kept nowhere.

    Takes the release key (it vouches for name, site and model) and a releaser, approver or safety officer.
    """
    import secrets

    import msgspec

    from contracts.canonical import digest_hex
    from contracts.enrolment import SECRET_BYTES, Token, encode_token, fleet_hash, token_keys
    from contracts.keyring import HUB_PUBLIC_FILE, TRUSTED_FILE, CurvePublic, party_folder, read_key_file
    from contracts.papers import Voucher
    from contracts.provenance import TrustedKeys
    from contracts.trust import DIRECTOR, IMAGE
    from fleet_hub.trust.ceremony import Ceremony
    from trainer.release.keys import load_signer
    from trainer.release.papers import sign_voucher

    with clear_errors():
        secret = secrets.token_bytes(SECRET_BYTES)
        made, expires_ns = token_keys(secret), time.time_ns() + int(minutes * MINUTE_NS)
        try:
            paper = sign_voucher(
                Voucher(name, made.token_id, made.public_hex, expires_ns, site, model), load_signer(keys)
            )
        except msgspec.ValidationError as error:
            raise fail(f"{name!r}: {error}", 2) from None
        act = _signed(keys, person, why, action="enrol", role="robot", name=name, voucher=digest_hex(paper))
        ceremony = Ceremony(keys)
        start = fleet_hash(
            TrustedKeys.load(keys / TRUSTED_FILE), ceremony.root_bytes(IMAGE), ceremony.root_bytes(DIRECTOR)
        )
        hub_key = read_key_file(party_folder(keys, "operator") / HUB_PUBLIC_FILE, CurvePublic).public
        with hub_client(hub, keys) as client:
            client.act_on_fleet(act, paper)
    token = encode_token(Token(name, secret, hub_key, start))
    if as_json:
        print_json({"robot": name, "token": token, "id": made.token_id, "expires_wall_ns": expires_ns})
        return
    typer.echo(token)
    typer.echo(
        f"good once, for {name}, until {clock_text(expires_ns)}; at the robot: outrider agent enrol", err=True
    )


def allow(
    name: Annotated[str, typer.Argument(help="The operator.", show_default=False)],
    key: Annotated[str, typer.Option(help="Their public key: `outrider keys operator` prints it.")],
    person: Person,
    why: Why,
    keys: Keys = DEFAULT_KEYS,
    hub: HubAddress = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Let an operator's key in, at once. What people may do is for the access file to say (`outrider keys person`)."""
    _act(keys, hub, as_json, person, why, action="allow", role="operator", name=name, key=key.strip())


def revoke(
    name: Annotated[str, typer.Argument(help="The robot, or the operator.", show_default=False)],
    person: Person,
    why: Why,
    operator: Annotated[bool, typer.Option("--operator", help="An operator, not a robot.")] = False,
    keys: Keys = DEFAULT_KEYS,
    hub: HubAddress = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Cut a robot or an operator off, at once: open connections too, and tokens that are out for it."""
    role = "operator" if operator else "robot"
    _act(keys, hub, as_json, person, why, action="revoke", role=role, name=name)


def members(
    name: Annotated[str, typer.Argument(help="Only this robot or operator.")] = "",
    keys: Keys = DEFAULT_KEYS,
    hub: HubAddress = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Who may connect, who was cut off, and which tokens are out."""
    with hub_client(hub, keys) as client:
        _show(client.members(name), as_json)


def _act(keys: Path, hub: str, as_json: bool, person: str, why: str, **fields: Any) -> None:

    with clear_errors():
        act = _signed(keys, person, why, **fields)
        with hub_client(hub, keys) as client:
            _show(client.act_on_fleet(act), as_json)


def _signed(keys: Path, person: str, why: str, **fields: Any) -> bytes:
    import msgspec

    from contracts.papers import FleetAct
    from trainer.release.papers import person_signer, sign_fleet_act

    try:
        act = msgspec.convert(
            fields | {"person": person, "why": why, "signed_wall_ns": time.time_ns()}, FleetAct
        )
    except msgspec.ValidationError as error:
        raise fail(str(error), 2) from None
    return sign_fleet_act(act, person_signer(keys, person))


def _show(view: "MembersView", as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    for member in view.members:
        since = clock_text(member.since_wall_ns) if member.since_wall_ns else "key folder"
        state = "may connect" if member.state == "in" else "REVOKED"
        typer.echo(f"{member.role:9} {member.name:24} {member.key[:12]}...  {state:12} {since}")
    if view.members_left_out:
        typer.echo(f"and {view.members_left_out} more: outrider fleet members NAME")
    for token in view.tokens:
        until = clock_text(token.expires_wall_ns)
        typer.echo(
            f"token     {token.robot:24} {token.token[:12]}...  {token.state:12} until {until}, by {token.issued_by}"
        )
