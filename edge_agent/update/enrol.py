"""A new robot comes into the fleet with a one-time token: makes its own keys, says which they are, gets what it trusts.

The private halves are written here, once, and never leave. A kill at any point: the same command with the same token
goes on with the same keys, and the hub takes the robot in once. The card is written last: with it the robot is
enrolled, without it it is not.
"""

import time
from pathlib import Path

import msgspec
import zmq
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner
from zmq.utils.monitor import recv_monitor_message

from contracts.atomic import write_private
from contracts.canonical import canonical_json
from contracts.enrolment import EnrolCode, EnrolmentError, Token, TokenKeys, fleet_hash, token_keys
from contracts.errors import KeyFileError, MessageError, OrderError
from contracts.keyring import (
    CARD_FILE,
    CURVE_FILE,
    HUB_PUBLIC_FILE,
    ROBOT_KEY_FILE,
    TRUSTED_FILE,
    CurvePair,
    CurvePublic,
    read_key_file,
)
from contracts.messages import MESSAGE_MAX_BYTES, Enrol, Enrolled, Refused, decode_from_hub, encode
from contracts.papers import BINDING_TYPE, Binding, open_card
from contracts.plan import RobotCard
from contracts.provenance import ReleaseKey, TrustedKeys, encode_envelope
from contracts.trust import DIRECTOR, IMAGE

WAIT_MAX_S = 15.0
HANDSHAKE_MAX_MS = 10_000
KEY_MAX_BYTES = 16 * 1024


def enrol(token: Token, hub: str, keys: Path, wait_max_s: float = WAIT_MAX_S) -> RobotCard:
    """Enrol at ``hub`` and leave everything that the agent needs in ``keys``, the robot's own folder.

    Raises:
        EnrolmentError: With its code; the folder holds nothing but the robot's own unused keys then.
        KeyFileError: What lies in the folder is no key.
        OSError: The disk refuses.
    """
    if (keys / CARD_FILE).exists():
        raise EnrolmentError(
            EnrolCode.ALREADY, f"{keys} is a robot's that has been enrolled; give a new folder to enrol again"
        )
    own = token_keys(token.secret)
    pair, private = _own_pair(keys), _own_key(keys)
    binding = _sign_binding(token, own, pair, private)
    answer = ask(hub, token.hub_key, own, Enrol(binding), wait_max_s)
    return _keep(token, keys, answer, private)


def ask(hub: str, hub_key: str, own: TokenKeys, message: Enrol, wait_max_s: float) -> Enrolled:
    """Connect with a token's key, say one thing, wait for the answer; raises EnrolmentError."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_MAX_BYTES)
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MAX_MS)
        socket.curve_publickey, socket.curve_secretkey = own.curve_public, own.curve_secret
        socket.curve_serverkey = hub_key.encode()
        monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        try:
            socket.connect(hub)
            socket.send(encode(message))
            _wait(socket, monitor, hub, wait_max_s)
            answer = decode_from_hub(socket.recv())
        except zmq.ZMQError as error:
            raise EnrolmentError(EnrolCode.SILENT, f"{hub!r}: {zmq.strerror(error.errno or 0)}") from None
        except MessageError as error:
            raise EnrolmentError(EnrolCode.SILENT, str(error)) from None
        finally:
            socket.disable_monitor()
            monitor.close()
    if isinstance(answer, Refused):
        known = {code.value: code for code in EnrolCode}
        raise EnrolmentError(known.get(answer.code, EnrolCode.REFUSED), answer.reason)
    if not isinstance(answer, Enrolled):
        raise EnrolmentError(EnrolCode.SILENT, f"expected an answer to Enrol, came {type(answer).__name__}")
    return answer


def _wait(socket: "zmq.Socket[bytes]", monitor: "zmq.Socket[bytes]", hub: str, wait_max_s: float) -> None:
    """Until there is an answer; raises EnrolmentError when the hub does not let the token's key in, or is silent."""
    poller, end_s = zmq.Poller(), time.monotonic() + wait_max_s
    poller.register(socket, zmq.POLLIN)
    poller.register(monitor, zmq.POLLIN)
    while (left_s := end_s - time.monotonic()) > 0:
        ready = dict(poller.poll(int(left_s * 1000) + 1))
        if socket in ready:
            return
        if monitor in ready:
            recv_monitor_message(monitor)
            raise EnrolmentError(
                EnrolCode.UNKNOWN,
                f"the hub at {hub} knows no such token; have one issued: outrider fleet enrol",
            )
    raise EnrolmentError(
        EnrolCode.SILENT, f"no answer from the hub at {hub} within {wait_max_s:g} s; try again"
    )


def _own_pair(keys: Path) -> CurvePair:
    """The robot's CURVE pair, made here when there is none; raises KeyFileError, OSError."""
    path = keys / CURVE_FILE
    if not path.exists():
        public, secret = (key.decode() for key in zmq.curve_keypair())
        write_private(path, canonical_json(CurvePair(public, secret)) + b"\n")
    return read_key_file(path, CurvePair, private=True)


def _own_key(keys: Path) -> Ed25519PrivateKey:
    """The robot's signing key, made here when there is none; raises KeyFileError, OSError."""
    path = keys / ROBOT_KEY_FILE
    if not path.exists():
        made = Ed25519PrivateKey.generate()
        pem = made.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_private(path, pem)
    with path.open("rb") as file:
        data = file.read(KEY_MAX_BYTES)
    try:
        private = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as error:
        raise KeyFileError(f"{path} holds no private key ({error}); remove it and enrol again") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyFileError(f"{path}: expected an Ed25519 key, came {type(private).__name__}; remove it")
    return private


def _sign_binding(token: Token, own: TokenKeys, pair: CurvePair, private: Ed25519PrivateKey) -> bytes:
    public_hex = private.public_key().public_bytes_raw().hex()
    envelope = Envelope(canonical_json(Binding(token.robot, public_hex, pair.public)), BINDING_TYPE, {})
    envelope.sign(CryptoSigner(own.signing, ReleaseKey(token.robot, own.public_hex).sslib_key()))
    return encode_envelope(envelope)


def _keep(token: Token, keys: Path, answer: Enrolled, private: Ed25519PrivateKey) -> RobotCard:
    """Hold the answer against the token, then write it down, the card last; raises EnrolmentError, OSError."""
    try:
        trusted = msgspec.json.decode(answer.trusted, type=TrustedKeys)
        if fleet_hash(trusted, answer.image_root, answer.director_root) != token.fleet:
            raise EnrolmentError(
                EnrolCode.FLEET_CHANGED,
                "the hub's roots or release keys are not those that the token was issued for: they were changed "
                "since, or this is no hub of that fleet; have another token issued",
            )
        card = open_card(answer.card, trusted)
    except (OrderError, ValueError) as error:
        raise EnrolmentError(EnrolCode.FLEET_CHANGED, f"the hub's answer is refused: {error}") from None
    if (card.robot, card.public_hex) != (token.robot, private.public_key().public_bytes_raw().hex()):
        raise EnrolmentError(EnrolCode.OTHER_ROBOT, f"the hub answered with the card of {card.robot}")
    for name, data in (
        (HUB_PUBLIC_FILE, canonical_json(CurvePublic(token.hub_key)) + b"\n"),
        (TRUSTED_FILE, answer.trusted),
        (f"{IMAGE}.root.json", answer.image_root),
        (f"{DIRECTOR}.root.json", answer.director_root),
        (CARD_FILE, answer.card),
    ):
        write_private(keys / name, data)
    return card
