"""``outrider keys trust|status|rotate|revoke``: the keys of the TUF roles (docs/operations/trust.md)."""

from pathlib import Path
from typing import Annotated

import typer

from outrider.verbs._operator import DEFAULT_KEYS, AsJson, Keys, clear_errors, print_json

TRUST_EXAMPLE = "Example:  outrider keys trust --keys keys"
STATUS_EXAMPLE = "Example:  outrider keys status --keys keys"
ROTATE_EXAMPLE = """Example:  outrider keys rotate image_timestamp

Or:  PYKCS11LIB=/usr/lib/x86_64-linux-gnu/libykcs11.so outrider keys rotate image_root_1 --hsm hsm:2"""
REVOKE_EXAMPLE = 'Example:  outrider keys revoke image_root_1 --why "a laptop was stolen"'
Hardware = Annotated[str, typer.Option("--hsm", help="A key in hardware, such as hsm:2?label=YubiKey.")]
KeyName = Annotated[str, typer.Argument(help="The key, as `outrider keys status` names it.")]


def make_trust(keys: Path) -> None:
    """Roots and keys of both repositories; encrypted with OUTRIDER_PASSPHRASE where that is set."""
    from datetime import UTC, datetime

    from fleet_hub.trust.ceremony import Ceremony
    from fleet_hub.trust.keys import passphrase

    Ceremony(keys, passphrase()).create(datetime.now(UTC))


def trust(keys: Keys = DEFAULT_KEYS) -> None:
    """Give a fleet whose keys are older the TUF roots; `keys init` does it for new ones.

    Set OUTRIDER_PASSPHRASE to have the private keys encrypted at rest.
    """
    with clear_errors():
        make_trust(keys)
    typer.echo(
        f"two repositories' roots and keys in {keys / 'trust'}, online keys in {keys / 'hub' / 'trust'}"
    )


def status(keys: Keys = DEFAULT_KEYS, as_json: AsJson = False) -> None:
    """Which keys the fleet trusts for what, which of them lie here, and when the roots expire."""
    from rich.console import Console
    from rich.table import Table

    from contracts.trust import REPOSITORIES
    from fleet_hub.trust.ceremony import Ceremony

    with clear_errors():
        ceremony = Ceremony(keys)
        found = ceremony.status()
        roots = {repository: ceremony.root(repository).signed for repository in REPOSITORIES}
    if as_json:
        expiry = {
            name: {"version": root.version, "expires": str(root.expires)} for name, root in roots.items()
        }
        print_json({"roots": expiry, "keys": [vars(key) for key in found]})
        return
    table = Table("repository", "role", "key", "id", "private half")
    for key in found:
        where = ("here, encrypted" if key.encrypted else "here") if key.here else "elsewhere"
        where = "in hardware" if key.hardware else where
        table.add_row(key.repository, key.role, key.name, key.key_id[:12], where)
    Console().print(table)
    for name, root in roots.items():
        typer.echo(f"{name} root {root.version} expires {root.expires:%Y-%m-%d}")


def rotate(name: KeyName, keys: Keys = DEFAULT_KEYS, hsm: Hardware = "") -> None:
    """Put a new key in the place of one, signed into a new root by the other root keys.

    A running hub takes it over when a robot asks next; robots with their next update. With --hsm the new key is one
    that was made on a device (PKCS#11, curve P-256 or P-384) and stays there; the PIN is OUTRIDER_PIN, or asked for.
    """
    _replace(name, keys, hsm)


def revoke(
    name: KeyName,
    why: Annotated[
        str, typer.Option(help="What happened; goes into the fleet's notes (KEYS/trust/revoked.log).")
    ],
    keys: Keys = DEFAULT_KEYS,
    hsm: Hardware = "",
) -> None:
    """Take trust away from a key that was stolen or lost: a new one takes its place, the old one signs nothing more.

    The old root keys but the revoked one sign, so a lost root key needs the other two.
    """
    version = _replace(name, keys, hsm)
    from datetime import UTC, datetime

    with clear_errors(), (keys / "trust" / "revoked.log").open("a") as log:
        log.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {name} root {version}: {' '.join(why.split())}\n")


def _replace(name: str, keys: Path, hsm: str) -> int:
    from datetime import UTC, datetime

    from fleet_hub.trust.ceremony import Ceremony, role_of
    from fleet_hub.trust.keys import passphrase

    with clear_errors():
        repository, role = role_of(name)
        version = Ceremony(keys, passphrase()).replace(name, datetime.now(UTC), hsm)
    typer.echo(f"{name} ({repository} {role}) replaced in root {version}")
    return version
