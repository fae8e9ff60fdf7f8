"""A mirror's way up: one thread that asks the hub, or the mirror before it, verifies, and puts into the store.

It speaks as a robot does, with a key of the allow-list: the image repository and bundles are the same for everybody.
"""

import contextlib
import queue
import secrets
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zmq
from tuf.api.exceptions import DownloadError, DownloadHTTPError, RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Timestamp
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from contracts.errors import MessageError
from contracts.keyring import CurvePair
from contracts.messages import (
    HELLO_FIRST,
    MESSAGE_MAX_BYTES,
    Chunk,
    FetchChunk,
    FetchFile,
    FileChunk,
    FromHub,
    FromRobot,
    Hello,
    Refused,
    Wait,
    Welcome,
    decode_from_hub,
    encode,
)
from contracts.observation import ROUTING_LAYOUT
from contracts.trust import (
    IMAGE,
    ROOT_MAX_BYTES,
    ROOT_ROTATIONS_MAX,
    SNAPSHOT_MAX_BYTES,
    TARGETS_MAX_BYTES,
    TIMESTAMP_MAX_BYTES,
    TrustError,
    check_root,
    target_path,
)
from fleet_hub.limits import HANDSHAKE_MAX_MS
from fleet_hub.mirror.store import MirrorStore

ANSWER_MAX_S = 10.0
ASKED_MAX = 3
SILENT_MAX_S = 2.0
WANTS_MAX = 16


class UpstreamError(Exception):
    """No answer from upstream, or a refusal."""


class Upstream:
    """One connection up; used by one thread."""

    def __init__(self, endpoint: str, name: str, pair: CurvePair, server: str) -> None:
        """Nothing is said yet; ``server`` is the public key of whoever is there."""
        self._endpoint, self._pair, self._server = endpoint, pair, server
        layout = ROUTING_LAYOUT.hash()
        self._hello = Hello(name, secrets.token_hex(16), secrets.token_hex(16), 0, "mirror", layout, "", "")
        self.heard_ns = 0
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket = self._open()

    def _open(self) -> Any:
        socket = self._context.socket(zmq.DEALER)
        socket.linger = 0
        socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_MAX_BYTES)
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MAX_MS)
        socket.curve_publickey, socket.curve_secretkey = (
            self._pair.public.encode(),
            self._pair.secret.encode(),
        )
        socket.curve_serverkey = self._server.encode()
        socket.connect(self._endpoint)
        return socket

    def ask(self, message: FromRobot, *kinds: type[FromHub]) -> FromHub:
        """The answer, of one of these kinds; says Hello where upstream does not know this connection."""
        for _ in range(ASKED_MAX):
            self._socket.send(encode(message))
            end_s = time.monotonic() + ANSWER_MAX_S
            while (left_ms := int((end_s - time.monotonic()) * 1000)) > 0 and self._socket.poll(left_ms):
                with contextlib.suppress(MessageError):
                    answer = decode_from_hub(self._socket.recv())
                    self.heard_ns = time.monotonic_ns()
                    if isinstance(answer, Refused) and answer.code == HELLO_FIRST:
                        self._socket.send(encode(self._hello))
                    elif isinstance(answer, Refused):
                        raise UpstreamError(f"refused: {answer.reason}")
                    elif isinstance(answer, Welcome):
                        self._socket.send(encode(message))
                    elif isinstance(answer, kinds):
                        return answer
            self._socket.close()
            self._socket = self._open()
        raise UpstreamError(f"no answer from {self._endpoint} within {ASKED_MAX * ANSWER_MAX_S:g} s")

    def close(self) -> None:
        """Hang up."""
        self._socket.close()
        self._context.term()


class _Fetcher(FetcherInterface):
    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def _fetch(self, url: str) -> Iterator[bytes]:
        first = self._ask(url, 0)
        if not first.found:
            raise DownloadHTTPError(f"no {url}", 404)
        return self._rest(first)

    def _rest(self, chunk: FileChunk) -> Iterator[bytes]:
        offset = 0
        while True:
            yield chunk.data
            offset += len(chunk.data)
            if not chunk.data or offset >= chunk.size_bytes:
                return
            chunk = self._ask(chunk.name, offset)

    def _ask(self, name: str, offset: int) -> FileChunk:
        answer = self._upstream.ask(FetchFile(name, offset), FileChunk)
        assert isinstance(answer, FileChunk)
        if (answer.name, answer.offset) != (name, offset):
            raise UpstreamError(f"asked for {name} from {offset}, came {answer.name} from {answer.offset}")
        return answer


