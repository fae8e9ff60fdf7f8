"""An issuer of tokens, and what an attacker does with them."""

import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import zmq
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner

from contracts.canonical import canonical_json, digest_hex
from contracts.enrolment import Token, TokenKeys, encode_token, fleet_hash, token_keys
from contracts.keyring import CURVE_FILE, HUB_PUBLIC_FILE, TRUSTED_FILE, CurvePair, CurvePublic, read_key_file
from contracts.messages import decode_from_hub, encode
from contracts.papers import BINDING_TYPE, Binding, FleetAct, Voucher
from contracts.provenance import ReleaseKey, TrustedKeys, encode_envelope
from contracts.trust import DIRECTOR, IMAGE
from fleet_hub.trust.ceremony import Ceremony
from tests.support.fleet import Fleet
from trainer.release.keys import load_signer
from trainer.release.papers import person_signer, sign_fleet_act, sign_voucher

HOUR_NS = 3600 * 10**9


@dataclass
class Issued:
    """A token, and what was signed for it."""

    token: Token
    voucher: bytes

    @property
    def own(self) -> TokenKeys:
        """The token's keys."""
        return token_keys(self.token.secret)

    @property
    def text(self) -> str:
        """What is copied."""
        return encode_token(self.token)


def make_token(
    keys: Path, robot: str, life_ns: int = HOUR_NS, signer: Path | None = None, **fields: Any
) -> Issued:
    """A token and its voucher; the hub has not heard of it."""
    secret = secrets.token_bytes(32)
    own = token_keys(secret)
    voucher = Voucher(robot, own.token_id, own.public_hex, time.time_ns() + life_ns, **fields)
    ceremony = Ceremony(keys)
    start = fleet_hash(
        TrustedKeys.load(keys / TRUSTED_FILE), ceremony.root_bytes(IMAGE), ceremony.root_bytes(DIRECTOR)
    )
    hub_key = read_key_file(keys / "operator" / HUB_PUBLIC_FILE, CurvePublic).public
    return Issued(Token(robot, secret, hub_key, start), sign_voucher(voucher, load_signer(signer or keys)))


def fleet_act(keys: Path, action: str, name: str, person: str = "anna", **fields: Any) -> bytes:
    """A person changes the fleet."""
    values = {"action": action, "role": "robot", "name": name, "person": person, "why": "a test"}
    act = msgspec.convert(values | {"signed_wall_ns": time.time_ns()} | fields, FleetAct)
    return sign_fleet_act(act, person_signer(keys, person))


def issue(fleet: Fleet, robot: str, life_ns: int = HOUR_NS, **fields: Any) -> Issued:
    """A token that the hub knows."""
    made = make_token(fleet.keys, robot, life_ns, **fields)
    with fleet.client() as client:
        client.act_on_fleet(
            fleet_act(fleet.keys, "enrol", robot, voucher=digest_hex(made.voucher)), made.voucher
        )
    return made


def binding(
    issued: Issued, robot: str = "", curve: str = "", signing: Ed25519PrivateKey | None = None
) -> bytes:
    """A robot's keys, signed with the token's key; or lies."""
    own = issued.own
    curve = curve or zmq.curve_keypair()[0].decode()
    made = Binding(
        robot or issued.token.robot, Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex(), curve
    )
    envelope = Envelope(canonical_json(made), BINDING_TYPE, {})
    private = signing or own.signing
    key = ReleaseKey(issued.token.robot, private.public_key().public_bytes_raw().hex())
    envelope.sign(CryptoSigner(private, key.sslib_key()))
    wanted = ReleaseKey(issued.token.robot, own.public_hex)
    return encode_envelope(envelope).replace(key.key_id.encode(), wanted.key_id.encode())


class Peer:
    """A raw connection with any CURVE pair: what somebody does who does not use our clients."""

    def __init__(self, fleet: Fleet, public: bytes, secret: bytes) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.curve_publickey, self._socket.curve_secretkey = public, secret
        server = read_key_file(fleet.keys / "operator" / HUB_PUBLIC_FILE, CurvePublic)
        self._socket.curve_serverkey = server.public.encode()
        self._socket.connect(fleet.address)

    @classmethod
    def of(cls, fleet: Fleet, party: Path) -> "Peer":
        """With a party's own key."""
        pair = read_key_file(party / CURVE_FILE, CurvePair)
        return cls(fleet, pair.public.encode(), pair.secret.encode())

    def say(self, message: Any, wait_ms: int = 30_000) -> object:
        """Send one message; the answer, None for none."""
        self._socket.send(encode(message))
        return decode_from_hub(self._socket.recv()) if self._socket.poll(wait_ms) else None

    def close(self) -> None:
        """Close it."""
        self._socket.close()
        self._context.term()
