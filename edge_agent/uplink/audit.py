"""Asks the hub, now and then, to prove that it still has what it acknowledged.

Of all batches sent since the last audit one is kept, drawn at random. When its time has come the hub must name the
SHA-256 of a fresh nonce and those very frames, which it can only from its disk. No answer is no verdict: a hub that is
busy is asked again. A wrong one is an incident; the hub cannot be healed from here, somebody must look at it.
"""

import hashlib
import random
import secrets
from collections.abc import Callable

from contracts.messages import AskStored, FromRobot, Records, Stored
from contracts.trust import NONCE_BYTES

AUDIT_INTERVAL_S = 600.0
ANSWER_MAX_S = 30.0
"""After that the same is asked again."""
FAILED = "hub_audit_failed"


def proof(nonce: bytes, frames: bytes) -> str:
    """What whoever has the frames can say about them."""
    return hashlib.sha256(nonce + frames).hexdigest()


class Audit:
    """Of one uplink. Keeps one batch in memory, 128 KiB at most.

    Args:
        send: to the hub; False when it was not taken.
        note: an event into the robot's log.
        seed: which batches are drawn.
        interval_s: between two audits.
    """

    def __init__(
        self,
        send: Callable[[FromRobot], bool],
        note: Callable[..., None],
        seed: int,
        interval_s: float = AUDIT_INTERVAL_S,
    ) -> None:
        self._send, self._note, self._random = send, note, random.Random(seed)
        self._interval_ns = int(interval_s * 1e9)
        self._sample: Records | None = None
        self._seen = 0
        self._began_ns: int | None = None
        self._nonce = b""
        self._asked_ns = 0
        self.passed = self.failed = 0

    def sent(self, batch: Records) -> None:
        """A batch is on its way: the k-th of an interval is the one that is kept with probability 1/k."""
        if self._nonce:
            return
        self._seen += 1
        if self._random.random() * self._seen < 1.0:
            self._sample = batch

    def step(self, now_ns: int, log_id: str, acked_seq: int) -> None:
        """Ask, when it is time and the hub has acknowledged the batch."""
        if self._began_ns is None:
            self._began_ns = now_ns
        sample = self._sample
        if sample is not None and sample.log_id != log_id:
            self._end(now_ns)
            return
        if sample is None or now_ns - self._began_ns < self._interval_ns:
            return
        if acked_seq < sample.first_seq + sample.count - 1:
            return
        if self._nonce and now_ns - self._asked_ns < ANSWER_MAX_S * 1e9:
            return
        nonce = secrets.token_bytes(NONCE_BYTES)
        if self._send(AskStored(sample.log_id, sample.first_seq, sample.count, nonce)):
            self._nonce, self._asked_ns = nonce, now_ns

    def answered(self, answer: Stored, now_ns: int) -> None:
        """Hold the hub's answer against the batch."""
        sample = self._sample
        if sample is None or not self._nonce or answer.nonce != self._nonce:
            return
        if answer.erased:
            pass  # somebody had them erased there; the hub's audit log says who
        elif (answer.count, answer.proof) == (sample.count, proof(self._nonce, sample.frames)):
            self.passed += 1
        else:
            self.failed += 1
            last = sample.first_seq + sample.count - 1
            self._note(FAILED, first_seq=sample.first_seq, last_seq=last, count=answer.count)
        self._end(now_ns)

    def forget(self) -> None:
        """Keep no batch: something of it may have been erased here."""
        self._sample, self._nonce, self._seen = None, b"", 0

    def _end(self, now_ns: int) -> None:
        self._sample, self._nonce, self._seen, self._began_ns = None, b"", 0, now_ns