class Carrier(threading.Thread):
    """Refreshes the image repository and fetches bundles, when it is asked to."""

    def __init__(self, store: MirrorStore, upstream: Upstream, bootstrap: bytes) -> None:
        """``bootstrap`` is the image root that the mirror started from."""
        super().__init__(name="upstream", daemon=True)
        self._store, self._upstream, self._first_root = store, upstream, bootstrap
        self._wants: queue.Queue[str] = queue.Queue(WANTS_MAX)
        self._wanted: dict[str, int] = {}
        self._stopping = False
        self._targets: Updater | None = None
        self.begun = self.ended = self.good = 0
        """Numbers of the refresh that began, ended, went well last."""

    def want(self, what: str) -> bool:
        """A bundle's digest, or "" for a refresh; False when too much is wanted already."""
        if what in self._wanted:
            return True
        try:
            self._wanted[what] = time.monotonic_ns()
            self._wants.put_nowait(what)
        except queue.Full:
            del self._wanted[what]
            return False
        return True

    def coming(self, digest: str) -> bool:
        """Whether a bundle that is wanted is on its way: upstream speaks, or has just been asked."""
        since_ns = max(self._wanted.get(digest, 0), self._upstream.heard_ns)
        return time.monotonic_ns() - since_ns < SILENT_MAX_S * 1e9

    def stop(self) -> None:
        """End after what is at hand."""
        self._stopping = True

    def run(self) -> None:
        """Work until stopped."""
        while not self._stopping:
            try:
                what = self._wants.get(timeout=0.2)
            except queue.Empty:
                continue
            if not what:  # who asks from now on needs another one
                self._wanted.pop(what, None)
            try:
                self._carry(what)
            except (UpstreamError, RepositoryError, DownloadError, TrustError, OSError) as error:
                print(f"outrider mirror: {what[:12] or 'image'}: {error}", file=sys.stderr, flush=True)
            if what:
                self._wanted.pop(what, None)
            else:
                self.ended = self.begun
        self._upstream.close()

    def _carry(self, what: str) -> None:
        if not what:
            self.begun += 1
            self._refresh()
            self.good = self.begun
            return
        target = self._listed(what)
        if target is None:
            self._refresh()
            target = self._listed(what)
        if target is not None and self._store.possible(target):
            self._fetch(what, target)

    def _listed(self, digest: str) -> TargetFile | None:
        return self._targets.get_targetinfo(target_path(digest)) if self._targets else None

    def _refresh(self) -> None:
        """Verify the image repository as it is upstream, then serve it."""
        config = UpdaterConfig(
            max_root_rotations=ROOT_ROTATIONS_MAX,
            max_delegations=0,
            root_max_length=ROOT_MAX_BYTES,
            timestamp_max_length=TIMESTAMP_MAX_BYTES,
            snapshot_max_length=SNAPSHOT_MAX_BYTES,
            targets_max_length=TARGETS_MAX_BYTES,
        )
        cache = self._store.cache
        updater = Updater(
            str(cache), IMAGE, fetcher=_Fetcher(self._upstream), config=config, bootstrap=self._first_root
        )
        updater.refresh()
        files = {path.name: path.read_bytes() for path in (cache / "root_history").glob("*.root.json")}
        for data in files.values():
            check_root(IMAGE, Metadata[Root].from_bytes(data).signed)
        files["timestamp.json"] = (cache / "timestamp.json").read_bytes()
        named = Metadata[Timestamp].from_bytes(files["timestamp.json"]).signed.snapshot_meta.version
        files[f"{named}.snapshot.json"] = snapshot = (cache / "snapshot.json").read_bytes()
        version = Metadata[Snapshot].from_bytes(snapshot).signed.meta["targets.json"].version
        files[f"{version}.targets.json"] = (cache / "targets.json").read_bytes()
        self._store.put_image(files)
        self._targets = updater

    def _fetch(self, digest: str, target: TargetFile) -> None:
        """A bundle, from where the last attempt ended."""
        part: Path = self._store.staging / f"{digest}.part"
        offset = part.stat().st_size if part.exists() else 0
        if offset > target.length:
            part.unlink()
            offset = 0
        with part.open("ab") as file:
            while offset < target.length and not self._stopping:
                answer = self._upstream.ask(FetchChunk(digest, offset), Chunk, Wait)
                if isinstance(answer, Wait):
                    time.sleep(answer.wait_ms / 1000)
                elif isinstance(answer, Chunk) and (answer.digest, answer.offset) == (digest, offset):
                    if not answer.data or offset + len(answer.data) > target.length:
                        raise UpstreamError("upstream does not have it as it was signed")
                    file.write(answer.data)
                    offset += len(answer.data)
        if offset == target.length and not self._store.accept(part, target):
            raise UpstreamError("what came is not what was signed; fetched again when it is asked for")
