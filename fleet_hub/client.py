"""An operator's way to the hub: ask, wait a named time, get an answer or one clear error."""

import errno
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import zmq

from contracts.bundle import read_bundle, verify_signed
from contracts.canonical import digest_hex
from contracts.errors import BundleError
from contracts.keyring import (
    CURVE_FILE,
    HUB_PUBLIC_FILE,
    TRUSTED_FILE,
    CurvePair,
    CurvePublic,
    party_folder,
    read_key_file,
)
from contracts.messages import (
    MESSAGE_MAX_BYTES,
    ActOnFleet,
    ActOnRollout,
    ApprovePlan,
    AskAudit,
    AskErasures,
    AskFile,
    AskFleet,
    AskMembers,
    AskRollout,
    AuditEntry,
    AuditPage,
    BeginRelease,
    CheckPlan,
    CommitRelease,
    ErasuresView,
    FileChunk,
    FleetView,
    FromHub,
    FromOperator,
    ListReleases,
    MembersView,
    OrderErasure,
    PlanView,
    Refused,
    ReleaseChunk,
    ReleaseInfo,
    ReleaseList,
    RolloutView,
    UploadFrom,
    decode_from_hub,
    encode,
)
from contracts.provenance import TrustedKeys
from contracts.trust import facts_of
from fleet_hub.errors import HubUnreachableError, RefusedByHubError
from fleet_hub.limits import HANDSHAKE_MAX_MS, UPLOAD_CHUNK_BYTES
from fleet_hub.trust.ceremony import Ceremony
from fleet_hub.trust.keys import passphrase

ANSWER_MAX_S = 5.0
T = TypeVar("T")


