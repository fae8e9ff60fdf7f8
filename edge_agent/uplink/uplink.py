"""Sends the log to the hub, in order, in bounded flight; what is acknowledged is on the hub's disk.

Whether that is so is audited with every Welcome: the hub says there what it has. It may not have less than it
acknowledged before, to this process or the one before it. What it forgot is an incident, and is sent again.
And now and then it has to prove what it says (``audit``).
"""

from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from contracts.atomic import write_atomically
from contracts.messages import RECORDS_MAX_BYTES, RECORDS_MAX_COUNT, Ack, FromRobot, Records
from edge_agent.recorder.recorder import Recorder
from edge_agent.uplink.audit import Audit
from edge_agent.uplink.cursor import LogCursor

IN_FLIGHT_MAX = 4
ACKED_FILE = "acked.json"
SAVE_INTERVAL_S = 1.0
UNWRITTEN = "hub_acked_unwritten"
"""Event: the hub says that it has what nobody has written yet."""
BATCH_BYTES_MAX = min(RECORDS_MAX_BYTES, 128 * 1024)


class AckedPosition(msgspec.Struct, frozen=True):
    """How far the hub had acknowledged when this was last written down; only to be shown."""

    log_id: str
    acked_seq: int


class Uplink:
    """The sending side of one robot's log."""

    def __init__(
        self, recorder: Recorder, send: Callable[[FromRobot], bool], audit: Audit | None = None
    ) -> None:
        """``send`` returns False when the message was not taken."""
        self.audit = audit
        self._recorder = recorder
        self._send = send
        self._cursor = LogCursor(recorder.folder)
        self._in_flight: deque[int] = deque()
        self._held: Records | None = None
        self._saved = (0, 0)
        self._path = recorder.folder / ACKED_FILE
        known = read_acked(recorder.folder)
        self._promised = known.acked_seq if known and known.log_id == recorder.log_id else 0
        self._told_unwritten = False

    def on_welcome(self, durable_seq: int) -> None:
        """Go on after what the hub has; a hub that has more than there ever was here gets a new log."""
        if durable_seq > self._recorder.last_seq:
            self._recorder.begin_new_log()
            durable_seq = self._promised = 0
        if durable_seq < self._promised:
            self._recorder.hub_forgot(durable_seq + 1, self._promised)
        self._promised = durable_seq
        self._recorder.acked_seq = durable_seq
        self._cursor.seek(self._recorder.log_id, durable_seq + 1)
        self._in_flight.clear()
        self._held = None

    def on_ack(self, ack: Ack) -> None:
        """The hub has everything up to there."""
        if ack.log_id != self._recorder.log_id:
            return
        if ack.durable_seq > self._recorder.last_seq and not self._told_unwritten:
            self._told_unwritten = True
            self._recorder.event(UNWRITTEN, acked_seq=ack.durable_seq, last_seq=self._recorder.last_seq)
        self._recorder.acked_seq = max(
            self._recorder.acked_seq, min(ack.durable_seq, self._recorder.last_seq)
        )
        self._promised = self._recorder.acked_seq
        while self._in_flight and self._in_flight[0] <= ack.durable_seq:
            self._in_flight.popleft()

    def step(self, now_ns: int) -> None:
        """Send what is durable here and not yet sent, while the flight has room."""
        while len(self._in_flight) < IN_FLIGHT_MAX:
            batch = self._held or self._next_batch()
            if batch is None:
                break
            self._held = None
            if not self._send(batch):
                self._held = batch
                break
            self._in_flight.append(batch.first_seq + batch.count - 1)
            if self.audit is not None:
                self.audit.sent(batch)
        if self.audit is not None:
            self.audit.step(now_ns, self._recorder.log_id, self._recorder.acked_seq)
        if now_ns - self._saved[0] >= SAVE_INTERVAL_S * 1e9 and self._saved[1] != self._recorder.acked_seq:
            self._saved = (now_ns, self._recorder.acked_seq)
            self.save()

    def erased(self) -> None:
        """Something was erased from the log: what was read and not sent yet is read again, nothing of it is kept."""
        first_seq = self._held.first_seq if self._held else self._cursor.next_seq
        self._held = None
        self._cursor.seek(self._recorder.log_id, first_seq)
        if self.audit is not None:
            self.audit.forget()

    def _next_batch(self) -> Records | None:
        first, count, frames = self._cursor.read(
            self._recorder.durable_seq, RECORDS_MAX_COUNT, BATCH_BYTES_MAX
        )
        return Records(self._recorder.log_id, first, count, frames) if count else None

    def save(self) -> None:
        """Write down how far the hub has acknowledged, for `outrider logs`."""
        position = AckedPosition(self._recorder.log_id, self._recorder.acked_seq)
        try:
            write_atomically(self._path, msgspec.json.encode(position), durable=False)
        except OSError:
            self._recorder.disk_errors += 1

    @property
    def unsent(self) -> int:
        """Records that the hub has not acknowledged."""
        return self._recorder.last_seq - self._recorder.acked_seq


def read_acked(folder: Path) -> AckedPosition | None:
    """The position last written down; None when there is none."""
    try:
        return msgspec.json.decode((folder / ACKED_FILE).read_bytes(), type=AckedPosition)
    except (OSError, msgspec.MsgspecError):
        return None
