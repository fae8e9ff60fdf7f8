"""Signs the papers of a rollout: access file, robots' cards, approvals, acts. ``contracts.papers`` reads them."""

import time
from pathlib import Path

import msgspec
from securesystemslib.signer import Signer

from contracts.canonical import canonical_json
from contracts.erasure import ERASE_TYPE, EraseAct
from contracts.errors import KeyFileError
from contracts.keyring import PEOPLE_FOLDER
from contracts.papers import (
    ACCESS_TYPE,
    ACT_TYPE,
    APPROVAL_TYPE,
    CARD_TYPE,
    FLEET_ACT_TYPE,
    VOUCHER_TYPE,
    AccessFile,
    Act,
    Approval,
    FleetAct,
    Voucher,
)
from contracts.plan import RobotCard
from trainer.release.keys import load_signer
from trainer.release.pack import seal


def sign_access(access: AccessFile, signer: Signer) -> bytes:
    """The access file's envelope, by the release key."""
    return seal(canonical_json(access), ACCESS_TYPE, [signer])


def sign_card(card: RobotCard, signer: Signer) -> bytes:
    """A robot's card, by the release key."""
    return seal(canonical_json(card), CARD_TYPE, [signer])


def person_signer(keys: Path, person: str) -> Signer:
    """The key of a person in KEYS/people; raises KeyFileError."""
    path = keys / PEOPLE_FOLDER / f"{person}.pem"
    if not path.exists():
        known = ", ".join(sorted(found.stem for found in path.parent.glob("*.pem"))) or "nobody"
        raise KeyFileError(
            f"no key of {person} at {path}; there are keys of {known}: `outrider keys person {person}`"
        )
    return load_signer(path, f"key of {person}", f"outrider keys person {person}")


def sign_approval(plan_digest: str, person: str, why: str, signer: Signer) -> bytes:
    """A person's signature under a plan; raises msgspec.ValidationError for a reason that is none."""
    approval = Approval(plan_digest, person, why, time.time_ns())
    msgspec.convert(msgspec.to_builtins(approval), Approval)
    return seal(canonical_json(approval), APPROVAL_TYPE, [signer])


def sign_act(act: Act, signer: Signer) -> bytes:
    """What a person wants done; raises msgspec.ValidationError for a reason that is none."""
    msgspec.convert(msgspec.to_builtins(act), Act)
    return seal(canonical_json(act), ACT_TYPE, [signer])


def sign_fleet_act(act: FleetAct, signer: Signer) -> bytes:
    """Whom a person lets in or cuts off; raises msgspec.ValidationError for a reason that is none."""
    msgspec.convert(msgspec.to_builtins(act), FleetAct)
    return seal(canonical_json(act), FLEET_ACT_TYPE, [signer])


def sign_erase_act(act: EraseAct, signer: Signer) -> bytes:
    """What is to be erased from a robot's log; raises msgspec.ValidationError for what cannot be."""
    msgspec.convert(msgspec.to_builtins(act), EraseAct)
    return seal(canonical_json(act), ERASE_TYPE, [signer])


def sign_voucher(voucher: Voucher, signer: Signer) -> bytes:
    """Who holds a token is this robot, by the release key; raises msgspec.ValidationError for a name that is none."""
    msgspec.convert(msgspec.to_builtins(voucher), Voucher)
    return seal(canonical_json(voucher), VOUCHER_TYPE, [signer])