class HubClient:
    """A connection of one operator; use it as a context manager."""

    def __init__(self, hub: str, keys: Path, answer_max_s: float = ANSWER_MAX_S) -> None:
        """Connect to ``hub`` (tcp://HOST:PORT) with the operator's keys in ``keys``; raises KeyFileError."""
        own = party_folder(keys, "operator")
        pair = read_key_file(own / CURVE_FILE, CurvePair, private=True)
        server = read_key_file(own / HUB_PUBLIC_FILE, CurvePublic)
        self._hub, self._keys = hub, keys
        self._answer_max_ms = int(answer_max_s * 1000)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_MAX_BYTES)
        self._socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MAX_MS)
        self._socket.curve_publickey, self._socket.curve_secretkey = (
            pair.public.encode(),
            pair.secret.encode(),
        )
        self._socket.curve_serverkey = server.public.encode()
        try:
            self._socket.connect(hub)
        except zmq.ZMQError:
            self.close()
            raise HubUnreachableError(f"{hub!r} is no address; give --hub tcp://HOST:PORT") from None

    def __enter__(self) -> "HubClient":
        """Nothing more to do."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
        self._context.term()

    def call(self, message: FromOperator) -> FromHub:
        """Send and wait for the answer.

        Raises:
            HubUnreachableError: No answer in time.
            RefusedByHubError: The hub says no.
        """
        self._socket.send(encode(message))
        if not self._socket.poll(self._answer_max_ms):
            raise HubUnreachableError(
                f"no answer from the hub at {self._hub} within {self._answer_max_ms / 1000:g} s; "
                "is it running there, and does it know this operator's key?"
            )
        answer = decode_from_hub(self._socket.recv())
        if isinstance(answer, Refused):
            raise RefusedByHubError(answer.reason)
        return answer

    def release(self, path: Path, progress: Callable[[int, int], None] | None = None) -> ReleaseInfo:
        """Upload a bundle (resuming a cut upload), sign for it as trainer and release manager, have it registered.

        Raises:
            KeyFileError: A key of these two is not here.
            TrustError: The hub shows image targets that these two have not signed.
        """
        data = read_bundle(path)
        digest = digest_hex(data)
        offset = _expect(UploadFrom, self.call(BeginRelease(digest, len(data)))).offset
        while offset < len(data):
            if progress:
                progress(offset, len(data))
            chunk = data[offset : offset + UPLOAD_CHUNK_BYTES]
            offset = _expect(UploadFrom, self.call(ReleaseChunk(digest, offset, chunk))).offset
        ceremony = Ceremony(self._keys, passphrase())
        targets = self._sign(ceremony, data, digest)
        info = _expect(ReleaseInfo, self.call(CommitRelease(digest, targets)))
        if targets:
            ceremony.keep_targets(targets)
        return info

    def _sign(self, ceremony: Ceremony, data: bytes, digest: str) -> bytes:
        """The next image targets; nothing for a bundle that is in them, or that the hub will refuse by itself."""
        current, now = self.file("image/targets.json"), datetime.now(UTC)
        try:
            bundle = verify_signed(data, TrustedKeys.load(self._keys / TRUSTED_FILE))
        except BundleError:
            return b""
        return ceremony.sign_release(current, digest, len(data), facts_of(bundle.manifest), now) or b""

    def file(self, name: str) -> bytes:
        """A file of a repository, whole; raises FileNotFoundError."""
        data = b""
        while True:
            chunk = _expect(FileChunk, self.call(AskFile(name, len(data))))
            if not chunk.found:
                raise FileNotFoundError(errno.ENOENT, "the hub has no such file", name)
            data += chunk.data
            if not chunk.data or len(data) >= chunk.size_bytes:
                return data

    def releases(self) -> tuple[ReleaseInfo, ...]:
        """The catalogue, newest first."""
        return _expect(ReleaseList, self.call(ListReleases())).releases

    def check_plan(self, plan: bytes) -> PlanView:
        """Who would get what, and what is missing."""
        return _expect(PlanView, self.call(CheckPlan(plan)))

    def approve(self, plan: bytes, approval: bytes) -> PlanView:
        """Hand in a person's signature under a plan."""
        return _expect(PlanView, self.call(ApprovePlan(plan, approval)))

    def act(self, act: bytes, plan: bytes = b"") -> RolloutView:
        """Hand in what a person wants done to a rollout; to start one, with its plan."""
        return _expect(RolloutView, self.call(ActOnRollout(act, plan)))

    def audit(self, first_seq: int = 1) -> Iterator[AuditEntry]:
        """The audit log from an entry on."""
        while entries := _expect(AuditPage, self.call(AskAudit(first_seq))).entries:
            yield from entries
            first_seq = entries[-1].seq + 1

    def rollout(self, rollout: int = 0) -> RolloutView:
        """One rollout, the newest for 0."""
        return _expect(RolloutView, self.call(AskRollout(rollout)))

    def act_on_fleet(self, act: bytes, voucher: bytes = b"") -> MembersView:
        """Hand in whom a person lets in or cuts off; what is known of them then."""
        return _expect(MembersView, self.call(ActOnFleet(act, voucher)))

    def members(self, name: str = "") -> MembersView:
        """Who may connect, and which tokens are out; of one name, or of everybody."""
        return _expect(MembersView, self.call(AskMembers(name)))

    def order_erasure(self, act: bytes) -> ErasuresView:
        """Hand in what a person wants erased; the order as the hub has it."""
        return _expect(ErasuresView, self.call(OrderErasure(act)))

    def erasures(self, robot: str = "") -> ErasuresView:
        """Orders for erasure and what became of them, newest first."""
        return _expect(ErasuresView, self.call(AskErasures(robot)))

    def fleet(self) -> FleetView:
        """Every robot as the hub sees it."""
        return _expect(FleetView, self.call(AskFleet()))


def _expect(kind: type[T], answer: object) -> T:
    if not isinstance(answer, kind):
        raise RefusedByHubError(f"expected {kind.__name__}, the hub answered {type(answer).__name__}")
    return answer
